//! The node shim: a CRI proxy on a unix socket between kubelet and the container runtime.
//!
//! Every gRPC method of every service is forwarded as it is, streamed both ways. Three image
//! calls are taken out, read and answered by an [`ImageCalls`](call::ImageCalls): PullImage,
//! ImageStatus and RemoveImage.
//!
//! ```text
//! client ── accept ── authority ── server ──┬─ forward ────────────────────┬─ upstream ── runtime
//!                                           └─ image_call ── image_calls ──┘
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`listener`] | the socket: made privately, shared like the runtime's, removed at the end |
//! | `accept` | accepts connections |
//! | `authority` | lets `h2` serve clients whose `:authority` is malformed |
//! | [`server`] | connections, routing of calls, how serving ends |
//! | `stop` | calls in flight, and which of them the end of serving ends |
//! | `budget` | how many unread bytes all clients may hold |
//! | [`method`] | which methods are image calls |
//! | `forward`, `flow` | calls that pass through, and the moving of their bodies |
//! | `image_call`, `body` | one image call: read, answered, sent |
//! | [`call`] | what is known of an image call, and the trait that answers it |
//! | `call_head` | path, metadata and deadline of a call |
//! | [`image_calls`] | the answers: candidates in order, credentials, failover |
//! | [`alias`] | what names were pulled as |
//! | `runtime_name` | the names that a runtime keeps images under |
//! | `original_names`, `containerd` | images from mirrors, known by the names that were asked for |
//! | [`inspect`] | the shim's own service, for the commands that show what it knows |
//! | [`upstream`] | the connection to the runtime, calls with one message each way |
//! | [`wire`] | image name and credentials in the encoded messages, read and replaced |
//! | [`grpc`] | message framing, status, deadlines |
//! | [`http2`] | every HTTP/2 tuning value |
//!
//! HTTP/2 is the `h2` crate on both sides, without hyper between: a proxy has no use for the tasks
//! and channels that hyper makes per call, and needs the resets and their reasons as they are.
//!
//! # Example
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use cri::{Leave, Services, call::PassThrough, inspect::Nothing, listener::Listener, serve, upstream::Upstream};
//! use telemetry::Telemetry;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = "/run/containerd/containerd.sock";
//! let listener = Listener::bind("/run/image-cri-shim.sock", runtime)?;
//! let shutdown = std::future::pending::<Leave>();
//! let drain = Duration::from_secs(10);
//! let services = Services {
//!     calls: Arc::new(PassThrough),
//!     inspection: Arc::new(Nothing),
//!     telemetry: Telemetry::new(),
//! };
//! serve(listener, Upstream::new(runtime), services, shutdown, drain).await;
//! # Ok(())
//! # }
//! ```

mod accept;
pub mod alias;
mod authority;
mod body;
mod budget;
pub mod call;
mod call_head;
mod client;
mod containerd;
mod flow;
mod forward;
#[doc(hidden)]
pub mod fuzzing;
pub mod grpc;
pub mod http2;
mod image_call;
pub mod image_calls;
pub mod inspect;
pub mod listener;
pub mod method;
mod original_names;
mod runtime_name;
pub mod server;
mod stop;
pub mod upstream;
pub mod wire;

pub use client::{image_file_systems, pull_image, runtime_version};
pub use server::{Leave, Services, serve};
