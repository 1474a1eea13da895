//! A CA of our own: made, shared by the replicas through a Secret, rotated, and told to the API server.
//!
//! Every replica runs the same round again and again: read, decide ([`rotation`]), write. A write names the
//! version that was read, so of two replicas that decide at once one wins, and the other reads again and
//! takes what won. No leader is needed.

mod issue;
mod registration;
pub mod rotation;
mod secret;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use cluster::{ClientProvider, Failure};
use kube::Client;
use thiserror::Error;

use self::registration::Registration;
pub use self::rotation::{Keys, Lifetimes, Step};
use self::secret::SharedSecret;
use listener::certificate::{CertificateError, Pem, Store};

/// Clocks of nodes differ; a certificate is valid from this long before it was made.
const SKEW: Duration = Duration::from_secs(300);
/// How often a round is made. The API server sees two small reads per replica and round.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long a round may take.
const ROUND: Duration = Duration::from_secs(30);
/// Writes in one round; two replicas that start at once need two, a rotation three.
const ATTEMPTS: usize = 8;

/// What the certificate is for, and where it is kept.
#[derive(Clone, Debug)]
pub struct Options {
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
    /// The API server took too long.
    #[error("the API server gave no answer in time")]
    Timeout,
}

/// Keeps a [`Store`] supplied, and the API server informed.
#[derive(Clone)]
pub struct SelfSigned {
    link: Arc<ClientProvider>,
    options: Arc<Options>,
    names: Vec<String>,
    store: Arc<Store>,
    published: Arc<AtomicBool>,
}

impl SelfSigned {
    /// Puts what is shared into `store`.
    pub fn new(link: Arc<ClientProvider>, options: Options, store: Arc<Store>) -> Self {
        Self {
            names: vec![format!("{}.{}.svc", options.service, options.namespace)],
            link,
            options: Arc::new(options),
            store,
            published: Arc::default(),
        }
    }

    /// Whether the API server has been told what to trust.
    pub fn is_published(&self) -> bool {
        self.published.load(Ordering::Relaxed)
    }

    /// Makes rounds until it is dropped. A trouble is said when it begins and when it ends.
    pub async fn follow(self) {
        let mut trouble: Option<String> = None;
        loop {
            let round = tokio::time::timeout(ROUND, self.round(SystemTime::now())).await;
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
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// One round at `now`: brings Secret, registration and store in step.
    ///
    /// # Errors
    /// [`SelfSignedError`]; what is in use stays in use.
    pub async fn round(&self, now: SystemTime) -> Result<(), SelfSignedError> {
        let (client, generation) = self.link.client().await?;
        let done = self.round_with(client, now).await;
        // A server that answers needs no other client.
        if let Err(SelfSignedError::Api { error, .. }) = &done
            && status(error).is_none()
        {
            self.link.failed(generation);
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
            let step = match &found.keys {
                None => Step::Begin,
                Some(keys) => rotation::next_step(
                    keys,
                    &self.names,
                    &options.lifetimes,
                    published.as_deref(),
                    now,
                ),
            };
            let keys = match (step, found.keys.clone()) {
                (Step::Keep, Some(keys)) => {
                    let bundle = keys.bundle();
                    // First what is trusted, then what is served.
                    let publishing = registration.publish(&registered, &bundle).await;
                    if matches!(publishing, Err(SelfSignedError::Conflict)) {
                        continue;
                    }
                    if self.store.set(&keys.serving)? {
                        tracing::info!("using the certificate in Secret {}", secret.name());
                    }
                    self.published.store(publishing.is_ok(), Ordering::Relaxed);
                    return publishing;
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
            Step::Keep | Step::Begin => keys,
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

fn done(step: Step) -> &'static str {
    match step {
        Step::Keep => "kept the certificates",
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
