//! Writes: create, replace and JSON patch, with the conflicts that versions are for.

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use super::ApiWrite;
use super::state::{Key, Shared, State, status};
use crate::server::{Body, full};

/// Answers a request that changes what is at `key`; for a new object, its collection.
pub(super) async fn write(shared: &Shared, key: Key, request: Request<Incoming>) -> Response<Body> {
    let method = request.method().clone();
    let Ok(body) = request.into_body().collect().await else {
        return status(400, "the body broke off");
    };
    let response = {
        let mut state = shared.lock();
        let response = match apply(&mut state, &method, key, &body.to_bytes()) {
            Ok((code, object)) => {
                let mut response = Response::new(full(object.to_string()));
                *response.status_mut() = code;
                response
            }
            Err((code, message)) => status(code, &message),
        };
        state.writes.push(ApiWrite {
            method,
            status: response.status(),
        });
        response
    };
    shared.wake.send_modify(|count| *count += 1);
    response
}

fn apply(
    state: &mut State,
    method: &Method,
    key: Key,
    body: &[u8],
) -> Result<(StatusCode, Value), (u16, String)> {
    let (resource, namespace, name) = key;
    let bad = |error: &dyn std::fmt::Display| (400, error.to_string());
    let parsed = || serde_json::from_slice::<Value>(body).map_err(|error| bad(&error));
    if *method == Method::POST {
        let object = parsed()?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let key = (resource, namespace, name.to_owned());
        if state.objects.contains_key(&key) {
            return Err((409, format!("{name} already exists")));
        }
        return Ok((StatusCode::CREATED, state.store(key, object)));
    }
    let key = (resource, namespace, name);
    let Some(known) = state.objects.get(&key) else {
        return Err((404, format!("{} not found", key.2)));
    };
    let new = match method.as_str() {
        "PUT" => parsed()?,
        "PATCH" => {
            let patch: json_patch::Patch =
                serde_json::from_slice(body).map_err(|error| bad(&error))?;
            let mut new = known.clone();
            json_patch::patch(&mut new, &patch).map_err(|error| bad(&error))?;
            new
        }
        _ => return Err((405, format!("{method} is not known here"))),
    };
    if new["metadata"]["resourceVersion"] != known["metadata"]["resourceVersion"] {
        return Err((409, "the object has been modified".to_owned()));
    }
    Ok((StatusCode::OK, state.store(key, new)))
}
