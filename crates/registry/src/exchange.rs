//! One authenticated exchange with a registry: the scheme, a free slot, the answer to its challenges,
//! and then a response, whatever was asked. Probes and fetches are made of it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use policy::text::host_of;
use policy::{Credentials, Scheme};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use url::Url;

use crate::auth::token::Tokens;
use crate::auth::{Authorization, Authorizer, Reply, Scope, asks_for, asks_for_scope};
use crate::http::transport::{
    ForeignToken, HttpRequest, Peer, Received, RegistryContext, Transport, drain,
};
use crate::knowledge::{Asker, Knowledge, KnownAuth, Registries};
use crate::outcome::{Cause, ExchangeError};
use crate::progress::Progress;
use crate::registry::{ApiPath, Registry, Site};

/// 401s of one site that one call answers: the challenge, and an outdated token's.
const MAX_REPLIES: usize = 2;

/// Part of the deadline after which a question that waited for its turn is not begun any more. What is
/// left is too short for a fair answer, and when questions wait for a registry that does not answer,
/// all of them would still connect to it in their last millisecond.
const LATEST_START: f32 = 0.9;

/// What all exchanges of one client share.
pub(crate) struct Shared {
    pub(crate) transport: Transport,
    pub(crate) tokens: Tokens,
    pub(crate) registries: Registries,
    pub(crate) slots_each: usize,
}

/// One HTTP request to a registry, before it is known how the registry wants to be asked.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: ApiPath,
    /// Sent to the registry and to where it redirects, and so nothing secret.
    pub(crate) headers: HeaderMap,
    /// A call with a body is not redirected.
    pub(crate) body: Option<Bytes>,
    /// What a token for this call is to open. A call without one is sent without authorization, and a
    /// 401 is its answer.
    pub(crate) scope: Option<Scope>,
    /// Whether redirects are followed; else they are the answer.
    pub(crate) follow: bool,
}

/// All calls that one question takes. They share a slot, the scheme and the authorization.
pub(crate) struct Exchange<'a> {
    shared: &'a Shared,
    registry: &'a Registry,
    progress: &'a Progress,
    site: Site,
    context: RegistryContext,
    started: Instant,
    known: Knowledge,
    asker: Asker,
    /// How the registry wants to be told who asks, as far as this asker has learnt it.
    known_auth: Option<KnownAuth>,
    /// Whether the registry was found to speak plain HTTP, since this exchange began.
    plain: Option<bool>,
    _slot: Option<OwnedSemaphorePermit>,
}

/// Why one scheme gave no answer.
struct AttemptError {
    error: ExchangeError,
    /// Nobody seems to speak TLS there.
    speaks_no_tls: bool,
}

impl From<ExchangeError> for AttemptError {
    fn from(error: ExchangeError) -> Self {
        Self {
            error,
            speaks_no_tls: false,
        }
    }
}

impl<'a> Exchange<'a> {
    /// Waits for a free slot; the caller bounds the time, of which `deadline` is the whole.
    ///
    /// # Errors
    /// [`Cause::Queue`] where too little of the time is left when it is this question's turn.
    pub(crate) async fn begin(
        shared: &'a Shared,
        registry: &'a Registry,
        progress: &'a Progress,
        deadline: Duration,
    ) -> Result<Self, ExchangeError> {
        let started = Instant::now();
        let slots = shared
            .registries
            .slots(&Site::of(&registry.endpoint), started);
        // The semaphore is never closed, so this only ever waits.
        let slot = slots.acquire_owned().await.ok();
        let waited = started.elapsed();
        if waited > deadline.mul_f32(LATEST_START) {
            return Err(progress.cut_short(deadline, shared.slots_each));
        }
        progress.begins(waited);
        Ok(Self {
            _slot: slot,
            ..Self::unqueued(shared, registry, progress)
        })
    }

    /// For a question that must be asked also when all slots are taken.
    pub(crate) fn unqueued(
        shared: &'a Shared,
        registry: &'a Registry,
        progress: &'a Progress,
    ) -> Self {
        let site = Site::of(&registry.endpoint);
        let now = Instant::now();
        let asker = Asker::of(registry);
        let (known, known_auth) = shared.registries.recall(&site, &asker, now);
        Self {
            shared,
            registry,
            progress,
            context: RegistryContext::of(registry),
            started: now,
            known,
            asker,
            known_auth,
            plain: None,
            site,
            _slot: None,
        }
    }

    /// What was known of the registry when the exchange began.
    pub(crate) fn known(&self) -> &Knowledge {
        &self.known
    }

    /// Remembers something about the registry.
    pub(crate) fn learn(&mut self, note: impl Fn(&mut Knowledge)) {
        note(&mut self.known);
        self.shared
            .registries
            .learn(&self.site, Instant::now(), note);
    }

    /// Sends a call and gives the registry's answer to it, whatever its status. A 401 is an answer only
    /// to a call without a scope.
    ///
    /// # Errors
    /// There is no answer, or no authorization that the registry takes.
    pub(crate) async fn send(&mut self, call: &Call) -> Result<Received, ExchangeError> {
        let received = match self.registry.endpoint.scheme() {
            Scheme::Https if self.registry.tls.or_plain => self.either(call).await,
            Scheme::Https => self.attempt(true, call).await,
            Scheme::Http => self.attempt(false, call).await,
            Scheme::HttpsThenHttp => self.either(call).await,
        };
        let received = received.map_err(|attempt| attempt.error)?;
        if !self.known.answered {
            self.learn(|known| known.answered = true);
        }
        Ok(received)
    }

    /// TLS, then plain: for loopback registries without a scheme, and where the runtime does so. What worked is remembered, and
    /// forgotten when it no longer does.
    async fn either(&mut self, call: &Call) -> Result<Received, AttemptError> {
        if let Some(plain) = self.plain {
            return self.attempt(!plain, call).await;
        }
        if let Some(plain) = self.known.plain {
            let received = self.attempt(!plain, call).await;
            self.plain = Some(plain);
            if is_wrong_scheme(&received) {
                self.known = Knowledge::default();
                self.known_auth = None;
                self.shared.registries.forget(&self.site, Instant::now());
            }
            return received;
        }
        let (plain, received) = match self.attempt(true, call).await {
            Err(attempt) if attempt.speaks_no_tls => (true, self.attempt(false, call).await),
            received => (false, received),
        };
        self.plain = Some(plain);
        if received.is_ok() {
            self.learn(|known| known.plain = Some(plain));
        }
        received
    }

    /// All requests by one scheme.
    async fn attempt(&mut self, tls: bool, call: &Call) -> Result<Received, AttemptError> {
        let url = self.registry.url(tls, &call.path).ok_or_else(|| {
            let detail = "the name makes no URL; check the registry's address";
            ExchangeError::image_failed(Cause::Protocol, None, detail)
        })?;
        let Some(scope) = &call.scope else {
            return self.one(&url, call, None, None).await;
        };
        let credentials = self.credentials(tls);
        let site = self.site.clone();
        let in_vain = ForgetsAuth {
            exchange: self,
            is_armed: self.known_auth.is_some(),
        };
        let up_front = self
            .authorizer(&site, credentials, scope, Peer::TokenService)
            .up_front(self.known_auth.as_ref(), &url)
            .await;
        in_vain.disarm();
        // What comes of memory is no verdict: this repository may have another token service than the last
        // one, and the registry's own challenge says so. It is asked without authorization then, once.
        let (mut authorization, mut memory) = match (up_front, self.known_auth.clone()) {
            (Ok(authorization), None | Some(KnownAuth::Varies)) => (authorization, None),
            (Ok(authorization), Some(known)) => {
                (authorization, Some(Memory { known, error: None }))
            }
            (Err(error), None | Some(KnownAuth::Varies)) => return Err(error.into()),
            (Err(error), Some(known)) => {
                let error = Some(error);
                (Authorization::Anonymous, Some(Memory { known, error }))
            }
        };
        let mut foreign = Foreign::default();
        let mut replies = 0;
        let mut is_renewed = false;
        loop {
            let header = authorization.header();
            let received = self.one(&url, call, header, foreign.token.as_ref()).await?;
            let status = received.response.status().as_u16();
            if matches!(status, 400 | 403) && !received.left_origin && !is_renewed {
                is_renewed = true;
                let authorizer = self.authorizer(&site, credentials, scope, Peer::TokenService);
                if let Some(renewed) = authorizer.renewed(&authorization).await {
                    drain(received.response).await;
                    authorization = renewed;
                    continue;
                }
            }
            if status != 401 {
                if memory.is_some_and(|memory| memory.error.is_some()) {
                    // Nobody was asked who he is.
                    self.remember_auth(None);
                }
                return Ok(received);
            }
            let headers = received.response.headers().clone();
            drain(received.response).await;
            if received.left_origin {
                let has_credentials = credentials.is_some();
                let asked = Site::of_url(&received.url);
                let authorizer = self.authorizer(&asked, None, scope, Peer::ForeignTokenService);
                foreign
                    .answer(&authorizer, &headers, &received.url, has_credentials)
                    .await?;
                continue;
            }
            if let Some(Memory { known, error }) = memory.take() {
                let is_confirmed = asks_for(&headers, &known);
                match error {
                    Some(error) if is_confirmed && asks_for_scope(&headers, scope) => {
                        // It would be the same request to the same token service.
                        return Err(error.into());
                    }
                    _ if is_confirmed => {}
                    error => {
                        self.remember_auth(Some(KnownAuth::Varies));
                        if error.is_none() {
                            authorization = Authorization::Anonymous;
                            continue;
                        }
                    }
                }
            }
            if replies == MAX_REPLIES {
                let detail = "401 again after every answer to its challenges";
                return Err(ExchangeError::unauthorized(401, detail).into());
            }
            replies += 1;
            let reply = self
                .authorizer(&site, credentials, scope, Peer::TokenService)
                .answer(&headers, &authorization, &url)
                .await;
            match reply {
                Reply::Retry(better, kind) => {
                    if kind.is_some() && self.known_auth != Some(KnownAuth::Varies) {
                        self.remember_auth(kind);
                    }
                    authorization = better;
                }
                Reply::GiveUp(error) => return Err(error.into()),
            }
        }
    }

    /// What the registry may be answered with. Credentials of an address that means TLS never travel in
    /// the clear.
    fn credentials(&self, tls: bool) -> Option<&'a Credentials> {
        let credentials = self.registry.credentials.as_ref()?;
        if !tls && self.registry.endpoint.scheme() == Scheme::Https {
            self.progress.note(
                "its credentials were not sent, because it speaks plain HTTP; write http:// in its address if they may travel in the clear".to_owned(),
            );
            return None;
        }
        Some(credentials)
    }

    fn authorizer<'s>(
        &'s self,
        site: &'s Site,
        credentials: Option<&'s Credentials>,
        scope: &'s Scope,
        peer: Peer,
    ) -> Authorizer<'s> {
        Authorizer {
            transport: &self.shared.transport,
            tokens: &self.shared.tokens,
            progress: self.progress,
            credentials,
            scope,
            site,
            context: &self.context,
            peer,
            started: self.started,
        }
    }

    /// One request, and its redirects.
    async fn one(
        &self,
        url: &Url,
        call: &Call,
        authorization: Option<http::HeaderValue>,
        foreign: Option<&ForeignToken>,
    ) -> Result<Received, AttemptError> {
        let request = HttpRequest {
            method: call.method.clone(),
            url: url.clone(),
            headers: &call.headers,
            body: call.body.clone(),
            authorization,
            foreign,
            follow: call.follow,
            context: &self.context,
            peer: Peer::Registry,
        };
        let sent = self.shared.transport.send(request, self.progress).await;
        sent.map_err(|error| {
            // Without a port, plain HTTP is on another one: nobody listening on 443 says nothing.
            let other_port = error.cause == Cause::Refused
                && error.is_registrys()
                && self.registry.endpoint.port().is_none();
            AttemptError {
                speaks_no_tls: error.speaks_no_tls || other_port,
                error: error.into(),
            }
        })
    }

    fn remember_auth(&mut self, kind: Option<KnownAuth>) {
        self.known_auth.clone_from(&kind);
        self.shared
            .registries
            .learn_auth(&self.site, &self.asker, Instant::now(), kind);
    }
}

/// Forgets how an asker is asked who he is, when it is dropped: the deadline has come, or the question was called
/// off, while a remembered token service was asked. It may be silent for good, and the registry may name another by now.
struct ForgetsAuth<'e, 'a> {
    exchange: &'e Exchange<'a>,
    is_armed: bool,
}

impl ForgetsAuth<'_, '_> {
    fn disarm(mut self) {
        self.is_armed = false;
    }
}

impl Drop for ForgetsAuth<'_, '_> {
    fn drop(&mut self) {
        let Exchange {
            shared,
            site,
            asker,
            ..
        } = self.exchange;
        if self.is_armed {
            let registries = &shared.registries;
            registries.learn_auth(site, asker, Instant::now(), None);
        }
    }
}

/// What a call was begun with, until the registry itself has said what it wants.
struct Memory {
    known: KnownAuth,
    /// Why it has led to nothing.
    error: Option<ExchangeError>,
}

/// What another site, where the registry redirected to, was answered with: a token that anybody gets.
#[derive(Default)]
struct Foreign {
    authorization: Option<(Site, Authorization)>,
    token: Option<ForeignToken>,
    replies: usize,
}

impl Foreign {
    /// Answers a challenge of the site that `authorizer` is for.
    async fn answer(
        &mut self,
        authorizer: &Authorizer<'_>,
        headers: &HeaderMap,
        url: &Url,
        has_credentials: bool,
    ) -> Result<(), ExchangeError> {
        let refused = || asked_elsewhere(&host_of(url), has_credentials);
        if self.replies == MAX_REPLIES {
            return Err(refused());
        }
        self.replies += 1;
        let sent = match self.authorization.take() {
            Some((site, sent)) if site == *authorizer.site => sent,
            _ => Authorization::Anonymous,
        };
        let better = match authorizer.answer(headers, &sent, url).await {
            Reply::Retry(better, _) => better,
            Reply::GiveUp(error) if error.status == Some(401) => return Err(refused()),
            Reply::GiveUp(error) => return Err(error),
        };
        self.token = better.header().map(|header| ForeignToken {
            site: authorizer.site.clone(),
            header,
        });
        self.authorization = Some((authorizer.site.clone(), better));
        Ok(())
    }
}

fn asked_elsewhere(host: &str, has_credentials: bool) -> ExchangeError {
    let kept = if has_credentials {
        "; credentials are not sent there, so write that address in the config if it is the registry's own"
    } else {
        ""
    };
    ExchangeError::unauthorized(
        401,
        format!("401 from {host}, where the registry redirected to{kept}"),
    )
}

/// Whether an answer may come from speaking plainly to a server that has begun to speak TLS, or the
/// other way round.
fn is_wrong_scheme(received: &Result<Received, AttemptError>) -> bool {
    match received {
        Ok(received) => received.response.status() == 400,
        Err(attempt) => {
            attempt.speaks_no_tls
                || matches!(
                    attempt.error.cause(),
                    Some(Cause::Protocol | Cause::Reset | Cause::Refused)
                )
        }
    }
}
