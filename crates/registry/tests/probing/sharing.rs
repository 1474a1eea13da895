//! Many probes at once.

use std::time::Duration;

use registry::{Cause, Client, ClientOptions};
use testkit::fake_registry::{Behaviour, FakeRegistry, TokenOptions, TokenService};
use testkit::wait::until;

use crate::setup::{ask, cause, client, is_found, options, registry, target};

/// So many probes at once, which all find the image.
async fn all_find(client: &Client, registry: &FakeRegistry, probes: usize) {
    let probes: Vec<_> = (0..probes)
        .map(|_| {
            let (client, target) = (client.clone(), target(&registry.url()));
            tokio::spawn(async move { ask(&client, &target).await })
        })
        .collect();
    for probe in probes {
        let probe = probe.await.unwrap();
        assert!(is_found(&probe), "{}", probe.detail);
    }
}

#[tokio::test]
async fn probes_that_need_one_token_share_its_request() {
    let (registry, _) = registry();
    let service = TokenService::start(TokenOptions::default()).unwrap();
    service.behave(Behaviour::Slow(Duration::from_millis(50)));
    registry.require_token(&service);
    let client = client();
    all_find(&client, &registry, 20).await;
    assert_eq!(service.recording().all().len(), 1);
}

#[tokio::test]
async fn more_probes_than_slots_wait_and_all_are_answered() {
    let (registry, _) = registry();
    let client = Client::new(ClientOptions {
        concurrency_per_registry: 4,
        ..options()
    });
    all_find(&client, &registry, 200).await;
}

#[tokio::test]
async fn waiting_for_a_slot_is_not_the_registrys_silence() {
    let (registry, _) = registry();
    registry.behave(Behaviour::BlackHole);
    let client = Client::new(ClientOptions {
        concurrency_per_registry: 1,
        ..options()
    });
    // Holds the only slot for longer than the other one waits.
    let holder = {
        let (client, target) = (client.clone(), target(&registry.url()));
        tokio::spawn(async move { ask(&client, &target).await })
    };
    until("the slot is taken", || async {
        (!registry.requests().is_empty()).then_some(())
    })
    .await;
    let mut quick = target(&registry.url());
    quick.deadline = Duration::from_millis(100);
    let waiting = ask(&client, &quick).await;
    assert_eq!(cause(&waiting), Some(Cause::Queue), "{}", waiting.detail);
    assert_eq!(waiting.requests, 0);

    // A probe that nobody waits for any more gives its slot back.
    holder.abort();
    registry.behave_well();
    assert!(is_found(&ask(&client, &target(&registry.url())).await));
}

/// A question that gets its turn when a good part of its time is over.
#[tokio::test]
async fn who_is_asked_late_has_not_failed() {
    let (registry, _) = registry();
    registry.set_delay(Duration::from_secs(3));
    let client = Client::new(ClientOptions {
        concurrency_per_registry: 1,
        ..options()
    });
    let ask_within = |deadline: u64| {
        let (client, mut target) = (client.clone(), target(&registry.url()));
        target.deadline = Duration::from_secs(deadline);
        tokio::spawn(async move { ask(&client, &target).await })
    };
    let first = ask_within(60);
    until("the slot is taken", || async {
        (!registry.requests().is_empty()).then_some(())
    })
    .await;
    // The next one takes longer than anybody waits.
    registry.set_delay(Duration::from_secs(600));
    let second = ask_within(6);
    assert!(is_found(&first.await.unwrap()));
    let second = second.await.unwrap();
    assert_eq!(cause(&second), Some(Cause::Late), "{}", second.detail);
    assert_eq!(second.requests, 1);
}

#[tokio::test]
async fn a_registry_that_never_answers_is_not_asked_by_those_who_waited_in_vain() {
    let (registry, _) = registry();
    registry.behave(Behaviour::BlackHole);
    let client = Client::new(ClientOptions {
        concurrency_per_registry: 4,
        ..options()
    });
    let probes: Vec<_> = (0..50)
        .map(|_| {
            let (client, mut target) = (client.clone(), target(&registry.url()));
            target.deadline = Duration::from_secs(1);
            tokio::spawn(async move { ask(&client, &target).await })
        })
        .collect();
    let mut queued = 0;
    for probe in probes {
        let probe = probe.await.unwrap();
        queued += usize::from(cause(&probe) == Some(Cause::Queue));
    }
    assert_eq!((registry.requests().len(), queued), (4, 46));
}

#[tokio::test]
async fn a_probe_that_is_given_up_does_not_take_the_others_token_with_it() {
    let (registry, _) = registry();
    let service = TokenService::start(TokenOptions::default()).unwrap();
    service.behave(Behaviour::BlackHole);
    registry.require_token(&service);
    let client = client();
    let start = || {
        let (client, target) = (client.clone(), target(&registry.url()));
        tokio::spawn(async move { ask(&client, &target).await })
    };
    let first = start();
    until("the token is being fetched", || async {
        (!service.recording().is_empty()).then_some(())
    })
    .await;
    let second = start();
    until("both were challenged", || async {
        (registry.recording().count(|r| r.status == Some(401)) == 2).then_some(())
    })
    .await;
    service.behave(Behaviour::Serve);
    first.abort();
    let probe = second.await.unwrap();
    assert!(is_found(&probe), "{}", probe.detail);
}
