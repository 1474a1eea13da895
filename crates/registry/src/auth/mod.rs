//! Who asks: what a registry's challenge is answered with, and what is sent before it asks.

mod challenge;
mod scope;
pub(crate) mod token;

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use policy::text::host_of;
use policy::{Credentials, Proof};
use secrecy::ExposeSecret;
use tokio::time::Instant;
use url::Url;

use self::challenge::Challenge;
pub(crate) use self::challenge::challenges;
pub use self::scope::Scope;
use self::token::{
    MAX_TOKEN_ANSWER, Token, TokenKey, Tokens, basic_header, refresh_form, sensitive,
};
use crate::http::status::Answerer;
use crate::http::transport::{HttpRequest, Peer, RegistryContext, Transport, read_body};
use crate::knowledge::KnownAuth;
use crate::outcome::{Cause, ExchangeError, Failure};
use crate::progress::{Phase, Progress};
use crate::registry::Site;

/// What a request was sent with.
pub(crate) enum Authorization {
    /// Nothing.
    Anonymous,
    /// User name and password.
    Basic(HeaderValue),
    /// A token of a token service.
    Bearer(Box<TokenKey>, Arc<Token>),
    /// The token that is configured for the registry itself.
    Given(HeaderValue),
}

impl Authorization {
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        match self {
            Self::Anonymous => None,
            Self::Basic(header) | Self::Given(header) => Some(header.clone()),
            Self::Bearer(_, token) => token.header(),
        }
    }
}

/// What to do about a 401.
pub(crate) enum Reply {
    /// Ask again with this, and remember what kind it was.
    Retry(Authorization, Option<KnownAuth>),
    /// There is nothing better to offer.
    GiveUp(ExchangeError),
}

/// Answers challenges of one site within one exchange.
pub(crate) struct Authorizer<'a> {
    pub(crate) transport: &'a Transport,
    pub(crate) tokens: &'a Tokens,
    pub(crate) progress: &'a Progress,
    /// What this site may be answered with. `None` for every site but the registry itself.
    pub(crate) credentials: Option<&'a Credentials>,
    pub(crate) scope: &'a Scope,
    pub(crate) site: &'a Site,
    pub(crate) context: &'a RegistryContext,
    /// Whose token service it is.
    pub(crate) peer: Peer,
    /// Tokens that came before are worth one refresh; younger ones were refused for good.
    pub(crate) started: Instant,
}

impl Authorizer<'_> {
    /// What the registry wanted the last time, sent along before it asks. `registry` is the URL that
    /// will be asked.
    ///
    /// # Errors
    /// The token service gave no token.
    pub(crate) async fn up_front(
        &self,
        known: Option<&KnownAuth>,
        registry: &Url,
    ) -> Result<Authorization, ExchangeError> {
        match known {
            // A token that is configured is for the registry itself, whatever its token services are.
            Some(KnownAuth::Varies) => Ok(self
                .given()
                .map_or(Authorization::Anonymous, Authorization::Given)),
            None => Ok(Authorization::Anonymous),
            Some(KnownAuth::Basic) => Ok(self
                .credentials
                .and_then(basic_header)
                .map_or(Authorization::Anonymous, Authorization::Basic)),
            Some(KnownAuth::Bearer { realm, service }) => {
                if let Some(header) = self.given() {
                    return Ok(Authorization::Given(header));
                }
                let scope = self.scope.as_str().to_owned();
                let key = self.key(realm.clone(), service.clone(), scope, registry);
                let token = self.token(&key).await?;
                Ok(Authorization::Bearer(Box::new(key), token))
            }
        }
    }

    /// Another token in place of one that came before this exchange and is refused with another status than 401, as
    /// some registries do with one that has lost its right. `None` where what was sent is no such token, or where
    /// there is no other: the answer counts then.
    pub(crate) async fn renewed(&self, sent: &Authorization) -> Option<Authorization> {
        let Authorization::Bearer(key, token) = sent else {
            return None;
        };
        if token.obtained_at >= self.started {
            return None;
        }
        self.tokens.refused(key, token).await;
        let token = self.token(key).await.ok()?;
        Some(Authorization::Bearer(key.clone(), token))
    }

    /// Finds an answer to a 401. `sent` is what was refused.
    pub(crate) async fn answer(
        &self,
        headers: &HeaderMap,
        sent: &Authorization,
        registry: &Url,
    ) -> Reply {
        let asked = challenges(headers);
        // The stronger one first, as containerd chooses.
        if let Some((challenge, realm)) = asked.iter().find_map(bearer) {
            return self.answer_bearer(challenge, realm, sent, registry).await;
        }
        if asked.iter().any(|challenge| challenge.scheme == "basic") {
            return self.answer_basic(sent);
        }
        give_up("401 without a challenge that can be answered (Basic and Bearer can)")
    }

    fn answer_basic(&self, sent: &Authorization) -> Reply {
        if matches!(sent, Authorization::Basic(_)) {
            return give_up("401, the user name and password are refused");
        }
        let Some(credentials) = self.credentials else {
            return give_up(
                "401, a user name and password are asked for and none are configured; set auth for this registry",
            );
        };
        match basic_header(credentials) {
            Some(header) => Reply::Retry(Authorization::Basic(header), Some(KnownAuth::Basic)),
            None => give_up(
                "401, a user name and password are asked for, and the configured auth is a token or can't be put in a header",
            ),
        }
    }

    async fn answer_bearer(
        &self,
        challenge: &Challenge,
        realm: Url,
        sent: &Authorization,
        registry: &Url,
    ) -> Reply {
        let service = challenge.param("service").map(str::to_owned);
        let usual = self.scope.as_str();
        let scope = challenge.param("scope").unwrap_or(usual).to_owned();
        // Only where the next repository's scope can be told from this one's.
        let is_usual = scope == usual && !realm.query_pairs().any(|(name, _)| name == "scope");
        let known = is_usual.then(|| KnownAuth::Bearer {
            realm: realm.clone(),
            service: service.clone(),
        });
        if let Some(header) = self.given() {
            return match sent {
                Authorization::Given(_) => give_up("401, the configured token is refused"),
                _ => Reply::Retry(Authorization::Given(header), known),
            };
        }
        let key = self.key(realm, service, scope, registry);
        if let Authorization::Bearer(sent_key, token) = sent
            && **sent_key == key
        {
            if token.obtained_at >= self.started {
                return give_up(self.refusal(&key));
            }
            self.tokens.refused(&key, token).await;
        }
        match self.token(&key).await {
            Ok(token) => Reply::Retry(Authorization::Bearer(Box::new(key), token), known),
            Err(error) => Reply::GiveUp(error),
        }
    }

    /// The token that is configured for the registry itself, where that is what is configured.
    fn given(&self) -> Option<HeaderValue> {
        match self.credentials?.proof() {
            Proof::RegistryToken(token) => sensitive(&format!("Bearer {token}")),
            Proof::Password { .. } | Proof::IdentityToken(_) => None,
        }
    }

    fn refusal(&self, key: &TokenKey) -> String {
        let advice = match (&key.credentials, &self.credentials) {
            (Some(_), _) => "the configured user may not do this",
            (None, Some(_)) => "an anonymous token is not enough",
            (None, None) => {
                "an anonymous token is not enough; set auth for this registry if it is private"
            }
        };
        format!("401, {advice}")
    }

    /// The key of a token. The credentials go to the realm that the registry names, as the protocol
    /// wants it, but in the clear only to the host of a registry that is spoken to in the clear.
    fn key(&self, realm: Url, service: Option<String>, scope: String, registry: &Url) -> TokenKey {
        let credentials = self.credentials.cloned().filter(|_| {
            let safe = may_send_credentials(registry, &realm);
            if !safe {
                self.progress.note(format!(
                    "the credentials were not sent to its token service {}, because that is neither https nor the registry's own host",
                    host_of(&realm)
                ));
            }
            safe
        });
        TokenKey {
            registry: self.site.clone(),
            realm,
            service,
            scope,
            credentials,
        }
    }

    async fn token(&self, key: &TokenKey) -> Result<Arc<Token>, ExchangeError> {
        // Told here, not only by whoever fetches it: waiting for another's request is waiting too.
        self.progress.enter(Phase::Token(host_of(&key.realm)));
        self.tokens.get(key.clone(), self.fetch(key)).await
    }

    async fn fetch(&self, key: &TokenKey) -> Result<Token, ExchangeError> {
        let service = host_of(&key.realm);
        let failed = |what: &str| {
            ExchangeError::image_failed(
                Cause::TokenService,
                None,
                format!("its token service {service}: {what}"),
            )
        };
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let form = refresh_form(key);
        let (method, url) = match &form {
            Some(_) => {
                let kind = "application/x-www-form-urlencoded";
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                (Method::POST, key.realm.clone())
            }
            None => (Method::GET, key.url()),
        };
        let request = HttpRequest {
            method,
            url,
            headers: &headers,
            body: form.map(|form| Bytes::copy_from_slice(form.expose_secret().as_bytes())),
            authorization: key.credentials.as_ref().and_then(basic_header),
            foreign: None,
            follow: true,
            context: self.context,
            peer: self.peer,
        };
        let received = self
            .transport
            .send(request, self.progress)
            .await
            .map_err(|error| failed(&error.detail))?;
        let status = received.response.status().as_u16();
        if status != 200 {
            let answerer = Answerer::of(self.peer == Peer::ForeignTokenService);
            let headers = received.response.headers();
            let retry_after = answerer.retry_after(headers, SystemTime::now());
            return Err(no_token(status, retry_after, &service, key));
        }
        let body = read_body(received.response, MAX_TOKEN_ANSWER)
            .await
            .map_err(|error| failed(&error.detail))?
            .ok_or_else(|| failed("its answer is longer than 64 KiB"))?;
        Token::parse(&body, Instant::now()).map_err(|error| failed(&error.to_string()))
    }
}

/// Whether a 401 asks for what is remembered. One that asks for something else has another registry or
/// another token service behind it.
pub(crate) fn asks_for(headers: &HeaderMap, known: &KnownAuth) -> bool {
    let asked = challenges(headers);
    match (asked.iter().find_map(bearer), known) {
        (Some((challenge, asked)), KnownAuth::Bearer { realm, service }) => {
            asked == *realm && challenge.param("service") == service.as_deref()
        }
        (None, KnownAuth::Basic) => asked.iter().any(|challenge| challenge.scheme == "basic"),
        _ => false,
    }
}

/// Whether a 401 names this scope, or none, which means the usual one.
pub(crate) fn asks_for_scope(headers: &HeaderMap, scope: &Scope) -> bool {
    let asked = challenges(headers);
    asked.iter().find_map(bearer).is_some_and(|(challenge, _)| {
        challenge
            .param("scope")
            .is_none_or(|named| named == scope.as_str())
    })
}

/// What any answer but 200 of a token service means.
fn no_token(
    status: u16,
    retry_after: Option<std::time::Duration>,
    service: &str,
    key: &TokenKey,
) -> ExchangeError {
    match status {
        // OAuth 2 says 400 to a refresh token that it does not take (RFC 6749, section 5.2).
        400 if is_identity_token(key) => ExchangeError::unauthorized(
            status,
            format!(
                "{status} from its token service {service}, the identity token is refused; log in anew"
            ),
        ),
        401 | 403 => ExchangeError::unauthorized(
            status,
            format!(
                "{status} from its token service {service}, {}",
                refused(key.credentials.as_ref())
            ),
        ),
        429 => ExchangeError::new(
            Failure::RateLimited { retry_after },
            Some(status),
            format!("429 from its token service {service}"),
        ),
        _ => ExchangeError::new(
            Failure::ImageFailed {
                cause: Cause::TokenService,
                retry_after,
            },
            Some(status),
            format!("its token service {service} answered {status}"),
        ),
    }
}

fn is_identity_token(key: &TokenKey) -> bool {
    let proof = key.credentials.as_ref().map(Credentials::proof);
    matches!(proof, Some(Proof::IdentityToken(_)))
}

fn refused(credentials: Option<&Credentials>) -> &'static str {
    match credentials.map(Credentials::proof) {
        Some(Proof::Password { .. }) => "the user name and password are refused",
        Some(_) => "the identity token is refused; log in anew",
        None => "anonymous access is refused; set auth for this registry if it is private",
    }
}

fn give_up(detail: impl Into<String>) -> Reply {
    Reply::GiveUp(ExchangeError::unauthorized(401, detail))
}

/// A Bearer challenge with a realm that can be asked.
fn bearer(challenge: &Challenge) -> Option<(&Challenge, Url)> {
    if challenge.scheme != "bearer" {
        return None;
    }
    let mut realm = Url::parse(challenge.param("realm")?).ok()?;
    if !matches!(realm.scheme(), "http" | "https") {
        return None;
    }
    // Credentials inside the realm would be the registry's choice, not the operator's.
    realm.set_username("").ok()?;
    realm.set_password(None).ok()?;
    realm.set_fragment(None);
    Some((challenge, realm))
}

/// Whether credentials may go to a realm: by TLS; or in the clear where they go to the registry's own host
/// in the clear anyway. A registry may name whatever host it likes.
fn may_send_credentials(registry: &Url, realm: &Url) -> bool {
    let is_same_host = registry.host().is_some() && registry.host() == realm.host();
    realm.scheme() == "https" || (registry.scheme() == "http" && is_same_host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_to_a_plain_realm_only_on_a_plain_registrys_own_host() {
        for (registry, realm, may) in [
            ("https://reg.io", "https://auth.io", true),
            ("https://reg.io", "http://auth.io", false),
            ("https://reg.io", "http://reg.io", false),
            ("https://reg.io", "http://localhost:5001", false),
            ("http://reg.io", "https://auth.io", true),
            ("http://reg.io", "http://auth.io", false),
            ("http://reg.io:5000", "http://reg.io/token", true),
            ("http://127.0.0.1:5000", "http://localhost:5001", false),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001", true),
            ("https://127.0.0.1:5000", "http://127.0.0.1:5001", false),
            ("https://127.0.0.1:5000", "http://auth.io", false),
        ] {
            let (from, to) = (Url::parse(registry).unwrap(), Url::parse(realm).unwrap());
            assert_eq!(may_send_credentials(&from, &to), may, "{registry} {realm}");
        }
    }

    #[test]
    fn realms_that_cannot_be_asked_are_passed_over() {
        for (header, realm) in [
            (r#"Bearer realm="https://t/x""#, Some("https://t/x")),
            (r#"Bearer realm="https://u:p@t/x#f""#, Some("https://t/x")),
            (r#"Bearer realm="file:///etc/passwd""#, None),
            (r#"Bearer realm="/token""#, None),
            (r#"Bearer service="x""#, None),
            (r#"Basic realm="https://t/x""#, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("www-authenticate", HeaderValue::from_str(header).unwrap());
            let found = challenges(&headers).iter().find_map(bearer).map(|b| b.1);
            assert_eq!(found.as_ref().map(Url::as_str), realm, "{header}");
        }
    }
}
