//! Every call is counted once, by its method and by how it ended; the shim's own service is not among
//! them.

use cri::inspect::{SERVICE, ask};
use cri::upstream::Upstream;
use testkit::cri_api::RpcStatus;
use testkit::wait::until;

use crate::world::{World, frame};

impl World {
    /// Waits until exactly these calls are counted: `("Version", "OK", 1)`.
    async fn counted(&self, calls: &[(&str, &str, u64)]) {
        let mut expected: Vec<String> = calls
            .iter()
            .map(|(method, code, count)| {
                format!(r#"image_cri_shim_calls_total{{method="{method}",code="{code}"}} {count}"#)
            })
            .collect();
        expected.sort();
        until(&format!("{expected:?}"), || async {
            let text = self.telemetry.metrics().encode(Default::default());
            let is_count = |line: &&str| line.starts_with("image_cri_shim_calls_total");
            let mut lines: Vec<&str> = text.lines().filter(is_count).collect();
            lines.sort_unstable();
            (lines == expected).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn forwarded_and_answered_calls() {
    let world = World::start().await;
    let client = world.client().await;
    for path in [
        "/runtime.v1.RuntimeService/Version",
        "/runtime.v1alpha2.RuntimeService/Version",
        "/runtime.v1.ImageService/ImageStatus",
        "/somebody.elses.Service/Version",
    ] {
        client.call(path, &[], frame(false, b"")).await;
    }
    world
        .counted(&[
            ("Version", "OK", 2),
            ("ImageStatus", "OK", 1),
            ("other", "OK", 1),
        ])
        .await;
    let text = world.telemetry.metrics().encode(Default::default());
    for line in [
        r#"image_cri_shim_added_latency_seconds_count{method="Version"} 2"#,
        r#"image_cri_shim_added_latency_seconds_count{method="ImageStatus"} 1"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn by_how_they_ended() {
    let world = World::start().await;
    let client = world.client().await;
    let status = |code, message: &str| RpcStatus {
        code,
        message: message.to_owned(),
        details: Vec::new(),
    };
    world.runtime.fail("ListImages", status(7, "not you"));
    world.runtime.fail("PullImage", status(5, "no such image"));
    for method in ["ListImages", "PullImage"] {
        let path = format!("/runtime.v1.ImageService/{method}");
        client.call(&path, &[], frame(false, b"")).await;
    }
    world.runtime.hang("Version");
    let mut call = client.open("/runtime.v1.RuntimeService/Version", &[]).await;
    call.send(frame(false, b""), true).await;
    until("the call to arrive", || async {
        let requests = world.runtime.requests();
        let arrived = requests.iter().any(|r| r.path.ends_with("/Version"));
        arrived.then_some(())
    })
    .await;
    drop(call);
    world
        .counted(&[
            ("ListImages", "PERMISSION_DENIED", 1),
            ("PullImage", "NOT_FOUND", 1),
            ("Version", "CANCELLED", 1),
        ])
        .await;
    world.runtime.stop();
    let path = "/runtime.v1.RuntimeService/Status";
    client.call(path, &[], frame(false, b"")).await;
    world
        .counted(&[
            ("ListImages", "PERMISSION_DENIED", 1),
            ("PullImage", "NOT_FOUND", 1),
            ("Status", "UNAVAILABLE", 1),
            ("Version", "CANCELLED", 1),
        ])
        .await;
}

#[tokio::test]
async fn the_shims_own_service_is_answered_and_not_forwarded() {
    let world = World::start().await;
    let shim = Upstream::new(&world.socket);
    let long = vec![b'x'; 900 << 10];
    for message in [&b"{}"[..], b"", &long] {
        let answer = ask(&shim, "Echo", message).await.unwrap().unwrap();
        assert!(answer == message, "{} bytes came back", answer.len());
    }
    let refused = ask(&shim, "Else", b"{}").await.unwrap().unwrap_err();
    assert_eq!(refused.code.0, 12);
    let reply = world
        .client()
        .await
        .call(&format!("{SERVICE}Echo"), &[], frame(true, b"not gzip"))
        .await;
    assert_eq!(reply.code(), "13");
    world.counted(&[]).await;
    assert!(world.runtime.requests().is_empty());
}
