//! Components as the build script packs them: against another one with which they share most of their bytes.

use std::io::{self, Read};

use flate2::read::ZlibDecoder;

/// A component out of what `build.rs` made of it: its own bytes, and copies of `base` between them.
///
/// # Errors
/// When it is damaged, or packed against something else.
pub fn unpack(packed: &[u8], base: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    ZlibDecoder::new(packed).read_to_end(&mut bytes)?;
    assemble(&bytes, base)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the packed stage is damaged"))
}

fn assemble(bytes: &[u8], base: &[u8]) -> Option<Vec<u8>> {
    let (count, rest) = bytes.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    let (copies, mut own) = rest.split_at_checked(count.checked_mul(12)?)?;
    let mut component = Vec::with_capacity(bytes.len());
    for copy in copies.as_chunks::<12>().0 {
        let number = |at: usize| Some(u32::from_le_bytes(copy.get(at..at + 4)?.try_into().ok()?) as usize);
        let (before, rest) = own.split_at_checked(number(0)?)?;
        own = rest;
        component.extend_from_slice(before);
        component.extend_from_slice(base.get(number(4)?..)?.get(..number(8)?)?);
    }
    component.extend_from_slice(own);
    Some(component)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(numbers: &[u32], own: &[u8]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).chain(own.iter().copied()).collect()
    }

    #[test]
    fn own_bytes_and_copies_come_in_turn() {
        let base = b"0123456789";
        let one = packed(&[2, 1, 3, 2, 0, 0, 1], b"abc");
        assert_eq!(assemble(&one, base).unwrap(), b"a340bc");
        assert_eq!(assemble(&packed(&[0], b"own"), &[]).unwrap(), b"own");
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let base = b"0123456789";
        for damaged in [
            packed(&[], b"abc"),
            packed(&[u32::MAX], b""),
            packed(&[1, 0, 9], b""),
            packed(&[1, 9, 0, 1], b"abc"),
            packed(&[1, 0, 9, 2], b""),
            packed(&[1, 0, u32::MAX, u32::MAX], b""),
        ] {
            assert_eq!(assemble(&damaged, base), None, "{damaged:?}");
        }
        assert!(unpack(b"no zlib", base).is_err());
    }
}
