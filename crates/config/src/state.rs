//! What people are told about the config: which one is in force, and what is wrong with the newest.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use telemetry::Telemetry;
use telemetry::report::{ConfigPart, ConfigProblem, ConfigStatus, timestamp};
use tokio::sync::watch;

/// State of the config. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct ConfigState {
    status: Arc<Mutex<ConfigStatus>>,
    credentials: Arc<watch::Sender<bool>>,
    config_map: Arc<watch::Sender<bool>>,
    telemetry: Telemetry,
}

impl ConfigState {
    /// Nothing is in force yet.
    pub fn new(file: String, telemetry: Telemetry) -> Self {
        let status = ConfigStatus {
            file,
            ..ConfigStatus::default()
        };
        Self {
            status: Arc::new(Mutex::new(status)),
            credentials: Arc::default(),
            config_map: Arc::default(),
            telemetry,
        }
    }

    /// Whether no config is in force that anybody has written, so that every call is forwarded as it comes.
    pub(crate) fn forwards_everything(&self, it_does: bool) {
        self.status.lock().forwards_everything = it_does;
        self.telemetry.metrics().config_forwards_everything(it_does);
    }

    /// A new config is in force.
    pub(crate) fn loaded(&self) {
        let mut status = self.status.lock();
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
        let mut status = self.status.lock();
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

    /// What has answered by now, also with no, for the config that was handed on last: each source of credentials, and
    /// the API server for the ConfigMap.
    pub(crate) fn answered(&self, credentials: bool, config_map: bool) {
        // In this order: whoever sees that the ConfigMap is there sees whether what it needs is.
        self.credentials.send_replace(credentials);
        self.config_map.send_replace(config_map);
    }

    /// Whether each source of credentials of the config in force has answered. Not before the first look at it.
    pub fn credentials_answered(&self) -> watch::Receiver<bool> {
        self.credentials.subscribe()
    }

    /// Whether the API server has answered for the ConfigMap, and that is in force. Not before the first look.
    pub fn config_map_answered(&self) -> watch::Receiver<bool> {
        self.config_map.subscribe()
    }

    /// All that is known about it.
    pub fn status(&self) -> ConfigStatus {
        self.status.lock().clone()
    }
}
