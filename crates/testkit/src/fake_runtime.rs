//! A CRI backend that can be told what to answer: for what containerd can't be made to show.
//!
//! It speaks `runtime.v1` and `runtime.v1alpha2` alike, on a unix socket in a directory of its own.
//! Images are names in a set; a pull adds one, a removal takes it away.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use bytes::{Bytes, BytesMut};
use futures_util::future::poll_fn;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use prost::Message;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::cri_api::{
    CreateContainerRequest, CreateContainerResponse, Empty, Image, ImageSpec, ImageStatusRequest,
    ImageStatusResponse, ListImagesResponse, PullImageRequest, PullImageResponse,
    RemoveImageRequest, RpcStatus, VersionResponse,
};
use crate::cri_client::frame;
use crate::images::digest;

/// Something it was asked.
#[derive(Clone, Debug)]
pub struct Received {
    /// `/runtime.v1.ImageService/PullImage`.
    pub path: String,
    /// The request's metadata.
    pub metadata: HeaderMap,
    /// `:authority`, as it came.
    pub authority: Option<String>,
    /// The first message, without its frame.
    pub message: Bytes,
    /// The first message's compressed flag.
    pub compressed: bool,
}

/// A running fake. Dropping it ends it.
pub struct FakeRuntime {
    shared: Arc<Shared>,
    server: Mutex<Option<JoinHandle<()>>>,
    socket: PathBuf,
    _dir: TempDir,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    cancellations: AtomicUsize,
    forgetful: AtomicBool,
    /// Changes when all connections are to be told to go away.
    retirements: watch::Sender<()>,
    /// Changes when a method is answered again.
    releases: watch::Sender<()>,
    /// Bytes of answers that clients had room for.
    sent: AtomicUsize,
}

#[derive(Default)]
struct State {
    received: Vec<Received>,
    /// ID by name.
    images: BTreeMap<String, String>,
    failures: HashMap<String, RpcStatus>,
    delays: HashMap<String, Duration>,
    hanging: HashSet<String>,
    resets: HashMap<String, Reason>,
    /// Names that ImageStatus and RemoveImage fail for.
    refused: HashMap<String, RpcStatus>,
    runtime_name: Option<String>,
    /// It has containerd's Images service, with these names and targets.
    names: Option<BTreeMap<String, Vec<u8>>>,
    /// A name that is gone after so many looks at it.
    vanishing: Option<(String, usize)>,
}

impl FakeRuntime {
    /// Starts one that has no images.
    pub async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("testkit-fake-runtime-")
            .tempdir()?;
        let runtime = Self {
            shared: Arc::default(),
            server: Mutex::new(None),
            socket: dir.path().join("runtime.sock"),
            _dir: dir,
        };
        runtime.start_again()?;
        Ok(runtime)
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Listens again after [`FakeRuntime::stop`].
    pub fn start_again(&self) -> Result<()> {
        let _ = std::fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket)?;
        let shared = Arc::clone(&self.shared);
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => {
                        connections.spawn(connection(stream, Arc::clone(&shared)));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        *self.server.lock() = Some(server);
        Ok(())
    }

    /// Ends every connection and refuses new ones, as a runtime that was killed.
    pub fn stop(&self) {
        if let Some(server) = self.server.lock().take() {
            server.abort();
        }
        let _ = std::fs::remove_file(&self.socket);
    }

    /// Has an image by a name; gives its ID.
    pub fn add_image(&self, name: &str) -> String {
        let id = digest(name.as_bytes());
        self.shared
            .state
            .lock()
            .images
            .insert(name.to_owned(), id.clone());
        id
    }

    /// Has `registry.example.com/team/image-N:1` for N below `count`.
    pub fn add_images(&self, count: usize) {
        for n in 0..count {
            self.add_image(&format!("registry.example.com/team/image-{n}:1"));
        }
    }

    /// Fails calls of a method (`PullImage`) or, for pulls, of an image name with a status.
    pub fn fail(&self, what: &str, status: RpcStatus) {
        self.shared
            .state
            .lock()
            .failures
            .insert(what.to_owned(), status);
    }

    /// Holds answers of a method back for this long.
    pub fn set_delay(&self, method: &str, delay: Duration) {
        self.shared
            .state
            .lock()
            .delays
            .insert(method.to_owned(), delay);
    }

    /// Fails ImageStatus and RemoveImage of an image name with a status, as CRI-O does with short names.
    pub fn refuse_name(&self, name: &str, status: RpcStatus) {
        self.shared
            .state
            .lock()
            .refused
            .insert(name.to_owned(), status);
    }

    /// Who it says it is in `Version`; `fake` at first.
    pub fn set_runtime_name(&self, name: &str) {
        self.shared.state.lock().runtime_name = Some(name.to_owned());
    }

    /// Lets it have containerd's service for names of images. Pulled images are in there; names that are made
    /// there are images of the CRI.
    pub fn keep_names(&self) {
        self.shared.state.lock().names = Some(BTreeMap::new());
    }

    /// The names in that service.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let state = self.shared.state.lock();
        state
            .names
            .iter()
            .flat_map(BTreeMap::keys)
            .cloned()
            .collect()
    }

    /// Removes a name in that service after it was looked at so many times.
    pub fn vanish(&self, name: &str, looks: usize) {
        self.shared.state.lock().vanishing = Some((name.to_owned(), looks));
    }

    /// Answers no call of a method until [`FakeRuntime::answer`].
    pub fn hang(&self, method: &str) {
        self.shared.state.lock().hanging.insert(method.to_owned());
    }

    /// Resets calls of a method instead of answering them.
    pub fn reset(&self, method: &str, reason: Reason) {
        self.shared
            .state
            .lock()
            .resets
            .insert(method.to_owned(), reason);
    }

    /// Tells the clients of all connections to open new ones (GOAWAY), as a runtime that limits their
    /// age. Calls in flight end as usual.
    pub fn retire_connections(&self) {
        self.shared.retirements.send_replace(());
    }

    /// Answers a method again, at once; calls that hang as well.
    pub fn answer(&self, method: &str) {
        let mut state = self.shared.state.lock();
        state.hanging.remove(method);
        state.delays.remove(method);
        state.failures.remove(method);
        state.resets.remove(method);
        drop(state);
        self.shared.releases.send_replace(());
    }

    /// Whether requests are kept for [`FakeRuntime::requests`]: on at first, off for a bench.
    pub fn record(&self, on: bool) {
        self.shared.forgetful.store(!on, Ordering::Relaxed);
    }

    /// All requests so far, in the order in which their messages came.
    #[must_use]
    pub fn requests(&self) -> Vec<Received> {
        self.shared.state.lock().received.clone()
    }

    /// Forgets all requests so far.
    pub fn clear_requests(&self) {
        self.shared.state.lock().received.clear();
    }

    /// Requests of a method so far.
    #[must_use]
    pub fn count(&self, method: &str) -> usize {
        let is_of_method = |path: &str| path.rsplit('/').next() == Some(method);
        let state = self.shared.state.lock();
        let of_method = state.received.iter().filter(|r| is_of_method(&r.path));
        of_method.count()
    }

    /// Bytes of answers that its clients had room for so far.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Calls that the client reset before they were answered.
    #[must_use]
    pub fn cancellations(&self) -> usize {
        self.shared.cancellations.load(Ordering::Relaxed)
    }
}

impl Drop for FakeRuntime {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn connection(stream: UnixStream, shared: Arc<Shared>) {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(8 << 20)
        .initial_connection_window_size(64 << 20)
        .max_concurrent_streams(10_000);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
        return;
    };
    let mut calls = JoinSet::new();
    let mut retirements = shared.retirements.subscribe();
    loop {
        tokio::select! {
            Ok(()) = retirements.changed() => connection.graceful_shutdown(),
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    calls.spawn(call(request, respond, Arc::clone(&shared)));
                }
                // Calls that were answered may still be on their way out.
                _ => return while calls.join_next().await.is_some() {},
            },
            Some(_) = calls.join_next() => {}
        }
    }
}

async fn call(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, shared: Arc<Shared>) {
    let (head, mut body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let method = path.rsplit('/').next().unwrap_or_default().to_owned();
    if method.starts_with("Echo") {
        return echo(&head.headers, body, respond).await;
    }
    let Some(received) = read(&mut body).await else {
        shared.cancellations.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let message = received.get(5..).map(Bytes::copy_from_slice);
    let message = message.unwrap_or_default();
    let mut releases = shared.releases.subscribe();
    let delay = {
        let mut state = shared.state.lock();
        if !shared.forgetful.load(Ordering::Relaxed) {
            state.received.push(Received {
                path: path.clone(),
                metadata: head.headers.clone(),
                authority: head.uri.authority().map(ToString::to_string),
                compressed: received.first() == Some(&1),
                message: message.clone(),
            });
        }
        state.delays.get(&method).copied()
    };
    let wait = async {
        while shared.state.lock().hanging.contains(&method) {
            // The sender lives as long as the fake.
            let _ = releases.changed().await;
        }
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
    };
    tokio::select! {
        _ = poll_fn(|cx| respond.poll_reset(cx)) => {
            shared.cancellations.fetch_add(1, Ordering::Relaxed);
            return;
        }
        () = wait => {}
    }
    let reset = shared.state.lock().resets.get(&method).copied();
    if let Some(reason) = reset {
        return respond.send_reset(reason);
    }
    match method.as_str() {
        "Stream" => return stream(respond, &shared).await,
        "GetContainerEvents" | "Silent" => return silent_stream(respond, &shared).await,
        _ => {}
    }
    let answer = if path.starts_with("/containerd.services.images.v1.Images/") {
        names_call(&method, &message, &shared)
    } else {
        answer(&method, &message, &shared)
    };
    match answer {
        Ok(message) => {
            if let Some(mut to) = begin(&mut respond) {
                let mut framed = frame(&message);
                if method == "StreamImages" {
                    framed = in_pieces(&message);
                }
                if send(&mut to, framed, &shared.sent).await.is_err() {
                    shared.cancellations.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                let _ = to.send_trailers(trailers(0, ""));
            }
        }
        Err(status) => fail(&mut respond, &status),
    }
}

fn answer(method: &str, message: &Bytes, shared: &Shared) -> Result<Vec<u8>, RpcStatus> {
    let mut state = shared.state.lock();
    if let Some(status) = state.failures.get(method) {
        return Err(status.clone());
    }
    let bad = |error: prost::DecodeError| RpcStatus {
        code: 13,
        message: error.to_string(),
        details: Vec::new(),
    };
    let name = |spec: Option<ImageSpec>| spec.unwrap_or_default().image;
    Ok(match method {
        "PullImage" => {
            let request = PullImageRequest::decode(message.clone()).map_err(bad)?;
            let name = name(request.image);
            if let Some(status) = state.failures.get(&name) {
                return Err(status.clone());
            }
            let image_ref = digest(name.as_bytes());
            if let Some(names) = &mut state.names {
                names.insert(name.clone(), descriptor(&image_ref));
            }
            state.images.insert(name, image_ref.clone());
            PullImageResponse { image_ref }.encode_to_vec()
        }
        "ImageStatus" => {
            let request = ImageStatusRequest::decode(message.clone()).map_err(bad)?;
            let name = name(request.image);
            if let Some(status) = state.refused.get(&name) {
                return Err(status.clone());
            }
            let image = state
                .images
                .iter()
                .find(|(known, id)| **known == name || **id == name)
                .map(|(known, id)| image(known, id));
            let info = HashMap::new();
            ImageStatusResponse { image, info }.encode_to_vec()
        }
        "RemoveImage" => {
            let request = RemoveImageRequest::decode(message.clone()).map_err(bad)?;
            let name = name(request.image);
            if let Some(status) = state.refused.get(&name) {
                return Err(status.clone());
            }
            state
                .images
                .retain(|known, id| *known != name && *id != name);
            Empty {}.encode_to_vec()
        }
        "CreateContainer" => {
            let request = CreateContainerRequest::decode(message.clone()).map_err(bad)?;
            let name = name(request.config.unwrap_or_default().image);
            let known = |(known, id): (&String, &String)| *known == name || *id == name;
            if !state.images.iter().any(known) {
                return Err(RpcStatus {
                    code: 5,
                    message: format!("failed to resolve image {name:?}: not found"),
                    details: Vec::new(),
                });
            }
            CreateContainerResponse {
                container_id: format!("container of {name}"),
            }
            .encode_to_vec()
        }
        "ListImages" | "StreamImages" => {
            let images = state.images.iter().map(|(name, id)| image(name, id));
            ListImagesResponse {
                images: images.collect(),
            }
            .encode_to_vec()
        }
        "Version" => VersionResponse {
            version: "0.1.0".into(),
            runtime_name: state.runtime_name.clone().unwrap_or_else(|| "fake".into()),
            runtime_version: "1.0".into(),
            runtime_api_version: "v1".into(),
        }
        .encode_to_vec(),
        // As many bytes as the request says in decimal.
        "Large" => {
            let length = std::str::from_utf8(message)
                .ok()
                .and_then(|n| n.parse().ok());
            vec![7; length.unwrap_or(0)]
        }
        "ImageFsInfo" => Vec::new(),
        _ => {
            return Err(RpcStatus {
                code: 12,
                message: format!("unknown method {method}"),
                details: Vec::new(),
            });
        }
    })
}

/// containerd's Images service, as far as it is needed.
fn names_call(method: &str, message: &Bytes, shared: &Shared) -> Result<Vec<u8>, RpcStatus> {
    let refused = |code, message: &str| RpcStatus {
        code,
        message: message.to_owned(),
        details: Vec::new(),
    };
    let mut state = shared.state.lock();
    let State {
        names: Some(names),
        images,
        vanishing,
        ..
    } = &mut *state
    else {
        return Err(refused(
            12,
            "unknown service containerd.services.images.v1.Images",
        ));
    };
    let bad = |_| refused(13, "bad message");
    if matches!(method, "Get" | "Delete") {
        let name = NameMessage::decode(message.clone()).map_err(bad)?.name;
        if method == "Delete" {
            images.remove(&name);
            let known = names.remove(&name);
            return known
                .map(|_| Vec::new())
                .ok_or_else(|| refused(5, "not found"));
        }
        if let Some((gone, looks)) = vanishing.as_mut().filter(|(gone, _)| *gone == name) {
            if *looks == 0 {
                names.remove(gone);
                images.remove(gone);
            }
            *looks = looks.saturating_sub(1);
        }
        let target = names.get(&name).cloned();
        let target = target.ok_or_else(|| refused(5, "not found"))?;
        let image = Some(NamedImage {
            name,
            target: Some(target),
        });
        return Ok(NamedImageMessage { image }.encode_to_vec());
    }
    let image = NamedImageMessage::decode(message.clone())
        .map_err(bad)?
        .image;
    let image = image.ok_or_else(|| refused(3, "no image"))?;
    let target = image.target.clone().unwrap_or_default();
    let id = NameMessage::decode_second(&target);
    match (method, names.contains_key(&image.name)) {
        ("Create", true) => return Err(refused(6, "already exists")),
        ("Update", false) => return Err(refused(5, "not found")),
        _ => {}
    }
    names.insert(image.name.clone(), target);
    images.insert(image.name.clone(), id);
    let image = Some(image);
    Ok(NamedImageMessage { image }.encode_to_vec())
}

#[derive(Clone, PartialEq, Message)]
struct NameMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    digest: String,
}

impl NameMessage {
    /// The digest in a descriptor.
    fn decode_second(descriptor: &[u8]) -> String {
        Self::decode(descriptor).map_or_else(|_| String::new(), |read| read.digest)
    }
}

#[derive(Clone, PartialEq, Message)]
struct NamedImage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "vec", optional, tag = "3")]
    target: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedImageMessage {
    #[prost(message, optional, tag = "1")]
    image: Option<NamedImage>,
}

fn descriptor(digest: &str) -> Vec<u8> {
    NameMessage {
        name: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        digest: digest.to_owned(),
    }
    .encode_to_vec()
}

/// A list as a stream of messages with one image each.
fn in_pieces(message: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    for image in ListImagesResponse::decode(message)
        .unwrap_or_default()
        .images
    {
        let images = vec![image];
        out.extend_from_slice(&frame(&ListImagesResponse { images }.encode_to_vec()));
    }
    out.freeze()
}

fn image(name: &str, id: &str) -> Image {
    Image {
        id: id.to_owned(),
        repo_tags: vec![name.to_owned()],
        repo_digests: vec![format!("{name}@{id}")],
        size: 12_345,
        ..Image::default()
    }
}

/// Sends what comes, message for message, metadata that begins with `x-` included.
async fn echo(headers: &HeaderMap, mut body: RecvStream, mut respond: SendResponse<Bytes>) {
    let mut response = response();
    for (name, value) in headers {
        if name.as_str().starts_with("x-") || name == "grpc-encoding" {
            response.headers_mut().append(name.clone(), value.clone());
        }
    }
    let Ok(mut to) = respond.send_response(response, false) else {
        return;
    };
    while let Some(Ok(chunk)) = poll_fn(|cx| body.poll_data(cx)).await {
        let _ = body.flow_control().release_capacity(chunk.len());
        if send(&mut to, chunk, &AtomicUsize::new(0)).await.is_err() {
            return;
        }
    }
    let mut trailers = trailers(0, "");
    trailers.insert("x-trailer", HeaderValue::from_static("at the end"));
    let _ = to.send_trailers(trailers);
}

/// One message every few milliseconds until the client goes away.
async fn stream(mut respond: SendResponse<Bytes>, shared: &Shared) {
    let Some(mut to) = begin(&mut respond) else {
        return;
    };
    for n in 0u64.. {
        let ended = poll_fn(|cx| match to.poll_reset(cx) {
            std::task::Poll::Ready(_) => std::task::Poll::Ready(true),
            std::task::Poll::Pending => std::task::Poll::Ready(false),
        });
        let message = frame(&n.to_be_bytes());
        if ended.await || send(&mut to, message, &shared.sent).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shared.cancellations.fetch_add(1, Ordering::Relaxed);
}

/// One message, and then nothing until the client goes away.
async fn silent_stream(mut respond: SendResponse<Bytes>, shared: &Shared) {
    let Some(mut to) = begin(&mut respond) else {
        return;
    };
    if send(&mut to, frame(b"event"), &shared.sent).await.is_ok() {
        let _ = poll_fn(|cx| to.poll_reset(cx)).await;
    }
    shared.cancellations.fetch_add(1, Ordering::Relaxed);
}

fn begin(respond: &mut SendResponse<Bytes>) -> Option<SendStream<Bytes>> {
    respond.send_response(response(), false).ok()
}

fn response() -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    response
}

fn fail(respond: &mut SendResponse<Bytes>, status: &RpcStatus) {
    use base64::Engine;
    let mut response = response();
    let headers = response.headers_mut();
    headers.extend(trailers(status.code, &status.message));
    if !status.details.is_empty() {
        let details =
            base64::engine::general_purpose::STANDARD_NO_PAD.encode(status.encode_to_vec());
        if let Ok(details) = HeaderValue::try_from(details) {
            headers.insert("grpc-status-details-bin", details);
        }
    }
    let _ = respond.send_response(response, true);
}

fn trailers(code: i32, message: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(code));
    let encoded = percent_encoding::utf8_percent_encode(message, percent_encoding::CONTROLS);
    if let Ok(message) = HeaderValue::try_from(encoded.to_string()) {
        trailers.insert("grpc-message", message);
    }
    trailers
}

/// Sends as the receiver has room; `sent` counts what it had room for.
async fn send(
    to: &mut SendStream<Bytes>,
    mut data: Bytes,
    sent: &AtomicUsize,
) -> Result<(), h2::Error> {
    while !data.is_empty() {
        to.reserve_capacity(data.len());
        let room = match poll_fn(|cx| to.poll_capacity(cx)).await {
            Some(room) => room?,
            None => return Err(h2::Reason::CANCEL.into()),
        };
        let piece = data.split_to(room.min(data.len()));
        sent.fetch_add(piece.len(), Ordering::Relaxed);
        to.send_data(piece, false)?;
    }
    Ok(())
}

/// The whole body; `None` when the client broke off.
async fn read(body: &mut RecvStream) -> Option<Bytes> {
    let mut all = BytesMut::new();
    while let Some(chunk) = poll_fn(|cx| body.poll_data(cx)).await {
        let chunk = chunk.ok()?;
        let _ = body.flow_control().release_capacity(chunk.len());
        all.extend_from_slice(&chunk);
    }
    Some(all.freeze())
}
