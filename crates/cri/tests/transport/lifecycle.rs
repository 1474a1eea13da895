//! Starting, draining, ending.

use std::sync::Arc;
use std::time::Duration;

use cri::call::PassThrough;
use testkit::wait::until;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use crate::world::{Client, World, frame, patiently};

const VERSION: &str = "/runtime.v1.RuntimeService/Version";

#[tokio::test]
async fn calls_in_flight_finish_and_no_new_ones_are_taken() {
    let mut world = World::start().await;
    world
        .runtime
        .set_delay("Version", Duration::from_millis(300));
    let client = world.client().await;
    let idle = world.client().await;
    let silent = UnixStream::connect(&world.socket).await.unwrap();
    let mut call = client.open(VERSION, &[]).await;
    call.send(frame(false, b""), true).await;
    until("the call to arrive", || async {
        (world.runtime.requests().len() == 1).then_some(())
    })
    .await;
    world.stop();
    until("the socket to be removed", || async {
        (!world.socket.exists()).then_some(())
    })
    .await;
    let reply = patiently("the answer", call.reply()).await.unwrap();
    assert_eq!(reply.code(), "0");
    patiently("the end", &mut world.server).await.unwrap();
    assert!(idle.0.ready().await.is_err());
    assert!(client.0.ready().await.is_err());
    drop(silent);
}

/// Their connections may still be in the kernel's queue.
#[tokio::test]
async fn who_connected_before_the_end_is_served() {
    let mut world = World::start().await;
    let clients = (0..20).map(|_| Client::connect(&world.socket));
    let clients = futures_util::future::join_all(clients).await;
    let mut calls = Vec::new();
    for client in &clients {
        let mut call = client.open(VERSION, &[]).await;
        call.send(frame(false, b""), true).await;
        calls.push(call);
    }
    world.stop();
    for call in calls {
        let reply = patiently("the answer", call.reply()).await.unwrap();
        assert_eq!(reply.code(), "0");
    }
    patiently("the end", &mut world.server).await.unwrap();
}

#[tokio::test]
async fn calls_that_take_too_long_are_cut_off() {
    let mut world = World::with(Arc::new(PassThrough), Duration::from_millis(50)).await;
    world.runtime.hang("Version");
    let client = world.client().await;
    let mut call = client.open(VERSION, &[]).await;
    call.send(frame(false, b""), true).await;
    until("the call to arrive", || async {
        (world.runtime.requests().len() == 1).then_some(())
    })
    .await;
    world.stop();
    patiently("the end", &mut world.server).await.unwrap();
    assert!(patiently("an error", call.reply()).await.is_err());
    world.cancellations(1).await;
}

#[tokio::test]
async fn who_does_not_speak_http2_is_shown_out() {
    use tokio::io::AsyncWriteExt;
    let world = World::start().await;
    for hello in [
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = UnixStream::connect(&world.socket).await.unwrap();
        stream.write_all(hello.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Closed, with or without a farewell.
        let _ = patiently("the end", stream.read_to_end(&mut answer)).await;
    }
    let client = world.client().await;
    assert_eq!(
        client.call(VERSION, &[], frame(false, b"")).await.code(),
        "0"
    );
}
