//! What each kind of answer means.

use std::time::Duration;

use http::StatusCode;
use registry::{Cause, Outcome};
use testkit::fake_registry::{Behaviour, FakeRegistry};
use testkit::images::Image;

use crate::setup::{ask, cause, client, found, is_found, is_registrys, methods, registry, target};

#[tokio::test]
async fn one_head_request_finds_a_manifest_by_tag_and_by_digest() {
    let (registry, image) = registry();
    let client = client();
    let probe = ask(&client, &target(&registry.url())).await;
    assert_eq!(probe.outcome, found(&image));
    assert_eq!(probe.requests, 1);
    assert!(probe.detail.starts_with("200, sha256:"), "{}", probe.detail);

    let mut by_digest = target(&registry.url());
    by_digest.name.reference = image.manifest_digest.clone();
    assert_eq!(ask(&client, &by_digest).await.outcome, found(&image));
    assert_eq!(methods(&registry), ["HEAD", "HEAD"]);

    let request = &registry.requests()[0];
    assert_eq!(request.path, "/v2/team/app/manifests/1");
    assert!(request.user_agent().starts_with("image-cri-shim/"));
    assert_eq!(request.headers["accept-encoding"], "identity");
    let accept = request.headers["accept"].to_str().unwrap();
    for media_type in [
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ] {
        assert!(accept.contains(media_type), "{accept}");
    }
}

#[tokio::test]
async fn a_missing_manifest_is_not_found_with_json_and_with_html() {
    let (registry, _) = registry();
    let client = client();
    let mut missing = target(&registry.url());
    missing.name.reference = "2".into();
    assert_eq!(ask(&client, &missing).await.outcome, Outcome::NotFound);
    registry.behave(Behaviour::Html(StatusCode::NOT_FOUND));
    let probe = ask(&client, &target(&registry.url())).await;
    assert_eq!((probe.outcome, probe.requests), (Outcome::NotFound, 1));
}

#[tokio::test]
async fn statuses_mean_what_the_specification_says() {
    let (registry, _) = registry();
    let client = client();
    for (status, want) in [
        (403, None),
        (500, Some(Cause::Status(500))),
        (502, Some(Cause::Status(502))),
        (503, Some(Cause::Status(503))),
        (204, Some(Cause::Protocol)),
    ] {
        registry.behave(Behaviour::Status(StatusCode::from_u16(status).unwrap()));
        let probe = ask(&client, &target(&registry.url())).await;
        assert_eq!(cause(&probe), want, "{status}: {}", probe.detail);
        assert!(probe.detail.contains(&status.to_string()));
        if want.is_none() {
            assert_eq!(probe.outcome, Outcome::Unauthorized);
        }
    }
}

#[tokio::test]
async fn rate_limits_keep_their_pause() {
    let (registry, _) = registry();
    let client = client();
    for (header, want) in [
        (None, None),
        (Some("30"), Some(Duration::from_secs(30))),
        (Some("soon"), None),
    ] {
        registry.behave(Behaviour::RateLimited {
            retry_after: header.map(str::to_owned),
        });
        let probe = ask(&client, &target(&registry.url())).await;
        assert_eq!(probe.outcome, Outcome::RateLimited { retry_after: want });
    }
}

#[tokio::test]
async fn a_registry_that_refuses_head_is_asked_by_get_from_then_on() {
    let (registry, image) = registry();
    registry.behave(Behaviour::HeadRefused);
    let client = client();
    let first = ask(&client, &target(&registry.url())).await;
    assert_eq!((first.outcome, first.requests), (found(&image), 2));
    let second = ask(&client, &target(&registry.url())).await;
    assert_eq!((second.outcome, second.requests), (found(&image), 1));
    assert_eq!(methods(&registry), ["HEAD", "GET", "GET"]);
    assert_eq!((client.stats().hits, client.stats().misses), (1, 1));
}

#[tokio::test]
async fn a_refusal_of_both_methods_teaches_nothing() {
    let (registry, _) = registry();
    registry.behave(Behaviour::Status(StatusCode::METHOD_NOT_ALLOWED));
    let client = client();
    let probe = ask(&client, &target(&registry.url())).await;
    assert_eq!(cause(&probe), Some(Cause::Status(405)));
    registry.behave_well();
    assert!(is_found(&ask(&client, &target(&registry.url())).await));
    assert_eq!(methods(&registry), ["HEAD", "GET", "HEAD"]);
}

#[tokio::test]
async fn bodies_are_bounded_and_must_be_whole() {
    let (registry, _) = registry();
    registry.behave(Behaviour::HeadRefused);
    let client = client();
    assert!(is_found(&ask(&client, &target(&registry.url())).await));
    for (behaviour, words) in [
        (Behaviour::Truncated, "middle of its body"),
        (Behaviour::Endless, "4 MiB"),
        (Behaviour::CaptivePortal, "text/html"),
    ] {
        registry.behave(behaviour);
        let probe = ask(&client, &target(&registry.url())).await;
        assert_eq!(cause(&probe), Some(Cause::Protocol), "{}", probe.detail);
        assert!(probe.detail.contains(words), "{}", probe.detail);
    }
}

#[tokio::test]
async fn a_registry_without_digests_still_has_the_image() {
    let (registry, image) = registry();
    registry.behave(Behaviour::WithoutDigest);
    let client = client();
    let probe = ask(&client, &target(&registry.url())).await;
    assert_eq!(probe.outcome, Outcome::Found { digest: None });
    let mut by_digest = target(&registry.url());
    by_digest.name.reference = image.manifest_digest.clone();
    assert_eq!(ask(&client, &by_digest).await.outcome, found(&image));
}

#[tokio::test]
async fn another_image_under_the_digest_asked_for_is_not_taken() {
    let (registry, image) = registry();
    let other = Image::new("other");
    // As from a mirror that answers for a digest with what its tag points to.
    registry.add(&other, "team/app", &image.manifest_digest);
    let mut by_digest = target(&registry.url());
    by_digest.name.reference = image.manifest_digest.clone();
    let probe = ask(&client(), &by_digest).await;
    assert_eq!(cause(&probe), Some(Cause::Protocol), "{}", probe.detail);
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let (registry, _) = registry();
    let client = client();
    let mut quick = target(&registry.url());
    quick.deadline = Duration::from_millis(200);
    registry.behave(Behaviour::BlackHole);
    let probe = ask(&client, &quick).await;
    assert_eq!(cause(&probe), Some(Cause::Timeout));
    assert_eq!(probe.requests, 1);
    assert!(
        probe.detail.contains("no answer within 200ms"),
        "{}",
        probe.detail
    );
    registry.set_black_hole(true);
    assert_eq!(cause(&ask(&client, &quick).await), Some(Cause::Timeout));
}

#[tokio::test]
async fn connections_that_fail_are_told_apart() {
    let (mut registry, _) = registry();
    let client = client();
    registry.behave(Behaviour::HangUp);
    let probe = ask(&client, &target(&registry.url())).await;
    assert_eq!(cause(&probe), Some(Cause::Reset), "{}", probe.detail);
    // It took the question: another one may be answered.
    assert!(!is_registrys(&probe), "{probe:?}");
    registry.stop().await;
    let probe = ask(&client, &target(&registry.url())).await;
    assert_eq!(cause(&probe), Some(Cause::Refused), "{}", probe.detail);
    assert!(is_registrys(&probe), "{probe:?}");
    // RFC 2606: never a name.
    let probe = ask(&client, &target("http://registry.invalid")).await;
    assert_eq!(cause(&probe), Some(Cause::Dns), "{}", probe.detail);
    assert!(is_registrys(&probe), "{probe:?}");
    assert!(
        probe.detail.contains("registry.invalid"),
        "{}",
        probe.detail
    );
}

/// Whoever may name an image must not be able to take a registry away from everybody by one that the
/// registry stumbles over.
#[tokio::test]
async fn what_goes_wrong_with_one_image_is_not_the_registrys_failure() {
    let (registry, _) = registry();
    let (elsewhere, _) = crate::setup::registry();
    let mut gone = FakeRegistry::start().unwrap();
    gone.stop().await;
    let client = client();
    for behaviour in [
        Behaviour::Status(StatusCode::INTERNAL_SERVER_ERROR),
        Behaviour::Status(StatusCode::BAD_REQUEST),
        Behaviour::CaptivePortal,
        Behaviour::RedirectLoop,
        Behaviour::Redirect("ftp://x/y".into()),
        Behaviour::Redirect(format!("{}/x", gone.url())),
        Behaviour::Redirect(format!("https://{}/x", elsewhere.host())),
        Behaviour::Redirect("http://registry.invalid/x".into()),
        Behaviour::BlackHole,
        Behaviour::HangUp,
    ] {
        registry.behave_for("team/app", behaviour.clone());
        let mut quick = target(&registry.url());
        if matches!(behaviour, Behaviour::BlackHole) {
            quick.deadline = Duration::from_millis(200);
        }
        let probe = ask(&client, &quick).await;
        assert!(
            matches!(probe.outcome, Outcome::ImageFailed { .. }),
            "{behaviour:?}: {probe:?}"
        );
        let ping = client.ping(&quick.registry, Duration::from_secs(30)).await;
        assert_eq!(ping.outcome, Ok(()), "{behaviour:?}: {}", ping.detail);
    }
}

#[tokio::test]
async fn a_registry_that_was_restarted_is_found_at_once() {
    let (mut registry, image) = registry();
    let client = client();
    for _ in 0..5 {
        let probe = ask(&client, &target(&registry.url())).await;
        assert_eq!(probe.outcome, found(&image), "{}", probe.detail);
        registry.stop().await;
        registry.start_again().unwrap();
    }
}
