//! What an API server does with a mutating webhook: it asks over TLS, checks the answer and applies the
//! patch. And where it is told whom to trust.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::certs::{ServerCert, crypto};
use crate::fake_api_server::FakeApiServer;

/// Name that a webhook's certificate is for: that of the Service in `deploy/webhook`.
pub const NAME: &str = "image-cri-shim-webhook.image-cri-shim.svc";
/// Where the Secret is that replicas share.
pub const SECRET: &str = "/api/v1/namespaces/image-cri-shim/secrets/image-cri-shim-webhook-tls";
/// Where the registration is.
pub const REGISTRATION: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/image-cri-shim";

/// Where an API server posts reviews to.
#[must_use]
pub fn url() -> String {
    format!("https://{NAME}/mutate?timeout=5s")
}

/// A client that trusts the CAs in these PEM texts, finds [`NAME`] at `address`, and speaks HTTP/2 where
/// the other side does, as API servers do.
pub fn client(address: SocketAddr, cas: &[&str]) -> Result<reqwest::Client> {
    client_with(address, cas, &[b"h2", b"http/1.1"])
}

/// The same with these protocols.
pub fn client_with(
    address: SocketAddr,
    cas: &[&str],
    protocols: &[&[u8]],
) -> Result<reqwest::Client> {
    client_as(address, cas, protocols, None)
}

/// The same, showing this certificate.
pub fn client_as(
    address: SocketAddr,
    cas: &[&str],
    protocols: &[&[u8]],
    certificate: Option<&ServerCert>,
) -> Result<reqwest::Client> {
    let mut roots = RootCertStore::empty();
    let texts = cas.iter();
    for root in texts.flat_map(|ca| CertificateDer::pem_slice_iter(ca.as_bytes())) {
        roots.add(root?)?;
    }
    let config = rustls::ClientConfig::builder_with_provider(crypto())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match certificate {
        None => config.with_no_client_auth(),
        Some(cert) => {
            let chain = CertificateDer::from_pem_slice(cert.cert_pem.as_bytes())?;
            let key = PrivateKeyDer::from_pem_slice(cert.key_pem.as_bytes())?;
            config.with_client_auth_cert(vec![chain], key)?
        }
    };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .no_proxy()
        .resolve(NAME, address)
        .build()?)
}

/// The creation of a Pod with one container, `c`, in the namespace `default`.
#[must_use]
pub fn review_of(image: &str) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "operation": "CREATE", "namespace": "default",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "object": {"metadata": {}, "spec": {"containers": [{"name": "c", "image": image}]}},
        },
    })
}

/// Asks; gives `response` of an answer that an API server would take.
pub async fn ask(client: &reqwest::Client, review: &Value) -> Result<Value> {
    let request = client.post(url()).body(review.to_string());
    let response = request.send().await?.error_for_status()?;
    let answer: Value = serde_json::from_slice(&response.bytes().await?)?;
    ensure!(
        answer["apiVersion"] == "admission.k8s.io/v1" && answer["kind"] == "AdmissionReview",
        "no AdmissionReview: {answer}"
    );
    let response = &answer["response"];
    ensure!(
        response["uid"] == review["request"]["uid"],
        "the answer to another review: {answer}"
    );
    ensure!(response["allowed"] == true, "denied: {answer}");
    ensure!(
        response.get("patch").is_some() == (response["patchType"] == "JSONPatch"),
        "a patch of an unknown type: {answer}"
    );
    Ok(response.clone())
}

/// The operations of a response's patch; none where there is no patch.
pub fn operations(response: &Value) -> Result<Vec<Value>> {
    let Some(patch) = response.get("patch") else {
        return Ok(Vec::new());
    };
    let patch = patch.as_str().context("a patch that is no text")?;
    Ok(serde_json::from_slice(&STANDARD.decode(patch)?)?)
}

/// The object that comes of a review and the response to it.
pub fn admitted(review: &Value, response: &Value) -> Result<Value> {
    let mut object = review["request"]["object"].clone();
    let patch: json_patch::Patch = serde_json::from_value(operations(response)?.into())?;
    json_patch::patch(&mut object, &patch)?;
    Ok(object)
}

/// Registers the webhook as `deploy/webhook` does, beside another one, with a field of the future.
pub fn register(server: &FakeApiServer) {
    server.put(
        REGISTRATION,
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "webhooks": [
                {"name": "other.example.com", "clientConfig": {"url": "https://other", "caBundle": "b3RoZXI="}},
                {"name": "pods.image-cri-shim.io", "fromTheFuture": {"keep": "me"}, "clientConfig":
                    {"service": {"name": "image-cri-shim-webhook", "namespace": "image-cri-shim", "path": "/mutate"}}},
            ],
        }),
    );
}

/// What API servers are told to trust, in PEM.
pub fn published(server: &FakeApiServer) -> Option<String> {
    let registration = server.get(REGISTRATION)?;
    text(&registration["webhooks"][1]["clientConfig"]["caBundle"])
}

/// A value of the Secret that replicas share.
pub fn shared(server: &FakeApiServer, key: &str) -> Option<String> {
    text(&server.get(SECRET)?["data"][key])
}

fn text(encoded: &Value) -> Option<String> {
    String::from_utf8(STANDARD.decode(encoded.as_str()?).ok()?).ok()
}
