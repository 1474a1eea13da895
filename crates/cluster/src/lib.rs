//! Kubernetes, as far as a node follows it: which API server, the ConfigMap, and Secrets.
//!
//! Nothing here can keep a node from serving. Whoever asks gets a [`Followed`] at once; what the
//! server says arrives there, and an API server that is away, slow or refuses is only a [`Look`].
//! Requests are few: one watch per object, one question every `reloadInterval`, and growing pauses
//! while the server fails.
//!
//! | module | what it knows |
//! |---|---|
//! | [`places`] | where a kubeconfig or a service account may be, in which order |
//! | [`link`] | the one client that all share |
//! | [`follow`] | following one object |
//! | [`objects`] | the ConfigMap and the Secrets |
//! | [`failure`] | why the server gave no answer |

pub mod failure;
pub mod follow;
pub mod link;
pub mod objects;
pub mod places;

pub use failure::{Failure, FailureKind};
pub use follow::{Followed, Look, Seen};
pub use link::Link;
pub use objects::{ConfigMapText, SecretData, follow_config_map, follow_secret, read_config_map};
pub use places::{Discovered, Places};
