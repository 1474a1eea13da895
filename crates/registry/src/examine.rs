//! A look at a registry as a whole, for people: does it live, until when is its certificate good, what does its clock
//! say, and does it take our credentials?

use std::time::{Duration, SystemTime};

use http::header::DATE;
use http::{HeaderMap, Method};
use tokio::time::Instant;

use crate::auth::{Scope, challenges};
use crate::exchange::{Call, Exchange, Shared};
use crate::http::transport::{Received, drain};
use crate::outcome::{Cause, ExchangeError, Failure, Ping};
use crate::progress::Progress;
use crate::registry::{ApiPath, Registry};

/// What one look has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examination {
    /// Whether it lives.
    pub ping: Ping,
    /// Its clock when it answered, to the second; `None` where it does not tell.
    pub date: Option<SystemTime>,
    /// This machine's clock at that moment.
    pub answered_at: SystemTime,
    /// Its own certificate, in DER; `None` where it speaks no TLS.
    pub certificate: Option<Vec<u8>>,
    /// Whether it lets us in.
    pub admission: Admission,
}

/// Whether a registry lets us in, which is not about any image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It asks nobody who he is.
    Open,
    /// It asks, and takes the credentials.
    Accepted,
    /// It asks, there are no credentials, and its token service may let everybody read what is public.
    Anonymous,
    /// It asks everybody for a user name and a password, and there are none.
    Wanted,
    /// It does not take the credentials.
    Refused {
        /// One line for people, without secrets.
        detail: String,
    },
    /// It was not asked, or its token service failed.
    Unknown {
        /// One line for people, without secrets.
        detail: String,
    },
}

/// Looks at `registry`, within `deadline`.
pub(crate) async fn examine(
    shared: &Shared,
    registry: &Registry,
    deadline: Duration,
) -> Examination {
    let started = Instant::now();
    let progress = Progress::new();
    let mut exchange = Exchange::unqueued(shared, registry, &progress);
    let call = root(None);
    let asked = tokio::time::timeout(deadline, exchange.send(&call)).await;
    let answered = asked.unwrap_or_else(|_| Err(progress.cut_short(deadline, shared.slots_each)));
    let mut found = Examination {
        ping: Ping {
            outcome: Ok(()),
            detail: String::new(),
            elapsed: started.elapsed(),
            requests: progress.requests(),
        },
        date: None,
        answered_at: SystemTime::now(),
        certificate: None,
        admission: Admission::Unknown {
            detail: "not asked".to_owned(),
        },
    };
    let received = match answered {
        Ok(received) => received,
        Err(error) => {
            found.ping.outcome = Err(error.cause().unwrap_or(Cause::Protocol));
            found.ping.detail = progress.with_notes(error.detail);
            return found;
        }
    };
    let status = received.response.status().as_u16();
    found.note(&received);
    let challenges = challenges(received.response.headers());
    let has_token_service = challenges.iter().any(|one| one.scheme == "bearer");
    drain(received.response).await;
    found.ping.detail = progress.with_notes(format!("answers /v2/ with {status}"));
    if status >= 500 {
        found.ping.outcome = Err(Cause::Status(status));
        return found;
    }
    if status != 401 {
        found.admission = Admission::Open;
        return found;
    }
    if registry.credentials.is_none() {
        found.admission = match has_token_service {
            true => Admission::Anonymous,
            false => Admission::Wanted,
        };
        return found;
    }
    let rest = deadline.saturating_sub(started.elapsed());
    // Of no repository: a token service then says who we are, and no more.
    let call = root(Some(Scope::none()));
    let asked = tokio::time::timeout(rest, exchange.send(&call)).await;
    let answered = asked.unwrap_or_else(|_| Err(progress.cut_short(deadline, shared.slots_each)));
    found.admission = admission(answered, &progress).await;
    found
}

impl Examination {
    fn note(&mut self, received: &Received) {
        let date = received.response.headers().get(DATE);
        let date = date.and_then(|date| date.to_str().ok());
        self.date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let tls = received
            .response
            .extensions()
            .get::<reqwest::tls::TlsInfo>();
        let certificate = tls.and_then(reqwest::tls::TlsInfo::peer_certificate);
        self.certificate = certificate.map(<[u8]>::to_vec);
    }
}

async fn admission(answered: Result<Received, ExchangeError>, progress: &Progress) -> Admission {
    let received = match answered {
        Ok(received) => received,
        Err(error) => {
            let refused = error.failure == Failure::Unauthorized;
            let detail = progress.with_notes(error.detail);
            return match refused {
                true => Admission::Refused { detail },
                false => Admission::Unknown { detail },
            };
        }
    };
    let status = received.response.status().as_u16();
    drain(received.response).await;
    match status {
        403 => Admission::Refused {
            detail: "answers /v2/ with 403".to_owned(),
        },
        400.. => Admission::Unknown {
            detail: format!("answers /v2/ with {status}"),
        },
        _ => Admission::Accepted,
    }
}

fn root(scope: Option<Scope>) -> Call {
    Call {
        method: Method::GET,
        path: ApiPath::root(),
        headers: HeaderMap::new(),
        body: None,
        scope,
        follow: false,
    }
}
