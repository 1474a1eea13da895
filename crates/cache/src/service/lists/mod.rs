//! Lists of tags and of referrers: from the first place that has them, else from the store.

mod query;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use self::query::{Query, is_in_order};
use super::{Cache, Refusal, SoFar, Who};
use crate::digest::Digest;
use crate::manifest::{OCI_INDEX, Parsed, parse};
use crate::upstream::{Failure, Failures, List, ListBody};

/// Referrers that are listed from the store, at most.
const MAX_REFERRERS: usize = 1000;

/// A list that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListAnswer {
    /// JSON.
    pub content: Bytes,
    /// Its media type.
    pub media_type: String,
    /// The query of the next page.
    pub next: Option<String>,
    /// `OCI-Filters-Applied`.
    pub filters: Option<String>,
    /// Why it is not fresh, where it isn't.
    pub warning: Option<String>,
}

/// The one filter of referrers, as `OCI-Filters-Applied` has it.
const FILTER: &str = "artifactType";
const STALE: &str = "no registry answered; this is what the cache has seen";

impl Cache {
    /// A list. `name` is what the caller calls the repository; `query` is what he wrote behind the `?`.
    ///
    /// # Errors
    /// Why there is none for this caller.
    pub async fn list(
        &self,
        who: &Who,
        list: &List,
        name: &str,
        query: Option<&str>,
    ) -> Result<ListAnswer, Refusal> {
        let wanted = Query::parse(query);
        let query = wanted.for_registry(query);
        let mut so_far = SoFar::default();
        for class in self.classes(who) {
            let mut failures = Failures::default();
            let asker = self.asker(who, class);
            for place in self.in_order(self.places(who, class)) {
                let asked = self
                    .inner
                    .upstream
                    .get_list(&place, list, query.as_deref(), &asker)
                    .await;
                match asked {
                    Ok(body) => {
                        // It may be empty, as it has to be where there is nothing: it opens nothing.
                        if let Some(answer) = ours(name, list, &wanted, body) {
                            return Ok(answer);
                        }
                        let wrong = Failure::Wrong("sent no list".to_owned());
                        failures.note(&place.name, wrong);
                    }
                    Err(failure) => failures.note(&place.name, failure),
                }
            }
            if !self.refused(who, class, Refusal::of(failures), &mut so_far) {
                break;
            }
        }
        match (so_far.refusal(), list) {
            // No registry has any: the specification wants an empty index, never a 404.
            (Refusal::NotFound(_), List::Referrers(_)) => Ok(referrers(Vec::new(), &wanted)),
            (refusal @ (Refusal::NotFound(_) | Refusal::Unauthorized(_)), _) => Err(refusal),
            (refusal, List::Tags) => {
                let found = self.tags_from_store(who, name, &wanted).await;
                found.ok_or(refusal)
            }
            (refusal, List::Referrers(subject)) => {
                let found = self.referrers_from_store(who, subject, &wanted).await;
                found.ok_or(refusal)
            }
        }
    }

    async fn tags_from_store(&self, who: &Who, name: &str, wanted: &Query) -> Option<ListAnswer> {
        let (repository, may) = (who.repository.clone(), self.rights(who));
        let tags = self.stored(move |storage| {
            let mut tags = Vec::new();
            for (name, tag) in storage.index().tags_of(&repository)? {
                let link = storage.index().linked(&repository, &tag.digest)?;
                if tag.imported || link.is_some_and(|link| may(&link)) {
                    tags.push(name);
                }
            }
            Ok(tags)
        });
        let tags = tags.await.ok().filter(|tags| !tags.is_empty())?;
        let (names, next) = wanted.page(tags);
        Some(ListAnswer {
            next,
            warning: Some(STALE.to_owned()),
            ..tag_list(name, &names)
        })
    }

    async fn referrers_from_store(
        &self,
        who: &Who,
        subject: &Digest,
        wanted: &Query,
    ) -> Option<ListAnswer> {
        let (repository, subject) = (who.repository.clone(), subject.clone());
        let may = self.rights(who);
        let found = self.stored(move |storage| {
            let link = storage.index().linked(&repository, &subject)?;
            if !link.is_some_and(|link| may(&link)) {
                return Ok(None);
            }
            let mut found = Vec::new();
            for digest in storage
                .index()
                .referrers(&subject)?
                .into_iter()
                .take(MAX_REFERRERS)
            {
                let link = storage.index().linked(&repository, &digest)?;
                if !link.is_some_and(|link| may(&link)) {
                    continue;
                }
                let Some((content, object)) = storage.manifest(&digest)? else {
                    continue;
                };
                let media_type = object.media_type.unwrap_or_default();
                let Ok(parsed) = parse(&content, Some(&media_type)) else {
                    continue;
                };
                found.push(descriptor(&digest, content.len(), parsed));
            }
            Ok(Some(found))
        });
        Some(ListAnswer {
            warning: Some(STALE.to_owned()),
            ..referrers(found.await.ok()??, wanted)
        })
    }
}

/// What stands in a list of referrers for one of them.
fn descriptor(digest: &Digest, size: usize, parsed: Parsed) -> Value {
    let mut descriptor = Map::new();
    descriptor.insert("mediaType".to_owned(), parsed.media_type.into());
    descriptor.insert("digest".to_owned(), digest.as_str().into());
    descriptor.insert("size".to_owned(), size.into());
    if let Some(kind) = parsed.artifact_type {
        descriptor.insert("artifactType".to_owned(), kind.into());
    }
    if let Some(annotations) = parsed.annotations {
        descriptor.insert("annotations".to_owned(), annotations.into());
    }
    descriptor.into()
}

fn tag_list(name: &str, tags: &[String]) -> ListAnswer {
    let content = json!({"name": name, "tags": tags});
    ListAnswer {
        content: content.to_string().into(),
        media_type: "application/json".to_owned(),
        next: None,
        filters: None,
        warning: None,
    }
}

/// A list of referrers, of those that are wanted.
fn referrers(manifests: Vec<Value>, wanted: &Query) -> ListAnswer {
    let mut index = Map::new();
    index.insert("schemaVersion".to_owned(), 2.into());
    index.insert("mediaType".to_owned(), OCI_INDEX.into());
    referrers_of(index, manifests, wanted)
}

fn referrers_of(
    mut index: Map<String, Value>,
    mut manifests: Vec<Value>,
    wanted: &Query,
) -> ListAnswer {
    if let Some(kind) = &wanted.artifact_type {
        manifests.retain(|descriptor| descriptor.get(FILTER).and_then(Value::as_str) == Some(kind));
    }
    index.insert("manifests".to_owned(), manifests.into());
    ListAnswer {
        content: Value::from(index).to_string().into(),
        media_type: OCI_INDEX.to_owned(),
        next: None,
        filters: wanted.artifact_type.as_ref().map(|_| FILTER.to_owned()),
        warning: None,
    }
}

/// A registry's list, under the name that it is asked for by here, and as much of it as is asked for:
/// not every registry knows pages and filters. None where it is no list.
fn ours(name: &str, list: &List, wanted: &Query, body: ListBody) -> Option<ListAnswer> {
    let content: Value = serde_json::from_slice(&body.content).ok()?;
    let Value::Object(mut content) = content else {
        return None;
    };
    match list {
        List::Tags => {
            let tags: Vec<String> = match content.remove("tags")? {
                Value::Null => Vec::new(),
                tags => serde_json::from_value(tags).ok()?,
            };
            if wanted.is_for_none() {
                return Some(tag_list(name, &[]));
            }
            let is_whole = body.next.is_none();
            if is_whole && !(wanted.fits(&tags) && is_in_order(&tags)) {
                let (tags, next) = wanted.page(tags);
                return Some(ListAnswer {
                    next,
                    ..tag_list(name, &tags)
                });
            }
            Some(ListAnswer {
                next: body.next,
                ..tag_list(name, &tags)
            })
        }
        List::Referrers(_) => {
            let Some(Value::Array(manifests)) = content.remove("manifests") else {
                return None;
            };
            Some(ListAnswer {
                next: body.next,
                ..referrers_of(content, manifests, wanted)
            })
        }
    }
}
