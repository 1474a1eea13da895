//! What the process can be: each role wired of its crate and what all roles share. No role knows another.
//!
//! | module | what it is |
//! |---|---|
//! | [`node`] | the shim between kubelet and the runtime |
//! | [`webhook`] | the admission webhook |
//! | [`cache`] | the node cache |
//! | [`node_installer`] | the node installer |
//! | [`runtime`] | the container runtime of this node |
//! | [`resolving`] | the client and resolver that roles and commands ask with |

pub(crate) mod cache;
pub(crate) mod node;
pub(crate) mod node_installer;
pub(crate) mod resolving;
pub(crate) mod runtime;
pub(crate) mod webhook;
