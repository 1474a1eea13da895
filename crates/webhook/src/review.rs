//! `AdmissionReview` of `admission.k8s.io/v1`: read, and answered.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use policy::pod::{Patch, Pod};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use thiserror::Error;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// Why a body is no question that can be answered at all: there is no `uid` to answer to.
#[derive(Debug, Error)]
pub enum ReviewError {
    /// It is not JSON, or a field has another type than in the API.
    #[error("the body is no AdmissionReview: {0}")]
    Json(#[from] serde_json::Error),
    /// Another kind or version.
    #[error("expected kind `{KIND}` of `{API_VERSION}`, got `{kind}` of `{version}`")]
    Kind {
        /// What stands in `kind`.
        kind: String,
        /// What stands in `apiVersion`.
        version: String,
    },
    /// `request` or its `uid` is missing.
    #[error("the AdmissionReview has no `request.uid`")]
    NoRequest,
    /// So many large reviews are being read that this one's turn doesn't come in time.
    #[error("too many large reviews at once")]
    Busy,
}

/// The request of a review, with its object as `T`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[serde(bound = "T: Deserialize<'de>")]
pub struct Request<T> {
    /// What the answer must repeat.
    pub uid: String,
    /// What the object is.
    pub kind: GroupKind,
    /// `ephemeralcontainers` where only these are changed.
    pub sub_resource: Option<String>,
    /// Name of the object; empty where the API server is to make one up (`generateName`).
    pub name: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: String,
    /// Whether nothing will come of it, whatever is answered.
    pub dry_run: Option<bool>,
    /// The object as it is to be.
    pub object: Option<T>,
    /// The object as it was, where it was.
    pub old_object: Option<T>,
}

impl<T> Request<T> {
    /// Whether its object is a Pod.
    pub(crate) fn is_for_pod(&self) -> bool {
        self.kind.group.is_empty() && self.kind.kind == "Pod"
    }
}

impl Request<Pod> {
    /// Bytes that it has in memory, about.
    pub(crate) fn size(&self) -> usize {
        let texts = [
            &self.uid,
            &self.operation,
            &self.kind.group,
            &self.kind.kind,
        ];
        let others = [&self.sub_resource, &self.name, &self.namespace];
        let texts = texts.into_iter().chain(others.into_iter().flatten());
        let pods = [&self.object, &self.old_object].into_iter().flatten();
        size_of::<Self>()
            + texts.map(String::len).sum::<usize>()
            + pods.map(Pod::size).sum::<usize>()
    }
}

// Derived, it would ask for `T: Default`.
impl<T> Default for Request<T> {
    fn default() -> Self {
        Self {
            uid: String::new(),
            kind: GroupKind::default(),
            sub_resource: None,
            name: None,
            namespace: None,
            operation: String::new(),
            dry_run: None,
            object: None,
            old_object: None,
        }
    }
}

/// What an object is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct GroupKind {
    /// API group; empty for the core.
    pub group: String,
    /// Kind.
    pub kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[serde(bound = "T: Deserialize<'de>")]
struct Review<T> {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    request: Option<Request<T>>,
}

impl<T> Review<T> {
    fn request(self) -> Result<Request<T>, ReviewError> {
        if self.kind != KIND || self.api_version != API_VERSION {
            return Err(ReviewError::Kind {
                kind: shortened(self.kind),
                version: shortened(self.api_version),
            });
        }
        self.request
            .filter(|request| !request.uid.is_empty())
            .ok_or(ReviewError::NoRequest)
    }
}

/// What a body holds.
#[derive(Debug)]
pub enum Question {
    /// Its objects are Pods, or there are none.
    Pods(Box<Request<Pod>>),
    /// They are something else, or no Pods as the API has them.
    Other(Request<IgnoredAny>),
}

impl Question {
    /// What the answer must repeat.
    pub fn uid(&self) -> &str {
        match self {
            Self::Pods(request) => &request.uid,
            Self::Other(request) => &request.uid,
        }
    }

    /// Whether nothing will come of it, whatever is answered.
    pub fn is_dry_run(&self) -> bool {
        let dry_run = match self {
            Self::Pods(request) => request.dry_run,
            Self::Other(request) => request.dry_run,
        };
        dry_run == Some(true)
    }
}

/// Reads a body.
///
/// # Errors
/// [`ReviewError`]: there is nothing that an answer could refer to.
pub fn read(body: &[u8]) -> Result<Question, ReviewError> {
    // Nearly every review is for a Pod, so a second reading is for the others alone.
    if let Ok(review) = serde_json::from_slice::<Review<Pod>>(body) {
        let request = review.request()?;
        if request.is_for_pod() {
            return Ok(Question::Pods(Box::new(request)));
        }
    }
    let review: Review<IgnoredAny> = serde_json::from_slice(body)?;
    review.request().map(Question::Other)
}

/// Enough of a text to recognise it by.
fn shortened(text: String) -> String {
    text.chars().take(64).collect()
}

/// The answer to a request. There is no way to deny one.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    /// A JSON patch, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    /// For the API server's audit log.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    audit_annotations: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'r> {
    api_version: &'static str,
    kind: &'static str,
    response: &'r Response,
}

impl Response {
    /// Allowed as it is.
    pub fn unchanged(uid: &str) -> Self {
        Self {
            uid: uid.to_owned(),
            allowed: true,
            patch_type: None,
            patch: None,
            audit_annotations: BTreeMap::new(),
        }
    }

    /// Allowed with `patch`; `None` where that is too large.
    ///
    /// # Errors
    /// The patch can't be written as JSON; no patch of ours is so.
    pub fn patched(uid: &str, patch: &Patch) -> Result<Option<Self>, serde_json::Error> {
        let note = |notes: &BTreeMap<String, String>| serde_json::to_string(notes);
        let Some(json) = patch.to_json()? else {
            return Ok(None);
        };
        Ok(Some(Self {
            patch_type: Some("JSONPatch"),
            patch: Some(STANDARD.encode(json)),
            audit_annotations: BTreeMap::from([
                ("original-images", note(&patch.originals)?),
                ("rules", note(&patch.rules)?),
            ]),
            ..Self::unchanged(uid)
        }))
    }

    /// The body that the API server gets.
    ///
    /// # Errors
    /// It can't be written as JSON; no response of ours is so.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Envelope {
            api_version: API_VERSION,
            kind: KIND,
            response: self,
        })
    }
}
