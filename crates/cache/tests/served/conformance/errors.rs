//! Error codes, and warnings.

use http::StatusCode;
use testkit::fake_registry::Behaviour;

use crate::world::{CODES, Served, World, absent, blob_path, manifest_path};

#[tokio::test]
async fn a_json_error_must_have_the_form_and_a_code_of_the_specification() {
    let (world, image) = World::with_image().await;
    let layer = blob_path(&image.blobs[0].digest);
    world.stored(&layer).await;
    for (method, path, header, status) in [
        ("GET", manifest_path("2"), None, 404),
        ("GET", blob_path(&absent()), None, 404),
        ("GET", "/v2/images.test/x/tags/list".into(), None, 404),
        ("GET", "/v2/_catalog".into(), None, 404),
        ("GET", "/".into(), None, 404),
        ("GET", blob_path("sha256:12"), None, 400),
        ("GET", "/v2/images.test/X/manifests/1".into(), None, 400),
        ("GET", layer.clone(), Some(("Range", "bytes=900000-")), 416),
        ("POST", "/v2/images.test/x/blobs/uploads/".into(), None, 405),
        ("GET", "/v2/".into(), Some(("Host", "evil.example")), 421),
    ] {
        let header: Vec<(&str, &str)> = header.into_iter().collect();
        let answer = world.ask(method, &path, &header).await;
        assert_eq!(answer.status, status, "{method} {path}");
        let code = answer.code();
        assert!(CODES.contains(&code.as_str()), "{method} {path}: {code}");
    }
}

#[tokio::test]
async fn what_nobody_may_be_asked_for_is_denied() {
    let (world, _) = World::with_image().await;
    let entry = format!(
        "{{address: '{}', mirrorOf: [images.test]}}",
        world.registry.url()
    );
    let cache = Served::start(&entry).await;
    for path in ["manifests/1", "tags/list"] {
        let answer = cache.get(&format!("/v2/other.test/x/{path}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "DENIED"));
    }
    let answer = cache.get(&blob_path(&absent())).await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn deleting_must_be_400_or_405_where_it_is_disabled() {
    let (world, image) = World::with_image().await;
    for path in [
        manifest_path("1"),
        manifest_path(&image.manifest_digest),
        blob_path(&image.blobs[0].digest),
    ] {
        let answer = world.ask("DELETE", &path, &[]).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (405, "UNSUPPORTED")
        );
        assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    }
    assert!(world.registry.requests().is_empty());
}

#[tokio::test]
async fn a_429_should_have_a_retry_after() {
    for (given, expected) in [(Some("17"), 17), (None, 5)] {
        let (world, _) = World::with_image().await;
        world.registry.behave(Behaviour::RateLimited {
            retry_after: given.map(str::to_owned),
        });
        let answer = world.get(&manifest_path("1")).await;
        assert_eq!(answer.status, 429, "{given:?}");
        assert_eq!(answer.code(), "TOOMANYREQUESTS");
        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert_eq!(seconds, expected, "{given:?}");
    }
}

#[tokio::test]
async fn a_warning_must_have_code_299_no_agent_and_no_date() {
    let (world, image) = World::with_image().await;
    // A cache above this one, which has written its warnings in its own way.
    for (given, expected) in [
        ("299 - \"stale\"", "299 - \"stale\""),
        (
            "110 proxy.example \"stale\" \"Sun, 06 Nov 1994 08:49:37 GMT\"",
            "299 - \"stale\"",
        ),
        (
            "299 - \"it \\\"was\\\" here\"",
            "299 - \"it \\\"was\\\" here\"",
        ),
        ("stale", "299 - \"stale\""),
    ] {
        let digest = image.manifest_digest.clone();
        world.registry.behave(Behaviour::Answer {
            status: StatusCode::OK,
            headers: vec![
                ("content-type", image.media_type.to_owned()),
                ("docker-content-digest", digest),
                ("warning", given.to_owned()),
            ],
            body: image.manifest.clone(),
        });
        let answer = world.get(&manifest_path("1")).await;
        assert_eq!(answer.status, 200, "{given}");
        assert_eq!(answer.header("warning"), Some(expected), "{given}");
    }
}

#[tokio::test]
async fn warnings_must_not_be_longer_than_4096_bytes() {
    let (mut world, _) = World::with_image().await;
    assert_eq!(world.get(&manifest_path("1")).await.status, 200);
    world.registry.stop().await;
    let answer = world.get(&manifest_path("1")).await;
    assert_eq!(answer.status, 200);
    let warning = answer.header("warning").unwrap();
    assert!(warning.starts_with("299 - \""), "{warning}");
    assert!(warning.len() <= 4096);
    assert!(warning.is_ascii());
}
