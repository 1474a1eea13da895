//! What a slow, broken or hostile client can do: nothing to others.

use std::sync::atomic::Ordering;

use listener::Limits;
use testkit::wait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{World, client};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

async fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

/// All that comes until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(wait::TIMEOUT, stream.read_to_end(&mut answer));
    // A reset ends it as well.
    let _ = read.await.expect("the connection is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn who_holds_all_connections_keeps_nobody_out() {
    let world = World::start().await;
    let port = world.address.port();
    let mut held = Vec::new();
    for _ in 0..Limits::default().connections * 2 {
        let mut stream = connect(port).await;
        stream.write_all(b"GET / HT").await.unwrap();
        held.push(stream);
    }
    let got = client().get(world.url("/healthz")).send().await.unwrap();
    assert_eq!(got.status(), 200);
    // The oldest went.
    assert_eq!(rest(&mut held[0]).await, "");
}

#[tokio::test]
async fn who_does_not_read_keeps_nobody_out() {
    let world = World::start().await;
    world.change(|status| {
        let decisions = status.decisions.clone();
        status.decisions = decisions.into_iter().cycle().take(500).collect();
    });
    let mut held = Vec::new();
    for _ in 0..40 {
        let mut stream = connect(world.address.port()).await;
        let ask = "GET /api/history HTTP/1.1\r\nHost: localhost\r\n\r\n";
        for _ in 0..4 {
            stream.write_all(ask.as_bytes()).await.unwrap();
        }
        held.push(stream);
    }
    for path in ["/healthz", "/metrics"] {
        let got = client().get(world.url(path)).send().await.unwrap();
        assert_eq!(got.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn what_is_no_http() {
    let world = World::start().await;
    for noise in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\r\n\r\n\r\nhello\r\n",
        &[0; 64],
    ] {
        let mut stream = connect(world.address.port()).await;
        stream.write_all(noise).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(!rest(&mut stream).await.contains(" 200 "));
    }
    let got = client().get(world.url("/healthz")).send().await.unwrap();
    assert_eq!(got.status(), 200);
}

#[tokio::test]
async fn a_daemon_that_does_not_answer() {
    let world = World::start().await;
    world.daemon.hangs.store(true, Ordering::Relaxed);
    let status = tokio::spawn(client().get(world.url("/api/status")).send());
    let got = client().get(world.url("/healthz")).send().await.unwrap();
    assert_eq!(got.status(), 200);
    assert_eq!(status.await.unwrap().unwrap().status(), 503);
}

#[tokio::test]
async fn connections_end_with_the_listener() {
    let world = World::start().await;
    let mut stream = connect(world.address.port()).await;
    stream.write_all(GET).await.unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    drop(world);
    rest(&mut stream).await;
}
