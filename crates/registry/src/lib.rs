//! OCI distribution client that answers one question: does this registry have this manifest?
//!
//! It knows nothing of CRI, Kubernetes, priorities or caches of answers: those are built on top.
//! What it remembers only makes the next question cheaper: connections, tokens, and per registry
//! whether it refuses HEAD, how it wants to be told who asks, and whether it speaks TLS.
//!
//! A [`Client::probe`] never fails; what went wrong is an [`Outcome`] with a line of text for the
//! operator. Nothing from outside makes it panic or allocate without bound, no credential is in any
//! text it makes, and none crosses hosts.
//!
//! | module | what it does |
//! |---|---|
//! | `client` | options, deadline, the public face |
//! | `probe` | one probe: schemes, HEAD or GET, challenges, verdict |
//! | `auth`, `challenge`, `token` | what a registry asks for, and what it is given |
//! | `transport`, `redirect`, `dns`, `failure` | one request, its redirects, and why it failed |
//! | `manifest`, `retry_after` | what counts as an answer |
//! | `knowledge` | what is remembered about each registry, and its request slots |
//! | `tls` | whom to trust per host: config entry, `certs.d`, system |
//! | `proxy` | `HTTPS_PROXY` and its kin, as Go reads them |
//!
//! ```no_run
//! # async fn example() {
//! use std::time::Duration;
//! use policy::{Endpoint, TlsOptions};
//! use registry::{Client, ClientOptions, Outcome, Target};
//!
//! let client = Client::new(ClientOptions::default());
//! let Ok((endpoint, credentials)) = Endpoint::parse("sealos.hub:5000") else { return };
//! let probe = client
//!     .probe(&Target {
//!         endpoint,
//!         repository: "library/nginx".into(),
//!         manifest: "1.27".into(),
//!         credentials,
//!         tls: TlsOptions::default(),
//!         deadline: Duration::from_secs(2),
//!     })
//!     .await;
//! if let Outcome::Found { digest } = probe.outcome {
//!     println!("{} after {:?}: {digest:?}", probe.detail, probe.elapsed);
//! }
//! # }
//! ```

mod auth;
mod challenge;
mod client;
mod dns;
mod failure;
mod knowledge;
mod manifest;
mod outcome;
mod probe;
mod progress;
mod proxy;
mod redirect;
mod retry_after;
mod target;
mod tls;
mod token;
mod transport;
mod ttl;

pub use client::{Client, ClientOptions};
pub use knowledge::ClientStats;
pub use outcome::{Cause, MAX_RETRY_AFTER, Outcome, Probe};
pub use proxy::ProxySettings;
pub use target::Target;
pub use tls::CertsDirs;
