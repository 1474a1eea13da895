//! Whose credentials go where.

use std::time::Duration;

use testkit::cri_client::kubelet_auth;
use testkit::docker_registry::DockerRegistry;
use testkit::images::Image;
use testkit::wait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use testkit::fake_registry::FakeRegistry;
use testkit::fake_runtime::FakeRuntime;
use testkit::recording::Recorded;
use testkit::shim::{Options, Shim};

use crate::world::{BINARY, World, registry_with};

#[tokio::test]
async fn kubelets_credentials_stay_on_the_host_they_are_for() {
    let image = Image::new("host a");
    let a = DockerRegistry::with_password("kubelet", "secret-of-a")
        .await
        .unwrap();
    a.push(&image, "team/app", "1").await.unwrap();
    // B is asked first, and has nothing; C has it after A was asked, by its own credentials.
    let b = DockerRegistry::plain().await.unwrap();
    let config = format!("registries: [{{address: '{}', priority: 900}}]", b.url());
    let world = World::start(&config, &[&a, &b]).await;
    let name = format!("{}/team/app:1", a.host());
    let auth = kubelet_auth("kubelet", "secret-of-a");
    world.client().pull(&name, Some(auth)).await.unwrap();
    assert!(
        b.requests()
            .iter()
            .all(|request| request.authorization().is_none())
    );
    assert!(!b.requests().is_empty(), "it was asked");
    assert!(
        a.requests()
            .iter()
            .any(|request| request.has_basic("kubelet", "secret-of-a"))
    );
    assert!(
        !world.shim.log().contains("secret-of-a"),
        "{}",
        world.shim.log()
    );
}

#[tokio::test]
async fn a_mirror_is_pulled_from_anonymously() {
    let image = Image::new("mirrored");
    let mirror = registry_with(&image, "team/app", "1").await;
    let world = World::start(&format!("address: {}", mirror.url()), &[&mirror]).await;
    let auth = kubelet_auth("kubelet", "secret-of-ghcr");
    world
        .client()
        .pull("ghcr.io/team/app:1", Some(auth))
        .await
        .unwrap();
    assert!(
        mirror
            .requests()
            .iter()
            .all(|request| request.authorization().is_none())
    );
}

#[tokio::test]
async fn the_same_host_in_the_config_gets_kubelets_credentials() {
    let image = Image::new("same host");
    let registry = DockerRegistry::with_password("kubelet", "secret")
        .await
        .unwrap();
    registry.push(&image, "team/app", "1").await.unwrap();
    // Listed without credentials of its own: asked, and pulled from, with what the pod brings.
    let config = format!("registries: [{{address: '{}'}}]", registry.url());
    let world = World::start(&config, &[&registry]).await;
    let name = format!("{}/team/app:1", registry.host());
    let auth = kubelet_auth("kubelet", "secret");
    world.client().pull(&name, Some(auth)).await.unwrap();
    assert!(
        registry
            .requests()
            .iter()
            .any(|request| !request.is_from_containerd()
                && request.has_basic("kubelet", "secret")
                && request.status == Some(200))
    );
    // Another pod without the secret doesn't profit from what that one was told.
    registry.recording().clear();
    world.client().pull(&name, None).await.unwrap_err();
}

/// A site's own hosts.toml may send containerd elsewhere first. Who asks for credentials there gets none.
#[tokio::test]
async fn configured_credentials_go_to_no_mirror_of_containerds_own() {
    let image = Image::new("with a stranger before it");
    let registry = DockerRegistry::with_password("robot", "secret-of-ours")
        .await
        .unwrap();
    registry.push(&image, "team/app", "1").await.unwrap();
    let stranger = FakeRegistry::start().unwrap();
    stranger.require_basic("anybody", "at all");
    let config = format!("address: {}\nauth: 'robot:secret-of-ours'", registry.url());
    let world = World::start(&config, &[]).await;
    let hosts = format!(
        "server = \"{}\"\n\n[host.\"{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
        registry.url(),
        stranger.url()
    );
    world
        .containerd
        .write_hosts(&registry.host(), &hosts)
        .unwrap();
    world
        .client()
        .pull("ghcr.io/team/app:1", None)
        .await
        .unwrap();
    let asked = stranger.requests();
    assert!(!asked.is_empty(), "containerd asked it first");
    assert!(asked.iter().all(|r| r.authorization().is_none()));
    let with_password = |r: &&Recorded| r.has_basic("robot", "secret-of-ours");
    assert!(
        registry
            .requests()
            .iter()
            .filter(with_password)
            .any(|request| request.is_from_containerd())
    );
}

/// A forward proxy that connects to nobody and notes whom it was asked for.
async fn noting_proxy() -> (String, std::sync::Arc<parking_lot::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
    let noted = std::sync::Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap_or(0);
            let line = String::from_utf8_lossy(&head[..read]);
            let line = line.lines().next().unwrap_or_default().to_owned();
            noted.lock().push(line);
            let refusal = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";
            let _ = stream.write_all(refusal).await;
        }
    });
    (url, asked)
}

#[tokio::test]
async fn a_public_registry_is_not_asked_for_other_hosts_images() {
    let (proxy, asked) = noting_proxy().await;
    let runtime = FakeRuntime::start().await.unwrap();
    let options = Options::new(BINARY, runtime.socket()).env("HTTPS_PROXY", &proxy);
    let mut shim = Shim::start("registries: [{address: docker.io}]", options)
        .await
        .unwrap();
    shim.client()
        .pull("ghcr.io/team/app:1", None)
        .await
        .unwrap();
    assert_eq!(*asked.lock(), Vec::<String>::new());
    shim.client().pull("team/app:1", None).await.unwrap();
    assert_eq!(asked.lock().len(), 1, "{}", shim.log());
    shim.write_config("registries: [{address: docker.io, mirrorOf: ['*']}]")
        .unwrap();
    shim.restart().await.unwrap();
    asked.lock().clear();
    shim.client()
        .pull("ghcr.io/team/app:1", None)
        .await
        .unwrap();
    let asked = wait::within(Duration::from_secs(10), async || {
        asked.lock().first().cloned()
    })
    .await;
    assert!(
        asked
            .unwrap()
            .starts_with("CONNECT registry-1.docker.io:443 ")
    );
}

#[tokio::test]
async fn a_refusal_names_whose_credentials_were_refused() {
    let runtime = FakeRuntime::start().await.unwrap();
    let refusal = async |auth: &str, pod: Option<&str>| {
        let registry = FakeRegistry::start().unwrap();
        registry.require_basic("user", "right");
        let config = format!("registries: [{{address: '{}'{auth}}}]", registry.url());
        let shim = Shim::start(&config, Options::new(BINARY, runtime.socket()))
            .await
            .unwrap();
        let name = format!("{}/team/app:1", registry.host());
        let auth = pod.map(|password| kubelet_auth("user", password));
        shim.client().pull(&name, auth).await.unwrap();
        shim.wait_for_log("refuses access").await
    };
    let configured = refusal(", auth: 'user:wrong'", None).await;
    assert!(
        configured.contains("check its auth in the config"),
        "{configured}"
    );
    let pods = refusal("", Some("wrong")).await;
    assert!(
        pods.contains("the Pod's own credentials") && !pods.contains("in the config"),
        "{pods}"
    );
    let nobodys = refusal("", None).await;
    assert!(
        nobodys.contains("it was asked without a user name and password"),
        "{nobodys}"
    );
}
