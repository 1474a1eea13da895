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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_stays_on_one_bounded_line() {
        assert_eq!(one_line("a\r\nb\u{1b}[0m", 20), "a  b [0m");
        assert_eq!(one_line("abcdef", 3), "abc…");
        assert_eq!(one_line("abc", 3), "abc");
    }
}
