//! Answers that are still fresh, by image and candidate.
//!
//! Each answer has its own time: what was found holds for `imageCacheTTL`, what was absent for
//! `negativeTTL`, and what a registry failed to say is never kept. A resolution in which a better
//! registry gave no answer is thereby provisional: that registry is asked again as soon as its
//! breaker lets it be, and everything else that is known stays known.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lru::LruCache;
use policy::{Candidate, Credentials, Verdict};
use telemetry::report::Freshness;

use crate::health::lock;
use crate::resolution::Answer;

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
    until: Instant,
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
        let mut images = lock(&self.images);
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

    pub(crate) fn recall(&self, image: &str, question: Question, now: Instant) -> Option<Answer> {
        let mut images = lock(&self.images);
        let remembered = images.as_mut()?.get_mut(image)?;
        remembered.retain(|entry| entry.until > now);
        let entry = remembered.iter().find(|entry| entry.question == question)?;
        Some(Answer {
            elapsed: Duration::ZERO,
            freshness: Freshness::Remembered,
            ..entry.answer.clone()
        })
    }

    /// Keeps `answer` for `ttl`, in the place of what was known before.
    pub(crate) fn remember(&self, image: &str, question: Question, answer: Answer, until: Instant) {
        let mut images = lock(&self.images);
        let Some(images) = images.as_mut() else {
            return;
        };
        if !images.contains(image) && images.len() == images.cap().get() {
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
        let remembered = images.get_or_insert_mut(image.to_owned(), Vec::new);
        remembered.retain(|entry| entry.question != question);
        if remembered.len() >= MAX_ANSWERS {
            remembered.remove(0);
        }
        if answer.verdict == Verdict::PullFailed {
            self.invalidations.fetch_add(1, Ordering::Relaxed);
        }
        remembered.push(Remembered {
            question,
            answer,
            until,
        });
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        if let Some(images) = lock(&self.images).as_mut() {
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
            verdict,
            detail: String::new(),
            digest: None,
            elapsed: Duration::from_millis(3),
            freshness: Freshness::Probed,
        }
    }

    #[test]
    fn answers_hold_for_their_time_and_their_question() {
        let memory = Memory::new(10);
        let now = Instant::now();
        let until = now + Duration::from_secs(30);
        memory.remember("x", Question(1), answer(Verdict::Found), until);
        let recalled = memory.recall("x", Question(1), now).unwrap();
        assert_eq!(recalled.freshness, Freshness::Remembered);
        assert!(memory.recall("x", Question(2), now).is_none());
        assert!(memory.recall("y", Question(1), now).is_none());
        assert!(memory.recall("x", Question(1), until).is_none());
    }

    #[test]
    fn it_is_bounded_and_counts_what_it_forgets() {
        let memory = Memory::new(2);
        let until = Instant::now() + Duration::from_secs(30);
        for image in ["a", "b", "c"] {
            memory.remember(image, Question(1), answer(Verdict::Found), until);
        }
        assert!(memory.recall("a", Question(1), Instant::now()).is_none());
        assert!(memory.recall("c", Question(1), Instant::now()).is_some());
        assert_eq!(memory.stats().evictions, 1);
        for question in 0..1000 {
            memory.remember("c", Question(question), answer(Verdict::Found), until);
        }
        assert!(memory.recall("c", Question(0), Instant::now()).is_none());
    }

    #[test]
    fn a_size_of_zero_is_off() {
        let memory = Memory::new(0);
        let until = Instant::now() + Duration::from_secs(30);
        memory.remember("x", Question(1), answer(Verdict::Found), until);
        assert!(memory.recall("x", Question(1), Instant::now()).is_none());
        memory.resize(1);
        memory.remember("x", Question(1), answer(Verdict::Found), until);
        assert!(memory.recall("x", Question(1), Instant::now()).is_some());
        memory.clear();
        assert!(memory.recall("x", Question(1), Instant::now()).is_none());
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
