//! The modelled kubelet of one node: a pod wants an image, and gets it sooner or later.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use policy::backoff::Backoff;
use tokio::time::Instant;

use crate::meter::Waits;
use crate::predecessor::Predecessor;
use crate::runtime::Runtime;
use crate::shim::Shim;

/// Kubelet's own pauses between pulls of one image that fail (`ImagePullBackOff`).
const PULL_BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(10),
    longest: Duration::from_secs(300),
};
/// The time after a pause within which kubelet looks at the pod again.
const SYNC: Duration = Duration::from_secs(2);

/// What stands between kubelet and the runtime.
pub enum Node {
    /// The product.
    Shim(Box<Shim>),
    /// The predecessor.
    Predecessor(Predecessor),
}

impl Node {
    /// The node's runtime.
    pub fn runtime(&self) -> &Runtime {
        match self {
            Self::Shim(shim) => shim.runtime(),
            Self::Predecessor(predecessor) => predecessor.runtime(),
        }
    }

    async fn has_image(&self, image: usize) -> bool {
        match self {
            Self::Shim(shim) => shim.has_image(image),
            Self::Predecessor(predecessor) => predecessor.has_image(image).await,
        }
    }

    async fn pull(&self, image: usize) -> Result<(), String> {
        match self {
            Self::Shim(shim) => shim.pull(image).await,
            Self::Predecessor(predecessor) => predecessor.pull(image).await,
        }
    }

    /// Starts a pod: ends when its image is there, and notes how long that took.
    pub async fn start_pod(&self, image: usize, waits: &Arc<Mutex<Waits>>) {
        let began = Instant::now();
        waits.lock().unfinished += 1;
        let mut failures = 0;
        while !self.has_image(image).await && self.pull(image).await.is_err() {
            failures += 1;
            let late = SYNC.mul_f64(self.runtime().spread());
            tokio::time::sleep(PULL_BACKOFF.pause(failures) + late).await;
        }
        let mut waits = waits.lock();
        waits.unfinished -= 1;
        waits.note(began.elapsed());
    }
}
