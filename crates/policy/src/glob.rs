//! Patterns for image names.

use std::fmt;

use crate::Reference;

/// A pattern for canonical image names: `docker.io/library/*`, `ghcr.io/**`, `**/nginx:1.*`.
///
/// `*` stands for any text without a `/`, `**` for any text, `?` for one character that is no `/`. A pattern
/// that matches the name without tag and digest matches every tag and digest.
#[derive(Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Char(char),
    /// `?`
    One,
    /// `*`
    Segment,
    /// `**`
    All,
}

impl Glob {
    /// Reads a pattern. `None` where it could never match an image name.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let fits = |c: char| c.is_ascii_alphanumeric() || "*?/:@._-[]".contains(c);
        if text.is_empty() || text.len() > 512 || !text.chars().all(fits) {
            return None;
        }
        let mut parts = Vec::new();
        for c in text.chars() {
            match (c, parts.last()) {
                ('*', Some(Part::Segment)) => {
                    parts.pop();
                    parts.push(Part::All);
                }
                ('*', Some(Part::All)) => {}
                ('*', _) => parts.push(Part::Segment),
                ('?', _) => parts.push(Part::One),
                (c, _) => parts.push(Part::Char(c)),
            }
        }
        Some(Self {
            text: text.to_owned(),
            parts,
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it stands for this image.
    pub fn matches(&self, image: &Reference) -> bool {
        let name = format!("{}/{}", image.domain(), image.repository());
        self.fits(&name) || self.fits(&format!("{name}{}", image.suffix()))
    }

    /// One pass over the text with the set of places in the pattern that it may have got to: no pattern
    /// takes longer than its length times the text's.
    fn fits(&self, text: &str) -> bool {
        let end = self.parts.len();
        let mut at = vec![false; end + 1];
        let skip_stars = |at: &mut [bool]| {
            for (number, part) in self.parts.iter().enumerate() {
                if at[number] && matches!(part, Part::Segment | Part::All) {
                    at[number + 1] = true;
                }
            }
        };
        at[0] = true;
        skip_stars(&mut at);
        for c in text.chars() {
            let mut next = vec![false; end + 1];
            for (number, part) in self.parts.iter().enumerate().filter(|(n, _)| at[*n]) {
                match part {
                    Part::Char(wanted) if *wanted == c => next[number + 1] = true,
                    Part::One if c != '/' => next[number + 1] = true,
                    Part::Segment if c != '/' => next[number] = true,
                    Part::All => next[number] = true,
                    _ => {}
                }
            }
            skip_stars(&mut next);
            at = next;
        }
        at[end]
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Glob({:?})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, image: &str) -> bool {
        let glob = Glob::parse(pattern).unwrap();
        glob.matches(&Reference::parse(image).unwrap())
    }

    #[test]
    fn on_canonical_names() {
        for (pattern, image, expected) in [
            ("docker.io/library/*", "nginx:1", true),
            ("docker.io/library/nginx", "nginx:1", true),
            ("docker.io/library/nginx:1", "nginx:1", true),
            ("docker.io/library/nginx:1.*", "nginx:1.27", true),
            ("docker.io/library/nginx:2", "nginx:1", false),
            ("docker.io/*", "nginx", false),
            ("docker.io/**", "nginx", true),
            ("**/nginx", "quay.io/a/b/nginx:1", true),
            ("**nginx", "quay.io/a/b/my-nginx:1", true),
            ("*/a/b", "quay.io/a/b:1", true),
            ("*.io/**", "quay.io/a/b:1", true),
            ("registry.corp:5000/**", "registry.corp:5000/a:1", true),
            ("registry.corp:500?/**", "registry.corp:5000/a:1", true),
            ("registry.corp/**", "registry.corp:5000/a:1", false),
            ("**", "a.io/x", true),
            ("*", "a.io/x", false),
            ("a.io/x", "a.io/xy", false),
        ] {
            assert_eq!(matches(pattern, image), expected, "{pattern} {image}");
        }
    }

    #[test]
    fn what_is_no_pattern() {
        for text in ["", " ", "a b", "a{b}", "ä", &"x".repeat(513)] {
            assert_eq!(Glob::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_and_what_stands_for_any_text(path in "[a-z]{1,5}(/[a-z]{1,5}){0,3}") {
            let image = format!("a.io/{path}");
            prop_assert!(matches(&image, &image));
            prop_assert!(matches("**", &image));
            prop_assert!(matches("a.io/**", &image));
            prop_assert_eq!(matches("a.io/*", &image), !path.contains('/'));
        }
    }
}
