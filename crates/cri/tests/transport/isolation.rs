//! One client must not be felt by another.

use std::time::Duration;

use futures_util::future::join_all;
use testkit::wait::until;

use crate::world::{Client, World, frame, patiently};

const VERSION: &str = "/runtime.v1.RuntimeService/Version";

/// Opens calls whose answers have a mebibyte each, and reads none of them.
async fn unread(client: &Client, calls: usize) -> Vec<crate::world::Call> {
    let mut open = Vec::new();
    for _ in 0..calls {
        let mut call = client.open("/test.Fake/Large", &[]).await;
        call.send(frame(false, (1 << 20).to_string().as_bytes()), true)
            .await;
        open.push(call);
    }
    open
}

/// Waits until a number stays what it is: two looks see the same. On a machine that is so busy that this is
/// too early the tests here see less than there is, and never fail for it.
async fn settled(mut number: impl FnMut() -> usize) -> usize {
    let mut before = number();
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = number();
        if now == before {
            return now;
        }
        before = now;
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_holds_up_nobody_and_holds_little() {
    let world = World::start().await;
    let other = world.client().await;
    let sleeper = world.client().await;
    let answers = unread(&sleeper, 600).await;
    until("the calls to arrive", || async {
        (world.runtime.count("Large") == 600).then_some(())
    })
    .await;
    // What it has taken itself, and its window at the shim: 8 MiB each, and a little for each call.
    let sent = settled(|| world.runtime.sent()).await;
    assert!(sent < 40 << 20, "{sent} bytes are held for one client");
    let new = world.client().await;
    for client in [&other, &new] {
        let calls = (0..20).map(|_| client.call(VERSION, &[], frame(false, b"")));
        for reply in patiently("the others", join_all(calls)).await {
            assert_eq!(reply.code(), "0");
        }
    }
    drop(answers);
}

/// The same with many connections, each of which holds something.
#[tokio::test]
async fn many_clients_that_read_nothing_hold_a_bounded_amount_together() {
    let world = World::start().await;
    let other = world.client().await;
    let mut answers = Vec::new();
    for _ in 0..60 {
        answers.push(unread(&world.client().await, 20).await);
    }
    until("the calls to arrive", || async {
        (world.runtime.count("Large") == 1200).then_some(())
    })
    .await;
    // Less what they have taken themselves.
    let held = settled(|| world.runtime.sent()).await - 60 * (8 << 20);
    assert!(held < 256 << 20, "{held} bytes are held for all clients");
    let reply = patiently("the other", other.call(VERSION, &[], frame(false, b""))).await;
    assert_eq!(reply.code(), "0");
}

/// A message that never becomes whole is not read without end.
#[tokio::test]
async fn image_calls_that_never_become_whole_hold_a_bounded_amount() {
    let world = World::start().await;
    let client = world.client().await;
    let mut calls = Vec::new();
    for _ in 0..100 {
        let mut call = client
            .open("/runtime.v1.ImageService/ImageStatus", &[])
            .await;
        // A prefix that promises 900 KiB, and nearly as much.
        let mut beginning = frame(false, &vec![0; 900 << 10]).to_vec();
        beginning.truncate(800 << 10);
        call.sending.send_data(beginning.into(), false).unwrap();
        calls.push(call);
    }
    let other = world.client().await;
    let reply = patiently("the other", other.call(VERSION, &[], frame(false, b""))).await;
    assert_eq!(reply.code(), "0");
    let room = |call: &mut crate::world::Call| {
        call.sending.reserve_capacity(1);
        call.sending.capacity()
    };
    assert_eq!(
        calls.iter_mut().map(room).filter(|room| *room > 0).count(),
        0
    );
    drop(calls);
    // Given back.
    let reply = patiently("itself", client.call(VERSION, &[], frame(false, b""))).await;
    assert_eq!(reply.code(), "0");
}

/// Pulls of Pods with many labels take long like others; their messages don't fill the window meanwhile.
#[tokio::test]
async fn long_pulls_with_large_messages_hold_up_none_of_their_clients_other_calls() {
    let world = World::start().await;
    world.runtime.hang("PullImage");
    let client = world.client().await;
    let mut pulls = Vec::new();
    for _ in 0..20 {
        let mut call = client.open("/runtime.v1.ImageService/PullImage", &[]).await;
        let message = frame(false, &vec![0x1a; 900 << 10]);
        patiently("a pull's message", call.send(message, true)).await;
        pulls.push(call);
    }
    until("the pulls to arrive", || async {
        (world.runtime.count("PullImage") == 20).then_some(())
    })
    .await;
    let reply = patiently("another call", client.call(VERSION, &[], frame(false, b""))).await;
    assert_eq!(reply.code(), "0");
}
