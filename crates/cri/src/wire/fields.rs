//! Walking over the fields of an encoded message.

use std::ops::Range;

/// Why an encoded message is not edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The message ends inside a field.
    #[error("the message ends inside a field")]
    Truncated,
    /// A varint longer than ten bytes or above 64 bits.
    #[error("a number in the message is longer than protobuf allows")]
    LongVarint,
    /// A field number that is zero or above 2^29-1, or a wire type that does not exist.
    #[error("a field of the message has an impossible tag")]
    BadTag,
    /// A group (wire types 3 and 4), which proto3 does not have.
    #[error("the message contains a group, which is not understood here")]
    Group,
    /// A field that we know with another wire type than it must have.
    #[error("field {0} of the message is not of the expected type")]
    UnexpectedType(u32),
    /// A string field that is not UTF-8.
    #[error("a text field of the message is not UTF-8")]
    NotUtf8,
}

/// How a field's value is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint,
    Fixed64,
    Len,
    Fixed32,
}

/// One field: where it stands and what its value is.
#[derive(Debug, Clone)]
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    pub(crate) wire_type: WireType,
    /// From the first byte of the tag to the end of the value.
    pub(crate) span: Range<usize>,
    /// The value's bytes; of a length-delimited field, without the length.
    pub(crate) value: &'a [u8],
}

impl<'a> Field<'a> {
    /// The value, if it has the wire type that the schema gives the field.
    pub(crate) fn expect(&self, wire_type: WireType) -> Result<&'a [u8], WireError> {
        if self.wire_type == wire_type {
            Ok(self.value)
        } else {
            Err(WireError::UnexpectedType(self.number))
        }
    }
}

/// Iterator over the fields of a message; ends after the first error.
pub(crate) struct Fields<'a> {
    message: &'a [u8],
    position: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn of(message: &'a [u8]) -> Self {
        Self {
            message,
            position: 0,
        }
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self
                .message
                .get(self.position)
                .ok_or(WireError::Truncated)?;
            self.position += 1;
            // The tenth byte has room for one bit.
            if shift == 63 && byte > 1 {
                return Err(WireError::LongVarint);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::LongVarint)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], WireError> {
        let rest = self.message.get(self.position..).unwrap_or_default();
        let length = usize::try_from(length).map_err(|_| WireError::Truncated)?;
        let value = rest.get(..length).ok_or(WireError::Truncated)?;
        self.position += length;
        Ok(value)
    }

    fn field(&mut self) -> Result<Field<'a>, WireError> {
        let start = self.position;
        let tag = u32::try_from(self.varint()?).map_err(|_| WireError::BadTag)?;
        let number = tag >> 3;
        if number == 0 {
            return Err(WireError::BadTag);
        }
        let (wire_type, value) = match tag & 7 {
            0 => {
                let from = self.position;
                self.varint()?;
                let value = self.message.get(from..self.position).unwrap_or_default();
                (WireType::Varint, value)
            }
            1 => (WireType::Fixed64, self.take(8)?),
            2 => {
                let length = self.varint()?;
                (WireType::Len, self.take(length)?)
            }
            3 | 4 => return Err(WireError::Group),
            5 => (WireType::Fixed32, self.take(4)?),
            _ => return Err(WireError::BadTag),
        };
        Ok(Field {
            number,
            wire_type,
            span: start..self.position,
            value,
        })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.message.len() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.position = self.message.len();
        }
        Some(field)
    }
}

/// A string field's value.
pub(crate) fn text(value: &[u8]) -> Result<&str, WireError> {
    std::str::from_utf8(value).map_err(|_| WireError::NotUtf8)
}

/// Appends a length-delimited field.
pub(crate) fn put_field(number: u32, value: &[u8], out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | 2, out);
    put_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(message: &[u8]) -> WireError {
        Fields::of(message).find_map(Result::err).expect("an error")
    }

    #[test]
    fn every_wire_type_is_walked_over() {
        let message = [
            0x08, 0x96, 0x01, // 1: varint 150
            0x11, 1, 2, 3, 4, 5, 6, 7, 8, // 2: fixed64
            0x1a, 0x02, b'h', b'i', // 3: length-delimited
            0x25, 1, 2, 3, 4, // 4: fixed32
        ];
        let fields: Vec<_> = Fields::of(&message).map(Result::unwrap).collect();
        let spans: Vec<_> = fields.iter().map(|f| (f.number, f.span.clone())).collect();
        assert_eq!(spans, [(1, 0..3), (2, 3..12), (3, 12..16), (4, 16..21)]);
        assert_eq!(fields[2].value, b"hi");
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        assert_eq!(error(&[0x0a]), WireError::Truncated);
        assert_eq!(error(&[0x0a, 5, 1]), WireError::Truncated);
        assert_eq!(error(&[0x80]), WireError::Truncated);
        assert_eq!(error(&[0x09, 1]), WireError::Truncated);
        assert_eq!(error(&[0x0d, 1]), WireError::Truncated);
        assert_eq!(
            error(&[
                0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1
            ]),
            WireError::Truncated
        );
        assert_eq!(error(&[0x08; 1]), WireError::Truncated);
        let mut long = vec![0x08];
        long.extend([0x80; 10]);
        long.push(0);
        assert_eq!(error(&long), WireError::LongVarint);
        let mut wide = vec![0x08];
        wide.extend([0xff; 9]);
        wide.push(2);
        assert_eq!(error(&wide), WireError::LongVarint);
        assert_eq!(error(&[0x02, 0]), WireError::BadTag);
        assert_eq!(error(&[0x0e]), WireError::BadTag);
        assert_eq!(error(&[0x0b, 0x0c]), WireError::Group);
        assert_eq!(error(&[0x0c]), WireError::Group);
    }

    #[test]
    fn a_varint_with_needless_bytes_is_still_read() {
        let fields: Vec<_> = Fields::of(&[0x0a, 0x82, 0x00, b'h', b'i'])
            .map(Result::unwrap)
            .collect();
        assert_eq!(fields[0].value, b"hi");
    }
}
