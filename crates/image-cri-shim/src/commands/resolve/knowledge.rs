//! Whom `resolve` asks: the shim that runs, or the config file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use cluster::{ClientProvider, KubeconfigCandidates};
use config::credentials::CredentialSources;
use policy::config::Settings;
use resolver::Resolver;
use resolver::explain::explain;
use telemetry::Telemetry;
use telemetry::report::{Explanation, Knowledge};
use tokio::runtime::Handle;

use crate::commands::daemon::{Daemon, DaemonError};
use crate::commands::terminal;
use crate::roles::{resolving, runtime::files as runtime_files};

/// How long credentials from files, Secrets and plugins may take to be found.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(5);

/// Who explains where images would come from.
pub(super) enum Explainer {
    /// The running shim.
    Daemon(Daemon),
    /// The config file, with a resolver of our own.
    ConfigFile {
        settings: Box<Settings>,
        resolver: Resolver,
    },
}

impl Explainer {
    /// The shim that listens where the config says, else the config itself. Pulls need the shim.
    pub(super) async fn find(file: &Path, is_pull: bool) -> anyhow::Result<Self> {
        let daemon = Daemon::new(&config::file::shim_socket(file)?);
        // Whether one runs; its answer is not needed here.
        let absent = match daemon.status(0).await {
            Ok(_) => return Ok(Self::Daemon(daemon)),
            Err(
                absent @ (DaemonError::NotRunning { .. }
                | DaemonError::Denied { .. }
                | DaemonError::NotOurs { .. }),
            ) => absent,
            Err(failed) => return Err(failed.into()),
        };
        if is_pull {
            bail!("--pull needs a running shim: {absent}");
        }
        let loaded = config::file::load(file)?;
        terminal::say(&format!("using {} itself: {absent}", file.display()));
        for warning in &loaded.warnings {
            terminal::say(warning);
        }
        Self::from_file(loaded.settings).await
    }

    async fn from_file(settings: Settings) -> anyhow::Result<Self> {
        let link = Arc::new(ClientProvider::new(KubeconfigCandidates::from_environment()));
        let interval = settings.reload_interval;
        let mut sources = CredentialSources::new(link, Arc::new(move || interval));
        let settings = sources.look_once(&settings, CREDENTIALS_TIMEOUT).await;
        let settings = runtime_files::of(&settings).applied_to(settings);
        let handle = Handle::try_current().context("no async runtime")?;
        Ok(Self::ConfigFile {
            resolver: resolving::resolver(
                &settings,
                runtime_files::socket(&settings).as_deref(),
                handle,
                Telemetry::off(),
            ),
            settings: Box::new(settings),
        })
    }

    /// What would happen to `image`.
    pub(super) async fn explain(
        &self,
        image: &str,
        probe: bool,
    ) -> Result<Explanation, DaemonError> {
        match self {
            Self::Daemon(daemon) => daemon.explain(image, probe).await,
            Self::ConfigFile { settings, resolver } => {
                let by = Knowledge::ConfigFile;
                Ok(explain(settings, resolver, image, probe, by).await)
            }
        }
    }
}
