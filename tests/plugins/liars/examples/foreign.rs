//! A sound library that has nothing to do with pajamas.

/// Something to export.
#[unsafe(no_mangle)]
pub extern "C" fn answer() -> i32 {
    42
}
