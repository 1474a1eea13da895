//! A webhook that runs, and a client that trusts it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use listener::certificate::{Pem, Store};
use listener::{ClientCertificates, Protocols, Tls};
use policy::config::Settings;
use registry::{Client, ClientOptions};
use resolver::Resolver;
use serde_json::Value;
use telemetry::Telemetry;
use testkit::admission::{self, NAME, url};
use testkit::certs::{Ca, ServerCert};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use webhook::{Admission, Callers, Limits};

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

fn deciding(config: &str, telemetry: &Telemetry) -> Admission {
    let client = Client::new(ClientOptions::default());
    let settings = settings(config);
    let options = resolver::ResolverOptions {
        probe_timeout: settings.probe_timeout,
        found_ttl: Duration::from_secs(60),
        absent_ttl: Duration::from_secs(60),
        size: 16,
    };
    let resolver = Resolver::new(client, Handle::current(), options, telemetry.clone());
    let namespace = Some("image-cri-shim".to_owned());
    let admission = Admission::new(resolver, namespace, telemetry.clone());
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
    pub(crate) telemetry: Telemetry,
    /// The CA of its first certificate, in PEM.
    pub(crate) ca: String,
    pub(crate) client: reqwest::Client,
    pub(crate) shutdown: Option<oneshot::Sender<()>>,
    pub(crate) server: AbortOnDropHandle<()>,
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
        let clients = (ClientCertificates::None, Callers::Unknown);
        Self::with_callers(config, limits, store, ca, clients).await
    }

    /// One that tells its callers apart: API servers have a certificate of `clients` with this name.
    pub(crate) async fn for_api_servers(config: &str, clients: &Ca, name: &str) -> Self {
        let ca = Ca::new().unwrap();
        let store = Arc::new(Store::default());
        store.set(&pem(&ca.issue(&[NAME]).unwrap())).unwrap();
        let callers = Callers::Certified {
            names: vec![name.to_owned()],
        };
        let clients = (ClientCertificates::Optional(clients.pem()), callers);
        Self::with_callers(config, Limits::default(), store, &ca.pem(), clients).await
    }

    async fn with_callers(
        config: &str,
        limits: Limits,
        store: Arc<Store>,
        ca: &str,
        (certificates, callers): (ClientCertificates, Callers),
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let telemetry = Telemetry::new();
        let admission = deciding(config, &telemetry);
        let (shutdown, wait) = oneshot::channel();
        let tls = Tls::new(store, Protocols::Http1AndHttp2, &certificates).unwrap();
        let server = webhook::serve(
            listener,
            Arc::new(tls),
            admission.clone(),
            callers,
            limits,
            async {
                let _ = wait.await;
            },
        );
        Self {
            address,
            admission,
            telemetry,
            ca: ca.to_owned(),
            client: client(address, &[ca]),
            shutdown: Some(shutdown),
            server: AbortOnDropHandle::new(tokio::spawn(server)),
        }
    }

    /// What was counted under a name that begins so, as `name{labels} value`.
    pub(crate) fn counted(&self, name: &str) -> Vec<String> {
        let text = self.telemetry.metrics().encode(Default::default());
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(ToOwned::to_owned).collect()
    }

    /// Reviews that ended so.
    pub(crate) fn reviews(&self, result: &str) -> u64 {
        let name = format!("image_cri_shim_reviews_total{{result=\"{result}\"}} ");
        let counted = self.counted(&name);
        counted[0][name.len()..].parse().unwrap()
    }

    pub(crate) async fn post(&self, body: impl Into<reqwest::Body>) -> reqwest::Response {
        let request = self.client.post(url()).body(body);
        request.send().await.unwrap()
    }

    /// Posts a review; gives back `response` of the answer.
    pub(crate) async fn review(&self, review: &Value) -> Value {
        admission::ask(&self.client, review).await.unwrap()
    }

    /// The Pod that an API server makes of a review's object by our answer.
    pub(crate) async fn admitted(&self, review: &Value) -> Value {
        admission::admitted(review, &self.review(review).await).unwrap()
    }
}

/// A client that trusts these CAs and finds the webhook at `address`.
pub(crate) fn client(address: SocketAddr, cas: &[&str]) -> reqwest::Client {
    admission::client(address, cas).unwrap()
}

pub(crate) fn fixture(name: &str) -> Value {
    let text = match name {
        "create" => include_str!("../fixtures/create.json"),
        "ephemeral" => include_str!("../fixtures/ephemeral.json"),
        other => panic!("no fixture {other}"),
    };
    serde_json::from_str(text).unwrap()
}
