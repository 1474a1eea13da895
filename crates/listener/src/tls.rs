//! TLS settings that can change while the listener runs.

use std::fmt;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ResolvesServerCert, WebPkiClientVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
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
    /// [`Connection::certificate`](crate::Connection::certificate). Others are served too, also those that
    /// show another one: [`Connection::unfit_certificate`](crate::Connection::unfit_certificate).
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
    current: ArcSwap<Current>,
}

/// The settings that a handshake takes.
struct Current {
    config: Arc<ServerConfig>,
    /// Whose certificates are good, where others are served too.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

/// What a client has shown.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// Its certificate, which is good.
    pub(crate) certificate: Option<CertificateDer<'static>>,
    /// What is wrong with the one that it has shown.
    pub(crate) unfit: Option<String>,
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
        let current = current(Arc::clone(&certificates), protocols, clients)?;
        Ok(Self {
            certificates,
            protocols,
            current: ArcSwap::from_pointee(current),
        })
    }

    /// Asks clients for other certificates from now on.
    ///
    /// # Errors
    /// [`TlsError`]; what was asked for before still is.
    pub fn ask_for(&self, clients: &ClientCertificates) -> Result<(), TlsError> {
        let certificates = Arc::clone(&self.certificates);
        let current = current(certificates, self.protocols, clients)?;
        self.current.store(Arc::new(current));
        Ok(())
    }

    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Shown)> {
        let current = self.current.load_full();
        let acceptor = TlsAcceptor::from(Arc::clone(&current.config));
        let stream = acceptor.accept(stream).await?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let shown = current.shown(chain);
        Ok((stream, shown))
    }
}

impl Current {
    fn shown(&self, chain: &[CertificateDer<'_>]) -> Shown {
        let Some((own, above)) = chain.split_first() else {
            return Shown::default();
        };
        let verified = self.verifier.as_ref().map_or(Ok(()), |verifier| {
            let verified = verifier.verify_client_cert(own, above, UnixTime::now());
            verified.map(|_| ())
        });
        match verified {
            Ok(()) => Shown {
                certificate: Some(own.clone().into_owned()),
                unfit: None,
            },
            Err(error) => Shown {
                certificate: None,
                unfit: Some(error.to_string()),
            },
        }
    }
}

/// Lets every client in that holds the key of the certificate which it shows. Whether the certificate is good
/// is decided after the handshake, which could only end the connection: then a client whose certificate is out of
/// date, or of a CA before this one, would be worse off than one without any.
#[derive(Debug)]
struct Lenient(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Lenient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _own: &CertificateDer<'_>,
        _above: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn current(
    certificates: Arc<dyn ResolvesServerCert>,
    protocols: Protocols,
    clients: &ClientCertificates,
) -> Result<Current, TlsError> {
    let failed = |error: rustls::Error| TlsError::Settings(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = |pem: &str| {
        let roots = Arc::new(roots(pem)?);
        let provider = Arc::clone(&provider);
        let built = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
        built.map_err(|error| TlsError::Authority(error.to_string()))
    };
    let mut afterwards = None;
    let at_handshake: Arc<dyn ClientCertVerifier> = match clients {
        ClientCertificates::None => WebPkiClientVerifier::no_client_auth(),
        ClientCertificates::Optional(pem) => {
            let verifier = verifier(pem)?;
            afterwards = Some(Arc::clone(&verifier));
            Arc::new(Lenient(verifier))
        }
        ClientCertificates::Required(pem) => verifier(pem)?,
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_client_cert_verifier(at_handshake)
        .with_cert_resolver(certificates);
    config.alpn_protocols = match protocols {
        Protocols::Http1 => vec![b"http/1.1".to_vec()],
        Protocols::Http1AndHttp2 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    Ok(Current {
        config: Arc::new(config),
        verifier: afterwards,
    })
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
