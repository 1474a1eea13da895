//! Files of `KEY=value` lines as systemd's `EnvironmentFile=` reads them (systemd.exec(5)).
//!
//! A value may be quoted, in part or whole, and continued on the next line by a backslash; a later
//! line of the same name wins. An edit replaces the lines of one assignment and leaves every other byte.

use std::ops::Range;
use std::path::Path;

use crate::Error;

/// One assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The variable.
    pub name: String,
    /// What systemd makes of the value: quotes and continuations resolved.
    pub value: String,
    /// The bytes of its line or lines, without the line end.
    pub span: Range<usize>,
}

/// Where the reader is, as in systemd's own `parse_env_file`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    PreKey,
    Key,
    PreValue,
    Value,
    ValueEscape,
    Single,
    Double,
    DoubleEscape,
    Comment,
    CommentEscape,
}

/// Every assignment of a file, in order. Lines that are none are passed over, as systemd does.
pub fn assignments(text: &str) -> Vec<Assignment> {
    let mut found = Vec::new();
    let mut state = Within::PreKey;
    let mut start = 0;
    let (mut name, mut value) = (String::new(), String::new());
    // Length of the value without the white space at its end, outside of quotes.
    let mut solid = 0;
    for (at, char) in text.char_indices() {
        let line_end = matches!(char, '\n' | '\r');
        match state {
            Within::PreKey if matches!(char, '#' | ';') => state = Within::Comment,
            Within::PreKey if char.is_whitespace() => {}
            Within::PreKey => {
                (state, start) = (Within::Key, at);
                name = char.to_string();
                value.clear();
                solid = 0;
            }
            Within::Key if line_end => state = Within::PreKey,
            Within::Key if char == '=' => state = Within::PreValue,
            Within::Key => name.push(char),
            Within::PreValue | Within::Value if line_end => {
                state = Within::PreKey;
                value.truncate(solid);
                found.extend(assignment(&name, &value, start..at));
            }
            Within::PreValue if char == '\'' => state = Within::Single,
            Within::PreValue if char == '"' => state = Within::Double,
            Within::PreValue | Within::Value if char == '\\' => state = Within::ValueEscape,
            Within::PreValue if char.is_whitespace() => {}
            Within::PreValue | Within::Value => {
                state = Within::Value;
                value.push(char);
                if !char.is_whitespace() {
                    solid = value.len();
                }
            }
            Within::ValueEscape => {
                state = Within::Value;
                if !line_end {
                    value.push(char);
                }
                solid = value.len();
            }
            Within::Single if char == '\'' => state = Within::PreValue,
            Within::Double if char == '"' => state = Within::PreValue,
            Within::Double if char == '\\' => state = Within::DoubleEscape,
            Within::Single | Within::Double => {
                value.push(char);
                solid = value.len();
            }
            Within::DoubleEscape => {
                state = Within::Double;
                if !matches!(char, '"' | '\\' | '`' | '$' | '\n') {
                    value.push('\\');
                }
                if char != '\n' {
                    value.push(char);
                }
                solid = value.len();
            }
            Within::Comment if char == '\\' => state = Within::CommentEscape,
            Within::Comment if line_end => state = Within::PreKey,
            Within::Comment => {}
            Within::CommentEscape => state = Within::Comment,
        }
    }
    if !matches!(
        state,
        Within::PreKey | Within::Key | Within::Comment | Within::CommentEscape
    ) {
        value.truncate(solid);
        found.extend(assignment(&name, &value, start..text.len()));
    }
    found
}

fn assignment(name: &str, value: &str, span: Range<usize>) -> Option<Assignment> {
    let name = name.trim();
    let valid = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    valid.then(|| Assignment {
        name: name.to_owned(),
        value: value.to_owned(),
        span,
    })
}

/// What systemd gives a service for `name`: the last assignment's value.
pub(crate) fn value(text: &str, name: &str) -> Option<String> {
    assignments(text)
        .into_iter()
        .rfind(|assignment| assignment.name == name)
        .map(|assignment| assignment.value)
}

/// `text` with `name` set to `value`: in the place of its last assignment, else on a line of its own at
/// the end.
pub(crate) fn set(text: &str, name: &str, value: &str) -> String {
    let line = format!("{name}={}", quoted(value));
    let last = assignments(text)
        .into_iter()
        .rfind(|assignment| assignment.name == name);
    match last {
        Some(Assignment { span, .. }) => {
            let before = text.get(..span.start).unwrap_or_default();
            let after = text.get(span.end..).unwrap_or_default();
            format!("{before}{line}{after}")
        }
        None if text.is_empty() || text.ends_with('\n') => format!("{text}{line}\n"),
        None => format!("{text}\n{line}\n"),
    }
}

/// `text` of the file `path`, with `name` set to `value` unless it is so already.
///
/// # Errors
/// When systemd would not read it back, as behind a quote that is never closed.
pub(crate) fn with(path: &Path, text: String, name: &str, value: &str) -> Result<String, Error> {
    let reads = |text: &str| self::value(text, name).as_deref() == Some(value);
    if reads(&text) {
        return Ok(text);
    }
    let edited = set(&text, name, value);
    if reads(&edited) {
        return Ok(edited);
    }
    Err(Error::Unsupported(format!(
        "cannot set {name} in {}: a quote that is never closed, or a backslash at a line's end, swallows what follows it; mend that file by hand",
        path.display()
    )))
}

/// A value in double quotes, so that it is read back as it is.
fn quoted(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('"');
    for char in value.chars() {
        if matches!(char, '"' | '\\' | '$' | '`') {
            quoted.push('\\');
        }
        quoted.push(char);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_systemd_reads() {
        for (text, value_read) in [
            ("A=x y", "x y"),
            ("A=\"x y\"", "x y"),
            ("A='x \"y\"'", "x \"y\""),
            ("A=\"x \\\"y\\\"\"", "x \"y\""),
            ("A=--a=1 \\\n  --b=2\n", "--a=1   --b=2"),
            ("A=--a=\"b c\" d", "--a=\"b c\" d"),
            ("A=\"x\" y", "xy"),
            ("B'\nA=1", "1"),
            ("A=\"--a=1 \\\n--b=2\"\n", "--a=1 --b=2"),
            ("  A = x  \n", "x"),
            ("A=1\nA=2\n", "2"),
            ("# A=0\n;A=0\nA=", ""),
            ("# comment \\\nA=0\nA=1", "1"),
            ("A=\"--a='b c'\"", "--a='b c'"),
        ] {
            assert_eq!(value(text, "A").as_deref(), Some(value_read), "{text:?}");
        }
        assert_eq!(value("AB=1\nexport A=1\n#A=2", "A"), None);
    }

    #[test]
    fn an_edit_leaves_every_other_byte() {
        for (before, after) in [
            ("", "A=\"v\"\n"),
            ("B=1", "B=1\nA=\"v\"\n"),
            ("B=1\n", "B=1\nA=\"v\"\n"),
            ("A=\n", "A=\"v\"\n"),
            ("# first\nA=x \\\n y\nB=2\n", "# first\nA=\"v\"\nB=2\n"),
            ("A=1\r\n\tC\nA=2", "A=1\r\n\tC\nA=\"v\""),
        ] {
            assert_eq!(set(before, "A", "v"), after, "{before:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_set_is_read_back(text in "([AB #;]=?[ a\"'\\\\\n]{0,5}\n){0,4}", new in "[ -~]{0,20}") {
            let edited = set(&text, "A", &new);
            // What nobody closed swallows the rest of the file, for systemd too; then nothing can be set.
            let closed = value(&format!("{text}Z=1\n"), "Z") == Some("1".to_owned());
            prop_assume!(closed);
            prop_assert_eq!(value(&edited, "A"), Some(new.clone()));
            prop_assert_eq!(set(&edited, "A", &new), edited);
        }
    }
}
