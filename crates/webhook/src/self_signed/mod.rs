//! A CA of our own: made, shared by the replicas through a Secret, rotated, and told to the API server.
//!
//! Every replica runs the same round again and again: read, decide ([`rotation`]), write. A write names the
//! version that was read, so of two replicas that decide at once one wins, and the other reads again and
//! takes what won. No leader is needed.

mod issue;
mod registration;
pub mod rotation;
mod secret;
mod watch;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cluster::{ClientProvider, Failure};
use kube::Client;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::Notify;

use self::registration::Registration;
pub use self::rotation::{Clock, Keys, Lifetimes, Step};
use self::secret::SharedSecret;
use listener::certificate::{CertificateError, Pem, Store};

/// Clocks of nodes differ; a certificate is valid from this long before it was made.
const CLOCK_SKEW: Duration = Duration::from_secs(300);
/// How often a round is made without an event. The API server sees two small reads per replica and round.
const SYNC_INTERVAL: Duration = Duration::from_secs(10);
/// How long a round may take.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30);
/// Writes in one round; two replicas that start at once need two, a rotation three.
const ATTEMPTS: usize = 8;

const NOT_PUBLISHED: &str = "the API server has not been told to trust our CA yet";

/// What the certificate is for, and where it is kept.
#[derive(Clone, Debug)]
pub struct CertificateOptions {
    /// Namespace of Secret and Service: the webhook's own.
    pub namespace: String,
    /// Name of the Secret.
    pub secret: String,
    /// Name of the Service that the API server calls; the certificate is for `SERVICE.NAMESPACE.svc`.
    pub service: String,
    /// Name of the MutatingWebhookConfiguration whose `caBundle` is kept in step.
    pub registration: String,
    /// How long things live.
    pub lifetimes: Lifetimes,
}

/// Why a round came to nothing. The next one tries again.
#[derive(Debug, Error)]
pub enum SelfSignedError {
    /// The API server can't be reached, or refuses.
    #[error("cannot {what}: {reason}", reason = describe(error))]
    Api {
        /// What was being done, to which object.
        what: String,
        /// Why it failed.
        error: Box<kube::Error>,
    },
    /// There is no client for the API server.
    #[error("cannot reach an API server: {0}")]
    NoClient(#[from] Failure),
    /// A certificate or key can't be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// What was made, or found, can't be used.
    #[error("cannot use a certificate: {0}")]
    Use(#[from] CertificateError),
    /// Another replica was faster each time.
    #[error("other replicas kept changing Secret or registration; trying again")]
    Conflict,
    /// There is nothing to put the CA into.
    #[error(
        "no MutatingWebhookConfiguration {0} with an entry for our Service; apply the manifests"
    )]
    NotRegistered(String),
    /// The clock is wrong: nothing is made or replaced by it.
    #[error(
        "this replica's clock is wrong: it says {ours}, the API server says {theirs}; nothing is replaced until \
         they agree. Correct the clock of the node"
    )]
    ClockDiffers {
        /// In UTC.
        ours: String,
        /// In UTC.
        theirs: String,
    },
    /// The CA is not valid by our clock, and nobody confirms that clock.
    #[error(
        "by this replica's clock ({0}) the CA is not valid; the clock is wrong, or the CA has expired. Correct \
         the clock of the node, or delete the Secret to begin anew"
    )]
    ClockOrExpired(String),
    /// The API server took too long.
    #[error("the API server gave no answer in time")]
    Timeout,
}

/// Keeps a [`Store`] supplied, and the API server informed.
#[derive(Clone)]
pub struct SelfSigned {
    clients: Arc<ClientProvider>,
    options: Arc<CertificateOptions>,
    names: Vec<String>,
    store: Arc<Store>,
    /// Why it is not ready; none where it is.
    missing: Arc<Mutex<Option<String>>>,
}

impl SelfSigned {
    /// Puts what is shared into `store`.
    pub fn new(
        clients: Arc<ClientProvider>,
        options: CertificateOptions,
        store: Arc<Store>,
    ) -> Self {
        Self {
            names: vec![format!("{}.{}.svc", options.service, options.namespace)],
            clients,
            options: Arc::new(options),
            store,
            missing: Arc::new(Mutex::new(Some(NOT_PUBLISHED.to_owned()))),
        }
    }

    /// Whether the API server has been told what to trust, and our clock can be right.
    ///
    /// # Errors
    /// What is missing, for people.
    pub fn check(&self) -> Result<(), String> {
        match &*self.missing.lock() {
            Some(missing) => Err(missing.clone()),
            None => Ok(()),
        }
    }

    /// Makes rounds until it is dropped: every now and then, and at once when the registration changes. A
    /// trouble is reported when it begins and when it ends.
    pub async fn follow(self) {
        let changed = Arc::new(Notify::new());
        let watch = watch::Watch {
            clients: Arc::clone(&self.clients),
            name: self.options.registration.clone(),
            changed: Arc::clone(&changed),
        };
        tokio::join!(watch.run(), self.sync(&changed));
    }

    async fn sync(&self, changed: &Notify) {
        let mut trouble: Option<String> = None;
        loop {
            let round = tokio::time::timeout(SYNC_TIMEOUT, self.round(SystemTime::now())).await;
            match round.unwrap_or(Err(SelfSignedError::Timeout)) {
                Ok(()) => {
                    if trouble.take().is_some() {
                        tracing::info!("the webhook's certificate is in order again");
                    }
                }
                Err(error) => {
                    let error = error.to_string();
                    if trouble.as_ref() != Some(&error) {
                        tracing::warn!("the webhook's certificate needs attention: {error}");
                        trouble = Some(error);
                    }
                }
            }
            // Running out is no failure: not every change makes an event.
            let _ = tokio::time::timeout(SYNC_INTERVAL, changed.notified()).await;
        }
    }

    /// One round at `now`: brings Secret, registration and store in step.
    ///
    /// # Errors
    /// [`SelfSignedError`]; what is in use stays in use.
    pub async fn round(&self, now: SystemTime) -> Result<(), SelfSignedError> {
        let (client, generation) = self.clients.client().await?;
        let done = self.round_with(client, now).await;
        // A server that answers needs no other client.
        if let Err(SelfSignedError::Api { error, .. }) = &done
            && status(error).is_none()
        {
            self.clients.failed(generation);
        }
        done
    }

    async fn round_with(&self, client: Client, now: SystemTime) -> Result<(), SelfSignedError> {
        let options = &self.options;
        let registration = Registration {
            client: client.clone(),
            name: options.registration.clone(),
            service: options.service.clone(),
            namespace: options.namespace.clone(),
        };
        let secret = SharedSecret::new(client, &options.namespace, options.secret.clone());
        for _ in 0..ATTEMPTS {
            // The registration is read before the Secret: who writes it later with this version can't
            // overwrite a bundle that is newer than the Secret it is made from.
            let registered = registration.read().await?;
            let found = secret.read().await?;
            let published = registered.bundle();
            let clock = clock(registered.date, now);
            let step = match (&found.keys, &clock) {
                (None, Ok(_)) => Step::Begin,
                (None | Some(_), Err(_)) => Step::Wait,
                (Some(keys), Ok(clock)) => rotation::next_step(
                    keys,
                    &self.names,
                    &options.lifetimes,
                    published.as_deref(),
                    now,
                    *clock,
                ),
            };
            let keys = match (step, found.keys.clone()) {
                // What is there is published and served all the same: that needs no clock.
                (Step::Keep | Step::Wait, Some(keys)) => {
                    let bundle = keys.bundle();
                    // First what is trusted, then what is served.
                    let publishing = registration.publish(&registered, &bundle).await;
                    if matches!(publishing, Err(SelfSignedError::Conflict)) {
                        continue;
                    }
                    if self.store.set(&keys.serving)? {
                        tracing::info!("using the certificate in Secret {}", secret.name());
                    }
                    let wrong = match (step, clock) {
                        (Step::Wait, Ok(_)) => Some(SelfSignedError::ClockOrExpired(utc(now))),
                        (_, Err(error)) => Some(error),
                        (_, Ok(_)) => None,
                    };
                    self.note(wrong.as_ref(), publishing.is_ok());
                    return wrong.map_or(publishing, Err);
                }
                (Step::Wait, None) => {
                    let wrong = clock.err().unwrap_or(SelfSignedError::Timeout);
                    self.note(Some(&wrong), false);
                    return Err(wrong);
                }
                (step, keys) => self.after(step, keys, now)?,
            };
            match secret.write(found, &keys).await {
                Ok(()) => tracing::info!("{} in Secret {}", done(step), secret.name()),
                Err(SelfSignedError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(SelfSignedError::Conflict)
    }

    /// Keeps for readiness what a round has found.
    fn note(&self, wrong: Option<&SelfSignedError>, is_published: bool) {
        let missing = match wrong {
            Some(wrong) => Some(wrong.to_string()),
            None if is_published => None,
            None => Some(NOT_PUBLISHED.to_owned()),
        };
        *self.missing.lock() = missing;
    }

    /// The keys after `step`.
    fn after(
        &self,
        step: Step,
        keys: Option<Keys>,
        now: SystemTime,
    ) -> Result<Keys, SelfSignedError> {
        let Some(keys) = keys.filter(|_| step != Step::Begin) else {
            let authority = issue::authority(now, self.options.lifetimes.authority)?;
            return Ok(Keys {
                serving: self.serving(&authority, now)?,
                authority,
                next: None,
                previous: None,
            });
        };
        Ok(match step {
            Step::Keep | Step::Begin | Step::Wait => keys,
            Step::Announce => Keys {
                next: Some(issue::authority(now, self.options.lifetimes.authority)?),
                ..keys
            },
            Step::Promote => match keys.next {
                Some(next) => Keys {
                    serving: self.serving(&next, now)?,
                    authority: next,
                    next: None,
                    previous: Some(keys.authority.chain),
                },
                None => keys,
            },
            Step::Renew => Keys {
                serving: self.serving(&keys.authority, now)?,
                ..keys
            },
            Step::Forget => Keys {
                previous: None,
                ..keys
            },
        })
    }

    fn serving(&self, authority: &Pem, now: SystemTime) -> Result<Pem, SelfSignedError> {
        issue::serving(authority, &self.names, now, self.options.lifetimes.serving)
    }
}

impl std::fmt::Debug for SelfSigned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SelfSigned")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// Compares our clock with the API server's: by more than certificates allow for they must not differ.
fn clock(theirs: Option<SystemTime>, ours: SystemTime) -> Result<Clock, SelfSignedError> {
    let Some(theirs) = theirs else {
        return Ok(Clock::Unconfirmed);
    };
    let apart = match ours.duration_since(theirs) {
        Ok(ahead) => ahead,
        Err(behind) => behind.duration(),
    };
    if apart <= CLOCK_SKEW {
        return Ok(Clock::Confirmed);
    }
    Err(SelfSignedError::ClockDiffers {
        ours: utc(ours),
        theirs: utc(theirs),
    })
}

/// A time for people.
fn utc(time: SystemTime) -> String {
    telemetry::report::timestamp(time)
}

fn done(step: Step) -> &'static str {
    match step {
        Step::Keep | Step::Wait => "kept the certificates",
        Step::Begin => "made a CA and a certificate",
        Step::Announce => "made the next CA",
        Step::Promote => "the next CA signs from now on",
        Step::Renew => "renewed the certificate",
        Step::Forget => "dropped the expired CA",
    }
}

/// An error of the API server about something that was being done.
fn api(what: String) -> impl FnOnce(kube::Error) -> SelfSignedError {
    move |error| SelfSignedError::Api {
        what,
        error: Box::new(error),
    }
}

/// An error without what the client library may quote: an object that it could not read holds keys.
fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => {
            let line = status.message.lines().next().unwrap_or_default();
            let line: String = line.chars().take(200).collect();
            let hint = match status.code {
                403 => "; give it the Roles of deploy/webhook",
                _ => "",
            };
            format!("{} {line}{hint}", status.code)
        }
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => {
            "the answer is not what the API server should say".to_owned()
        }
        kube::Error::Service(_) | kube::Error::HyperError(_) => {
            "the API server can't be reached".to_owned()
        }
        _ => "the request to the API server failed".to_owned(),
    }
}

/// The HTTP status that an error of the API server came with.
fn status(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
