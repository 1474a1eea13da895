//! Starting, draining, ending.

use std::sync::Arc;
use std::time::Duration;

use cri::call::PassThrough;
use futures_util::future::poll_fn;
use testkit::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::world::{Client, World, frame, next, patiently};

const VERSION: &str = "/runtime.v1.RuntimeService/Version";
const PULL: &str = "/runtime.v1.ImageService/PullImage";
const EVENTS: &str = "/runtime.v1.RuntimeService/GetContainerEvents";

async fn arrived(world: &World, method: &str, count: usize) {
    until("calls to arrive", || async {
        (world.runtime.count(method) == count).then_some(())
    })
    .await;
}

/// Whoever comes while one call is waited for must find a runtime.
#[tokio::test]
async fn calls_in_flight_finish_and_others_are_served_meanwhile() {
    let mut world = World::start().await;
    world.runtime.hang("PullImage");
    let client = world.client().await;
    let idle = world.client().await;
    let silent = UnixStream::connect(&world.socket).await.unwrap();
    let mut pull = client.open(PULL, &[]).await;
    pull.send(frame(false, b""), true).await;
    arrived(&world, "PullImage", 1).await;
    world.stop();
    // However often: it is not the first call after the stop that counts.
    for _ in 0..50 {
        let new = world.client().await;
        for client in [&client, &idle, &new] {
            let reply = patiently("an answer", client.call(VERSION, &[], frame(false, b""))).await;
            assert_eq!(reply.code(), "0");
        }
    }
    // Another pull that began meanwhile is waited for too.
    let mut second = idle.open(PULL, &[]).await;
    second.send(frame(false, b""), true).await;
    arrived(&world, "PullImage", 2).await;
    assert!(world.socket.exists());
    world.runtime.answer("PullImage");
    for call in [pull, second] {
        let reply = patiently("the answer", call.reply()).await.unwrap();
        assert_eq!(reply.code(), "0");
    }
    patiently("the end", &mut world.server).await.unwrap();
    assert!(!world.socket.exists());
    assert!(idle.0.ready().await.is_err());
    assert!(client.0.ready().await.is_err());
    drop(silent);
}

/// The socket is another process's: its file stays, and nobody is let in any more.
#[tokio::test]
async fn after_a_hand_over_calls_in_flight_end_and_clients_are_asked_to_go() {
    let mut world = World::start().await;
    world.runtime.hang("PullImage");
    let client = world.client().await;
    let mut pull = client.open(PULL, &[]).await;
    pull.send(frame(false, b""), true).await;
    arrived(&world, "PullImage", 1).await;
    let mut events = client.open(EVENTS, &[]).await;
    events.send(frame(false, b""), true).await;
    arrived(&world, "GetContainerEvents", 1).await;
    // It had connected before, and has said nothing yet.
    let silent = UnixStream::connect(&world.socket).await.unwrap();
    let _idle = world.client().await;
    let cut_off = world.hand_over();
    let ended = patiently("the end of the events", events.reply()).await;
    assert_eq!(ended.unwrap().code(), "14");
    until("the client to be asked to go", || async {
        client.0.clone().ready().await.is_err().then_some(())
    })
    .await;
    world.runtime.answer("PullImage");
    let reply = patiently("the answer", pull.reply()).await.unwrap();
    assert_eq!(reply.code(), "0");
    // It is not waited for without end.
    drop(silent);
    patiently("the end", &mut world.server).await.unwrap();
    assert!(world.socket.exists());
    drop(cut_off);
}

#[tokio::test]
async fn what_is_left_after_a_hand_over_is_cut_off_when_its_time_is_up() {
    let mut world = World::start().await;
    world.runtime.hang("PullImage");
    let client = world.client().await;
    let mut pull = client.open(PULL, &[]).await;
    pull.send(frame(false, b""), true).await;
    arrived(&world, "PullImage", 1).await;
    drop(world.hand_over());
    patiently("the end", &mut world.server).await.unwrap();
    assert!(patiently("the cut", pull.reply()).await.is_err());
}

/// Nothing but the drain's time, an hour here, would end these.
#[tokio::test]
async fn streams_that_never_end_by_themselves_end_with_the_server() {
    let mut world = World::with(Arc::new(PassThrough), Duration::from_secs(3600)).await;
    let client = world.client().await;
    let mut streams = Vec::new();
    for path in [EVENTS, "/test.Fake/Silent"] {
        let mut body = client.stream(path).await;
        patiently("an event", next(&mut body))
            .await
            .unwrap()
            .unwrap();
        streams.push(body);
    }
    // containerd sends no head before the first event.
    world.runtime.hang("GetContainerEvents");
    let mut without_event = client.open(EVENTS, &[]).await;
    without_event.send(frame(false, b""), true).await;
    arrived(&world, "GetContainerEvents", 2).await;
    world.stop();
    let reply = patiently("the answer", without_event.reply()).await;
    assert_eq!(reply.unwrap().code(), "14");
    for mut body in streams {
        let more = patiently("the end of the events", next(&mut body)).await;
        assert!(more.is_none(), "{more:?}");
        let trailers = poll_fn(|cx| body.poll_trailers(cx)).await.unwrap().unwrap();
        assert_eq!(trailers["grpc-status"], "14");
    }
    patiently("the end", &mut world.server).await.unwrap();
    world.cancellations(3).await;
}

#[tokio::test]
async fn events_end_at_once_and_once_only_while_a_pull_is_waited_for() {
    let mut world = World::with(Arc::new(PassThrough), Duration::from_secs(3600)).await;
    world.runtime.hang("PullImage");
    let client = world.client().await;
    let mut pull = client.open(PULL, &[]).await;
    pull.send(frame(false, b""), true).await;
    let mut events = client.open(EVENTS, &[]).await;
    events.send(frame(false, b""), true).await;
    arrived(&world, "PullImage", 1).await;
    arrived(&world, "GetContainerEvents", 1).await;
    world.stop();
    let reply = patiently("the end of the events", events.reply()).await;
    assert_eq!(reply.unwrap().code(), "14");
    // The client watches on. It is not turned away again and again.
    let mut body = client.stream(EVENTS).await;
    let event = patiently("an event", next(&mut body)).await;
    event.unwrap().unwrap();
    for _ in 0..20 {
        let reply = patiently("an answer", client.call(VERSION, &[], frame(false, b""))).await;
        assert_eq!(reply.code(), "0");
    }
    assert_eq!(world.runtime.cancellations(), 1);
    world.runtime.answer("PullImage");
    let reply = patiently("the answer", pull.reply()).await.unwrap();
    assert_eq!(reply.code(), "0");
    let more = patiently("the end of the events", next(&mut body)).await;
    assert!(more.is_none(), "{more:?}");
    patiently("the end", &mut world.server).await.unwrap();
}

/// What moves is not cut off: a list in pieces ends by itself.
#[tokio::test]
async fn an_answer_that_moves_is_waited_for() {
    let mut world = World::with(Arc::new(PassThrough), Duration::from_secs(3)).await;
    let client = world.client().await;
    let mut body = client.stream("/test.Fake/Stream").await;
    world.stop();
    let mut messages = 0;
    // Until the drain's time is over and the connection with it.
    while let Some(Ok(_)) = patiently("a message", next(&mut body)).await {
        messages += 1;
    }
    assert!(messages > 10, "{messages}");
    patiently("the end", &mut world.server).await.unwrap();
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
    arrived(&world, "Version", 1).await;
    world.stop();
    patiently("the end", &mut world.server).await.unwrap();
    assert!(patiently("an error", call.reply()).await.is_err());
    world.cancellations(1).await;
}

/// A stopped `crictl` answers no PING, and hangs up on nobody.
#[tokio::test]
async fn a_client_that_stands_still_does_not_hold_up_the_end() {
    for hands_over in [false, true] {
        // Far longer than a test waits.
        let mut world = World::with(Arc::new(PassThrough), Duration::from_secs(3600)).await;
        let mut still = UnixStream::connect(&world.socket).await.unwrap();
        let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        still.write_all(hello).await.unwrap();
        assert_ne!(still.read(&mut [0; 64]).await.unwrap(), 0);
        let _cut_off = if hands_over {
            Some(world.hand_over())
        } else {
            world.stop();
            None
        };
        patiently("the end", &mut world.server).await.unwrap();
    }
}

#[tokio::test]
async fn who_does_not_speak_http2_is_shown_out() {
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
