//! What the server answers: get, list and watch, as Kubernetes' API conventions have them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::state::{Key, Shared, status};
use super::write::write;
use super::{ApiFault, ApiRequest};
use crate::background;
use crate::server::{Body, BoxError, HangUp, full};

/// The object at a path, or, with an empty name, the collection.
pub(super) fn key(path: &str) -> Option<Key> {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let (namespace, rest) = match parts.as_slice() {
        ["api", "v1", "namespaces", namespace, rest @ ..]
        | ["apis", _, _, "namespaces", namespace, rest @ ..] => (*namespace, rest),
        ["api", "v1", rest @ ..] | ["apis", _, _, rest @ ..] => ("", rest),
        _ => return None,
    };
    let (resource, name) = match rest {
        [resource] => (*resource, ""),
        [resource, name] => (*resource, *name),
        // What is below an object, such as what a kubelet says by the proxy of its node.
        [resource, name, below @ ..] => {
            let resource = format!("{resource}/{}", below.join("/"));
            return Some((resource, namespace.to_owned(), (*name).to_owned()));
        }
        [] => return None,
    };
    Some((resource.to_owned(), namespace.to_owned(), name.to_owned()))
}

pub(super) async fn answer(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
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
    let (resource, namespace, name) = key(request.uri().path()).unwrap_or_default();
    let fault = {
        let mut state = shared.lock();
        state.requests.push(ApiRequest {
            uri: request.uri().to_string(),
            watch: wants_watch,
        });
        let own = state.faults.get(&resource).copied();
        own.or(state.fault)
    };
    match fault {
        Some(ApiFault::Silence) => std::future::pending().await,
        Some(ApiFault::HangUp) => return Err(HangUp),
        Some(ApiFault::Status(code)) => return Ok(status(code, "told to fail")),
        Some(ApiFault::NoWatch) if wants_watch => return Ok(status(504, "told to fail")),
        Some(ApiFault::Garbage) => return Ok(Response::new(full("<html>not JSON</html>"))),
        Some(ApiFault::NoWatch) | None => {}
    }
    let expected = format!("Bearer {}", shared.token);
    let sent = request.headers().get(http::header::AUTHORIZATION);
    if sent.and_then(|value| value.to_str().ok()) != Some(expected.as_str()) {
        return Ok(status(401, "Unauthorized"));
    }
    if resource.is_empty() {
        return Ok(status(
            404,
            "the server could not find the requested resource",
        ));
    }
    let key = (resource, namespace, name);
    if request.method() != Method::GET {
        return Ok(write(shared, key, request).await);
    }
    let (resource, namespace, name) = &key;
    if !name.is_empty() {
        return Ok(read(shared, &key).await);
    }
    let only = query
        .get("fieldSelector")
        .and_then(|selector| selector.strip_prefix("metadata.name="))
        .map(str::to_owned);
    let scope = Scope {
        resource: resource.clone(),
        namespace: namespace.clone(),
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

async fn read(shared: &Shared, key: &Key) -> Response<Body> {
    let (found, meeting) = {
        let mut state = shared.lock();
        let meeting = match &mut state.meeting {
            Some((object, left, barrier)) if object == key && *left > 0 => {
                *left -= 1;
                Some(Arc::clone(barrier))
            }
            _ => None,
        };
        (state.objects.get(key).cloned(), meeting)
    };
    if let Some(meeting) = meeting {
        meeting.wait().await;
    }
    let (resource, _, name) = key;
    match found {
        Some(object) => Response::new(full(object.to_string())),
        None => status(404, &format!("{resource} \"{name}\" not found")),
    }
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
    let (epoch, present) = {
        let state = shared.lock();
        let mut present = Vec::new();
        // A watch from version 0 begins with what there is.
        if from == 0 && !state.frozen {
            let objects = state.objects.iter().filter(|(key, _)| scope.holds(key));
            present.extend(objects.map(|(_, object)| json!({"type": "ADDED", "object": object})));
            from = state.version;
        }
        (state.epoch, present)
    };
    for event in present {
        sender.send_data(Bytes::from(format!("{event}\n"))).await?;
    }
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
