//! OCI distribution client: asks registries for manifests, and tells what their answers mean.
//!
//! It knows nothing of CRI, Kubernetes, priorities or caches of answers: those are built on top.
//! What it remembers only makes the next question cheaper: connections, tokens, and per registry
//! whether it refuses HEAD, how it wants to be told who asks, and whether it speaks TLS.
//!
//! A [`Client::probe`] never fails; what went wrong is an [`Outcome`] with a line of text for the
//! operator. Nothing from outside makes it panic or allocate without bound, no credential is in any
//! text it makes, and none crosses hosts.
//!
//! ```text
//! client ──▶ {probe, examine, fetch} ──▶ exchange ──▶ auth ──▶ http
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | `client` | options, the public face |
//! | `probe` | one question for a manifest, or for life: HEAD or GET, verdict |
//! | `examine` | a look at a registry as a whole: its life, certificate, clock and credentials |
//! | `fetch` | manifests with their bodies, blobs as they arrive, lists |
//! | `manifest` | what counts as a manifest |
//! | `exchange` | the scheme, a free slot, challenges and their answers; gives a response |
//! | `auth` | what a registry asks for, and what it is given |
//! | `http` | one request: connections, TLS per host, proxies, redirects, why it failed |
//! | `knowledge` | what is remembered about each registry, and its request slots |
//! | `registry`, `outcome`, `progress` | who is asked, what comes of it, and what is under way |
//!
//! ```no_run
//! # async fn example() {
//! use std::time::Duration;
//! use policy::Endpoint;
//! use registry::{Client, ClientOptions, ManifestName, Outcome, Registry};
//!
//! let client = Client::new(ClientOptions::default());
//! let Ok((endpoint, credentials)) = Endpoint::parse("sealos.hub:5000") else { return };
//! let sealos = Registry { credentials, ..Registry::anonymous(endpoint) };
//! let nginx = ManifestName {
//!     repository: "library/nginx".into(),
//!     reference: "1.27".into(),
//! };
//! let probe = client.probe(&sealos, &nginx, Duration::from_secs(2)).await;
//! if let Outcome::Found { digest } = probe.outcome {
//!     println!("{} after {:?}: {digest:?}", probe.detail, probe.elapsed);
//! }
//! # }
//! ```

mod auth;
mod client;
mod examine;
mod exchange;
mod fetch;
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod knowledge;
mod manifest;
mod outcome;
mod probe;
mod progress;
mod registry;
mod ttl;

pub use self::auth::Scope;
pub use self::client::{Client, ClientOptions};
pub use self::examine::{Admission, Examination};
pub use self::fetch::{
    Blob, BlobSize, FetchOptions, Manifest, ManifestHead, Page, PageRequest, Repository,
    referrers_tag,
};
pub use self::http::guard::AddressGuard;
pub use self::http::network::{Answering, Network};
pub use self::http::tls::{CaPlace, CertsDirs};
pub use self::knowledge::ClientStats;
pub use self::manifest::MAX_MANIFEST;
pub use self::outcome::{Cause, ExchangeError, Failure, MAX_RETRY_AFTER, Outcome, Ping, Probe};
pub use self::registry::{ManifestName, Registry};
