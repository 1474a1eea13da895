//! What one question is doing right now, readable from outside of it: when the deadline cuts it short,
//! this is what is left to tell.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::outcome::{Cause, ExchangeError, Failure};

/// Part of the deadline for which a question may have waited for its turn, and its silence is still that of a question
/// that had its time.
const FAIR_WAIT: f32 = 0.25;

/// Steps of one question, and how many requests it sent.
pub(crate) struct Progress {
    requests: AtomicU32,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// How long it waited for its turn.
    waited: Duration,
    notes: Vec<String>,
}

/// Where the time goes.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// Other questions to the same registry hold all slots.
    Queue,
    /// The registry, or a host it redirected to, is being asked.
    Asking(String),
    /// The token service is being asked.
    Token(String),
    /// Certificate files for a host are being read.
    Files(String),
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            requests: AtomicU32::new(0),
            state: Mutex::new(State {
                phase: Phase::Queue,
                waited: Duration::ZERO,
                notes: Vec::new(),
            }),
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.state.lock().phase = phase;
    }

    /// It is this question's turn, after so long.
    pub(crate) fn begins(&self, waited: Duration) {
        self.state.lock().waited = waited;
    }

    pub(crate) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Adds something that the operator should know beside the verdict. Each is told once.
    pub(crate) fn note(&self, note: String) {
        let mut state = self.state.lock();
        if !state.notes.contains(&note) {
            state.notes.push(note);
        }
    }

    /// A verdict's line with the notes behind it.
    pub(crate) fn with_notes(&self, detail: String) -> String {
        self.state
            .lock()
            .notes
            .iter()
            .fold(detail, |mut text, note| {
                text.push_str("; ");
                text.push_str(note);
                text
            })
    }

    /// The error where the deadline came first.
    pub(crate) fn cut_short(&self, deadline: Duration, slots: usize) -> ExchangeError {
        let (phase, waited) = {
            let state = self.state.lock();
            (state.phase.clone(), state.waited)
        };
        let (cause, detail) = match phase {
            Phase::Queue => (
                Cause::Queue,
                format!(
                    "not asked within {deadline:?}: {slots} requests to this registry were under way all the time"
                ),
            ),
            Phase::Asking(host) if waited > deadline.mul_f32(FAIR_WAIT) => (
                Cause::Late,
                format!(
                    "no answer within {deadline:?} from {host}; {waited:?} of these it waited, since {slots} requests to this registry were under way"
                ),
            ),
            Phase::Asking(host) => (
                Cause::Timeout,
                format!("no answer within {deadline:?} from {host}"),
            ),
            Phase::Token(host) => (
                Cause::TokenService,
                format!("no answer within {deadline:?} from its token service {host}"),
            ),
            Phase::Files(host) => {
                let detail = format!(
                    "the certificate files for {host} could not be read within {deadline:?}; look at its caFile, and at the file systems under certs.d"
                );
                let cause = Cause::Tls;
                return ExchangeError::new(Failure::Unavailable { cause }, None, detail);
            }
        };
        ExchangeError::image_failed(cause, None, detail)
    }
}
