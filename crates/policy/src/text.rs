//! Text from outside, made fit to be shown.

/// One line of at most `max_chars` characters: control characters become spaces, what is cut off
/// becomes `…`.
pub fn one_line(text: &str, max_chars: usize) -> String {
    let mut line: String = text
        .chars()
        .take(max_chars)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(max_chars).is_some() {
        line.push('…');
    }
    line
}

/// A field's name for messages. What doesn't look like one may be a secret that lost its colon or its
/// quotes, and is not shown.
pub(crate) fn shown_name(name: &str) -> &str {
    let looks_like_one = name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if looks_like_one { name } else { "(not shown)" }
}

/// Bytes that are no text: neither UTF-8, nor UTF-16 with a byte order mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is neither UTF-8 text nor UTF-16 text with a byte order mark")]
pub struct NotText;

/// Text from a file or a pipe, as kubectl reads it: UTF-8, or UTF-16 that begins with a byte order mark,
/// as some shells of Windows write it. A byte order mark is not part of the text.
///
/// # Errors
/// The bytes are neither.
pub fn decode(bytes: Vec<u8>) -> Result<String, NotText> {
    let utf16 = |bytes: &[u8], read: fn([u8; 2]) -> u16| {
        let (units, []) = bytes.as_chunks::<2>() else {
            return Err(NotText);
        };
        let units: Vec<u16> = units.iter().map(|unit| read(*unit)).collect();
        String::from_utf16(&units).map_err(|_| NotText)
    };
    match bytes.as_slice() {
        [0xFF, 0xFE, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xFE, 0xFF, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xEF, 0xBB, 0xBF, rest @ ..] => String::from_utf8(rest.to_vec()).map_err(|_| NotText),
        _ => String::from_utf8(bytes).map_err(|_| NotText),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_order_marks() {
        let text = "kind: Pod # ü😀\n";
        let utf16 = |mark: u16, write: fn(u16) -> [u8; 2]| {
            let units = std::iter::once(mark).chain(text.encode_utf16());
            units.flat_map(write).collect::<Vec<u8>>()
        };
        for bytes in [
            text.as_bytes().to_vec(),
            [b"\xEF\xBB\xBF", text.as_bytes()].concat(),
            utf16(0xFEFF, u16::to_le_bytes),
            utf16(0xFEFF, u16::to_be_bytes),
        ] {
            assert_eq!(decode(bytes.clone()).as_deref(), Ok(text), "{bytes:?}");
        }
        for bytes in [
            &b"\xFF\xFEa"[..],
            b"\xFE\xFF\xD8\x00",
            b"a\xFF",
            b"\xEF\xBB\xBF\xFF",
        ] {
            assert_eq!(decode(bytes.to_vec()), Err(NotText), "{bytes:?}");
        }
        assert_eq!(decode(Vec::new()).as_deref(), Ok(""));
    }

    #[test]
    fn text_from_outside_stays_on_one_bounded_line() {
        assert_eq!(one_line("a\r\nb\u{1b}[0m", 20), "a  b [0m");
        assert_eq!(one_line("abcdef", 3), "abc…");
        assert_eq!(one_line("abc", 3), "abc");
    }
}
