//! The MutatingWebhookConfiguration: what the API server is told to trust.
//!
//! It is read and patched as plain JSON, so that fields of a newer API server stay as they are.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::time::SystemTime;

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use serde_json::{Value, json};

use super::{SelfSignedError, api, status};

/// More than any object that an API server keeps.
const MAX_ANSWER: usize = 8 << 20;
const PATH: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

/// One MutatingWebhookConfiguration, as far as our Service is concerned.
#[derive(Clone)]
pub(super) struct Registration {
    pub(super) client: Client,
    pub(super) name: String,
    pub(super) service: String,
    pub(super) namespace: String,
}

/// What was read.
pub(super) struct Registered {
    version: String,
    /// Number and `caBundle` of each entry that is for our Service.
    entries: Vec<(usize, Option<String>)>,
    /// What time it is to the API server; to the second.
    pub(super) date: Option<SystemTime>,
}

impl Registered {
    /// What the API server is told to trust, in PEM; `None` where its entries differ, or there is none.
    pub(super) fn bundle(&self) -> Option<String> {
        let (_, first) = self.entries.first()?;
        let same = self.entries.iter().all(|(_, bundle)| bundle == first);
        first.clone().filter(|_| same)
    }
}

impl Registration {
    /// Reads it; where there is none, what is read has no entries.
    pub(super) async fn read(&self) -> Result<Registered, SelfSignedError> {
        let what = || format!("read the MutatingWebhookConfiguration {}", self.name);
        let request = self.request(Method::GET, None, Vec::new())?;
        let (object, date) = self.get(request).await.map_err(api(what()))?;
        let entries = object["webhooks"].as_array().map_or(&[][..], Vec::as_slice);
        let ours = |entry: &Value| {
            let service = &entry["clientConfig"]["service"];
            service["name"] == self.service && service["namespace"] == self.namespace
        };
        Ok(Registered {
            date,
            version: object["metadata"]["resourceVersion"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            entries: entries
                .iter()
                .enumerate()
                .filter(|(_, entry)| ours(entry))
                .map(|(at, entry)| (at, bundle(&entry["clientConfig"]["caBundle"])))
                .collect(),
        })
    }

    /// The object, or null where there is none, and the date of the answer.
    async fn get(
        &self,
        request: Request<Vec<u8>>,
    ) -> Result<(Value, Option<SystemTime>), kube::Error> {
        let response = self.client.send(request.map(Body::from)).await?;
        let (head, body) = response.into_parts();
        let date = head.headers.get(header::DATE);
        let date = date.and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        if head.status == StatusCode::NOT_FOUND {
            return Ok((Value::Null, date));
        }
        let bytes = Limited::new(body, MAX_ANSWER).collect().await;
        let bytes = bytes.map_err(kube::Error::Service)?.to_bytes();
        if !head.status.is_success() {
            let refused: Status = serde_json::from_slice(&bytes).unwrap_or_default();
            let code = head.status.as_u16();
            return Err(kube::Error::Api(Box::new(Status { code, ..refused })));
        }
        let object = serde_json::from_slice(&bytes).map_err(kube::Error::SerdeError)?;
        Ok((object, date))
    }

    /// Tells the API server to trust `bundle`, unless it does already.
    ///
    /// # Errors
    /// [`SelfSignedError::Conflict`] when it has changed since it was read.
    pub(super) async fn publish(
        &self,
        registered: &Registered,
        bundle: &str,
    ) -> Result<(), SelfSignedError> {
        if registered.entries.is_empty() {
            return Err(SelfSignedError::NotRegistered(self.name.clone()));
        }
        if registered.bundle().as_deref() == Some(bundle) {
            return Ok(());
        }
        // Naming the version makes the API server refuse the patch when the object has changed.
        let mut patch = vec![json!({
            "op": "replace", "path": "/metadata/resourceVersion", "value": registered.version,
        })];
        patch.extend(registered.entries.iter().map(|(at, _)| {
            json!({
                "op": "add",
                "path": format!("/webhooks/{at}/clientConfig/caBundle"),
                "value": STANDARD.encode(bundle),
            })
        }));
        let what = || format!("patch the MutatingWebhookConfiguration {}", self.name);
        let body = Value::Array(patch).to_string().into_bytes();
        let kind = "application/json-patch+json";
        let request = self.request(Method::PATCH, Some(kind), body)?;
        match self.client.request::<Value>(request).await {
            Ok(_) => {
                tracing::info!("told the API server to trust our CA ({})", self.name);
                Ok(())
            }
            Err(error) if status(&error) == Some(409) => Err(SelfSignedError::Conflict),
            Err(error) => Err(api(what())(error)),
        }
    }

    fn request(
        &self,
        method: Method,
        kind: Option<&str>,
        body: Vec<u8>,
    ) -> Result<Request<Vec<u8>>, SelfSignedError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{PATH}/{}", self.name));
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let what = format!("ask for the MutatingWebhookConfiguration {}", self.name);
        request
            .body(body)
            .map_err(|error| api(what)(kube::Error::HttpError(error)))
    }
}

fn bundle(written: &Value) -> Option<String> {
    let decoded = STANDARD.decode(written.as_str()?).ok()?;
    String::from_utf8(decoded).ok()
}
