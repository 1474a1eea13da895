//! Blocking work that may never end, once per key.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// Threads at one time, for all keys. Who comes when there are so many waits for one to end: a node's first
/// pull may need the files of hundreds of registries, and none of them hangs.
const MAX_THREADS: usize = 64;

/// Runs blocking work on threads of its own, one per key. Who comes while the work for a key is still going
/// on waits for that; who gives up leaves it running. The threads end with the process: a runtime that is
/// shut down does not wait for them.
pub struct OnePerKey<K, V> {
    shared: Arc<Shared<K, V>>,
}

type Receiver<V> = watch::Receiver<Option<V>>;

struct Shared<K, V> {
    running: Mutex<HashMap<K, Receiver<V>>>,
    /// Told when a thread has ended.
    ended: Notify,
}

/// There is no result: no thread could be had, or the work panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunError;

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the thread that reads it has ended early")
    }
}

impl std::error::Error for RunError {}

impl<K, V> Default for OnePerKey<K, V> {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                running: Mutex::default(),
                ended: Notify::new(),
            }),
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
        self.shared.running.lock().contains_key(key)
    }

    /// The result of `work`, or of the work for this key that is going on already. It may wait for ever; the
    /// caller bounds the time.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn run(
        &self,
        key: K,
        work: impl FnOnce() -> V + Send + 'static,
    ) -> Result<V, RunError> {
        let mut work = Some(work);
        let mut result = loop {
            let ended = self.shared.ended.notified();
            match self.start(&key, &mut work)? {
                Some(result) => break result,
                None => ended.await,
            }
        };
        let result = result.wait_for(Option::is_some).await;
        let found = result.map_err(|_| RunError)?.clone();
        found.ok_or(RunError)
    }

    /// Begins the work where nobody does it already. `None` where there are too many threads.
    fn start<W>(&self, key: &K, work: &mut Option<W>) -> Result<Option<Receiver<V>>, RunError>
    where
        W: FnOnce() -> V + Send + 'static,
    {
        let (sender, receiver) = watch::channel(None);
        let work = {
            let mut running = self.shared.running.lock();
            if let Some(result) = running.get(key) {
                return Ok(Some(result.clone()));
            }
            if running.len() >= MAX_THREADS {
                return Ok(None);
            }
            let work = work.take().ok_or(RunError)?;
            running.insert(key.clone(), receiver.clone());
            work
        };
        let entry = Entry {
            shared: Arc::clone(&self.shared),
            key: key.clone(),
        };
        let thread = std::thread::Builder::new().name("files".to_owned());
        let started = thread.spawn(move || {
            // Taken away also when the work panics, and when there is no thread for it.
            let entry = entry;
            let result = work();
            drop(entry);
            sender.send_replace(Some(result));
        });
        started.map_err(|_| RunError)?;
        Ok(Some(receiver))
    }
}

/// The note that work is going on; goes with it.
struct Entry<K: Eq + Hash, V> {
    shared: Arc<Shared<K, V>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Entry<K, V> {
    fn drop(&mut self) {
        self.shared.running.lock().remove(&self.key);
        self.shared.ended.notify_one();
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
        let ended = Arc::new(Mutex::new(ended));
        let start = || {
            let (runs, ended) = (Arc::clone(&runs), Arc::clone(&ended));
            move || {
                let run = runs.fetch_add(1, Ordering::SeqCst);
                let _ = ended.lock().recv();
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
        let mut patient = work.start(&"nfs", &mut Some(start())).unwrap().unwrap();
        end.send(()).unwrap();
        let result = patient.wait_for(Option::is_some).await.unwrap().unwrap();
        assert_eq!(result, 0);
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert!(!work.is_running(&"nfs"));
        drop(end);
        let again = work.run("nfs", start()).await;
        assert_eq!(again, Ok(1), "what has ended is begun anew");
    }

    /// As at the first pull of a node with hundreds of registries.
    #[tokio::test]
    async fn threads_are_bounded_and_who_comes_later_waits_for_one() {
        let work = OnePerKey::<usize, usize>::default();
        let (end, ended) = mpsc::channel::<()>();
        let ended = Arc::new(Mutex::new(ended));
        for key in 0..MAX_THREADS {
            let ended = Arc::clone(&ended);
            let mut hanging = Some(move || {
                let _ = ended.lock().recv();
                key
            });
            assert!(work.start(&key, &mut hanging).unwrap().is_some());
        }
        let keys = MAX_THREADS..3 * MAX_THREADS;
        let later = keys.clone().map(|key| work.run(key, move || key));
        let mut later = futures_util::future::join_all(later);
        let impatient = tokio::time::timeout(Duration::from_millis(1), &mut later).await;
        assert!(impatient.is_err(), "there are threads enough");
        end.send(()).unwrap();
        for (key, result) in keys.zip(later.await) {
            assert_eq!(result, Ok(key));
        }
        drop(end);
    }

    #[tokio::test]
    #[allow(clippy::panic, reason = "that is what is tested")]
    async fn work_that_panics_is_an_error_and_can_be_tried_again() {
        let work = OnePerKey::<usize, usize>::default();
        let broken = work.run(1, || panic!("on purpose")).await;
        assert_eq!(broken, Err(RunError));
        assert_eq!(work.run(1, || 3).await, Ok(3));
    }
}
