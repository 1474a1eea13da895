//! A real containerd pulls through the cache.

use testkit::containerd::Containerd;
use testkit::docker_registry::DockerRegistry;
use testkit::images::{Format, Image};
use testkit::shim::{Options, Shim};

use crate::world::CacheProcess;

fn config(registry: &DockerRegistry) -> String {
    format!(
        "fallbackToOrigin: false\nregistries:\n  - {{address: '{}'}}\n",
        registry.url()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_three_ways_and_again_when_upstream_is_gone() {
    let mut registry = DockerRegistry::plain().await.unwrap();
    let image = Image::index("three ways", Format::Oci);
    registry.push(&image, "team/app", "1").await.unwrap();
    let mut cache = CacheProcess::start(&config(&registry), "").await;
    let containerd = Containerd::start().await.unwrap();
    let port = cache.address.port();
    let hosts = format!(
        "server = \"http://127.0.0.1:{port}\"\n[host.\"http://127.0.0.1:{port}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"1s\"\n"
    );
    containerd.write_hosts("images.test", &hosts).unwrap();
    let shim_config = format!("useNodeCache: 'http://localhost:{port}'\nfallbackToOrigin: false\n");
    let options = Options::new(env!("CARGO_BIN_EXE_image-cri-shim"), containerd.socket());
    let shim = Shim::start(&shim_config, options).await.unwrap();
    let direct = containerd.client();
    let by_shim = shim.client();
    // By hosts.toml (`?ns=`), by the cache's own name (TLS is tried first), and by the shim.
    let by_path = format!("localhost:{port}/images.test/team/app:1");
    let ways = [
        (&direct, "images.test/team/app:1"),
        (&direct, by_path.as_str()),
        (&by_shim, "images.test/team/app:1"),
    ];
    for (client, name) in &ways {
        let id = client.pull(name, None).await.unwrap();
        assert_eq!(id, image.config_digest, "{name}");
    }
    // Nobody is left, the runtime has lost the image, and the cache has been restarted.
    registry.stop().await;
    for restart in [false, true] {
        if restart {
            cache.stop().await;
            cache.start_again().await;
        }
        for (client, name) in &ways {
            for known in direct.list().await.unwrap() {
                direct.remove(&known.id).await.unwrap();
            }
            let id = client.pull(name, None).await.unwrap();
            assert_eq!(id, image.config_digest, "{name}, restart: {restart}");
        }
    }
    let missing = direct.pull("images.test/team/app:2", None).await;
    assert!(missing.is_err());
    // And when upstream is back, what is new there comes.
    registry.start_again().await.unwrap();
    let newer = Image::new("newer");
    registry.push(&newer, "team/app", "1").await.unwrap();
    testkit::wait::until("the tag moves", || async {
        let id = direct.pull("images.test/team/app:1", None).await.ok()?;
        (id == newer.config_digest).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tls_hello_gets_a_plain_answer_and_strangers_none() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let cache = CacheProcess::start("registries: []\naddress: ''\n", "").await;
    let mut stream = tokio::net::TcpStream::connect(cache.address).await.unwrap();
    stream
        .write_all(b"\x16\x03\x01\x00\x05hello")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let path = "/v2/169.254.169.254/x/manifests/1";
    let denied = cache.get(path, "").await;
    assert_eq!(denied.status, 403);
    let looped = cache.get("/v2/", "Via: 1.1 somebody\r\n").await;
    assert_eq!(looped.status, 200);
}
