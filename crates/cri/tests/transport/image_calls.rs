//! Image calls get to the code that answers them, whatever shape they come in; what is not one message
//! goes through.

use parking_lot::Mutex;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cri::call::{ImageCalls, UnaryCall};
use cri::grpc::{Code, Status};
use cri::method::ImageMethod;
use cri::upstream::{Outgoing, UnaryReply};
use cri::wire::{self, AuthEdit};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::BoxFuture;
use prost::Message;
use testkit::cri_api::{
    Any, ImageSpec, ImageStatusRequest, ImageStatusResponse, PullImageRequest, RpcStatus,
};

use crate::world::{World, frame};

const STATUS: &str = "/runtime.v1.ImageService/ImageStatus";
const PULL: &str = "/runtime.v1alpha2.ImageService/PullImage";

/// Puts `mirror/` before every name, and tells what it saw.
#[derive(Default)]
struct Mirror(Mutex<Vec<(ImageMethod, Bytes)>>);

impl ImageCalls for Mirror {
    fn call(&self, call: UnaryCall) -> BoxFuture<'static, UnaryReply> {
        self.0.lock().push((call.method, call.message.clone()));
        Box::pin(async move {
            let name = format!("mirror/{}", wire::image_name(&call.message).unwrap());
            let message =
                wire::replace_image_and_auth(&call.message, &name, AuthEdit::Keep).unwrap();
            let message = Outgoing::message(&message).unwrap();
            match call.send(&message).await {
                Ok(mut reply) => {
                    reply.append_line("tried: mirror");
                    reply
                }
                Err(error) => UnaryReply::from_status(&error.status()),
            }
        })
    }
}

fn status_request(name: &str) -> Bytes {
    let image = Some(ImageSpec {
        image: name.into(),
        ..ImageSpec::default()
    });
    ImageStatusRequest {
        image,
        verbose: true,
    }
    .encode_to_vec()
    .into()
}

async fn mirror() -> (World, Arc<Mirror>) {
    let mirror = Arc::<Mirror>::default();
    let world = World::with(mirror.clone(), Duration::from_secs(5)).await;
    (world, mirror)
}

#[tokio::test]
async fn a_call_is_edited_and_answered() {
    let (world, mirror) = mirror().await;
    let id = world.runtime.add_image("mirror/a:1");
    let request = status_request("a:1");
    let metadata = [("x-id", "7"), ("grpc-timeout", "60S")];
    let reply = world
        .client()
        .await
        .call(STATUS, &metadata, frame(false, &request))
        .await;
    assert_eq!(reply.code(), "0");
    let image = ImageStatusResponse::decode(&reply.body[5..]).unwrap().image;
    assert_eq!(image.unwrap().id, id);
    assert_eq!(*mirror.0.lock(), [(ImageMethod::Status, request.clone())]);
    let seen = &world.runtime.requests()[0];
    assert_eq!(seen.message, status_request("mirror/a:1"));
    assert_eq!(seen.metadata["x-id"], "7");
    // What is left of the deadline, and not more.
    let timeout = cri::grpc::parse_timeout(seen.metadata["grpc-timeout"].as_bytes()).unwrap();
    assert!(timeout <= Duration::from_secs(60) && timeout > Duration::from_secs(1));
}

#[tokio::test]
async fn a_message_in_many_pieces_is_one_message() {
    let (world, mirror) = mirror().await;
    let client = world.client().await;
    let request = status_request("a:1");
    let mut call = client.open(STATUS, &[]).await;
    for byte in frame(false, &request) {
        call.send(Bytes::copy_from_slice(&[byte]), false).await;
    }
    call.send(Bytes::new(), true).await;
    assert_eq!(call.reply().await.unwrap().code(), "0");
    assert_eq!(*mirror.0.lock(), [(ImageMethod::Status, request)]);
}

#[tokio::test]
async fn a_compressed_message_is_edited_too() {
    let (world, mirror) = mirror().await;
    let request = status_request("a:1");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&request).unwrap();
    let body = frame(true, &encoder.finish().unwrap());
    let client = world.client().await;
    let reply = client
        .call(STATUS, &[("grpc-encoding", "gzip")], body)
        .await;
    assert_eq!(reply.code(), "0");
    assert_eq!(mirror.0.lock()[0].1, request);
    let seen = &world.runtime.requests()[0];
    assert_eq!(seen.message, status_request("mirror/a:1"));
    assert!(!seen.compressed && !seen.metadata.contains_key("grpc-encoding"));
}

#[tokio::test]
async fn what_is_not_one_readable_message_goes_through_whole() {
    let (world, mirror) = mirror().await;
    let client = world.client().await;
    let message = status_request("a:1");
    let one = frame(false, &message);
    let two = Bytes::from([&one[..], &one[..]].concat());
    let large = frame(false, &vec![0; (16 << 20) + 1]);
    for (metadata, body) in [
        (vec![("grpc-encoding", "snappy")], frame(true, b"not known")),
        (vec![], two),
        (vec![], one.slice(..one.len() - 1)),
        (vec![], Bytes::new()),
        (vec![], frame(true, &message)),
        (vec![], large),
    ] {
        world.runtime.clear_requests();
        client.call(STATUS, &metadata, body.clone()).await;
        let requests = world.runtime.requests();
        assert_eq!(requests.len(), 1);
        let rest = body.get(5..).unwrap_or_default();
        assert!(requests[0].message == rest, "{} bytes", rest.len());
    }
    assert!(mirror.0.lock().is_empty());
}

#[tokio::test]
async fn as_much_as_runtimes_take_is_read() {
    let (world, mirror) = mirror().await;
    let client = world.client().await;
    let mut message = status_request("a:1").to_vec();
    // Field 99, unknown: the rest of 16 MiB.
    let rest = (16 << 20) - message.len() - 6;
    message.extend_from_slice(&[0x9a, 0x06]);
    prost::encoding::encode_varint(rest as u64, &mut message);
    message.resize(16 << 20, 7);
    for _ in 0..3 {
        // One after another: what one has taken is there for the next.
        let reply = client.call(STATUS, &[], frame(false, &message)).await;
        assert_eq!(reply.code(), "0");
    }
    let seen = mirror.0.lock();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|(_, read)| *read == message));
}

#[tokio::test]
async fn a_failure_keeps_its_code_and_details_and_gains_a_line() {
    let (world, _) = mirror().await;
    let status = RpcStatus {
        code: 9,
        message: "disk full".into(),
        details: vec![Any {
            type_url: "t".into(),
            value: vec![1],
        }],
    };
    world.runtime.fail("PullImage", status.clone());
    let request = PullImageRequest::default().encode_to_vec();
    let client = world.client().await;
    let reply = client.call(PULL, &[], frame(false, &request)).await;
    assert_eq!(reply.code(), "9");
    assert_eq!(reply.text(), "disk full%0Atried: mirror");
    let details = testkit::cri_client::CriClient::new(&world.socket)
        .pull("a:1", None)
        .await
        .unwrap_err();
    let details = details.status().unwrap().details.clone().unwrap();
    assert_eq!(details.message, "disk full\ntried: mirror");
    assert_eq!((details.code, details.details), (9, status.details));
}

/// Fails inside.
struct Broken {
    /// Pulls must not be forwarded as they came.
    is_closed: bool,
}

impl ImageCalls for Broken {
    fn call(&self, call: UnaryCall) -> BoxFuture<'static, UnaryReply> {
        Box::pin(async move {
            if call.message != gone().encode_to_vec() {
                panic!("a defect");
            }
            UnaryReply::from_status(&Status::new(Code::NOT_FOUND, "gone"))
        })
    }

    fn refusal(&self, method: ImageMethod, why: &str) -> Option<Status> {
        let is_refused = self.is_closed && method == ImageMethod::Pull;
        is_refused.then(|| Status::new(Code::UNAVAILABLE, why.to_owned()))
    }
}

fn pull_request(name: &str) -> PullImageRequest {
    PullImageRequest {
        image: Some(ImageSpec {
            image: name.into(),
            ..ImageSpec::default()
        }),
        ..PullImageRequest::default()
    }
}

/// The one pull that [`Broken`] answers.
fn gone() -> PullImageRequest {
    pull_request("gone:1")
}

#[tokio::test]
async fn a_defect_of_ours_does_not_fail_the_call() {
    let calls = Arc::new(Broken { is_closed: false });
    let world = World::with(calls, Duration::from_secs(5)).await;
    let id = world.runtime.add_image("a:1");
    let client = testkit::cri_client::CriClient::new(&world.socket);
    assert_eq!(client.status("a:1").await.unwrap().unwrap().id, id);
    client.pull("b:1", None).await.unwrap();
    let error = client.pull("gone:1", None).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Some(5), "gone"));
}

#[tokio::test]
async fn what_must_not_be_forwarded_as_it_came_is_refused() {
    let calls = Arc::new(Broken { is_closed: true });
    let world = World::with(calls, Duration::from_secs(5)).await;
    let id = world.runtime.add_image("a:1");
    let client = testkit::cri_client::CriClient::new(&world.socket);
    let error = client.pull("a:1", None).await.unwrap_err();
    assert_eq!(error.code(), Some(14), "{error:?}");
    assert_eq!(client.status("a:1").await.unwrap().unwrap().id, id);
    let client = world.client().await;
    let message = pull_request("a:1").encode_to_vec();
    let one = frame(false, &message);
    let two = Bytes::from([&one[..], &one[..]].concat());
    let large = frame(false, &vec![0; (16 << 20) + 1]);
    for (body, why) in [
        (frame(true, &message), "compressed"),
        (two, "not one message"),
        (large, "larger than 16 MiB"),
    ] {
        let reply = client.call(PULL, &[], body).await;
        assert_eq!(reply.code(), "14");
        assert!(reply.text().contains(why), "{}", reply.text());
    }
    assert_eq!(world.runtime.count("PullImage"), 0);
}

#[tokio::test]
async fn a_deadline_that_has_passed_is_said_so() {
    let world = World::start().await;
    let client = world.client().await;
    let reply = client
        .call(STATUS, &[("grpc-timeout", "0n")], frame(false, b""))
        .await;
    assert_eq!(reply.code(), "4");
    assert!(world.runtime.requests().is_empty());
}
