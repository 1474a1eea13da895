//! The patch (RFC 6902) and the annotations that tell what it did.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};

use super::object::Pod;
use super::{ORIGINAL_IMAGES, RULES};

/// `TotalAnnotationSizeLimitB` of Kubernetes: a Pod with more in its annotations is refused.
pub(super) const MAX_ANNOTATIONS: usize = 256 * 1024;
/// Largest patch, in JSON. A Pod that would need a larger one stays as it is.
pub const MAX_PATCH: usize = 1 << 20;

/// What is changed in a Pod.
#[derive(Clone, Debug)]
pub struct Patch {
    /// The edits, in their order.
    pub operations: Vec<Edit>,
    /// What stood there before, by container; also of earlier patches of the same Pod.
    pub originals: BTreeMap<String, String>,
    /// The rule that moved it, by container; also of earlier patches of the same Pod.
    pub rules: BTreeMap<String, String>,
    /// The rule of each image that this patch moves.
    pub moved_by: Vec<String>,
    /// The annotations would be too large for a Pod, so that it doesn't get them. Its images are moved
    /// all the same: a place that can't be reached is worse than a missing note.
    pub unrecorded: bool,
}

/// One operation of a JSON patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Edit {
    /// Adds a member or an array's element.
    Add {
        /// Where (RFC 6901).
        path: String,
        /// What.
        value: Value,
    },
    /// Replaces what is there.
    Replace {
        /// Where (RFC 6901).
        path: String,
        /// With what.
        value: Value,
    },
    /// Takes away what is there.
    Remove {
        /// Where (RFC 6901).
        path: String,
    },
}

/// One image that goes to another place.
pub(super) struct Move<'d> {
    pub(super) pointer: &'d str,
    pub(super) name: &'d str,
    pub(super) from: &'d str,
    pub(super) to: String,
    pub(super) rule: String,
}

impl Patch {
    /// `stale` are the records that are not true any more. `None`: nothing changes.
    pub(super) fn new(
        pod: &Pod,
        moves: Vec<Move<'_>>,
        stale: &BTreeSet<String>,
        secrets: BTreeSet<&str>,
    ) -> Option<Self> {
        if moves.is_empty() && stale.is_empty() {
            return None;
        }
        let mut patch = Self {
            operations: Vec::with_capacity(moves.len() + 3),
            originals: records(pod, ORIGINAL_IMAGES),
            rules: records(pod, RULES),
            moved_by: moves.iter().map(|change| change.rule.clone()).collect(),
            unrecorded: false,
        };
        patch.originals.retain(|name, _| !stale.contains(name));
        patch.rules.retain(|name, _| !stale.contains(name));
        for change in moves {
            let name = change.name.to_owned();
            patch.originals.insert(name.clone(), change.from.to_owned());
            patch.rules.insert(name, change.rule);
            patch.operations.push(Edit::Replace {
                path: change.pointer.to_owned(),
                value: Value::String(change.to),
            });
        }
        patch.add_secrets(pod, secrets);
        patch.annotate(pod);
        Some(patch)
    }

    /// The operations as JSON; `None` where that is larger than [`MAX_PATCH`].
    ///
    /// # Errors
    /// They can't be written as JSON; none of ours are so.
    pub fn to_json(&self) -> Result<Option<Vec<u8>>, serde_json::Error> {
        let json = serde_json::to_vec(&self.operations)?;
        Ok((json.len() <= MAX_PATCH).then_some(json))
    }

    fn add_secrets(&mut self, pod: &Pod, secrets: BTreeSet<&str>) {
        let present = pod.pull_secrets();
        let missing: Vec<_> = secrets
            .into_iter()
            .filter(|secret| !present.is_some_and(|p| p.iter().any(|p| p.name == *secret)))
            .map(|secret| json!({"name": secret}))
            .collect();
        match present {
            _ if missing.is_empty() => {}
            None => self.operations.push(Edit::Add {
                path: "/spec/imagePullSecrets".to_owned(),
                value: Value::Array(missing),
            }),
            Some(_) => self
                .operations
                .extend(missing.into_iter().map(|value| Edit::Add {
                    path: "/spec/imagePullSecrets/-".to_owned(),
                    value,
                })),
        }
    }

    fn annotate(&mut self, pod: &Pod) {
        let present = pod
            .metadata
            .as_ref()
            .and_then(|metadata| metadata.annotations.as_ref());
        if self.originals.is_empty() && self.rules.is_empty() {
            let present = |name: &&str| present.is_some_and(|notes| notes.get(name).is_some());
            let removed = [ORIGINAL_IMAGES, RULES].into_iter().filter(present);
            self.operations.extend(removed.map(|name| Edit::Remove {
                path: format!("/metadata/annotations/{}", escape(name)),
            }));
            return;
        }
        let notes = [
            (ORIGINAL_IMAGES, json_text(&self.originals)),
            (RULES, json_text(&self.rules)),
        ];
        let kept = present.map_or(0, |present| present.size(&[ORIGINAL_IMAGES, RULES]));
        let added: usize = notes
            .iter()
            .map(|(name, text)| name.len() + text.len())
            .sum();
        if kept + added > MAX_ANNOTATIONS {
            self.unrecorded = true;
            return;
        }
        if present.is_some() {
            self.operations
                .extend(notes.into_iter().map(|(name, text)| Edit::Add {
                    path: format!("/metadata/annotations/{}", escape(name)),
                    value: Value::String(text),
                }));
            return;
        }
        let notes: serde_json::Map<_, _> = notes
            .into_iter()
            .map(|(name, text)| (name.to_owned(), Value::String(text)))
            .collect();
        self.operations.push(if pod.metadata.is_some() {
            Edit::Add {
                path: "/metadata/annotations".to_owned(),
                value: Value::Object(notes),
            }
        } else {
            Edit::Add {
                path: "/metadata".to_owned(),
                value: json!({"annotations": notes}),
            }
        });
    }
}

/// RFC 6901, section 3.
fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

/// A map of texts as JSON.
fn json_text(map: &BTreeMap<String, String>) -> String {
    json!(map).to_string()
}

/// What an annotation of ours holds. One that can't be read, as when people edit it, is empty.
pub(super) fn records(pod: &Pod, annotation: &str) -> BTreeMap<String, String> {
    let text = pod.annotation(annotation);
    // A Pod may have no more than that, and what holds much more is not ours.
    text.filter(|text| text.len() <= MAX_ANNOTATIONS)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}
