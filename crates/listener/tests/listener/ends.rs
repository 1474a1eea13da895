//! How it ends.

use std::time::Duration;

use listener::{ClientCertificates, Limits, Protocols};
use testkit::certs::Ca;
use testkit::wait;
use tokio::io::AsyncWriteExt;

use crate::world::{GET, GET_LATER, World, answered, places, rest};

#[tokio::test]
async fn answers_under_way_are_finished_and_idle_connections_closed() {
    let mut world = World::plain(places(8)).await;
    let mut idle = world.connect().await;
    idle.write_all(GET).await.unwrap();
    answered(&mut idle).await;
    let mut busy = world.connect().await;
    busy.write_all(GET_LATER).await.unwrap();
    world.until_asked(2).await;
    world.shutdown.take().unwrap().send(()).unwrap();
    assert_eq!(rest(&mut idle).await, "");
    world.release();
    let answer = rest(&mut busy).await;
    assert!(answer.ends_with("late\n"), "{answer}");
    let ended = tokio::time::timeout(wait::TIMEOUT, &mut world.server);
    ended.await.expect("it ends").unwrap();
}

#[tokio::test]
async fn what_does_not_end_in_time_is_ended() {
    let mut world = World::plain(Limits {
        drain_timeout: Duration::from_millis(50),
        ..places(8)
    })
    .await;
    let mut busy = world.connect().await;
    busy.write_all(GET_LATER).await.unwrap();
    world.until_asked(1).await;
    world.shutdown.take().unwrap().send(()).unwrap();
    assert_eq!(rest(&mut busy).await, "");
    let ended = tokio::time::timeout(wait::TIMEOUT, &mut world.server);
    ended.await.expect("it ends").unwrap();
}

#[tokio::test]
async fn connections_end_with_the_listener() {
    let ca = Ca::new().unwrap();
    let plain = World::plain(places(8)).await;
    let tls = ClientCertificates::None;
    let tls = World::tls(places(8), Protocols::Http1AndHttp2, &ca, tls).await;
    let mut stream = plain.connect().await;
    stream.write_all(GET).await.unwrap();
    answered(&mut stream).await;
    let secret = tls.connect_tls(&ca, b"h2", None).await.unwrap();
    let (client, connection) = h2::client::handshake(secret).await.unwrap();
    drop((plain, tls));
    rest(&mut stream).await;
    let ended = tokio::time::timeout(wait::TIMEOUT, connection).await;
    let _ = ended.expect("it ends");
    drop(client);
}
