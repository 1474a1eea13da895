//! What clients may take, what they get beyond it, and how it ends.

use std::time::Duration;

use serde_json::Value;
use testkit::admission::{NAME, ask, client_with, url};
use testkit::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use webhook::Limits;

use crate::world::{CONFIG, World, fixture};

#[tokio::test]
async fn only_post_mutate() {
    let world = World::start(CONFIG, Limits::default()).await;
    let get = world.client.get(url()).send().await.unwrap();
    assert_eq!(get.status(), 405);
    assert_eq!(get.headers()["allow"], "POST");
    let other = world.client.post(format!("https://{NAME}/"));
    assert_eq!(other.send().await.unwrap().status(), 404);
}

fn one_connection() -> listener::Limits {
    listener::Limits {
        connections: 1,
        ..Limits::default().connections
    }
}

/// Sends reviews one after another, and then many at once, over one connection.
async fn over_one_connection(protocol: &[u8], version: reqwest::Version) {
    let limits = Limits {
        connections: one_connection(),
        ..Limits::default()
    };
    let world = World::start(CONFIG, limits).await;
    let client = client_with(world.address, &[&world.ca], &[protocol]).unwrap();
    let review = fixture("create");
    for _ in 0..3 {
        let request = client.post(url()).body(review.to_string());
        assert_eq!(request.send().await.unwrap().version(), version);
    }
    let at_once = if version == reqwest::Version::HTTP_2 {
        100
    } else {
        1
    };
    let reviews = (0..at_once).map(|_| ask(&client, &review));
    for response in futures_util::future::join_all(reviews).await {
        assert!(response.unwrap().get("patch").is_some());
    }
}

#[tokio::test]
async fn http_1_keeps_its_connection() {
    over_one_connection(b"http/1.1", reqwest::Version::HTTP_11).await;
}

#[tokio::test]
async fn http_2_asks_many_at_once_on_one_connection() {
    over_one_connection(b"h2", reqwest::Version::HTTP_2).await;
}

#[tokio::test]
async fn reviews_that_do_not_fit_into_memory_together_wait_for_each_other() {
    let limits = Limits {
        // Room for one of them, and a bit.
        bodies: 6 << 10,
        ..Limits::default()
    };
    let world = World::start(CONFIG, limits).await;
    let review = fixture("create");
    let size = review.to_string().len();
    assert!((3 << 10..5 << 10).contains(&size), "{size}");
    let reviews = (0..50).map(|_| world.review(&review));
    for response in futures_util::future::join_all(reviews).await {
        assert!(response.get("patch").is_some());
    }
}

#[tokio::test]
async fn bodies_above_the_limit_are_refused_and_others_go_on() {
    let limits = Limits {
        body: 16 << 10,
        ..Limits::default()
    };
    let world = World::start(CONFIG, limits).await;
    let big = "x".repeat((16 << 10) + 1);
    let announced = reqwest::Body::from(big.clone());
    let big: &'static str = Box::leak(big.into_boxed_str());
    let not_announced = reqwest_body(futures_util::stream::once(async move { Ok(big) }));
    for body in [announced, not_announced] {
        let response = world.post(body).await;
        assert_eq!(response.status(), 413);
        let text = response.text().await.unwrap();
        assert!(text.contains("larger than 16384 bytes"), "{text}");
    }
    assert_eq!(world.reviews("too_large"), 2);
    assert_eq!(world.reviews("refused"), 0);
    assert!(
        world
            .review(&fixture("create"))
            .await
            .get("patch")
            .is_some()
    );
}

#[tokio::test]
async fn without_room_a_review_is_busy_and_not_refused() {
    let limits = Limits {
        bodies: 1 << 10,
        ..Limits::default()
    };
    let world = World::start(CONFIG, limits).await;
    let response = world.post(fixture("create").to_string()).await;
    assert_eq!(response.status(), 503);
    assert_eq!((world.reviews("busy"), world.reviews("refused")), (1, 0));
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_with_its_time() {
    let limits = Limits {
        body_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let world = World::start(CONFIG, limits).await;
    let (sender, body) = tokio::sync::oneshot::channel::<()>();
    let never = futures_util::stream::once(async move {
        let _ = body.await;
        Ok::<_, std::io::Error>("{")
    });
    let response = world.post(reqwest_body(never)).await;
    assert_eq!(response.status(), 408);
    assert_eq!(world.reviews("late"), 1);
    drop(sender);
}

fn reqwest_body(
    stream: impl futures_util::Stream<Item = Result<&'static str, std::io::Error>>
    + Send
    + Sync
    + 'static,
) -> reqwest::Body {
    let frames = futures_util::StreamExt::map(stream, |chunk| {
        chunk.map(|text| hyper::body::Frame::data(bytes::Bytes::from_static(text.as_bytes())))
    });
    reqwest::Body::wrap(http_body_util::StreamBody::new(frames))
}

#[tokio::test]
async fn a_client_that_never_shakes_hands_gives_way() {
    let limits = Limits {
        connections: one_connection(),
        ..Limits::default()
    };
    let world = World::start(CONFIG, limits).await;
    let mut silent = TcpStream::connect(world.address).await.unwrap();
    let response = world.review(&fixture("create")).await;
    assert!(response.get("patch").is_some());
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn plain_http_gets_no_answer() {
    let world = World::start(CONFIG, Limits::default()).await;
    let mut plain = TcpStream::connect(world.address).await.unwrap();
    plain
        .write_all(b"POST /mutate HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    // A TLS alert, or a reset: in either case no HTTP.
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"));
}

#[tokio::test]
async fn reviews_in_flight_finish_when_the_shutdown_begins() {
    in_flight_while_it_stops(b"http/1.1").await;
    in_flight_while_it_stops(b"h2").await;
}

async fn in_flight_while_it_stops(protocol: &[u8]) {
    let mut world = World::start(CONFIG, Limits::default()).await;
    let (sender, wait) = tokio::sync::oneshot::channel::<()>();
    let review = fixture("create").to_string();
    let late: &'static str = Box::leak(review.into_boxed_str());
    let (begun, has_begun) = tokio::sync::oneshot::channel::<()>();
    let body = futures_util::stream::once(async move {
        let _ = begun.send(());
        let _ = wait.await;
        Ok::<_, std::io::Error>(late)
    });
    let client = client_with(world.address, &[&world.ca], &[protocol]).unwrap();
    let request = client.post(url()).body(reqwest_body(body)).send();
    let request = tokio::spawn(request);
    has_begun.await.unwrap();
    world.shutdown.take().unwrap().send(()).unwrap();
    until("the listener is closed", || async {
        TcpStream::connect(world.address)
            .await
            .is_err()
            .then_some(())
    })
    .await;
    sender.send(()).unwrap();
    let response = request.await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    let answer: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert!(answer["response"]["patch"].is_string());
    (&mut world.server).await.unwrap();
}
