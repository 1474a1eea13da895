//! What a running kubelet says of itself, by the API server's proxy to it.

use http::Request;
use serde::Deserialize;

use crate::client::ClientProvider;
use crate::failure::{Failure, FailureKind};

/// The endpoints that a kubelet uses, flags included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeletEndpoints {
    /// Of the runtime. Empty before kubelet 1.27, which does not tell.
    pub container_runtime_endpoint: String,
    /// Of the image service; empty is the runtime's.
    pub image_service_endpoint: String,
}

/// `/configz`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ConfigZ {
    kubeletconfig: KubeletEndpoints,
}

/// Asks the kubelet of `node` once; `None` where there is no such node.
///
/// # Errors
/// There is no client, it may not ask (`nodes/proxy`), or there is no answer.
pub async fn kubelet_endpoints(
    clients: &ClientProvider,
    node: &str,
) -> Result<Option<KubeletEndpoints>, Failure> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    if node.is_empty() || !node.chars().all(is_name) {
        return Ok(None);
    }
    let (client, _) = clients.client().await?;
    let request = Request::get(format!("/api/v1/nodes/{node}/proxy/configz"));
    let request = request.body(Vec::new()).map_err(|error| {
        Failure::new(
            FailureKind::Unavailable,
            format!("no such request: {error}"),
        )
    })?;
    match client.request::<ConfigZ>(request).await {
        Ok(answer) => Ok(Some(answer.kubeletconfig)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(Failure::from_kube(&error)),
    }
}
