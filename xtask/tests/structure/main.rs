//! What ARCHITECTURE.md says of the crates, and what CONTRIBUTING.md says of modules, checked against what is
//! written: neither drawing nor rule can go stale unseen.

mod arrows;
mod circles;
mod modules;

use std::path::PathBuf;

/// The workspace's root.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
