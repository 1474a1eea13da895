//! YAML as a tree that remembers where everything stood.
//!
//! Serde would stop at the first wrong field and forget the lines; the config wants every mistake
//! listed with its place, and a ConfigMap wants one bad field left out and the rest applied. Error
//! texts come from the parser's own messages, which never quote the source (it holds passwords).
//! Manifests are read by the same tree.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span};

use crate::text::shown_name;

/// Place in the text, both counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// One YAML node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) position: Position,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// `null`, `~`, or nothing at all.
    Null,
    /// Any scalar, as its text; what it means is for the field to say.
    Scalar(String),
    Sequence(Vec<Node>),
    Mapping(Vec<(Key, Node)>),
}

/// A mapping's key and its place.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) position: Position,
    pub(crate) name: String,
}

/// A text that is not YAML, or not YAML we accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct YamlError {
    pub(crate) position: Position,
    pub(crate) message: String,
}

/// What a document may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most values of one document, where long text counts as several; bounds what aliases can multiply.
    pub(crate) nodes: usize,
    /// Most mappings and lists inside each other.
    pub(crate) depth: usize,
    /// Whether a mapping may say the same key twice. A person who did that meant one of them; in
    /// what a template made, each is as good as the other.
    pub(crate) repeated_keys: bool,
}

/// A config has some hundred nodes.
const CONFIG: Limits = Limits {
    nodes: 100_000,
    depth: 64,
    repeated_keys: false,
};

/// Text of this length counts as one more value.
const BYTES_PER_NODE: usize = 128;

/// Parses `text`, a config, which is one document. Empty text is a null node.
pub(crate) fn parse(text: &str) -> Result<Node, YamlError> {
    let mut documents = Documents::new(text, CONFIG);
    let null = Node {
        position: Position { line: 1, column: 1 },
        value: Value::Null,
    };
    let first = documents.next().unwrap_or(Ok(null))?;
    // Who writes a second one means it; a `---` at the end means nothing.
    for next in documents {
        let next = next?;
        if !matches!(next.value, Value::Null) {
            let message = "a second document begins here; a config is one document, so remove the `---` before it";
            return Err(refused(next.position, message));
        }
    }
    Ok(first)
}

/// `text` without the byte order mark that some editors put before it.
pub(crate) fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The documents of a text, one after another. Ends at the first error, because nobody can say where
/// the next document begins.
pub(crate) struct Documents<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    limits: Limits,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    ended: bool,
}

impl Iterator for Documents<'_> {
    type Item = Result<Node, YamlError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let document = self.document().transpose();
        self.ended = !matches!(document, Some(Ok(_)));
        document
    }
}

impl<'a> Documents<'a> {
    pub(crate) fn new(text: &'a str, limits: Limits) -> Self {
        Self {
            parser: Parser::new_from_str(without_mark(text)),
            limits,
            anchors: HashMap::new(),
            nodes: 0,
            ended: false,
        }
    }

    fn document(&mut self) -> Result<Option<Node>, YamlError> {
        self.anchors.clear();
        self.nodes = 0;
        loop {
            let (event, span) = self.event()?;
            match event {
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                Event::StreamEnd => return Ok(None),
                event => return self.node(event, &span, 0).map(Some),
            }
        }
    }

    fn event(&mut self) -> Result<(Event<'a>, Span), YamlError> {
        loop {
            match self.parser.next() {
                // Reported since another crate of the binary asks for them by a feature.
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(event)) => return Ok(event),
                Some(Err(error)) => {
                    return Err(YamlError {
                        position: Position {
                            line: error.marker().line(),
                            column: error.marker().col() + 1,
                        },
                        message: error.info(),
                    });
                }
                None => {
                    return Err(YamlError {
                        position: Position::default(),
                        message: "the text ends too early".to_owned(),
                    });
                }
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Node, YamlError> {
        let position = start(span);
        let before = self.nodes;
        self.count(1, position)?;
        self.check_depth(depth, position)?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                self.count(text.len() / BYTES_PER_NODE, position)?;
                let null = style == ScalarStyle::Plain
                    && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL");
                let value = if null {
                    Value::Null
                } else {
                    Value::Scalar(text.into_owned())
                };
                (value, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.sequence(depth)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.mapping(depth)?, anchor),
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor) else {
                    return Err(refused(position, "an alias of something that is not there"));
                };
                let (value, size) = (node.value.clone(), *size);
                self.count(size, position)?;
                self.check_depth(depth + height(&value), position)?;
                return Ok(Node { position, value });
            }
            _ => return Err(refused(position, "not a value")),
        };
        let node = Node { position, value };
        if anchor != 0 {
            let size = self.nodes.saturating_sub(before);
            // The copy that is kept for aliases is memory too.
            self.count(size, position)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut items = Vec::new();
        loop {
            match self.event()? {
                (Event::SequenceEnd, _) => return Ok(Value::Sequence(items)),
                (event, span) => items.push(self.node(event, &span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut merged: Vec<(Key, Node)> = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        loop {
            let key = match self.event()? {
                (Event::MappingEnd, _) => break,
                (event, span) => self.node(event, &span, depth + 1)?,
            };
            let name = match key.value {
                Value::Scalar(name) => name,
                Value::Null => String::new(),
                _ => return Err(refused(key.position, "a key must be plain text")),
            };
            let (event, span) = self.event()?;
            let value = self.node(event, &span, depth + 1)?;
            let position = key.position;
            if name == "<<" {
                merged.extend(merge_sources(value, position)?);
                continue;
            }
            if let Some(first) = lines.insert(name.clone(), position.line)
                && !self.limits.repeated_keys
            {
                let name = shown_name(&name);
                let message = format!("`{name}` stands twice, first in line {first}; keep one");
                return Err(YamlError { position, message });
            }
            entries.push((Key { position, name }, value));
        }
        // What is written beside a merge key wins over what is merged in.
        for (key, value) in merged {
            if !lines.contains_key(&key.name) {
                lines.insert(key.name.clone(), key.position.line);
                entries.push((key, value));
            }
        }
        Ok(Value::Mapping(entries))
    }

    fn check_depth(&self, depth: usize, position: Position) -> Result<(), YamlError> {
        if depth > self.limits.depth {
            return Err(refused(position, "nested too deeply"));
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, position: Position) -> Result<(), YamlError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > self.limits.nodes {
            return Err(refused(position, "too many values; aliases multiply them"));
        }
        Ok(())
    }
}

/// How many levels of mappings and lists `value` has.
fn height(value: &Value) -> usize {
    match value {
        Value::Null | Value::Scalar(_) => 0,
        Value::Sequence(items) => 1 + items.iter().map(|i| height(&i.value)).max().unwrap_or(0),
        Value::Mapping(entries) => {
            1 + entries
                .iter()
                .map(|(_, v)| height(&v.value))
                .max()
                .unwrap_or(0)
        }
    }
}

fn merge_sources(value: Node, position: Position) -> Result<Vec<(Key, Node)>, YamlError> {
    match value.value {
        Value::Mapping(entries) => Ok(entries),
        Value::Sequence(items) => {
            let mut all = Vec::new();
            for item in items {
                all.extend(merge_sources(item, position)?);
            }
            Ok(all)
        }
        _ => Err(refused(position, "`<<` takes a mapping")),
    }
}

fn refused(position: Position, message: &str) -> YamlError {
    YamlError {
        position,
        message: message.to_owned(),
    }
}

fn start(span: &Span) -> Position {
    Position {
        line: span.start.line(),
        column: span.start.col() + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn get<'a>(node: &'a Node, name: &str) -> &'a Node {
        let Value::Mapping(entries) = &node.value else {
            panic!("not a mapping: {node:?}");
        };
        &entries.iter().find(|(key, _)| key.name == name).unwrap().1
    }

    fn text(node: &Node) -> &str {
        match &node.value {
            Value::Scalar(text) => text,
            other => panic!("not a scalar: {other:?}"),
        }
    }

    #[test]
    fn positions_and_texts_as_written() {
        let node = parse("# c\na: 007\nb:\n  - x: ''\n    y: ~\n").unwrap();
        assert_eq!(text(get(&node, "a")), "007");
        assert_eq!(get(&node, "a").position, Position { line: 2, column: 4 });
        let Value::Sequence(items) = &get(&node, "b").value else {
            panic!();
        };
        assert_eq!(text(get(&items[0], "x")), "");
        assert!(matches!(get(&items[0], "y").value, Value::Null));
    }

    #[test]
    fn comments_are_nothing_wherever_they_stand() {
        let node = parse(
            "# a\n---\n# b\na: # c\n  # d\n  - 1 # e\n  # f\n  - {x: 1, # g\n     y: 2}\n# h\nb: |  # i\n  # no comment\n# j\n",
        )
        .unwrap();
        let Value::Sequence(items) = &get(&node, "a").value else {
            panic!();
        };
        assert_eq!(items.len(), 2);
        assert_eq!(text(get(&items[1], "y")), "2");
        assert_eq!(text(get(&node, "b")), "# no comment\n");
        assert_eq!(get(&node, "b").position.line, 12);
    }

    #[test]
    fn merge_keys_and_aliases() {
        let node = parse("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n").unwrap();
        assert_eq!(text(get(get(&node, "use"), "x")), "1");
        assert_eq!(text(get(get(&node, "use"), "y")), "3");
    }

    #[test]
    fn empty_text_is_null() {
        for empty in ["", "\n", "# only a comment\n", "---\n"] {
            assert!(
                matches!(parse(empty).unwrap().value, Value::Null),
                "{empty:?}"
            );
        }
    }

    #[test]
    fn errors_have_a_place_and_no_source_text() {
        let error = parse("a: 1\nauth: 'hunter2\n").unwrap_err();
        assert!(error.position.line >= 2, "{error:?}");
        assert!(!error.message.contains("hunter2"), "{error:?}");
        let twice = parse("a: 1\na: 2\n").unwrap_err();
        assert_eq!(twice.position, Position { line: 2, column: 1 });
    }

    #[test]
    fn a_billion_laughs_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            let refs = vec![format!("*a{}", n - 1); 10].join(", ");
            text.push_str(&format!("a{n}: &a{n} [{refs}]\n"));
        }
        assert!(parse(&text).unwrap_err().message.contains("aliases"));
    }

    #[test]
    fn aliases_multiply_neither_text_nor_depth() {
        let long = "x".repeat(1 << 16);
        let text = format!("a: &a {long}\nb: [{}]\n", ["*a"; 400].join(", "));
        assert!(parse(&text).unwrap_err().message.contains("aliases"));
        let nest = |inner: &str| format!("{}{inner}{}", "[".repeat(40), "]".repeat(40));
        let text = format!("a: &a {}\nb: {}\n", nest("x"), nest("*a"));
        assert!(parse(&text).unwrap_err().message.contains("deeply"));
    }

    #[test]
    fn documents_one_after_another() {
        const ALL: Limits = Limits {
            repeated_keys: true,
            ..CONFIG
        };
        let text = "a: 1\n---\n# nothing\n---\nb: 1\nb: 2\n...\n---\nc: [\n---\nd: 1\n";
        let documents: Vec<_> = Documents::new(text, ALL).collect();
        assert_eq!(documents.len(), 4, "{documents:?}");
        assert_eq!(text_of(&documents, 0, "a"), "1");
        assert!(matches!(documents[1].as_ref().unwrap().value, Value::Null));
        assert_eq!(get(documents[2].as_ref().unwrap(), "b").position.line, 5);
        assert!(documents[3].is_err());
        assert_eq!(Documents::new("", ALL).count(), 0);
    }

    fn text_of(documents: &[Result<Node, YamlError>], at: usize, name: &str) -> String {
        text(get(documents[at].as_ref().unwrap(), name)).to_owned()
    }

    proptest! {
        #[test]
        fn never_panics(text in "[-a-z0-9:{}\\[\\],&*'\"\n #~|>%@!?]{0,120}") {
            let _ = parse(&text);
        }
    }
}
