//! The protobuf wire format in memory: to copy a message with some of its fields changed.
//!
//! For bytes that have been verified: what is malformed ends a message early instead of being reported.

/// A field of a message.
pub(super) struct Field<'a> {
    pub(super) number: u64,
    pub(super) content: Content<'a>,
    /// The whole field with its tag, to be copied as it is.
    pub(super) raw: &'a [u8],
}

/// A field's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl Field<'_> {
    /// The numbers of an integer field: one, or all of a packed list.
    pub(super) fn numbers(&self) -> Vec<u64> {
        match self.content {
            Content::Varint(n) => vec![n],
            Content::Fixed => Vec::new(),
            Content::Bytes(mut packed) => std::iter::from_fn(|| varint(&mut packed)).collect(),
        }
    }
}

/// The fields of a message, in order.
pub(super) fn fields(mut message: &[u8]) -> impl Iterator<Item = Field<'_>> {
    std::iter::from_fn(move || {
        let start = message;
        let tag = varint(&mut message)?;
        let content = match tag & 7 {
            0 => Content::Varint(varint(&mut message)?),
            1 => take(&mut message, 8).map(|_| Content::Fixed)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                Content::Bytes(take(&mut message, length)?)
            }
            5 => take(&mut message, 4).map(|_| Content::Fixed)?,
            _ => return None,
        };
        Some(Field { number: tag >> 3, content, raw: &start[..start.len() - message.len()] })
    })
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(length)?;
    *bytes = tail;
    Some(head)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let [byte] = *take(bytes, 1)?.first_chunk::<1>()?;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Appends a number field.
pub(super) fn put_number(out: &mut Vec<u8>, field: u64, value: u64) {
    put_varint(out, field << 3);
    put_varint(out, value);
}

/// Appends a field of bytes, text or a message.
pub(super) fn put_bytes(out: &mut Vec<u8>, field: u64, content: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut message = Vec::new();
        put_number(&mut message, 3, u64::MAX);
        put_bytes(&mut message, 14, &[0x96, 0x01, 0x05]);
        let read: Vec<_> = fields(&message).collect();
        assert_eq!((read[0].number, read[0].content), (3, Content::Varint(u64::MAX)));
        assert_eq!((read[1].number, read[1].content), (14, Content::Bytes(&[0x96, 0x01, 0x05])));
        assert_eq!(read[1].numbers(), [150, 5]);
        assert_eq!([read[0].raw, read[1].raw].concat(), message);
        assert_eq!(fields(&message[..message.len() - 1]).count(), 1);
    }
}
