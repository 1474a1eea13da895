//! The client of the bucket's server, as the config wants it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::client::{HttpClient, HttpConnector};
use object_store::{ClientOptions, RetryConfig};
use policy::ProxySettings;
use policy::config::S3Store;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::Bucket;

/// Until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A kept connection may be idle for so long between two requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Idle connections that are kept.
const MAX_IDLE: usize = 8;
/// More than any list of certificates, in bytes; a mistaken path is refused instead of read.
const MAX_PEM: u64 = 1 << 20;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// The file with the server's CAs can't be used.
    #[error("nodeCache.store.s3.caFile: cannot use {file}: {reason}", file = file.display())]
    CaFile {
        /// Which.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// The settings make no client.
    #[error("nodeCache.store.s3: {0}")]
    Settings(String),
}

/// Opens a bucket, on the way that this process's proxies leave to it. Nothing is sent yet: whether it is there
/// shows when it is asked.
///
/// # Errors
/// [`BucketError`].
pub fn open(settings: &S3Store) -> Result<Bucket, BucketError> {
    let proxies = ProxySettings::from_lookup(|name| std::env::var(name).ok());
    open_through(settings, proxies)
}

pub(super) fn open_through(
    settings: &S3Store,
    proxies: ProxySettings,
) -> Result<Bucket, BucketError> {
    let wrong =
        |error: object_store::Error| BucketError::Settings(super::one_line(&error.to_string()));
    let mut builder = match &settings.credentials {
        Some(credentials) => {
            let key = &credentials.key;
            let builder = AmazonS3Builder::new()
                .with_access_key_id(key.username())
                .with_secret_access_key(key.expose_password());
            match &credentials.session_token {
                Some(token) => builder.with_token(token.expose_password()),
                None => builder,
            }
        }
        // What the environment or the machine gives.
        None => AmazonS3Builder::from_env(),
    };
    builder = builder
        .with_bucket_name(&settings.bucket)
        .with_virtual_hosted_style_request(!settings.path_style)
        .with_allow_http(true)
        // Not every server knows how to delete many at once.
        .with_disable_bulk_delete(true)
        // Who asks has another source, and knows how long to wait.
        .with_retry(RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        })
        .with_http_connector(Connector(http_client(settings, proxies)?));
    if let Some(region) = &settings.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint_of(endpoint, settings));
    }
    let objects = builder.build().map_err(wrong)?;
    Ok(Bucket::new(Arc::new(objects), &settings.prefix))
}

/// The server's URL; with the bucket in the host's name where it stands there.
fn endpoint_of(endpoint: &str, settings: &S3Store) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    match endpoint.split_once("://") {
        Some((scheme, host)) if !settings.path_style => {
            format!("{scheme}://{}.{host}", settings.bucket)
        }
        _ => endpoint.to_owned(),
    }
}

/// Gives every part of the client the same connections.
#[derive(Debug)]
struct Connector(reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

fn http_client(settings: &S3Store, proxies: ProxySettings) -> Result<reqwest::Client, BucketError> {
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls(settings, &proxies)?)
        // By the rules that registries are asked by, not by the client's own.
        .no_proxy()
        .proxy(reqwest::Proxy::custom(move |url| {
            proxies.for_url(url).cloned()
        }))
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE)
        // A signature is for one host.
        .redirect(reqwest::redirect::Policy::none())
        .build();
    client.map_err(|error| BucketError::Settings(error.to_string()))
}

/// TLS with the system's CAs and those of `caFile`. Blocking.
fn tls(settings: &S3Store, proxies: &ProxySettings) -> Result<ClientConfig, BucketError> {
    let mut roots = RootCertStore::empty();
    let endpoint = settings.endpoint.as_ref();
    if proxies.speaks_tls() || endpoint.is_none_or(|url| url.starts_with("https:")) {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
    }
    if let Some(file) = &settings.ca_file {
        let unusable = |reason: String| BucketError::CaFile {
            file: file.clone(),
            reason,
        };
        let pem =
            files::read_regular(file, MAX_PEM).map_err(|error| unusable(error.to_string()))?;
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| unusable(error.to_string()))?;
            count += 1;
        }
        if count == 0 {
            return Err(unusable("it has no certificate".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| BucketError::Settings(error.to_string()))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    // Many ranges of one blob at once go faster over connections of their own.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
