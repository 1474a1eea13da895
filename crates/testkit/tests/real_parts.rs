//! The real parts work, and leave nothing behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http::StatusCode;
use testkit::certs::Ca;
use testkit::containerd::{Containerd, mounts_below};
use testkit::cri_client::{ApiVersion, CallError, kubelet_auth};
use testkit::docker_registry::DockerRegistry;
use testkit::images::{Format, Image, Pusher};
use testkit::tools::Tools;

#[test]
fn the_tools_are_there() {
    let tools = Tools::ensure().unwrap();
    for program in [
        &tools.containerd,
        &tools.ctr,
        &tools.runc,
        &tools.containerd_shim_runc_v2,
        &tools.docker_registry,
    ] {
        assert!(program.is_file(), "{}", program.display());
    }
}

#[tokio::test]
async fn an_image_is_pushed_pulled_listed_and_removed() {
    let started = Instant::now();
    let containerd = Containerd::start().await.unwrap();
    println!("containerd started in {:?}", started.elapsed());
    let started = Instant::now();
    let registry = DockerRegistry::plain().await.unwrap();
    println!("docker-registry started in {:?}", started.elapsed());
    let host = registry.host();
    containerd.allow_http(&host).unwrap();

    for (tag, image) in [
        ("oci", Image::new("a")),
        ("docker", Image::docker("b")),
        ("oci-index", Image::index("c", Format::Oci)),
        ("docker-index", Image::index("d", Format::Docker)),
        ("large", Image::sized("e", 300_000)),
    ] {
        registry.push(&image, "team/app", tag).await.unwrap();
        let name = format!("{host}/team/app:{tag}");
        let cri = containerd.client();
        assert_eq!(cri.status(&name).await.unwrap(), None);
        let started = Instant::now();
        assert_eq!(cri.pull(&name, None).await.unwrap(), image.id());
        println!("{tag} pulled in {:?}", started.elapsed());

        let status = cri.status(&name).await.unwrap().unwrap();
        assert_eq!(status.id, image.id());
        assert_eq!(status.repo_tags, std::slice::from_ref(&name));
        let by_digest = format!("{host}/team/app@{}", image.manifest_digest);
        assert_eq!(status.repo_digests, [by_digest]);
        assert_eq!(cri.list().await.unwrap().len(), 1);

        cri.remove(&name).await.unwrap();
        assert_eq!(cri.status(&name).await.unwrap(), None);
    }
    assert!(
        registry
            .requests()
            .iter()
            .all(|request| request.is_from_containerd())
    );
    assert_eq!(
        registry
            .recording()
            .count(|r| r.path == "/v2/team/app/manifests/oci"),
        1
    );
}

#[tokio::test]
async fn the_same_seed_gives_the_same_image_and_another_seed_another() {
    assert_eq!(Image::new("x").manifest, Image::new("x").manifest);
    assert_ne!(
        Image::new("x").manifest_digest,
        Image::new("y").manifest_digest
    );
    assert_ne!(
        Image::new("x").manifest_digest,
        Image::docker("x").manifest_digest
    );
}

#[tokio::test]
async fn a_private_registry_wants_its_password_and_records_who_sent_it() {
    let containerd = Containerd::start().await.unwrap();
    let registry = DockerRegistry::with_password("admin", "pa:ss")
        .await
        .unwrap();
    let host = registry.host();
    containerd.allow_http(&host).unwrap();
    let image = Image::new("private");
    registry.push(&image, "app", "1").await.unwrap();
    let name = format!("{host}/app:1");

    let error = containerd.client().pull(&name, None).await.unwrap_err();
    assert!(matches!(error, CallError::Status(_)), "{error}");
    assert!(
        registry
            .requests()
            .iter()
            .all(|r| r.authorization().is_none())
    );
    assert!(registry.requests().iter().all(|r| r.status == Some(401)));

    registry.recording().clear();
    let auth = Some(kubelet_auth("admin", "pa:ss"));
    assert_eq!(
        containerd.client().pull(&name, auth).await.unwrap(),
        image.id()
    );
    let sent = registry
        .recording()
        .matching(|r| r.has_basic("admin", "pa:ss"));
    assert!(!sent.is_empty());
    assert!(!format!("{sent:?}").contains("YWRtaW46"), "{sent:?}");
}

#[tokio::test]
async fn a_tls_registry_is_pulled_from_by_its_ca_only() {
    let ca = Ca::new().unwrap();
    let containerd = Containerd::start().await.unwrap();
    let registry = DockerRegistry::with_tls(&ca.issue(&["127.0.0.1"]).unwrap())
        .await
        .unwrap();
    let image = Image::new("tls");
    registry.push(&image, "app", "1").await.unwrap();
    let name = format!("{}/app:1", registry.host());

    containerd
        .allow_ca(&registry.host(), &Ca::new().unwrap().pem())
        .unwrap();
    let error = containerd.client().pull(&name, None).await.unwrap_err();
    assert!(error.message().contains("x509"), "{error}");
    containerd.allow_ca(&registry.host(), &ca.pem()).unwrap();
    assert_eq!(
        containerd.client().pull(&name, None).await.unwrap(),
        image.id()
    );

    // Pushing through TLS works too, and an expired certificate or one for another host doesn't.
    let pusher = Pusher::new(&registry.url(), None, Some(&ca.pem())).unwrap();
    pusher.push(&image, "other", "1").await.unwrap();
    for bad in [
        ca.issue(&["registry.invalid"]).unwrap(),
        ca.issue_expired(&["127.0.0.1"]).unwrap(),
    ] {
        let registry = DockerRegistry::with_tls(&bad).await.unwrap();
        let pusher = Pusher::new(&registry.url(), None, Some(&ca.pem())).unwrap();
        let error = pusher.push(&image, "app", "1").await.unwrap_err();
        assert!(format!("{error:#}").contains("certificate"), "{error:#}");
        assert!(registry.recording().is_empty());
    }
}

#[tokio::test]
async fn a_registry_can_be_stopped_cut_off_and_made_to_fail() {
    let containerd = Containerd::start().await.unwrap();
    let cri = containerd.client();
    let mut registry = DockerRegistry::plain().await.unwrap();
    let host = registry.host();
    containerd.allow_http(&host).unwrap();
    let image = Image::new("faults");
    registry.push(&image, "app", "1").await.unwrap();
    let name = format!("{host}/app:1");

    registry.stop().await;
    let error = cri.pull(&name, None).await.unwrap_err();
    assert!(error.message().contains("connection refused"), "{error}");
    registry.start_again().await.unwrap();
    assert_eq!(registry.host(), host);

    registry.fail("/blobs/", StatusCode::FORBIDDEN);
    let error = cri.pull(&name, None).await.unwrap_err();
    assert!(error.message().contains("403"), "{error}");
    registry.fail_nothing();

    registry.set_black_hole(true);
    let pull = cri.pull(&name, None);
    assert!(
        tokio::time::timeout(Duration::from_millis(300), pull)
            .await
            .is_err()
    );
    registry.set_black_hole(false);

    registry.set_delay(Duration::from_millis(20));
    assert_eq!(cri.pull(&name, None).await.unwrap(), image.id());
    registry.set_delay(Duration::ZERO);

    // Half-synced: the manifest is there, the blobs are not.
    cri.remove(&name).await.unwrap();
    let other = Image::new("half-synced");
    registry.push(&other, "app", "2").await.unwrap();
    registry
        .pusher()
        .unwrap()
        .delete_blobs(&other, "app")
        .await
        .unwrap();
    assert!(
        registry
            .pusher()
            .unwrap()
            .resolve("app", "2")
            .await
            .unwrap()
            .is_some()
    );
    assert!(cri.pull(&format!("{host}/app:2"), None).await.is_err());
    registry
        .pusher()
        .unwrap()
        .delete_manifest(&other, "app")
        .await
        .unwrap();
    assert_eq!(
        registry
            .pusher()
            .unwrap()
            .resolve("app", "2")
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn images_survive_a_restart_of_containerd() {
    let mut containerd = Containerd::start().await.unwrap();
    let registry = DockerRegistry::plain().await.unwrap();
    containerd.allow_http(&registry.host()).unwrap();
    let image = Image::new("lasting");
    registry.push(&image, "app", "1").await.unwrap();
    let name = format!("{}/app:1", registry.host());
    let cri = containerd.client();
    cri.pull(&name, None).await.unwrap();

    containerd.restart().await.unwrap();
    assert_eq!(cri.status(&name).await.unwrap().unwrap().id, image.id());
    containerd.kill().unwrap();
    let error = cri.status(&name).await.unwrap_err();
    assert!(matches!(error, CallError::Transport(_)), "{error}");
    containerd.start_again().await.unwrap();
    assert_eq!(cri.status(&name).await.unwrap().unwrap().id, image.id());
}

#[tokio::test]
async fn both_api_versions_are_spoken() {
    let containerd = Containerd::start().await.unwrap();
    let v1 = containerd.client();
    let version = v1.version().await.unwrap();
    assert_eq!(version.runtime_name, "containerd");
    assert_eq!(version.runtime_api_version, "v1");
    if version
        .runtime_version
        .trim_start_matches('v')
        .starts_with("1.")
    {
        // containerd 2 dropped it.
        let alpha = v1.clone().with_version(ApiVersion::V1Alpha2);
        assert_eq!(
            alpha.version().await.unwrap().runtime_api_version,
            "v1alpha2"
        );
        assert!(alpha.list().await.unwrap().is_empty());
    }
    let path = v1.path("ImageService", "NotInvented");
    let unknown = v1
        .unary(&path, bytes::Bytes::new(), http::HeaderMap::new())
        .await;
    assert_eq!(unknown.unwrap_err().code(), Some(12));
}

#[tokio::test]
async fn many_calls_share_one_connection() {
    let containerd = Containerd::start().await.unwrap();
    let cri = containerd.client();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let cri = cri.clone();
        calls.spawn(async move { cri.version().await });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap().unwrap();
    }
}

#[tokio::test]
async fn nothing_is_left_behind_also_after_a_panic() {
    let (left, process) = tokio::spawn(async {
        let containerd = Containerd::start().await.unwrap();
        let registry = DockerRegistry::plain().await.unwrap();
        containerd.allow_http(&registry.host()).unwrap();
        registry
            .push(&Image::new("gone"), "app", "1")
            .await
            .unwrap();
        let name = format!("{}/app:1", registry.host());
        containerd.client().pull(&name, None).await.unwrap();
        let left = containerd.dir().to_owned();
        let process = containerd.pid().unwrap();
        // As a failing assertion in a test would.
        let failing = tokio::spawn(async move {
            let (_containerd, _registry) = (containerd, registry);
            std::panic::resume_unwind(Box::new("on purpose, without a message"));
        });
        assert!(failing.await.unwrap_err().is_panic());
        (left, process)
    })
    .await
    .unwrap();
    assert!(!left.exists(), "{}", left.display());
    assert!(!Path::new(&format!("/proc/{process}")).exists());
    assert_eq!(mounts_below(&left), Vec::<PathBuf>::new());
    assert_eq!(
        processes_with(&left.display().to_string()),
        Vec::<String>::new()
    );
}

/// The command lines that contain `part`.
fn processes_with(part: &str) -> Vec<String> {
    let commands = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let command = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&command).replace('\0', " "))
    });
    commands.filter(|command| command.contains(part)).collect()
}
