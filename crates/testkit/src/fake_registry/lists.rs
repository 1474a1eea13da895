//! Lists of tags and of referrers.

use bytes::Bytes;
use http::header::{HeaderValue, LINK};
use http::{Response, StatusCode};
use reqwest::Url;
use serde_json::{Value, json};

use super::behaviour::error;
use super::{State, content};
use crate::server::Body;

/// How a registry lists tags and referrers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// It takes `n` and `last`, and says by `Link` that there is more.
    pub pages: bool,
    /// It has the referrers API of distribution 1.1.
    pub referrers: bool,
    /// It filters referrers by `artifactType`.
    pub filters: bool,
    /// The longest list of referrers in one answer.
    pub referrers_each: usize,
}

impl Default for Listing {
    fn default() -> Self {
        Self {
            pages: true,
            referrers: false,
            filters: true,
            referrers_each: usize::MAX,
        }
    }
}

impl State {
    fn references<'a>(&'a self, repository: &'a str) -> impl Iterator<Item = &'a str> {
        let all = self.manifests.keys();
        all.filter(move |(known, _)| known == repository)
            .map(|(_, reference)| reference.as_str())
    }

    pub(super) fn tags(&self, repository: &str, query: &str) -> Response<Body> {
        if self.references(repository).next().is_none() {
            return error(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
        }
        let references = self.references(repository);
        let mut tags: Vec<&str> = references.filter(|text| !text.contains(':')).collect();
        // Whoever does not page does not sort either.
        tags.sort_unstable();
        if !self.listing.pages {
            tags.reverse();
        }
        let mut link = None;
        if self.listing.pages {
            if let Some(last) = parameter(query, "last") {
                tags.retain(|tag| *tag > last.as_str());
            }
            let most = parameter(query, "n").and_then(|n| n.parse::<usize>().ok());
            if let Some(most) = most.filter(|most| *most < tags.len()) {
                tags.truncate(most);
                let last = tags.last().copied().unwrap_or_default();
                link = Some(format!("/v2/{repository}/tags/list?last={last}&n={most}"));
            }
        }
        let list = json!({"name": repository, "tags": tags});
        linked(content(json_bytes(&list), "application/json", None), link)
    }

    pub(super) fn referrers(&self, repository: &str, subject: &str, query: &str) -> Response<Body> {
        if !self.listing.referrers {
            return error(StatusCode::NOT_FOUND, "UNSUPPORTED");
        }
        let wanted = parameter(query, "artifactType").filter(|_| self.listing.filters);
        let mut descriptors: Vec<Value> = Vec::new();
        let mut digests: Vec<&str> = self.references(repository).collect();
        digests.retain(|reference| reference.contains(':'));
        digests.sort_unstable();
        for digest in digests {
            let key = (repository.to_owned(), digest.to_owned());
            let Some(descriptor) = self.manifests.get(&key).and_then(|image| {
                let manifest: Value = serde_json::from_slice(&image.manifest).ok()?;
                (manifest["subject"]["digest"] == subject)
                    .then(|| descriptor(&manifest, &image.manifest_digest, image.manifest.len()))
            }) else {
                continue;
            };
            let is_wanted = wanted
                .as_ref()
                .is_none_or(|wanted| descriptor["artifactType"] == wanted.as_str());
            if is_wanted {
                descriptors.push(descriptor);
            }
        }
        let first: usize = parameter(query, "from")
            .and_then(|from| from.parse().ok())
            .unwrap_or_default();
        let mut rest = descriptors.split_off(first.min(descriptors.len()));
        let more = rest.len() > self.listing.referrers_each;
        rest.truncate(self.listing.referrers_each);
        let next = first + rest.len();
        let kept = query
            .split('&')
            .filter(|pair| pair.starts_with("artifactType="));
        let kept: String = kept.map(|pair| format!("&{pair}")).collect();
        let link = more.then(|| format!("/v2/{repository}/referrers/{subject}?from={next}{kept}"));
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": rest});
        let mut response = linked(content(json_bytes(&index), media_type, None), link);
        if wanted.is_some() {
            let applied = HeaderValue::from_static("artifactType");
            response
                .headers_mut()
                .insert("oci-filters-applied", applied);
        }
        response
    }
}

/// What stands in a list of referrers for a manifest.
fn descriptor(manifest: &Value, digest: &str, size: usize) -> Value {
    let mut descriptor = json!({
        "mediaType": manifest["mediaType"],
        "digest": digest,
        "size": size,
    });
    let own = &manifest["artifactType"];
    let kind = match own.is_string() {
        true => own,
        false => &manifest["config"]["mediaType"],
    };
    for (name, value) in [
        ("artifactType", kind),
        ("annotations", &manifest["annotations"]),
    ] {
        if !value.is_null() {
            descriptor[name] = value.clone();
        }
    }
    descriptor
}

fn json_bytes(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

fn linked(mut response: Response<Body>, target: Option<String>) -> Response<Body> {
    let link = target.map(|target| format!("<{target}>; rel=\"next\""));
    if let Some(Ok(link)) = link.as_deref().map(HeaderValue::from_str) {
        response.headers_mut().insert(LINK, link);
    }
    response
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let url = Url::parse(&format!("http://registry/?{query}")).ok()?;
    let mut pairs = url.query_pairs();
    pairs.find_map(|(key, value)| (key == name).then(|| value.into_owned()))
}
