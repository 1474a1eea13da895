//! Wires a node's kubelet to the shim, and undoes it.
//!
//! [`Node::look`] finds out what stands on the node, [`wiring`] says which files would lead its kubelet
//! to the shim, and [`transaction`] writes them so that every old byte, mode, owner and extended attribute
//! can be put back. Nothing here starts or stops a service: what has to be restarted is told.
//!
//! | module | what it knows |
//! |---|---|
//! | [`root`] | the tree that is worked on, a node's or an image's |
//! | [`node`] | kinds of nodes, and how each is recognised |
//! | [`payload`] | the shim's own files |
//! | [`wiring`] | how each kind's kubelet is led to the shim |
//! | [`transaction`] | changes that a crash can't leave half done |
//! | [`file`](mod@file) | one file with all that belongs to it |
//! | [`diff`] | changes as people read them |
//! | [`env_file`], [`flags`] | systemd's files of variables, and command lines |
//! | [`bypass`] | whether kubelet is led past the shim, and since when |

pub mod bypass;
pub mod diff;
pub mod env_file;
pub mod file;
pub mod flags;
pub mod ledger;
pub mod node;
pub mod payload;
pub mod root;
pub mod transaction;
pub mod wiring;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use node::kubelet::{healthz, top_level};
pub use node::{Kind, KubeletService, Node, is_ours, runtime_socket};
pub use root::Root;
pub use transaction::{Change, Undone, Wanted};

/// What kubelet dials: a symbolic link to the shim's socket, or to the bypass while the shim is down.
pub const LINK: &str = "/run/image-cri-shim.sock";

/// What the units and the daemon take the runtime's socket from, when the config does not name one.
pub const DEFAULTS: &str = "/etc/default/image-cri-shim";
/// The variable in [`DEFAULTS`].
pub const RUNTIME_VARIABLE: &str = "IMAGE_CRI_SHIM_RUNTIME";

/// Why a node can't be wired or unwired.
#[derive(Debug, Error)]
pub enum Error {
    /// A file or directory can't be used.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what, as the node sees it.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The record of an earlier run can't be used. Nothing is changed.
    #[error(
        "{} is damaged ({reason}); nothing was changed. Put the file back from a backup, or undo the install by hand with docs/install.md",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The node can't be wired as it stands.
    #[error("{0}")]
    Unsupported(String),
}

impl Error {
    pub(crate) fn at(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

#[cfg(test)]
mod trees;
