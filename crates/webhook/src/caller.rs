//! Who asks: an API server, or anybody.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use listener::Connection;
use parking_lot::Mutex;
use x509_parser::parse_x509_certificate;

/// Longest common name by X.509.
const NAME_LENGTH: usize = 64;
/// How often strangers are reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Who asks for a review. Any Pod of a cluster can reach the webhook, and pose as an API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// An API server, by its certificate.
    ApiServer,
    /// Nobody knows: no client CA is configured.
    Unknown,
    /// Not an API server: there is a client CA, and the caller has shown no certificate of it, or one of another
    /// name.
    Stranger,
}

impl Caller {
    /// Whether registries may be asked for this caller, and what they said may be shown to him. A stranger
    /// could find out what the webhook's credentials can read; a dry run even without leaving a Pod behind.
    pub(crate) fn may_ask(self, is_dry_run: bool) -> bool {
        match self {
            Self::ApiServer => true,
            Self::Unknown => !is_dry_run,
            Self::Stranger => false,
        }
    }
}

/// How callers are told apart.
#[derive(Clone, Debug, Default)]
pub enum Callers {
    /// Not at all.
    #[default]
    Unknown,
    /// By their certificates, which the listener asks for.
    Certified {
        /// Common names that an API server's certificate may have; empty is any.
        names: Vec<String>,
    },
}

impl Callers {
    /// Who asks, and what is wrong with the certificate that he has shown.
    pub(crate) fn of(&self, connection: &Connection) -> (Caller, Option<String>) {
        let Self::Certified { names } = self else {
            return (Caller::Unknown, None);
        };
        let Some(certificate) = connection.certificate() else {
            return (Caller::Stranger, connection.unfit_certificate());
        };
        match unfit(&certificate, names) {
            None => (Caller::ApiServer, None),
            why => (Caller::Stranger, why),
        }
    }
}

/// Why a certificate of the client CA is not an API server's.
fn unfit(certificate: &[u8], names: &[String]) -> Option<String> {
    if names.is_empty() {
        return None;
    }
    let Ok((_, certificate)) = parse_x509_certificate(certificate) else {
        return Some("it can't be read".to_owned());
    };
    let own = certificate.subject().iter_common_name();
    let own: Vec<_> = own.filter_map(|own| own.as_str().ok()).collect();
    if own.iter().any(|own| names.iter().any(|name| name == own)) {
        return None;
    }
    let own = own.first().copied().unwrap_or_default();
    let shown: String = own.chars().take(NAME_LENGTH).collect();
    let shown = shown.escape_debug();
    Some(format!(
        "its common name `{shown}` is none of `--client-name`"
    ))
}

/// Strangers that show a certificate are reported, since an API server may be among them, and not more often than
/// once a minute, since anybody can be one.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    reported: Mutex<Option<Instant>>,
}

impl Strangers {
    pub(crate) fn report(&self, client: SocketAddr, why: &str) {
        let now = Instant::now();
        let mut reported = self.reported.lock();
        if reported.is_some_and(|last| now.duration_since(last) < REPORT_INTERVAL) {
            return;
        }
        *reported = Some(now);
        drop(reported);
        tracing::warn!(
            "{client} has shown a certificate that is not an API server's: {why}; no registry is asked for its reviews. \
             If it is an API server, give it a certificate of the CA in `--client-ca`, or the webhook its CA"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn a_name_that_is_not_listed_is_one_line_of_the_log() {
        let ca = testkit::certs::Ca::new().unwrap();
        let certificate = |name: &str| {
            let issued = ca.issue_client(name).unwrap();
            CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap()
        };
        let names = ["kube-apiserver".to_owned()];
        assert_eq!(unfit(&certificate("kube-apiserver"), &names), None);
        assert_eq!(unfit(&certificate("any"), &[]), None);
        let why = unfit(&certificate("a\nWARN forged"), &names).unwrap();
        assert!(why.contains(r"`a\nWARN forged`"), "{why}");
        assert!(unfit(b"none", &names).unwrap().contains("can't be read"));
    }
}
