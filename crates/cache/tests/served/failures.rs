//! What clients are told, by what a registry does.

use std::time::Duration;

use http::StatusCode;
use testkit::docker_registry::DockerRegistry;
use testkit::fake_registry::{Behaviour, FakeRegistry};
use testkit::images::Image;

use crate::world::{NAME, REPOSITORY, Served, World, absent, blob_path, manifest_path};

#[tokio::test]
async fn four_hundred_and_four_only_where_it_was_said_and_503_only_where_nobody_was_reached() {
    let status = |code: u16| Behaviour::Status(StatusCode::from_u16(code).unwrap());
    for (behaviour, expected) in [
        (status(404), 404),
        (status(401), 401),
        (status(403), 401),
        (status(429), 429),
        // It says itself that nobody was reached.
        (status(503), 503),
        (status(504), 503),
        (Behaviour::HangUp, 503),
        (Behaviour::BlackHole, 503),
        (status(500), 502),
        (status(502), 502),
        (status(418), 502),
        (Behaviour::CaptivePortal, 502),
        (Behaviour::Html(StatusCode::OK), 502),
        (Behaviour::RedirectLoop, 502),
        // Somebody has passed a request on in a circle: it is not a candidate.
        (status(508), 404),
    ] {
        let (world, _) = World::with_image().await;
        world.registry.behave_for(REPOSITORY, behaviour.clone());
        let answer = world.get(&manifest_path("1")).await;
        assert_eq!(answer.status, expected, "{behaviour:?}");
        let has_pause = answer.header("retry-after").is_some();
        assert_eq!(has_pause, matches!(expected, 429 | 503), "{behaviour:?}");
        // Who was tried is said.
        let text = String::from_utf8(answer.body).unwrap();
        assert!(
            text.contains(&world.registry.host()),
            "{behaviour:?}: {text}"
        );
    }
}

#[tokio::test]
async fn a_blob_is_refused_in_the_same_words() {
    let status = |code: u16| Behaviour::Status(StatusCode::from_u16(code).unwrap());
    for (behaviour, expected) in [
        (status(404), 404),
        (status(401), 401),
        (status(503), 503),
        (status(500), 502),
        (Behaviour::HangUp, 503),
    ] {
        let (world, _) = World::with_image().await;
        world
            .registry
            .behave_for_blobs(REPOSITORY, behaviour.clone());
        for method in ["GET", "HEAD"] {
            let answer = world.ask(method, &blob_path(&absent()), &[]).await;
            assert_eq!(answer.status, expected, "{method} {behaviour:?}");
        }
    }
}

/// The first answer's headers promise another blob; the client must not have seen them.
#[tokio::test]
async fn an_encoded_answer_is_passed_over_before_the_client_gets_anything() {
    let (one, two) = (
        FakeRegistry::start().unwrap(),
        FakeRegistry::start().unwrap(),
    );
    let image = Image::sized("encoded", 4000);
    let blob = &image.blobs[0];
    let encoded = |body: &[u8]| Behaviour::Answer {
        status: StatusCode::OK,
        headers: vec![("content-encoding", "gzip".to_owned())],
        body: body[..body.len() / 2].to_vec().into(),
    };
    for registry in [&one, &two] {
        registry.behave_for_blobs(REPOSITORY, encoded(&blob.content));
    }
    let entries = format!(
        "{{address: '{}', priority: 2}}, {{address: '{}'}}",
        one.url(),
        two.url()
    );
    let cache = Served::start(&entries).await;
    for method in ["HEAD", "GET"] {
        let refused = cache.ask(method, &blob_path(&blob.digest), &[]).await;
        assert_eq!(refused.status, 502, "{method}");
    }
    let cache = Served::start(&entries).await;
    two.behave_for_blobs(REPOSITORY, Behaviour::Serve);
    two.add(&image, REPOSITORY, "1");
    for method in ["HEAD", "GET"] {
        let answer = cache.ask(method, &blob_path(&blob.digest), &[]).await;
        assert_eq!(answer.status, 200, "{method}");
        let length = blob.content.len().to_string();
        assert_eq!(
            answer.header("content-length"),
            Some(length.as_str()),
            "{method}"
        );
        assert_eq!(answer.header("content-encoding"), None, "{method}");
        if method == "GET" {
            assert_eq!(answer.body, blob.content);
        }
    }
    assert!(!one.requests().is_empty(), "it was asked first");
}

#[tokio::test]
async fn what_a_real_registry_can_not_go_on_with_is_fetched_from_the_beginning() {
    let registry = DockerRegistry::plain().await.unwrap();
    let image = Image::sized("partial", 4000);
    registry.push(&image, REPOSITORY, "1").await.unwrap();
    for longer in [0, 1, 4000] {
        let cache = Served::start(&format!("{{address: '{}'}}", registry.url())).await;
        for blob in &image.blobs {
            cache.leave_partial(&blob.digest, &vec![7; blob.content.len() + longer]);
            let answer = cache.get(&blob_path(&blob.digest)).await;
            assert_eq!(answer.status, 200, "{longer}");
            assert_eq!(answer.body, blob.content, "{longer}");
        }
    }
}

#[tokio::test]
async fn what_another_repository_lacks_is_no_answer_for_this_one() {
    let (one, two) = (
        FakeRegistry::start().unwrap(),
        FakeRegistry::start().unwrap(),
    );
    let image = Image::sized("the same layer", 4000);
    two.add(&image, REPOSITORY, "1");
    // It does not have it, and says so when the other question has come.
    one.set_delay(Duration::from_secs(3));
    let entries = format!(
        "{{address: '{}', mirrorOf: ['one.test']}}, {{address: '{}', mirrorOf: ['images.test']}}",
        one.url(),
        two.url()
    );
    let cache = Served::start(&entries).await;
    let blob = &image.blobs[0];
    let ours = blob_path(&blob.digest);
    let theirs = ours.replace(NAME, "one.test/team/app");
    let meanwhile = async {
        testkit::wait::until("the other registry is asked", || async {
            (!one.requests().is_empty()).then_some(())
        })
        .await;
        cache.get(&ours).await
    };
    let (refused, answer) = tokio::join!(cache.get(&theirs), meanwhile);
    assert_eq!(refused.status, 404);
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, 200, "{text}");
    assert_eq!(answer.body, blob.content);
}
