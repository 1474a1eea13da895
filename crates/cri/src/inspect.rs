//! The shim's own service, on the same socket: what it knows, for the commands that show it.
//!
//! Whoever may open the socket may pull and remove images; so it may also see why they came from where
//! they did. The messages are JSON in gRPC's framing; no CRI service has this name, so nothing that a
//! kubelet or a crictl calls can ever mean it.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::uri::PathAndQuery;

use crate::client;
use crate::grpc::{Code, Status};
use crate::upstream::{Upstream, UpstreamError};

/// What the paths of the service's methods begin with.
pub const SERVICE: &str = "/image_cri_shim.v1.Inspection/";

/// What answers the service's methods.
pub trait Inspect: Send + Sync + 'static {
    /// Answers one call; `method` is the path's last part.
    fn inspect(&self, method: &str, message: Bytes) -> BoxFuture<'static, Result<Bytes, Status>>;
}

/// An [`Inspect`] that has no methods.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

impl Inspect for Nothing {
    fn inspect(&self, method: &str, _message: Bytes) -> BoxFuture<'static, Result<Bytes, Status>> {
        let status = unknown(method);
        Box::pin(async move { Err(status) })
    }
}

/// The status for a method that there isn't: what a gRPC server says.
pub fn unknown(method: &str) -> Status {
    Status::new(
        Code::UNIMPLEMENTED,
        format!("unknown method {method} for service image_cri_shim.v1.Inspection"),
    )
}

/// Asks the shim that listens on `socket`.
///
/// # Errors
/// Nobody answers there. A status other than OK is an answer: UNIMPLEMENTED comes from whoever is not
/// this program, or an older one.
pub async fn ask(
    socket: &Upstream,
    method: &str,
    message: &[u8],
) -> Result<Result<Bytes, Status>, UpstreamError> {
    let Ok(path) = PathAndQuery::try_from(format!("{SERVICE}{method}")) else {
        return Ok(Err(unknown(method)));
    };
    let reply = client::call(socket, path, "application/grpc+json", message).await?;
    if !reply.status().is_ok() {
        return Ok(Err(reply.status().clone()));
    }
    Ok(reply
        .message()
        .map_err(|error| Status::new(Code::INTERNAL, error.to_string())))
}
