//! A listener that runs, and clients.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use listener::certificate::{Pem, Store};
use listener::{ClientCertificates, Limits, Options, Protocols, Tls, reply};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use testkit::certs::{Ca, ServerCert, crypto};
use testkit::wait;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::AbortOnDropHandle;

pub(crate) const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// A request whose answer comes only when [`World::release`] is called.
pub(crate) const GET_LATER: &[u8] = b"GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n";
pub(crate) const NAME: &str = "listener.test";

/// A listener on loopback; it ends with this.
pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Arc<Tls>>,
    later: Arc<Semaphore>,
    pub(crate) asked: Arc<std::sync::atomic::AtomicUsize>,
    pub(crate) shutdown: Option<oneshot::Sender<()>>,
    pub(crate) server: AbortOnDropHandle<()>,
}

impl World {
    pub(crate) async fn plain(limits: Limits) -> Self {
        Self::start(limits, Protocols::Http1, None).await
    }

    /// With TLS and a certificate for [`NAME`].
    pub(crate) async fn tls(
        limits: Limits,
        protocols: Protocols,
        ca: &Ca,
        clients: ClientCertificates,
    ) -> Self {
        let store = Arc::new(Store::default());
        store.set(&pem(&ca.issue(&[NAME]).unwrap())).unwrap();
        let tls = Tls::new(store, protocols, &clients).unwrap();
        Self::start(limits, protocols, Some(Arc::new(tls))).await
    }

    async fn start(limits: Limits, protocols: Protocols, tls: Option<Arc<Tls>>) -> Self {
        let one = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = one.local_addr().unwrap();
        let options = Options {
            tls: tls.clone(),
            limits,
            ..Options::new("tests", protocols)
        };
        let (later, asked) = (Arc::new(Semaphore::new(0)), Arc::default());
        let (shutdown, wait) = oneshot::channel();
        let service = {
            let (later, asked) = (Arc::clone(&later), Arc::clone(&asked));
            service_fn(move |request| answer(request, Arc::clone(&later), Arc::clone(&asked)))
        };
        let server = listener::serve(vec![one], options, service, async {
            let _ = wait.await;
        });
        Self {
            address,
            tls,
            later,
            asked,
            shutdown: Some(shutdown),
            server: AbortOnDropHandle::new(tokio::spawn(server)),
        }
    }

    /// Lets one answer to [`GET_LATER`] come.
    pub(crate) fn release(&self) {
        self.later.add_permits(1);
    }

    /// Until so many requests have reached the service.
    pub(crate) async fn until_asked(&self, requests: usize) {
        wait::until("the requests have come", || async {
            (self.asked.load(std::sync::atomic::Ordering::Relaxed) >= requests).then_some(())
        })
        .await;
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A TLS client that trusts `ca` and shows `certificate`.
    pub(crate) async fn connect_tls(
        &self,
        ca: &Ca,
        protocol: &[u8],
        certificate: Option<&ServerCert>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap())
            .unwrap();
        let config = ClientConfig::builder_with_provider(crypto())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match certificate {
            None => config.with_no_client_auth(),
            Some(cert) => {
                let chain = CertificateDer::from_pem_slice(cert.cert_pem.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(cert.key_pem.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![chain], key).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let name = NAME.try_into().unwrap();
        connector.connect(name, self.connect().await).await
    }
}

async fn answer(
    request: Request<Incoming>,
    later: Arc<Semaphore>,
    asked: Arc<std::sync::atomic::AtomicUsize>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let connection = request.extensions().get::<Arc<listener::Connection>>();
    let unfit = connection.and_then(|connection| connection.unfit_certificate());
    let text = match connection.and_then(|connection| connection.certificate()) {
        _ if request.uri().path() == "/later" => {
            later.acquire().await.unwrap().forget();
            "late"
        }
        Some(_) => "known",
        None if unfit.is_some() => "unfit",
        None => "ok",
    };
    Ok(reply::text(StatusCode::OK, text))
}

pub(crate) fn pem(cert: &ServerCert) -> Pem {
    Pem {
        chain: cert.cert_pem.clone(),
        key: cert.key_pem.clone(),
    }
}

/// All that comes until the other side closes.
pub(crate) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(wait::TIMEOUT, stream.read_to_end(&mut answer));
    // A reset ends it as well.
    let _ = read.await.expect("the connection is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The head of an answer, and its body where that is one line.
pub(crate) async fn answered(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    while !text.ends_with('\n') || !text.contains("\r\n\r\n") || text.ends_with("\r\n") {
        let byte = tokio::time::timeout(wait::TIMEOUT, stream.read_u8());
        text.push(char::from(
            byte.await.expect("an answer").expect("an answer"),
        ));
    }
    text
}

/// Limits with so many connections, and times that no test waits for.
pub(crate) fn places(connections: usize) -> Limits {
    Limits {
        connections,
        head_timeout: Duration::from_secs(300),
        handshake_timeout: Duration::from_secs(300),
        lifetime: None,
        ..Limits::default()
    }
}
