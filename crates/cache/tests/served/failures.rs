//! What clients are told, by what a registry does.

use http::StatusCode;
use testkit::docker_registry::DockerRegistry;
use testkit::fake_registry::Behaviour;
use testkit::images::Image;

use crate::world::{REPOSITORY, Served, World, absent, blob_path, manifest_path};

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
