//! What is remembered, for how long, and what makes it wrong.

use std::time::Duration;

use policy::{Credentials, Verdict};
use resolver::{Depth, ResolverOptions};
use testkit::fake_registry::Behaviour;
use testkit::images::Image;
use testkit::wait;

use crate::setup::{
    IMAGE, asked, options, plan, registries, resolve, resolver, resolver_with, settings, trail,
};

#[tokio::test]
async fn a_found_image_is_asked_for_once() {
    let all = registries(1);
    let resolver = resolver();
    let plan = plan(&all, IMAGE);
    for _ in 0..10 {
        assert_eq!(resolve(&resolver, &plan).await.chosen(), Some(0));
    }
    assert_eq!(asked(&all[0]), 1);
    let stats = resolver.stats();
    assert_eq!((stats.hits, stats.misses), (9, 1));
}

#[tokio::test]
async fn an_image_that_was_missing_is_seen_after_negative_ttl() {
    let all = registries(1);
    let resolver = resolver_with(ResolverOptions {
        absent_ttl: Duration::from_millis(100),
        ..options()
    });
    let plan = plan(&all, "ghcr.io/team/late:1");
    assert_eq!(resolve(&resolver, &plan).await.chosen(), None);
    all[0].add(&Image::new("late"), "team/late", "1");
    wait::until("the image is seen", async || {
        resolve(&resolver, &plan).await.chosen().map(drop)
    })
    .await;
}

#[tokio::test]
async fn an_absent_image_is_asked_for_once_within_negative_ttl() {
    let all = registries(1);
    let resolver = resolver();
    let plan = plan(&all, "ghcr.io/team/absent:1");
    for _ in 0..10 {
        assert!(resolve(&resolver, &plan).await.absent_everywhere());
    }
    assert_eq!(asked(&all[0]), 1);
}

#[tokio::test]
async fn a_better_registry_that_failed_is_asked_again_after_negative_ttl() {
    let all = registries(2);
    all[0].behave_for("team/app", Behaviour::Status(http::StatusCode::BAD_REQUEST));
    let resolver = resolver_with(ResolverOptions {
        absent_ttl: Duration::from_millis(100),
        ..options()
    });
    let plan = plan(&all, IMAGE);
    assert_eq!(resolve(&resolver, &plan).await.chosen(), Some(1));
    all[0].behave_well();
    wait::until("it is asked again", async || {
        (resolve(&resolver, &plan).await.chosen() == Some(0)).then_some(())
    })
    .await;
    assert_eq!(asked(&all[1]), 1, "what the other one said still holds");
}

#[tokio::test]
async fn a_candidate_whose_pull_failed_is_not_chosen_until_its_entry_expires() {
    let all = registries(2);
    let resolver = resolver_with(ResolverOptions {
        absent_ttl: Duration::from_millis(200),
        ..options()
    });
    let plan = plan(&all, IMAGE);
    assert_eq!(resolve(&resolver, &plan).await.chosen(), Some(0));
    resolver.pull_failed(&plan, 0, None, "blob unknown");
    let next = resolve(&resolver, &plan).await;
    assert_eq!(next.chosen(), Some(1));
    assert_eq!(next.verdicts()[0], Some(Verdict::PullFailed));
    assert!(trail(&next).contains("blob unknown"), "{}", trail(&next));
    assert_eq!(asked(&all[0]), 1);
    wait::until("it is tried again", async || {
        (resolve(&resolver, &plan).await.chosen() == Some(0)).then_some(())
    })
    .await;
    assert_eq!(resolver.stats().invalidations, 1);
}

#[tokio::test]
async fn who_has_failed_is_not_asked_and_who_is_silent_not_waited_for() {
    let all = registries(3);
    all[2].set_black_hole(true);
    // Without a memory that would know what has failed.
    let resolver = resolver_with(ResolverOptions {
        size: 0,
        probe_timeout: Duration::from_secs(3600),
        ..options()
    });
    let plan = plan(&all, IMAGE);
    let depth = Depth::BestBut(vec![0]);
    let next = resolver.resolve(&plan, None, depth).await;
    assert_eq!(next.chosen(), Some(1), "{}", trail(&next));
    assert_eq!(next.verdicts()[0], Some(Verdict::PullFailed));
    assert_eq!(asked(&all[0]), 0);
}

#[tokio::test]
async fn what_one_set_of_credentials_was_told_is_not_told_to_another() {
    let all = registries(1);
    all[0].require_basic("u", "p");
    let resolver = resolver();
    let name = format!("{}/team/app:1", all[0].host());
    let plan = plan(&all, &name);
    let right = Credentials::new("u", "p");
    let first = resolver.resolve(&plan, Some(&right), Depth::Best).await;
    assert_eq!(first.chosen(), Some(0), "{}", trail(&first));
    let other = resolver.resolve(&plan, None, Depth::Best).await;
    assert_eq!(other.verdicts(), [Some(Verdict::Unauthorized)]);
}

#[tokio::test]
async fn a_changed_password_leaves_the_other_answers_alone() {
    let all = registries(2);
    all[0].require_basic("u", "new");
    let resolver = resolver();
    let reference = policy::Reference::parse(IMAGE).unwrap();
    let plan_with = |password: &str| {
        let settings = settings(&all, &format!(", auth: 'u:{password}'"));
        resolver.reconfigure(options(), &settings.rules);
        std::sync::Arc::new(policy::Plan::new(&settings.rules, &reference))
    };
    let old = resolve(&resolver, &plan_with("old")).await;
    assert_eq!(old.chosen(), Some(1), "{}", trail(&old));
    let asked_before = asked(&all[1]);
    let new = resolve(&resolver, &plan_with("new")).await;
    assert_eq!(new.chosen(), Some(0), "{}", trail(&new));
    assert!(asked(&all[1]) <= asked_before + 1);
}

#[tokio::test]
async fn a_registry_that_is_listed_twice_is_asked_once_with_the_credentials_of_either() {
    let all = registries(1);
    all[0].require_basic("u", "p");
    let url = all[0].url();
    let text = format!(
        "registries: [{{address: '{url}', priority: 900}}, {{address: '{url}/', priority: 100, auth: 'u:p'}}]"
    );
    let (settings, _) = policy::config::Settings::read(&text, &|_| None);
    let resolver = resolver();
    let reference = policy::Reference::parse(IMAGE).unwrap();
    let plan = std::sync::Arc::new(policy::Plan::new(&settings.rules, &reference));
    let found = resolve(&resolver, &plan).await;
    assert_eq!(
        found.verdicts(),
        [Some(Verdict::Found)],
        "{}",
        trail(&found)
    );
    // The challenge, and the answer.
    assert_eq!(asked(&all[0]), 2);
    // A reload that changes nothing keeps what is known of it.
    resolver.reconfigure(options(), &settings.rules);
    assert_eq!(resolver.registries().len(), 1);
}

#[tokio::test]
async fn a_size_of_zero_asks_every_time() {
    let all = registries(1);
    let resolver = resolver_with(ResolverOptions {
        size: 0,
        ..options()
    });
    let plan = plan(&all, IMAGE);
    for _ in 0..3 {
        assert_eq!(resolve(&resolver, &plan).await.chosen(), Some(0));
    }
    assert_eq!(asked(&all[0]), 3);
}
