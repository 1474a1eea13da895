//! Images that no configured registry has.

use http::HeaderMap;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use testkit::cri_api::{Any, ImageSpec, PullImageRequest, RpcStatus};
use testkit::cri_client::{CallError, kubelet_auth};
use testkit::docker_registry::DockerRegistry;
use testkit::images::Image;
use testkit::shim::Shim;

use crate::world::{World, probes, registry_with, with_fake_runtime};

#[tokio::test]
async fn the_origin_is_pulled_from_unchanged_and_with_the_requests_credentials() {
    let image = Image::new("origin");
    let origin = DockerRegistry::with_password("pod", "pull-secret")
        .await
        .unwrap();
    origin.push(&image, "team/app", "1").await.unwrap();
    let mirror = DockerRegistry::plain().await.unwrap();
    let world = World::start(&format!("address: {}", mirror.url()), &[&origin, &mirror]).await;
    let name = format!("{}/team/app:1", origin.host());
    let auth = kubelet_auth("pod", "pull-secret");
    world.client().pull(&name, Some(auth)).await.unwrap();
    assert_eq!(world.id_of(&name).await.as_deref(), Some(image.id()));
    // The shim itself never asks the origin.
    assert!(
        origin
            .requests()
            .iter()
            .all(|request| request.is_from_containerd())
    );
    let tags: Vec<_> = world.containerd.client().list().await.unwrap();
    assert_eq!(tags[0].repo_tags, [name]);
}

#[tokio::test]
async fn the_request_reaches_the_runtime_byte_for_byte() {
    let mirror = DockerRegistry::plain().await.unwrap();
    let (shim, runtime) = with_fake_runtime(&format!("address: {}", mirror.url())).await;
    // Field 1.1 the name, 2.6 a token, 3 an opaque sandbox config, 99 unknown; fields out of order.
    let mut message = vec![0x9a, 0x06, 0x02, b'x', b'y'];
    message.extend_from_slice(&[0x1a, 0x03, 1, 2, 3]);
    message.extend_from_slice(&[0x12, 0x05, 0x32, 0x03, b't', b'o', b'k']);
    let name = b"ghcr.io/team/app:1";
    message.extend_from_slice(&[0x0a, name.len() as u8 + 2, 0x0a, name.len() as u8]);
    message.extend_from_slice(name);
    let path = shim.client().path("ImageService", "PullImage");
    let metadata = http::HeaderMap::new();
    shim.client()
        .unary(&path, message.clone().into(), metadata)
        .await
        .unwrap();
    let received = runtime.requests();
    assert_eq!(received.last().unwrap().message.as_ref(), message);
}

#[tokio::test]
async fn a_pull_that_fails_everywhere_says_who_was_tried() {
    let mirror = DockerRegistry::plain().await.unwrap();
    let origin = DockerRegistry::plain().await.unwrap();
    let world = World::start(&format!("address: {}", mirror.url()), &[&mirror, &origin]).await;
    let name = format!("{}/team/app:1", origin.host());
    let direct = world
        .containerd
        .client()
        .pull(&name, None)
        .await
        .unwrap_err();
    let error = world.client().pull(&name, None).await.unwrap_err();
    assert_eq!(error.code(), direct.code());
    let (first, trail) = error.message().rsplit_once('\n').unwrap();
    assert_eq!(first, direct.message());
    assert!(
        trail.starts_with(&format!(
            "image-cri-shim tried: http://{}: 404",
            mirror.host()
        )),
        "{trail}"
    );
}

#[tokio::test]
async fn without_fallback_the_origin_is_never_asked() {
    let image = Image::new("at the origin only");
    let mut origin = registry_with(&image, "team/app", "1").await;
    let mirror = DockerRegistry::plain().await.unwrap();
    let config = format!("address: {}\nfallbackToOrigin: false", mirror.url());
    let world = World::start(&config, &[&mirror, &origin]).await;
    let name = format!("{}/team/app:1", origin.host());
    let error = world.client().pull(&name, None).await.unwrap_err();
    assert_eq!(error.code(), Some(5), "{error:?}");
    assert!(
        error.message().contains("fallbackToOrigin: false"),
        "{error:?}"
    );
    assert!(origin.recording().is_empty());
    origin.stop().await;
}

async fn send_pull(shim: &Shim, message: Vec<u8>) -> Result<(), CallError> {
    let client = shim.client();
    let path = client.path("ImageService", "PullImage");
    let answer = client.unary(&path, message.into(), HeaderMap::new());
    answer.await.map(drop)
}

/// A pull request as kubelet makes it, for a Pod whose author wrote the rest.
async fn pull_with(shim: &Shim, name: &str, field: u32, value: &[u8]) -> Result<(), CallError> {
    let mut message = PullImageRequest {
        image: Some(ImageSpec {
            image: name.to_owned(),
            ..ImageSpec::default()
        }),
        ..PullImageRequest::default()
    }
    .encode_to_vec();
    encode_key(field, WireType::LengthDelimited, &mut message);
    encode_varint(value.len() as u64, &mut message);
    message.extend_from_slice(value);
    send_pull(shim, message).await
}

#[tokio::test]
async fn without_fallback_no_pod_gets_past_the_rules_by_what_it_is_made_of() {
    let image = Image::new("ours");
    let mirror = registry_with(&image, "team/app", "1").await;
    let config = format!("address: {}\nfallbackToOrigin: false", mirror.url());
    let (shim, runtime) = with_fake_runtime(&config).await;
    // Labels in the sandbox's config; a pull secret whose password (field 2) is not UTF-8; one that is no message.
    let labels = vec![b'x'; 5 << 20];
    let authors: [(u32, &[u8]); 3] = [
        (3, &labels),
        (2, &[0x0a, 1, b'u', 0x12, 2, 0xff, 0xfe]),
        (2, &[0xff]),
    ];
    for (number, (field, value)) in authors.into_iter().enumerate() {
        runtime.clear_requests();
        mirror.recording().clear();
        let evil = format!("ghcr.io/evil/app:{number}");
        let error = pull_with(&shim, &evil, field, value).await.unwrap_err();
        assert_eq!(error.code(), Some(5), "{error:?}");
        assert_eq!(runtime.count("PullImage"), 0);
        assert_eq!(probes(&mirror), 1);
        let name = "ghcr.io/team/app:1";
        pull_with(&shim, name, field, value).await.unwrap();
        let asked = String::from_utf8_lossy(&runtime.requests()[0].message).into_owned();
        assert!(asked.contains(&mirror.host()));
    }
    // containerd takes the latter for a tag of docker.io/library/sha256.
    let hex = "a".repeat(64);
    runtime.clear_requests();
    for id in [hex.clone(), format!("sha256:{hex}")] {
        let error = shim.client().pull(&id, None).await.unwrap_err();
        assert_eq!(error.code(), Some(5), "{error:?}");
        assert!(error.message().contains("fallbackToOrigin"), "{error:?}");
    }
    // An auth field that is a number: what it is to the runtime is not known here.
    let message = [&[0x0a, 3, 0x0a, 1, b'a'][..], &[0x10, 1]].concat();
    let error = send_pull(&shim, message).await.unwrap_err();
    assert_eq!(error.code(), Some(14), "{error:?}");
    assert_eq!(runtime.count("PullImage"), 0);
}

#[tokio::test]
async fn the_message_inside_the_status_details_is_kept_in_step() {
    let mirror = DockerRegistry::plain().await.unwrap();
    let (shim, runtime) = with_fake_runtime(&format!("address: {}", mirror.url())).await;
    let status = RpcStatus {
        code: 5,
        message: "nowhere: 50 % \u{1f433}".into(),
        details: vec![Any {
            type_url: "x/y".into(),
            value: vec![1, 2, 3],
        }],
    };
    runtime.fail("PullImage", status.clone());
    let error = shim
        .client()
        .pull("ghcr.io/team/app:1", None)
        .await
        .unwrap_err();
    assert!(
        error
            .message()
            .starts_with(&format!("{}\nimage-cri-shim tried: ", status.message)),
        "{error:?}"
    );
    let details = error.status().unwrap().details.as_ref().unwrap();
    assert_eq!(details.message, error.message());
    assert_eq!((details.code, &details.details), (5, &status.details));
}

#[tokio::test]
async fn without_fallback_a_registry_that_is_silent_makes_it_unavailable() {
    let mut gone = DockerRegistry::plain().await.unwrap();
    let address = gone.url();
    gone.stop().await;
    let (shim, runtime) =
        with_fake_runtime(&format!("address: {address}\nfallbackToOrigin: false")).await;
    runtime.fail(
        "PullImage",
        RpcStatus {
            code: 2,
            message: "connection refused".into(),
            details: Vec::new(),
        },
    );
    let error = shim
        .client()
        .pull("ghcr.io/team/app:1", None)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(14), "{error:?}");
    assert!(
        error.message().contains("fallbackToOrigin: false"),
        "{error:?}"
    );
    let asked: Vec<_> = runtime
        .requests()
        .iter()
        .map(|request| String::from_utf8_lossy(&request.message).into_owned())
        .collect();
    assert!(
        asked.iter().all(|asked| !asked.contains("ghcr.io")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn the_origin_of_a_redirected_image_is_the_redirects_target() {
    let (shim, runtime) = with_fake_runtime(
        "probeTimeout: 200ms\nimageRedirMapping: [{src: ghcr.io, to: 'http://127.0.0.1:1/mirror'}]",
    )
    .await;
    for (name, code) in [
        ("127.0.0.1:1/mirror/team/app:1", 8),
        ("ghcr.io/team/app:1", 9),
    ] {
        runtime.fail(
            name,
            RpcStatus {
                code,
                message: name.to_owned(),
                details: Vec::new(),
            },
        );
    }
    let error = shim
        .client()
        .pull("ghcr.io/team/app:1", None)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(8), "{error:?}");
    assert_eq!(
        runtime.count("PullImage"),
        2,
        "the target, and the name as written"
    );
}
