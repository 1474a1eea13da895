//! Who asks: an API server, or anybody.

use listener::Connection;
use x509_parser::parse_x509_certificate;

/// Who asks for a review. Any Pod of a cluster can reach the webhook, and pose as an API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// An API server, by its certificate.
    ApiServer,
    /// Nobody knows: no client CA is configured.
    Unknown,
    /// Not an API server: there is a client CA, and the caller has shown no certificate of it.
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
    pub(crate) fn of(&self, connection: &Connection) -> Caller {
        let Self::Certified { names } = self else {
            return Caller::Unknown;
        };
        let Some(certificate) = connection.certificate() else {
            return Caller::Stranger;
        };
        let Ok((_, certificate)) = parse_x509_certificate(&certificate) else {
            return Caller::Stranger;
        };
        let mut own = certificate.subject().iter_common_name();
        let is_named = own.any(|own| {
            own.as_str()
                .is_ok_and(|own| names.iter().any(|name| name == own))
        });
        if names.is_empty() || is_named {
            Caller::ApiServer
        } else {
            Caller::Stranger
        }
    }
}
