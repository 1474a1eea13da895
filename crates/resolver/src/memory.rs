//! Answers that are still fresh, by image and candidate.
//!
//! Each answer has its own time: what was found holds for `imageCacheTTL`, what was absent for
//! `negativeTTL`, and what failed for one image for `negativeTTL` at first and longer each time. What a
//! registry as a whole failed to say is never kept. A resolution in which a better registry gave no answer
//! is thereby provisional: that registry is asked again as soon as its circuit is closed, and everything
//! else that is known stays known.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;
use policy::backoff::Backoff;
use policy::{Candidate, Credentials, Verdict};
use telemetry::report::Freshness;

use crate::answer::Answer;
use crate::clock;

/// Most answers kept for one image: registries times the pull secrets that pods come with.
const MAX_ANSWERS: usize = 64;

/// Counters since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Resolutions that asked nobody.
    pub hits: u64,
    /// Resolutions that asked somebody.
    pub misses: u64,
    /// Images forgotten because the memory was full.
    pub evictions: u64,
    /// Answers dropped because a pull showed them wrong, and clearings.
    pub invalidations: u64,
}

/// Who was asked for what, with whose credentials: answers are for that and nothing else. A keyed
/// hash, so that no credential is kept here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question(u64);

#[derive(Debug)]
struct Remembered {
    question: Question,
    answer: Answer,
    at: Instant,
    until: Instant,
    /// Times in a row that the image failed there.
    failures: u32,
    /// Until when `failures` is worth knowing.
    failures_until: Instant,
}

/// The memory; shared, bounded.
#[derive(Debug)]
pub(crate) struct Memory {
    images: Mutex<Option<LruCache<String, Vec<Remembered>>>>,
    hasher: RandomState,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
    invalidations: AtomicU64,
}

/// A cache of at most `size` images. It grows as it is filled: nothing is allocated ahead, because the
/// size is an operator's number and not a need.
fn empty<T>(size: NonZeroUsize) -> LruCache<String, T> {
    let mut cache = LruCache::unbounded();
    cache.resize(size);
    cache
}

impl Memory {
    /// A memory of at most `size` images; 0 remembers nothing.
    pub(crate) fn new(size: u64) -> Self {
        Self {
            images: Mutex::new(capacity(size).map(empty)),
            hasher: RandomState::new(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            invalidations: AtomicU64::new(0),
        }
    }

    /// Changes the size, keeping what fits.
    pub(crate) fn resize(&self, size: u64) {
        let mut images = self.images.lock();
        match (capacity(size), images.as_mut()) {
            (Some(size), Some(images)) => images.resize(size),
            (size, _) => *images = size.map(empty),
        }
    }

    pub(crate) fn question(
        &self,
        candidate: &Candidate,
        credentials: Option<&Credentials>,
    ) -> Question {
        let asked = (&candidate.endpoint, &candidate.image, &candidate.tls);
        Question(self.hasher.hash_one((asked, credentials)))
    }

    /// What is known and still holds. A failure holds no longer than until `back_since`, when the registry
    /// was back after it had failed itself.
    pub(crate) fn recall(
        &self,
        image: &str,
        question: Question,
        now: Instant,
        back_since: Option<Instant>,
    ) -> Option<Answer> {
        let mut images = self.images.lock();
        let remembered = images.as_mut()?.get_mut(image)?;
        remembered.retain(|entry| entry.until > now || entry.failures_until > now);
        let entry = remembered.iter().find(|entry| entry.question == question)?;
        let is_outdated = entry.failures > 0 && back_since.is_some_and(|since| since >= entry.at);
        (entry.until > now && !is_outdated).then(|| Answer {
            elapsed: Duration::ZERO,
            freshness: Freshness::Remembered,
            ..entry.answer.clone()
        })
    }

    /// Keeps `answer` for `ttl`, in the place of what was known before.
    pub(crate) fn remember(&self, image: &str, question: Question, answer: Answer, ttl: Duration) {
        let now = clock::now();
        if answer.verdict == Verdict::PullFailed {
            self.invalidations.fetch_add(1, Ordering::Relaxed);
        }
        self.replace(image, question, |_| Remembered {
            question,
            answer,
            at: now,
            until: now + ttl,
            failures: 0,
            failures_until: now,
        });
    }

    /// Keeps `answer`, which is a failure, for longer the oftener that image failed in a row.
    pub(crate) fn remember_failure(
        &self,
        image: &str,
        question: Question,
        answer: Answer,
        ttl: Backoff,
    ) {
        let now = clock::now();
        self.replace(image, question, |before| {
            let before = before.filter(|before| before.failures_until > now);
            let failures = before.map_or(0, |before| before.failures).saturating_add(1);
            let until = now + ttl.pause(failures);
            Remembered {
                question,
                answer,
                at: now,
                until,
                failures,
                failures_until: until + ttl.longest,
            }
        });
    }

    fn replace(
        &self,
        image: &str,
        question: Question,
        new: impl FnOnce(Option<&Remembered>) -> Remembered,
    ) {
        let mut images = self.images.lock();
        let Some(images) = images.as_mut() else {
            return;
        };
        if !images.contains(image) && images.len() == images.cap().get() {
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
        let remembered = images.get_or_insert_mut(image.to_owned(), Vec::new);
        let before = remembered.iter().find(|entry| entry.question == question);
        let new = new(before);
        remembered.retain(|entry| entry.question != question);
        if remembered.len() >= MAX_ANSWERS {
            remembered.remove(0);
        }
        remembered.push(new);
    }

    /// Forgets what failed, so that it is asked for anew.
    pub(crate) fn forget_failures(&self) {
        if let Some(images) = self.images.lock().as_mut() {
            for (_, remembered) in images.iter_mut() {
                remembered.retain(|entry| entry.failures == 0);
            }
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        if let Some(images) = self.images.lock().as_mut() {
            images.clear();
            self.invalidations.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count(&self, hit: bool) {
        let counter = if hit { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> MemoryStats {
        MemoryStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
            invalidations: self.invalidations.load(Ordering::Relaxed),
        }
    }
}

fn capacity(size: u64) -> Option<NonZeroUsize> {
    NonZeroUsize::new(usize::try_from(size).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(verdict: Verdict) -> Answer {
        Answer {
            elapsed: Duration::from_millis(3),
            ..Answer::unasked(verdict, "", Freshness::Probed)
        }
    }

    const TTL: Duration = Duration::from_secs(30);
    const GROWING: Backoff = Backoff {
        first: TTL,
        longest: Duration::from_secs(480),
    };

    #[test]
    fn answers_hold_for_their_time_and_their_question() {
        let memory = Memory::new(10);
        memory.remember("x", Question(1), answer(Verdict::Found), TTL);
        let now = Instant::now();
        let recalled = memory.recall("x", Question(1), now, Some(now)).unwrap();
        assert_eq!(recalled.freshness, Freshness::Remembered);
        assert!(memory.recall("x", Question(2), now, None).is_none());
        assert!(memory.recall("y", Question(1), now, None).is_none());
        assert!(memory.recall("x", Question(1), now + TTL, None).is_none());
    }

    #[test]
    fn an_image_that_fails_again_is_left_alone_for_longer() {
        let memory = Memory::new(10);
        let holds_for = |seconds: u64| {
            let at = Instant::now() + Duration::from_secs(seconds);
            memory.recall("x", Question(1), at, None).is_some()
        };
        for ttl in [30, 60, 120, 240, 480, 480] {
            let failed = answer(Verdict::ImageFailed);
            memory.remember_failure("x", Question(1), failed, GROWING);
            assert!(holds_for(ttl - 2), "{ttl}");
            assert!(!holds_for(ttl + 2), "{ttl}");
        }
        // An answer ends the row.
        memory.remember("x", Question(1), answer(Verdict::NotFound), TTL);
        memory.remember_failure("x", Question(1), answer(Verdict::ImageFailed), GROWING);
        assert!(holds_for(28) && !holds_for(32));
    }

    #[test]
    fn a_registry_that_is_back_is_asked_for_what_had_failed() {
        let memory = Memory::new(10);
        memory.remember_failure("x", Question(1), answer(Verdict::ImageFailed), GROWING);
        memory.remember("x", Question(2), answer(Verdict::NotFound), TTL);
        let now = Instant::now();
        assert!(memory.recall("x", Question(1), now, None).is_some());
        assert!(memory.recall("x", Question(1), now, Some(now)).is_none());
        assert!(memory.recall("x", Question(2), now, Some(now)).is_some());
        memory.forget_failures();
        assert!(memory.recall("x", Question(1), now, None).is_none());
        assert!(memory.recall("x", Question(2), now, None).is_some());
    }

    #[test]
    fn it_is_bounded_and_counts_what_it_forgets() {
        let memory = Memory::new(2);
        let knows = |image: &str| {
            let now = Instant::now();
            memory.recall(image, Question(0), now, None).is_some()
        };
        for image in ["a", "b", "c"] {
            memory.remember(image, Question(0), answer(Verdict::Found), TTL);
        }
        assert!(!knows("a") && knows("c"));
        assert_eq!(memory.stats().evictions, 1);
        for question in 1..1000 {
            memory.remember("c", Question(question), answer(Verdict::Found), TTL);
        }
        assert!(!knows("c"));
    }

    #[test]
    fn a_size_of_zero_is_off() {
        let memory = Memory::new(0);
        let knows = || {
            let now = Instant::now();
            memory.recall("x", Question(1), now, None).is_some()
        };
        memory.remember("x", Question(1), answer(Verdict::Found), TTL);
        assert!(!knows());
        memory.resize(1);
        memory.remember("x", Question(1), answer(Verdict::Found), TTL);
        assert!(knows());
        memory.clear();
        assert!(!knows());
        assert_eq!(memory.stats().invalidations, 1);
    }

    #[test]
    fn the_largest_size_allocates_nothing_ahead() {
        // 2^60 entries ahead would be more memory than there is.
        let mut cache = empty(NonZeroUsize::new(1 << 60).unwrap());
        cache.put("a".to_owned(), ());
        assert_eq!(cache.len(), 1);
        let mut small = empty(NonZeroUsize::new(1).unwrap());
        small.put("a".to_owned(), ());
        small.put("b".to_owned(), ());
        assert_eq!(small.len(), 1);
    }
}
