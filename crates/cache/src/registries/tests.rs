use policy::breaker::{Signal, State};
use policy::config::Settings;
use registry::ClientOptions;

use super::health::MAX_UNNAMED;
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

#[tokio::test]
async fn registries_that_do_not_answer_cost_something_only_where_the_config_names_them() {
    let all = registries("registries: [{address: 'http://reg.corp:5000', mirrorOf: ['a.corp']}]");
    let fail = |host: &str| {
        let places = all.places(&Repository::new(host, "x").unwrap());
        let place = places[0].clone();
        all.note(&place, Signal::RegistryFailed, "no such host");
        place
    };
    for number in 0..MAX_UNNAMED + 10 {
        fail(&format!("h{number}.nowhere.test"));
    }
    // Fewer, where the machine is so busy that the first ones' pause is over by now.
    let remembered = all.inner.health.lock().len();
    assert!(remembered <= MAX_UNNAMED, "{remembered}");
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    assert_eq!(tasks(), 0);
    // There is room for it all the same, and it is tried in the background.
    let named = fail("a.corp");
    assert!(all.is_silent(&named).is_some());
    assert_eq!(tasks(), 1);
}

#[tokio::test]
async fn a_registry_that_the_config_does_not_name_is_tried_by_the_next_question() {
    let all = registries("{}");
    let place = all.places(&Repository::new("h.test", "x").unwrap())[0].clone();
    all.note(&place, Signal::RegistryFailed, "no such host");
    assert!(all.is_silent(&place).is_some());
    let pause_is_over = || {
        let mut health = all.inner.health.lock();
        let known = health.get_mut(&place.endpoint).unwrap();
        known.breaker = Default::default();
        let long_ago = Instant::now()
            .checked_sub(Duration::from_secs(600))
            .unwrap();
        known.breaker.note(Signal::RegistryFailed, long_ago, 0.5);
    };
    pause_is_over();
    assert!(all.is_silent(&place).is_none());
    all.note(&place, Signal::RegistryFailed, "no such host");
    assert!(all.is_silent(&place).is_some());
    pause_is_over();
    all.note(&place, Signal::Answered, "answered");
    assert!(all.is_silent(&place).is_none());
    assert!(all.inner.health.lock().is_empty());
}

#[tokio::test]
async fn each_wish_to_be_left_alone_is_honoured() {
    let all = registries("{}");
    let place = all.places(&Repository::new("h.test", "x").unwrap())[0].clone();
    let wish = Signal::RateLimited {
        retry_after: Duration::from_secs(60),
    };
    for time in 1..=3 {
        let now = Instant::now();
        all.note(&place, wish, "429");
        let mut health = all.inner.health.lock();
        let known = health.get_mut(&place.endpoint).unwrap();
        let State::Open { until } = known.breaker.state() else {
            panic!("{time}: it is asked all the same");
        };
        assert!(until >= now + Duration::from_secs(60), "{time}");
        // The pause is over.
        known.breaker = Default::default();
        let long_ago = now.checked_sub(Duration::from_secs(600)).unwrap();
        known.breaker.note(wish, long_ago, 0.5);
    }
}
