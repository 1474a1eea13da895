//! The plan's places, asked by the registry client, each registry behind a circuit breaker.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use http::HeaderValue;
use parking_lot::{Mutex, RwLock};
use policy::breaker::{Breaker, Change, Signal, State};
use policy::rules::{EntryKind, MirrorOf};
use policy::{CandidateKind, CredentialChoice, Credentials, Endpoint, Plan, Rules, TlsOptions};
use registry::{
    AddressGuard, Client, ExchangeError, FetchOptions, PageRequest, Registry, referrers_tag,
};

use crate::digest::Digest;
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

#[derive(Default)]
struct Health {
    breaker: Breaker,
    last: String,
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

    fn is_own(&self, endpoint: &Endpoint) -> bool {
        let host = endpoint.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let is_here = host == "localhost"
            || bare.parse::<IpAddr>().is_ok_and(|address| {
                address.is_loopback() || self.inner.own.iter().any(|own| own.ip() == address)
            });
        let port = endpoint.effective_port();
        is_here && self.inner.own.iter().any(|own| own.port() == port)
    }

    /// Where an image's own name leads, where it may be asked: by TLS and by name, unless the config
    /// names the host.
    fn origin(&self, rules: &Rules, repository: &Repository) -> Option<Place> {
        let (endpoint, _) = Endpoint::parse(repository.host()).ok()?;
        let host = endpoint.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let is_address = bare.parse::<IpAddr>().is_ok() || host == "localhost";
        let named = rules.registries.iter().map(|r| &r.endpoint);
        let mut named = named.chain(rules.redirects.iter().map(|r| &r.to));
        if is_address && !named.any(|known| known.host() == host) {
            return None;
        }
        Some(Place {
            name: place_name(&endpoint, repository.path()),
            endpoint,
            repository: repository.path().to_owned(),
            credentials: CredentialChoice::Callers,
            tls: TlsOptions::default(),
            priority: 0,
        })
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

    /// Reads an answer for what it says about the registry, and gives it back for what it says about
    /// the question.
    fn judge<T>(&self, place: &Place, answer: Result<T, ExchangeError>) -> Result<T, Failure> {
        let error = match answer {
            Ok(answer) => {
                self.answered(place);
                return Ok(answer);
            }
            Err(error) => error,
        };
        use registry::Failure as Kind;
        let ExchangeError {
            failure,
            status,
            detail,
        } = error;
        if status == Some(508) {
            self.answered(place);
            return Err(Failure::Circle);
        }
        Err(match failure {
            Kind::NotFound => {
                self.answered(place);
                Failure::NotFound
            }
            Kind::Unauthorized => {
                self.answered(place);
                Failure::Refused(detail)
            }
            Kind::RateLimited { retry_after } => {
                if let Some(retry_after) = retry_after {
                    self.note(place, Signal::RateLimited { retry_after }, &detail);
                }
                Failure::RateLimited(retry_after)
            }
            Kind::ImageFailed { cause, .. } if cause.is_silence() => {
                self.look_whether_alive(place, &detail);
                Failure::Silent(detail)
            }
            Kind::ImageFailed { cause, .. } => {
                if cause == registry::Cause::Queue {
                    Failure::Silent(detail)
                } else {
                    let repository = &place.repository;
                    self.note(place, Signal::ImageFailed { repository }, &detail);
                    Failure::Wrong(detail)
                }
            }
            Kind::Unavailable { .. } => {
                self.note(place, Signal::RegistryFailed, &detail);
                Failure::Silent(detail)
            }
        })
    }

    fn answered(&self, place: &Place) {
        self.note(place, Signal::Answered, "answered");
    }

    /// Notes what was seen of a registry, and starts the trials where that opens its circuit.
    fn note(&self, place: &Place, signal: Signal<'_>, detail: &str) {
        let change = {
            let mut health = self.inner.health.lock();
            let known = match health.get_mut(&place.endpoint) {
                Some(known) => known,
                // Most registries answer for all of their lives.
                None if signal == Signal::Answered => return,
                None => health.entry(place.endpoint.clone()).or_default(),
            };
            let change = known.breaker.note(signal, Instant::now(), jitter());
            if change == Some(Change::Opened) {
                detail.clone_into(&mut known.last);
            }
            change
        };
        match change {
            Some(Change::Opened) => {
                tracing::warn!(
                    "circuit open: registry {} is not asked: {detail}; other sources are used until it answers",
                    place.endpoint
                );
                let registry = registry_of(place);
                tokio::spawn(try_until_it_answers(Arc::downgrade(&self.inner), registry));
            }
            Some(Change::Closed) => {
                tracing::info!("circuit closed: registry {} answers again", place.endpoint);
            }
            None => {}
        }
    }

    /// One question was not answered; whether the registry answers at all is another one.
    fn look_whether_alive(&self, place: &Place, detail: &str) {
        let (registries, place) = (self.clone(), place.clone());
        let detail = detail.to_owned();
        tokio::spawn(async move {
            let (asked, timeout) = (Instant::now(), registries.asking().probe_timeout);
            let registry = registry_of(&place);
            let ping = registries.inner.client.ping(&registry, timeout).await;
            let signal = match ping.outcome {
                Ok(()) => Signal::ImageFailed {
                    repository: &place.repository,
                },
                Err(_) => Signal::NotAlive { asked },
            };
            registries.note(&place, signal, &detail);
        });
    }
}

fn registry_of(place: &Place) -> Registry {
    Registry {
        endpoint: place.endpoint.clone(),
        credentials: None,
        tls: place.tls.clone(),
    }
}

fn place_name(endpoint: &Endpoint, repository: &str) -> String {
    let shown = endpoint.to_string();
    let scheme = shown.split_once("://").map(|(scheme, _)| scheme);
    let scheme = scheme.map_or_else(String::new, |scheme| format!("{scheme}://"));
    format!("{scheme}{}/{repository}", endpoint.domain())
}

/// Tries a registry each time its pause is over, until it answers.
async fn try_until_it_answers(inner: Weak<Inner>, registry: Registry) {
    loop {
        let until = {
            let Some(inner) = inner.upgrade() else { return };
            let health = inner.health.lock();
            match health.get(&registry.endpoint).map(|h| h.breaker.state()) {
                Some(State::Open { until }) => until,
                _ => return,
            }
        };
        tokio::time::sleep_until(until.into()).await;
        let Some(inner) = inner.upgrade() else { return };
        {
            let mut health = inner.health.lock();
            match health.get_mut(&registry.endpoint) {
                Some(known) => {
                    if !known.breaker.begin_trial(Instant::now()) {
                        continue;
                    }
                }
                None => return,
            }
        }
        let (asked, timeout) = (Instant::now(), inner.asking.read().probe_timeout);
        let ping = inner.client.ping(&registry, timeout).await;
        let mut health = inner.health.lock();
        let Some(known) = health.get_mut(&registry.endpoint) else {
            return;
        };
        let signal = match ping.outcome {
            Ok(()) => Signal::Alive,
            Err(_) => Signal::NotAlive { asked },
        };
        let change = known.breaker.note(signal, Instant::now(), jitter());
        if change == Some(Change::Closed) {
            tracing::info!(
                "circuit closed: registry {} answers again",
                registry.endpoint
            );
            return;
        }
        known.last = ping.detail;
    }
}

/// From 0 to 1, another one for each call and node.
fn jitter() -> f64 {
    let bits = RandomState::new().hash_one(0u8) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

impl Upstream for Registries {
    fn places(&self, repository: &Repository) -> Vec<Place> {
        let asking = self.asking();
        let Ok(reference) = repository.reference("latest") else {
            return Vec::new();
        };
        let plan = Plan::new(&asking.rules, &reference);
        let mut places: Vec<Place> = Vec::with_capacity(plan.candidates.len() + 1);
        for candidate in plan.candidates {
            if candidate.kind == CandidateKind::Registry(EntryKind::NodeCache)
                || self.is_own(&candidate.endpoint)
            {
                continue;
            }
            places.push(Place {
                name: place_name(&candidate.endpoint, &candidate.repository),
                // A redirect's target without a priority comes after the registries.
                priority: candidate
                    .priority
                    .map_or(1, |priority| u32::from(priority.get()) + 2),
                endpoint: candidate.endpoint,
                repository: candidate.repository,
                credentials: candidate.credentials,
                tls: candidate.tls,
            });
        }
        if plan.fallback_to_origin
            && let Some(origin) = self.origin(&asking.rules, repository)
            && !self.is_own(&origin.endpoint)
            && !places.iter().any(|place| {
                place.endpoint.domain() == origin.endpoint.domain()
                    && place.repository == origin.repository
                    && place.is_callers()
            })
        {
            places.push(origin);
        }
        places
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
        let known = health.get(&place.endpoint)?;
        (!known.breaker.is_closed()).then(|| format!("circuit open: {}", known.last))
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

#[cfg(test)]
mod tests {
    use policy::config::Settings;
    use registry::ClientOptions;

    use super::*;

    fn registries(config: &str) -> Registries {
        let (settings, _) = Settings::read(config, &|_| None);
        let guard = AddressGuard::new();
        let client = Client::new(ClientOptions {
            guard: Some(guard.clone()),
            ..ClientOptions::default()
        });
        let asking = Asking {
            rules: settings.rules,
            probe_timeout: Duration::from_secs(2),
        };
        let own = vec!["127.0.0.1:7439".parse().unwrap()];
        Registries::new(client, guard, asking, "me", own)
    }

    fn names(config: &str, host: &str) -> Vec<String> {
        let repository = Repository::new(host, "x/y").unwrap();
        let places = registries(config).places(&repository);
        places.into_iter().map(|place| place.name).collect()
    }

    #[test]
    fn the_plan_s_places_without_this_cache_itself() {
        let config = "
useNodeCache: true
registries:
  - {address: 'http://mirror.corp:5000/p', priority: 800}
  - {address: 'http://localhost:7439', priority: 900, layout: host}
";
        assert_eq!(
            names(config, "quay.io"),
            ["http://mirror.corp:5000/p/x/y", "https://quay.io/x/y"]
        );
        let closed = "{fallbackToOrigin: false, registries: [{address: m.corp}]}";
        assert_eq!(names(closed, "quay.io"), ["https://m.corp/x/y"]);
    }

    #[test]
    fn addresses_are_origins_only_where_the_config_names_them() {
        for host in [
            "127.0.0.1:5000",
            "localhost:5000",
            "169.254.169.254",
            "10.0.0.1",
        ] {
            assert!(names("{}", host).is_empty(), "{host}");
        }
        let config =
            "registries: [{address: 'http://127.0.0.1:5000', mirrorOf: ['127.0.0.1:5000']}]";
        assert_eq!(
            names(config, "127.0.0.1:5000"),
            ["http://127.0.0.1:5000/x/y"]
        );
    }

    #[test]
    fn hosts_that_the_config_names() {
        let all = registries(
            "{registries: [{address: 'http://reg.corp:5000', mirrorOf: ['other.corp:8443']}],
              imageRedirMapping: [{src: 'third.corp:1/', to: 'fourth.corp:2/'}]}",
        );
        for (host, named) in [
            ("reg.corp:5000", true),
            ("other.corp:8443", true),
            ("third.corp:1", true),
            ("fourth.corp:2", true),
            ("reg.corp:1", false),
        ] {
            assert_eq!(all.is_configured(host), named, "{host}");
        }
    }
}
