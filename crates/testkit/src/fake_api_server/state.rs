//! What the server holds, and the form of its refusals.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Response, StatusCode};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tokio::sync::{Barrier, watch};

use super::{ApiFault, ApiRequest, ApiWrite};
use crate::server::{Body, full};

pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// Counts changes of anything that a watch must hear of.
    pub(super) wake: watch::Sender<u64>,
    pub(super) token: String,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) objects: BTreeMap<Key, Value>,
    pub(super) log: Vec<Entry>,
    pub(super) version: u64,
    /// Watches from before this version get 410.
    pub(super) compacted: u64,
    /// Watches that began in an older epoch end.
    pub(super) epoch: u64,
    /// Watches say nothing more, and don't end.
    pub(super) frozen: bool,
    pub(super) fault: Option<ApiFault>,
    /// Faults of one resource (`secrets`) alone.
    pub(super) faults: BTreeMap<String, ApiFault>,
    pub(super) requests: Vec<ApiRequest>,
    pub(super) writes: Vec<ApiWrite>,
    /// How many readers of which object wait for each other yet, and where.
    pub(super) meeting: Option<(Key, usize, Arc<Barrier>)>,
}

/// Resource, namespace (empty for what is in none), name.
pub(super) type Key = (String, String, String);

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) version: u64,
    pub(super) kind: &'static str,
    pub(super) key: Option<Key>,
    pub(super) object: Value,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    /// Makes or changes an object, as the next version; gives it as it is kept.
    pub(super) fn store(&mut self, key: Key, mut object: Value) -> Value {
        self.version += 1;
        let (_, namespace, name) = &key;
        let metadata = &mut object["metadata"];
        metadata["name"] = json!(name);
        if !namespace.is_empty() {
            metadata["namespace"] = json!(namespace);
        }
        metadata["uid"] = json!(format!("uid-{name}"));
        metadata["resourceVersion"] = json!(self.version.to_string());
        let kind = match self.objects.insert(key.clone(), object.clone()) {
            None => "ADDED",
            Some(_) => "MODIFIED",
        };
        self.note(kind, Some(key), object.clone());
        object
    }

    /// Deletes an object; nothing to do where there is none.
    pub(super) fn remove(&mut self, key: Key) {
        let Some(mut object) = self.objects.remove(&key) else {
            return;
        };
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.note("DELETED", Some(key), object);
    }

    /// Sends every watch a bookmark.
    pub(super) fn bookmark(&mut self) {
        self.version += 1;
        let version = self.version.to_string();
        let object = json!({"apiVersion": "v1", "metadata": {"resourceVersion": version}});
        self.note("BOOKMARK", None, object);
    }

    fn note(&mut self, kind: &'static str, key: Option<Key>, object: Value) {
        self.log.push(Entry {
            version: self.version,
            kind,
            key,
            object,
        });
    }
}

pub(super) fn status(code: u16, message: &str) -> Response<Body> {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
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
