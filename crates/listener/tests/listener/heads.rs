//! Heads of requests that do not end, are too long, or are none.

use std::time::Duration;

use listener::Limits;
use tokio::io::AsyncWriteExt;

use crate::world::{GET, World, answered, places, rest};

#[tokio::test]
async fn a_head_that_does_not_end() {
    let head_timeout = Duration::from_millis(50);
    let world = World::plain(Limits {
        head_timeout,
        ..Limits::default()
    })
    .await;
    let mut stream = world.connect().await;
    let head = b"GET / HTTP/1.1\r\nHost: loc";
    stream.write_all(head).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(!answer.contains(" 200 "), "{answer}");
    // An idle connection is one too.
    assert_eq!(rest(&mut world.connect().await).await, "");
}

#[tokio::test]
async fn a_head_that_is_too_long() {
    let world = World::plain(Limits::default()).await;
    let mut stream = world.connect().await;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    // The answer may come, and the connection be closed, before all of it is sent.
    let _ = stream.write_all(request.as_bytes()).await;
    assert!(!rest(&mut stream).await.contains(" 200 "));
    let mut stream = world.connect().await;
    let many = "A: b\r\n".repeat(1000);
    let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n");
    let _ = stream.write_all(request.as_bytes()).await;
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn a_tls_client_at_a_plain_port_is_told_so_in_plain_http() {
    let world = World::plain(places(4)).await;
    let mut stream = world.connect().await;
    // The beginning of a ClientHello, of which more would follow.
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    stream.write_all(hello).await.unwrap();
    let answer = answered(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.ends_with("write http:// before it\n"), "{answer}");
    // What else it sends is no reason to take the answer back by a reset.
    stream.write_all(&[0; 512]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn a_connection_does_not_last_for_ever() {
    let world = World::plain(Limits {
        lifetime: Some(Duration::from_millis(50)),
        ..Limits::default()
    })
    .await;
    let mut stream = world.connect().await;
    stream.write_all(GET).await.unwrap();
    // Kept alive after the answer, and closed without a request cut short.
    let answer = rest(&mut stream).await;
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
}
