//! One probe from its first request to its verdict.

use std::time::SystemTime;

use http::Method;
use policy::Scheme;
use tokio::time::Instant;
use url::Url;

use crate::auth::{Authorizer, Grant, Reply};
use crate::client::Inner;
use crate::knowledge::{Knowledge, KnownAuth};
use crate::manifest::{ACCEPT, MAX_MANIFEST, judge_found, judge_status, refuses_head};
use crate::outcome::{Cause, Outcome, Verdict};
use crate::progress::Progress;
use crate::redirect::host_of;
use crate::target::{Origin, Target};
use crate::transport::{Answer, Ask, Home, Role, drain, read_body};

/// 401s that one probe answers: the challenge, and an outdated token's.
const MAX_REPLIES: usize = 2;

/// Part of the deadline after which a probe that waited for its turn is not begun any more. What is
/// left is too short for a fair answer, and when probes wait for a registry that does not answer,
/// all of them would still connect to it in their last millisecond.
const LATEST_START: f32 = 0.9;

/// Everything that the steps of one probe share.
pub(crate) struct Flow<'a> {
    inner: &'a Inner,
    target: &'a Target,
    progress: &'a Progress,
    origin: Origin,
    home: Home,
    started: Instant,
}

/// A verdict, or the finding that the registry does not speak TLS.
enum Attempt {
    Done(Verdict),
    SpeaksNoTls(Verdict),
}

impl<'a> Flow<'a> {
    pub(crate) fn new(inner: &'a Inner, target: &'a Target, progress: &'a Progress) -> Self {
        Self {
            inner,
            target,
            progress,
            origin: Origin::of(&target.endpoint),
            home: Home::of(target),
            started: Instant::now(),
        }
    }

    /// Runs to the verdict; the caller bounds the time.
    pub(crate) async fn run(&self) -> Verdict {
        let slots = self.inner.registries.slots(&self.origin, self.started);
        // The semaphore is never closed, so this only ever waits.
        let _slot = slots.acquire().await.ok();
        let deadline = self.target.deadline;
        if self.started.elapsed() > deadline.mul_f32(LATEST_START) {
            return self.progress.cut_short(deadline, self.inner.slots_each);
        }
        // On the heap from here on: hundreds of probes may be waiting above, and only a few are here.
        Box::pin(self.by_scheme()).await
    }

    async fn by_scheme(&self) -> Verdict {
        let known = self.inner.registries.recall(&self.origin, Instant::now());
        let is_new = !known.answered;
        let verdict = match self.target.endpoint.scheme() {
            Scheme::Https => self.attempt(true, &known).await.into_verdict(),
            Scheme::Http => self.attempt(false, &known).await.into_verdict(),
            Scheme::HttpsThenHttp => self.either(known).await,
        };
        if is_new && !matches!(verdict.outcome, Outcome::Unavailable { .. }) {
            self.learn(|known| known.answered = true);
        }
        verdict
    }

    /// TLS, then plain, for loopback registries without a scheme. What worked is remembered, and
    /// forgotten when it no longer does.
    async fn either(&self, known: Knowledge) -> Verdict {
        if let Some(plain) = known.plain {
            let attempt = self.attempt(!plain, &known).await;
            let stale = match &attempt {
                Attempt::SpeaksNoTls(_) => true,
                Attempt::Done(verdict) => is_wrong_scheme(verdict),
            };
            if stale {
                self.learn(|known| *known = Knowledge::default());
            }
            return attempt.into_verdict();
        }
        match self.attempt(true, &known).await {
            Attempt::Done(verdict) => {
                if !matches!(verdict.outcome, Outcome::Unavailable { .. }) {
                    self.learn(|known| known.plain = Some(false));
                }
                verdict
            }
            Attempt::SpeaksNoTls(_) => {
                let verdict = self.attempt(false, &known).await.into_verdict();
                if !matches!(verdict.outcome, Outcome::Unavailable { .. }) {
                    self.learn(|known| known.plain = Some(true));
                }
                verdict
            }
        }
    }

    /// All requests by one scheme.
    async fn attempt(&self, tls: bool, known: &Knowledge) -> Attempt {
        let Some(url) = self.target.url(tls) else {
            return Attempt::Done(Verdict::unavailable(
                Cause::Protocol,
                "the name makes no URL; check the registry's address",
            ));
        };
        let authorizer = Authorizer {
            transport: &self.inner.transport,
            tokens: &self.inner.tokens,
            progress: self.progress,
            target: self.target,
            origin: &self.origin,
            home: &self.home,
            started: self.started,
        };
        let mut grant = match authorizer.up_front(known.auth.as_ref(), &url).await {
            Ok(grant) => grant,
            Err(verdict) => {
                // The registry may name another token service by now: ask it anew next time.
                self.learn(|known| known.auth = None);
                return Attempt::Done(verdict);
            }
        };
        let mut method = if known.head_refused {
            Method::GET
        } else {
            Method::HEAD
        };
        let mut head_refused = false;
        let mut replies = 0;
        loop {
            let answer = match self.ask(&url, method.clone(), &grant).await {
                Ok(answer) => answer,
                Err(attempt) => return attempt,
            };
            let status = answer.response.status().as_u16();
            if status == 401 {
                let headers = answer.response.headers().clone();
                let elsewhere = answer.left_origin.then(|| host_of(&answer.url));
                drain(answer.response).await;
                if let Some(host) = elsewhere {
                    return Attempt::Done(asked_elsewhere(&host, &grant));
                }
                if replies == MAX_REPLIES {
                    return Attempt::Done(refused_again());
                }
                replies += 1;
                match authorizer.answer(&headers, &grant, &url).await {
                    Reply::Retry(better, kind) => {
                        self.remember_auth(kind);
                        grant = better;
                    }
                    Reply::GiveUp(verdict) => return Attempt::Done(verdict),
                }
                continue;
            }
            if method == Method::HEAD && refuses_head(status) {
                head_refused = true;
                method = Method::GET;
                continue;
            }
            // GET made the difference: HEAD need not be tried again.
            if head_refused && !refuses_head(status) {
                self.learn(|known| known.head_refused = true);
            }
            return Attempt::Done(self.judge(answer, &method).await);
        }
    }

    async fn ask(&self, url: &Url, method: Method, grant: &Grant) -> Result<Answer, Attempt> {
        let ask = Ask {
            method,
            url: url.clone(),
            accept: ACCEPT,
            authorization: grant.header(),
            home: &self.home,
            role: Role::Registry,
        };
        let sent = self.inner.transport.send(ask, self.progress).await;
        sent.map_err(|failure| {
            // Without a port, plain HTTP is on another one: nobody listening on 443 says nothing.
            let other_port =
                failure.cause == Cause::Refused && self.target.endpoint.port().is_none();
            if failure.speaks_no_tls || other_port {
                Attempt::SpeaksNoTls(failure.into())
            } else {
                Attempt::Done(failure.into())
            }
        })
    }

    async fn judge(&self, answer: Answer, method: &Method) -> Verdict {
        let response = answer.response;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        if status != 200 {
            drain(response).await;
            let mut verdict = judge_status(status, &headers, SystemTime::now());
            if status == 400 && answer.url.scheme() == "http" {
                verdict.detail.push_str(
                    ", to plain HTTP; if this registry speaks TLS, write https:// in its address",
                );
            }
            return verdict;
        }
        if *method == Method::HEAD {
            return judge_found(&headers, None, self.target.digest());
        }
        match read_body(response, MAX_MANIFEST).await {
            Ok(Some(body)) => judge_found(&headers, Some(&body), self.target.digest()),
            Ok(None) => Verdict::unavailable(
                Cause::Protocol,
                "answered 200 with more than 4 MiB, which no manifest has",
            ),
            Err(failure) => failure.into(),
        }
    }

    fn remember_auth(&self, kind: Option<KnownAuth>) {
        if kind.is_some() {
            self.learn(|known| known.auth = kind);
        }
    }

    fn learn(&self, note: impl FnOnce(&mut Knowledge)) {
        self.inner
            .registries
            .learn(&self.origin, Instant::now(), note);
    }
}

impl Attempt {
    fn into_verdict(self) -> Verdict {
        match self {
            Self::Done(verdict) | Self::SpeaksNoTls(verdict) => verdict,
        }
    }
}

/// Whether a verdict may come from speaking plainly to a server that has begun to speak TLS.
fn is_wrong_scheme(verdict: &Verdict) -> bool {
    matches!(
        verdict.outcome,
        Outcome::Unavailable {
            cause: Cause::Protocol | Cause::Reset | Cause::Refused | Cause::Status(400),
            ..
        }
    )
}

fn asked_elsewhere(host: &str, grant: &Grant) -> Verdict {
    let kept = match grant {
        Grant::Anonymous => "",
        _ => {
            "; credentials are not sent there, so write that address in the config if it is the registry's own"
        }
    };
    Verdict::new(
        Outcome::Unauthorized,
        format!("401 from {host}, where the registry redirected to{kept}"),
    )
}

fn refused_again() -> Verdict {
    Verdict::new(
        Outcome::Unauthorized,
        "401 again after every answer to its challenges",
    )
}
