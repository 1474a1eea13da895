//! Bearer tokens: what to ask a token service for, what its answer means, and which tokens are
//! still good (distribution spec, "token authentication").

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use moka::Expiry;
use moka::future::Cache;
use policy::{Credentials, Proof};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use crate::outcome::ExchangeError;
use crate::registry::Site;

/// Tokens that are kept. One per repository and registry; a node pulls from far fewer.
const MAX_TOKENS: u64 = 1024;
/// Longest answer of a token service that is read. Real ones have 1 to 5 KiB.
pub(crate) const MAX_TOKEN_ANSWER: usize = 64 * 1024;
/// Life of a token that comes without `expires_in` (token specification).
const DEFAULT_TOKEN_TTL: Duration = Duration::from_secs(60);
/// What token services know us as.
const CLIENT_ID: &str = "image-cri-shim";
/// No token is trusted for longer, whatever the service says.
const MAX_TOKEN_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// What a token is good for. The registry is part of it, so that a registry that names another
/// one's token service is never handed the other's token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenKey {
    pub(crate) registry: Site,
    pub(crate) realm: Url,
    pub(crate) service: Option<String>,
    pub(crate) scope: String,
    /// None: an anonymous token.
    pub(crate) credentials: Option<Credentials>,
}

/// A token and when it came.
pub(crate) struct Token {
    secret: SecretString,
    life: Duration,
    /// A token that is older than the probe may have been revoked meanwhile; a younger one is
    /// refused for good.
    pub(crate) obtained_at: Instant,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}

/// Why an answer of a token service holds no token. Never repeats any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// Not the JSON object of the specification.
    #[error("its answer is not the JSON that a token service gives")]
    Json,
    /// Neither `token` nor `access_token`.
    #[error("its answer holds no token")]
    Missing,
    /// A token with characters that no header can carry.
    #[error("its token can't be put in a header")]
    Unusable,
}

#[derive(Deserialize)]
struct TokenResponse {
    token: Option<String>,
    access_token: Option<String>,
    /// Some services send a float or a string.
    expires_in: Option<serde_json::Value>,
}

impl Token {
    /// Reads a token service's answer. `issued_at` is ignored: it is another machine's clock.
    ///
    /// # Errors
    /// [`TokenError`] where it holds no usable token.
    pub(crate) fn parse(body: &[u8], now: Instant) -> Result<Self, TokenError> {
        let answer: TokenResponse = serde_json::from_slice(body).map_err(|_| TokenError::Json)?;
        let secret = [answer.token, answer.access_token]
            .into_iter()
            .flatten()
            .find(|token| !token.is_empty())
            .ok_or(TokenError::Missing)?;
        if !secret.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(TokenError::Unusable);
        }
        let life = answer
            .expires_in
            .as_ref()
            .and_then(|value| match value {
                serde_json::Value::String(text) => text.parse().ok(),
                other => other.as_f64(),
            })
            .filter(|seconds: &f64| *seconds > 0.0)
            .map_or(DEFAULT_TOKEN_TTL, |seconds| {
                Duration::try_from_secs_f64(seconds).unwrap_or(MAX_TOKEN_TTL)
            })
            .min(MAX_TOKEN_TTL);
        Ok(Self {
            secret: SecretString::from(secret),
            life,
            obtained_at: now,
        })
    }

    /// How long it is used: a little less than it lives, so that it does not expire on the way.
    fn useful_life(&self) -> Duration {
        self.life - (self.life / 10).min(Duration::from_secs(30))
    }

    /// The `Authorization` header, marked so that HTTP/2 does not index and Debug does not show it.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        sensitive(&format!("Bearer {}", self.secret.expose_secret()))
    }
}

/// A header value that is neither shown nor indexed.
pub(crate) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The `Authorization` header of Basic (RFC 7617). `None` for tokens, and for what no header can carry.
pub(crate) fn basic_header(credentials: &Credentials) -> Option<HeaderValue> {
    use base64::Engine;
    let Proof::Password { username, password } = credentials.proof() else {
        return None;
    };
    let pair = SecretString::from(format!("{username}:{password}"));
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair.expose_secret());
    sensitive(&format!("Basic {encoded}"))
}

impl TokenKey {
    /// Where the token is asked for. What the realm already has as a query stays; each scope is a
    /// parameter of its own.
    pub(crate) fn url(&self) -> Url {
        let mut url = self.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &self.service {
                query.append_pair("service", service);
            }
            for scope in self.scope.split_ascii_whitespace() {
                query.append_pair("scope", scope);
            }
        }
        url
    }
}

/// What the token service is posted in exchange for a token: OAuth 2 (RFC 6749, section 6), as docker
/// and containerd send it. `None` for credentials that are no identity token.
pub(crate) fn refresh_form(key: &TokenKey) -> Option<SecretString> {
    let Proof::IdentityToken(token) = key.credentials.as_ref()?.proof() else {
        return None;
    };
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token");
    if let Some(service) = &key.service {
        form.append_pair("service", service);
    }
    form.append_pair("client_id", CLIENT_ID);
    form.append_pair("scope", &key.scope);
    form.append_pair("refresh_token", token);
    Some(SecretString::from(form.finish()))
}

/// Tokens in memory, and the requests for them: those who need the same one share a request.
pub(crate) struct Tokens {
    cache: Cache<TokenKey, Arc<Token>>,
}

struct UsefulLife;

impl Expiry<TokenKey, Arc<Token>> for UsefulLife {
    fn expire_after_create(
        &self,
        _: &TokenKey,
        token: &Arc<Token>,
        _: std::time::Instant,
    ) -> Option<Duration> {
        Some(token.useful_life())
    }
}

impl Tokens {
    pub(crate) fn new() -> Self {
        Self {
            cache: Cache::builder()
                .max_capacity(MAX_TOKENS)
                .expire_after(UsefulLife)
                .build(),
        }
    }

    /// A good token, fetched by `fetch` if there is none. If the fetching caller goes away, one of
    /// those who wait takes over.
    pub(crate) async fn get(
        &self,
        key: TokenKey,
        fetch: impl Future<Output = Result<Token, ExchangeError>>,
    ) -> Result<Arc<Token>, ExchangeError> {
        self.cache
            .try_get_with(key, async { fetch.await.map(Arc::new) })
            .await
            .map_err(|error| ExchangeError::clone(&error))
    }

    /// Forgets a token that the registry refused, unless another has taken its place already.
    pub(crate) async fn refused(&self, key: &TokenKey, token: &Arc<Token>) {
        use moka::ops::compute::Op;
        self.cache
            .entry_by_ref(key)
            .and_compute_with(|entry| {
                let same = entry.is_some_and(|entry| Arc::ptr_eq(&entry.into_value(), token));
                std::future::ready(if same { Op::Remove } else { Op::Nop })
            })
            .await;
    }
}

#[cfg(test)]
mod tests {
    use policy::Endpoint;

    use super::*;

    fn parse(body: &str) -> Result<Token, TokenError> {
        Token::parse(body.as_bytes(), Instant::now())
    }

    fn key(realm: &str, service: Option<&str>, scope: &str) -> TokenKey {
        TokenKey {
            registry: Site::of(&Endpoint::parse("reg.io").unwrap().0),
            realm: Url::parse(realm).unwrap(),
            service: service.map(str::to_owned),
            scope: scope.to_owned(),
            credentials: Some(Credentials::new("u", "hunter2")),
        }
    }

    #[test]
    fn answers_of_token_services() {
        for (body, secret, seconds) in [
            (r#"{"token":"a"}"#, "a", 60.0),
            (r#"{"access_token":"b","expires_in":300}"#, "b", 300.0),
            (
                r#"{"token":"","access_token":"b","expires_in":"30"}"#,
                "b",
                30.0,
            ),
            (
                r#"{"token":"a","expires_in":1.5,"issued_at":"x"}"#,
                "a",
                1.5,
            ),
            (r#"{"token":"a","expires_in":-1}"#, "a", 60.0),
            (r#"{"token":"a","expires_in":1e300}"#, "a", 86400.0),
            (r#"{"token":"a","expires_in":null}"#, "a", 60.0),
        ] {
            let token = parse(body).unwrap();
            assert_eq!(token.secret.expose_secret(), secret, "{body}");
            assert_eq!(token.life.as_secs_f64(), seconds, "{body}");
            assert!(token.useful_life() < token.life);
        }
        assert_eq!(parse("<html>").unwrap_err(), TokenError::Json);
        assert_eq!(parse("[]").unwrap_err(), TokenError::Json);
        assert_eq!(parse("{}").unwrap_err(), TokenError::Missing);
        assert_eq!(
            parse(r#"{"token":"a\nb"}"#).unwrap_err(),
            TokenError::Unusable
        );
    }

    #[test]
    fn where_tokens_are_asked_for() {
        assert_eq!(
            key(
                "https://t/x?a=b",
                Some("s v"),
                "repository:a:pull repository:b:pull"
            )
            .url()
            .as_str(),
            "https://t/x?a=b&service=s+v&scope=repository%3Aa%3Apull&scope=repository%3Ab%3Apull"
        );
        assert_eq!(
            key("https://t/x", None, "repository:a/b:pull")
                .url()
                .as_str(),
            "https://t/x?scope=repository%3Aa%2Fb%3Apull"
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let token = parse(r#"{"token":"hunter2"}"#).unwrap();
        let basic = basic_header(&Credentials::new("u", "hunter2")).unwrap();
        let shown = format!(
            "{token:?} {:?} {:?} {basic:?}",
            token.header(),
            key("https://t", None, "x")
        );
        assert!(
            !shown.contains("hunter2") && !shown.contains("dTpod"),
            "{shown}"
        );
        assert_eq!(basic.to_str().unwrap(), "Basic dTpodW50ZXIy");
    }

    #[tokio::test]
    async fn those_who_need_one_token_share_it_until_it_is_refused() {
        let tokens = Tokens::new();
        let key = key("https://t", None, "x");
        let fetches = std::sync::atomic::AtomicU32::new(0);
        let fetch = || async {
            fetches.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            tokio::task::yield_now().await;
            Ok(parse(r#"{"token":"a"}"#).unwrap())
        };
        let (one, two) = tokio::join!(
            tokens.get(key.clone(), fetch()),
            tokens.get(key.clone(), fetch())
        );
        let (one, two) = (one.unwrap(), two.unwrap());
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(fetches.load(std::sync::atomic::Ordering::SeqCst), 1);

        tokens.refused(&key, &one).await;
        let three = tokens.get(key.clone(), fetch()).await.unwrap();
        assert!(!Arc::ptr_eq(&one, &three));
        // Late news about the old token do not hurt the new one.
        tokens.refused(&key, &one).await;
        let four = tokens.get(key, fetch()).await.unwrap();
        assert!(Arc::ptr_eq(&three, &four));
    }
}
