//! `pajamas_plugin_probe_v1`: plain data that a host reads before it trusts anything else in a library.

use crate::{PluginError, Result};

/// Marks the symbol as ours.
pub const PROBE_MAGIC: [u8; 8] = *b"PAJAMAS1";

/// Text in the plugin's read-only memory. Plugins are never unloaded, so it lives for ever.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ProbeText {
    ptr: *const u8,
    len: usize,
}

impl ProbeText {
    const fn new(text: &'static str) -> Self {
        Self { ptr: text.as_ptr(), len: text.len() }
    }
}

/// What `pajamas_plugin_probe_v1` points at. Grows by appending; `struct_size` says how much of it is there.
#[repr(C)]
pub struct ProbeV1 {
    magic: [u8; 8],
    struct_size: u32,
    abi_major: u16,
    abi_minor: u16,
    /// 1 when built with `panic = "unwind"`.
    panic_unwind: u32,
    rustc: ProbeText,
    target: ProbeText,
    name: ProbeText,
    version: ProbeText,
}

// SAFETY: read-only data that only holds pointers to `'static` text.
unsafe impl Sync for ProbeV1 {}

/// What the probe symbol says, as text of the host's own.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ProbeReport {
    /// Major version of the ABI the plugin was built against.
    pub abi_major: u16,
    /// Minor version of it.
    pub abi_minor: u16,
    /// Whether panics unwind in it: without that they cannot be caught.
    pub panic_unwind: bool,
    /// The compiler.
    pub rustc: String,
    /// The target triple.
    pub target: String,
    /// The plugin's name.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl ProbeV1 {
    /// Bytes of the fields that every plugin has.
    const SIZE_1_0: usize = std::mem::offset_of!(Self, version) + size_of::<ProbeText>();

    /// The probe of the crate that expands `export_plugin!`.
    #[doc(hidden)]
    pub const fn new(name: &'static str, version: &'static str) -> Self {
        Self {
            magic: PROBE_MAGIC,
            struct_size: size_of::<Self>() as u32,
            abi_major: ABI_VERSION.0,
            abi_minor: ABI_VERSION.1,
            panic_unwind: cfg!(panic = "unwind") as u32,
            rustc: ProbeText::new(env!("PAJAMAS_RUSTC")),
            target: ProbeText::new(env!("PAJAMAS_TARGET")),
            name: ProbeText::new(name),
            version: ProbeText::new(version),
        }
    }

    /// Reads a probe that another library exports.
    ///
    /// # Safety
    /// `probe` points at readable memory of at least the size of this struct that starts with the fields above
    /// when the magic matches, and stays mapped.
    ///
    /// # Errors
    /// `plugin-probe-invalid` when the magic or the size is wrong: a symbol of the same name, but not ours.
    pub unsafe fn read(probe: *const ProbeV1) -> Result<ProbeReport> {
        let invalid = |why: &str| PluginError::new("plugin-probe-invalid", format!("the probe symbol {why}"));
        // SAFETY: the caller vouches for the memory.
        let probe = unsafe { probe.as_ref() }.ok_or_else(|| invalid("is null"))?;
        if probe.magic != PROBE_MAGIC {
            return Err(invalid("does not begin with the magic bytes PAJAMAS1"));
        }
        // Fields appended later are read only where `struct_size` reaches them.
        if (probe.struct_size as usize) < Self::SIZE_1_0 {
            return Err(invalid("is smaller than that of ABI 1.0"));
        }
        let text = |t: ProbeText| {
            if t.ptr.is_null() || t.len > 1024 {
                return Err(invalid("holds text that cannot be read"));
            }
            // SAFETY: the magic and the size match, so the fields are ours: pointer and length of static text.
            let bytes = unsafe { std::slice::from_raw_parts(t.ptr, t.len) };
            Ok(String::from_utf8_lossy(bytes).into_owned())
        };
        Ok(ProbeReport {
            abi_major: probe.abi_major,
            abi_minor: probe.abi_minor,
            panic_unwind: probe.panic_unwind == 1,
            rustc: text(probe.rustc)?,
            target: text(probe.target)?,
            name: text(probe.name)?,
            version: text(probe.version)?,
        })
    }
}

/// Major and minor version of the ABI: those of this crate.
pub const ABI_VERSION: (u16, u16) =
    (number(env!("CARGO_PKG_VERSION_MAJOR")), number(env!("CARGO_PKG_VERSION_MINOR")));

const fn number(text: &str) -> u16 {
    let bytes = text.as_bytes();
    let (mut value, mut i) = (0u16, 0);
    while i < bytes.len() {
        value = value * 10 + (bytes[i] - b'0') as u16;
        i += 1;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_wrote() {
        static PROBE: ProbeV1 = ProbeV1::new("mine", "1.2.3");
        // SAFETY: a valid probe in this very binary.
        let report = unsafe { ProbeV1::read(&raw const PROBE) }.unwrap();
        assert_eq!((report.name.as_str(), report.version.as_str()), ("mine", "1.2.3"));
        assert_eq!((report.abi_major, report.abi_minor), ABI_VERSION);
        assert!(report.rustc.starts_with("rustc "));
        assert!(report.panic_unwind);
    }

    #[test]
    fn refuses_foreign_symbols() {
        let mut probe = ProbeV1::new("mine", "1.2.3");
        probe.magic[0] = b'X';
        // SAFETY: a local value of the right type.
        assert_eq!(unsafe { ProbeV1::read(&raw const probe) }.unwrap_err().code, "plugin-probe-invalid");
        // SAFETY: null is handled.
        assert!(unsafe { ProbeV1::read(std::ptr::null()) }.is_err());
    }
}
