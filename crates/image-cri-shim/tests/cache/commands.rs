//! Commands, asked of the running cache and without one.

use std::process::Stdio;

use testkit::certs::Ca;
use testkit::docker_registry::DockerRegistry;
use testkit::fake_registry::FakeRegistry;
use testkit::images::{Format, Image, digest_of_pieces};

use crate::world::{BINARY, CacheProcess, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_s_life() {
    let mut registry = DockerRegistry::plain().await.unwrap();
    let image = Image::index("commands", Format::Oci);
    registry.push(&image, "team/app", "1").await.unwrap();
    let config = format!(
        "fallbackToOrigin: false\nregistries:\n  - {{address: '{}'}}\n",
        registry.url()
    );
    let mut cache = CacheProcess::start(&config, "").await;
    let name = "images.test/team/app:1";
    let warmed = cache.run(&["warm", "--pin", name]).await;
    assert!(warmed.status.success(), "{}", text(&warmed));
    registry.stop().await;
    let listed = cache.run(&["ls", "--json"]).await;
    let images: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(images[0]["name"], name);
    assert_eq!(images[0]["digest"], image.manifest_digest.as_str());
    assert_eq!(images[0]["pinned"], true);
    let path = format!(
        "/v2/team/app/manifests/{}?ns=images.test",
        image.manifest_digest
    );
    assert_eq!(cache.get(&path, "").await.status, 200);

    // Damage is found, told and mended as far as that goes.
    let child = image
        .children
        .iter()
        .find(|child| child.config_digest == image.config_digest)
        .unwrap();
    let layer = &child
        .blobs
        .iter()
        .find(|b| b.digest != child.config_digest)
        .unwrap()
        .digest;
    let file = cache
        .dir
        .path()
        .join("store/blobs")
        .join(layer.replace(':', "/"));
    std::fs::write(&file, b"damaged").unwrap();
    let found = cache.run(&["verify"]).await;
    assert_eq!(found.status.code(), Some(1), "{}", text(&found));
    assert!(text(&found).contains(layer), "{}", text(&found));
    registry.start_again().await.unwrap();
    let mended = cache.run(&["verify", "--repair"]).await;
    assert!(mended.status.success(), "{}", text(&mended));
    assert!(cache.run(&["verify"]).await.status.success());

    // Without a running cache the same directory answers.
    cache.stop().await;
    assert!(cache.run(&["unpin", name]).await.status.success());
    let removed = cache.run(&["rm", name]).await;
    assert!(removed.status.success(), "{}", text(&removed));
    assert_eq!(cache.run(&["rm", name]).await.status.code(), Some(1));
    let listed = cache.run(&["ls"]).await;
    assert_eq!(text(&listed), "no images\n");
    let printed = cache.run(&["gc"]).await;
    assert!(printed.status.success());
}

#[test]
fn a_runtimes_config_is_printed_whole_or_refused() {
    let run = |args: &[&str], stdout: Stdio| {
        let mut command = std::process::Command::new(BINARY);
        command.args(["cache", "mirror-config"]).args(args);
        command.stdout(stdout).output().unwrap()
    };
    let printed = run(&["crio", "quay.io", "reg.corp:5000"], Stdio::piped());
    assert!(printed.status.success(), "{}", text(&printed));
    for (args, words) in [
        (
            ["crio", "quay.io", "http://reg.corp"],
            "registry `http://reg.corp`: a scheme",
        ),
        (
            ["crio", "*.corp", "quay.io"],
            "registry `*.corp`: the cache mirrors no wildcards",
        ),
        (
            ["containerd", "--address", "localhost"],
            "cache at `localhost`: the port is missing",
        ),
    ] {
        let refused = run(&args, Stdio::piped());
        assert_eq!(
            refused.status.code(),
            Some(2),
            "{args:?}: {}",
            text(&refused)
        );
        assert!(refused.stdout.is_empty(), "{args:?}: {}", text(&refused));
        assert!(
            text(&refused).contains(words),
            "{args:?}: {}",
            text(&refused)
        );
    }
    let full = std::fs::File::options().write(true).open("/dev/full");
    let lost = run(&["crio"], Stdio::from(full.unwrap()));
    assert_eq!(lost.status.code(), Some(1), "{}", text(&lost));
    assert!(
        text(&lost).contains("No space left on device"),
        "{}",
        text(&lost)
    );
}

/// k3s writes what its containerd is told itself, from a file of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_looked_for_where_the_node_s_runtime_has_them() {
    let cert = Ca::new().unwrap().issue(&["127.0.0.1"]).unwrap();
    let registry = FakeRegistry::start_tls(&cert).unwrap();
    let config = format!(
        "cri: /nonexistent/run/k3s/containerd/containerd.sock\nfallbackToOrigin: false\nregistries:\n  - {{address: '{}'}}\n",
        registry.url()
    );
    let mut cache = CacheProcess::start(&config, "").await;
    for is_running in [true, false] {
        if !is_running {
            cache.stop().await;
        }
        let warmed = cache.run(&["warm", "images.test/team/app:1"]).await;
        let text = text(&warmed);
        assert!(text.contains("/etc/rancher/k3s/registries.yaml"), "{text}");
    }
}

/// What copies images often leaves their attestations behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_warmed_without_the_attestation_that_is_nowhere() {
    let registry = FakeRegistry::start().unwrap();
    let platforms = Image::index("attested", Format::Oci);
    let with = |os: &str| {
        let missing = digest_of_pieces([os]);
        let mut index: serde_json::Value = serde_json::from_slice(&platforms.manifest).unwrap();
        index["manifests"]
            .as_array_mut()
            .unwrap()
            .push(serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": missing,
                "size": 566,
                "platform": {"os": os, "architecture": os},
            }));
        let manifest = bytes::Bytes::from(index.to_string());
        Image {
            manifest_digest: digest_of_pieces([&manifest]),
            manifest,
            ..platforms.clone()
        }
    };
    registry.add(&with("unknown"), "team/app", "attested");
    registry.add(&with("plan9"), "team/app", "torn");
    let config = format!(
        "fallbackToOrigin: false\nregistries:\n  - {{address: '{}'}}\n",
        registry.url()
    );
    let mut cache = CacheProcess::start(&config, "").await;
    let arguments = ["warm", "--platform", "all"];
    let image = "images.test/team/app:attested";
    let warmed = cache
        .run(&[&arguments[..], &["--pin", image]].concat())
        .await;
    assert!(warmed.status.success(), "{}", text(&warmed));
    assert!(
        text(&warmed).contains("its attestation sha256:"),
        "{}",
        text(&warmed)
    );
    // A platform that is missing is another matter.
    let torn = "images.test/team/app:torn";
    let warmed = cache.run(&[&arguments[..], &[torn]].concat()).await;
    assert_eq!(warmed.status.code(), Some(1), "{}", text(&warmed));
    cache.stop().await;
}
