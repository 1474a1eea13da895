//! A simulation of a fleet: thousands of nodes on virtual time, with the product's own decisions, beside the
//! predecessor's.
//!
//! Real, the same code as on a node: config, plan and pull order (`policy`), the resolver with its memory, its
//! breakers and their trials (`resolver`), the registry client above the connection (`registry`), and the loop that
//! follows the ConfigMap (`cluster`, with the `kube` client).
//! Modelled: the network and the registries, the container runtime, kubelet, and the whole of the predecessor.
//!
//! Time is tokio's, stopped: it jumps to the next moment at which anything happens. All chance comes from
//! one seed.
//!
//! | module | what it knows |
//! |---|---|
//! | [`scenarios`], [`sites`] | what happens, and where |
//! | [`scenario`] | running one |
//! | [`places`], [`network`] | registries, and the way to them |
//! | [`following`], [`api_server`] | a fleet that follows the ConfigMap |
//! | [`images`] | the images and their plans |
//! | [`shim`], [`predecessor`] | what stands between kubelet and the runtime |
//! | [`kubelet`], [`runtime`] | what stands around it |
//! | [`meter`], [`report`], [`plots`] | counting, tables and plots |

pub mod api_server;
pub mod following;
pub mod images;
pub mod kubelet;
pub mod meter;
pub mod network;
pub mod places;
pub mod plots;
pub mod predecessor;
pub mod report;
pub mod runtime;
pub mod scenario;
pub mod scenarios;
pub mod shim;
pub mod sites;
