//! TLS settings that can change while the listener runs.

use std::fmt;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ResolvesServerCert, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::protocols::Protocols;

/// Which certificates clients are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// None.
    #[default]
    None,
    /// One that a CA in this PEM text has signed, from clients that have one; see
    /// [`Connection::certificate`](crate::Connection::certificate). Others are served too.
    Optional(String),
    /// One that a CA in this PEM text has signed. Others get no connection.
    Required(String),
}

/// Why TLS can't be set up so.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TlsError {
    /// No CA, or one that can't be used.
    #[error("no CA certificate in PEM (`-----BEGIN CERTIFICATE-----`): {0}")]
    Authority(String),
    /// The TLS library refuses its own defaults, which depends on nothing from outside.
    #[error("cannot set up TLS: {0}")]
    Settings(String),
}

/// A listener's side of TLS. A handshake takes the settings and the certificate that are there when it
/// begins; a connection keeps what it began with.
pub struct Tls {
    certificates: Arc<dyn ResolvesServerCert>,
    protocols: Protocols,
    current: ArcSwap<ServerConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Serves the certificate that `certificates` gives, as a [`Store`](crate::certificate::Store) does;
    /// without one, handshakes fail.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(
        certificates: Arc<impl ResolvesServerCert + 'static>,
        protocols: Protocols,
        clients: &ClientCertificates,
    ) -> Result<Self, TlsError> {
        let certificates: Arc<dyn ResolvesServerCert> = certificates;
        let config = config(Arc::clone(&certificates), protocols, clients)?;
        Ok(Self {
            certificates,
            protocols,
            current: ArcSwap::from_pointee(config),
        })
    }

    /// Asks clients for other certificates from now on.
    ///
    /// # Errors
    /// [`TlsError`]; what was asked for before still is.
    pub fn ask_for(&self, clients: &ClientCertificates) -> Result<(), TlsError> {
        let certificates = Arc::clone(&self.certificates);
        let config = config(certificates, self.protocols, clients)?;
        self.current.store(Arc::new(config));
        Ok(())
    }

    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.current.load_full());
        acceptor.accept(stream).await
    }
}

fn config(
    certificates: Arc<dyn ResolvesServerCert>,
    protocols: Protocols,
    clients: &ClientCertificates,
) -> Result<ServerConfig, TlsError> {
    let failed = |error: rustls::Error| TlsError::Settings(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = |pem: &str| {
        let roots = roots(pem)?;
        Ok(WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&provider),
        ))
    };
    let unusable = |error: &dyn fmt::Display| TlsError::Authority(error.to_string());
    let verifier = match clients {
        ClientCertificates::None => WebPkiClientVerifier::no_client_auth(),
        ClientCertificates::Optional(pem) => {
            let verifier = verifier(pem)?.allow_unauthenticated();
            verifier.build().map_err(|error| unusable(&error))?
        }
        ClientCertificates::Required(pem) => {
            verifier(pem)?.build().map_err(|error| unusable(&error))?
        }
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificates);
    config.alpn_protocols = match protocols {
        Protocols::Http1 => vec![b"http/1.1".to_vec()],
        Protocols::Http1AndHttp2 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    Ok(config)
}

fn roots(pem: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| TlsError::Authority(error.to_string()))?;
        let added = roots.add(certificate);
        added.map_err(|error| TlsError::Authority(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(TlsError::Authority("the text has none".to_owned()));
    }
    Ok(roots)
}
