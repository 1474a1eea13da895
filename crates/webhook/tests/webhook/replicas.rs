//! Replicas that share a CA through a Secret.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use cluster::{ClientProvider, KubeconfigCandidates};
use http::{Method, StatusCode};
use listener::certificate::Store;
use serde_json::json;
use tempfile::TempDir;
use testkit::admission::{REGISTRATION, SECRET, published, register, shared, url};
use testkit::fake_api_server::FakeApiServer;
use testkit::wait::until;
use webhook::Limits;
use webhook::self_signed::{CertificateOptions, Lifetimes, SelfSigned};

use crate::world::{CONFIG, World, client, fixture};

const DAY: Duration = Duration::from_secs(86_400);

/// An API server where the webhook is registered.
fn api_server() -> FakeApiServer {
    let server = FakeApiServer::start().unwrap();
    register(&server);
    server
}

struct Replica {
    store: Arc<Store>,
    keys: SelfSigned,
    /// Of the kubeconfig.
    _dir: TempDir,
}

fn replica(server: &FakeApiServer) -> Replica {
    with_lifetimes(server, Arc::default(), Lifetimes::default())
}

/// A replica that serves what is in `store`.
fn with_lifetimes(server: &FakeApiServer, store: Arc<Store>, lifetimes: Lifetimes) -> Replica {
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    std::fs::write(&kubeconfig, server.kubeconfig()).unwrap();
    let clients = ClientProvider::new(KubeconfigCandidates {
        kubeconfig: vec![kubeconfig],
        ..KubeconfigCandidates::default()
    });
    let options = CertificateOptions {
        namespace: "image-cri-shim".to_owned(),
        secret: "image-cri-shim-webhook-tls".to_owned(),
        service: "image-cri-shim-webhook".to_owned(),
        registration: "image-cri-shim".to_owned(),
        lifetimes,
    };
    let keys = SelfSigned::new(Arc::new(clients), options, Arc::clone(&store));
    Replica {
        store,
        keys,
        _dir: dir,
    }
}

/// Lifetimes by which a CA that is new by the default ones is due for its successor. Certificates made at
/// another time than now would not be valid, so the clock stays, and the lifetimes change instead.
fn soon() -> Lifetimes {
    Lifetimes {
        // Of the CA's three years far less than a third of these is left.
        authority: Lifetimes::default().authority * 20,
        serving: 30 * DAY,
        settle: Duration::ZERO,
    }
}

/// Whether a client that trusts what API servers are told to trust reaches a webhook with `store`.
async fn is_reached(server: &FakeApiServer, store: Arc<Store>) {
    let bundle = published(server).unwrap();
    let world = World::with_store(CONFIG, Limits::default(), store, &bundle).await;
    assert!(
        world
            .review(&fixture("create"))
            .await
            .get("patch")
            .is_some()
    );
}

#[tokio::test]
async fn two_that_start_at_once_agree_on_one_ca() {
    let server = api_server();
    server.let_readers_meet(SECRET, 2);
    let (one, other) = (replica(&server), replica(&server));
    let now = SystemTime::now();
    let (first, second) = tokio::join!(one.keys.round(now), other.keys.round(now));
    first.unwrap();
    second.unwrap();
    // One has won, the other was told so and took what had won.
    let creates: Vec<_> = server
        .writes()
        .into_iter()
        .filter(|write| write.method == Method::POST)
        .map(|write| write.status)
        .collect();
    assert_eq!(creates.len(), 2);
    assert!(creates.contains(&StatusCode::CREATED) && creates.contains(&StatusCode::CONFLICT));
    let bundle = published(&server).unwrap();
    assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 1);
    assert_eq!(bundle.trim(), shared(&server, "ca.crt").unwrap().trim());
    assert!(one.keys.check().is_ok() && other.keys.check().is_ok());
    is_reached(&server, one.store).await;
    is_reached(&server, other.store).await;
    // What isn't ours in the registration is as it was.
    let registration = server.get(REGISTRATION).unwrap();
    assert_eq!(
        registration["webhooks"][0]["clientConfig"]["caBundle"],
        "b3RoZXI="
    );
    assert_eq!(
        registration["webhooks"][1]["fromTheFuture"],
        json!({"keep": "me"})
    );
}

#[tokio::test]
async fn five_that_rotate_at_once_agree_after_every_round() {
    let server = api_server();
    let now = SystemTime::now();
    replica(&server).keys.round(now).await.unwrap();
    let first = shared(&server, "ca.crt").unwrap();
    let replicas: Vec<_> = (0..5)
        .map(|_| with_lifetimes(&server, Arc::default(), soon()))
        .collect();
    for _ in 0..4 {
        server.let_readers_meet(SECRET, replicas.len());
        let rounds = replicas.iter().map(|replica| replica.keys.round(now));
        for round in futures_util::future::join_all(rounds).await {
            round.unwrap();
        }
        for replica in &replicas {
            is_reached(&server, Arc::clone(&replica.store)).await;
        }
    }
    // However many wanted to, one made the next CA, and the first is still trusted.
    let bundle = published(&server).unwrap();
    assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 2);
    assert!(bundle.contains(first.trim()));
    assert_ne!(shared(&server, "ca.crt").unwrap(), first);
}

#[tokio::test]
async fn a_round_that_finds_all_in_order_writes_nothing() {
    let server = api_server();
    let one = replica(&server);
    one.keys.round(SystemTime::now()).await.unwrap();
    let writes = server.writes().len();
    for _ in 0..5 {
        one.keys.round(SystemTime::now()).await.unwrap();
        replica(&server)
            .keys
            .round(SystemTime::now())
            .await
            .unwrap();
    }
    assert_eq!(server.writes().len(), writes);
}

#[tokio::test]
async fn what_others_take_away_is_put_back() {
    let server = api_server();
    let one = replica(&server);
    one.keys.round(SystemTime::now()).await.unwrap();
    let bundle = published(&server).unwrap();
    // A GitOps tool applies its manifest again, which has no bundle.
    let mut registration = server.get(REGISTRATION).unwrap();
    let config = registration["webhooks"][1]["clientConfig"].as_object_mut();
    config.unwrap().remove("caBundle");
    server.put(REGISTRATION, registration.clone());
    one.keys.round(SystemTime::now()).await.unwrap();
    assert_eq!(published(&server).unwrap(), bundle);
    // Somebody deletes the Secret: a new CA, and the API server hears of it.
    server.delete(SECRET);
    one.keys.round(SystemTime::now()).await.unwrap();
    assert_ne!(published(&server).unwrap(), bundle);
    is_reached(&server, Arc::clone(&one.store)).await;
    // Somebody writes nonsense into it.
    let mut secret = server.get(SECRET).unwrap();
    secret["data"]["ca.key"] = json!("bm9uc2Vuc2U=");
    server.put(SECRET, secret);
    one.keys.round(SystemTime::now()).await.unwrap();
    is_reached(&server, one.store).await;
}

#[tokio::test]
async fn a_wrong_clock_replaces_nothing_and_is_not_ready() {
    let server = api_server();
    let good = replica(&server);
    let now = SystemTime::now();
    good.keys.round(now).await.unwrap();
    let writes = server.writes().len();
    // From far behind over what a renewal or a new CA would be due by, to long after the CA's end.
    for wrong in [
        now - 6 * 365 * DAY,
        now - DAY,
        now + DAY,
        now + 80 * DAY,
        now + 1000 * DAY,
        now + 6 * 365 * DAY,
    ] {
        let lost = replica(&server);
        for _ in 0..4 {
            let error = lost.keys.round(wrong).await.unwrap_err().to_string();
            assert!(error.contains("clock is wrong"), "{error}");
        }
        let missing = lost.keys.check().unwrap_err();
        assert!(missing.contains("clock is wrong"), "{missing}");
        assert_eq!(server.writes().len(), writes);
        // What is there is served all the same: the API server's clock is right.
        is_reached(&server, lost.store).await;
        // A clock that was corrected.
        lost.keys.round(SystemTime::now()).await.unwrap();
        assert!(lost.keys.check().is_ok());
    }
    assert_eq!(server.writes().len(), writes);
    // Where there is nothing yet, a wrong clock makes nothing either.
    server.delete(SECRET);
    let writes = server.writes().len();
    let lost = replica(&server);
    assert!(lost.keys.round(now - 6 * 365 * DAY).await.is_err());
    assert_eq!(server.writes().len(), writes);
}

#[tokio::test]
async fn a_bundle_that_is_taken_away_is_put_back_by_its_watch() {
    let server = api_server();
    let one = replica(&server);
    let following = tokio::spawn(one.keys.clone().follow());
    let bundle = until("it is published", || async { published(&server) }).await;
    until("the registration is watched", || async {
        let mut requests = server.requests().into_iter();
        let is_watch = requests.any(|r| r.watch && r.uri.contains("mutatingwebhookconfigurations"));
        is_watch.then_some(())
    })
    .await;
    let often = async {
        for _ in 0..20 {
            let mut registration = server.get(REGISTRATION).unwrap();
            let config = registration["webhooks"][1]["clientConfig"].as_object_mut();
            config.unwrap().remove("caBundle");
            server.put(REGISTRATION, registration);
            let back = until("it is put back", || async { published(&server) }).await;
            assert_eq!(back, bundle);
        }
    };
    // Rounds without an event would take 200 s for so many.
    let often = tokio::time::timeout(testkit::wait::TIMEOUT, often);
    often.await.expect("each is put back at once");
    following.abort();
}

#[tokio::test]
async fn without_a_registration_it_is_not_ready_but_keeps_its_certificate() {
    let server = api_server();
    server.delete(REGISTRATION);
    let one = replica(&server);
    let error = one.keys.round(SystemTime::now()).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no MutatingWebhookConfiguration image-cri-shim")
    );
    let missing = one.keys.check().unwrap_err();
    assert!(
        missing.contains("has not been told to trust our CA"),
        "{missing}"
    );
    one.store.check().unwrap();
}

/// Through a whole rotation, with two replicas that make their rounds at different times, every client
/// that trusts what is published reaches either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_under_load_costs_no_handshake() {
    let server = Arc::new(api_server());
    let (one, other) = (replica(&server), replica(&server));
    let start = SystemTime::now();
    one.keys.round(start).await.unwrap();
    other.keys.round(start).await.unwrap();
    let first = shared(&server, "ca.crt").unwrap();
    let bundle = published(&server).unwrap();
    let limits = Limits::default;
    let worlds = [
        World::with_store(CONFIG, limits(), Arc::clone(&one.store), &bundle).await,
        World::with_store(CONFIG, limits(), Arc::clone(&other.store), &bundle).await,
    ];
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let load: Vec<_> = worlds
        .iter()
        .map(|world| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            let (server, address) = (Arc::clone(&server), world.address);
            tokio::spawn(async move {
                let body = fixture("create").to_string();
                while !stop.load(Ordering::Relaxed) {
                    // As an API server does: what it trusts is what it has read last.
                    let client = client(address, &[&published(&server).unwrap()]);
                    let sent = client.post(url()).body(body.clone()).send().await;
                    assert_eq!(sent.unwrap().status(), 200);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let rotating = |replica: &Replica| with_lifetimes(&server, Arc::clone(&replica.store), soon());
    let (leader, follower) = (rotating(&one), rotating(&other));
    for _ in 0..4 {
        leader.keys.round(SystemTime::now()).await.unwrap();
        let before = done.load(Ordering::Relaxed);
        until("reviews between the rounds", || async {
            (done.load(Ordering::Relaxed) > before + 5).then_some(())
        })
        .await;
        follower.keys.round(SystemTime::now()).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    assert_ne!(shared(&server, "ca.crt").unwrap(), first);
    assert_eq!(shared(&server, "previous-ca.crt").unwrap(), first);
    let bundle = published(&server).unwrap();
    assert!(bundle.contains(first.trim()));
    assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 2);
    // Whoever trusts the new CA alone reaches both by now.
    let new = shared(&server, "ca.crt").unwrap();
    for world in &worlds {
        let client = client(world.address, &[&new]);
        let body = fixture("create").to_string();
        assert_eq!(
            client.post(url()).body(body).send().await.unwrap().status(),
            200
        );
    }
}
