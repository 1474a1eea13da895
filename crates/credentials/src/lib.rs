//! Credentials that stand elsewhere than in the config: in a docker `config.json`, with a credential
//! helper, or with one of kubelet's credential-provider plugins.
//!
//! What these formats mean is in `policy`; here are the files and the programs. A [`Keeper`] looks up
//! what the config needs, in the background, and again before it expires; a program that fails or hangs
//! costs a line in the explanation of a plan, never a pull.
//!
//! | module | what it knows |
//! |---|---|
//! | [`program`] | running a helper or plugin, bounded in time and output |
//! | [`docker`] | a docker `config.json`, and the helpers that it names |
//! | [`plugin`] | kubelet's plugins, and what they said before |
//! | [`keeper`] | when to look again |

pub mod docker;
pub mod keeper;
pub mod plugin;
pub mod program;

use std::time::Duration;

use policy::config::Found;

pub use keeper::Keeper;

/// What was found, and when to look again at the latest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupResult {
    /// Credentials, or why there are none.
    pub found: Found,
    /// How long it holds; `None` is until the file changes.
    pub good_for: Option<Duration>,
    /// Whether looking failed: what was found before may be used as long as it holds.
    pub failed: bool,
}

impl LookupResult {
    fn good(found: Found, good_for: Option<Duration>) -> Self {
        Self {
            found,
            good_for,
            failed: false,
        }
    }

    fn failed(note: String) -> Self {
        Self {
            found: Found {
                credentials: None,
                note: Some(note),
            },
            good_for: None,
            failed: true,
        }
    }
}

/// Larger than any config of credentials; a mistaken path is refused instead of read.
pub(crate) const MAX_FILE: u64 = 1024 * 1024;
