//! The plan's places, asked by the registry client, each registry behind a circuit breaker.
//!
//! | module | what it knows |
//! |---|---|
//! | `places` | where an image may come from |
//! | `health` | which registries answer, and what an answer says of its registry |

mod health;
mod places;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use http::HeaderValue;
use parking_lot::{Mutex, RwLock};
use policy::rules::MirrorOf;
use policy::{CredentialChoice, Credentials, Endpoint, Rules};
use registry::{AddressGuard, Client, FetchOptions, PageRequest, Registry, referrers_tag};

use self::health::Health;
use crate::digest::Digest;
use crate::manifest::{OCI_INDEX, parse};
use crate::name::Repository;
use crate::upstream::{
    Asker, BlobBody, Described, Failure, List, ListBody, ManifestBody, Place, Upstream,
};

/// Until the headers of a manifest that is fetched.
const MANIFEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Until the headers of a blob, and between two pieces of it.
const BLOB_TIMEOUT: Duration = Duration::from_secs(20);

/// What is asked: the rules, and how.
#[derive(Clone, Debug)]
pub struct Asking {
    /// Which places there are.
    pub rules: Rules,
    /// How long a HEAD may take (`probeTimeout`).
    pub probe_timeout: Duration,
}

/// The upstream of the released binary. Clones are the same.
#[derive(Clone)]
pub struct Registries {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    guard: AddressGuard,
    asking: RwLock<Arc<Asking>>,
    /// What this cache is called in `Via`.
    instance: String,
    /// Where this cache itself listens: no place of any plan.
    own: Vec<SocketAddr>,
    health: Mutex<HashMap<Endpoint, Health>>,
}

impl std::fmt::Debug for Registries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registries")
            .field("client", &self.inner.client)
            .finish_non_exhaustive()
    }
}

impl Registries {
    /// `guard` is the client's own. `own` is where this cache listens.
    pub fn new(
        client: Client,
        guard: AddressGuard,
        asking: Asking,
        instance: &str,
        own: Vec<SocketAddr>,
    ) -> Self {
        let registries = Self {
            inner: Arc::new(Inner {
                client,
                guard,
                asking: RwLock::new(Arc::new(asking)),
                instance: instance.to_owned(),
                own,
                health: Mutex::default(),
            }),
        };
        registries.name_hosts();
        registries
    }

    /// Asks by new rules from now on. What is wrong with a registry may be what was changed: all
    /// circuits are closed.
    pub fn configure(&self, asking: Asking) {
        *self.inner.asking.write() = Arc::new(asking);
        self.inner.health.lock().clear();
        self.name_hosts();
    }

    fn name_hosts(&self) {
        let asking = self.asking();
        let registries = asking.rules.registries.iter().map(|r| r.endpoint.host());
        let targets = asking.rules.redirects.iter().map(|r| r.to.host());
        self.inner.guard.set_named(registries.chain(targets));
    }

    fn asking(&self) -> Arc<Asking> {
        Arc::clone(&self.inner.asking.read())
    }

    fn repository(
        &self,
        place: &Place,
        asker: &Asker,
        answer_timeout: Duration,
    ) -> registry::Repository {
        let credentials: Option<Credentials> = match &place.credentials {
            CredentialChoice::Configured(credentials) => Some(credentials.clone()),
            CredentialChoice::Callers => asker.credentials.clone(),
            CredentialChoice::Anonymous => None,
        };
        let mut via = String::new();
        for name in asker.via.iter() {
            via.push_str(&format!("1.1 {name}, "));
        }
        via.push_str(&format!("1.1 {}", self.inner.instance));
        let options = FetchOptions {
            answer_timeout,
            idle_timeout: BLOB_TIMEOUT,
            via: HeaderValue::try_from(via).ok(),
        };
        let registry = Registry {
            endpoint: place.endpoint.clone(),
            credentials,
            tls: place.tls.clone(),
        };
        self.inner
            .client
            .repository(registry, &place.repository, options)
    }
}

impl Upstream for Registries {
    fn places(&self, repository: &Repository) -> Vec<Place> {
        self.planned(repository)
    }

    fn is_configured(&self, host: &str) -> bool {
        let asking = self.asking();
        let rules = &asking.rules;
        rules.registries.iter().any(|registry| {
            registry.endpoint.domain() == host
                || matches!(&registry.mirror_of, MirrorOf::Hosts(hosts) if hosts.iter().any(|h| h == host))
        }) || rules
            .redirects
            .iter()
            .any(|redirect| redirect.src_domain == host || redirect.to.domain() == host)
    }

    fn is_silent(&self, place: &Place) -> Option<String> {
        let health = self.inner.health.lock();
        health.get(&place.endpoint)?.silence(Instant::now())
    }

    fn head_manifest<'a>(
        &'a self,
        place: &'a Place,
        manifest: &'a str,
        asker: &'a Asker,
    ) -> BoxFuture<'a, Result<Described, Failure>> {
        Box::pin(async move {
            let timeout = self.asking().probe_timeout;
            let repository = self.repository(place, asker, timeout);
            let head = self.judge(place, repository.head_manifest(manifest).await)?;
            let named = head.digest.and_then(|digest| digest.parse::<Digest>().ok());
            if let Some(digest) = named {
                let warning = first_warning(&head.warnings);
                return Ok(Described { digest, warning });
            }
            // It names no digest: only the content tells.
            let repository = self.repository(place, asker, MANIFEST_TIMEOUT);
            let body = self.judge(place, repository.manifest(manifest).await)?;
            Ok(Described {
                digest: Digest::of(&body.body),
                warning: first_warning(&body.warnings),
            })
        })
    }

    fn get_manifest<'a>(
        &'a self,
        place: &'a Place,
        manifest: &'a str,
        asker: &'a Asker,
    ) -> BoxFuture<'a, Result<ManifestBody, Failure>> {
        Box::pin(async move {
            let repository = self.repository(place, asker, MANIFEST_TIMEOUT);
            let body = self.judge(place, repository.manifest(manifest).await)?;
            Ok(ManifestBody {
                warning: first_warning(&body.warnings),
                digest: body.digest.parse().ok(),
                media_type: (!body.media_type.is_empty()).then_some(body.media_type),
                content: body.body,
            })
        })
    }

    fn head_blob<'a>(
        &'a self,
        place: &'a Place,
        digest: &'a Digest,
        asker: &'a Asker,
    ) -> BoxFuture<'a, Result<Option<u64>, Failure>> {
        Box::pin(async move {
            let repository = self.repository(place, asker, MANIFEST_TIMEOUT);
            let size = self.judge(place, repository.head_blob(digest.as_str()).await)?;
            Ok(size.size)
        })
    }

    fn get_blob<'a>(
        &'a self,
        place: &'a Place,
        digest: &'a Digest,
        from: u64,
        to: Option<u64>,
        asker: &'a Asker,
    ) -> BoxFuture<'a, Result<BlobBody, Failure>> {
        Box::pin(async move {
            let repository = self.repository(place, asker, BLOB_TIMEOUT);
            let last = to.map(|to| to.saturating_sub(1));
            let answer = repository.blob(digest.as_str(), from, last).await;
            if let Err(error) = &answer
                && from > 0
                && error.status == Some(416)
            {
                self.answered(place);
                return Err(Failure::Shorter(error.detail.clone()));
            }
            let blob = self.judge(place, answer)?;
            let is_shorter =
                blob.length.is_some() && blob.size.is_some() && blob.length != blob.size;
            let is_part = blob.start > 0 || is_shorter;
            let (start, total) = (blob.start, blob.size);
            let named = blob.named_digest.clone();
            let body = stream::try_unfold(blob, |mut blob| async move {
                let chunk = blob.chunk().await.map_err(|error| error.detail)?;
                Ok(chunk.map(|chunk| (chunk, blob)))
            });
            Ok(BlobBody {
                start,
                is_part,
                total,
                digest: named.and_then(|digest| digest.parse().ok()),
                body: body.boxed(),
            })
        })
    }

    fn get_list<'a>(
        &'a self,
        place: &'a Place,
        list: &'a List,
        query: Option<&'a str>,
        asker: &'a Asker,
    ) -> BoxFuture<'a, Result<ListBody, Failure>> {
        Box::pin(async move {
            let repository = self.repository(place, asker, MANIFEST_TIMEOUT);
            let request = PageRequest::from_query(query.unwrap_or_default());
            let answer = match list {
                List::Tags => repository.tags(&request).await,
                List::Referrers(digest) => repository.referrers(digest.as_str(), &request).await,
            };
            let page = match (self.judge(place, answer), list) {
                // Registries without the referrers API keep the index under a tag.
                (Err(Failure::NotFound), List::Referrers(digest)) => {
                    let tag = referrers_tag(digest.as_str());
                    let index = self.judge(place, repository.manifest(&tag).await)?;
                    // Anybody may have given something else that name: then nothing refers to it.
                    let parsed = parse(&index.body, Some(&index.media_type));
                    if !parsed.is_ok_and(|parsed| parsed.media_type == OCI_INDEX) {
                        return Err(Failure::NotFound);
                    }
                    return Ok(ListBody {
                        content: index.body,
                        media_type: Some(index.media_type),
                        next: None,
                        filters: None,
                    });
                }
                (page, _) => page?,
            };
            let filters = page.filters_applied.as_ref();
            Ok(ListBody {
                content: page.body,
                media_type: Some(page.media_type),
                next: page.next.map(|next| next.to_query()),
                filters: filters.and_then(|f| Some(f.to_str().ok()?.to_owned())),
            })
        })
    }
}

fn first_warning(warnings: &[HeaderValue]) -> Option<String> {
    let warning = warnings.iter().find_map(|value| value.to_str().ok())?;
    Some(warning.to_owned())
}
