//! Which connection ends when there are too many.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::connection::{Connection, ConnectionState, Peer};
use crate::limits::WhenFull;

/// Connections that were asked to give way may still be sending their goodbyes. More of them than this are
/// closed at once.
const LEAVING: usize = 32;

/// The connections that there are. Shared by the listener's accept loop and the connections themselves.
pub(crate) struct Places {
    most: usize,
    when_full: WhenFull,
    taken: Mutex<Vec<Arc<Connection>>>,
    /// A connection has ended, or has nothing to do any more.
    changed: Arc<Notify>,
}

impl Places {
    pub(crate) fn new(most: usize, when_full: WhenFull) -> Self {
        Self {
            most: most.max(1),
            when_full,
            taken: Mutex::new(Vec::new()),
            changed: Arc::default(),
        }
    }

    /// A place for a new connection, as soon as there is one.
    pub(crate) async fn take(self: &Arc<Self>, peer: Peer, shutdown: &CancellationToken) -> Place {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.make_room() {
                let stop = shutdown.child_token();
                let connection = Arc::new(Connection::new(peer, stop, Arc::clone(&self.changed)));
                self.taken.lock().push(Arc::clone(&connection));
                return Place {
                    connection,
                    places: Arc::clone(self),
                };
            }
            changed.await;
        }
    }

    /// Whether there is room, if need be because another connection was asked to give way.
    fn make_room(&self) -> bool {
        let taken = self.taken.lock();
        let states: Vec<_> = taken.iter().map(|connection| connection.state()).collect();
        let staying = states.iter().filter(|state| !state.is_leaving).count();
        if staying < self.most {
            return true;
        }
        let Some(at) = who_ends(&states, self.when_full) else {
            return false;
        };
        let (Some(connection), Some(state)) = (taken.get(at), states.get(at)) else {
            return false;
        };
        // Who has never sent a request is owed no goodbye.
        if state.idle && state.has_asked && states.len() - staying < LEAVING {
            connection.leave();
        } else {
            connection.abort();
        }
        true
    }
}

/// A place that is taken; dropping it frees it.
pub(crate) struct Place {
    pub(crate) connection: Arc<Connection>,
    places: Arc<Places>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.retain(|other| !Arc::ptr_eq(other, &self.connection));
        drop(taken);
        // Whatever still works for it, ends.
        self.connection.abort();
        self.places.changed.notify_waiters();
    }
}

/// The number of the connection that gives way: an idle one, of the client that has the most connections,
/// the one that has been idle the longest.
fn who_ends(connections: &[ConnectionState], when_full: WhenFull) -> Option<usize> {
    let staying = || {
        let all = connections.iter().enumerate();
        all.filter(|(_, connection)| !connection.is_leaving)
    };
    let mut of_client: HashMap<IpAddr, usize> = HashMap::new();
    for (_, connection) in staying() {
        *of_client.entry(connection.client).or_default() += 1;
    }
    let choose = |idle: bool| {
        staying()
            .filter(|(_, connection)| connection.idle == idle)
            .min_by_key(|(_, connection)| {
                let of_client = of_client.get(&connection.client).copied();
                (std::cmp::Reverse(of_client), connection.since)
            })
            .map(|(at, _)| at)
    };
    choose(true).or_else(|| match when_full {
        WhenFull::EndLongest => choose(false),
        WhenFull::Wait => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::Instant;

    /// `(client, idle, seconds since)` each.
    fn ends(connections: &[(u8, bool, u64)], when_full: WhenFull) -> Option<usize> {
        let now = Instant::now() + Duration::from_secs(1000);
        let states: Vec<_> = connections
            .iter()
            .map(|(client, idle, seconds)| ConnectionState {
                client: IpAddr::from([10, 0, 0, *client]),
                idle: *idle,
                since: now - Duration::from_secs(*seconds),
                has_asked: true,
                is_leaving: false,
            })
            .collect();
        who_ends(&states, when_full)
    }

    #[test]
    fn the_longest_idle_one_of_the_client_that_has_the_most() {
        let many = [(1, true, 90), (2, true, 3), (2, true, 5), (2, false, 80)];
        assert_eq!(ends(&many, WhenFull::Wait), Some(2));
        let equal = [(1, true, 90), (2, true, 3)];
        assert_eq!(ends(&equal, WhenFull::Wait), Some(0));
        // An API server's idle connection is not what a crowd of busy ones pushes out first.
        let busy = [(1, true, 90), (2, false, 3), (2, false, 5)];
        assert_eq!(ends(&busy, WhenFull::EndLongest), Some(0));
    }

    #[test]
    fn busy_ones_end_only_where_that_is_wanted() {
        let busy = [(1, false, 90), (2, false, 3), (2, false, 5)];
        assert_eq!(ends(&busy, WhenFull::Wait), None);
        assert_eq!(ends(&busy, WhenFull::EndLongest), Some(2));
        assert_eq!(ends(&[], WhenFull::EndLongest), None);
    }
}
