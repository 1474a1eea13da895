//! A throw-away certificate authority and the server certificates that it signs.

use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate authority that nobody trusts until told to.
pub struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate of a server or client, with its key.
#[derive(Clone)]
pub struct ServerCert {
    /// The certificate, in PEM.
    pub cert_pem: String,
    /// Its private key, in PEM. Throw-away like all else here, so that it needs no masking.
    pub key_pem: String,
    cert: CertificateDer<'static>,
    key: Arc<PrivateKeyDer<'static>>,
}

impl Ca {
    /// Makes a new authority, different from any other.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params
            .distinguished_name
            .push(DnType::CommonName, "testkit throw-away CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)
            .context("making a certificate authority")?;
        Ok(Self { issuer })
    }

    /// The authority's certificate in PEM: what goes into a `caFile`.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Signs a certificate for these host names and IP addresses, good for decades. Give it other
    /// names than the server has, and it is one for the wrong host.
    pub fn issue(&self, names: &[&str]) -> Result<ServerCert> {
        self.sign(params_of(names)?, (2020, 1, 1), (2090, 1, 1))
    }

    /// Signs a certificate by which a client shows that it is `name`.
    pub fn issue_client(&self, name: &str) -> Result<ServerCert> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, (2020, 1, 1), (2090, 1, 1))
    }

    /// Signs a certificate that ended in 2021.
    pub fn issue_expired(&self, names: &[&str]) -> Result<ServerCert> {
        self.sign(params_of(names)?, (2020, 1, 1), (2021, 1, 1))
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        from: (i32, u8, u8),
        to: (i32, u8, u8),
    ) -> Result<ServerCert> {
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(to.0, to.1, to.2);
        let key = KeyPair::generate()?;
        let cert = params
            .signed_by(&key, &self.issuer)
            .context("signing a server certificate")?;
        let key_der = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|error| anyhow::anyhow!("the key of a server certificate: {error}"))?;
        Ok(ServerCert {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
            cert: cert.der().clone(),
            key: Arc::new(key_der),
        })
    }
}

fn params_of(names: &[&str]) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

impl ServerCert {
    /// What a rustls server needs to show this certificate. Offers HTTP/1.1 only.
    pub fn server_config(&self) -> Result<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(crypto())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![self.cert.clone()], self.key.clone_key())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The cryptography of all that testkit does with TLS; the process's default is left alone.
#[must_use]
pub fn crypto() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
