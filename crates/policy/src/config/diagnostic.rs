//! What is wrong with a config, where, and what to write instead.

use std::fmt;

use crate::yaml::{Position, YamlError};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The field can't be used as written.
    Error,
    /// It works, but probably not as meant.
    Warning,
}

/// One finding about one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Where, when the field stands in the text at all.
    pub position: Option<Position>,
    /// The field's path, such as `registries[1].priority`, counted from 1 as in the log.
    pub field: String,
    /// What is wrong and what to write instead. Never holds a credential.
    pub message: String,
}

impl Diagnostic {
    /// A finding that makes the field unusable.
    pub fn error(position: Position, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            position: Some(position),
            field: field.into(),
            message: message.into(),
        }
    }

    /// A text that is not YAML.
    pub(crate) fn not_yaml(error: YamlError) -> Self {
        let message = format!("not valid YAML: {}", error.message);
        Self::error(error.position, "", message)
    }

    /// A finding that doesn't stop anything.
    pub fn warning(
        position: impl Into<Option<Position>>,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Warning,
            position: position.into(),
            field: field.into(),
            message: message.into(),
        }
    }

    /// Whether it is an error.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// One line as compilers print it: `FILE:LINE:COLUMN: error: field: message`.
    pub fn in_file<'a>(&'a self, file: &'a str) -> impl fmt::Display + 'a {
        InFile {
            diagnostic: self,
            file,
        }
    }
}

struct InFile<'a> {
    diagnostic: &'a Diagnostic,
    file: &'a str,
}

impl fmt::Display for InFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file)?;
        if let Some(Position { line, column }) = self.diagnostic.position {
            write!(f, ":{line}:{column}")?;
        }
        let severity = match self.diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, ": {severity}: ")?;
        if !self.diagnostic.field.is_empty() {
            write!(f, "{}: ", self.diagnostic.field)?;
        }
        f.write_str(&self.diagnostic.message)
    }
}
