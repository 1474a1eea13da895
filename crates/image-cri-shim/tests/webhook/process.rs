//! The webhook as a process, and what an API server and a kubelet ask of it.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use testkit::wait::until;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Name that the certificate is for.
pub(crate) const NAME: &str = "image-cri-shim-webhook.image-cri-shim.svc";

/// A running webhook. It is killed when this is dropped.
pub(crate) struct Webhook {
    child: Child,
    log: Arc<Mutex<String>>,
    reviews: SocketAddr,
    health: SocketAddr,
}

fn command(args: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_image-cri-shim"));
    command
        .arg("webhook")
        .args(["--listen=127.0.0.1:0", "--health-listen=127.0.0.1:0"])
        .args(args)
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

impl Webhook {
    /// Runs it to its end; its exit code and all its output.
    pub(crate) async fn run(args: &[String], env: &[(&str, &str)]) -> (ExitStatus, String) {
        let mut command = command(args);
        let output = command.envs(env.iter().copied()).output().await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8(text).unwrap())
    }

    /// Starts it; returns when it listens.
    pub(crate) async fn start(args: &[String], env: &[(&str, &str)]) -> Self {
        let mut child = command(args)
            .envs(env.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let (reviews, health) = until("it listens", || async {
            let log = log.lock().unwrap();
            let (_, rest) = log.split_once("answering reviews on ")?;
            let (reviews, rest) = rest.split_once(", health on ")?;
            let (health, _) = rest.split_once('\n')?;
            Some((reviews.parse().unwrap(), health.parse().unwrap()))
        })
        .await;
        Self {
            child,
            log,
            reviews,
            health,
        }
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) async fn until_logged(&self, text: &str) {
        until(text, || async { self.log().contains(text).then_some(()) }).await;
    }

    pub(crate) async fn until_ready(&self) {
        until("it is ready", || async {
            (self.readiness().await?.0 == 200).then_some(())
        })
        .await;
    }

    pub(crate) async fn readiness(&self) -> Option<(u16, String)> {
        self.health("/readyz").await
    }

    /// Status and text of a plain GET on the health listener.
    pub(crate) async fn health(&self, path: &str) -> Option<(u16, String)> {
        let client = client(self.reviews, &[]);
        let url = format!("http://{}{path}", self.health);
        let response = client.get(url).send().await.ok()?;
        Some((response.status().as_u16(), response.text().await.ok()?))
    }

    /// `response` for a Pod with one container, by a client that trusts `cas`.
    pub(crate) async fn admitted(&self, image: &str, cas: &[&str]) -> Option<Value> {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u", "operation": "CREATE", "namespace": "default",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "object": {"metadata": {}, "spec": {"containers": [{"name": "c", "image": image}]}},
            },
        });
        let url = format!("https://{NAME}/mutate?timeout=5s");
        let request = client(self.reviews, cas).post(url).body(review.to_string());
        let response = request.send().await.ok()?;
        assert_eq!(response.status(), 200);
        let answer: Value = serde_json::from_slice(&response.bytes().await.ok()?).unwrap();
        assert_eq!(answer["response"]["allowed"], true);
        Some(answer["response"].clone())
    }

    /// What it makes of one image; `None` when the Pod stays as it is, or there is no answer.
    pub(crate) async fn rewritten(&self, image: &str, cas: &[&str]) -> Option<String> {
        let response = self.admitted(image, cas).await?;
        let patch = STANDARD.decode(response.get("patch")?.as_str()?).unwrap();
        let patch: Value = serde_json::from_slice(&patch).unwrap();
        assert_eq!(patch[0]["path"], "/spec/containers/0/image");
        Some(patch[0]["value"].as_str()?.to_owned())
    }

    pub(crate) fn terminate(&self) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        self.child.wait().await.unwrap()
    }
}

fn client(address: SocketAddr, cas: &[&str]) -> reqwest::Client {
    let mut roots = RootCertStore::empty();
    for root in cas
        .iter()
        .flat_map(|ca| CertificateDer::pem_slice_iter(ca.as_bytes()))
    {
        roots.add(root.unwrap()).unwrap();
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
