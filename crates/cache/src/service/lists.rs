//! Lists of tags and of referrers: from the first place that has them, else from the store.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Cache, Refusal, Who};
use crate::digest::Digest;
use crate::manifest::{OCI_INDEX, parse};
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

const STALE: &str = "no registry answered; this is what the cache has seen";

impl Cache {
    /// A list.
    ///
    /// # Errors
    /// Why there is none for this caller.
    pub async fn list(
        &self,
        who: &Who,
        list: &List,
        query: Option<&str>,
    ) -> Result<ListAnswer, Refusal> {
        let mut last = Refusal::Denied;
        for class in self.classes(who) {
            let mut failures = Failures::default();
            let asker = self.asker(who, class);
            for place in self.in_order(self.places(who, class)) {
                let asked = self
                    .inner
                    .upstream
                    .get_list(&place, list, query, &asker)
                    .await;
                match asked {
                    Ok(body) => {
                        self.opened(who, class).await;
                        if let Some(answer) = ours(who, list, body) {
                            return Ok(answer);
                        }
                        let wrong = Failure::Wrong("sent no list".to_owned());
                        failures.note(&place.name, wrong);
                    }
                    Err(failure) => failures.note(&place.name, failure),
                }
            }
            last = Refusal::of(failures);
            if matches!(last, Refusal::Unauthorized(_)) {
                self.closed(who, class).await;
            } else if !matches!(last, Refusal::Denied) {
                break;
            }
        }
        match (last, list) {
            // No registry has any: the specification wants an empty index, never a 404.
            (Refusal::NotFound(_), List::Referrers(_)) => Ok(referrers(Vec::new(), None)),
            (refusal @ (Refusal::NotFound(_) | Refusal::Unauthorized(_)), _) => Err(refusal),
            (refusal, _) if !self.may(who).await => Err(refusal),
            (refusal, List::Tags) => self.tags_from_store(who).await.ok_or(refusal),
            (refusal, List::Referrers(subject)) => {
                self.referrers_from_store(who, subject).await.ok_or(refusal)
            }
        }
    }

    async fn tags_from_store(&self, who: &Who) -> Option<ListAnswer> {
        let repository = who.repository.clone();
        let tags = self.stored(move |storage| Ok(storage.index().tags_of(&repository)?));
        let tags = tags.await.ok().filter(|tags| !tags.is_empty())?;
        let names: Vec<String> = tags.into_iter().map(|(name, _)| name).collect();
        let content = json!({"name": who.repository.path(), "tags": names});
        Some(ListAnswer {
            content: content.to_string().into(),
            media_type: "application/json".to_owned(),
            next: None,
            filters: None,
            warning: Some(STALE.to_owned()),
        })
    }

    async fn referrers_from_store(&self, who: &Who, subject: &Digest) -> Option<ListAnswer> {
        let (repository, subject) = (who.repository.clone(), subject.clone());
        let found = self.stored(move |storage| {
            let mut found = Vec::new();
            for digest in storage
                .index()
                .referrers(&subject)?
                .into_iter()
                .take(MAX_REFERRERS)
            {
                if storage.index().linked(&repository, &digest)?.is_none() {
                    continue;
                }
                let Some((content, object)) = storage.manifest(&digest)? else {
                    continue;
                };
                let media_type = object.media_type.unwrap_or_default();
                let Ok(parsed) = parse(&content, Some(&media_type)) else {
                    continue;
                };
                found.push(json!({
                    "mediaType": media_type,
                    "digest": digest.as_str(),
                    "size": content.len(),
                    "artifactType": parsed.artifact_type,
                    "annotations": parsed.annotations,
                }));
            }
            Ok(found)
        });
        Some(referrers(found.await.ok()?, Some(STALE.to_owned())))
    }
}

fn referrers(manifests: Vec<Value>, warning: Option<String>) -> ListAnswer {
    let content = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
    ListAnswer {
        content: content.to_string().into(),
        media_type: OCI_INDEX.to_owned(),
        next: None,
        filters: None,
        warning,
    }
}

/// A list as it came, under the name that it is asked for by here. None where it is no list.
fn ours(who: &Who, list: &List, body: ListBody) -> Option<ListAnswer> {
    let mut content: Value = serde_json::from_slice(&body.content).ok()?;
    let media_type = match list {
        List::Tags => {
            content.get("tags")?;
            *content.get_mut("name")? = who.repository.path().into();
            "application/json".to_owned()
        }
        List::Referrers(_) => {
            content.get("manifests")?.as_array()?;
            OCI_INDEX.to_owned()
        }
    };
    Some(ListAnswer {
        content: content.to_string().into(),
        media_type,
        next: body.next,
        filters: body.filters,
        warning: None,
    })
}
