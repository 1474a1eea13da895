//! One shim takes over from another without a lost call: what both do with a node's parts.
//!
//! | module | what it does |
//! |---|---|
//! | [`give`] | hands this shim's socket over to a new process |
//! | [`take`] | takes over from the process that has started this one |
//! | [`metrics_socket`] | the listener of `metricsAddress`, on its way from one to the other |

pub(super) mod give;
pub(super) mod metrics_socket;
pub(super) mod take;
