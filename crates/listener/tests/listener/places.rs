//! More clients than there are places.

use listener::{ClientCertificates, Limits, Protocols, WhenFull};
use testkit::certs::Ca;
use testkit::wait;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::world::{GET, GET_LATER, World, answered, places, rest};

#[tokio::test]
async fn idle_connections_give_way_the_longest_idle_first() {
    let world = World::plain(places(3)).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = world.connect().await;
        stream.write_all(GET).await.unwrap();
        answered(&mut stream).await;
        held.push(stream);
    }
    // The first is the one used last.
    held[0].write_all(GET).await.unwrap();
    answered(&mut held[0]).await;
    let mut late = world.connect().await;
    late.write_all(GET).await.unwrap();
    assert!(answered(&mut late).await.contains(" 200 "));
    assert_eq!(rest(&mut held[1]).await, "");
    for still in [0, 2] {
        held[still].write_all(GET).await.unwrap();
        assert!(answered(&mut held[still]).await.contains(" 200 "));
    }
}

#[tokio::test]
async fn idle_http2_connections_that_answer_pings_give_way() {
    let ca = Ca::new().unwrap();
    let clients = ClientCertificates::None;
    let world = World::tls(places(8), Protocols::Http1AndHttp2, &ca, clients).await;
    let mut ended = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let stream = world.connect_tls(&ca, b"h2", None).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        // The client's side answers PINGs for as long as it is driven.
        ended.spawn(async move {
            let _client = client;
            let _ = connection.await;
        });
    }
    for _ in 0..8 {
        let mut late = world.connect_tls(&ca, b"http/1.1", None).await.unwrap();
        late.write_all(GET).await.unwrap();
        assert!(answered(&mut late).await.contains(" 200 "));
    }
    for _ in 0..64 - 8 {
        let one = tokio::time::timeout(wait::TIMEOUT, ended.join_next()).await;
        one.expect("it gave way");
    }
}

/// Two clients whose answers are under way.
async fn two_that_wait(world: &World) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for count in 1..=2 {
        let mut stream = world.connect().await;
        stream.write_all(GET_LATER).await.unwrap();
        world.until_asked(count).await;
        held.push(stream);
    }
    held
}

#[tokio::test]
async fn when_all_are_busy_the_longest_ends_or_the_newcomer_waits() {
    let world = World::plain(places(2)).await;
    let mut held = two_that_wait(&world).await;
    let mut late = world.connect().await;
    late.write_all(GET).await.unwrap();
    assert!(answered(&mut late).await.contains(" 200 "));
    assert_eq!(rest(&mut held[0]).await, "");

    let world = World::plain(Limits {
        when_full: WhenFull::Wait,
        ..places(2)
    })
    .await;
    let mut held = two_that_wait(&world).await;
    let mut late = world.connect().await;
    late.write_all(GET).await.unwrap();
    world.release();
    assert!(answered(&mut held[0]).await.ends_with("late\n"));
    assert!(answered(&mut late).await.contains(" 200 "));
    world.release();
    assert!(answered(&mut held[1]).await.ends_with("late\n"));
}
