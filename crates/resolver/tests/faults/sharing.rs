//! Many at once, and callers that go away.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use resolver::{Depth, ResolverOptions};
use testkit::fake_registry::Behaviour;
use testkit::images::Image;
use testkit::wait;

use crate::setup::{
    IMAGE, asked, options, plan, registries, resolve, resolver, resolver_with, trail,
};

#[tokio::test]
async fn concurrent_requests_for_one_image_share_one_resolution() {
    let all = registries(3);
    let image = Image::new("last only");
    all[2].add(&image, "team/last", "1");
    let resolver = resolver();
    let plan = plan(&all, "ghcr.io/team/last:1");
    let many = (0..200).map(|_| resolve(&resolver, &plan));
    for resolution in join_all(many).await {
        assert_eq!(resolution.chosen(), Some(2));
    }
    assert_eq!([asked(&all[0]), asked(&all[1]), asked(&all[2])], [1, 1, 1]);
}

#[tokio::test]
async fn a_caller_that_leaves_takes_nothing_from_the_others() {
    let all = registries(1);
    all[0].behave(Behaviour::Slow(Duration::from_millis(100)));
    let resolver = resolver();
    let plan = plan(&all, IMAGE);
    let (first, second) = (resolver.clone(), resolver.clone());
    let (leaving, staying) = (Arc::clone(&plan), Arc::clone(&plan));
    let leaving = tokio::spawn(async move { first.resolve(&leaving, None, Depth::Best).await });
    let staying = tokio::spawn(async move { second.resolve(&staying, None, Depth::Best).await });
    wait::until("it is asked", async || (asked(&all[0]) > 0).then_some(())).await;
    leaving.abort();
    assert_eq!(staying.await.unwrap().chosen(), Some(0));
    assert_eq!(asked(&all[0]), 1);
}

#[tokio::test]
async fn the_best_positive_answer_ends_the_wait() {
    let all = registries(2);
    all[1].behave(Behaviour::BlackHole);
    // Were the second waited for, this would take longer than the test waits.
    let resolver = resolver_with(ResolverOptions {
        probe_timeout: Duration::from_secs(3600),
        ..options()
    });
    let plan = plan(&all, IMAGE);
    let resolution = tokio::time::timeout(wait::TIMEOUT, resolve(&resolver, &plan))
        .await
        .unwrap();
    assert_eq!(resolution.chosen(), Some(0));
    assert!(resolution.answers[1].is_none());
}

#[tokio::test]
async fn asking_all_goes_on_where_asking_for_the_best_stopped() {
    let all = registries(3);
    let resolver = resolver();
    let plan = plan(&all, IMAGE);
    resolve(&resolver, &plan).await;
    let resolution = resolver.resolve(&plan, None, Depth::All).await;
    assert!(resolution.answers.iter().all(Option::is_some));
    assert_eq!(asked(&all[0]), 1);
}

#[tokio::test]
async fn a_thousand_pulls_of_a_hundred_images_over_registries_of_which_two_are_black_holes() {
    let all = registries(5);
    let image = Image::new("app");
    for n in 0..100 {
        all[4].add(&image, "team/app", &format!("t{n}"));
    }
    all[0].set_black_hole(true);
    all[2].set_black_hole(true);
    let resolver = resolver_with(ResolverOptions {
        probe_timeout: Duration::from_secs(2),
        ..options()
    });
    let plans: Vec<_> = (0..100)
        .map(|n| plan(&all, &format!("ghcr.io/team/app:t{n}")))
        .collect();
    let many = (0..1000).map(|n| resolve(&resolver, &plans[n % 100]));
    for resolution in join_all(many).await {
        assert_eq!(resolution.chosen(), Some(4), "{}", trail(&resolution));
    }
    assert_eq!(asked(&all[4]), 100);
}

#[tokio::test]
async fn who_stands_below_the_likely_place_is_asked_only_when_it_says_no() {
    let all = registries(3);
    let resolver = resolver();
    let image = Image::new("more of it");
    for (registry, tags) in [(0, ["2", "3"]), (2, ["3", "4"])] {
        for tag in tags {
            all[registry].add(&image, "team/app", tag);
        }
    }
    let below = || (asked(&all[1]), asked(&all[2]));
    // Nothing is known yet, so all are asked; all answers are waited for, so that none is still on its way.
    let first = plan(&all, "ghcr.io/team/app:2");
    let first = resolver.resolve(&first, None, Depth::All).await;
    assert_eq!(first.chosen(), Some(0));
    let before = below();
    let both_have_it = plan(&all, "ghcr.io/team/app:3");
    assert_eq!(resolve(&resolver, &both_have_it).await.chosen(), Some(0));
    assert_eq!(below(), before, "the first has the repository's images");
    let elsewhere = plan(&all, "ghcr.io/team/app:4");
    assert_eq!(resolve(&resolver, &elsewhere).await.chosen(), Some(2));
    // For people all are asked.
    let before = below();
    resolver.forget();
    resolver.resolve(&both_have_it, None, Depth::All).await;
    assert_eq!(below(), (before.0 + 1, before.1 + 1));
}
