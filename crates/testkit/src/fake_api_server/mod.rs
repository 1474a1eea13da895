//! A Kubernetes API server, as far as objects with versions go: get, list and watch, create, replace and
//! patch, over TLS with a bearer token, and every way in which a real one lets its clients down.

mod answer;
mod state;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tokio::sync::{Barrier, watch};

use crate::certs::{Ca, ServerCert};
use crate::server::Server;
use answer::answer;
use state::{Key, Shared, State};

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
    /// 504 for a watch, and the right answer to everything else: a proxy that lets no stream through.
    NoWatch,
}

/// One request that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRequest {
    /// Path and query.
    pub uri: String,
    /// Whether it asked for a watch.
    pub watch: bool,
}

/// A write that was asked for, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiWrite {
    /// `POST`, `PUT` or `PATCH`.
    pub method: Method,
    /// What was answered.
    pub status: StatusCode,
}

/// A running server. It ends when this is dropped.
pub struct FakeApiServer {
    server: Server,
    shared: Arc<Shared>,
    ca: Ca,
    token: String,
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
                Box::pin(async move { answer(&shared, request).await })
                    as crate::server::ResponseFuture
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

    /// The object at a path, such as `/api/v1/namespaces/NAMESPACE/secrets/NAME`.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(&key(path)).cloned()
    }

    /// Makes or changes the object at a path, whatever version it has.
    pub fn put(&self, path: &str, object: Value) {
        self.change(|state| {
            state.store(key(path), object);
        });
    }

    /// Deletes the object at a path.
    pub fn delete(&self, path: &str) {
        self.change(|state| state.remove(key(path)));
    }

    /// The annotations by which the node installer has marked tasks as failed, of the Lease at a path.
    ///
    /// # Panics
    /// When an annotation is no text.
    pub fn marks(&self, lease: &str) -> BTreeMap<String, String> {
        let lease = self.get(lease).unwrap_or_default();
        let annotations = lease["metadata"]["annotations"].as_object();
        let marks = annotations.into_iter().flatten();
        let marks = marks.filter(|(name, _)| name.starts_with("image-cri-shim/failed-"));
        let text = |(name, value): (&String, &Value)| match value.as_str() {
            Some(text) => (name.clone(), text.to_owned()),
            None => panic!("{name} is {value}"),
        };
        marks.map(text).collect()
    }

    /// Removes them, as a person would: `kubectl annotate lease … MARK-`.
    ///
    /// # Panics
    /// When there is no Lease.
    pub fn clear_marks(&self, lease: &str) {
        let Some(mut object) = self.get(lease) else {
            panic!("there is no {lease}");
        };
        object["metadata"]["annotations"] = Value::Null;
        self.put(lease, object);
    }

    /// Makes or changes the ConfigMap `kube-system/image-cri-shim` with this `registries.yaml`.
    pub fn apply_config_map(&self, text: &str) {
        self.apply_config_map_with_key("registries.yaml", text);
    }

    /// The same, with the text under another key.
    pub fn apply_config_map_with_key(&self, key: &str, text: &str) {
        self.put(
            CONFIG_MAP,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {key: text}}),
        );
    }

    /// Deletes it.
    pub fn delete_config_map(&self) {
        self.delete(CONFIG_MAP);
    }

    /// Makes or changes a Secret in `kube-system`.
    pub fn apply_secret(&self, name: &str, kind: &str, data: &[(&str, &str)]) {
        let data: BTreeMap<&str, String> = data
            .iter()
            .map(|(key, value)| (*key, STANDARD.encode(value)))
            .collect();
        self.put(
            &secret(name),
            json!({"apiVersion": "v1", "kind": "Secret", "type": kind, "data": data}),
        );
    }

    /// Deletes a Secret in `kube-system`.
    pub fn delete_secret(&self, name: &str) {
        self.delete(&secret(name));
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
        self.change(State::bookmark);
    }

    /// Lets the first `count` reads of the object at a path wait for each other, so that none of the
    /// readers knows of what another writes then.
    pub fn let_readers_meet(&self, path: &str, count: usize) {
        self.lock().meeting = Some((key(path), count, Arc::new(Barrier::new(count))));
    }

    /// Every write so far.
    pub fn writes(&self) -> Vec<ApiWrite> {
        self.lock().writes.clone()
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

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.shared.wake.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }
}

/// The ConfigMap that nodes follow.
const CONFIG_MAP: &str = "/api/v1/namespaces/kube-system/configmaps/image-cri-shim";

fn secret(name: &str) -> String {
    format!("/api/v1/namespaces/kube-system/secrets/{name}")
}

/// # Panics
/// When `path` is no object's.
fn key(path: &str) -> Key {
    match answer::key(path) {
        Some(key) if !key.2.is_empty() => key,
        _ => panic!("{path} is not where an object is"),
    }
}
