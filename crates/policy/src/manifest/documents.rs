//! A manifest's text as documents.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::{Place, Problem};
use crate::yaml::{Documents, Limits, Node, Position, YamlError};

/// `kubectl get -A -o yaml` of a large cluster is one document.
const LIMITS: Limits = Limits {
    nodes: 2_000_000,
    depth: 128,
    repeated_keys: true,
};

/// `text` without the byte order marks that files begin with: it may be several files, one after another.
pub(super) fn without_marks(text: &str) -> Cow<'_, str> {
    const MARK: char = '\u{feff}';
    let text = text.strip_prefix(MARK).unwrap_or(text);
    match text.contains("\n\u{feff}") {
        true => text.replace("\n\u{feff}", "\n").into(),
        false => text.into(),
    }
}

/// The documents of `text`, up to the first that can't be read.
pub(super) fn of(text: &str) -> Box<dyn Iterator<Item = Result<Node, Problem>> + '_> {
    match json_starts(text) {
        // YAML has no way to say that another document begins without `---`.
        Some(starts) => {
            let ends = starts.clone().into_iter().skip(1).chain([text.len()]);
            let parts = starts.into_iter().zip(ends);
            Box::new(parts.flat_map(|(start, end)| {
                let before = text.get(..start).unwrap_or_default();
                documents(
                    text,
                    text.get(start..end).unwrap_or_default(),
                    lines(before),
                )
            }))
        }
        None => Box::new(documents(text, text, 0)),
    }
}

/// `part` of `text`, which begins after that many lines.
fn documents<'a>(
    text: &'a str,
    part: &'a str,
    lines_before: usize,
) -> impl Iterator<Item = Result<Node, Problem>> + 'a {
    Documents::new(part, LIMITS).map(move |document| match document {
        Ok(mut node) => {
            if lines_before > 0 {
                shift(&mut node, lines_before);
            }
            Ok(node)
        }
        Err(mut error) => {
            error.position.line += lines_before;
            Err(problem(text, error))
        }
    })
}

/// Where the JSON documents of a text begin that is several of them with nothing but space between;
/// None where it is one, or isn't JSON.
fn json_starts(text: &str) -> Option<Vec<usize>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut documents = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let mut starts = vec![0];
    while let Some(document) = documents.next() {
        document.ok()?;
        starts.push(documents.byte_offset());
    }
    // After the last document there is only space.
    starts.pop();
    (starts.len() > 1).then_some(starts)
}

fn lines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

fn shift(node: &mut Node, lines: usize) {
    use crate::yaml::Value;

    node.position.line += lines;
    match &mut node.value {
        Value::Null | Value::Scalar(_) => {}
        Value::Sequence(items) => items.iter_mut().for_each(|item| shift(item, lines)),
        Value::Mapping(entries) => {
            for (key, value) in entries {
                key.position.line += lines;
                shift(value, lines);
            }
        }
    }
}

fn problem(text: &str, error: YamlError) -> Problem {
    let YamlError { position, message } = error;
    let Position { line, .. } = position;
    let written = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let message = if written.contains("{{") {
        "this is a template; render it first, such as with `helm template`".to_owned()
    } else {
        format!("neither YAML nor JSON from here on: {message}")
    };
    let place = Place {
        position,
        ..Place::default()
    };
    Problem { place, message }
}
