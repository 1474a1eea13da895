//! The config's life: the file, the ConfigMap, credentials from elsewhere, and what people are told about
//! all that.
//!
//! | module | what it knows |
//! |---|---|
//! | [`mod@file`] | reading the local file, and replacing it |
//! | [`merge`] | the file with the ConfigMap merged into it |
//! | [`credentials`] | credentials that the config only points to |
//! | [`in_force`] | both together, as one value |
//! | [`keeper`] | the node shim's: following all of it |
//! | [`watch`] | noticing at once that a file may have changed |
//! | [`state`] | which config is in force, and what is wrong with the newest |
//! | [`show`] | the config as text, each value with where it comes from |

pub(crate) mod credentials;
pub(crate) mod file;
pub(crate) mod in_force;
pub(crate) mod keeper;
pub(crate) mod merge;
pub(crate) mod show;
pub(crate) mod state;
pub(crate) mod watch;
