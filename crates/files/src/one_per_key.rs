//! Blocking work that may never end, once per key.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// Threads that are waited for at once, for all keys. More paths than this don't hang on one node, and if
/// they do, no more threads are spent on them.
const MAX_THREADS: usize = 64;

/// Runs blocking work on threads of its own, one per key. Who comes while the work for a key is still going
/// on waits for that; who gives up leaves it running. The threads end with the process: a runtime that is
/// shut down does not wait for them.
pub struct OnePerKey<K, V> {
    running: Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>,
}

/// Why there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunError {
    /// Too many threads wait for file systems that don't answer.
    Full,
    /// No thread could be had, or the work panicked.
    Ended,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(
                f,
                "{MAX_THREADS} threads wait already for file systems that do not answer"
            ),
            Self::Ended => f.write_str("the thread that reads it has ended early"),
        }
    }
}

impl std::error::Error for RunError {}

impl<K, V> Default for OnePerKey<K, V> {
    fn default() -> Self {
        Self {
            running: Arc::default(),
        }
    }
}

impl<K, V> OnePerKey<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Whether work for a key is going on.
    pub fn is_running(&self, key: &K) -> bool {
        self.running.lock().contains_key(key)
    }

    /// The result of `work`, or of the work for this key that is going on already.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn run(
        &self,
        key: K,
        work: impl FnOnce() -> V + Send + 'static,
    ) -> Result<V, RunError> {
        let mut result = self.start(key, work)?;
        let result = result.wait_for(Option::is_some).await;
        let found = result.map_err(|_| RunError::Ended)?.clone();
        found.ok_or(RunError::Ended)
    }

    fn start(
        &self,
        key: K,
        work: impl FnOnce() -> V + Send + 'static,
    ) -> Result<watch::Receiver<Option<V>>, RunError> {
        let mut running = self.running.lock();
        if let Some(result) = running.get(&key) {
            return Ok(result.clone());
        }
        if running.len() >= MAX_THREADS {
            return Err(RunError::Full);
        }
        let (sender, receiver) = watch::channel(None);
        let entry = Entry {
            running: Arc::clone(&self.running),
            key: key.clone(),
        };
        let thread = std::thread::Builder::new().name("files".to_owned());
        let started = thread.spawn(move || {
            // Taken away also when the work panics.
            let entry = entry;
            let result = work();
            drop(entry);
            sender.send_replace(Some(result));
        });
        started.map_err(|_| RunError::Ended)?;
        running.insert(key, receiver.clone());
        Ok(receiver)
    }
}

/// The note that work is going on; goes with it.
struct Entry<K: Eq + Hash, V> {
    running: Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Entry<K, V> {
    fn drop(&mut self) {
        self.running.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn those_who_come_back_start_no_second_thread() {
        let runs = Arc::new(AtomicUsize::new(0));
        let work = OnePerKey::<&str, usize>::default();
        let (end, ended) = mpsc::channel::<()>();
        let ended = Arc::new(std::sync::Mutex::new(ended));
        let start = || {
            let (runs, ended) = (Arc::clone(&runs), Arc::clone(&ended));
            move || {
                let run = runs.fetch_add(1, Ordering::SeqCst);
                let _ = ended.lock().unwrap().recv();
                run
            }
        };
        for _ in 0..20 {
            // Each gives up at once, as a probe does at its deadline.
            let waiting = work.run("nfs", start());
            let impatient = tokio::time::timeout(Duration::from_millis(1), waiting).await;
            assert!(impatient.is_err());
        }
        assert!(work.is_running(&"nfs"));
        assert_eq!(work.run("other", || 7).await, Ok(7), "nobody else waits");
        let mut patient = work.start("nfs", start()).unwrap();
        end.send(()).unwrap();
        let result = patient.wait_for(Option::is_some).await.unwrap().unwrap();
        assert_eq!(result, 0);
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert!(!work.is_running(&"nfs"));
        drop(end);
        let again = work.run("nfs", start()).await;
        assert_eq!(again, Ok(1), "what has ended is begun anew");
    }

    #[tokio::test]
    async fn threads_are_bounded() {
        let work = OnePerKey::<usize, ()>::default();
        let (end, ended) = mpsc::channel::<()>();
        let ended = Arc::new(std::sync::Mutex::new(ended));
        for key in 0..MAX_THREADS {
            let ended = Arc::clone(&ended);
            let hanging = work.start(key, move || {
                let _ = ended.lock().unwrap().recv();
            });
            assert!(hanging.is_ok());
        }
        assert_eq!(work.run(MAX_THREADS, || ()).await, Err(RunError::Full));
        drop(end);
    }

    #[tokio::test]
    #[allow(clippy::panic, reason = "that is what is tested")]
    async fn work_that_panics_is_an_error_and_can_be_tried_again() {
        let work = OnePerKey::<usize, usize>::default();
        let broken = work.run(1, || panic!("on purpose")).await;
        assert_eq!(broken, Err(RunError::Ended));
        assert_eq!(work.run(1, || 3).await, Ok(3));
    }
}
