use policy::config::Settings;
use registry::ClientOptions;

use super::*;

fn registries(config: &str) -> Registries {
    let (settings, _) = Settings::read(config, &|_| None);
    let guard = AddressGuard::new();
    let client = Client::new(ClientOptions {
        guard: Some(guard.clone()),
        ..ClientOptions::default()
    });
    let asking = Asking {
        rules: settings.rules,
        probe_timeout: Duration::from_secs(2),
    };
    let own = vec!["127.0.0.1:7439".parse().unwrap()];
    Registries::new(client, guard, asking, "me", own)
}

fn names(config: &str, host: &str) -> Vec<String> {
    let repository = Repository::new(host, "x/y").unwrap();
    let places = registries(config).places(&repository);
    places.into_iter().map(|place| place.name).collect()
}

#[test]
fn the_plan_s_places_without_this_cache_itself() {
    let config = "
useNodeCache: true
registries:
  - {address: 'http://mirror.corp:5000/p', priority: 800}
  - {address: 'http://localhost:7439', priority: 900, layout: host}
";
    assert_eq!(
        names(config, "quay.io"),
        ["http://mirror.corp:5000/p/x/y", "https://quay.io/x/y"]
    );
    let closed = "{fallbackToOrigin: false, registries: [{address: m.corp}]}";
    assert_eq!(names(closed, "quay.io"), ["https://m.corp/x/y"]);
}

#[test]
fn addresses_are_origins_only_where_the_config_names_them() {
    for host in [
        "127.0.0.1:5000",
        "localhost:5000",
        "169.254.169.254",
        "10.0.0.1",
    ] {
        assert!(names("{}", host).is_empty(), "{host}");
    }
    let config = "registries: [{address: 'http://127.0.0.1:5000', mirrorOf: ['127.0.0.1:5000']}]";
    assert_eq!(
        names(config, "127.0.0.1:5000"),
        ["http://127.0.0.1:5000/x/y"]
    );
}

#[test]
fn hosts_that_the_config_names() {
    let all = registries(
        "{registries: [{address: 'http://reg.corp:5000', mirrorOf: ['other.corp:8443']}],
          imageRedirMapping: [{src: 'third.corp:1/', to: 'fourth.corp:2/'}]}",
    );
    for (host, named) in [
        ("reg.corp:5000", true),
        ("other.corp:8443", true),
        ("third.corp:1", true),
        ("fourth.corp:2", true),
        ("reg.corp:1", false),
    ] {
        assert_eq!(all.is_configured(host), named, "{host}");
    }
}
