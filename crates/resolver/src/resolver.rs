//! The way of one resolution: memory, breakers, probes at once, decision.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::future::{FutureExt, Shared, WeakShared};
use futures_util::stream::{FuturesUnordered, StreamExt};
use policy::order::is_settled;
use policy::{CredentialChoice, Credentials, Endpoint, Plan, Reference, Rules, Verdict};
use registry::{Client, ManifestName, Outcome, Probe, Registry};
use telemetry::Telemetry;
use telemetry::report::Freshness;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::health::{Asked, Health, Registries, RegistryHealth, lock};
use crate::memory::{Memory, MemoryStats, Question};
use crate::resolution::{Answer, Resolution};

/// What can change while the resolver runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Deadline of one probe (`probeTimeout`, default 2 s).
    pub probe_timeout: Duration,
    /// How long a found image is remembered (`imageCacheTTL`, default 30 min).
    pub found_ttl: Duration,
    /// How long an absent image is remembered (`negativeTTL`, default 30 s).
    pub absent_ttl: Duration,
    /// Remembered images (`imageCacheSize`, default 1024); 0 is off.
    pub size: u64,
}

/// How far to ask.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Depth {
    /// Until the best source is certain.
    Best,
    /// Until the best source is certain among all but these candidates of the plan, from which pulls have
    /// failed a moment ago. They are not asked.
    BestBut(Vec<usize>),
    /// Until everybody has answered: for people.
    All,
}

impl Depth {
    /// The answer for a candidate that is not to be asked.
    fn ruled_out(&self, at: usize) -> Option<Answer> {
        match self {
            Self::BestBut(failed) if failed.contains(&at) => Some(Answer {
                verdict: Verdict::PullFailed,
                detail: "the pull failed".to_owned(),
                digest: None,
                elapsed: Duration::ZERO,
                freshness: Freshness::Remembered,
            }),
            _ => None,
        }
    }
}

/// Decides which candidate of a plan to pull. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Resolver {
    inner: Arc<Inner>,
}

struct Inner {
    registries: Registries,
    memory: Memory,
    options: ArcSwap<Options>,
    /// Runtime that the probes run on.
    handle: Handle,
    /// Resolutions under way, so that concurrent requests for one image share one.
    flights: Mutex<HashMap<FlightKey, WeakShared<Flight>>>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

/// What makes two requests one: the same image, asked of the same places with the same credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FlightKey {
    image: String,
    questions: Vec<Question>,
    depth: Depth,
}

type Flight = Pin<Box<dyn Future<Output = Arc<Resolution>> + Send>>;

impl Resolver {
    /// A resolver whose probes run on `handle`'s runtime and are counted in `telemetry`.
    pub fn new(client: Client, handle: Handle, options: Options, telemetry: Telemetry) -> Self {
        Self {
            inner: Arc::new(Inner {
                memory: Memory::new(options.size),
                registries: Registries::new(client, handle.clone(), telemetry),
                options: ArcSwap::from_pointee(options),
                handle,
                flights: Mutex::default(),
            }),
        }
    }

    /// Takes new options and rules. What is known about registries that stay is kept: their
    /// breakers, their tokens and connections, and the answers that they gave.
    pub fn reconfigure(&self, options: Options, rules: &Rules) {
        self.inner.memory.resize(options.size);
        self.inner.options.store(Arc::new(options));
        let registries = rules.registries.iter().map(|registry| &registry.endpoint);
        let targets = rules.redirects.iter().map(|redirect| &redirect.to);
        let kept: Vec<&Endpoint> = registries.chain(targets).collect();
        self.inner.registries.retain(&kept);
    }

    /// Forgets every remembered answer.
    pub fn forget(&self) {
        self.inner.memory.clear();
    }

    /// Finds out which candidates have the image. Never fails: a registry that gives no answer is an
    /// answer too. `caller` is what the request itself brought; it goes to the host that the request
    /// named and to no other.
    ///
    /// Concurrent calls for one image share one resolution; when all of them are dropped, it ends.
    pub async fn resolve(
        &self,
        plan: &Arc<Plan>,
        caller: Option<&Credentials>,
        depth: Depth,
    ) -> Arc<Resolution> {
        let questions = self.inner.questions(plan, caller);
        if let Some(resolution) = self.inner.recalled(plan, &questions, &depth) {
            // Nobody to ask is neither a hit nor a miss.
            if !plan.candidates.is_empty() {
                self.inner.memory.count(true);
            }
            return Arc::new(resolution);
        }
        let key = FlightKey {
            image: plan.key.clone(),
            questions,
            depth,
        };
        self.flight(key, plan, caller).await
    }

    /// What is known about the candidates now, without asking anybody: also the first answers of a
    /// resolution that is still under way.
    pub fn known(&self, plan: &Arc<Plan>, caller: Option<&Credentials>) -> Resolution {
        let started = Instant::now();
        let questions = self.inner.questions(plan, caller);
        Resolution {
            plan: Arc::clone(plan),
            answers: self.inner.known(plan, &questions, &Depth::Best, started),
            elapsed: started.elapsed(),
        }
    }

    /// Asks the registry that the image's own name points to, anonymously. For people: no pull is
    /// decided by it, nothing is remembered of it, and no breaker opens or closes.
    pub async fn ask_origin(&self, reference: &Reference) -> Answer {
        let endpoint = match Endpoint::parse(reference.domain()) {
            Ok((endpoint, _)) => endpoint,
            Err(error) => {
                return Answer {
                    verdict: Verdict::Unavailable,
                    detail: error.to_string(),
                    digest: None,
                    elapsed: Duration::ZERO,
                    freshness: Freshness::Probed,
                };
            }
        };
        let registry = Registry::anonymous(endpoint);
        let name = ManifestName {
            repository: reference.repository().to_owned(),
            reference: reference.manifest().to_owned(),
        };
        let deadline = self.inner.options.load().probe_timeout;
        let inner = Arc::clone(&self.inner);
        let asked = async move {
            let client = inner.registries.client();
            client.probe(&registry, &name, deadline).await
        };
        match self.inner.handle.spawn(asked).await {
            Ok(probe) => answer(probe),
            Err(ended) => Answer {
                verdict: Verdict::Unavailable,
                detail: format!("asking ended early: {ended}"),
                digest: None,
                elapsed: Duration::ZERO,
                freshness: Freshness::Probed,
            },
        }
    }

    /// Notes that the runtime failed to pull a candidate that was said to have the image. It is not
    /// asked for that image again until `negativeTTL` has passed.
    pub fn pull_failed(&self, plan: &Plan, at: usize, caller: Option<&Credentials>, why: &str) {
        let Some(candidate) = plan.candidates.get(at) else {
            return;
        };
        let credentials = credentials(candidate, caller);
        let question = self.inner.memory.question(candidate, credentials);
        let answer = Answer {
            verdict: Verdict::PullFailed,
            detail: format!("the pull failed: {why}"),
            digest: None,
            elapsed: Duration::ZERO,
            freshness: Freshness::Remembered,
        };
        let until = Instant::now() + self.inner.options.load().absent_ttl;
        self.inner
            .memory
            .remember(&plan.key, question, answer, until);
    }

    /// Counters of the memory.
    pub fn stats(&self) -> MemoryStats {
        self.inner.memory.stats()
    }

    /// The registry client, for its own counters.
    pub fn client(&self) -> &Client {
        self.inner.registries.client()
    }

    /// Health of every registry that was asked so far.
    pub fn registries(&self) -> Vec<RegistryHealth> {
        self.inner.registries.snapshot()
    }

    fn flight(
        &self,
        key: FlightKey,
        plan: &Arc<Plan>,
        caller: Option<&Credentials>,
    ) -> Shared<Flight> {
        let mut flights = lock(&self.inner.flights);
        if let Some(flight) = flights.get(&key).and_then(WeakShared::upgrade) {
            self.inner.memory.count(true);
            return flight;
        }
        self.inner.memory.count(false);
        // Those whose callers all went away.
        flights.retain(|_, flight| flight.upgrade().is_some());
        let task = self.inner.handle.spawn(Inner::run(
            Arc::clone(&self.inner),
            key.clone(),
            Arc::clone(plan),
            caller.cloned(),
        ));
        let unanswered = Resolution {
            plan: Arc::clone(plan),
            answers: vec![None; plan.candidates.len()],
            elapsed: Duration::ZERO,
        };
        let mut task = AbortOnDrop(task);
        let flight: Flight = Box::pin(async move {
            // A probe that panicked or a runtime that is shutting down decides nothing (rule 7).
            (&mut task.0).await.unwrap_or_else(|_| Arc::new(unanswered))
        });
        let flight = flight.shared();
        if let Some(weak) = flight.downgrade() {
            flights.insert(key, weak);
        }
        flight
    }
}

impl Inner {
    fn questions(&self, plan: &Plan, caller: Option<&Credentials>) -> Vec<Question> {
        plan.candidates
            .iter()
            .map(|candidate| {
                self.memory
                    .question(candidate, credentials(candidate, caller))
            })
            .collect()
    }

    /// The resolution that follows from what is known, where that is enough to decide.
    fn recalled(
        &self,
        plan: &Arc<Plan>,
        questions: &[Question],
        depth: &Depth,
    ) -> Option<Resolution> {
        let started = Instant::now();
        let answers = self.known(plan, questions, depth, started);
        is_enough(&answers, depth).then(|| Resolution {
            plan: Arc::clone(plan),
            answers,
            elapsed: started.elapsed(),
        })
    }

    /// What is known about each candidate without asking anybody.
    fn known(
        &self,
        plan: &Plan,
        questions: &[Question],
        depth: &Depth,
        now: Instant,
    ) -> Vec<Option<Answer>> {
        let candidates = plan.candidates.iter().zip(questions).enumerate();
        candidates
            .map(|(at, (candidate, question))| {
                depth
                    .ruled_out(at)
                    .or_else(|| self.memory.recall(&plan.key, *question, now))
                    .or_else(|| circuit_open(&self.registries.of(&candidate.endpoint), now))
            })
            .collect()
    }

    async fn run(
        inner: Arc<Self>,
        key: FlightKey,
        plan: Arc<Plan>,
        caller: Option<Credentials>,
    ) -> Arc<Resolution> {
        let started = Instant::now();
        let mut answers: Vec<Option<Answer>> = vec![None; plan.candidates.len()];
        let mut probes = FuturesUnordered::new();
        for (at, (candidate, question)) in plan.candidates.iter().zip(&key.questions).enumerate() {
            let known = key
                .depth
                .ruled_out(at)
                .or_else(|| inner.memory.recall(&plan.key, *question, started));
            let found = known
                .as_ref()
                .is_some_and(|answer| answer.verdict == Verdict::Found);
            match known {
                Some(answer) => {
                    if let Some(place) = answers.get_mut(at) {
                        *place = Some(answer);
                    }
                }
                None => probes.push(inner.ask(&plan, at, candidate, caller.as_ref(), *question)),
            }
            if found && key.depth != Depth::All {
                // Nothing below it can matter.
                break;
            }
        }
        while !is_enough(&answers, &key.depth) {
            let Some((at, answer)) = probes.next().await else {
                break;
            };
            if let Some(place) = answers.get_mut(at) {
                *place = Some(answer);
            }
        }
        drop(probes);
        lock(&inner.flights).remove(&key);
        Arc::new(Resolution {
            plan,
            answers,
            elapsed: started.elapsed(),
        })
    }

    /// Asks one candidate's registry, unless its circuit is open.
    async fn ask(
        &self,
        plan: &Plan,
        at: usize,
        candidate: &policy::Candidate,
        caller: Option<&Credentials>,
        question: Question,
    ) -> (usize, Answer) {
        let health = self.registries.of(&candidate.endpoint);
        if let Some(answer) = circuit_open(&health, Instant::now()) {
            return (at, answer);
        }
        let options = self.options.load_full();
        let asked = Asked {
            registry: Registry {
                endpoint: candidate.endpoint.clone(),
                credentials: credentials(candidate, caller).cloned(),
                tls: candidate.tls.clone(),
            },
            name: ManifestName {
                repository: candidate.repository.clone(),
                reference: plan.reference.manifest().to_owned(),
            },
            deadline: options.probe_timeout,
        };
        let probe = self
            .registries
            .client()
            .probe(&asked.registry, &asked.name, asked.deadline)
            .await;
        self.registries.note(&health, &asked, &probe);
        let answer = answer(probe);
        let ttl = match answer.verdict {
            Verdict::Found => Some(options.found_ttl),
            Verdict::NotFound | Verdict::Unauthorized => Some(options.absent_ttl),
            Verdict::RateLimited
            | Verdict::ImageFailed
            | Verdict::Unavailable
            | Verdict::PullFailed => None,
        };
        if let Some(ttl) = ttl {
            let until = Instant::now() + ttl;
            self.memory
                .remember(&plan.key, question, answer.clone(), until);
        }
        (at, answer)
    }
}

fn is_enough(answers: &[Option<Answer>], depth: &Depth) -> bool {
    match depth {
        Depth::All => answers.iter().all(Option::is_some),
        Depth::Best | Depth::BestBut(_) => {
            let verdicts: Vec<_> = answers
                .iter()
                .map(|answer| answer.as_ref().map(|answer| answer.verdict))
                .collect();
            is_settled(&verdicts)
        }
    }
}

fn circuit_open(health: &Health, now: Instant) -> Option<Answer> {
    health.circuit_open(now).map(|detail| Answer {
        verdict: Verdict::Unavailable,
        detail,
        digest: None,
        elapsed: Duration::ZERO,
        freshness: Freshness::CircuitOpen,
    })
}

fn answer(probe: Probe) -> Answer {
    let verdict = verdict(&probe.outcome);
    let digest = match probe.outcome {
        Outcome::Found { digest } => digest,
        _ => None,
    };
    Answer {
        verdict,
        detail: probe.detail,
        digest,
        elapsed: probe.elapsed,
        freshness: Freshness::Probed,
    }
}

/// What a probe's outcome means for the decision.
pub(crate) fn verdict(outcome: &Outcome) -> Verdict {
    match outcome {
        Outcome::Found { .. } => Verdict::Found,
        Outcome::NotFound => Verdict::NotFound,
        Outcome::Unauthorized => Verdict::Unauthorized,
        Outcome::RateLimited { .. } => Verdict::RateLimited,
        Outcome::ImageFailed { .. } | Outcome::Unavailable { .. } => Verdict::Unavailable,
    }
}

/// What a candidate is asked with: the caller's credentials only where the plan allows it.
fn credentials<'c>(
    candidate: &'c policy::Candidate,
    caller: Option<&'c Credentials>,
) -> Option<&'c Credentials> {
    match &candidate.credentials {
        CredentialChoice::Configured(configured) => Some(configured),
        CredentialChoice::Callers => caller,
        CredentialChoice::Anonymous => None,
    }
}

/// A task that ends with its handle: a resolution that nobody waits for asks nobody.
struct AbortOnDrop(JoinHandle<Arc<Resolution>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
