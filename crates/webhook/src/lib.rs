//! The admission webhook: the same rules, applied to Pods by a Kubernetes API server.
//!
//! ```text
//! API server ──HTTPS──▶ server ──▶ http ──▶ admit ──▶ policy::pod ──▶ JSON patch
//!                         ▲                   │
//!      listener::certificate::Store            └─ rewrite: best ──▶ resolver
//!                         ▲
//!            files, or a Secret that replicas share (self_signed)
//! ```
//!
//! | module | what it knows |
//! |---|---|
//! | [`review`] | AdmissionReviews, read and answered |
//! | [`admit`] | what becomes of one Pod |
//! | [`caller`] | who asks: an API server, or anybody |
//! | [`http`] | which request gets which answer |
//! | [`server`] | the listener for API servers |
//! | [`limits`] | what clients may take |
//! | [`health`] | `/healthz` and `/readyz`, on a listener of their own |
//! | [`self_signed`] | a CA of our own: made, shared, rotated |
//!
//! It never denies: what it can't handle is allowed as it is. Only what is no AdmissionReview at all
//! gets an HTTP error, since there is nothing to answer to.

pub mod admit;
pub mod caller;
pub mod health;
pub mod http;
pub mod limits;
pub mod review;
pub mod self_signed;
pub mod server;

pub use admit::Admission;
pub use caller::{Caller, Callers};
pub use limits::Limits;
pub use server::serve;
