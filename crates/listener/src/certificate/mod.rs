//! The certificate in use. It can be replaced at any time: a handshake takes the one that is there
//! when it begins, and a connection keeps the one it began with.

pub mod files;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use x509_parser::parse_x509_certificate;

/// Why a certificate can't be used, or there is none. No key is ever in the text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// The text holds no certificate in PEM, or one that isn't one.
    #[error("no certificate in PEM (`-----BEGIN CERTIFICATE-----`)")]
    NoCertificate,
    /// The text holds no private key in PEM.
    #[error("no private key in PEM (`-----BEGIN PRIVATE KEY-----`)")]
    NoKey,
    /// Key and certificate are not for each other, or the key is of a kind that TLS doesn't use.
    #[error("the key is not the certificate's: {0}")]
    Mismatch(String),
    /// It has no certificate yet.
    #[error("there is no certificate yet{}", why.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    Missing {
        /// What keeps it from having one, where that is known.
        why: Option<String>,
    },
    /// The certificate is no longer, or not yet, valid.
    #[error("the certificate is not valid now; it has expired, or the clock is wrong")]
    NotValidNow,
}

/// A certificate chain and its private key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// The chain, the server's own first.
    pub chain: String,
    /// Its private key.
    pub key: String,
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pem(***)")
    }
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From here on.
    pub from: SystemTime,
    /// Up to here.
    pub to: SystemTime,
}

impl Validity {
    /// Of the first certificate in `pem`.
    ///
    /// # Errors
    /// [`CertificateError::NoCertificate`].
    pub fn of(pem: &str) -> Result<Self, CertificateError> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| CertificateError::NoCertificate)?;
        Self::of_der(&der)
    }

    fn of_der(der: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let (_, certificate) =
            parse_x509_certificate(der).map_err(|_| CertificateError::NoCertificate)?;
        let validity = certificate.validity();
        Ok(Self {
            from: time(validity.not_before.timestamp()),
            to: time(validity.not_after.timestamp()),
        })
    }

    /// Whether `now` is within.
    pub fn contains(&self, now: SystemTime) -> bool {
        self.from <= now && now <= self.to
    }
}

fn time(seconds: i64) -> SystemTime {
    // Before 1970 is long ago, however long.
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// The certificate in use.
#[derive(Default)]
pub struct Store {
    current: ArcSwapOption<Current>,
    /// Why there is none yet.
    missing: ArcSwapOption<String>,
}

struct Current {
    pem: Pem,
    key: Arc<CertifiedKey>,
    validity: Validity,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Uses `pem` for every handshake that begins from now on. `false`: it is in use already.
    ///
    /// # Errors
    /// [`CertificateError`]; the one in use stays.
    pub fn set(&self, pem: &Pem) -> Result<bool, CertificateError> {
        let current = self.current.load();
        if current.as_ref().is_some_and(|current| current.pem == *pem) {
            return Ok(false);
        }
        let (key, validity) = understand(pem)?;
        self.current.store(Some(Arc::new(Current {
            pem: pem.clone(),
            key: Arc::new(key),
            validity,
        })));
        Ok(true)
    }

    /// Notes why there is none yet. False where there is one, which stays in use.
    pub fn note_missing(&self, why: &str) -> bool {
        let is_missing = self.current.load().is_none();
        if is_missing {
            self.missing.store(Some(Arc::new(why.to_owned())));
        }
        is_missing
    }

    /// When the one in use ends.
    pub fn ends(&self) -> Option<SystemTime> {
        let current = self.current.load();
        current.as_ref().map(|current| current.validity.to)
    }

    /// Whether there is one that is valid now.
    ///
    /// # Errors
    /// [`CertificateError::Missing`] or [`CertificateError::NotValidNow`].
    pub fn check(&self) -> Result<(), CertificateError> {
        match &*self.current.load() {
            None => Err(CertificateError::Missing {
                why: self.missing.load().as_deref().cloned(),
            }),
            Some(current) if !current.validity.contains(SystemTime::now()) => {
                Err(CertificateError::NotValidNow)
            }
            Some(_) => Ok(()),
        }
    }
}

impl ResolvesServerCert for Store {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.load();
        current.as_ref().map(|current| Arc::clone(&current.key))
    }
}

fn understand(pem: &Pem) -> Result<(CertifiedKey, Validity), CertificateError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.chain.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| CertificateError::NoCertificate)?;
    let first = chain.first().ok_or(CertificateError::NoCertificate)?;
    let validity = Validity::of_der(first)?;
    let key =
        PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).map_err(|_| CertificateError::NoKey)?;
    let provider = rustls::crypto::ring::default_provider();
    let key = CertifiedKey::from_der(chain, key, &provider)
        .map_err(|error| CertificateError::Mismatch(error.to_string()))?;
    Ok((key, validity))
}
