//! Reads which module of a crate refers to which: paths that begin with `crate`, `self`, `super`, or the name of
//! a child, wherever they stand (imports, types, expressions, macros). Modules of tests are left out: they may
//! use everything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The segments of a path from the crate's root.
pub(crate) type Segments = Vec<String>;

/// A module: what it refers to, and what it only passes on.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// As absolute as the text tells.
    uses: BTreeSet<Segments>,
    /// Names that stand elsewhere: `pub use inner::Name`, and other imports that a child may see.
    passed_on: BTreeMap<String, Segments>,
}

/// The modules of one target (`lib.rs` or `main.rs`), by their path from its root.
#[derive(Debug, Default)]
pub(crate) struct Modules(BTreeMap<Segments, Module>);

impl Modules {
    /// Reads a target's file and those of all its modules.
    pub(crate) fn read(target: &Path) -> Self {
        let mut modules = Self::default();
        let folder = target.parent().unwrap();
        modules.file(target, folder, vec![]);
        modules
    }

    /// Of a text that is all of a crate.
    pub(crate) fn of(text: &str) -> Self {
        let mut modules = Self::default();
        modules.scan(text.parse().unwrap(), &PathBuf::new(), vec![]);
        modules
    }

    fn file(&mut self, file: &Path, folder: &Path, path: Segments) {
        let text = std::fs::read_to_string(file).unwrap();
        let tokens: TokenStream = text
            .parse()
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.scan(tokens, folder, path);
    }

    /// Reads a module's items. `folder` has the files of its children.
    fn scan(&mut self, tokens: TokenStream, folder: &Path, path: Segments) {
        let items = without_tests(tokens);
        // First the children's names: a path may begin with one.
        let mut children = BTreeSet::new();
        for at in 0..items.len() {
            let [TokenTree::Ident(word), TokenTree::Ident(name), body, ..] = &items[at..] else {
                continue;
            };
            if word != "mod" {
                continue;
            }
            let name = name.to_string();
            let inner = [path.clone(), vec![name.clone()]].concat();
            let below = folder.join(&name);
            match body {
                TokenTree::Group(group) => self.scan(group.stream(), &below, inner),
                _ => {
                    let files = [folder.join(format!("{name}.rs")), below.join("mod.rs")];
                    let file = files.iter().find(|file| file.is_file());
                    let file = file.unwrap_or_else(|| panic!("no file for {inner:?}"));
                    self.file(file, &below, inner);
                }
            }
            children.insert(name);
        }
        let mut module = Module::default();
        references(&items, &path, &children, &mut module);
        self.0.insert(path, module);
    }

    /// All modules.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Segments> {
        self.0.keys()
    }

    /// The module in which what a path names is written.
    fn home(&self, path: &[String], depth: usize) -> Segments {
        let longest = (0..=path.len())
            .rev()
            .find(|length| self.0.contains_key(&path[..*length]));
        let length = longest.unwrap_or_default();
        let module = &path[..length];
        let passed_on = path
            .get(length)
            .and_then(|name| self.0.get(module)?.passed_on.get(name));
        match passed_on {
            Some(target) if depth < 8 => self.home(target, depth + 1),
            _ => module.to_vec(),
        }
    }

    /// Which of `parent`'s children refer to which others, and by which path.
    pub(crate) fn arrows(&self, parent: &[String]) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut arrows: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let child = |path: &[String]| {
            let inside = path.starts_with(parent);
            path.get(parent.len()).filter(|_| inside).cloned()
        };
        for (path, module) in &self.0 {
            let Some(from) = child(path) else { continue };
            for used in &module.uses {
                let Some(to) = child(&self.home(used, 0)) else {
                    continue;
                };
                if to != from {
                    let text = format!("{} names {}", path.join("::"), used.join("::"));
                    arrows
                        .entry(from.clone())
                        .or_default()
                        .entry(to)
                        .or_insert(text);
                }
            }
        }
        arrows
    }
}

/// The tokens of a module's items, except those under `#[cfg(test)]`.
fn without_tests(tokens: TokenStream) -> Vec<TokenTree> {
    let mut kept = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let attribute = match (&token, tokens.peek()) {
            (TokenTree::Punct(hash), Some(TokenTree::Group(group)))
                if hash.as_char() == '#' && group.delimiter() == Delimiter::Bracket =>
            {
                Some(group.stream().to_string().replace(' ', ""))
            }
            _ => None,
        };
        match attribute {
            Some(text) if text == "cfg(test)" => {
                // To the item's end: its body, or the semicolon of one without.
                let _ = tokens.by_ref().find(|token| match token {
                    TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                    TokenTree::Punct(punct) => punct.as_char() == ';',
                    _ => false,
                });
            }
            Some(_) => drop(tokens.next()),
            None => kept.push(token),
        }
    }
    kept
}

/// Collects the paths in a module's own tokens.
fn references(
    items: &[TokenTree],
    path: &[String],
    children: &BTreeSet<String>,
    module: &mut Module,
) {
    let mut at = 0;
    while at < items.len() {
        match &items[at] {
            // `use<>` in a type captures; it imports nothing.
            TokenTree::Ident(word) if word == "use" && !is_less(items.get(at + 1)) => {
                let end = items[at..].iter().position(is_semicolon).unwrap_or(0) + at;
                let public = is_public(&items[..at]);
                let mut leaves = Vec::new();
                import(&items[at + 1..end], &mut Vec::new(), &mut leaves);
                for (segments, name) in leaves {
                    let Some(absolute) = absolute(&segments, path, children) else {
                        continue;
                    };
                    if !public {
                        module.uses.insert(absolute.clone());
                    }
                    // Children may see private imports, too.
                    module.passed_on.insert(name, absolute);
                }
                at = end;
            }
            // The body of a child stands in a module of its own.
            TokenTree::Ident(word) if word == "mod" => at += 2,
            TokenTree::Ident(_) => {
                let continues = at >= 2 && is_colons(&items[at - 2..at]);
                let mut segments = Vec::new();
                let mut next = at;
                while let Some(TokenTree::Ident(word)) = items.get(next) {
                    segments.push(word.to_string());
                    next += 1;
                    match items.get(next..next + 2) {
                        Some(colons) if is_colons(colons) => next += 2,
                        _ => break,
                    }
                }
                if !continues && segments.len() > 1 {
                    module.uses.extend(absolute(&segments, path, children));
                }
                at = next.max(at + 1) - 1;
            }
            TokenTree::Group(group) => {
                let inner: Vec<TokenTree> = without_tests(group.stream());
                references(&inner, path, children, module);
            }
            _ => {}
        }
        at += 1;
    }
}

fn is_less(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == '<')
}

/// The leaves of an import's tree, each with the name that it gets.
fn import(tokens: &[TokenTree], prefix: &mut Segments, leaves: &mut Vec<(Segments, String)>) {
    let length = prefix.len();
    let mut renamed = None;
    let mut at = 0;
    let mut any = false;
    let leaf =
        |prefix: &Segments, renamed: Option<String>, leaves: &mut Vec<(Segments, String)>| {
            let mut segments = prefix.clone();
            if segments.last().is_some_and(|last| last == "self") && segments.len() > 1 {
                segments.pop();
            }
            let name = renamed.or_else(|| segments.last().cloned());
            leaves.push((segments, name.unwrap_or_default()));
        };
    while let Some(token) = tokens.get(at) {
        match token {
            TokenTree::Ident(word) if word == "as" => {
                renamed = tokens.get(at + 1).map(ToString::to_string);
                at += 1;
            }
            TokenTree::Ident(word) => {
                prefix.push(word.to_string());
                any = true;
            }
            TokenTree::Group(group) => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                import(&inner, prefix, leaves);
                any = false;
            }
            TokenTree::Punct(punct) if punct.as_char() == ',' => {
                if any {
                    leaf(prefix, renamed.take(), leaves);
                }
                any = false;
                prefix.truncate(length);
            }
            TokenTree::Punct(punct) if punct.as_char() == '*' => {
                prefix.push("*".to_owned());
                any = true;
            }
            _ => {}
        }
        at += 1;
    }
    if any {
        leaf(prefix, renamed, leaves);
    }
    prefix.truncate(length);
}

/// A path from the crate's root; `None` for one that leads elsewhere.
fn absolute(segments: &[String], path: &[String], children: &BTreeSet<String>) -> Option<Segments> {
    let (first, rest) = segments.split_first()?;
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" => Some([path, rest].concat()),
        "super" => {
            let ups = segments.iter().take_while(|word| *word == "super").count();
            let base = path.get(..path.len().checked_sub(ups)?)?;
            Some([base, &segments[ups..]].concat())
        }
        name if children.contains(name) => Some([path, segments].concat()),
        _ => None,
    }
}

fn is_semicolon(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == ';')
}

fn is_colons(tokens: &[TokenTree]) -> bool {
    tokens
        .iter()
        .all(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ':'))
        && tokens.len() == 2
}

/// Whether what stands before `use` makes it visible outside of the module.
fn is_public(before: &[TokenTree]) -> bool {
    let is_pub = |token: &TokenTree| matches!(token, TokenTree::Ident(word) if word == "pub");
    match before {
        [.., token, TokenTree::Group(group)] if group.delimiter() == Delimiter::Parenthesis => {
            is_pub(token)
        }
        [.., token] => is_pub(token),
        [] => false,
    }
}
