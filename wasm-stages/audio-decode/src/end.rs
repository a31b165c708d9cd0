//! Whether a file ends where one of its parts ends.
//!
//! Most readers notice a file that was cut off, because its header says how much sound there is. Those of MP4, AAC, MP3
//! without a count of its frames, and Matroska as browsers record it do not, or cannot tell it from damage: for them the
//! parts are counted out here, without a look at what is in them.

use crate::format::Format;

/// Whether the last part of the file is all there. True where the format's reader finds out by itself.
pub fn is_whole(format: Format, bytes: &[u8]) -> bool {
    match format {
        Format::Mp4 => boxes(bytes),
        Format::Adts => frames(bytes, adts),
        Format::Mp3 => frames(bytes, mpeg),
        Format::Matroska => elements(bytes),
        _ => true,
    }
}

/// ISO 14496-12: a size of 32 bits, a type, and for the size 1 a size of 64 bits; the size 0 reaches to the end.
fn boxes(bytes: &[u8]) -> bool {
    let mut at = 0usize;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let Some(short) = rest.first_chunk::<4>() else { return false };
        let (size, header) = match u32::from_be_bytes(*short) {
            0 => return rest.len() >= 8,
            1 => match rest.get(8..16).and_then(|long| long.first_chunk::<8>()) {
                Some(long) => (u64::from_be_bytes(*long), 16),
                None => return false,
            },
            size => (u64::from(size), 8),
        };
        // A box that is smaller than its header is damaged, not cut off: the reader says so.
        if size < header {
            return true;
        }
        match usize::try_from(size).ok().and_then(|size| at.checked_add(size)) {
            Some(end) if end <= bytes.len() => at = end,
            _ => return false,
        }
    }
    true
}

/// Frames one after the other, each as long as its header says. What is no frame, as tags at the end, ends them.
fn frames(bytes: &[u8], length: fn(&[u8]) -> Option<usize>) -> bool {
    let mut rest = bytes;
    while let Some(length) = length(rest) {
        match rest.get(length..) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    // A header that was cut itself.
    !(rest.len() < 7 && rest.first() == Some(&0xff))
}

/// ADTS (ISO 13818-7): a header of seven bytes with the length of the frame in thirteen bits.
fn adts(bytes: &[u8]) -> Option<usize> {
    let [0xff, second, _, b3, b4, b5, _, ..] = *bytes else { return None };
    let length = usize::from(b3 & 3) << 11 | usize::from(b4) << 3 | usize::from(b5 >> 5);
    (second & 0xf6 == 0xf0 && length >= 7).then_some(length)
}

/// Kilobits per second of layer 3, for MPEG 1 and for MPEG 2 and 2.5 (ISO 11172-3, 13818-3).
const BIT_RATES: [[u32; 15]; 2] = [
    [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
];

/// MPEG audio, layer 3: the length follows from bit rate, sample rate and padding. `None` for a free bit rate, too.
fn mpeg(bytes: &[u8]) -> Option<usize> {
    let [0xff, second, third, _, ..] = *bytes else { return None };
    let (version, layer) = (second >> 3 & 3, second >> 1 & 3);
    let (table, scale, divisor) = match version {
        3 => (0, 144, 1),
        2 => (1, 72, 2),
        0 => (1, 72, 4),
        _ => return None,
    };
    let bit_rate = 1000 * BIT_RATES[table].get(usize::from(third >> 4)).copied().filter(|rate| *rate > 0)?;
    let sample_rate = [44_100, 48_000, 32_000].get(usize::from(third >> 2 & 3))? / divisor;
    let length = scale * bit_rate / sample_rate + u32::from(third >> 1 & 1);
    (second >> 5 == 7 && layer == 1).then_some(length as usize)
}

/// The two elements that may be of unknown size, and are walked into.
const SEGMENT: u64 = 0x1853_8067;
const CLUSTER: u64 = 0x1f43_b675;

/// Matroska: identifiers and sizes of one to eight bytes each (RFC 8794).
fn elements(bytes: &[u8]) -> bool {
    let mut at = 0usize;
    while at < bytes.len() {
        let Some((id, after)) = number(bytes, at, true) else { return false };
        let Some((size, data)) = number(bytes, after, false) else { return false };
        let unknown = size == (1 << (7 * (data - after))) - 1;
        let end = usize::try_from(size).ok().and_then(|size| data.checked_add(size));
        match (id, end) {
            (SEGMENT | CLUSTER, _) if unknown => at = data,
            (SEGMENT | CLUSTER, Some(end)) if end <= bytes.len() => at = data,
            (_, Some(end)) if end <= bytes.len() => at = end,
            _ => return false,
        }
    }
    true
}

/// A number of one to eight bytes, with (`marked`) or without the bit that tells its length, and where it ends.
fn number(bytes: &[u8], at: usize, marked: bool) -> Option<(u64, usize)> {
    let first = *bytes.get(at)?;
    let length = first.leading_zeros() as usize + 1;
    let digits = bytes.get(at..at.checked_add(length)?)?;
    let value = digits.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
    // Nine bytes do not happen: a first byte of zero is no number.
    match (length, marked) {
        (9.., _) => None,
        (_, true) => Some((value, at + length)),
        (_, false) => Some((value & ((1 << (7 * length)) - 1), at + length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_counted_out() {
        let file = b"\0\0\0\x0cftypM4A \0\0\0\x01mdat\0\0\0\0\0\0\0\x12ab";
        for length in 1..file.len() {
            assert_eq!(boxes(&file[..length]), length == 12, "{length} bytes");
        }
        assert!(boxes(file));
        assert!(boxes(b"\0\0\0\0mdat whatever follows"));
        assert!(boxes(b"\0\0\0\x07mdat"));
        assert!(!boxes(b"\0\0\0\x01mdat\xff\xff\xff\xff\xff\xff\xff\xff"));
    }

    #[test]
    fn frames_are_counted_out() {
        let file = [0xff, 0xf1, 0x50, 0x80, 0x01, 0x20, 0xfc, 1, 2];
        assert!(frames(&file, adts) && frames(&[&file[..], &file, b"TAG..."].concat(), adts));
        assert!(!frames(&file[..8], adts) && !frames(&[&file[..], &file[..3]].concat(), adts));
        // 8 kbit/s at 24 kHz are 24 bytes a frame; 128 kbit/s at 44.1 kHz with padding 418.
        assert_eq!(mpeg(b"\xff\xf3\x14\xc4"), Some(24));
        assert_eq!(mpeg(b"\xff\xfb\x92\x44"), Some(418));
        assert_eq!(mpeg(b"\xff\xfb\x02\x44").or(mpeg(b"\xff\xfb\xf2\x44")).or(mpeg(b"TAG.")), None);
    }

    #[test]
    fn elements_of_unknown_size_are_walked_into() {
        let live = b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff\x1f\x43\xb6\x75\xff\xa3\x82ab\xa3\x81c";
        for length in 1..live.len() {
            assert_eq!(elements(&live[..length]), matches!(length, 12 | 17 | 21), "{length} bytes");
        }
        assert!(elements(live));
        assert!(!elements(b"\xa3\x40") && !elements(b"\0\0\0"));
    }
}
