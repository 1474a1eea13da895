//! What is to be done about the keys next. Pure, over a passed-in clock.
//!
//! ```text
//! CA 1 ────────────────────────────────┐ expires
//!            CA 2 published ─ settled ─┼──────────────────────────────── …
//! serving:  ── by CA 1 ──────▶ by CA 2 ──▶
//! caBundle:  1      1+2                 2
//! ```
//!
//! A new CA is published beside the old one first, and signs only when every API server has had time to
//! see it; the old one is published until it expires. So there is no moment at which an API server meets
//! a certificate that it can't check, however many replicas there are and whichever of them it asks.

use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use super::CLOCK_SKEW;
use listener::certificate::{Pem, Validity};

/// How long things live.
#[derive(Clone, Debug)]
pub struct Lifetimes {
    /// Of a CA. Default 3 years; a successor is made when a third is left.
    pub authority: Duration,
    /// Of a serving certificate. Default 90 days; renewed when a third is left.
    pub serving: Duration,
    /// How long a new CA is published before it signs. Default 10 minutes.
    pub settle: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Self {
            authority: Duration::from_secs(3 * 365 * DAY),
            serving: Duration::from_secs(90 * DAY),
            settle: Duration::from_secs(10 * 60),
        }
    }
}

/// Everything that the replicas share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The CA that signs.
    pub authority: Pem,
    /// The CA that will, published already.
    pub next: Option<Pem>,
    /// The certificate of the CA that did, published until it expires. Its key is gone.
    pub previous: Option<String>,
    /// What is served.
    pub serving: Pem,
}

impl Keys {
    /// What clients are to trust, in PEM.
    pub fn bundle(&self) -> String {
        let next = self.next.as_ref().map(|next| next.chain.as_str());
        [
            Some(self.authority.chain.as_str()),
            next,
            self.previous.as_deref(),
        ]
        .into_iter()
        .flatten()
        .map(|pem| format!("{}\n", pem.trim()))
        .collect()
    }
}

/// How far this replica's clock can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// It agrees with the API server's, which checks our certificate by its own.
    Confirmed,
    /// The API server does not say what time it is.
    Unconfirmed,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Keep,
    /// What is there can't be used: begin anew.
    Begin,
    /// Nothing may be done: the CA parses and belongs to its key, but is not valid by our clock, and nobody
    /// confirms that clock.
    Wait,
    /// Make the CA that will follow.
    Announce,
    /// Let the next CA sign from now on.
    Promote,
    /// Sign a new serving certificate.
    Renew,
    /// Stop publishing the previous CA.
    Forget,
}

/// The next step. Certificates that parse and belong together are replaced only by a clock that is
/// confirmed: one that is years ahead or behind would replace good ones. `published` is what the API server
/// was last seen to trust; without it, no CA is promoted.
pub fn next_step(
    keys: &Keys,
    names: &[String],
    lifetimes: &Lifetimes,
    published: Option<&str>,
    now: SystemTime,
    clock: Clock,
) -> Step {
    let Ok(authority) = Validity::of(&keys.authority.chain) else {
        return Step::Begin;
    };
    if !belongs(&keys.authority) {
        return Step::Begin;
    }
    if !authority.contains(now) {
        return match clock {
            Clock::Confirmed => Step::Begin,
            Clock::Unconfirmed => Step::Wait,
        };
    }
    if let Some(next) = &keys.next {
        let Ok(validity) = Validity::of(&next.chain) else {
            return Step::Announce;
        };
        if !belongs(next) {
            return Step::Announce;
        }
        let settled = now >= validity.from + CLOCK_SKEW + lifetimes.settle;
        if settled && published.is_some_and(|bundle| holds(bundle, &next.chain)) {
            return Step::Promote;
        }
    } else if remaining(authority, now) < lifetimes.authority / 3 {
        return Step::Announce;
    }
    if !is_good(&keys.serving, &keys.authority.chain, names, now)
        || Validity::of(&keys.serving.chain)
            .is_ok_and(|serving| remaining(serving, now) < renew_before(lifetimes, authority, now))
    {
        return Step::Renew;
    }
    let expired = |pem: &String| !Validity::of(pem).is_ok_and(|validity| now <= validity.to);
    if keys.previous.as_ref().is_some_and(expired) {
        return Step::Forget;
    }
    Step::Keep
}

fn remaining(validity: Validity, now: SystemTime) -> Duration {
    validity.to.duration_since(now).unwrap_or_default()
}

/// A serving certificate never outlives its CA, so near the CA's end a renewed one would be due again
/// at once.
fn renew_before(lifetimes: &Lifetimes, authority: Validity, now: SystemTime) -> Duration {
    (lifetimes.serving / 3).min(remaining(authority, now) / 3)
}

/// Whether two PEM texts hold the same certificate; `bundle` may hold several.
fn holds(bundle: &str, certificate: &str) -> bool {
    let Ok(wanted) = CertificateDer::from_pem_slice(certificate.as_bytes()) else {
        return false;
    };
    CertificateDer::pem_slice_iter(bundle.as_bytes())
        .filter_map(Result::ok)
        .any(|found| found == wanted)
}

/// Whether the key is the certificate's.
fn belongs(pem: &Pem) -> bool {
    listener::certificate::Store::default().set(pem).is_ok()
}

/// Whether a client that trusts `authority` would accept `serving` for every one of `names` at `now`.
fn is_good(serving: &Pem, authority: &str, names: &[String], now: SystemTime) -> bool {
    let chain = CertificateDer::from_pem_slice(serving.chain.as_bytes());
    let root = CertificateDer::from_pem_slice(authority.as_bytes());
    let (Ok(chain), Ok(root)) = (chain, root) else {
        return false;
    };
    let mut roots = RootCertStore::empty();
    if roots.add(root).is_err() {
        return false;
    }
    let Ok(since) = now.duration_since(SystemTime::UNIX_EPOCH) else {
        return false;
    };
    let Ok(certificate) = EndEntityCert::try_from(&chain) else {
        return false;
    };
    let provider = rustls::crypto::ring::default_provider();
    let verified = certificate.verify_for_usage(
        provider.signature_verification_algorithms.all,
        &roots.roots,
        &[],
        UnixTime::since_unix_epoch(since),
        KeyUsage::server_auth(),
        None,
        None,
    );
    let named = |name: &String| {
        ServerName::try_from(name.as_str())
            .is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok())
    };
    verified.is_ok() && names.iter().all(named) && belongs(serving)
}
