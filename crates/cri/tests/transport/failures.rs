//! A runtime that refuses, dies and comes back; clients that go away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use h2::Reason;
use testkit::wait::until;

use crate::world::{Client, World, frame, next, patiently};

const VERSION: &str = "/runtime.v1.RuntimeService/Version";
const PULL: &str = "/runtime.v1.ImageService/PullImage";

#[tokio::test]
async fn no_runtime_is_unavailable_and_says_where_it_was_looked_for() {
    let world = World::start().await;
    world.runtime.stop();
    let client = world.client().await;
    for path in [VERSION, PULL] {
        let reply = client.call(path, &[], frame(false, b"")).await;
        assert_eq!(reply.http_status, 200);
        assert_eq!(reply.headers["content-type"], "application/grpc");
        assert_eq!(reply.code(), "14");
        let socket = world.runtime.socket().display().to_string();
        let text = reply.text();
        assert!(text.contains(&format!("unix://{socket}")), "{text}");
        assert!(text.contains("is it running?"), "{text}");
    }
    world.runtime.start_again().unwrap();
    let reply = client.call(VERSION, &[], frame(false, b"")).await;
    assert_eq!(reply.code(), "0");
}

#[tokio::test]
async fn resets_become_statuses() {
    let world = World::start().await;
    let client = world.client().await;
    for (reason, code) in [
        (Reason::CANCEL, "1"),
        (Reason::REFUSED_STREAM, "14"),
        (Reason::ENHANCE_YOUR_CALM, "8"),
        (Reason::INADEQUATE_SECURITY, "7"),
        (Reason::INTERNAL_ERROR, "13"),
        (Reason::PROTOCOL_ERROR, "13"),
    ] {
        for (path, method) in [(VERSION, "Version"), (PULL, "PullImage")] {
            world.runtime.reset(method, reason);
            let reply = patiently("an answer", client.call(path, &[], frame(false, b""))).await;
            assert_eq!(reply.code(), code, "{reason:?} {method}");
        }
    }
}

/// A call whose stream was refused was not carried out, so it is sent again: image calls and others.
#[tokio::test]
async fn a_refused_call_is_tried_again() {
    let world = World::start().await;
    for (path, method) in [(PULL, "PullImage"), (VERSION, "Version")] {
        world.runtime.reset(method, Reason::REFUSED_STREAM);
        let client = world.client().await;
        let reply = client.call(path, &[], frame(false, b"request")).await;
        assert_eq!(reply.code(), "14");
        let requests = world.runtime.requests();
        let sent: Vec<_> = requests.iter().filter(|r| r.path == path).collect();
        assert_eq!(sent.len(), 3);
        assert!(sent.iter().all(|request| request.message == "request"));
    }
}

#[tokio::test]
async fn a_runtime_that_dies_before_the_answer_is_unavailable() {
    for (path, method) in [(VERSION, "Version"), (PULL, "PullImage")] {
        let world = World::start().await;
        world.runtime.hang(method);
        let client = world.client().await;
        let mut call = client.open(path, &[]).await;
        call.send(frame(false, b""), true).await;
        until("the call to arrive", || async {
            (world.runtime.requests().len() == 1).then_some(())
        })
        .await;
        world.runtime.stop();
        let reply = patiently("an answer", call.reply()).await.unwrap();
        assert_eq!(reply.code(), "14", "{method}: {reply:?}");
        let text = reply.text().to_owned();
        assert!(text.contains("broke off"), "{text}");
    }
}

#[tokio::test]
async fn a_runtime_that_dies_in_the_middle_of_an_answer_ends_it_with_a_status() {
    let world = World::start().await;
    let client = world.client().await;
    let mut body = client.stream("/test.Fake/Stream").await;
    patiently("a message", next(&mut body))
        .await
        .unwrap()
        .unwrap();
    world.runtime.stop();
    while let Some(chunk) = patiently("the end", next(&mut body)).await {
        chunk.unwrap();
    }
    let trailers = futures_util::future::poll_fn(|cx| body.poll_trailers(cx)).await;
    assert_eq!(trailers.unwrap().unwrap()["grpc-status"], "14");
}

#[tokio::test]
async fn a_cancelled_call_is_cancelled_at_the_runtime() {
    let world = World::start().await;
    let client = world.client().await;
    for (n, (path, method)) in [(VERSION, "Version"), (PULL, "PullImage")]
        .into_iter()
        .enumerate()
    {
        world.runtime.hang(method);
        let mut call = client.open(path, &[]).await;
        call.send(frame(false, b""), true).await;
        until("the call to arrive", || async {
            (world.runtime.requests().len() == n + 1).then_some(())
        })
        .await;
        assert_eq!(world.runtime.cancellations(), n);
        call.sending.send_reset(Reason::CANCEL);
        world.cancellations(n + 1).await;
    }
}

#[tokio::test]
async fn a_client_that_disappears_cancels_its_calls() {
    let world = World::start().await;
    world.runtime.hang("Version");
    world.runtime.hang("PullImage");
    let (client, connection) = Client::connect_mortal(&world.socket).await;
    let mut calls = Vec::new();
    for path in [VERSION, PULL, VERSION] {
        let mut call = client.open(path, &[]).await;
        call.send(frame(false, b""), true).await;
        calls.push(call);
    }
    until("the calls to arrive", || async {
        (world.runtime.requests().len() == 3).then_some(())
    })
    .await;
    assert_eq!(world.runtime.cancellations(), 0);
    connection.abort();
    world.cancellations(3).await;
}

#[tokio::test]
async fn a_runtime_that_restarts_under_load() {
    let world = World::start().await;
    let running = Arc::new(AtomicBool::new(true));
    let answered = Arc::new(AtomicUsize::new(0));
    let mut workers = Vec::new();
    for _ in 0..16 {
        let client = world.client().await;
        let (running, answered) = (running.clone(), answered.clone());
        workers.push(tokio::spawn(async move {
            let mut codes = std::collections::BTreeSet::new();
            while running.load(Ordering::Relaxed) {
                let reply = client.call(VERSION, &[], frame(false, b"")).await;
                if reply.code() == "0" {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                codes.insert(reply.code().to_owned());
            }
            codes
        }));
    }
    for _ in 0..10 {
        let before = answered.load(Ordering::Relaxed);
        until("calls to be answered again", || async {
            (answered.load(Ordering::Relaxed) > before + 100).then_some(())
        })
        .await;
        world.runtime.stop();
        world.runtime.start_again().unwrap();
    }
    running.store(false, Ordering::Relaxed);
    for worker in workers {
        for code in worker.await.unwrap() {
            assert!(code == "0" || code == "14", "{code}");
        }
    }
}

/// A runtime that limits the age of connections must cost no call.
#[tokio::test]
async fn a_runtime_that_sends_goaway_under_load() {
    let world = World::start().await;
    let answered = Arc::new(AtomicUsize::new(0));
    let running = Arc::new(AtomicBool::new(true));
    let mut workers = Vec::new();
    for path in [VERSION, PULL].into_iter().cycle().take(16) {
        let client = world.client().await;
        let (running, answered) = (running.clone(), answered.clone());
        workers.push(tokio::spawn(async move {
            while running.load(Ordering::Relaxed) {
                let reply = client.call(path, &[], frame(false, b"")).await;
                assert_eq!(reply.code(), "0", "{path}: {reply:?}");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    for _ in 0..20 {
        let before = answered.load(Ordering::Relaxed);
        until("calls to be answered", || async {
            (answered.load(Ordering::Relaxed) > before + 50).then_some(())
        })
        .await;
        world.runtime.retire_connections();
    }
    running.store(false, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
}
