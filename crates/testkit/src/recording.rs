//! What a registry was asked: the basis of every "was (not) asked" and "was (not) sent" in a test.

use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, USER_AGENT};
use http::{Method, Request};

/// One request that a registry got.
#[derive(Clone)]
pub struct Recorded {
    /// The method.
    pub method: Method,
    /// The path with its query.
    pub path: String,
    /// The request's headers. The value of `authorization` is marked sensitive, so that a failing
    /// test does not print it.
    pub headers: HeaderMap,
    /// The status that was answered; `None` while (or because) there is no answer.
    pub status: Option<u16>,
}

impl Recorded {
    /// The `authorization` header as it came, if there was one.
    #[must_use]
    pub fn authorization(&self) -> Option<&str> {
        self.headers.get(AUTHORIZATION)?.to_str().ok()
    }

    /// Whether exactly these Basic credentials came.
    #[must_use]
    pub fn has_basic(&self, username: &str, password: &str) -> bool {
        let wanted = format!(
            "Basic {}",
            STANDARD.encode(format!("{username}:{password}"))
        );
        self.authorization() == Some(wanted.as_str())
    }

    /// The `user-agent` header; containerd's begins with `containerd/`.
    #[must_use]
    pub fn user_agent(&self) -> &str {
        let agent = self.headers.get(USER_AGENT);
        agent.and_then(|agent| agent.to_str().ok()).unwrap_or("")
    }

    /// Whether it came from containerd, and not from the program under test.
    #[must_use]
    pub fn is_from_containerd(&self) -> bool {
        self.user_agent().starts_with("containerd/")
    }

    /// Whether it asked for a manifest (by GET or HEAD).
    #[must_use]
    pub fn is_manifest(&self) -> bool {
        self.path.contains("/manifests/")
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        match self.status {
            Some(status) => write!(f, " → {status}")?,
            None => write!(f, " → (no answer)")?,
        }
        if let Some(authorization) = self.authorization() {
            let scheme = authorization.split(' ').next().unwrap_or("");
            write!(f, " authorization={scheme} ***")?;
        }
        write!(f, " user-agent={:?}", self.user_agent())
    }
}

/// The requests of one registry in the order in which they came. Clones are the same recording.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    requests: Arc<Mutex<Vec<Arc<Mutex<Recorded>>>>>,
}

/// A request that was recorded and not answered yet.
pub(crate) struct Pending(Arc<Mutex<Recorded>>);

impl Recording {
    /// All requests so far.
    #[must_use]
    pub fn all(&self) -> Vec<Recorded> {
        let requests = self.requests.lock();
        requests.iter().map(|one| one.lock().clone()).collect()
    }

    /// The requests for which `wanted` holds.
    #[must_use]
    pub fn matching(&self, wanted: impl Fn(&Recorded) -> bool) -> Vec<Recorded> {
        let mut all = self.all();
        all.retain(wanted);
        all
    }

    /// How many requests `wanted` holds for.
    #[must_use]
    pub fn count(&self, wanted: impl Fn(&Recorded) -> bool) -> usize {
        self.matching(wanted).len()
    }

    /// Whether there was no request at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.lock().is_empty()
    }

    /// Forgets all requests so far.
    pub fn clear(&self) {
        self.requests.lock().clear();
    }

    pub(crate) fn record<B>(&self, request: &Request<B>) -> Pending {
        let mut headers = request.headers().clone();
        if let Some(authorization) = headers.get_mut(AUTHORIZATION) {
            authorization.set_sensitive(true);
        }
        let path = request.uri().path_and_query();
        let recorded = Arc::new(Mutex::new(Recorded {
            method: request.method().clone(),
            path: path.map_or_else(|| "/".to_owned(), ToString::to_string),
            headers,
            status: None,
        }));
        self.requests.lock().push(Arc::clone(&recorded));
        Pending(recorded)
    }
}

impl Pending {
    pub(crate) fn answered(&self, status: http::StatusCode) {
        self.0.lock().status = Some(status.as_u16());
    }
}
