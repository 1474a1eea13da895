//! An S3 server in this process, with the faults of the real world.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use policy::Credentials;
use policy::config::{S3Credentials, S3Store};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use testkit::certs::ServerCert;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::digest::Digest;

const BUCKET: &str = "images";

/// How it misbehaves.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Requests are taken and never answered.
    pub(crate) hangs: AtomicBool,
    /// Every request is answered with a 503.
    pub(crate) fails: AtomicBool,
    /// A PUT with a condition is answered with a 501.
    pub(crate) knows_no_conditions: AtomicBool,
    /// PUTs are refused.
    pub(crate) is_read_only: AtomicBool,
    /// Dies after so many more bytes of answers; zero is never.
    pub(crate) dies_after: AtomicU64,
    is_dead: AtomicBool,
}

/// The server. Dropping it ends it.
pub(crate) struct FakeBucket {
    pub(crate) faults: Arc<Faults>,
    url: String,
    requests: Arc<Mutex<Vec<(Method, String)>>>,
    dir: TempDir,
    _server: AbortOnDropHandle<()>,
}

impl FakeBucket {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// With TLS, by this certificate for `localhost`.
    pub(crate) async fn with_tls(certificate: &ServerCert) -> Self {
        let config = Arc::new(certificate.server_config().unwrap());
        Self::start_with(Some(TlsAcceptor::from(config))).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(dir.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single("key-id", "key-secret"));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let faults = Arc::<Faults>::default();
        let requests = Arc::<Mutex<Vec<_>>>::default();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://localhost:{}", address.port());
        let (serving_faults, recorded) = (Arc::clone(&faults), Arc::clone(&requests));
        let serving = serve(listener, tls, service, serving_faults, recorded);
        Self {
            faults,
            url,
            requests,
            dir,
            _server: AbortOnDropHandle::new(tokio::spawn(serving)),
        }
    }

    pub(crate) fn settings(&self) -> S3Store {
        S3Store {
            bucket: BUCKET.to_owned(),
            endpoint: Some(self.url.clone()),
            region: None,
            prefix: "edge".to_owned(),
            path_style: true,
            ca_file: None,
            unused_for: std::time::Duration::from_secs(3_600),
            credentials: Some(S3Credentials {
                key: Credentials::new("key-id", "key-secret"),
                session_token: None,
            }),
        }
    }

    /// The file that an object's bytes are in.
    pub(crate) fn file(&self, key: &str) -> PathBuf {
        self.dir.path().join(BUCKET).join("edge").join(key)
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.file(&format!("blobs/sha256/{}", digest.hex()))
    }

    /// Lets an object be as old as this.
    pub(crate) fn age(&self, file: &PathBuf, by: std::time::Duration) {
        let file = std::fs::File::options().append(true).open(file).unwrap();
        let then = std::time::SystemTime::now() - by;
        file.set_modified(then).unwrap();
    }

    /// Requests so far with this method whose path contains `part`.
    pub(crate) fn count(&self, method: &Method, part: &str) -> usize {
        let requests = self.requests.lock();
        let wanted = requests.iter();
        wanted
            .filter(|(asked, path)| asked == method && path.contains(part))
            .count()
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.faults.is_dead.load(Ordering::SeqCst)
    }
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    s3: S3Service,
    faults: Arc<Faults>,
    requests: Arc<Mutex<Vec<(Method, String)>>>,
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        if faults.is_dead.load(Ordering::SeqCst) {
            continue;
        }
        let (s3, faults, requests) = (s3.clone(), Arc::clone(&faults), Arc::clone(&requests));
        let tls = tls.clone();
        connections.spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let asked = (request.method().clone(), request.uri().path().to_owned());
                requests.lock().push(asked);
                let (s3, faults) = (s3.clone(), Arc::clone(&faults));
                async move { Ok::<_, Infallible>(answer(&s3, faults, request).await) }
            });
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            // A connection that breaks off is what is wanted here.
            match tls {
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        let stream = TokioIo::new(stream);
                        let _ = builder.serve_connection(stream, service).await;
                    }
                }
                None => {
                    let stream = TokioIo::new(stream);
                    let _ = builder.serve_connection(stream, service).await;
                }
            }
        });
    }
}

async fn answer(s3: &S3Service, faults: Arc<Faults>, request: Request<Incoming>) -> Response<Body> {
    if faults.hangs.load(Ordering::SeqCst) || faults.is_dead.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    let is_put = request.method() == Method::PUT;
    let is_conditional = request.headers().contains_key(http::header::IF_NONE_MATCH);
    let refused = match &*faults {
        f if f.fails.load(Ordering::SeqCst) => Some(StatusCode::SERVICE_UNAVAILABLE),
        f if is_put && f.is_read_only.load(Ordering::SeqCst) => Some(StatusCode::FORBIDDEN),
        f if is_put && is_conditional && f.knows_no_conditions.load(Ordering::SeqCst) => {
            Some(StatusCode::NOT_IMPLEMENTED)
        }
        _ => None,
    };
    if let Some(status) = refused {
        let text = "<Error><Code>Refused</Code><AWSAccessKeyId>key-id</AWSAccessKeyId></Error>";
        let body = http_body_util::Full::new(Bytes::from(text));
        let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
        *response.status_mut() = status;
        return response;
    }
    let request = request.map(s3s::Body::from);
    let response = s3.call(request).await.unwrap();
    response.map(|body| {
        let stream =
            futures_util::stream::unfold((body, faults), |(mut body, faults)| async move {
                let frame = match body.frame().await? {
                    Ok(frame) => frame,
                    Err(error) => return Some((Err(std::io::Error::other(error)), (body, faults))),
                };
                let data = frame.into_data().unwrap_or_default();
                let left = faults.dies_after.load(Ordering::SeqCst);
                if left > 0 && left <= data.len() as u64 {
                    faults.is_dead.store(true, Ordering::SeqCst);
                    let dead = std::io::Error::other("killed");
                    return Some((Err(dead), (body, faults)));
                }
                if left > 0 {
                    let left = left - data.len() as u64;
                    faults.dies_after.store(left, Ordering::SeqCst);
                }
                Some((Ok(Frame::data(data)), (body, faults)))
            });
        StreamBody::new(stream).boxed_unsync()
    })
}
