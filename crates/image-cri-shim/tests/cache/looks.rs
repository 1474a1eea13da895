//! What people see of the cache: `cache status`, `resolve` and the shim's `status`, and `cache warm -f`, which
//! takes what manifests name.

use std::process::Output;

use serde_json::Value;
use testkit::containerd::Containerd;
use testkit::docker_registry::DockerRegistry;
use testkit::images::{Format, Image};
use testkit::shim::{Options, Shim};

use crate::world::{CacheProcess, text};

const VARIABLE: &str = "IMAGE_CRI_SHIM_CACHE_SOCKET";

fn config(registry: &DockerRegistry) -> String {
    format!(
        "fallbackToOrigin: false\nregistries:\n  - {{address: '{}'}}\n",
        registry.url()
    )
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(output)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shim_and_the_commands_show_the_cache() {
    let registry = DockerRegistry::plain().await.unwrap();
    let image = Image::index("looked at", Format::Oci);
    registry.push(&image, "team/app", "1").await.unwrap();
    let cache = CacheProcess::start(&config(&registry), "").await;
    let socket = cache.socket();
    let containerd = Containerd::start().await.unwrap();
    let port = cache.address.port();
    let shim_config = format!("useNodeCache: 'http://localhost:{port}'\nfallbackToOrigin: false\n");
    let options = Options::new(env!("CARGO_BIN_EXE_image-cri-shim"), containerd.socket())
        .env(VARIABLE, socket.to_str().unwrap());
    let shim = Shim::start(&shim_config, options).await.unwrap();
    let name = "images.test/team/app:1";
    let ask = async |args: &[&str]| {
        tokio::process::Command::new(env!("CARGO_BIN_EXE_image-cri-shim"))
            .arg("-f")
            .arg(shim.config_file())
            .args(args)
            .env_clear()
            .env("COLUMNS", "200")
            .env(VARIABLE, &socket)
            .output()
            .await
            .unwrap()
    };

    let resolved = ask(&["resolve", name]).await;
    assert!(
        text(&resolved).contains("has not got it"),
        "{}",
        text(&resolved)
    );
    shim.client().pull(name, None).await.unwrap();
    let resolved = json(&ask(&["resolve", "--json", name]).await);
    let known = &resolved[0]["node_cache"];
    assert_eq!(known["digest"], image.manifest_digest.as_str(), "{known}");
    assert_eq!(known["is_whole"], true, "{known}");
    assert!(known["from"].as_str().unwrap().contains(&registry.host()));
    let resolved = ask(&["resolve", name]).await;
    assert!(
        text(&resolved).contains("node cache"),
        "{}",
        text(&resolved)
    );
    assert!(text(&resolved).contains("has it:"), "{}", text(&resolved));

    let status = json(&ask(&["status", "--json"]).await);
    let seen = &status["node_cache"];
    assert!(seen["misses"].as_u64().unwrap() > 0, "{status}");
    assert!(seen["received_bytes"].as_u64().unwrap() > 0, "{status}");
    let shown = ask(&["status"]).await;
    assert!(text(&shown).contains("Node cache"), "{}", text(&shown));
    let own = json(&cache.run(&["status", "--json"]).await);
    assert_eq!(own["dir"], seen["dir"]);
    assert!(own["stored_bytes"].as_u64().unwrap() > 0, "{own}");
    let shown = cache.run(&["status"]).await;
    assert!(text(&shown).contains("from the store"), "{}", text(&shown));

    // Without a cache nobody waits, and nothing is shown.
    drop(cache);
    let status = json(&ask(&["status", "--json"]).await);
    assert_eq!(status["node_cache"], Value::Null, "{status}");
    let resolved = ask(&["resolve", name]).await;
    assert!(
        !text(&resolved).contains("node cache"),
        "{}",
        text(&resolved)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_manifests_name_is_warmed_and_what_kuik_keeps_is_pinned() {
    let mut registry = DockerRegistry::plain().await.unwrap();
    for name in ["web", "kept", "listed", "mentioned"] {
        let repository = format!("team/{name}");
        let image = Image::new(name);
        registry.push(&image, &repository, "1").await.unwrap();
    }
    let cache = CacheProcess::start(&config(&registry), "").await;
    let manifests = cache.dir.path().join("manifests");
    std::fs::create_dir(&manifests).unwrap();
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: web,\n\
        image: images.test/team/web:1, args: ['--helper=images.test/team/mentioned:1']},\n\
        {name: later, image: '$(params.image)'}]}}\n";
    std::fs::write(manifests.join("pod.yaml"), pod).unwrap();
    let kuik = "{apiVersion: kuik.enix.io/v1alpha1, kind: CachedImage, metadata: {name: a},\n\
        spec: {sourceImage: 'images.test/team/kept:1', retain: true}}\n---\n\
        {apiVersion: kuik.enix.io/v1alpha1, kind: CachedImage, metadata: {name: b},\n\
        spec: {sourceImage: 'images.test/team/listed:1', retain: false}}\n";
    std::fs::write(manifests.join("kuik.yaml"), kuik).unwrap();
    let from = manifests.to_str().unwrap();
    let warmed = cache.run(&["warm", "-f", from]).await;
    assert!(warmed.status.success(), "{}", text(&warmed));
    for part in ["3 of 3 images", "1 more image may be", "is filled in later"] {
        assert!(text(&warmed).contains(part), "{part}: {}", text(&warmed));
    }
    let images = json(&cache.run(&["ls", "--json"]).await);
    let images: Vec<(&str, bool)> = images
        .as_array()
        .unwrap()
        .iter()
        .map(|image| {
            let pinned = image["pinned"].as_bool().unwrap();
            (image["name"].as_str().unwrap(), pinned)
        })
        .collect();
    assert_eq!(
        images,
        [
            ("images.test/team/kept:1", true),
            ("images.test/team/listed:1", false),
            ("images.test/team/web:1", false),
        ]
    );
    let all = cache.run(&["warm", "--all", "-f", from]).await;
    assert!(text(&all).contains("4 of 4"), "{}", text(&all));

    // Run again with nobody there it goes on with what is there, and says what is not.
    registry.stop().await;
    let again = cache.run(&["warm", "-f", from]).await;
    assert!(again.status.success(), "{}", text(&again));
    let missing = cache
        .run(&["warm", "-f", from, "images.test/team/none:1"])
        .await;
    assert_eq!(missing.status.code(), Some(1), "{}", text(&missing));
    assert!(
        text(&missing).contains("3 of 4 images"),
        "{}",
        text(&missing)
    );
    // A mistake in a manifest, and a file that is not there.
    std::fs::write(manifests.join("wrong.yaml"), "image: UPPER:1\n").unwrap();
    let wrong = cache.run(&["warm", "-f", from]).await;
    assert_eq!(wrong.status.code(), Some(1), "{}", text(&wrong));
    assert!(text(&wrong).contains("wrong.yaml:1"), "{}", text(&wrong));
    let nowhere = cache.run(&["warm", "-f", "/nonexistent.yaml"]).await;
    assert_eq!(nowhere.status.code(), Some(2), "{}", text(&nowhere));
}
