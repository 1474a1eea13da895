//! What was called and what came of it; what was done; and what should never have happened.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::health::Verdict;
use super::processes::Life;

/// Failures are described up to this number; the rest is counted.
const DESCRIBED: usize = 20;

/// Something that a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    PullDirect,
    PullCached,
    ImageStatus,
    RemoveImage,
    ListImages,
    Review,
    CacheManifest,
    CacheBlob,
}

/// What came of calls of one kind.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    /// How long those took that succeeded, in milliseconds.
    pub(crate) succeeded_ms: Vec<u64>,
    /// How many failed while what they needed was disturbed.
    pub(crate) excused: usize,
    /// How many failed that had to succeed.
    pub(crate) failed: usize,
    /// How many had to succeed, whatever came of them.
    pub(crate) required: usize,
}

/// Something that must hold all the while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Invariant {
    /// What a healthy source could serve is served.
    Served,
    /// Content is what its name stands for, in the runtime and in the cache.
    Right,
    /// No credential is in any output, and none goes to whom it is not for.
    Secret,
    /// Memory, descriptors and threads do not grow.
    Flat,
    /// Processes live and end as they are told to.
    Alive,
}

/// Everything that is kept of a run.
pub(crate) struct Ledger {
    pub(crate) calls: BTreeMap<Call, Outcomes>,
    pub(crate) events: BTreeMap<&'static str, usize>,
    pub(crate) broken: BTreeMap<Invariant, Vec<String>>,
    /// How often each invariant was looked at.
    pub(crate) checks: BTreeMap<Invariant, usize>,
    pub(crate) lives: Vec<Life>,
    log: BufWriter<File>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PullDirect => "PullImage (registries)",
            Self::PullCached => "PullImage (through the cache)",
            Self::ImageStatus => "ImageStatus",
            Self::RemoveImage => "RemoveImage",
            Self::ListImages => "ListImages",
            Self::Review => "review",
            Self::CacheManifest => "cache: manifest",
            Self::CacheBlob => "cache: blob",
        })
    }
}

impl Invariant {
    pub(crate) const ALL: [Self; 5] = [
        Self::Served,
        Self::Right,
        Self::Secret,
        Self::Flat,
        Self::Alive,
    ];

    /// As a sentence.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Served => "no call fails that a healthy source could serve",
            Self::Right => "what was pulled and what is stored is right",
            Self::Secret => "no credential in any output, or sent to whom it is not for",
            Self::Flat => "memory, descriptors and threads do not grow",
            Self::Alive => "every process lives, starts and ends as it is told to",
        }
    }
}

impl Ledger {
    /// An empty ledger that writes each call and event to a file.
    pub(crate) fn new(log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        Ok(Self {
            calls: BTreeMap::new(),
            events: BTreeMap::new(),
            broken: BTreeMap::new(),
            checks: BTreeMap::new(),
            lives: Vec::new(),
            log: BufWriter::new(file),
        })
    }

    /// Writes a line to the log of the run. That the disk is full is seen elsewhere.
    pub(crate) fn note(&mut self, at: Duration, text: &str) {
        let _ = writeln!(self.log, "{:>9.3} {text}", at.as_secs_f64());
    }

    /// Writes what is not written yet.
    pub(crate) fn flush(&mut self) {
        let _ = self.log.flush();
    }

    /// Counts a call that lasted from one moment to another.
    pub(crate) fn call(
        &mut self,
        call: Call,
        subject: &str,
        (from, to): (Duration, Duration),
        verdict: Verdict,
        outcome: Result<(), String>,
    ) {
        let took = to.saturating_sub(from);
        let outcomes = self.calls.entry(call).or_default();
        let is_required = verdict == Verdict::Required;
        outcomes.required += usize::from(is_required);
        let word = match (&outcome, is_required) {
            (Ok(()), _) => {
                let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                outcomes.succeeded_ms.push(milliseconds);
                "ok"
            }
            (Err(_), true) => {
                outcomes.failed += 1;
                "FAILED"
            }
            (Err(_), false) => {
                outcomes.excused += 1;
                "excused"
            }
        };
        let message = outcome.err().unwrap_or_default();
        let line = format!(
            "{call} {subject} {word} after {:.3} s {message}",
            took.as_secs_f64()
        );
        self.note(to, &line);
        self.check(Invariant::Served);
        if word == "FAILED" {
            let text = format!("at {:.1} s: {line}", from.as_secs_f64());
            self.breaks(Invariant::Served, to, text);
        }
    }

    /// Counts something that was done.
    pub(crate) fn event(&mut self, kind: &'static str) {
        *self.events.entry(kind).or_default() += 1;
    }

    /// Counts that an invariant was looked at.
    pub(crate) fn check(&mut self, invariant: Invariant) {
        *self.checks.entry(invariant).or_default() += 1;
    }

    /// Notes that an invariant does not hold.
    pub(crate) fn breaks(&mut self, invariant: Invariant, at: Duration, text: String) {
        self.note(at, &format!("BROKEN: {}: {text}", invariant.text()));
        self.flush();
        self.broken.entry(invariant).or_default().push(text);
    }

    /// How many times an invariant was broken, and the first descriptions.
    pub(crate) fn breaches(&self, invariant: Invariant) -> (usize, &[String]) {
        let all = self.broken.get(&invariant).map_or(&[][..], Vec::as_slice);
        (all.len(), &all[..all.len().min(DESCRIBED)])
    }

    /// How many calls there were, and how many failed that had to succeed.
    pub(crate) fn totals(&self) -> (usize, usize) {
        let outcomes = self.calls.values();
        outcomes.fold((0, 0), |(calls, failed), outcomes| {
            let succeeded = outcomes.succeeded_ms.len();
            (
                calls + succeeded + outcomes.excused + outcomes.failed,
                failed + outcomes.failed,
            )
        })
    }

    /// Whether everything held.
    pub(crate) fn is_clean(&self) -> bool {
        self.broken.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_required_call_that_fails_breaks_something() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::new(&dir.path().join("log")).unwrap();
        let times = (Duration::from_secs(1), Duration::from_secs(3));
        let failed = || Err("no answer".to_owned());
        ledger.call(Call::PullDirect, "a", times, Verdict::Required, Ok(()));
        ledger.call(Call::PullDirect, "b", times, Verdict::Excused, failed());
        assert!(ledger.is_clean());
        ledger.call(Call::PullDirect, "c", times, Verdict::Required, failed());
        assert!(!ledger.is_clean());
        let outcomes = &ledger.calls[&Call::PullDirect];
        assert_eq!(outcomes.succeeded_ms, [2000]);
        assert_eq!(
            (outcomes.excused, outcomes.failed, outcomes.required),
            (1, 1, 2)
        );
        assert_eq!(ledger.totals(), (3, 1));
        let (count, described) = ledger.breaches(Invariant::Served);
        assert_eq!(count, 1);
        assert!(
            described[0].contains("c FAILED after 2.000 s no answer"),
            "{described:?}"
        );
    }
}
