//! What people are told about the config: which one is in force, and what is wrong with the newest.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use telemetry::Telemetry;
use telemetry::report::{ConfigPart, ConfigProblem, ConfigStatus, timestamp};

/// State of the config. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct ConfigState {
    status: Arc<Mutex<ConfigStatus>>,
    telemetry: Telemetry,
}

impl ConfigState {
    /// Nothing is in force yet.
    pub(crate) fn new(file: String, telemetry: Telemetry) -> Self {
        let status = ConfigStatus {
            file,
            ..ConfigStatus::default()
        };
        Self {
            status: Arc::new(Mutex::new(status)),
            telemetry,
        }
    }

    /// A new config is in force.
    pub(crate) fn loaded(&self) {
        let mut status = self.lock();
        status.generation += 1;
        status.loaded_at = timestamp(SystemTime::now());
        let is_good = status.error.is_none();
        self.telemetry
            .metrics()
            .config_loaded(status.generation, is_good);
    }

    /// Everything was looked at: what the config in force is made of, and what is wrong with the newest
    /// where it is another.
    pub(crate) fn looked(&self, parts: Vec<ConfigPart>, problem: Option<String>) {
        let mut status = self.lock();
        status.parts = parts;
        let before = status.error.as_ref().map(|error| &error.message);
        if before == problem.as_ref() {
            return;
        }
        let metrics = self.telemetry.metrics();
        match &problem {
            Some(_) => metrics.config_refused(),
            None => metrics.config_good_again(),
        }
        status.error = problem.map(|message| ConfigProblem {
            at: timestamp(SystemTime::now()),
            message,
        });
    }

    pub(crate) fn status(&self) -> ConfigStatus {
        self.lock().clone()
    }

    /// Every change is a single step, so a panic elsewhere leaves nothing half-done.
    fn lock(&self) -> MutexGuard<'_, ConfigStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
