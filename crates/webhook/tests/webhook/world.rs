//! A webhook that runs, and a client that trusts it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use policy::config::Settings;
use registry::{Client, ClientOptions};
use resolver::Resolver;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use testkit::certs::{Ca, ServerCert};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use webhook::certificate::{Pem, Store};
use webhook::{Admission, Limits};

/// Name that the certificate is for.
pub(crate) const NAME: &str = "image-cri-shim-webhook.image-cri-shim.svc";

/// Two redirects, one with a Secret.
pub(crate) const CONFIG: &str = "imageRedirMapping:\n\
    - {src: docker.io/, to: project-a.azurecr.io/docker-mirror/, name: hub, pullSecret: mirror}\n\
    - {src: quay.io, to: q.io/m}\n";

pub(crate) fn settings(config: &str) -> Settings {
    let (settings, findings) = Settings::read(config, &|_| None);
    let errors: Vec<_> = findings.iter().filter(|f| f.is_error()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    settings
}

pub(crate) fn admission(config: &str) -> Admission {
    let client = Client::new(ClientOptions::default());
    let settings = settings(config);
    let options = resolver::Options {
        probe_timeout: settings.probe_timeout,
        found_ttl: Duration::from_secs(60),
        absent_ttl: Duration::from_secs(60),
        size: 16,
    };
    let telemetry = telemetry::Telemetry::new();
    let resolver = Resolver::new(client, Handle::current(), options, telemetry);
    let admission = Admission::new(resolver, Some("image-cri-shim".to_owned()));
    admission.apply(settings);
    admission
}

pub(crate) fn pem(cert: &ServerCert) -> Pem {
    Pem {
        chain: cert.cert_pem.clone(),
        key: cert.key_pem.clone(),
    }
}

/// A webhook that listens on loopback until it is dropped.
pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) admission: Admission,
    pub(crate) client: reqwest::Client,
    pub(crate) shutdown: Option<oneshot::Sender<()>>,
    pub(crate) server: JoinHandle<Result<(), rustls::Error>>,
}

impl World {
    pub(crate) async fn start(config: &str, limits: Limits) -> Self {
        let ca = Ca::new().unwrap();
        let store = Arc::new(Store::default());
        store.set(&pem(&ca.issue(&[NAME]).unwrap())).unwrap();
        Self::with_store(config, limits, store, &ca.pem()).await
    }

    pub(crate) async fn with_store(
        config: &str,
        limits: Limits,
        store: Arc<Store>,
        ca: &str,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let admission = admission(config);
        let (shutdown, wait) = oneshot::channel();
        let server = webhook::serve(listener, store, admission.clone(), limits, async {
            let _ = wait.await;
        });
        Self {
            address,
            admission,
            client: client(address, &[ca]),
            shutdown: Some(shutdown),
            server: tokio::spawn(server),
        }
    }

    pub(crate) async fn post(&self, body: impl Into<reqwest::Body>) -> reqwest::Response {
        let request = self.client.post(url()).body(body);
        request.send().await.unwrap()
    }

    /// Posts a review; gives back `response` of the answer.
    pub(crate) async fn review(&self, review: &Value) -> Value {
        let response = self.post(review.to_string()).await;
        assert_eq!(response.status(), 200);
        let answer: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
        assert_eq!(answer["response"]["allowed"], true);
        answer["response"].clone()
    }

    /// The Pod that an API server makes of a review's object by our answer.
    pub(crate) async fn admitted(&self, review: &Value) -> Value {
        let response = self.review(review).await;
        let mut pod = review["request"]["object"].clone();
        if let Some(patch) = response.get("patch") {
            assert_eq!(response["patchType"], "JSONPatch");
            let patch = STANDARD.decode(patch.as_str().unwrap()).unwrap();
            let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
            json_patch::patch(&mut pod, &patch).unwrap();
        }
        pod
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(crate) fn url() -> String {
    format!("https://{NAME}/mutate?timeout=5s")
}

/// A client that trusts these CAs and finds the webhook at `address`.
pub(crate) fn client(address: SocketAddr, cas: &[&str]) -> reqwest::Client {
    let mut roots = RootCertStore::empty();
    for ca in cas {
        for root in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .no_proxy()
        .resolve(NAME, address)
        .build()
        .unwrap()
}

pub(crate) fn fixture(name: &str) -> Value {
    let text = match name {
        "create" => include_str!("../fixtures/create.json"),
        "ephemeral" => include_str!("../fixtures/ephemeral.json"),
        other => panic!("no fixture {other}"),
    };
    serde_json::from_str(text).unwrap()
}
