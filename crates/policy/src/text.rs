//! Text from outside, made fit to be shown.

use std::borrow::Cow;

use url::Url;

/// One line of at most `max_chars` characters: control characters become spaces, what is cut off
/// becomes `…`. A library's error may hold the URL that it asked, so users and passwords of URLs become `***`.
pub fn one_line(text: &str, max_chars: usize) -> String {
    let text = without_passwords(text);
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

/// `text` with `***` in place of what stands before the `@` of a URL.
fn without_passwords(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut pieces = text.split("://");
    shown.extend(pieces.next());
    for piece in pieces {
        let ends =
            |c: char| matches!(c, '/' | '?' | '#' | '"' | '\'' | '<' | '>') || c.is_whitespace();
        let (authority, rest) = piece.split_at(piece.find(ends).unwrap_or(piece.len()));
        shown.push_str("://");
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                shown.push_str("***@");
                shown.push_str(host);
            }
            None => shown.push_str(authority),
        }
        shown.push_str(rest);
    }
    Cow::Owned(shown)
}

/// `scheme://host[:port]` for messages: what else a URL has may be secret, as a password or a signature is.
pub fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
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
    fn passwords_of_urls_are_masked_before_anything_is_cut() {
        for (text, shown) in [
            (
                "proxy socks5h://hugo:hunter2@proxy.corp:1080 is no proxy",
                "proxy socks5h://***@proxy.corp:1080 is no proxy",
            ),
            (
                "error sending request for url (http://u:p@ss@s3.corp/a@b): \"https://t@x\"",
                "error sending request for url (http://***@s3.corp/a@b): \"https://***@x\"",
            ),
            ("://", "://"),
            ("http://a.io/x u@b", "http://a.io/x u@b"),
            ("nginx@sha256:00", "nginx@sha256:00"),
        ] {
            assert_eq!(one_line(text, 100), shown);
        }
        let cut = one_line("asking http://hugo:hunter2@proxy.corp", 24);
        assert_eq!(cut, "asking http://***@proxy.…");
    }

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
