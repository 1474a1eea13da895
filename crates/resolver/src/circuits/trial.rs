//! Asking `/v2/`: beside a question that has no answer yet, and while a circuit is open.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use policy::breaker::State;
use registry::{Client, Registry};

use super::{Circuit, Circuits};
use crate::clock;
use crate::options::ResolverOptions;

impl Circuits {
    /// Asks `/v2/` in the background, unless somebody does already.
    pub(super) fn check(&self, circuit: &Arc<Circuit>) {
        if !circuit.begin_check() {
            return;
        }
        let (circuits, circuit) = (self.clone(), Arc::clone(circuit));
        self.handle.spawn(async move {
            let asked = clock::now();
            let deadline = circuits.options.load().probe_timeout;
            let ping = circuits.client.ping(&circuit.anonymous(), deadline).await;
            if circuit.checked(&ping, asked) {
                circuits.begin_trials(&circuit);
            }
        });
    }

    /// Tries a registry whose circuit has opened, until it is closed.
    pub(super) fn begin_trials(&self, circuit: &Arc<Circuit>) {
        let trials = Trials {
            client: self.client.clone(),
            options: Arc::clone(&self.options),
            circuit: Arc::downgrade(circuit),
        };
        self.handle.spawn(trials.run());
    }
}

/// The trials of one registry. They keep nothing alive that nobody else wants.
struct Trials {
    client: Client,
    options: Arc<ArcSwap<ResolverOptions>>,
    circuit: Weak<Circuit>,
}

impl Trials {
    /// Asks `/v2/` each time the pause is over, until the registry answers or is no longer configured.
    async fn run(self) {
        loop {
            let until = match self.circuit.upgrade().map(|circuit| circuit.state()) {
                Some(State::Open { until }) => until,
                // Another answer has closed it, or nobody wants to know any more.
                Some(State::Closed | State::HalfOpen) | None => return,
            };
            tokio::time::sleep_until(until.into()).await;
            let Some(registry) = self.begin() else {
                continue;
            };
            let asked = clock::now();
            let deadline = self.options.load().probe_timeout;
            let ping = self.client.ping(&registry, deadline).await;
            if let Some(circuit) = self.circuit.upgrade() {
                circuit.pinged(&ping, asked);
            }
        }
    }

    /// Whom to ask, where it is this task's turn.
    fn begin(&self) -> Option<Registry> {
        let circuit = self.circuit.upgrade()?;
        circuit.begin_trial().then(|| circuit.anonymous())
    }
}
