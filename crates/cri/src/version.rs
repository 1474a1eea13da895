//! Asking the runtime who it is.

use std::path::Path;

use http::HeaderMap;
use http::uri::PathAndQuery;

use crate::call::CallHead;
use crate::upstream::{Outgoing, Upstream, UpstreamError};

/// `runtime.v1.VersionResponse`, the fields that people want to see.
#[derive(Clone, PartialEq, prost::Message)]
struct VersionResponse {
    #[prost(string, tag = "2")]
    runtime_name: String,
    #[prost(string, tag = "3")]
    runtime_version: String,
}

/// Name and version of the runtime that listens on `socket`: `containerd 1.6.20`.
///
/// # Errors
/// When it can't be reached. One that answers with an error is reachable, and gets described so.
pub async fn runtime_version(socket: &Path) -> Result<String, UpstreamError> {
    let path = PathAndQuery::from_static("/runtime.v1.RuntimeService/Version");
    let mut metadata = HeaderMap::new();
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        metadata.insert(name, http::HeaderValue::from_static(value));
    }
    let head = CallHead::new(path, metadata);
    let message = Outgoing::message(&[])?;
    let reply = Upstream::new(socket).unary(&head, &message).await?;
    let version: Option<VersionResponse> = reply
        .message()
        .ok()
        .and_then(|message| prost::Message::decode(message).ok());
    Ok(match version {
        Some(version) => format!("{} {}", version.runtime_name, version.runtime_version),
        None => format!(
            "a runtime (its Version call says: {})",
            reply.status().message
        ),
    })
}
