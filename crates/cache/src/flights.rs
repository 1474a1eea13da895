//! Many who want the same thing at the same time get it from one question, which goes on whoever of
//! them leaves.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;

/// The answer, once it is there.
pub type Flight<V> = Shared<BoxFuture<'static, Option<V>>>;

/// Questions under way, by what is asked. Clones share them.
pub struct Flights<K, V: Clone> {
    running: Arc<Mutex<HashMap<K, Flight<V>>>>,
}

impl<K, V: Clone> Clone for Flights<K, V> {
    fn clone(&self) -> Self {
        Self {
            running: Arc::clone(&self.running),
        }
    }
}

impl<K, V: Clone> Default for Flights<K, V> {
    fn default() -> Self {
        Self {
            running: Arc::default(),
        }
    }
}

impl<K, V: Clone> fmt::Debug for Flights<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.running.lock().len();
        f.debug_struct("Flights").field("running", &count).finish()
    }
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Joins the question `key`, or asks it. None where the question ended without an answer, which
    /// only a panic or the end of the runtime brings about.
    pub fn join(&self, key: K, ask: impl FnOnce() -> BoxFuture<'static, V>) -> Flight<V> {
        let mut running = self.running.lock();
        if let Some(flight) = running.get(&key) {
            return flight.clone();
        }
        let asked = ask();
        let forget = Forget {
            running: Arc::clone(&self.running),
            key: key.clone(),
        };
        let task = tokio::spawn(async move {
            let _forget = forget;
            asked.await
        });
        let flight = async move { task.await.ok() }.boxed().shared();
        running.insert(key, flight.clone());
        flight
    }
}

struct Forget<K: Eq + Hash, V: Clone> {
    running: Arc<Mutex<HashMap<K, Flight<V>>>>,
    key: K,
}

impl<K: Eq + Hash, V: Clone> Drop for Forget<K, V> {
    fn drop(&mut self) {
        self.running.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_thousand_are_one_and_nobody_takes_it_with_him() {
        let flights = Flights::<&str, u32>::default();
        let asked = Arc::new(AtomicUsize::new(0));
        let ask = || {
            let asked = Arc::clone(&asked);
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                asked.fetch_add(1, Ordering::SeqCst);
                7
            }
            .boxed()
        };
        drop(flights.join("key", ask));
        let all = (0..1000).map(|_| flights.join("key", ask));
        let all = futures_util::future::join_all(all).await;
        assert!(all.iter().all(|answer| *answer == Some(7)));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_eq!(flights.join("key", ask).await, Some(7));
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }
}
