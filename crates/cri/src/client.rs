//! Calls of our own: asking the runtime who it is, and pulling as a kubelet does.

use std::path::PathBuf;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};

use crate::call::CallHead;
use crate::grpc::Status;
use crate::upstream::{Outgoing, UnaryReply, Upstream, UpstreamError};

/// `runtime.v1.VersionResponse`, the fields that people want to see.
#[derive(Clone, PartialEq, prost::Message)]
struct VersionResponse {
    #[prost(string, tag = "2")]
    runtime_name: String,
    #[prost(string, tag = "3")]
    runtime_version: String,
}

/// `runtime.v1.PullImageRequest`, the field that a pull without credentials has.
#[derive(Clone, PartialEq, prost::Message)]
struct PullImageRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageSpec>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
}

/// `runtime.v1.ImageFsInfoResponse`, the fields that say where images are.
#[derive(Clone, PartialEq, prost::Message)]
struct ImageFsInfoResponse {
    #[prost(message, repeated, tag = "1")]
    image_filesystems: Vec<FilesystemUsage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FilesystemUsage {
    #[prost(message, optional, tag = "2")]
    fs_id: Option<FilesystemIdentifier>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FilesystemIdentifier {
    #[prost(string, tag = "1")]
    mountpoint: String,
}

/// Name and version of a runtime: `containerd 1.6.20`.
///
/// # Errors
/// When it can't be reached. One that answers with an error is reachable, and gets described so.
pub async fn runtime_version(runtime: &Upstream) -> Result<String, UpstreamError> {
    let path = PathAndQuery::from_static("/runtime.v1.RuntimeService/Version");
    let reply = call(runtime, path, "application/grpc", &[]).await?;
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

/// Where the image service of a runtime keeps images; the status where it does not work.
///
/// # Errors
/// When it can't be reached.
pub async fn image_file_systems(
    runtime: &Upstream,
) -> Result<Result<Vec<PathBuf>, Status>, UpstreamError> {
    let path = PathAndQuery::from_static("/runtime.v1.ImageService/ImageFsInfo");
    let reply = call(runtime, path, "application/grpc", &[]).await?;
    if !reply.status().is_ok() {
        return Ok(Err(reply.status().clone()));
    }
    let decoded = reply
        .message()
        .ok()
        .and_then(|message| <ImageFsInfoResponse as prost::Message>::decode(message).ok());
    let systems = decoded.unwrap_or_default().image_filesystems.into_iter();
    let folders = systems.filter_map(|system| Some(PathBuf::from(system.fs_id?.mountpoint)));
    Ok(Ok(folders.filter(|folder| folder.is_absolute()).collect()))
}

/// Pulls `image` through a shim or a runtime, without credentials; how that ended.
///
/// # Errors
/// When it can't be reached.
pub async fn pull_image(runtime: &Upstream, image: &str) -> Result<Status, UpstreamError> {
    let path = PathAndQuery::from_static("/runtime.v1.ImageService/PullImage");
    let request = PullImageRequest {
        image: Some(ImageSpec {
            image: image.to_owned(),
        }),
    };
    let message = prost::Message::encode_to_vec(&request);
    let reply = call(runtime, path, "application/grpc", &message).await?;
    Ok(reply.status().clone())
}

/// One call with one message each way, as any gRPC client would make it.
pub(crate) async fn call(
    to: &Upstream,
    path: PathAndQuery,
    content_type: &'static str,
    message: &[u8],
) -> Result<UnaryReply, UpstreamError> {
    let mut metadata = HeaderMap::new();
    for (name, value) in [("content-type", content_type), ("te", "trailers")] {
        metadata.insert(name, HeaderValue::from_static(value));
    }
    let head = CallHead::new(path, metadata);
    to.unary(&head, &Outgoing::message(message)?).await
}
