//! What any Pod of the cluster could send, to the binary as it runs: memory, and answers to others meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use testkit::admission::{NAME, client, review_of, url};
use testkit::certs::{Ca, crypto};
use testkit::fake_registry::FakeRegistry;
use testkit::images::Image;
use testkit::wait::until;
use testkit::webhook::Webhook;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{file_args, prepared, start};

/// The Deployment's limit.
const MEMORY_LIMIT: u64 = 128 << 20;

struct World {
    webhook: Webhook,
    ca: Ca,
    _dir: tempfile::TempDir,
}

async fn world() -> World {
    world_of(None).await
}

async fn world_of(config: Option<&str>) -> World {
    let ca = Ca::new().unwrap();
    let dir = prepared(&ca);
    if let Some(config) = config {
        std::fs::write(dir.path().join("config.yaml"), config).unwrap();
    }
    let webhook = start(&file_args(&dir), &[]).await;
    webhook.until_ready().await;
    World {
        webhook,
        ca,
        _dir: dir,
    }
}

impl World {
    /// The largest size that the process has had in memory.
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.webhook.pid()));
        let status = status.unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib: u64 = line
            .unwrap()
            .split_ascii_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        kib << 10
    }

    fn stays_within_its_limit(&self) {
        let peak = self.peak();
        println!("at most {} MiB", peak >> 20);
        assert!(peak < MEMORY_LIMIT, "{peak}");
    }

    async fn connect(&self, protocol: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        connect(self.webhook.address(), &self.ca, protocol).await
    }

    /// The status that a review of this body gets.
    async fn post(&self, body: Vec<u8>) -> u16 {
        let client = client(self.webhook.address(), &[&self.ca.pem()]).unwrap();
        let response = client.post(url()).body(body).send().await.unwrap();
        response.status().as_u16()
    }

    /// An API server's review, which must be answered whatever the others do.
    async fn is_answered(&self) {
        let image = until("a review is answered", || async {
            self.webhook.rewritten("nats:1", &[&self.ca.pem()]).await
        });
        assert!(image.await.ends_with("/nats:1"));
        assert_eq!(self.webhook.health("/healthz").await.unwrap().0, 200);
    }
}

async fn connect(
    address: SocketAddr,
    ca: &Ca,
    protocol: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap();
    roots.add(root).unwrap();
    let mut config = ClientConfig::builder_with_provider(crypto())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(address).await?;
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(NAME.try_into().unwrap(), stream).await
}

#[tokio::test]
async fn heads_without_bodies_reserve_nothing() {
    let world = world().await;
    let mut held = Vec::new();
    for _ in 0..64 {
        let mut stream = world.connect(b"http/1.1").await.unwrap();
        let head =
            "POST /mutate?timeout=30s HTTP/1.1\r\nHost: x\r\nContent-Length: 8388608\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        held.push(stream);
    }
    world.is_answered().await;
    world.stays_within_its_limit();
}

#[tokio::test]
async fn bodies_that_come_slowly_give_way_and_fill_no_memory() {
    let world = world().await;
    let mut senders = tokio::task::JoinSet::new();
    // 64 × 7 MiB is more than three times the limit.
    for _ in 0..64 {
        let mut stream = world.connect(b"http/1.1").await.unwrap();
        senders.spawn(async move {
            let head =
                "POST /mutate?timeout=30s HTTP/1.1\r\nHost: x\r\nContent-Length: 8388608\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&vec![b' '; 7 << 20]).await;
            // And never the rest.
            std::future::pending::<()>().await;
        });
    }
    for _ in 0..5 {
        world.is_answered().await;
    }
    senders.shutdown().await;
    world.stays_within_its_limit();
}

#[tokio::test]
async fn idle_connections_give_way() {
    let world = world().await;
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let stream = world.connect(b"h2").await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        // Driven, it answers PINGs.
        held.spawn(async move {
            let _client = client;
            let _ = connection.await;
        });
    }
    world.is_answered().await;
    world.stays_within_its_limit();
}

/// Many small heads at one time on each of many connections.
#[tokio::test]
async fn streams_without_bodies_fill_no_memory() {
    let world = world().await;
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..128 {
        let stream = world.connect(b"h2").await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        held.spawn(async move {
            let driving = tokio::spawn(connection);
            let mut streams = Vec::new();
            for _ in 0..32 {
                let request = http::Request::post("https://x/mutate?timeout=30s");
                let request = request.header("x", "x".repeat(6 << 10)).body(()).unwrap();
                let Ok(ready) = client.clone().ready().await else {
                    break;
                };
                client = ready;
                let Ok(stream) = client.send_request(request, false) else {
                    break;
                };
                streams.push(stream);
            }
            let _ = driving.await;
        });
    }
    world.is_answered().await;
    held.shutdown().await;
    world.stays_within_its_limit();
}

#[tokio::test]
async fn reviews_that_are_heavy_to_read() {
    let world = world().await;
    let review = |object: serde_json::Value| {
        let mut review = review_of("nats:1");
        review["request"]["object"] = object;
        review.to_string().into_bytes()
    };
    let many = |one: serde_json::Value, count: usize| serde_json::Value::Array(vec![one; count]);
    let notes = |count: usize| -> serde_json::Value {
        let notes = (0..count).map(|at| (at.to_string(), json!("")));
        serde_json::Value::Object(notes.collect())
    };
    let bodies = [
        // 1.3 MB and 8 MB of the smallest containers that there are.
        review(json!({"spec": {"containers": many(json!({"image": ""}), 90_000)}})),
        review(json!({"spec": {"containers": many(json!({}), 2_700_000)}})),
        review(
            json!({"spec": {"initContainers": many(json!({"name": "a", "image": "b"}), 300_000)}}),
        ),
        review(json!({"spec": {"volumes": many(json!({"image": {}}), 600_000)}})),
        review(json!({"spec": {"imagePullSecrets": many(json!({"name": "a"}), 500_000)}})),
        review(json!({"metadata": {"annotations": notes(600_000)}})),
        review(
            json!({"metadata": {"labels": notes(400_000), "ownerReferences": many(json!({}), 700_000)}}),
        ),
        review(
            json!({"metadata": {"annotations": {"image-cri-shim/original-images": notes(400_000).to_string()}}}),
        ),
    ];
    let posting = bodies.iter().map(|body| async {
        assert!(body.len() < 8 << 20, "{}", body.len());
        // Twice each, so that they are read beside each other; some wait longer than they have.
        for _ in 0..2 {
            let status = world.post(body.clone()).await;
            assert!(matches!(status, 200 | 408 | 503), "{status}");
        }
    });
    let (_, ()) = tokio::join!(futures_util::future::join_all(posting), async {
        for _ in 0..20 {
            assert_eq!(world.webhook.health("/healthz").await.unwrap().0, 200);
        }
    });
    // Each by itself is admitted.
    for body in bodies {
        let status = until("it is read", || async {
            Some(world.post(body.clone()).await).filter(|status| !matches!(status, 408 | 503))
        });
        assert_eq!(status.await, 200);
    }
    world.is_answered().await;
    world.stays_within_its_limit();
}

/// A registry that has only `nats:1`, slowly.
fn slow_registry() -> FakeRegistry {
    let registry = FakeRegistry::start().unwrap();
    registry.add(&Image::new("nats"), "library/nats", "1");
    registry.set_delay(Duration::from_secs(1));
    registry
}

fn best_of(registries: &[FakeRegistry]) -> String {
    let urls = registries
        .iter()
        .map(|r| format!("{{address: '{}'}}", r.url()));
    let urls: Vec<_> = urls.collect();
    format!("rewrite: best\nregistries: [{}]\n", urls.join(", "))
}

/// A review of 500 images that no other review has.
fn distinct(review: usize, name: &dyn Fn(usize) -> String) -> Vec<u8> {
    let containers = (0..500).map(
        |at| json!({"name": name(at), "image": format!("a{review}-{at}.example.com/x/y:{at}")}),
    );
    let mut body = review_of("nats:1");
    body["request"]["object"]["spec"]["containers"] = containers.collect();
    body.to_string().into_bytes()
}

/// Posts all of them at one time, over a few connections, each with more time than an API server gives.
async fn at_once(world: &World, bodies: Vec<Vec<u8>>) {
    let address = url().replace("5s", "10s");
    let connect = || client(world.webhook.address(), &[&world.ca.pem()]).unwrap();
    let clients: Vec<_> = (0..10).map(|_| connect()).collect();
    for client in &clients {
        // From then on there is a connection that takes many requests at one time.
        client.post(&address).send().await.unwrap();
    }
    let mut posts = tokio::task::JoinSet::new();
    for (body, client) in bodies.into_iter().zip(clients.iter().cycle()) {
        let request = client.post(&address).body(body);
        posts.spawn(async move { request.send().await.map(|r| r.status().as_u16()) });
    }
    for _ in 0..3 {
        world.is_answered().await;
    }
    let mut statuses = Vec::new();
    while let Some(status) = posts.join_next().await {
        // A connection may have had to give way.
        statuses.extend(status.unwrap());
    }
    let has = |wanted: u16| statuses.contains(&wanted);
    assert!(has(200), "{statuses:?}");
    let others = |status: &u16| matches!(status, 200 | 408 | 503);
    assert!(statuses.iter().all(others), "{statuses:?}");
    world.stays_within_its_limit();
}

#[tokio::test]
async fn names_that_are_kept_while_registries_are_asked() {
    let registries = [slow_registry()];
    let world = world_of(Some(&best_of(&registries))).await;
    // 7 MB each: longer than names may be, and as long as they may be.
    let long = |at| format!("{}{at:03}", "n".repeat(14 << 10));
    let bodies: Vec<_> = (0..20).map(|review| distinct(review, &long)).collect();
    assert!(bodies.iter().all(|body| body.len() < 8 << 20));
    at_once(&world, bodies).await;
    let longest = |at| format!("{}{at:03}", "n".repeat(60));
    let bodies = (20..60).map(|review| distinct(review, &longest));
    at_once(&world, bodies.collect()).await;
}

#[tokio::test]
async fn many_reviews_that_wait_for_registries() {
    let registries = [slow_registry(), slow_registry(), slow_registry()];
    let world = world_of(Some(&best_of(&registries))).await;
    let name = |at| format!("c{at}");
    let bodies = (0..300).map(|review| distinct(review, &name));
    at_once(&world, bodies.collect()).await;
}
