//! A shim in front of a fake runtime, with an API server to follow.

use std::path::PathBuf;

use testkit::fake_api_server::FakeApiServer;
use testkit::fake_runtime::FakeRuntime;
use testkit::shim::{Options, Shim};
use testkit::wait;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_image-cri-shim");

/// Every password in these tests has this in it, so that one search finds any that got out.
pub(crate) const SECRET: &str = "hunter2";

pub(crate) struct World {
    pub(crate) shim: Shim,
    pub(crate) server: FakeApiServer,
    pub(crate) runtime: FakeRuntime,
    kubeconfig: tempfile::TempDir,
}

impl World {
    /// Debug lines are on, so that what must not be logged would be, and there is no other event
    /// than the watch's for an hour.
    pub(crate) async fn start(config: &str) -> Self {
        Self::start_with(config, FakeApiServer::start().unwrap()).await
    }

    pub(crate) async fn start_with(config: &str, server: FakeApiServer) -> Self {
        let mut world = Self::prepare(config, server, &[]).await;
        world.shim.start_again().await.unwrap();
        world
    }

    pub(crate) async fn prepare(config: &str, server: FakeApiServer, env: &[(&str, &str)]) -> Self {
        let runtime = FakeRuntime::start().await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubeconfig");
        std::fs::write(&file, server.kubeconfig()).unwrap();
        let mut options =
            Options::new(BINARY, runtime.socket()).env("KUBECONFIG", &file.display().to_string());
        for (name, value) in env {
            options = options.env(name, value);
        }
        Self {
            shim: Shim::prepare(&with_defaults(config), options).unwrap(),
            server,
            runtime,
            kubeconfig: dir,
        }
    }

    /// A kubeconfig that leads to the server.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.path().join("kubeconfig")
    }

    /// The local file as it is now.
    pub(crate) fn file(&self) -> String {
        std::fs::read_to_string(self.shim.config_file()).unwrap()
    }

    /// Waits until the local file contains `part`.
    pub(crate) async fn file_has(&self, part: &str) {
        let found = wait::within(wait::TIMEOUT, || async {
            self.file().contains(part).then_some(())
        });
        if found.await.is_none() {
            panic!("no {part:?} in\n{}\n{}", self.file(), self.shim.log());
        }
    }

    /// Replaces the local file, with the defaults of these tests.
    pub(crate) fn write(&self, config: &str) {
        self.shim.write_config(&with_defaults(config)).unwrap();
    }

    /// To be called at the end of every test.
    pub(crate) fn no_secret_in_the_log(&self) {
        let log = self.shim.log();
        assert!(!log.contains(SECRET), "{log}");
        assert!(!log.contains(self.server.token()), "{log}");
    }
}

fn with_defaults(config: &str) -> String {
    let mut config = config.to_owned();
    for (field, value) in [("reloadInterval", "1h"), ("debug", "true")] {
        if !config.contains(&format!("{field}:")) {
            config = format!("{field}: {value}\n{config}");
        }
    }
    config
}
