//! One small HTTP listener, plain or TLS: what the daemon's pages, the webhook and the node cache have in
//! common.
//!
//! A role brings a hyper service and [`Options`]. Everything that a slow, broken or hostile client could
//! take is bounded here, so that a role only has to answer.
//!
//! | module | what it holds |
//! |---|---|
//! | [`limits`] | how much clients may take, and what happens when it is too much |
//! | [`connection`] | one connection from its first byte to its end; what a service knows about its peer |
//! | [`memory`] | bytes of requests and answers: charged as they arrive, bounded in total |
//! | [`tls`] | TLS settings that can change while the listener runs, client certificates |
//! | [`certificate`] | the certificate in use, and the files it may come from |
//! | [`host`] | by which names a request calls the listener |
//! | [`reply`] | short answers in plain text |
//! | `accept`, `places` | taking connections; which one ends when there are too many |
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use std::convert::Infallible;
//!
//! use http::StatusCode;
//! use listener::{Options, Protocols, reply};
//!
//! let listener = listener::bind("127.0.0.1:7439".parse().unwrap()).await?;
//! let options = Options::new("examples", Protocols::Http1);
//! let service = hyper::service::service_fn(|_request| async {
//!     Ok::<_, Infallible>(reply::text(StatusCode::OK, "hello"))
//! });
//! listener::serve(vec![listener], options, service, std::future::pending()).await;
//! # Ok(())
//! # }
//! ```

mod accept;
pub mod certificate;
pub mod connection;
pub mod host;
pub mod limits;
pub mod memory;
mod places;
mod protocols;
pub mod reply;
pub mod tls;

pub use accept::{bind, serve};
pub use connection::Connection;
pub use limits::{Limits, Options, WhenFull};
pub use memory::Memory;
pub use protocols::Protocols;
pub use tls::{ClientCertificates, Tls};
