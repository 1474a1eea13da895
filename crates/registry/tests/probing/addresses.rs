//! A client that fetches for others is not led to its own machine.

use http::StatusCode;
use registry::{AddressGuard, Cause, Client, ClientOptions, Outcome};
use testkit::fake_registry::{Behaviour, FakeRegistry};

use crate::setup::{ask, cause, found, is_registrys, options, registry, target};

fn guarded(named: &[&str]) -> (Client, AddressGuard) {
    let guard = AddressGuard::new();
    guard.set_named(named);
    let client = Client::new(ClientOptions {
        guard: Some(guard.clone()),
        ..options()
    });
    (client, guard)
}

#[tokio::test]
async fn a_registry_on_this_machine_is_asked_only_where_the_config_names_it() {
    let (registry, image) = registry();
    let (client, guard) = guarded(&["harbor.corp"]);
    let port = registry.address().port();
    let by_name = format!("http://localhost:{port}");
    for address in [registry.url(), by_name.clone()] {
        let probe = ask(&client, &target(&address)).await;
        assert_eq!(cause(&probe), Some(Cause::Address), "{}", probe.detail);
        assert!(is_registrys(&probe));
        assert!(probe.detail.contains("name that host in the config"));
    }
    assert!(registry.recording().is_empty());
    guard.set_named(["localhost"]);
    let probe = ask(&client, &target(&by_name)).await;
    assert_eq!(probe.outcome, found(&image), "{}", probe.detail);
}

#[tokio::test]
async fn a_redirect_may_lead_to_the_registrys_own_address_and_to_no_other_of_this_machine() {
    let (store, image) = registry();
    let (registry, _) = crate::setup::registry();
    let (client, _) = guarded(&["127.0.0.1"]);
    let to = |host: &str| {
        let port = store.address().port();
        Behaviour::Redirect(format!("http://{host}:{port}/v2/team/app/manifests/1"))
    };
    registry.behave(to("127.0.0.1"));
    let probe = ask(&client, &target(&registry.url())).await;
    assert_eq!(probe.outcome, found(&image), "{}", probe.detail);
    for host in [
        "127.0.0.2",
        "0.0.0.0",
        "[::1]",
        "169.254.169.254",
        "[::ffff:127.0.0.2]",
        "2130706434", // 127.0.0.2 as one number
    ] {
        registry.behave(to(host));
        let probe = ask(&client, &target(&registry.url())).await;
        assert_eq!(cause(&probe), Some(Cause::Address), "{host}: {probe:?}");
        assert!(
            !is_registrys(&probe),
            "its registry has answered: {probe:?}"
        );
    }
    assert_eq!(store.requests().len(), 1);
}

#[tokio::test]
async fn a_token_service_on_this_machine_is_not_asked_on_a_registrys_word() {
    let service = FakeRegistry::start().unwrap();
    service.behave(Behaviour::Status(StatusCode::OK));
    let (registry, _) = registry();
    let (client, _) = guarded(&["127.0.0.1"]);
    let port = service.address().port();
    for host in ["127.0.0.3", "169.254.169.254"] {
        let challenge = format!("Bearer realm=\"http://{host}:{port}/token\"");
        registry.behave(Behaviour::Challenge(challenge));
        let probe = ask(&client, &target(&registry.url())).await;
        assert_eq!(cause(&probe), Some(Cause::TokenService), "{probe:?}");
        assert!(probe.detail.contains(host), "{}", probe.detail);
    }
    assert!(service.recording().is_empty());
}

#[tokio::test]
async fn without_a_guard_everything_is_asked_as_the_runtime_asks_it() {
    let (registry, _) = registry();
    let client = Client::new(options());
    let probe = ask(&client, &target(&registry.url())).await;
    assert!(matches!(probe.outcome, Outcome::Found { .. }));
}
