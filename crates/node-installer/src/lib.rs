//! The node installer: one of it runs on every node, and a Lease says whose turn it is.
//!
//! ```text
//!  is it done already? ──yes──▶ ready
//!         │ no
//!         ▼
//!  wait for the Lease ──▶ take it ──▶ change the node, renew meanwhile ──▶ give it back ──▶ ready
//!         ▲                                        │ failed
//!         └──────────── everybody waits ◀── give it back with a mark: node, why
//! ```
//!
//! A change that has failed on one node is tried on no other, until somebody takes the mark away or wants
//! another change. So is one whose node has fallen silent with the Lease in its hand: nobody takes the Lease from
//! it. That node goes on with the change when it is back, since each change can be run again.
//!
//! | module | what it knows |
//! |---|---|
//! | [`task`] | what every node shall have |
//! | `record` | what stands in the Lease |
//! | `turn` | whose turn it is; pure |
//! | [`host`] | how the node is changed |
//! | [`progress`] | how far this node is |
//! | [`run`](mod@run) | from waiting to done |
//! | [`health`] | `/healthz` and `/readyz` |

pub mod health;
pub mod host;
pub mod progress;
mod record;
pub mod run;
pub mod task;
mod turn;

pub use host::Host;
pub use progress::Progress;
pub use run::{Installer, Timing};
pub use task::Task;
