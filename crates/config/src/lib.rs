//! The config's life: the file, the ConfigMap, credentials from elsewhere, and following all of it.
//!
//! Every role follows its config the same way: a [`Source`] is looked at whenever it may have changed,
//! what it says is filled with the credentials that it points to, and the role is handed one whole value.
//!
//! ```no_run
//! # async fn example(link: std::sync::Arc<cluster::ClientProvider>) -> Result<(), config::ConfigError> {
//! use std::sync::Arc;
//!
//! let path = "/etc/image-cri-shim.yaml";
//! let loaded = config::file::load(path.as_ref())?;
//! let follower = config::Follower {
//!     state: config::ConfigState::new(path.to_owned(), telemetry::Telemetry::off()),
//!     source: config::Source::File {
//!         path: path.into(),
//!         loaded: Box::new(loaded),
//!         broken_file: None,
//!         config_map: config::ConfigMapUse::Merged,
//!     },
//!     link,
//!     wake: Arc::default(),
//!     wants_credentials: |_| true,
//!     is_applied: false,
//!     keeps_last_good: false,
//!     may_write: Arc::new(true.into()),
//! };
//! follower.run(|settings| println!("{} registries", settings.rules.registries.len())).await;
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it knows |
//! |---|---|
//! | [`mod@file`] | reading the local file, and replacing it |
//! | [`Source`] | where a config comes from, looked at again and again |
//! | [`start`] | what to start with where the file can't be used |
//! | `last_good` | the last good config, kept for that |
//! | `sync` | the file with the ConfigMap merged into it |
//! | `guard` | configs that would open a site by accident |
//! | `config_map` | the ConfigMap as a config of its own |
//! | [`credentials`] | credentials that the config only points to |
//! | `in_force` | a config and its credentials, as one value |
//! | [`Follower`] | the loop that follows all of it |
//! | [`Watch`] | noticing at once that a file may have changed |
//! | [`ConfigState`] | which config is in force, and what is wrong with the newest |
//! | [`runtime`] | what CRI-O's own files say to us |
//! | [`show`] | the config as text, each value with where it comes from |
//! | [`absent`] | files that the config names and that can't be read |
//! | [`announce`] | the log lines about it |

pub mod absent;
pub mod announce;
mod config_map;
pub mod credentials;
mod error;
pub mod file;
mod follow;
mod found;
mod guard;
mod in_force;
mod interval;
mod last_good;
pub mod runtime;
pub mod show;
mod source;
pub mod start;
mod state;
mod sync;
mod watch;

pub use config_map::check_config_map;
pub use error::ConfigError;
pub use follow::Follower;
pub use source::{ConfigMapUse, Source};
pub use state::ConfigState;
pub use sync::BeforeWriting;
pub use watch::Watch;

/// A variable of this process's environment, for `${NAME}` in credentials.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
