//! The modelled places that images come from: registries with round trips, capacity, outages and limits.

use std::collections::HashSet;
use std::time::Duration;

use parking_lot::Mutex;
use registry::Cause;
use tokio::time::Instant;

use crate::meter::Series;

/// How long somebody without a deadline of his own waits for a connection that nobody answers.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// The program between kubelet and the runtime, to find out who has an image.
    Shim,
    /// The runtime, to pull it.
    Runtime,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question<'a> {
    /// `/v2/`.
    Alive,
    /// A token, from the place's token service.
    Token,
    /// The manifest of `repository:tag`.
    Manifest {
        /// `repository:tag`.
        image: &'a str,
        /// Whether a token comes with it.
        with_token: bool,
    },
}

/// What a place answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// 200.
    Yes,
    /// 404.
    No,
    /// 401: a token is wanted.
    WantsToken,
    /// 429.
    TooMany {
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
}

/// Times since the start of a run.
#[derive(Clone, Debug)]
pub struct Span {
    /// When it begins.
    pub from: Duration,
    /// When it has ended.
    pub to: Duration,
}

impl Span {
    /// From second `from` to second `to`.
    pub fn seconds(from: u64, to: u64) -> Self {
        Self {
            from: Duration::from_secs(from),
            to: Duration::from_secs(to),
        }
    }

    /// Whether it is one of them.
    pub fn holds(&self, at: Duration) -> bool {
        self.from <= at && at < self.to
    }
}

/// A place, as a scenario describes it.
#[derive(Clone, Debug)]
pub struct PlaceModel {
    /// What it is called in tables.
    pub name: &'static str,
    /// Names that it is asked by, those of its token service included.
    pub hosts: &'static [&'static str],
    /// Shortest round trip from a node; the longest is half as long again.
    pub round_trip: Duration,
    /// Requests that it answers in a second; more wait their turn.
    pub capacity: f64,
    /// Whether it wants a token for manifests.
    pub wants_tokens: bool,
    /// What it has, as `repository:tag`.
    pub images: HashSet<String>,
    /// When connections are refused.
    pub refuses: Vec<Span>,
    /// When manifests are answered with 429, and the `Retry-After` that comes with it.
    pub limits: Vec<(Span, Option<Duration>)>,
}

/// A place that is being asked.
#[derive(Debug)]
pub struct Place {
    /// What it is like.
    pub model: PlaceModel,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When it has answered everything that it was asked so far.
    free_at: Instant,
    shim: Series,
    runtime: Series,
}

impl Place {
    /// A place whose run begins now.
    pub fn new(model: PlaceModel) -> Self {
        let started = Instant::now();
        Self {
            model,
            started,
            state: Mutex::new(State {
                free_at: started,
                shim: Series::default(),
                runtime: Series::default(),
            }),
        }
    }

    /// Requests so far.
    pub fn series(&self, asker: Asker) -> Series {
        let state = self.state.lock();
        match asker {
            Asker::Shim => state.shim.clone(),
            Asker::Runtime => state.runtime.clone(),
        }
    }

    /// Asks, and waits for the answer. `spread`, from 0 to 1, says how far away the node is.
    ///
    /// # Errors
    /// [`Cause::Refused`] while it refuses connections.
    pub async fn ask(
        &self,
        question: Question<'_>,
        asker: Asker,
        spread: f64,
    ) -> Result<Said, Cause> {
        let round_trip = self.model.round_trip.mul_f64(1.0 + spread / 2.0);
        if self.refuses() {
            tokio::time::sleep(round_trip).await;
            return Err(Cause::Refused);
        }
        let answered = self.count(asker, 1) + round_trip;
        tokio::time::sleep_until(answered).await;
        if self.refuses() {
            // It went down with the question.
            return Err(Cause::Refused);
        }
        Ok(self.answer(question))
    }

    /// Counts requests that come now; when they are answered.
    pub fn count(&self, asker: Asker, requests: u32) -> Instant {
        let now = Instant::now();
        let since_start = now.saturating_duration_since(self.started);
        let mut state = self.state.lock();
        match asker {
            Asker::Shim => state.shim.count(since_start, requests),
            Asker::Runtime => state.runtime.count(since_start, requests),
        }
        let work = Duration::from_secs_f64(f64::from(requests) / self.model.capacity);
        state.free_at = state.free_at.max(now) + work;
        state.free_at
    }

    fn refuses(&self) -> bool {
        let at = self.started.elapsed();
        self.model.refuses.iter().any(|span| span.holds(at))
    }

    fn answer(&self, question: Question<'_>) -> Said {
        let (image, with_token) = match question {
            Question::Alive if self.model.wants_tokens => return Said::WantsToken,
            Question::Alive | Question::Token => return Said::Yes,
            Question::Manifest { image, with_token } => (image, with_token),
        };
        if self.model.wants_tokens && !with_token {
            return Said::WantsToken;
        }
        let at = self.started.elapsed();
        let limit = self.model.limits.iter().find(|(span, _)| span.holds(at));
        match limit {
            Some((_, retry_after)) => Said::TooMany {
                retry_after: *retry_after,
            },
            None if self.model.images.contains(image) => Said::Yes,
            None => Said::No,
        }
    }
}
