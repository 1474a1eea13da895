//! Everything that is not an image call goes through as it is.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::join_all;
use testkit::cri_api::{Any, RpcStatus};

use crate::world::{World, frame, next, patiently};

const ECHO: &str = "/a.service.to.come/Echo";

#[tokio::test]
async fn an_unknown_method_with_metadata_and_trailers() {
    let world = World::start().await;
    let message = frame(false, b"what is this");
    let metadata = [
        ("x-plain", "one"),
        ("x-plain", "two"),
        ("x-data-bin", "AAECAw"),
        ("x-empty", ""),
        ("user-agent", "grpc-go/1.60"),
    ];
    let reply = world
        .client()
        .await
        .call(ECHO, &metadata, message.clone())
        .await;
    assert_eq!(reply.http_status, 200);
    assert_eq!(reply.body, message);
    let plain: Vec<_> = reply.headers.get_all("x-plain").iter().collect();
    assert_eq!(plain, ["one", "two"]);
    assert_eq!(reply.headers["x-data-bin"], "AAECAw");
    assert_eq!(reply.headers["x-empty"], "");
    assert!(!reply.headers.contains_key("date"));
    let trailers = reply.trailers.unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["x-trailer"], "at the end");
}

#[tokio::test]
async fn what_belongs_to_the_call_arrives_and_what_belongs_to_the_connection_does_not() {
    let world = World::start().await;
    let metadata = [
        ("grpc-timeout", "119999988u"),
        ("host", "somewhere"),
        ("x-bin", "a"),
    ];
    let path = "/runtime.v1alpha2.RuntimeService/Version";
    let reply = world
        .client()
        .await
        .call(path, &metadata, frame(false, b""))
        .await;
    assert_eq!(reply.code(), "0");
    let requests = world.runtime.requests();
    assert_eq!(requests[0].path, path);
    assert_eq!(requests[0].authority.as_deref(), Some("localhost"));
    let metadata = &requests[0].metadata;
    assert_eq!(metadata["grpc-timeout"], "119999988u");
    assert_eq!(metadata["te"], "trailers");
    assert_eq!(metadata["content-type"], "application/grpc");
    assert_eq!(metadata["x-bin"], "a");
    assert!(!metadata.contains_key("host"));
}

#[tokio::test]
async fn twenty_mebibytes_each_way() {
    let world = World::start().await;
    let client = world.client().await;
    let body = frame(false, &vec![0x5a; 20 << 20]);
    let reply = client.call(ECHO, &[], body.clone()).await;
    assert!(reply.body == body, "{} bytes came back", reply.body.len());
    assert_eq!(reply.code(), "0");

    let length = (20 << 20).to_string();
    let reply = client
        .call("/test.Fake/Large", &[], frame(false, length.as_bytes()))
        .await;
    assert_eq!(reply.body.len(), 5 + (20 << 20));
    assert_eq!(reply.code(), "0");
}

#[tokio::test]
async fn a_compressed_message_is_not_touched() {
    let world = World::start().await;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&[b'a'; 5000]).unwrap();
    let body = frame(true, &encoder.finish().unwrap());
    let metadata = [("grpc-encoding", "gzip")];
    let reply = world
        .client()
        .await
        .call(ECHO, &metadata, body.clone())
        .await;
    assert_eq!(reply.body, body);
    assert_eq!(reply.headers["grpc-encoding"], "gzip");
}

#[tokio::test]
async fn a_conversation_goes_message_by_message() {
    let world = World::start().await;
    let client = world.client().await;
    let mut call = client.open(ECHO, &[]).await;
    call.send(frame(false, b"0"), false).await;
    let mut body = patiently("the head", call.response)
        .await
        .unwrap()
        .into_body();
    for n in 1..20u8 {
        let answer = patiently("an echo", next(&mut body)).await;
        assert_eq!(answer.unwrap().unwrap(), frame(false, &[b'0' + n - 1]));
        call.sending
            .send_data(frame(false, &[b'0' + n]), false)
            .unwrap();
    }
    call.sending.send_data(Bytes::new(), true).unwrap();
    let mut rest = Vec::new();
    while let Some(chunk) = patiently("the end", next(&mut body)).await {
        rest.extend_from_slice(&chunk.unwrap());
    }
    assert_eq!(rest, frame(false, &[b'0' + 19]));
}

#[tokio::test]
async fn a_stream_of_many_messages_from_the_client() {
    let world = World::start().await;
    let client = world.client().await;
    let mut call = client.open(ECHO, &[]).await;
    let mut expected = Vec::new();
    for n in 0..500u32 {
        let message = frame(false, &n.to_be_bytes());
        expected.extend_from_slice(&message);
        call.send(message, n == 499).await;
    }
    let reply = patiently("the answer", call.reply()).await.unwrap();
    assert_eq!(reply.body, expected);
}

#[tokio::test]
async fn a_stream_of_messages_from_the_runtime_until_the_client_has_enough() {
    let world = World::start().await;
    let client = world.client().await;
    let mut body = client.stream("/test.Fake/Stream").await;
    for n in 0..5u64 {
        let message = patiently("a message", next(&mut body)).await;
        assert_eq!(message.unwrap().unwrap(), frame(false, &n.to_be_bytes()));
    }
    assert_eq!(world.runtime.cancellations(), 0);
    drop(body);
    world.cancellations(1).await;
}

#[tokio::test]
async fn an_error_without_a_body_and_with_details() {
    let world = World::start().await;
    let status = RpcStatus {
        code: 5,
        message: "no such thing: 100% gone\nreally".into(),
        details: vec![Any {
            type_url: "type.googleapis.com/x".into(),
            value: vec![0, 1, 2, 255],
        }],
    };
    world.runtime.fail("ListImages", status);
    let direct = crate::world::Client::connect(world.runtime.socket()).await;
    let path = "/runtime.v1.ImageService/ListImages";
    let expected = direct.call(path, &[], frame(false, b"")).await;
    let reply = world
        .client()
        .await
        .call(path, &[], frame(false, b""))
        .await;
    assert_eq!(reply.code(), "5");
    assert!(reply.trailers.is_none(), "it was trailers-only");
    assert!(reply.headers.contains_key("grpc-status-details-bin"));
    assert_eq!(reply.headers, expected.headers);
}

#[tokio::test]
async fn a_slow_reader_of_one_call_does_not_hold_up_the_others() {
    let world = World::start().await;
    let client = world.client().await;
    let length = (20 << 20).to_string();
    let mut slow = client.open("/test.Fake/Large", &[]).await;
    slow.send(frame(false, length.as_bytes()), true).await;
    let unread = patiently("the head", slow.response).await.unwrap();
    let calls = (0..50).map(|_| client.call(ECHO, &[], frame(false, b"quick")));
    for reply in patiently("the others", join_all(calls)).await {
        assert_eq!(reply.code(), "0");
    }
    let mut body = unread.into_body();
    let mut total = 0;
    while let Some(chunk) = patiently("the rest", next(&mut body)).await {
        total += chunk.unwrap().len();
    }
    assert_eq!(total, 5 + (20 << 20));
}

#[tokio::test]
async fn a_thousand_calls_at_once_on_one_connection() {
    let world = World::start().await;
    let client = world.client().await;
    world.runtime.add_image("a:1");
    let path = "/runtime.v1.RuntimeService/Version";
    let calls = (0..1000).map(|_| client.call(path, &[], frame(false, b"")));
    for reply in patiently("all answers", join_all(calls)).await {
        assert_eq!(reply.code(), "0");
    }
    assert_eq!(world.runtime.requests().len(), 1000);
}
