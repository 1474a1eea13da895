//! One connection to the API server that everything shares, made when it is first needed and made
//! anew when it fails: a node's kubeconfig appears, and its certificates change, while we run.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use kube::client::ClientBuilder;
use kube::{Client, Config};
use parking_lot::Mutex;
use policy::jitter::Jitter;
use secrecy::{ExposeSecret, SecretString};
use tower::util::MapRequestLayer;

use crate::candidates::KubeconfigCandidates;
use crate::failure::{Failure, FailureKind};
use crate::token::TokenFile;

/// How long connecting may take. The server is near; a longer wait only delays the next try.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long making a client may take, a program of the kubeconfig included.
const BUILD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a watch may be silent. Who ends it is the server, when it has lasted for as long as was asked.
const IDLE_TIMEOUT: Duration = Duration::from_secs(630);
/// How long one watch lasts: a time from this range, so that a cluster's nodes don't open theirs as one. The next
/// one begins with the object as it is, because a watch can be dead without anybody noticing.
const CHECK_INTERVAL: Range<Duration> = Duration::from_secs(300)..Duration::from_secs(600);

/// Gives out the shared client.
pub struct ClientProvider {
    origin: Origin,
    jitter: Jitter,
    check_interval: Range<Duration>,
    state: Mutex<State>,
    /// Only one task builds a client at a time.
    building: tokio::sync::Mutex<()>,
}

/// Where clients come from.
enum Origin {
    /// Kubeconfigs and service accounts.
    Candidates(Box<KubeconfigCandidates>),
    /// The caller.
    Made(Box<dyn Fn() -> Client + Send + Sync>),
}

#[derive(Default)]
struct State {
    client: Option<(Client, u64)>,
    generation: u64,
    reported: Reported,
}

/// What was logged, so that it is logged once per change.
#[derive(Default)]
struct Reported {
    warnings: Vec<String>,
    missing: bool,
    place: Option<String>,
}

impl ClientProvider {
    /// Looks at `candidates` when it is first asked.
    pub fn new(candidates: KubeconfigCandidates) -> Self {
        Self::of(Origin::Candidates(Box::new(candidates)))
    }

    /// Takes each client from `make`: for servers that are reached by no address, as simulated ones.
    pub fn connected_by(make: impl Fn() -> Client + Send + Sync + 'static) -> Self {
        Self::of(Origin::Made(Box::new(make)))
    }

    fn of(origin: Origin) -> Self {
        Self {
            origin,
            jitter: Jitter::from_seed(RandomState::new().hash_one(())),
            check_interval: CHECK_INTERVAL,
            state: Mutex::default(),
            building: tokio::sync::Mutex::default(),
        }
    }

    /// Spreads tries and watches by these numbers, for runs that are to be repeated.
    #[must_use]
    pub fn spread_by(self, jitter: Jitter) -> Self {
        Self { jitter, ..self }
    }

    /// A number from 0 to 1, another one each time and on each node.
    pub(crate) fn random(&self) -> f64 {
        self.jitter.next()
    }

    /// How long one watch lasts; the next one is a check, too. Default: 5 to 10 minutes.
    #[must_use]
    pub fn with_check_interval(self, check_interval: Range<Duration>) -> Self {
        Self {
            check_interval,
            ..self
        }
    }

    pub(crate) fn check_interval(&self) -> Range<Duration> {
        self.check_interval.clone()
    }

    /// The client, with the number that [`ClientProvider::failed`] wants.
    ///
    /// # Errors
    /// No place has a config, or what is there makes no client.
    pub async fn client(&self) -> Result<(Client, u64), Failure> {
        if let Some(client) = self.current() {
            return Ok(client);
        }
        let _one = self.building.lock().await;
        if let Some(client) = self.current() {
            return Ok(client);
        }
        let candidates = match &self.origin {
            Origin::Candidates(candidates) => candidates,
            Origin::Made(make) => return Ok(self.keep(make())),
        };
        let discovered = candidates.discover().await;
        self.report(
            &discovered.warnings,
            discovered.found.as_ref().map(|f| &f.1),
        );
        let Some((config, place)) = discovered.found else {
            return Err(match discovered.warnings.as_slice() {
                [] => Failure::new(
                    FailureKind::NoClient,
                    "no kubeconfig and no service account",
                ),
                warnings => Failure::new(FailureKind::Unusable, warnings.join("; ")),
            });
        };
        let client = build(config).await.map_err(|failure| {
            Failure::new(failure.kind, format!("{place}: {}", failure.message))
        })?;
        Ok(self.keep(client))
    }

    fn keep(&self, client: Client) -> (Client, u64) {
        let mut state = self.state.lock();
        state.generation += 1;
        let made = (client, state.generation);
        state.client = Some(made.clone());
        made
    }

    /// Drops the client with this number, if it still is the current one: the next call makes another.
    pub fn failed(&self, generation: u64) {
        let mut state = self.state.lock();
        if state.client.as_ref().is_some_and(|(_, g)| *g == generation) {
            state.client = None;
        }
    }

    fn current(&self) -> Option<(Client, u64)> {
        self.state.lock().client.clone()
    }

    fn report(&self, warnings: &[String], place: Option<&String>) {
        let reported = &mut self.state.lock().reported;
        if reported.warnings != warnings {
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            reported.warnings = warnings.to_vec();
        }
        match place {
            None if !reported.missing => {
                tracing::debug!("skip syncing image-cri-shim config; unable to create kube client");
            }
            Some(place) if reported.place.as_ref() != Some(place) => {
                tracing::info!("following the API server of {place}");
            }
            _ => {}
        }
        reported.missing = place.is_none();
        reported.place = place.cloned();
    }
}

/// A kubeconfig may name a program that gives its credentials, and `kube` waits for it on the thread
/// that asks: not on one of ours.
async fn build(mut config: Config) -> Result<Client, Failure> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(IDLE_TIMEOUT);
    config.write_timeout = Some(CONNECT_TIMEOUT);
    // Who calls retries by himself, with a pause that grows.
    config.default_retry = false;
    let token_file = config.auth_info.token_file.take();
    let token_file = match token_file.filter(|file| !file.is_empty()) {
        Some(file) => Some(TokenFile::open(PathBuf::from(file)).await),
        None => None,
    };
    let building = tokio::task::spawn_blocking(move || connect(config, token_file));
    match tokio::time::timeout(BUILD_TIMEOUT, building).await {
        Ok(Ok(built)) => built,
        Ok(Err(_)) | Err(_) => Err(Failure::new(
            FailureKind::Unauthorized,
            "its credentials can't be obtained in time; is its exec plugin stuck?",
        )),
    }
}

/// As kubectl has it: a token file goes before a token, and is read again while we run; the token is used
/// where the file can't be read.
fn connect(
    mut config: Config,
    token_file: Option<io::Result<TokenFile>>,
) -> Result<Client, Failure> {
    let token = config.auth_info.token.take();
    let token = token.map(|token| SecretString::from(token.expose_secret().trim().to_owned()));
    let from_file = match token_file {
        Some(Err(error)) if token.is_none() => {
            return Err(Failure::new(
                FailureKind::Unauthorized,
                format!("its token file can't be read: {error}"),
            ));
        }
        Some(opened) => opened.ok(),
        None => None,
    };
    if from_file.is_none() {
        config.auth_info.token = token;
    }
    let builder = ClientBuilder::try_from(config).map_err(|error| Failure::from_kube(&error))?;
    Ok(match from_file {
        Some(file) => {
            let sign = MapRequestLayer::new(move |request| file.sign(request));
            builder.with_layer(&sign).build()
        }
        None => builder.build(),
    })
}
