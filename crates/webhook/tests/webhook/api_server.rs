//! As much of an API server as a shared certificate needs: objects with versions, and conflicts.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cluster::{Link, Places};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Barrier;
use tokio::task::JoinHandle;

pub(crate) const SECRET: &str =
    "/api/v1/namespaces/image-cri-shim/secrets/image-cri-shim-webhook-tls";
pub(crate) const REGISTRATION: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/image-cri-shim";

/// A running server. It ends when this is dropped.
pub(crate) struct ApiServer {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
    dir: TempDir,
}

#[derive(Default)]
struct State {
    objects: Mutex<BTreeMap<String, Value>>,
    versions: Mutex<u64>,
    writes: Mutex<Vec<(Method, StatusCode)>>,
    /// Where the first reads of the Secret meet, so that nobody knows of the other.
    meeting: Mutex<Option<(usize, Arc<Barrier>)>>,
}

impl ApiServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let serving = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&serving);
                tokio::spawn(async move {
                    let service = service_fn(|request| answer(Arc::clone(&state), request));
                    let serving = http1::Builder::new();
                    let _ = serving
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        let server = Self {
            address,
            state,
            task,
            dir: tempfile::tempdir().unwrap(),
        };
        server.put(
            REGISTRATION,
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "MutatingWebhookConfiguration",
                "metadata": {"name": "image-cri-shim"},
                "webhooks": [
                    {"name": "other.example.com", "clientConfig": {"url": "https://other", "caBundle": "b3RoZXI="}},
                    {"name": "pods", "fromTheFuture": {"keep": "me"}, "clientConfig":
                        {"service": {"name": "image-cri-shim-webhook", "namespace": "image-cri-shim", "path": "/mutate"}}},
                ],
            }),
        );
        server
    }

    /// Where a kubeconfig for it is.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        let file = self.dir.path().join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "t",
            "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
            "clusters": [{"name": "t", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "t", "user": {}}],
        });
        std::fs::write(&file, config.to_string()).unwrap();
        file
    }

    /// A link of its own, as every replica has one.
    pub(crate) fn link(&self) -> Arc<Link> {
        Arc::new(Link::new(Places {
            service: None,
            service_account: PathBuf::from("/nonexistent"),
            kubeconfig: vec![self.kubeconfig()],
            files: Vec::new(),
        }))
    }

    /// Lets the first `count` reads of the Secret wait for each other.
    pub(crate) fn let_readers_meet(&self, count: usize) {
        *self.state.meeting.lock().unwrap() = Some((count, Arc::new(Barrier::new(count))));
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state.objects.lock().unwrap().get(path).cloned()
    }

    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state.store(path, object);
    }

    pub(crate) fn delete(&self, path: &str) {
        self.state.objects.lock().unwrap().remove(path);
    }

    /// Writes that were asked for, and what became of them.
    pub(crate) fn writes(&self) -> Vec<(Method, StatusCode)> {
        self.state.writes.lock().unwrap().clone()
    }

    /// What API servers are told to trust, in PEM.
    pub(crate) fn bundle(&self) -> Option<String> {
        let registration = self.get(REGISTRATION)?;
        let bundle = registration["webhooks"][1]["clientConfig"]["caBundle"].as_str()?;
        Some(String::from_utf8(STANDARD.decode(bundle).unwrap()).unwrap())
    }

    /// A value of the Secret.
    pub(crate) fn secret(&self, key: &str) -> Option<String> {
        let secret = self.get(SECRET)?;
        let value = secret["data"][key].as_str()?;
        Some(String::from_utf8(STANDARD.decode(value).unwrap()).unwrap())
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn store(&self, path: &str, mut object: Value) -> Value {
        let mut version = self.versions.lock().unwrap();
        *version += 1;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let mut objects = self.objects.lock().unwrap();
        objects.insert(path.to_owned(), object.clone());
        object
    }

    fn apply(&self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let parsed = || serde_json::from_slice::<Value>(body).unwrap();
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        let known = self.objects.lock().unwrap().get(path).cloned();
        match (method.as_str(), known) {
            ("GET", Some(object)) => (StatusCode::OK, object),
            ("POST", _) => {
                let object = parsed();
                let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
                if self.objects.lock().unwrap().contains_key(&path) {
                    return refused(StatusCode::CONFLICT);
                }
                (StatusCode::CREATED, self.store(&path, object))
            }
            ("PUT" | "PATCH", Some(known)) => {
                let new = if method == Method::PUT {
                    parsed()
                } else {
                    let mut new = known.clone();
                    let patch: json_patch::Patch = serde_json::from_slice(body).unwrap();
                    json_patch::patch(&mut new, &patch).unwrap();
                    new
                };
                if version(&new) != version(&known) {
                    return refused(StatusCode::CONFLICT);
                }
                (StatusCode::OK, self.store(path, new))
            }
            _ => refused(StatusCode::NOT_FOUND),
        }
    }
}

fn refused(status: StatusCode) -> (StatusCode, Value) {
    let reason = if status == StatusCode::NOT_FOUND {
        "NotFound"
    } else {
        "Conflict"
    };
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": reason, "reason": reason, "code": status.as_u16()});
    (status, body)
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let (status, answer) = state.apply(&method, &path, &body);
    if method == Method::GET && path == SECRET {
        let meeting = {
            let mut meeting = state.meeting.lock().unwrap();
            match &mut *meeting {
                Some((left, barrier)) if *left > 0 => {
                    *left -= 1;
                    Some(Arc::clone(barrier))
                }
                _ => None,
            }
        };
        if let Some(barrier) = meeting {
            barrier.wait().await;
        }
    }
    if method != Method::GET {
        state.writes.lock().unwrap().push((method, status));
    }
    let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, kind);
    Ok(response)
}
