//! A token service, as registries with `WWW-Authenticate: Bearer` send their clients to.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
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
    /// A refresh token that opens everything, when it is posted as OAuth 2 has it. Absent: POST is
    /// refused, as most services do.
    pub identity_token: Option<String>,
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
            identity_token: None,
            field: "token",
            expires_in: Some(300),
        }
    }
}

/// A running token service. Clients that try OAuth 2's POST first (containerd does) go on with GET where
/// it is refused. Clones are the same; it ends with the last.
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
        shared.state.lock().options = options;
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
        self.shared.state.lock().behaviour = behaviour;
    }

    /// Refuses connections from now on.
    pub async fn stop(&self) {
        self.server.lock().await.stop().await;
    }

    /// Listens again after [`TokenService::stop`], on the same port.
    pub async fn start_again(&self) -> Result<()> {
        self.server.lock().await.listen()
    }

    /// A token that opens a scope, without being asked for it over HTTP.
    #[must_use]
    pub fn issue_token(&self, scope: &str) -> String {
        let mut state = self.shared.state.lock();
        state.issued += 1;
        let token = format!("fake-token-{}", state.issued);
        let opens = vec![scope.to_owned()];
        state.tokens.insert(token.clone(), opens);
        token
    }

    /// Forgets all tokens, as if they had expired.
    pub fn revoke(&self) {
        self.shared.state.lock().tokens.clear();
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
        let state = self.shared.state.lock();
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
        let behaviour = self.state.lock().behaviour.clone();
        let response = match misbehave(&behaviour, &request).await? {
            Some(instead) => instead,
            None if *request.method() == Method::POST => {
                let body = request.into_body().collect().await.map_err(|_| HangUp)?;
                self.state.lock().exchange(&body.to_bytes())
            }
            None => self.state.lock().issue(&request),
        };
        pending.answered(response.status());
        Ok(response)
    }
}

impl State {
    fn issue<B>(&mut self, request: &Request<B>) -> Response<Body> {
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
        let scopes = values(request.uri().query().unwrap_or(""), "scope");
        self.give(if opens { scopes } else { Vec::new() })
    }

    /// OAuth 2: a refresh token in exchange for an access token (RFC 6749, section 6).
    fn exchange(&mut self, form: &[u8]) -> Response<Body> {
        let Some(wanted) = self.options.identity_token.clone() else {
            return error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED");
        };
        let form = String::from_utf8_lossy(form);
        let is = |name: &str, wanted: &str| values(&form, name) == [wanted];
        if !is("grant_type", "refresh_token") || !is("service", SERVICE) {
            return error(StatusCode::BAD_REQUEST, "invalid_request");
        }
        if !is("refresh_token", &wanted) {
            return error(StatusCode::BAD_REQUEST, "invalid_grant");
        }
        self.give(values(&form, "scope"))
    }

    fn give(&mut self, scopes: Vec<String>) -> Response<Body> {
        self.issued += 1;
        let token = format!("fake-token-{}", self.issued);
        let mut body = json!({ self.options.field: token });
        if let Some(expires_in) = self.options.expires_in {
            body["expires_in"] = expires_in.into();
        }
        self.tokens.insert(token, scopes);
        let mut response = Response::new(full(body.to_string()));
        let media_type = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, media_type);
        response
    }
}

/// The values of one parameter, parted at spaces.
fn values(query: &str, wanted: &str) -> Vec<String> {
    let Ok(url) = reqwest::Url::parse(&format!("http://localhost/?{query}")) else {
        return Vec::new();
    };
    url.query_pairs()
        .filter(|(name, _)| name == wanted)
        .flat_map(|(_, value)| value.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// The value of an `Authorization` header with Basic credentials.
pub(super) fn basic(username: &str, password: &str) -> String {
    format!(
        "Basic {}",
        STANDARD.encode(format!("{username}:{password}"))
    )
}
