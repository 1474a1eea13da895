//! Reads typed fields out of a YAML mapping, noting every mistake instead of stopping at the first.

use std::time::Duration;

use super::diagnostic::Diagnostic;
use crate::duration;
use crate::text::shown_name;
use crate::yaml::{Key, Node, Position, Value};

/// A value and where it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub position: Position,
}

/// `true` or `false` in one of the spellings of YAML 1.1; `None` is anything else.
pub(crate) fn switch(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some(true),
        "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// A whole number. One that is too large to be kept is the largest: it is out of range either way.
fn integer(text: &str) -> Option<i64> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    match text.parse::<i64>() {
        Ok(number) => Some(number),
        Err(error) => match error.kind() {
            PosOverflow => Some(i64::MAX),
            NegOverflow => Some(i64::MIN),
            _ => None,
        },
    }
}

/// Whether `value` is a way to write nothing where fields are expected.
pub(crate) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Scalar(text) => text.trim().is_empty(),
        Value::Sequence(items) => items.is_empty(),
        Value::Mapping(_) => false,
    }
}

/// The fields of one mapping. Every getter takes its field away; [`Fields::finish`] warns about
/// what nobody asked for.
pub(crate) struct Fields<'d> {
    path: String,
    entries: Vec<(Key, Node)>,
    known: Vec<&'static str>,
    elsewhere: &'static [&'static str],
    findings: &'d mut Vec<Diagnostic>,
}

impl<'d> Fields<'d> {
    /// Opens `node`, which must be a mapping or nothing. `path` is its place in the config, empty
    /// at the top.
    pub(crate) fn open(
        node: Node,
        path: impl Into<String>,
        findings: &'d mut Vec<Diagnostic>,
    ) -> Self {
        let path = path.into();
        let entries = match node.value {
            Value::Mapping(entries) => entries,
            Value::Null => Vec::new(),
            ref nothing if is_nothing(nothing) => Vec::new(),
            _ => {
                findings.push(Diagnostic::error(
                    node.position,
                    path.clone(),
                    "expected fields (`name: value`)",
                ));
                Vec::new()
            }
        };
        Self {
            path,
            entries,
            known: Vec::new(),
            elsewhere: &[],
            findings,
        }
    }

    /// Names that are fields, but not here.
    pub(crate) fn known_elsewhere(&mut self, names: &'static [&'static str]) {
        self.elsewhere = names;
    }

    /// The field's path for messages.
    pub(crate) fn path(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    pub(crate) fn error(&mut self, name: &str, position: Position, message: impl Into<String>) {
        let path = self.path(name);
        self.findings
            .push(Diagnostic::error(position, path, message));
    }

    /// The field as a node; null and missing are the same.
    pub(crate) fn node(&mut self, name: &'static str) -> Option<Node> {
        self.known.push(name);
        let at = self
            .entries
            .iter()
            .position(|(key, _)| key.name == name)
            .or_else(|| self.miscased(name))?;
        let (_, node) = self.entries.swap_remove(at);
        let is_nothing = match &node.value {
            // An empty list is a list: it takes the place of another one.
            Value::Null => true,
            Value::Scalar(text) => text.trim().is_empty(),
            Value::Sequence(_) | Value::Mapping(_) => false,
        };
        (!is_nothing).then_some(node)
    }

    /// The predecessor's JSON decoder took field names in any case.
    fn miscased(&mut self, name: &str) -> Option<usize> {
        let at = self
            .entries
            .iter()
            .position(|(key, _)| key.name.eq_ignore_ascii_case(name))?;
        let (key, _) = self.entries.get(at)?;
        let message = format!("read as `{name}`; write it so");
        let warning = Diagnostic::warning(key.position, self.path(&key.name), message);
        self.findings.push(warning);
        Some(at)
    }

    /// A scalar's text; empty text is no value.
    pub(crate) fn text(&mut self, name: &'static str) -> Option<Located<String>> {
        let node = self.node(name)?;
        let position = node.position;
        match node.value {
            Value::Scalar(value) => Some(Located { value, position }),
            _ => {
                self.error(name, position, "expected text");
                None
            }
        }
    }

    pub(crate) fn boolean(&mut self, name: &'static str) -> Option<Located<bool>> {
        let text = self.text(name)?;
        let Some(value) = switch(&text.value) else {
            self.error(name, text.position, "expected `true` or `false`");
            return None;
        };
        Some(Located {
            value,
            position: text.position,
        })
    }

    pub(crate) fn integer(&mut self, name: &'static str) -> Option<Located<i64>> {
        let text = self.text(name)?;
        // What was written is never repeated: it may be a password that slipped into the wrong line.
        let Some(value) = integer(text.value.trim()) else {
            self.error(name, text.position, "expected a whole number");
            return None;
        };
        Some(Located {
            value,
            position: text.position,
        })
    }

    /// A duration. A negative one is the default with a warning, as the predecessor had it.
    pub(crate) fn duration(&mut self, name: &'static str) -> Option<Located<Duration>> {
        let text = self.text(name)?;
        match duration::parse(text.value.trim()) {
            Ok(value) => Some(Located {
                value,
                position: text.position,
            }),
            Err(duration::DurationError::Negative) => {
                let path = self.path(name);
                let message = "a duration below zero means nothing; ignored";
                self.findings
                    .push(Diagnostic::warning(text.position, path, message));
                None
            }
            Err(error) => {
                self.error(name, text.position, error.to_string());
                None
            }
        }
    }

    /// A list of nodes. A single scalar counts as a list of one where `lenient` is set.
    pub(crate) fn list(&mut self, name: &'static str, lenient: bool) -> Option<Located<Vec<Node>>> {
        let node = self.node(name)?;
        let position = node.position;
        match node.value {
            Value::Sequence(value) => Some(Located { value, position }),
            Value::Scalar(_) if lenient => Some(Located {
                value: vec![node],
                position,
            }),
            _ => {
                self.error(name, position, "expected a list (`- …`)");
                None
            }
        }
    }

    /// A list of texts, or one text alone.
    pub(crate) fn texts(&mut self, name: &'static str) -> Option<Located<Vec<Located<String>>>> {
        let list = self.list(name, true)?;
        let mut texts = Vec::new();
        for node in list.value {
            let position = node.position;
            match node.value {
                Value::Scalar(value) => texts.push(Located { value, position }),
                _ => self.error(name, position, "expected text"),
            }
        }
        Some(Located {
            value: texts,
            position: list.position,
        })
    }

    /// Warns about every field that was not asked for, with the nearest name that exists.
    pub(crate) fn finish(self) {
        for (key, _) in &self.entries {
            if self.elsewhere.contains(&key.name.as_str()) {
                let message = "is read from the node's own file only, and ignored here";
                let path = self.path(&key.name);
                self.findings
                    .push(Diagnostic::warning(key.position, path, message));
                continue;
            }
            let nearest = self
                .known
                .iter()
                .map(|known| (strsim::damerau_levenshtein(&key.name, known), *known))
                .min()
                .filter(|(distance, known)| *distance <= 1 + known.len() / 3);
            let message = match nearest {
                Some((_, known)) => format!("unknown field, ignored; did you mean `{known}`?"),
                None => "unknown field, ignored".to_owned(),
            };
            self.findings.push(Diagnostic::warning(
                key.position,
                self.path(shown_name(&key.name)),
                message,
            ));
        }
    }
}
