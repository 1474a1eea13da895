//! Which registries are asked, and the background trials that find out when a failed one is back.
//!
//! A registry that fails has its circuit opened at once; no pull waits for it while it is open. One task
//! per open circuit asks `/v2/` when the pause is over, so that no pull pays for trying and no image can
//! keep the circuit open.
//!
//! A question that has no answer after half of its time is not waited for alone: `/v2/` is asked
//! beside it. So it is known at the deadline whether one image hangs or the whole registry is silent.

mod circuit;
mod trial;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use policy::breaker::State;
use policy::jitter::Jitter;
use policy::{Candidate, CredentialChoice, Endpoint, Rules, TlsOptions, Verdict};
use registry::{Client, ManifestName, Outcome, Registry};
use telemetry::Telemetry;
use telemetry::metrics::{NONE, ORIGIN};
use telemetry::report::Freshness;
use tokio::runtime::Handle;

pub(crate) use self::circuit::Circuit;
use crate::answer::Answer;
use crate::clock;
use crate::options::ResolverOptions;

/// One registry's health, for people.
#[derive(Clone, Debug)]
pub struct RegistryHealth {
    /// Its address, without credentials.
    pub endpoint: Endpoint,
    /// How its certificate is checked.
    pub tls: TlsOptions,
    /// Whether it is asked.
    pub state: State,
    /// Failures of the registry in a row.
    pub failures: u32,
    /// What it said last, or why it said nothing.
    pub last_detail: String,
    /// How long that took.
    pub last_elapsed: Duration,
}

/// How a registry is reached.
type Reached = (Endpoint, TlsOptions);

/// All registries that were ever asked under the present config. Cheap to clone; clones share everything.
#[derive(Clone)]
pub(crate) struct Circuits {
    client: Client,
    /// Runtime that questions and trials run on.
    handle: Handle,
    options: Arc<ArcSwap<ResolverOptions>>,
    telemetry: Telemetry,
    jitter: Arc<Jitter>,
    /// By how a registry is reached: an entry whose certificate can't be checked takes nothing from
    /// another one of the same address that can.
    entries: Arc<Mutex<HashMap<Reached, Arc<Circuit>>>>,
}

impl Circuits {
    pub(crate) fn new(
        client: Client,
        handle: Handle,
        options: Arc<ArcSwap<ResolverOptions>>,
        telemetry: Telemetry,
        jitter: Jitter,
    ) -> Self {
        Self {
            client,
            handle,
            options,
            telemetry,
            jitter: Arc::new(jitter),
            entries: Arc::default(),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn of(&self, candidate: &Candidate) -> Arc<Circuit> {
        let reached = (candidate.endpoint.clone(), candidate.tls.clone());
        let mut entries = self.entries.lock();
        let circuit = entries
            .entry(reached)
            .or_insert_with_key(|(endpoint, tls)| {
                let credentials = match &candidate.credentials {
                    CredentialChoice::Configured(credentials) => Some(credentials.clone()),
                    CredentialChoice::Callers | CredentialChoice::Anonymous => None,
                };
                let jitter = Arc::clone(&self.jitter);
                let circuit = Circuit::new(endpoint.clone(), tls.clone(), credentials, jitter);
                Arc::new(circuit)
            });
        Arc::clone(circuit)
    }

    /// Forgets all registries that are not in `rules`, or are reached otherwise or with other credentials
    /// than before. Their trials end by themselves.
    pub(crate) fn retain(&self, rules: &Rules) {
        let registries = rules.registries.iter();
        let registries = registries.map(|of| (&of.endpoint, &of.tls, &of.credentials));
        let redirects = rules.redirects.iter();
        let redirects = redirects.map(|of| (&of.to, &of.tls, &of.credentials));
        let entries: Vec<_> = registries.chain(redirects).collect();
        self.entries.lock().retain(|(endpoint, tls), circuit| {
            let is_listed = entries
                .iter()
                .any(|(listed, by, _)| *listed == endpoint && *by == tls);
            // A place that is listed twice is asked with the credentials of whichever entry has them.
            let is_known = entries.iter().any(|(listed, _, credentials)| {
                listed.domain() == endpoint.domain() && **credentials == circuit.credentials
            });
            is_listed && is_known
        });
        let mut names: Vec<String> = entries.iter().map(|(of, ..)| of.to_string()).collect();
        names.extend([NONE, ORIGIN].map(ToOwned::to_owned));
        let is_kept = |name: &str| names.iter().any(|kept| kept == name);
        self.telemetry.metrics().retain_registries(is_kept);
    }

    /// Asks every registry anew, whatever is known of it. Trials end by themselves.
    pub(crate) fn reset(&self) {
        self.entries.lock().clear();
    }

    pub(crate) fn health(&self) -> Vec<RegistryHealth> {
        let entries = self.entries.lock();
        let mut all: Vec<_> = entries.values().map(|circuit| circuit.health()).collect();
        all.sort_by_key(|health| health.endpoint.to_string());
        all
    }

    /// Asks one registry for one manifest, notes what that shows of the registry, and starts what
    /// follows from it. `whose` says where the registry's credentials, or the lack of them, come from.
    pub(crate) async fn ask(
        &self,
        circuit: &Arc<Circuit>,
        registry: &Registry,
        name: &ManifestName,
        whose: &CredentialChoice,
    ) -> Answer {
        let deadline = self.options.load().probe_timeout;
        // The trial takes no longer than that; should it not end, the question is asked all the same.
        let _ = tokio::time::timeout(deadline, circuit.first_trial()).await;
        if let Some(why) = circuit.why_open(clock::now()) {
            return Answer::unasked(Verdict::Unavailable, why, Freshness::CircuitOpen);
        }
        let asked = clock::now();
        let probing = self.client.probe(registry, name, deadline);
        tokio::pin!(probing);
        let probe = match tokio::time::timeout(deadline / 2, &mut probing).await {
            Ok(probe) => probe,
            Err(_late) => {
                if !circuit.has_answered_since(asked) {
                    self.check(circuit);
                }
                probing.await
            }
        };
        let finding = circuit.answered(&name.repository, asked, &probe);
        if probe.outcome == Outcome::Unauthorized {
            circuit.log_unauthorized(&probe.detail, remedy(whose, registry.credentials.is_some()));
        }
        if finding.opened {
            self.begin_trials(circuit);
        }
        if finding.is_doubtful {
            self.check(circuit);
        }
        let answer = Answer::probed(probe, finding.is_registrys);
        self.count(circuit, &answer);
        answer
    }

    fn count(&self, circuit: &Circuit, answer: &Answer) {
        let name = circuit.endpoint.to_string();
        let metrics = self.telemetry.metrics();
        metrics.probe(&name, answer.verdict, answer.elapsed);
    }
}

/// What to do where a registry refuses credentials of `whose`, or wants some where `whose` has none.
fn remedy(whose: &CredentialChoice, has_sent_some: bool) -> &'static str {
    match (whose, has_sent_some) {
        (CredentialChoice::Configured(_) | CredentialChoice::Anonymous, _) => {
            "check its auth in the config"
        }
        (CredentialChoice::Callers, true) => {
            "it was asked with the Pod's own credentials; check the Pod's pull secret"
        }
        (CredentialChoice::Callers, false) => {
            "it was asked without a user name and password; set its auth in the config, or, for pulls on nodes, give the Pod a pull secret"
        }
    }
}
