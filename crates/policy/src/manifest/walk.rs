//! From a document's tree to the images in it.

use std::collections::HashSet;

use super::{Found, Image, Place, Placeholder, Problem, mention};
use crate::placeholder::is_placeholder;
use crate::reference::{Reference, ReferenceError};
use crate::text::one_line;
use crate::yaml::{Key, Node, Position, Value};

/// Fields that hold what people write about an object, and what it is picked by: no images.
const NOT_SPEC: [&str; 6] = [
    "metadata",
    "labels",
    "annotations",
    "matchLabels",
    "nodeSelector",
    "selector",
];
/// Objects whose fields called `image` name no image: a Secret's are anything at all, and a schema
/// describes the field instead of filling it in.
const NOT_WALKED: [&str; 2] = ["Secret", "CustomResourceDefinition"];

type Entries = [(Key, Node)];

#[derive(Default)]
pub(super) struct Walk {
    pub(super) found: Found,
    /// Canonical names that are among the found, and placeholders.
    seen: HashSet<String>,
    /// Canonical names that are among the mentioned.
    mentioned: HashSet<String>,
    object: String,
    path: Vec<String>,
    /// Inside of a CachedImage of kuik's: whether it says `retain`.
    cached: Option<bool>,
}

/// How sure it is that a text is meant as an image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meant {
    /// The field is there for that; anything else is a mistake.
    Surely,
    /// It is one if it looks like one.
    Perhaps,
}

impl Walk {
    pub(super) fn document(&mut self, document: &Node) {
        self.object.clear();
        self.path.clear();
        self.node(document);
    }

    /// What was found. A name that has a field of its own isn't among the mentioned.
    pub(super) fn into_found(mut self) -> Found {
        let seen = self.seen;
        let has_field = |image: &Image| {
            Reference::parse(&image.image).is_ok_and(|name| seen.contains(&name.canonical()))
        };
        self.found.mentioned.retain(|image| !has_field(image));
        self.found
    }

    fn node(&mut self, node: &Node) {
        match &node.value {
            Value::Null | Value::Scalar(_) => {}
            Value::Sequence(items) => self.items(items, Self::node),
            Value::Mapping(entries) => match object(entries) {
                Some((kind, _)) if NOT_WALKED.contains(&kind.as_str()) => {}
                Some((kind, name)) => self.object(&kind, name, entries),
                None => self.fields(entries, &NOT_SPEC),
            },
        }
    }

    /// An object, at the top or in a `List`.
    fn object(&mut self, kind: &str, name: String, entries: &Entries) {
        let (outer, path) = (
            std::mem::replace(&mut self.object, name),
            std::mem::take(&mut self.path),
        );
        let cached = (kind == "CachedImage").then(|| retains(entries));
        let outside = std::mem::replace(&mut self.cached, cached);
        // What a node reports that it runs is no wish.
        self.fields(entries, &[&NOT_SPEC[..], &["status"]].concat());
        if kind == "ConfigMap" {
            for (key, value) in entries.iter().filter(|(key, _)| key.name == "data") {
                self.below(&key.name, |walk| walk.mentions(value, ""));
            }
        }
        (self.object, self.path, self.cached) = (outer, path, outside);
    }

    fn fields(&mut self, entries: &Entries, skipped: &[&str]) {
        let is_complete = text(entries, "tag").or(text(entries, "digest")).is_some();
        if is_complete && text(entries, "image").is_none() && self.is_below_image() {
            self.parts(entries, Meant::Perhaps);
        }
        for (key, value) in entries {
            if !skipped.contains(&key.name.as_str()) {
                self.below(&key.name, |walk| walk.field(&key.name, value, entries));
            }
        }
    }

    fn field(&mut self, name: &str, value: &Node, beside: &Entries) {
        match (name, &value.value) {
            ("image", Value::Scalar(written)) => self.beside(written, value.position, beside),
            ("image", Value::Mapping(parts)) => self.image(parts, value),
            ("sourceImage", Value::Scalar(written)) if self.cached.is_some() => {
                self.take(written, value.position, Meant::Surely);
            }
            // OpenShift: an ImageStream's tag and a BuildConfig's strategy. What a build pushes stands
            // in `to`.
            ("from", Value::Mapping(object)) if text(object, "kind") == Some("DockerImage") => {
                self.named(object, value);
            }
            (name, Value::Sequence(items)) if is_for_images(name) => {
                self.items(items, Self::perhaps);
            }
            (name, Value::Mapping(items)) if is_for_images(name) => {
                for (key, item) in items {
                    if matches!(item.value, Value::Scalar(_)) {
                        self.below(&key.name, |walk| walk.perhaps(item));
                    }
                }
                self.node(value);
            }
            (name, Value::Scalar(_)) if is_for_image(name) => self.perhaps(value),
            _ => {
                if mention::is_field(name) {
                    self.mentions(value, "");
                }
                self.node(value);
            }
        }
    }

    /// Does `what` with `name` at the end of the path.
    fn below(&mut self, name: &str, what: impl FnOnce(&mut Self)) {
        self.path.push(name.to_owned());
        what(self);
        self.path.pop();
    }

    /// Texts in which images may be named: `hint` says what the text is for.
    fn mentions(&mut self, node: &Node, hint: &str) {
        match &node.value {
            Value::Null => {}
            Value::Scalar(written) => {
                for image in mention::images(hint, written) {
                    let name = Reference::parse(image).map(|name| name.canonical());
                    if name.is_ok_and(|name| self.mentioned.insert(name)) {
                        let (image, place) = (image.to_owned(), self.place(node.position));
                        self.found.mentioned.push(Image {
                            image,
                            place,
                            retain: false,
                        });
                    }
                }
            }
            Value::Sequence(items) => {
                // `--flag`, and its value as the next argument.
                let mut flag = String::new();
                self.items(items, |walk, item| {
                    let hint = std::mem::take(&mut flag);
                    if let Value::Scalar(written) = &item.value
                        && written.starts_with('-')
                        && !written.contains('=')
                    {
                        flag.clone_from(written);
                    }
                    walk.mentions(item, &hint);
                });
            }
            Value::Mapping(entries) => {
                let name = text(entries, "name");
                for (key, value) in entries {
                    let hint = match (key.name.as_str(), name) {
                        ("value", Some(name)) => name,
                        (key, _) => key,
                    };
                    self.below(&key.name, |walk| walk.mentions(value, hint));
                }
            }
        }
    }

    /// `{kind: DockerImage, name}`.
    fn named(&mut self, object: &Entries, node: &Node) {
        match object.iter().find(|(key, _)| key.name == "name") {
            Some((_, name)) => {
                if let Value::Scalar(written) = &name.value {
                    self.below("name", |walk| {
                        walk.take(written, name.position, Meant::Surely);
                    });
                }
            }
            None => self.mistake(node.position, "has no name".to_owned()),
        }
    }

    fn items(&mut self, items: &[Node], mut each: impl FnMut(&mut Self, &Node)) {
        let list = self.path.pop().unwrap_or_default();
        for (at, item) in items.iter().enumerate() {
            let name = match &item.value {
                Value::Mapping(entries) => text(entries, "name"),
                _ => None,
            };
            let name = name.map_or_else(|| at.to_string(), |name| one_line(name, 80));
            self.path.push(format!("{list}[{name}]"));
            each(self, item);
            self.path.pop();
        }
        self.path.push(list);
    }

    /// `image: name`, with what stands beside it: some operators take the name in parts.
    fn beside(&mut self, written: &str, position: Position, entries: &Entries) {
        let written = written.trim();
        if is_placeholder(written) {
            return self.take(written, position, Meant::Surely);
        }
        let mut image = written.to_owned();
        let repository = text(entries, "repository");
        if let (Some(repository), false) = (repository, image.contains('/')) {
            image = format!("{}/{image}", repository.trim_end_matches('/'));
        }
        if let Some(registry) = text(entries, "registry") {
            image = format!("{}/{image}", registry.trim_end_matches('/'));
        }
        // A `version` beside a name without repository is the version of something else.
        let version = repository.and_then(|_| text(entries, "version"));
        let tag = text(entries, "tag").or(version);
        let digest = text(entries, "digest");
        if Reference::parse(&image)
            .is_ok_and(|name| name.tag().is_none() && name.digest().is_none())
        {
            image = with_suffix(image, tag, digest);
        }
        self.take(&image, position, Meant::Surely);
    }

    /// `image: {…}`.
    fn image(&mut self, parts: &Entries, node: &Node) {
        if let Some(reference) = parts.iter().find(|(key, _)| key.name == "reference")
            && let Value::Scalar(written) = &reference.1.value
        {
            let position = reference.1.position;
            self.below("reference", |walk| {
                walk.take(written, position, Meant::Surely)
            });
        } else if text(parts, "repository").is_some() {
            self.parts(parts, Meant::Surely);
        } else {
            self.node(node);
        }
    }

    /// `{registry, repository, name, tag, digest}`.
    fn parts(&mut self, parts: &Entries, meant: Meant) {
        let Some((_, node)) = parts.iter().find(|(key, _)| key.name == "repository") else {
            return;
        };
        let Some(repository) = text(parts, "repository") else {
            return;
        };
        let mut name = match text(parts, "registry") {
            Some(registry) => format!("{}/{repository}", registry.trim_end_matches('/')),
            None => repository.to_owned(),
        };
        // Strimzi's charts write `repository: strimzi, name: operator`. In a list, a name is the item's; and
        // where the repository ends in it, it says the same again.
        let last = text(parts, "name").filter(|_| !self.is_in_list());
        if let Some(last) = last
            && repository.rsplit('/').next() != Some(last)
        {
            name = format!("{}/{last}", name.trim_end_matches('/'));
        }
        let (tag, digest) = (text(parts, "tag"), text(parts, "digest"));
        let is_bare = |name: &Reference| name.tag().is_none() && name.digest().is_none();
        if tag.is_none() && digest.is_none() && Reference::parse(&name).is_ok_and(|n| is_bare(&n)) {
            let message = "has a repository, but neither tag nor digest; which image is meant is \
                           for its operator to say";
            self.mistake(node.position, message.to_owned());
            return;
        }
        self.take(&with_suffix(name, tag, digest), node.position, meant);
    }

    fn perhaps(&mut self, node: &Node) {
        match &node.value {
            Value::Scalar(written) => self.take(written, node.position, Meant::Perhaps),
            _ => self.node(node),
        }
    }

    fn take(&mut self, written: &str, position: Position, meant: Meant) {
        let image = written.trim();
        // `image: true` switches something on.
        let is_other = image.is_empty()
            || matches!(image, "true" | "false")
            || image.bytes().all(|byte| byte.is_ascii_digit());
        if is_other {
            return;
        }
        // A URL may hold a password, so it is not shown.
        if is_placeholder(image) && !image.contains("://") {
            return self.placeholder(image, position, meant);
        }
        let key = match Reference::parse(image) {
            Ok(name) => {
                let looks_so =
                    image.contains('/') && (name.tag().is_some() || name.digest().is_some());
                if meant == Meant::Perhaps && !looks_so {
                    return;
                }
                name.canonical()
            }
            Err(_) if meant == Meant::Perhaps => return,
            Err(ReferenceError::ImageId(id)) => id,
            Err(error) => return self.mistake(position, what_is_wrong(image, &error)),
        };
        let retain = self.cached == Some(true);
        if self.seen.insert(key.clone()) {
            let place = self.place(position);
            self.found.images.push(Image {
                image: image.to_owned(),
                place,
                retain,
            });
        } else if retain {
            let mut known = self.found.images.iter_mut();
            let named = |image: &Image| {
                Reference::parse(&image.image).is_ok_and(|name| name.canonical() == key)
            };
            if let Some(known) = known.find(|image| named(image)) {
                known.retain = true;
            }
        }
    }

    fn placeholder(&mut self, written: &str, position: Position, meant: Meant) {
        // A picture or a word in a field whose name only ends in `Image`.
        let is_other = written.contains(char::is_whitespace) || !written.contains(['$', '{', '<']);
        if meant == Meant::Perhaps && is_other {
            return;
        }
        let written = one_line(written, 160);
        if self.seen.insert(written.clone()) {
            let place = self.place(position);
            self.found.placeholders.push(Placeholder { written, place });
        }
    }

    fn mistake(&mut self, position: Position, message: String) {
        let place = self.place(position);
        self.found.problems.push(Problem { place, message });
    }

    fn place(&self, position: Position) -> Place {
        Place {
            object: self.object.clone(),
            path: self.path.join("."),
            position,
        }
    }

    fn is_in_list(&self) -> bool {
        self.path.last().is_some_and(|name| name.ends_with(']'))
    }

    fn is_below_image(&self) -> bool {
        let mut names = self.path.iter();
        names.any(|name| name.to_ascii_lowercase().contains("image"))
    }
}

/// Kind, and the name that it is shown by, of what is an object.
fn object(entries: &Entries) -> Option<(String, String)> {
    let kind = text(entries, "kind")?;
    let mut fields = entries.iter();
    let metadata = fields.find_map(|(key, node)| match &node.value {
        Value::Mapping(metadata) if key.name == "metadata" => Some(metadata),
        _ => None,
    });
    // `kind` alone may be part of a reference to an object.
    text(entries, "apiVersion").or(metadata.map(|_| ""))?;
    let name = metadata.and_then(|m| text(m, "name").or(text(m, "generateName")));
    let shown = match name {
        Some(name) => format!("{kind}/{name}"),
        None => kind.to_owned(),
    };
    Some((kind.to_owned(), one_line(&shown, 160)))
}

/// Whether a CachedImage is to be kept whatever happens.
fn retains(entries: &Entries) -> bool {
    entries.iter().any(|(key, node)| match &node.value {
        Value::Mapping(spec) if key.name == "spec" => text(spec, "retain") == Some("true"),
        _ => false,
    })
}

/// A field's text, where it has any.
fn text<'a>(entries: &'a Entries, name: &str) -> Option<&'a str> {
    let (_, node) = entries.iter().find(|(key, _)| key.name == name)?;
    match &node.value {
        Value::Scalar(text) => Some(text.trim()).filter(|text| !text.is_empty()),
        _ => None,
    }
}

fn with_suffix(mut name: String, tag: Option<&str>, digest: Option<&str>) -> String {
    match tag {
        // In the tag's place, where an operator has no field for a digest.
        Some(tag) if tag.starts_with("sha256:") => name.push_str(&format!("@{tag}")),
        Some(tag) => name.push_str(&format!(":{tag}")),
        None => {}
    }
    if let Some(digest) = digest {
        name.push_str(&format!("@{}", digest.trim_start_matches('@')));
    }
    name
}

/// Whether a field of this name may hold an image: `sidecarImage`, `connection_pooler_image`,
/// `queue-sidecar-image`, `imageName`.
fn is_for_image(name: &str) -> bool {
    const WHOLE: [&str; 3] = ["imagename", "imageref", "imagereference"];
    let lower = name.to_ascii_lowercase();
    let plain: String = lower.chars().filter(|c| !matches!(c, '_' | '-')).collect();
    WHOLE.contains(&plain.as_str()) || ends_in(name, "image")
}

/// Whether a field of this name may hold several: `images`, `initImages`, `sidecar_docker_images`.
fn is_for_images(name: &str) -> bool {
    name == "images" || ends_in(name, "images")
}

/// Whether the last word of a name is `word`: `fooImage`, `foo_image`, `foo-image`, `FOO_IMAGE`.
fn ends_in(name: &str, word: &str) -> bool {
    let Some(at) = name.len().checked_sub(word.len()) else {
        return false;
    };
    match (name.get(..at), name.get(at..)) {
        (Some(before), Some(last)) if last.eq_ignore_ascii_case(word) => {
            before.ends_with(['_', '-', '.'])
                || (!before.is_empty() && last.starts_with(|c: char| c.is_ascii_uppercase()))
        }
        _ => false,
    }
}

/// Quotes no more than the part of a name that is wrong. A URL may hold a password.
fn what_is_wrong(image: &str, error: &ReferenceError) -> String {
    if image.contains("://") {
        return "is a URL; write the image's name without `…://`".to_owned();
    }
    one_line(&format!("is no image name: {error}"), 240)
}
