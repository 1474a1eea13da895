//! What an operator has mended takes effect at once: no pull waits for a pause to be over.

use std::time::Duration;

use policy::config::Settings;
use policy::{Plan, Reference, Verdict};
use resolver::{Resolver, ResolverOptions};
use std::sync::Arc;
use testkit::certs::Ca;
use testkit::fake_registry::{Behaviour, FakeRegistry};
use testkit::images::Image;
use testkit::wait;

use crate::setup::{
    IMAGE, asked, options, plan, registries, resolve, resolver, resolver_with, settings, trail,
};

/// Lets a resolver take a config over; the plan for [`IMAGE`] by it.
fn take_over(resolver: &Resolver, options: ResolverOptions, settings: &Settings) -> Arc<Plan> {
    resolver.reconfigure(options, &settings.rules);
    Arc::new(Plan::new(
        &settings.rules,
        &Reference::parse(IMAGE).unwrap(),
    ))
}

/// Fails until the registry's circuit is open for longer than this test takes.
async fn opened_for_long(resolver: &Resolver, plan: &Arc<Plan>) {
    wait::until("some trials have failed", async || {
        assert_eq!(resolve(resolver, plan).await.chosen(), None);
        (resolver.registries()[0].failures >= 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_ca_file_that_was_added_is_used_at_once() {
    let ca = Ca::new().unwrap();
    let cert = ca.issue(&["127.0.0.1"]).unwrap();
    let registry = FakeRegistry::start_tls(&cert).unwrap();
    registry.add(&Image::new("app"), "team/app", "1");
    let all = [registry];
    let resolver = resolver();
    let without = take_over(&resolver, options(), &settings(&all, ""));
    opened_for_long(&resolver, &without).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, ca.pem()).unwrap();
    let extra = format!(", caFile: '{}'", file.display());
    let with = take_over(&resolver, options(), &settings(&all, &extra));
    let resolution = resolve(&resolver, &with).await;
    assert_eq!(resolution.chosen(), Some(0), "{}", trail(&resolution));
}

#[tokio::test]
async fn a_longer_probe_timeout_is_used_at_once() {
    let all = registries(1);
    all[0].behave(Behaviour::Slow(Duration::from_secs(1)));
    let short = ResolverOptions {
        probe_timeout: Duration::from_millis(100),
        ..options()
    };
    let resolver = resolver_with(short.clone());
    let settings = settings(&all, "");
    let plan = take_over(&resolver, short, &settings);
    opened_for_long(&resolver, &plan).await;
    let plan = take_over(&resolver, options(), &settings);
    let resolution = resolve(&resolver, &plan).await;
    assert_eq!(resolution.chosen(), Some(0), "{}", trail(&resolution));
}

#[tokio::test]
async fn a_longer_probe_timeout_is_used_for_an_image_that_was_too_slow() {
    let all = registries(1);
    all[0].behave_for("team/app", Behaviour::Slow(Duration::from_secs(3)));
    let short = ResolverOptions {
        probe_timeout: Duration::from_secs(1),
        ..options()
    };
    let resolver = resolver_with(short.clone());
    let settings = settings(&all, "");
    let plan = take_over(&resolver, short, &settings);
    let slow = resolve(&resolver, &plan).await;
    assert_eq!(
        slow.verdicts(),
        [Some(Verdict::ImageFailed)],
        "{}",
        trail(&slow)
    );
    let plan = take_over(&resolver, options(), &settings);
    let resolution = resolve(&resolver, &plan).await;
    assert_eq!(resolution.chosen(), Some(0), "{}", trail(&resolution));
}

#[tokio::test]
async fn other_credentials_are_a_reason_to_try_again() {
    let mut all = registries(1);
    let resolver = resolver();
    let old = take_over(&resolver, options(), &settings(&all, ", auth: 'u:old'"));
    all[0].stop().await;
    opened_for_long(&resolver, &old).await;
    all[0].start_again().unwrap();
    // The same config again changes nothing: what is known is kept.
    let same = take_over(&resolver, options(), &settings(&all, ", auth: 'u:old'"));
    assert_eq!(resolver.registries().len(), 1);
    assert_eq!(resolve(&resolver, &same).await.chosen(), None);
    let new = take_over(&resolver, options(), &settings(&all, ", auth: 'u:new'"));
    let resolution = resolve(&resolver, &new).await;
    assert_eq!(resolution.chosen(), Some(0), "{}", trail(&resolution));
}

#[tokio::test]
async fn an_operator_can_close_all_circuits() {
    let mut all = registries(1);
    let resolver = resolver();
    let plan = plan(&all, IMAGE);
    all[0].stop().await;
    opened_for_long(&resolver, &plan).await;
    all[0].start_again().unwrap();
    resolver.close_circuits();
    let resolution = resolve(&resolver, &plan).await;
    assert_eq!(resolution.chosen(), Some(0), "{}", trail(&resolution));
}

#[tokio::test]
async fn trials_never_ask_for_an_image() {
    let mut all = registries(1);
    let resolver = resolver();
    let plan = plan(&all, IMAGE);
    all[0].stop().await;
    assert_eq!(resolve(&resolver, &plan).await.chosen(), None);
    all[0].start_again().unwrap();
    wait::until("the circuit is closed", async || {
        let health = resolver.registries();
        (health[0].state == policy::breaker::State::Closed).then_some(())
    })
    .await;
    assert_eq!(asked(&all[0]), 0);
    assert_eq!(
        all[0].recording().count(|request| request.path == "/v2/"),
        1
    );
}
