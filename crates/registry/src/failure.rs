//! Why a request got no answer: an error chain of the HTTP client, read for what an operator can
//! act upon.

use std::error::Error;
use std::io;
use std::path::Path;

use crate::dns::NoAddress;
use crate::outcome::{Cause, Verdict};
use crate::tls;
use policy::text::one_line;

/// A request without a usable answer.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    pub(crate) detail: String,
    /// The other side does not seem to speak TLS: a reason to try plain HTTP where that is allowed.
    pub(crate) speaks_no_tls: bool,
    /// The connection had been used before and was closed under the request: a reason to ask again.
    pub(crate) stale_connection: bool,
}

impl Failure {
    pub(crate) fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Self {
            cause,
            detail: detail.into(),
            speaks_no_tls: false,
            stale_connection: false,
        }
    }
}

impl From<Failure> for Verdict {
    fn from(failure: Failure) -> Self {
        Self::unavailable(failure.cause, failure.detail)
    }
}

/// What is known about a request that failed, for its explanation.
pub(crate) struct Context<'a> {
    /// `host[:port]` that was asked.
    pub(crate) domain: &'a str,
    /// The proxy it went through, masked.
    pub(crate) proxy: Option<String>,
    /// Where its CA would be installed.
    pub(crate) certs_dir: Option<&'a Path>,
    /// TLS files that could not be used.
    pub(crate) tls_problems: &'a [String],
}

/// Reads the error chain. URLs and headers are never repeated: they may hold signatures.
pub(crate) fn classify(error: &reqwest::Error, context: &Context<'_>) -> Failure {
    let domain = context.domain;
    let via = context
        .proxy
        .as_ref()
        .map_or_else(String::new, |proxy| format!(" (via proxy {proxy})"));
    let connecting = error.is_connect();
    let mut io_kind = None;
    for cause in chain(error) {
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            let detail = tls::explain(error, domain, context.certs_dir, context.tls_problems);
            return Failure {
                speaks_no_tls: matches!(error, rustls::Error::InvalidMessage(_)),
                ..Failure::new(Cause::Tls, detail + &via)
            };
        }
        if cause.is::<NoAddress>() {
            return Failure::new(Cause::Dns, format!("{cause}{via}"));
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            io_kind = Some(error.kind());
        }
    }
    if error.is_timeout() || io_kind == Some(io::ErrorKind::TimedOut) {
        return Failure::new(Cause::Timeout, format!("no answer from {domain}{via}"));
    }
    match io_kind {
        Some(io::ErrorKind::ConnectionRefused) => Failure::new(
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
        ) => Failure::new(
            Cause::Unreachable,
            format!("no route to {domain}{via}: {}", innermost(error)),
        ),
        _ if connecting => Failure::new(
            Cause::Unreachable,
            format!("can't connect to {domain}{via}: {}", innermost(error)),
        ),
        _ if is_closed_early(error) => closed(domain, &via, false),
        _ => Failure::new(
            Cause::Protocol,
            format!(
                "{domain} does not answer in valid HTTP{via}: {}",
                innermost(error)
            ),
        ),
    }
}

fn closed(domain: &str, via: &str, connecting: bool) -> Failure {
    Failure {
        // A plain-http server may hang up on a TLS hello without a word.
        speaks_no_tls: connecting,
        stale_connection: !connecting,
        ..Failure::new(
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
