//! One connection to the API server that everything shares, made when it is first needed and made
//! anew when it fails: a node's kubeconfig appears, and its certificates change, while we run.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::{Client, Config};

use crate::failure::{Failure, FailureKind};
use crate::places::Places;

/// How long connecting may take. The server is near; a longer wait only delays the next try.
const CONNECT: Duration = Duration::from_secs(5);
/// How long making a client may take, a program of the kubeconfig included.
const BUILD: Duration = Duration::from_secs(30);
/// How long a watch may be silent. The server ends every watch within five minutes.
const SILENCE: Duration = Duration::from_secs(300);

/// Gives out the shared client.
pub struct Link {
    places: Places,
    state: Mutex<State>,
    /// Only one task builds a client at a time.
    building: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    client: Option<(Client, u64)>,
    generation: u64,
    said: Said,
}

/// What was logged, so that it is logged once per change.
#[derive(Default)]
struct Said {
    warnings: Vec<String>,
    missing: bool,
    place: Option<String>,
}

impl Link {
    /// A link that looks at `places` when it is first used.
    pub fn new(places: Places) -> Self {
        Self {
            places,
            state: Mutex::default(),
            building: tokio::sync::Mutex::default(),
        }
    }

    /// The client, with the number that [`Link::failed`] wants.
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
        let discovered = self.places.discover().await;
        self.say(
            &discovered.warnings,
            discovered.found.as_ref().map(|f| &f.1),
        );
        let Some((config, place)) = discovered.found else {
            return Err(Failure::new(
                FailureKind::NoClient,
                "no kubeconfig and no service account",
            ));
        };
        let client = build(config).await.map_err(|failure| {
            Failure::new(failure.kind, format!("{place}: {}", failure.message))
        })?;
        let mut state = self.lock();
        state.generation += 1;
        let made = (client, state.generation);
        state.client = Some(made.clone());
        Ok(made)
    }

    /// Drops the client with this number, if it still is the current one: the next call makes another.
    pub fn failed(&self, generation: u64) {
        let mut state = self.lock();
        if state.client.as_ref().is_some_and(|(_, g)| *g == generation) {
            state.client = None;
        }
    }

    fn current(&self) -> Option<(Client, u64)> {
        self.lock().client.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, warnings: &[String], place: Option<&String>) {
        let said = &mut self.lock().said;
        if said.warnings != warnings {
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            said.warnings = warnings.to_vec();
        }
        match place {
            None if !said.missing => {
                tracing::debug!("skip syncing image-cri-shim config; unable to create kube client");
            }
            Some(place) if said.place.as_ref() != Some(place) => {
                tracing::info!("following the API server of {place}");
            }
            _ => {}
        }
        said.missing = place.is_none();
        said.place = place.cloned();
    }
}

/// A kubeconfig may name a program that gives its credentials, and `kube` waits for it on the thread
/// that asks: not on one of ours.
async fn build(mut config: Config) -> Result<Client, Failure> {
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.write_timeout = Some(CONNECT);
    // Who calls retries by himself, with a pause that grows.
    config.default_retry = false;
    let building = tokio::task::spawn_blocking(move || Client::try_from(config));
    match tokio::time::timeout(BUILD, building).await {
        Ok(Ok(Ok(client))) => Ok(client),
        Ok(Ok(Err(error))) => Err(Failure::from_kube(&error)),
        Ok(Err(_)) | Err(_) => Err(Failure::new(
            FailureKind::Unauthorized,
            "its credentials can't be obtained in time; is its exec plugin stuck?",
        )),
    }
}
