//! Proxies from the environment.

use policy::{Endpoint, ProxySettings};
use registry::{Cause, Client, ClientOptions};
use testkit::fake_registry::FakeRegistry;
use testkit::images::Image;

use crate::setup::{REPOSITORY, ask, cause, found, options, target};

fn behind(proxy: String, no_proxy: &'static str) -> Client {
    Client::new(ClientOptions {
        proxies: ProxySettings::from_lookup(move |name| match name {
            "HTTP_PROXY" | "HTTPS_PROXY" => Some(proxy.clone()),
            "NO_PROXY" => Some(no_proxy.to_owned()),
            _ => None,
        }),
        ..options()
    })
}

/// The fake registry takes a proxy's requests (absolute URIs) as its own: what it sees, a proxy sees.
fn proxy() -> (FakeRegistry, Image) {
    let proxy = FakeRegistry::start().unwrap();
    let image = Image::new("app");
    proxy.add(&image, REPOSITORY, "1");
    (proxy, image)
}

#[tokio::test]
async fn a_plain_registry_is_asked_through_the_proxy_with_its_own_password() {
    let (proxy, image) = proxy();
    let client = behind(format!("user:hunter2@{}", proxy.host()), "");
    let probe = ask(&client, &target("http://registry.invalid")).await;
    assert_eq!(probe.outcome, found(&image), "{}", probe.detail);
    let [request] = proxy.requests().try_into().unwrap();
    assert_eq!(request.headers["host"], "registry.invalid");
    // base64 of user:hunter2
    assert_eq!(
        request.headers["proxy-authorization"],
        "Basic dXNlcjpodW50ZXIy"
    );
    assert_eq!(request.authorization(), None);
}

#[tokio::test]
async fn exceptions_and_loopback_are_asked_directly() {
    let (proxy, _) = proxy();
    let client = behind(proxy.url(), "registry.invalid");
    let probe = ask(&client, &target("http://registry.invalid")).await;
    assert_eq!(cause(&probe), Some(Cause::Dns), "{}", probe.detail);
    assert!(proxy.recording().is_empty());

    let direct = FakeRegistry::start().unwrap();
    let image = Image::new("direct");
    direct.add(&image, REPOSITORY, "1");
    let client = behind(proxy.url(), "");
    let probe = ask(&client, &target(&direct.url())).await;
    assert_eq!(probe.outcome, found(&image), "{}", probe.detail);
    assert!(proxy.recording().is_empty());
}

#[tokio::test]
async fn a_proxy_that_is_gone_is_named_without_its_password() {
    let (mut proxy, _) = proxy();
    proxy.stop().await;
    let client = behind(format!("http://user:hunter2@{}", proxy.host()), "");
    for scheme in ["http", "https"] {
        let address = format!("{scheme}://registry.invalid");
        assert!(Endpoint::parse(&address).is_ok());
        let probe = ask(&client, &target(&address)).await;
        assert_eq!(cause(&probe), Some(Cause::Refused), "{}", probe.detail);
        assert!(probe.detail.contains(&proxy.url()), "{}", probe.detail);
        assert!(!probe.detail.contains("hunter2"), "{}", probe.detail);
    }
}
