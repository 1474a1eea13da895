//! Nothing on this machine is asked on a registry's word, or because a client names it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::fake_registry::{Behaviour, FakeRegistry};
use testkit::images::Image;
use tokio::net::TcpListener;

use crate::world::{NAME, REPOSITORY, Served};

/// A service of this machine that nobody in the config has named. Counts who connects.
struct Bystander {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Bystander {
    /// On every address of this machine.
    async fn start() -> Self {
        let listener = TcpListener::bind("[::]:0").await.unwrap();
        let bystander = Self {
            port: listener.local_addr().unwrap().port(),
            connections: Arc::default(),
        };
        let connections = Arc::clone(&bystander.connections);
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                connections.fetch_add(1, Ordering::SeqCst);
            }
        });
        bystander
    }

    fn was_asked(&self) -> bool {
        self.connections.load(Ordering::SeqCst) > 0
    }
}

/// Not 127.0.0.1: where the registry itself is may be asked.
const HOSTS: [&str; 4] = ["127.0.0.2", "0.0.0.0", "[::1]", "[::ffff:127.0.0.3]"];

async fn case() -> (Bystander, FakeRegistry, Image, Served) {
    let bystander = Bystander::start().await;
    let registry = FakeRegistry::start().unwrap();
    let image = Image::new("addresses");
    registry.add(&image, REPOSITORY, "1");
    let cache = Served::start(&format!("{{address: '{}'}}", registry.url())).await;
    (bystander, registry, image, cache)
}

#[tokio::test]
async fn a_redirect_does_not_lead_to_this_machine() {
    let (bystander, registry, image, cache) = case().await;
    let layer = &image.blobs[0].digest;
    for (number, host) in HOSTS.iter().enumerate() {
        let target = format!("http://{host}:{}/x", bystander.port);
        registry.behave(Behaviour::Redirect(target));
        for path in [
            format!("/v2/{NAME}/manifests/t{number}"),
            format!("/v2/{NAME}/blobs/{layer}"),
            format!("/v2/{NAME}/tags/list"),
        ] {
            let answer = cache.get(&path).await;
            assert!(answer.status >= 400, "{host} {path}: {}", answer.status);
        }
    }
    assert!(!bystander.was_asked());
    assert!(!registry.requests().is_empty());
}

#[tokio::test]
async fn a_realm_is_not_on_this_machine() {
    let (bystander, registry, _, cache) = case().await;
    for (number, host) in HOSTS.iter().enumerate() {
        let realm = format!("http://{host}:{}/token", bystander.port);
        registry.behave(Behaviour::Challenge(format!("Bearer realm=\"{realm}\"")));
        let answer = cache.get(&format!("/v2/{NAME}/manifests/t{number}")).await;
        assert!(answer.status >= 400, "{host}: {}", answer.status);
    }
    assert!(!bystander.was_asked());
    assert!(!registry.requests().is_empty());
}

#[tokio::test]
async fn an_origin_is_not_on_this_machine_unless_the_config_names_it() {
    let bystander = Bystander::start().await;
    // The origin may be asked, if there is one.
    let cache = Served::start_with("fallbackToOrigin: true\n").await;
    let names = ["127.0.0.1", "localhost", "169.254.169.254"];
    for host in HOSTS.iter().chain(&names) {
        let with_port = format!("{host}:{}", bystander.port);
        let path = format!("/v2/x/y/manifests/1?ns={with_port}");
        let answer = cache.get(&path).await;
        assert!(answer.status >= 400, "{host}: {}", answer.status);
        let path = format!("/v2/{with_port}/x/y/manifests/1");
        let answer = cache.get(&path).await;
        assert!(answer.status >= 400, "{host}: {}", answer.status);
    }
    assert!(!bystander.was_asked());
}

#[tokio::test]
async fn a_name_that_another_page_has_made_its_own_opens_nothing() {
    let (_, registry, _, cache) = case().await;
    let path = format!("/v2/{NAME}/manifests/1");
    for host in [
        "evil.example",
        "evil.example:7439",
        "localhost.evil.example",
        "",
    ] {
        let answer = cache.ask("GET", &path, &[("Host", host)]).await;
        assert!(
            (400..500).contains(&answer.status),
            "{host}: {}",
            answer.status
        );
    }
    assert!(registry.requests().is_empty());
    for host in ["localhost", "127.0.0.1:1"] {
        let answer = cache.ask("GET", &path, &[("Host", host)]).await;
        assert_eq!(answer.status, 200, "{host}");
    }
}
