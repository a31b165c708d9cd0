//! The probe symbol as `pajamas-plugin-api` lays it out, written by hand so that every field can lie.

/// Text in read-only memory.
#[repr(C)]
pub struct Text(*const u8, usize);

/// `pajamas_plugin_probe_v1`.
#[repr(C)]
pub struct Probe {
    /// Eight bytes that mark the symbol.
    pub magic: [u8; 8],
    /// Bytes of this struct.
    pub struct_size: u32,
    /// Major version of the ABI.
    pub abi_major: u16,
    /// Minor version of it.
    pub abi_minor: u16,
    /// 1 for `panic = "unwind"`.
    pub panic_unwind: u32,
    /// Compiler, target, name and version.
    pub texts: [Text; 4],
}

// SAFETY: read-only data that only points at static text.
unsafe impl Sync for Probe {}

impl Probe {
    /// A probe that tells no lie yet.
    pub const fn honest() -> Self {
        const fn text(text: &'static str) -> Text {
            Text(text.as_ptr(), text.len())
        }
        Self {
            magic: *b"PAJAMAS1",
            struct_size: size_of::<Self>() as u32,
            abi_major: 1,
            abi_minor: 0,
            panic_unwind: 1,
            texts: [text("rustc 1.0.0"), text("here"), text("liar"), text(env!("CARGO_PKG_VERSION"))],
        }
    }
}

/// Exports a probe.
#[macro_export]
macro_rules! export_probe {
    ($($field:ident: $value:expr),* $(,)?) => {
        #[unsafe(no_mangle)]
        #[allow(non_upper_case_globals, reason = "a C symbol with a documented name")]
        pub static pajamas_plugin_probe_v1: $crate::Probe =
            $crate::Probe { $($field: $value,)* ..$crate::Probe::honest() };
    };
}
