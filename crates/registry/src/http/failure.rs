//! Why a request got no answer: an error chain of the HTTP client, read for what an operator can
//! act upon.

use std::error::Error;
use std::io;

use super::dns::{ForbiddenAddress, NoAddress};
use super::tls::{self, CaPlace};
use crate::outcome::{Cause, ExchangeError, Failure};
use policy::text::one_line;

/// A request without a usable answer.
#[derive(Clone, Debug)]
pub(crate) struct SendError {
    pub(crate) cause: Cause,
    pub(crate) detail: String,
    /// The other side does not seem to speak TLS: a reason to try plain HTTP where that is allowed.
    pub(crate) speaks_no_tls: bool,
    /// The connection had been used before and was closed under the request: a reason to ask again.
    pub(crate) stale_connection: bool,
    /// There was no connection to send the request on.
    connecting: bool,
    /// The host that failed is not the registry, but one that it redirected to.
    left_origin: bool,
}

impl SendError {
    pub(crate) fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Self {
            cause,
            detail: detail.into(),
            speaks_no_tls: false,
            stale_connection: false,
            connecting: false,
            left_origin: false,
        }
    }

    /// Notes whether it was the registry that failed, or a host that it redirected to.
    pub(crate) fn with_left_origin(self, left_origin: bool) -> Self {
        Self {
            left_origin,
            // What another host speaks says nothing about the registry.
            speaks_no_tls: self.speaks_no_tls && !left_origin,
            ..self
        }
    }

    fn connecting(self) -> Self {
        Self {
            connecting: true,
            ..self
        }
    }

    /// Whether the registry itself can't be asked, whatever the question.
    pub(crate) fn is_registrys(&self) -> bool {
        let registrys = match self.cause {
            Cause::Refused | Cause::Unreachable | Cause::Dns | Cause::Address | Cause::Tls => true,
            Cause::Timeout | Cause::Late | Cause::Reset => self.connecting,
            Cause::Queue
            | Cause::Status(_)
            | Cause::Protocol
            | Cause::Redirect
            | Cause::TokenService => false,
        };
        // A registry that redirected has answered: where it sent us is this image's trouble.
        registrys && !self.left_origin
    }
}

impl From<SendError> for ExchangeError {
    fn from(error: SendError) -> Self {
        let cause = error.cause;
        let failure = if error.is_registrys() {
            Failure::Unavailable { cause }
        } else {
            Failure::ImageFailed {
                cause,
                retry_after: None,
            }
        };
        Self::new(failure, None, error.detail)
    }
}

/// What is known about a request that failed, for its explanation.
pub(crate) struct Context<'a> {
    /// `host[:port]` that was asked.
    pub(crate) domain: &'a str,
    /// The proxy it went through, masked.
    pub(crate) proxy: Option<String>,
    /// Where its CA would be installed.
    pub(crate) ca_place: Option<&'a CaPlace>,
    /// TLS files that could not be used.
    pub(crate) tls_problems: &'a [String],
}

/// Reads the error chain. URLs and headers are never repeated: they may hold signatures.
pub(crate) fn classify(error: &reqwest::Error, context: &Context<'_>) -> SendError {
    let domain = context.domain;
    let via = context
        .proxy
        .as_ref()
        .map_or_else(String::new, |proxy| format!(" (via proxy {proxy})"));
    let connecting = error.is_connect();
    let mut io_kind = None;
    for cause in chain(error) {
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            let detail = tls::explain(error, domain, context.ca_place, context.tls_problems);
            return SendError {
                speaks_no_tls: matches!(error, rustls::Error::InvalidMessage(_)),
                ..SendError::new(Cause::Tls, detail + &via)
            };
        }
        if cause.is::<NoAddress>() {
            return SendError::new(Cause::Dns, format!("{cause}{via}"));
        }
        if cause.is::<ForbiddenAddress>() {
            return SendError::new(Cause::Address, cause.to_string());
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            io_kind = Some(error.kind());
        }
    }
    if error.is_timeout() || io_kind == Some(io::ErrorKind::TimedOut) {
        let failure = SendError::new(Cause::Timeout, format!("no answer from {domain}{via}"));
        return if connecting {
            failure.connecting()
        } else {
            failure
        };
    }
    match io_kind {
        Some(io::ErrorKind::ConnectionRefused) => SendError::new(
            Cause::Refused,
            format!("connection refused by {domain}{via}"),
        ),
        Some(
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof,
        ) => closed(domain, &via, connecting),
        Some(
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::PermissionDenied,
        ) => SendError::new(
            Cause::Unreachable,
            format!("no route to {domain}{via}: {}", innermost(error)),
        ),
        _ if connecting => SendError::new(
            Cause::Unreachable,
            format!("can't connect to {domain}{via}: {}", innermost(error)),
        ),
        _ if is_closed_early(error) => closed(domain, &via, false),
        _ => SendError::new(
            Cause::Protocol,
            format!(
                "{domain} does not answer in valid HTTP{via}: {}",
                innermost(error)
            ),
        ),
    }
}

fn closed(domain: &str, via: &str, connecting: bool) -> SendError {
    SendError {
        // A plain-http server may hang up on a TLS hello without a word.
        speaks_no_tls: connecting,
        stale_connection: !connecting,
        connecting,
        ..SendError::new(
            Cause::Reset,
            format!("{domain} closed the connection without an answer{via}"),
        )
    }
}

/// The words of hyper and h2 for a connection that ended between request and answer. Neither has a
/// type for it that reqwest lets through.
fn is_closed_early(error: &reqwest::Error) -> bool {
    const WORDS: [&str; 3] = [
        "connection closed before message completed",
        "operation was canceled",
        // GOAWAY.
        "connection error received",
    ];
    chain(error).any(|cause| {
        let text = cause.to_string();
        WORDS.iter().any(|words| text.starts_with(words))
    })
}

fn innermost(error: &reqwest::Error) -> String {
    let last = chain(error).last().map(ToString::to_string);
    one_line(&last.unwrap_or_default(), 120)
}

/// The causes of an error, outermost first, without the error itself: its text holds the URL.
/// `io::Error` hides what it wraps from `source`.
fn chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let mut next = error.source();
    // Chains are a handful long; the bound is for errors that would be their own source.
    std::iter::from_fn(move || {
        let current = next?;
        next = match current.downcast_ref::<io::Error>() {
            Some(wrapper) => wrapper
                .get_ref()
                .map(|inner| inner as &(dyn Error + 'static)),
            None => current.source(),
        };
        Some(current)
    })
    .take(16)
}
