//! kubelet's command-line flags inside one string, as systemd splits it.

/// A flag's values in `arguments`, in order: `--name=value` and `--name value`.
pub(crate) fn values(arguments: &str, name: &str) -> Vec<String> {
    values_of(&words(arguments), name)
}

/// The same in words that are split already, as a process has them.
pub fn values_of(words: &[String], name: &str) -> Vec<String> {
    let flag = format!("--{name}");
    let mut found = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        // Go's flags may begin with one dash or two.
        let dashed = word
            .strip_prefix('-')
            .filter(|rest| !rest.starts_with('-'))
            .map(|rest| format!("--{rest}"));
        let word = dashed.as_deref().unwrap_or(word);
        if word == flag {
            found.extend(words.peek().map(|value| (*value).clone()));
        } else if let Some(value) = word.strip_prefix(&flag).and_then(|r| r.strip_prefix('=')) {
            found.push(value.to_owned());
        }
    }
    found
}

/// The last value of a flag that needs none: `--name` is `true`.
pub(crate) fn switch(arguments: &str, name: &str) -> Option<String> {
    let words = words(arguments);
    let mut values = words.iter().filter_map(|word| {
        let word = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
        match word.strip_prefix(name)? {
            "" => Some("true".to_owned()),
            rest => rest.strip_prefix('=').map(str::to_owned),
        }
    });
    values.next_back()
}

/// `arguments` with `--name=value` after everything else.
pub(crate) fn appended(arguments: &str, name: &str, value: &str) -> String {
    let before = arguments.trim_end();
    let space = if before.is_empty() { "" } else { " " };
    format!("{before}{space}--{name}={value}")
}

/// The words of a command line: split at white space outside of quotes, quotes taken off.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match (quote, char) {
            (Some(open), char) if char == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(char);
                word.get_or_insert_default();
            }
            (Some('"') | None, '\\') => {
                word.get_or_insert_default().extend(chars.next());
            }
            (None, char) if char.is_whitespace() => words.extend(word.take()),
            (_, char) => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_flag() {
        for (arguments, found) in [
            ("--a=1 --b=2", vec!["1"]),
            ("--a 1", vec!["1"]),
            ("-a=1", vec!["1"]),
            ("--a='x y' --ab=2 --a=3", vec!["x y", "3"]),
            ("\"--a=1\"", vec!["1"]),
            ("--ab=1", vec![]),
            ("--a", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(values(arguments, "a"), found, "{arguments:?}");
        }
    }

    #[test]
    fn a_flag_that_needs_no_value() {
        for (arguments, value) in [
            ("k3s agent --docker --v 2", Some("true")),
            ("k3s agent -docker", Some("true")),
            ("k3s agent --docker --docker=false", Some("false")),
            ("k3s agent --docker-x docker", None),
        ] {
            assert_eq!(switch(arguments, "docker").as_deref(), value, "{arguments}");
        }
    }

    #[test]
    fn a_flag_goes_last() {
        assert_eq!(appended("", "a", "1"), "--a=1");
        assert_eq!(appended("--b=2 ", "a", "1"), "--b=2 --a=1");
    }
}
