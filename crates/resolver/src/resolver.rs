//! The way of one resolution: memory, circuits, probes at once, decision.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::future::{FutureExt, Shared, WeakShared};
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use policy::jitter::Jitter;
use policy::{Candidate, CredentialChoice, Credentials, Endpoint, Plan, Reference, Rules, Verdict};
use registry::{Client, ManifestName, Registry};
use telemetry::Telemetry;
use telemetry::report::Freshness;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use crate::answer::Answer;
use crate::background::Background;
use crate::circuits::{Circuit, Circuits, RegistryHealth};
use crate::clock;
use crate::depth::Depth;
use crate::likely::LikelyPlaces;
use crate::memory::{Memory, MemoryStats, Question};
use crate::options::ResolverOptions;
use crate::resolution::Resolution;

/// What a candidate is said to be where nobody could be asked in time.
const NOT_ASKED: &str = "not asked: the shim's background runtime is stuck";

/// What part of `probeTimeout` the most likely place is waited for before those below it are asked, too:
/// an eighth, 250 milliseconds by default.
const HEAD_STARTS: u32 = 8;

/// Decides which candidate of a plan to pull. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Resolver {
    inner: Arc<Inner>,
}

struct Inner {
    circuits: Circuits,
    memory: Memory,
    likely: LikelyPlaces,
    options: Arc<ArcSwap<ResolverOptions>>,
    /// Runtime that the probes run on.
    background: Background,
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
    pub fn new(
        client: Client,
        handle: Handle,
        options: ResolverOptions,
        telemetry: Telemetry,
    ) -> Self {
        let seed = RandomState::new().hash_one(());
        Self::spread_by(Jitter::from_seed(seed), client, handle, options, telemetry)
    }

    /// As [`Self::new`], with numbers of the caller's that spread the trials of failed registries: for runs
    /// that are to be repeated.
    pub fn spread_by(
        jitter: Jitter,
        client: Client,
        handle: Handle,
        options: ResolverOptions,
        telemetry: Telemetry,
    ) -> Self {
        let memory = Memory::new(options.size);
        let options = Arc::new(ArcSwap::from_pointee(options));
        let circuits = Circuits::new(
            client,
            handle.clone(),
            Arc::clone(&options),
            telemetry,
            jitter,
        );
        Self {
            inner: Arc::new(Inner {
                circuits,
                memory,
                likely: LikelyPlaces::default(),
                options,
                background: Background::new(handle),
                flights: Mutex::default(),
            }),
        }
    }

    /// Takes new options and rules. What is known about registries that stay as they were is kept: their
    /// circuits, their tokens and connections, and the answers that they gave. A registry whose TLS options
    /// or credentials have changed is tried anew at once; all are where `probeTimeout` has.
    pub fn reconfigure(&self, options: ResolverOptions, rules: &Rules) {
        let inner = &self.inner;
        inner.memory.resize(options.size);
        let old = inner.options.swap(Arc::new(options));
        if old.probe_timeout != inner.options.load().probe_timeout {
            self.close_circuits();
        }
        inner.circuits.retain(rules);
    }

    /// Asks every registry anew, also those whose circuit is open, and for images that have failed there.
    /// For operators who know that something was mended (SIGHUP).
    pub fn close_circuits(&self) {
        self.inner.circuits.reset();
        self.inner.memory.forget_failures();
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
        let probe_timeout = self.inner.options.load().probe_timeout;
        // Not even a flight is begun while the runtime that it would run on is stuck.
        let asking = async { self.flight(key, plan, caller).await };
        match self.inner.background.bounded(probe_timeout, asking).await {
            Some(resolution) => resolution,
            None => Arc::new(self.inner.unasked(plan, caller)),
        }
    }

    /// What is known about the candidates now, without asking anybody: also the first answers of a
    /// resolution that is still under way.
    pub fn known(&self, plan: &Arc<Plan>, caller: Option<&Credentials>) -> Resolution {
        let started = clock::now();
        let questions = self.inner.questions(plan, caller);
        Resolution {
            plan: Arc::clone(plan),
            answers: self.inner.known(plan, &questions, &Depth::Best, started),
            elapsed: clock::now().saturating_duration_since(started),
        }
    }

    /// Asks the registry that the image's own name points to, anonymously. For people: no pull is
    /// decided by it, nothing is remembered of it, and no circuit opens or closes.
    pub async fn ask_origin(&self, reference: &Reference) -> Answer {
        let failed = |why: String| Answer::unasked(Verdict::Unavailable, why, Freshness::Probed);
        let endpoint = match Endpoint::parse(reference.domain()) {
            Ok((endpoint, _)) => endpoint,
            Err(error) => return failed(error.to_string()),
        };
        let registry = Registry::anonymous(endpoint);
        let name = ManifestName {
            repository: reference.repository().to_owned(),
            reference: reference.manifest().to_owned(),
        };
        let deadline = self.inner.options.load().probe_timeout;
        let client = self.inner.circuits.client().clone();
        let background = &self.inner.background;
        let asking = async {
            let asked = async move { client.probe(&registry, &name, deadline).await };
            background.handle().spawn(asked).await
        };
        match background.bounded(deadline, asking).await {
            Some(Ok(probe)) => Answer::probed(probe, false),
            Some(Err(ended)) => failed(format!("asking ended early: {ended}")),
            None => failed(NOT_ASKED.to_owned()),
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
        let why = format!("the pull failed: {why}");
        let answer = Answer::unasked(Verdict::PullFailed, why, Freshness::Remembered);
        let ttl = self.inner.options.load().absent_ttl;
        self.inner.memory.remember(&plan.key, question, answer, ttl);
    }

    /// Counters of the memory.
    pub fn stats(&self) -> MemoryStats {
        self.inner.memory.stats()
    }

    /// The registry client, for its own counters.
    pub fn client(&self) -> &Client {
        self.inner.circuits.client()
    }

    /// Health of every registry that was asked so far, in the order of their addresses.
    pub fn registries(&self) -> Vec<RegistryHealth> {
        self.inner.circuits.health()
    }

    fn flight(
        &self,
        key: FlightKey,
        plan: &Arc<Plan>,
        caller: Option<&Credentials>,
    ) -> Shared<Flight> {
        let mut flights = self.inner.flights.lock();
        if let Some(flight) = flights.get(&key).and_then(WeakShared::upgrade) {
            self.inner.memory.count(true);
            return flight;
        }
        self.inner.memory.count(false);
        // Those whose callers all went away.
        flights.retain(|_, flight| flight.upgrade().is_some());
        // A resolution that nobody waits for asks nobody.
        let task = AbortOnDropHandle::new(self.inner.background.handle().spawn(Inner::run(
            Arc::clone(&self.inner),
            key.clone(),
            Arc::clone(plan),
            caller.cloned(),
        )));
        let unanswered = Resolution {
            plan: Arc::clone(plan),
            answers: vec![None; plan.candidates.len()],
            elapsed: Duration::ZERO,
        };
        let flight: Flight = Box::pin(async move {
            // A probe that panicked or a runtime that is shutting down decides nothing (rule 7).
            task.await.unwrap_or_else(|_| Arc::new(unanswered))
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
        let started = clock::now();
        let answers = self.known(plan, questions, depth, started);
        depth.is_reached(&answers).then(|| Resolution {
            plan: Arc::clone(plan),
            answers,
            elapsed: clock::now().saturating_duration_since(started),
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
                let circuit = self.circuits.of(candidate);
                depth
                    .ruled_out(at)
                    .or_else(|| self.known_of(&plan.key, *question, &circuit, now))
            })
            .collect()
    }

    /// What is known of a candidate without asking. An image that was found where the circuit is open now
    /// is not taken from there as long as another place has it: the runtime would wait for that registry.
    fn known_of(
        &self,
        image: &str,
        question: Question,
        circuit: &Circuit,
        now: Instant,
    ) -> Option<Answer> {
        let remembered = self
            .memory
            .recall(image, question, now, circuit.back_since());
        let says_found = |answer: &Answer| answer.verdict == Verdict::Found;
        match remembered {
            Some(answer) if !says_found(&answer) => Some(answer),
            remembered => circuit
                .why_open(now)
                .map(|why| Answer::unasked(Verdict::Unavailable, why, Freshness::CircuitOpen))
                .or(remembered),
        }
    }

    /// What is known without the background runtime.
    fn unasked(&self, plan: &Arc<Plan>, caller: Option<&Credentials>) -> Resolution {
        let now = clock::now();
        let questions = self.questions(plan, caller);
        let known = self.known(plan, &questions, &Depth::Best, now).into_iter();
        let not_asked = || Answer::unasked(Verdict::Unavailable, NOT_ASKED, Freshness::Probed);
        let answers = known.map(|answer| answer.or_else(|| Some(not_asked())));
        Resolution {
            plan: Arc::clone(plan),
            answers: answers.collect(),
            elapsed: Duration::ZERO,
        }
    }

    async fn run(
        inner: Arc<Self>,
        key: FlightKey,
        plan: Arc<Plan>,
        caller: Option<Credentials>,
    ) -> Arc<Resolution> {
        let started = clock::now();
        let mut answers: Vec<Option<Answer>> = vec![None; plan.candidates.len()];
        let mut probes = FuturesUnordered::new();
        // Candidates below the likely one: asked when it has said no, or has not answered for a while.
        let likely = inner.likely(&plan, &key.depth, started);
        let mut held_back = Vec::new();
        for (at, (candidate, question)) in plan.candidates.iter().zip(&key.questions).enumerate() {
            let circuit = inner.circuits.of(candidate);
            let known = key
                .depth
                .ruled_out(at)
                .or_else(|| inner.known_of(&plan.key, *question, &circuit, started));
            let found = known
                .as_ref()
                .is_some_and(|answer| answer.verdict == Verdict::Found);
            match known {
                Some(answer) => {
                    if let Some(place) = answers.get_mut(at) {
                        *place = Some(answer);
                    }
                }
                None => {
                    let asking = inner.ask(&plan, at, circuit, caller.as_ref(), *question);
                    if likely.is_some_and(|likely| at > likely) {
                        held_back.push(asking);
                    } else {
                        probes.push(asking);
                    }
                }
            }
            if found && key.depth != Depth::All {
                // Nothing below it can matter.
                break;
            }
        }
        let head_start = inner.options.load().probe_timeout / HEAD_STARTS;
        let mut head_start = pin!(tokio::time::sleep(head_start));
        while !key.depth.is_reached(&answers) {
            let answered = tokio::select! {
                biased;
                answered = probes.next() => answered,
                () = &mut head_start, if !held_back.is_empty() => {
                    probes.extend(held_back.drain(..));
                    continue;
                }
            };
            let Some((at, answer)) = answered else {
                if held_back.is_empty() {
                    break;
                }
                probes.extend(held_back.drain(..));
                continue;
            };
            if likely == Some(at) && answer.verdict != Verdict::Found {
                probes.extend(held_back.drain(..));
            }
            if let Some(place) = answers.get_mut(at) {
                *place = Some(answer);
            }
        }
        drop(probes);
        drop(held_back);
        inner.flights.lock().remove(&key);
        let resolution = Resolution {
            plan,
            answers,
            elapsed: clock::now().saturating_duration_since(started),
        };
        if let Some(at) = resolution.chosen() {
            inner.likely.remember(&resolution.plan, at);
        }
        Arc::new(resolution)
    }

    /// The candidate below which nobody needs to be asked at first: the likely one, or, where that can't be
    /// asked now, the next below it that can.
    fn likely(&self, plan: &Plan, depth: &Depth, now: Instant) -> Option<usize> {
        if *depth == Depth::All {
            return None;
        }
        let likely = self.likely.candidate(plan)?;
        let below = plan.candidates.iter().enumerate().skip(likely);
        let mut asked = below.filter(|(at, candidate)| {
            depth.ruled_out(*at).is_none() && self.circuits.of(candidate).why_open(now).is_none()
        });
        asked.next().map(|(at, _)| at)
    }

    /// Asks one candidate's registry, and remembers what it says of the image.
    async fn ask(
        &self,
        plan: &Plan,
        at: usize,
        circuit: Arc<Circuit>,
        caller: Option<&Credentials>,
        question: Question,
    ) -> (usize, Answer) {
        let Some(candidate) = plan.candidates.get(at) else {
            let no_such = "there is no such candidate";
            return (
                at,
                Answer::unasked(Verdict::NotFound, no_such, Freshness::Probed),
            );
        };
        let registry = Registry {
            endpoint: candidate.endpoint.clone(),
            credentials: credentials(candidate, caller).cloned(),
            tls: candidate.tls.clone(),
        };
        let name = ManifestName {
            repository: candidate.repository.clone(),
            reference: plan.reference.manifest().to_owned(),
        };
        let asking = self
            .circuits
            .ask(&circuit, &registry, &name, &candidate.credentials);
        let answer = asking.await;
        if !answer.circuit_open {
            self.remember(&plan.key, question, &answer);
        }
        (at, answer)
    }

    fn remember(&self, image: &str, question: Question, answer: &Answer) {
        let options = self.options.load();
        let (memory, answer) = (&self.memory, answer.clone());
        match answer.verdict {
            Verdict::Found => memory.remember(image, question, answer, options.found_ttl),
            Verdict::NotFound | Verdict::Unauthorized => {
                memory.remember(image, question, answer, options.absent_ttl);
            }
            Verdict::RateLimited | Verdict::ImageFailed => {
                memory.remember_failure(image, question, answer, options.failed_ttl());
            }
            Verdict::Unavailable | Verdict::PullFailed => {}
        }
    }
}

/// What a candidate is asked with: the caller's credentials only where the plan allows it.
fn credentials<'c>(
    candidate: &'c Candidate,
    caller: Option<&'c Credentials>,
) -> Option<&'c Credentials> {
    match &candidate.credentials {
        CredentialChoice::Configured(configured) => Some(configured),
        CredentialChoice::Callers => caller,
        CredentialChoice::Anonymous => None,
    }
}
