use std::sync::Arc;
use std::time::Duration;

use cluster::{
    ClientProvider, ConfigMapText, FailureKind, LastSync, Snapshot, WatchedObject,
    follow_config_map,
};
use testkit::fake_api_server::{ApiFault, FakeApiServer};
use testkit::wait;

use crate::world::{clients, only};

/// So long that only the watch can be what brought a change.
const NEVER_INTERVAL: Duration = Duration::from_secs(3600);

struct World {
    server: FakeApiServer,
    clients: Arc<ClientProvider>,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(FakeApiServer::start().unwrap())
    }

    fn with(server: FakeApiServer) -> Self {
        let (clients, dir) = clients(&server);
        let clients = Arc::new(clients);
        Self {
            server,
            clients,
            _dir: dir,
        }
    }

    fn follow(&self, interval: Duration) -> WatchedObject<ConfigMapText> {
        follow_config_map(Arc::clone(&self.clients), Arc::new(move || interval))
    }

    /// Questions for the object itself.
    fn questions(&self, object: &str) -> usize {
        let requests = self.server.requests();
        requests.iter().filter(|r| r.uri.ends_with(object)).count()
    }

    fn watches(&self) -> usize {
        self.server.requests().iter().filter(|r| r.watch).count()
    }
}

async fn seen(
    followed: &WatchedObject<ConfigMapText>,
    what: &str,
    fits: impl Fn(&Snapshot<ConfigMapText>) -> bool,
) -> Snapshot<ConfigMapText> {
    let found = wait::within(wait::TIMEOUT, || async {
        Some(followed.snapshot()).filter(|seen| fits(seen))
    });
    match found.await {
        Some(seen) => seen,
        None => panic!(
            "waited in vain for {what}; there is {:?}",
            followed.snapshot()
        ),
    }
}

async fn text(followed: &WatchedObject<ConfigMapText>, text: &str) {
    seen(followed, text, |seen| holds(seen, text)).await;
}

fn holds(seen: &Snapshot<ConfigMapText>, text: &str) -> bool {
    seen.value.as_ref().and_then(|v| v.text.as_deref()) == Some(text)
}

#[tokio::test]
async fn a_change_comes_by_the_watch() {
    let world = World::new();
    let followed = world.follow(NEVER_INTERVAL);
    seen(&followed, "nothing there", |s| {
        s.last_sync == LastSync::Absent
    })
    .await;
    wait::until("a watch", || async { (world.watches() > 0).then_some(()) }).await;
    world.server.apply_config_map("one: 1");
    text(&followed, "one: 1").await;
    world.server.bookmark();
    world.server.apply_config_map("two: 2");
    text(&followed, "two: 2").await;
    world.server.delete_config_map();
    let gone = seen(&followed, "deleted", |s| s.last_sync == LastSync::Absent).await;
    assert_eq!(gone.value, None);
    world.server.apply_config_map("three: 3");
    text(&followed, "three: 3").await;
}

#[tokio::test]
async fn a_watch_that_is_cut_off_or_too_old_comes_back() {
    let world = World::new();
    world.server.apply_config_map("one: 1");
    let followed = world.follow(Duration::from_secs(1));
    text(&followed, "one: 1").await;
    wait::until("a watch", || async { (world.watches() > 0).then_some(()) }).await;
    for (n, cut) in [FakeApiServer::disconnect_watches, FakeApiServer::compact]
        .into_iter()
        .enumerate()
    {
        let before = world.watches();
        cut(&world.server);
        let next = format!("round: {n}");
        world.server.apply_config_map(&next);
        text(&followed, &next).await;
        wait::until("another watch", || async {
            (world.watches() > before).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn what_a_dead_watch_missed_is_found_by_a_check() {
    let server = FakeApiServer::start().unwrap();
    let (clients, _dir) = clients(&server);
    let second = Duration::from_secs(1);
    let clients = clients.with_check_interval(second..second * 2);
    let followed = follow_config_map(Arc::new(clients), Arc::new(|| NEVER_INTERVAL));
    server.apply_config_map("one: 1");
    text(&followed, "one: 1").await;
    wait::until("a watch", || async {
        server.requests().iter().any(|r| r.watch).then_some(())
    })
    .await;
    server.freeze_watches();
    server.apply_config_map("two: 2");
    text(&followed, "two: 2").await;
}

#[tokio::test]
async fn while_the_watch_stands_nobody_asks_and_while_it_does_not_somebody_does() {
    let world = World::new();
    world
        .server
        .apply_secret("s", "Opaque", &[("password", "x")]);
    // No watch of Secrets is let through, as by a proxy that buffers what it forwards.
    world
        .server
        .set_fault_of("secrets", Some(ApiFault::NoWatch));
    let second: Arc<dyn Fn() -> Duration + Send + Sync> = Arc::new(|| Duration::from_secs(1));
    let watched = world.follow(Duration::from_secs(1));
    let unwatched = cluster::follow_secret(
        Arc::clone(&world.clients),
        "s".to_owned(),
        Arc::clone(&second),
    );
    seen(&watched, "nothing there", |s| {
        s.last_sync == LastSync::Absent
    })
    .await;
    wait::until("five questions for what no watch shows", || async {
        (world.questions("/secrets/s") >= 5).then_some(())
    })
    .await;
    assert!(unwatched.snapshot().value.is_some());
    // Both were asked for at the start, and the time was the same for both.
    assert_eq!(world.questions("/configmaps/image-cri-shim"), 1);
    // It stands: a change comes by it.
    world.server.apply_config_map("one: 1");
    text(&watched, "one: 1").await;
    assert_eq!(world.questions("/configmaps/image-cri-shim"), 1);
    // It is cut off and can't come back: then the interval is what counts.
    world
        .server
        .set_fault_of("configmaps", Some(ApiFault::NoWatch));
    world.server.disconnect_watches();
    wait::until("questions instead of the watch", || async {
        (world.questions("/configmaps/image-cri-shim") >= 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_burst_ends_in_the_last_one() {
    let world = World::new();
    let followed = world.follow(NEVER_INTERVAL);
    wait::until("a watch", || async { (world.watches() > 0).then_some(()) }).await;
    for n in 0..=1000 {
        world.server.apply_config_map(&format!("n: {n}"));
    }
    text(&followed, "n: 1000").await;
}

#[tokio::test]
async fn each_failure_is_told_apart_and_what_was_seen_stays() {
    for (fault, kind) in [
        (ApiFault::Status(401), FailureKind::Unauthorized),
        (ApiFault::Status(403), FailureKind::Forbidden),
        (ApiFault::Status(429), FailureKind::Unavailable),
        (ApiFault::Status(500), FailureKind::Unavailable),
        (ApiFault::Status(503), FailureKind::Unavailable),
        (ApiFault::HangUp, FailureKind::Unavailable),
        (ApiFault::Garbage, FailureKind::Unavailable),
    ] {
        let world = World::new();
        world.server.apply_config_map("kept: true");
        let followed = world.follow(Duration::from_secs(1));
        text(&followed, "kept: true").await;
        world.server.set_fault(Some(fault));
        // While a watch stands, nobody asks.
        world.server.disconnect_watches();
        let failed = seen(&followed, "a failure", |s| {
            matches!(s.last_sync, LastSync::Failed(_))
        })
        .await;
        let LastSync::Failed(failure) = &failed.last_sync else {
            unreachable!();
        };
        assert_eq!(failure.kind, kind, "{fault:?}: {failure}");
        assert!(holds(&failed, "kept: true"), "{fault:?}");
        assert!(!failure.message.contains(world.server.token()), "{failure}");
        world.server.set_fault(None);
        world.server.apply_config_map("back: true");
        text(&followed, "back: true").await;
    }
}

#[tokio::test]
async fn a_server_that_fails_is_asked_ever_more_rarely() {
    let world = World::new();
    world.server.set_fault(Some(ApiFault::Status(429)));
    let begun = std::time::Instant::now();
    let _followed = world.follow(Duration::ZERO);
    wait::until("four questions", || async {
        (world.server.requests().len() >= 4).then_some(())
    })
    .await;
    // Pauses of 1, 2 and 4 seconds, each at least three quarters of that.
    assert!(
        begun.elapsed() >= Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused() {
    let world = World::with(FakeApiServer::start_as_wrong_host().unwrap());
    let followed = world.follow(NEVER_INTERVAL);
    let failed = seen(&followed, "a failure", |s| {
        matches!(s.last_sync, LastSync::Failed(_))
    })
    .await;
    let LastSync::Failed(failure) = failed.last_sync else {
        unreachable!();
    };
    assert_eq!(failure.kind, FailureKind::Tls, "{failure}");
}

#[tokio::test]
async fn a_server_that_comes_late_is_found() {
    let mut world = World::new();
    world.server.stop().await;
    let followed = world.follow(NEVER_INTERVAL);
    seen(&followed, "a failure", |s| {
        matches!(s.last_sync, LastSync::Failed(_))
    })
    .await;
    world.server.apply_config_map("late: true");
    world.server.restart().unwrap();
    text(&followed, "late: true").await;
}

#[tokio::test]
async fn a_kubeconfig_that_comes_late_is_found() {
    let server = FakeApiServer::start().unwrap();
    server.apply_config_map("late: true");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kubeconfig");
    let clients = Arc::new(ClientProvider::new(only(file.clone())));
    let followed = follow_config_map(Arc::clone(&clients), Arc::new(|| NEVER_INTERVAL));
    let failed = seen(&followed, "no client", |s| {
        matches!(s.last_sync, LastSync::Failed(_))
    })
    .await;
    assert!(matches!(&failed.last_sync, LastSync::Failed(f) if f.kind == FailureKind::NoClient));
    std::fs::write(&file, server.kubeconfig()).unwrap();
    text(&followed, "late: true").await;
}

#[tokio::test]
async fn a_new_token_in_the_kubeconfig_is_taken() {
    let server = FakeApiServer::start().unwrap();
    server.apply_config_map("ours: true");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kubeconfig");
    std::fs::write(&file, server.kubeconfig_with_token("an-old-token")).unwrap();
    let clients = Arc::new(ClientProvider::new(only(file.clone())));
    let followed = follow_config_map(clients, Arc::new(|| NEVER_INTERVAL));
    seen(
        &followed,
        "401",
        |s| matches!(&s.last_sync, LastSync::Failed(f) if f.kind == FailureKind::Unauthorized),
    )
    .await;
    std::fs::write(&file, server.kubeconfig()).unwrap();
    text(&followed, "ours: true").await;
}

#[tokio::test]
async fn a_secret_is_followed_and_never_shown() {
    let world = World::new();
    world.server.apply_secret(
        "pull",
        "kubernetes.io/basic-auth",
        &[("password", "hunter2")],
    );
    let followed = cluster::follow_secret(
        Arc::clone(&world.clients),
        "pull".to_owned(),
        Arc::new(|| NEVER_INTERVAL),
    );
    let seen = wait::until("the Secret", || async { followed.snapshot().value }).await;
    assert_eq!(seen.kind, "kubernetes.io/basic-auth");
    assert!(!format!("{seen:?}").contains("hunter2"));
    world
        .server
        .apply_secret("other", "Opaque", &[("password", "x")]);
    wait::until("a watch", || async { (world.watches() > 0).then_some(()) }).await;
    world.server.delete_secret("pull");
    wait::until("it to go", || async {
        (followed.snapshot().last_sync == LastSync::Absent).then_some(())
    })
    .await;
}
