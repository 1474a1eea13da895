//! A token service, as registries with `WWW-Authenticate: Bearer` send their clients to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::behaviour::{Behaviour, error, misbehave};
use crate::recording::Recording;
use crate::server::{Body, HangUp, Server, full};

/// How a token service is to be.
#[derive(Clone, Debug)]
pub struct TokenOptions {
    /// User name and password without which a token opens nothing. Anonymous clients get a token,
    /// as from Docker Hub, but it gives no access; wrong credentials get a 401. Absent: every token
    /// opens everything that it was asked for.
    pub credentials: Option<(String, String)>,
    /// The field that holds the token: `token` (default), or `access_token` as in OAuth 2.
    pub field: &'static str,
    /// `expires_in` in seconds; left out when absent, which means 60 (distribution's token
    /// specification). This service itself forgets tokens only by [`TokenService::revoke`].
    pub expires_in: Option<i64>,
}

impl Default for TokenOptions {
    fn default() -> Self {
        Self {
            credentials: None,
            field: "token",
            expires_in: Some(300),
        }
    }
}

/// A running token service; only GET, as most have it. Clones are the same; it ends with the last.
#[derive(Clone)]
pub struct TokenService {
    server: Arc<tokio::sync::Mutex<Server>>,
    realm: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    recording: Recording,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    options: TokenOptions,
    behaviour: Behaviour,
    issued: usize,
    /// The tokens that are good, with the scopes that each opens.
    tokens: HashMap<String, Vec<String>>,
}

const SERVICE: &str = "fake-registry";

impl TokenService {
    /// Starts one on a free port of 127.0.0.1.
    pub fn start(options: TokenOptions) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        lock(&shared.state).options = options;
        let handler = Arc::clone(&shared);
        let server = Server::start(
            Arc::new(move |request| {
                let shared = Arc::clone(&handler);
                Box::pin(async move { shared.answer(request).await })
            }),
            None,
        )?;
        Ok(Self {
            realm: format!("http://{}/token", server.address()),
            server: Arc::new(tokio::sync::Mutex::new(server)),
            shared,
        })
    }

    /// The URL that clients are sent to.
    #[must_use]
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// What it does with requests from now on; [`Behaviour::CaptivePortal`] is garbage,
    /// [`Behaviour::BlackHole`] a slow one.
    pub fn behave(&self, behaviour: Behaviour) {
        lock(&self.shared.state).behaviour = behaviour;
    }

    /// Refuses connections from now on.
    pub async fn stop(&self) {
        self.server.lock().await.stop().await;
    }

    /// Listens again after [`TokenService::stop`], on the same port.
    pub async fn start_again(&self) -> Result<()> {
        self.server.lock().await.listen()
    }

    /// Forgets all tokens, as if they had expired.
    pub fn revoke(&self) {
        lock(&self.shared.state).tokens.clear();
    }

    /// What it was asked.
    #[must_use]
    pub fn recording(&self) -> &Recording {
        &self.shared.recording
    }

    /// The challenge for a request with this token, or `None` when the token opens the scope.
    pub(super) fn challenge(&self, token: Option<&str>, scope: Option<&str>) -> Option<String> {
        let mut challenge = format!(r#"Bearer realm="{}",service="{SERVICE}""#, self.realm);
        if let Some(scope) = scope {
            challenge.push_str(&format!(r#",scope="{scope}""#));
        }
        let Some(token) = token else {
            return Some(challenge);
        };
        let state = lock(&self.shared.state);
        match (state.tokens.get(token), scope) {
            (None, _) => Some(challenge + r#",error="invalid_token""#),
            (Some(_), None) => None,
            (Some(opens), Some(scope)) if opens.iter().any(|one| one == scope) => None,
            (Some(_), Some(_)) => Some(challenge + r#",error="insufficient_scope""#),
        }
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, HangUp> {
        let pending = self.recording.record(&request);
        let behaviour = lock(&self.state).behaviour.clone();
        let response = match misbehave(&behaviour, &request).await? {
            Some(instead) => instead,
            None => lock(&self.state).issue(&request),
        };
        pending.answered(response.status());
        Ok(response)
    }
}

impl State {
    fn issue<B>(&mut self, request: &Request<B>) -> Response<Body> {
        if *request.method() != Method::GET {
            // Clients that try OAuth 2's POST first (containerd does) go on with GET then.
            return error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED");
        }
        let authorization = request.headers().get(AUTHORIZATION);
        let authorization = authorization.and_then(|value| value.to_str().ok());
        let opens = match (&self.options.credentials, authorization) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((username, password)), Some(sent)) => {
                if sent != basic(username, password) {
                    return error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
                }
                true
            }
        };
        // Several scopes come as several parameters, or in one with spaces between them.
        let query = request.uri().query().unwrap_or("");
        let scopes: Vec<String> = reqwest::Url::parse(&format!("http://localhost/?{query}"))
            .map(|url| {
                url.query_pairs()
                    .filter(|(name, _)| name == "scope")
                    .flat_map(|(_, value)| value.split(' ').map(str::to_owned).collect::<Vec<_>>())
                    .collect()
            })
            .unwrap_or_default();
        self.issued += 1;
        let token = format!("fake-token-{}", self.issued);
        let mut body = json!({ self.options.field: token });
        if let Some(expires_in) = self.options.expires_in {
            body["expires_in"] = expires_in.into();
        }
        self.tokens
            .insert(token, if opens { scopes } else { Vec::new() });
        let mut response = Response::new(full(body.to_string()));
        let media_type = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, media_type);
        response
    }
}

/// The value of an `Authorization` header with Basic credentials.
pub(super) fn basic(username: &str, password: &str) -> String {
    format!(
        "Basic {}",
        STANDARD.encode(format!("{username}:{password}"))
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
