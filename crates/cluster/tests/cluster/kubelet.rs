//! What a running kubelet says of itself.

use cluster::{FailureKind, kubelet_endpoints};
use serde_json::json;
use testkit::fake_api_server::{ApiFault, FakeApiServer};

use crate::world::clients;

#[tokio::test]
async fn a_kubelet_is_asked_through_the_api_server() {
    let server = FakeApiServer::start().unwrap();
    let (clients, _dir) = clients(&server);
    assert_eq!(kubelet_endpoints(&clients, "node-1").await, Ok(None));
    let answer = json!({"kubeletconfig": {
        "imageServiceEndpoint": "unix:///run/image-cri-shim.sock",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "registerNode": true,
    }});
    server.put("/api/v1/nodes/node-1/proxy/configz", answer);
    let told = kubelet_endpoints(&clients, "node-1")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        told.image_service_endpoint,
        "unix:///run/image-cri-shim.sock"
    );
    // No name of a node: nothing is asked.
    let asked = server.requests().len();
    assert_eq!(kubelet_endpoints(&clients, "../x").await, Ok(None));
    assert_eq!(server.requests().len(), asked);
    server.set_fault(Some(ApiFault::Status(403)));
    let refused = kubelet_endpoints(&clients, "node-1").await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Forbidden);
}
