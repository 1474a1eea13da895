//! A Kubernetes API server, as far as ConfigMaps and Secrets go: get, list and watch over TLS with a
//! bearer token, and every way in which a real one lets its clients down.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::background;
use crate::certs::{Ca, ServerCert};
use crate::server::{Body, BoxError, HangUp, Server, full};

/// What the server does instead of answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiFault {
    /// This status, with a `Status` object as Kubernetes gives it.
    Status(u16),
    /// Nothing, ever.
    Silence,
    /// Closes the connection.
    HangUp,
    /// 200 with something that is no JSON.
    Garbage,
}

/// One request that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRequest {
    /// Path and query.
    pub uri: String,
    /// Whether it asked for a watch.
    pub watch: bool,
}

/// A running server. It ends when this is dropped.
pub struct FakeApiServer {
    server: Server,
    shared: Arc<Shared>,
    ca: Ca,
    token: String,
}

struct Shared {
    state: Mutex<State>,
    /// Counts changes of anything that a watch must hear of.
    wake: watch::Sender<u64>,
    token: String,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    log: Vec<Entry>,
    version: u64,
    /// Watches from before this version get 410.
    compacted: u64,
    /// Watches that began in an older epoch end.
    epoch: u64,
    /// Watches say nothing more, and don't end.
    frozen: bool,
    fault: Option<ApiFault>,
    /// Faults of one resource (`secrets`) alone.
    faults: BTreeMap<String, ApiFault>,
    requests: Vec<ApiRequest>,
}

/// Resource, namespace, name.
type Key = (String, String, String);

#[derive(Clone)]
struct Entry {
    version: u64,
    kind: &'static str,
    key: Option<Key>,
    object: Value,
}

impl FakeApiServer {
    /// Starts an empty server that accepts one token, made up here.
    pub fn start() -> Result<Self> {
        let ca = Ca::new()?;
        let cert = ca.issue(&["localhost", "127.0.0.1"])?;
        Self::with_cert(ca, &cert)
    }

    /// Starts a server whose certificate is for another host.
    pub fn start_as_wrong_host() -> Result<Self> {
        let ca = Ca::new()?;
        let cert = ca.issue(&["elsewhere.example"])?;
        Self::with_cert(ca, &cert)
    }

    fn with_cert(ca: Ca, cert: &ServerCert) -> Result<Self> {
        let token = "token-of-a-service-account".to_owned();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: watch::channel(0).0,
            token: token.clone(),
        });
        let handler = {
            let shared = Arc::clone(&shared);
            Arc::new(move |request: Request<Incoming>| {
                let shared = Arc::clone(&shared);
                Box::pin(async move { answer(&shared, &request).await }) as crate::server::Answer
            })
        };
        Ok(Self {
            server: Server::start(handler, Some(cert))?,
            shared,
            ca,
            token,
        })
    }

    /// A kubeconfig for it.
    pub fn kubeconfig(&self) -> String {
        self.kubeconfig_with_token(&self.token)
    }

    /// A kubeconfig with a token of the caller's choice.
    pub fn kubeconfig_with_token(&self, token: &str) -> String {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://{}", self.server.address()),
                "certificate-authority-data": STANDARD.encode(self.ca.pem()),
            }}],
            "users": [{"name": "test", "user": {"token": token}}],
        })
        .to_string()
    }

    /// `host:port` where it listens.
    pub fn address(&self) -> String {
        self.server.address().to_string()
    }

    /// The certificate authority of its certificate, in PEM.
    pub fn ca_pem(&self) -> String {
        self.ca.pem()
    }

    /// The token that it accepts.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Makes or changes the ConfigMap `kube-system/image-cri-shim` with this `registries.yaml`.
    pub fn apply_config_map(&self, text: &str) {
        self.apply(
            "configmaps",
            "image-cri-shim",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"registries.yaml": text}}),
        );
    }

    /// Deletes it.
    pub fn delete_config_map(&self) {
        self.delete("configmaps", "image-cri-shim");
    }

    /// Makes or changes a Secret in `kube-system`.
    pub fn apply_secret(&self, name: &str, kind: &str, data: &[(&str, &str)]) {
        let data: BTreeMap<&str, String> = data
            .iter()
            .map(|(key, value)| (*key, STANDARD.encode(value)))
            .collect();
        self.apply(
            "secrets",
            name,
            json!({"apiVersion": "v1", "kind": "Secret", "type": kind, "data": data}),
        );
    }

    /// Deletes a Secret in `kube-system`.
    pub fn delete_secret(&self, name: &str) {
        self.delete("secrets", name);
    }

    /// What it does instead of answering, from now on; watches that run go on.
    pub fn set_fault(&self, fault: Option<ApiFault>) {
        self.lock().fault = fault;
    }

    /// The same for one resource, such as `secrets`.
    pub fn set_fault_of(&self, resource: &str, fault: Option<ApiFault>) {
        let faults = &mut self.lock().faults;
        match fault {
            Some(fault) => faults.insert(resource.to_owned(), fault),
            None => faults.remove(resource),
        };
    }

    /// Ends every watch by closing its connection.
    pub fn disconnect_watches(&self) {
        self.change(|state| state.epoch += 1);
    }

    /// Watches stay open and say nothing more, as behind a firewall that has forgotten them.
    pub fn freeze_watches(&self) {
        self.change(|state| state.frozen = true);
    }

    /// Forgets the past: watches get 410 Gone, those that run and those from older versions.
    pub fn compact(&self) {
        self.change(|state| {
            state.version += 1;
            state.compacted = state.version;
            state.log.clear();
        });
    }

    /// Sends every watch a bookmark.
    pub fn bookmark(&self) {
        self.change(|state| {
            state.version += 1;
            let version = state.version;
            state.log.push(Entry {
                version,
                kind: "BOOKMARK",
                key: None,
                object: json!({"apiVersion": "v1", "metadata": {"resourceVersion": version.to_string()}}),
            });
        });
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<ApiRequest> {
        self.lock().requests.clone()
    }

    /// Stops listening and closes every connection.
    pub async fn stop(&mut self) {
        self.server.stop().await;
    }

    /// Listens again at the same address.
    pub fn restart(&mut self) -> Result<()> {
        self.server.listen()
    }

    fn apply(&self, resource: &str, name: &str, mut object: Value) {
        let key = (
            resource.to_owned(),
            "kube-system".to_owned(),
            name.to_owned(),
        );
        self.change(|state| {
            state.version += 1;
            object["metadata"] = json!({
                "name": name,
                "namespace": "kube-system",
                "uid": format!("uid-{name}"),
                "resourceVersion": state.version.to_string(),
            });
            let kind = match state.objects.insert(key.clone(), object.clone()) {
                None => "ADDED",
                Some(_) => "MODIFIED",
            };
            state.log.push(Entry {
                version: state.version,
                kind,
                key: Some(key),
                object,
            });
        });
    }

    fn delete(&self, resource: &str, name: &str) {
        let key = (
            resource.to_owned(),
            "kube-system".to_owned(),
            name.to_owned(),
        );
        self.change(|state| {
            let Some(mut object) = state.objects.remove(&key) else {
                return;
            };
            state.version += 1;
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            state.log.push(Entry {
                version: state.version,
                kind: "DELETED",
                key: Some(key),
                object,
            });
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.shared.wake.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.lock()
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(
    shared: &Arc<Shared>,
    request: &Request<Incoming>,
) -> Result<Response<Body>, HangUp> {
    let query: BTreeMap<String, String> = request
        .uri()
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| {
            let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
            (name.to_owned(), value.into_owned())
        })
        .collect();
    let wants_watch = query.get("watch").is_some_and(|watch| watch != "false");
    let parts: Vec<&str> = request.uri().path().split('/').skip(1).collect();
    let (resource, namespace, name) = match parts.as_slice() {
        ["api", "v1", "namespaces", namespace, resource] => (*resource, *namespace, None),
        ["api", "v1", "namespaces", namespace, resource, name] => {
            (*resource, *namespace, Some(*name))
        }
        _ => ("", "", None),
    };
    let fault = {
        let mut state = shared.lock();
        state.requests.push(ApiRequest {
            uri: request.uri().to_string(),
            watch: wants_watch,
        });
        let own = state.faults.get(resource).copied();
        own.or(state.fault)
    };
    match fault {
        Some(ApiFault::Silence) => std::future::pending().await,
        Some(ApiFault::HangUp) => return Err(HangUp),
        Some(ApiFault::Status(code)) => return Ok(status(code, "told to fail")),
        Some(ApiFault::Garbage) => return Ok(Response::new(full("<html>not JSON</html>"))),
        None => {}
    }
    let expected = format!("Bearer {}", shared.token);
    let sent = request.headers().get(http::header::AUTHORIZATION);
    if sent.and_then(|value| value.to_str().ok()) != Some(expected.as_str()) {
        return Ok(status(401, "Unauthorized"));
    }
    if let Some(name) = name {
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        return Ok(match shared.lock().objects.get(&key) {
            Some(object) => Response::new(full(object.to_string())),
            None => status(404, &format!("{resource} \"{name}\" not found")),
        });
    }
    if resource.is_empty() {
        return Ok(status(
            404,
            "the server could not find the requested resource",
        ));
    }
    let only = query
        .get("fieldSelector")
        .and_then(|selector| selector.strip_prefix("metadata.name="))
        .map(str::to_owned);
    let scope = Scope {
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        name: only,
    };
    if wants_watch {
        let from = query.get("resourceVersion").and_then(|v| v.parse().ok());
        return Ok(start_watch(shared, scope, from.unwrap_or(0)));
    }
    let state = shared.lock();
    let items: Vec<&Value> = state
        .objects
        .iter()
        .filter(|(key, _)| scope.holds(key))
        .map(|(_, object)| object)
        .collect();
    let list = json!({
        "apiVersion": "v1",
        "kind": "List",
        "metadata": {"resourceVersion": state.version.to_string()},
        "items": items,
    });
    Ok(Response::new(full(list.to_string())))
}

/// What a list or watch is about.
struct Scope {
    resource: String,
    namespace: String,
    name: Option<String>,
}

impl Scope {
    fn holds(&self, (resource, namespace, name): &Key) -> bool {
        *resource == self.resource
            && *namespace == self.namespace
            && self.name.as_ref().is_none_or(|only| only == name)
    }
}

fn start_watch(shared: &Arc<Shared>, scope: Scope, from: u64) -> Response<Body> {
    let (sender, body) = Channel::<Bytes, BoxError>::new(16);
    let shared = Arc::clone(shared);
    background::handle().spawn(async move {
        // An error is a client that went away.
        let _ = watch_events(&shared, sender, &scope, from).await;
    });
    Response::new(body.boxed_unsync())
}

async fn watch_events(
    shared: &Shared,
    mut sender: Sender<Bytes, BoxError>,
    scope: &Scope,
    mut from: u64,
) -> Result<(), http_body_util::channel::SendError> {
    let mut wake = shared.wake.subscribe();
    let epoch = shared.lock().epoch;
    loop {
        wake.borrow_and_update();
        let (events, ended) = {
            let state = shared.lock();
            if state.epoch != epoch {
                (Vec::new(), true)
            } else if state.frozen {
                (Vec::new(), false)
            } else if from < state.compacted {
                let gone = json!({"type": "ERROR", "object": {
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": "too old resource version", "reason": "Expired", "code": 410,
                }});
                (vec![gone], true)
            } else {
                let new = state.log.iter().filter(|entry| entry.version > from);
                let events: Vec<Value> = new
                    .clone()
                    .filter(|entry| entry.key.as_ref().is_none_or(|key| scope.holds(key)))
                    .map(|entry| {
                        let mut object = entry.object.clone();
                        if entry.key.is_none() {
                            object["kind"] = json!(match scope.resource.as_str() {
                                "secrets" => "Secret",
                                _ => "ConfigMap",
                            });
                        }
                        json!({"type": entry.kind, "object": object})
                    })
                    .collect();
                from = new.map(|entry| entry.version).next_back().unwrap_or(from);
                (events, false)
            }
        };
        for event in events {
            sender.send_data(Bytes::from(format!("{event}\n"))).await?;
        }
        if ended || wake.changed().await.is_err() {
            return Ok(());
        }
    }
}

fn status(code: u16, message: &str) -> Response<Body> {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    let mut response = Response::new(full(body.to_string()));
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}
