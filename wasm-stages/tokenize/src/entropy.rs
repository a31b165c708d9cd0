//! Random numbers for `tokenizers`, which a stage does not have: it wants some for dropout while training, which nobody
//! does here, and to spread its tables. The same input gives the same output, therefore the numbers are always the same.

use getrandom::Error;

/// What the crate `getrandom` calls, built with `getrandom_backend="custom"`.
///
/// # Safety
/// `destination` must be valid for writes of `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(destination: *mut u8, length: usize) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    unsafe { destination.write_bytes(0x5a, length) };
    Ok(())
}
