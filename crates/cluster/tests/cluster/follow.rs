use std::sync::Arc;
use std::time::Duration;

use cluster::{ConfigMapText, FailureKind, Followed, Link, Look, Places, Seen, follow_config_map};
use testkit::fake_api_server::{ApiFault, FakeApiServer};
use testkit::wait;

/// So long that only the watch can be what brought a change.
const NEVER: Duration = Duration::from_secs(3600);

struct World {
    server: FakeApiServer,
    link: Arc<Link>,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(FakeApiServer::start().unwrap())
    }

    fn with(server: FakeApiServer) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubeconfig");
        std::fs::write(&file, server.kubeconfig()).unwrap();
        let link = Arc::new(Link::new(only(file)));
        Self {
            server,
            link,
            _dir: dir,
        }
    }

    fn follow(&self, interval: Duration) -> Followed<ConfigMapText> {
        follow_config_map(Arc::clone(&self.link), Arc::new(move || interval))
    }

    fn watches(&self) -> usize {
        self.server.requests().iter().filter(|r| r.watch).count()
    }
}

fn only(file: std::path::PathBuf) -> Places {
    Places {
        service: None,
        service_account: "/nowhere".into(),
        kubeconfig: vec![file],
        files: Vec::new(),
    }
}

async fn seen(
    followed: &Followed<ConfigMapText>,
    what: &str,
    fits: impl Fn(&Seen<ConfigMapText>) -> bool,
) -> Seen<ConfigMapText> {
    let found = wait::within(wait::TIMEOUT, || async {
        Some(followed.seen()).filter(|seen| fits(seen))
    });
    match found.await {
        Some(seen) => seen,
        None => panic!("waited in vain for {what}; there is {:?}", followed.seen()),
    }
}

async fn text(followed: &Followed<ConfigMapText>, text: &str) {
    seen(followed, text, |seen| holds(seen, text)).await;
}

fn holds(seen: &Seen<ConfigMapText>, text: &str) -> bool {
    seen.value.as_ref().and_then(|v| v.text.as_deref()) == Some(text)
}

#[tokio::test]
async fn a_change_comes_by_the_watch() {
    let world = World::new();
    let followed = world.follow(NEVER);
    seen(&followed, "nothing there", |s| s.look == Look::Absent).await;
    wait::until("a watch", || async { (world.watches() > 0).then_some(()) }).await;
    world.server.apply_config_map("one: 1");
    text(&followed, "one: 1").await;
    world.server.bookmark();
    world.server.apply_config_map("two: 2");
    text(&followed, "two: 2").await;
    world.server.delete_config_map();
    let gone = seen(&followed, "deleted", |s| s.look == Look::Absent).await;
    assert_eq!(gone.value, None);
    world.server.apply_config_map("three: 3");
    text(&followed, "three: 3").await;
}

#[tokio::test]
async fn a_watch_that_is_cut_off_or_too_old_comes_back() {
    let world = World::new();
    world.server.apply_config_map("one: 1");
    let followed = world.follow(NEVER);
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
async fn what_a_dead_watch_missed_is_found_by_asking() {
    let world = World::new();
    world.server.apply_config_map("one: 1");
    let followed = world.follow(Duration::from_secs(1));
    text(&followed, "one: 1").await;
    wait::until("a watch", || async { (world.watches() > 0).then_some(()) }).await;
    world.server.freeze_watches();
    world.server.apply_config_map("two: 2");
    text(&followed, "two: 2").await;
}

#[tokio::test]
async fn a_burst_ends_in_the_last_one() {
    let world = World::new();
    let followed = world.follow(NEVER);
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
        let failed = seen(&followed, "a failure", |s| {
            matches!(s.look, Look::Failed(_))
        })
        .await;
        let Look::Failed(failure) = &failed.look else {
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
    let followed = world.follow(NEVER);
    let failed = seen(&followed, "a failure", |s| {
        matches!(s.look, Look::Failed(_))
    })
    .await;
    let Look::Failed(failure) = failed.look else {
        unreachable!();
    };
    assert_eq!(failure.kind, FailureKind::Tls, "{failure}");
}

#[tokio::test]
async fn a_server_that_comes_late_is_found() {
    let mut world = World::new();
    world.server.stop().await;
    let followed = world.follow(NEVER);
    seen(&followed, "a failure", |s| {
        matches!(s.look, Look::Failed(_))
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
    let link = Arc::new(Link::new(only(file.clone())));
    let followed = follow_config_map(Arc::clone(&link), Arc::new(|| NEVER));
    let failed = seen(&followed, "no client", |s| {
        matches!(s.look, Look::Failed(_))
    })
    .await;
    assert!(matches!(&failed.look, Look::Failed(f) if f.kind == FailureKind::NoClient));
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
    let link = Arc::new(Link::new(only(file.clone())));
    let followed = follow_config_map(link, Arc::new(|| NEVER));
    seen(
        &followed,
        "401",
        |s| matches!(&s.look, Look::Failed(f) if f.kind == FailureKind::Unauthorized),
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
        Arc::clone(&world.link),
        "pull".to_owned(),
        Arc::new(|| NEVER),
    );
    let seen = wait::until("the Secret", || async { followed.seen().value }).await;
    assert_eq!(seen.kind, "kubernetes.io/basic-auth");
    assert!(!format!("{seen:?}").contains("hunter2"));
    world
        .server
        .apply_secret("other", "Opaque", &[("password", "x")]);
    wait::until("a watch", || async { (world.watches() > 0).then_some(()) }).await;
    world.server.delete_secret("pull");
    wait::until("it to go", || async {
        (followed.seen().look == Look::Absent).then_some(())
    })
    .await;
}
