//! A hundred reloads under a steady load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prost::Message;
use testkit::cri_api::PullImageRequest;
use testkit::fake_registry::FakeRegistry;
use testkit::images::Image;

use crate::world::{SECRET, World};

#[tokio::test]
async fn no_call_fails_and_no_pull_sees_two_configs() {
    let image = Image::new("loaded");
    let mut registries = Vec::new();
    for name in ["a", "b"] {
        let registry = FakeRegistry::start().unwrap();
        registry.add(&image, "team/app", "1");
        registry.require_basic(name, &format!("{SECRET}-{name}"));
        registries.push(registry);
    }
    let config = |at: usize| {
        let name = ["a", "b"][at];
        format!(
            "address: {}\nauth: {name}:{SECRET}-{name}",
            registries[at].url()
        )
    };
    let world = World::start(&config(0)).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut load = Vec::new();
    for n in 0..4 {
        let (client, done) = (world.shim.client(), Arc::clone(&done));
        load.push(tokio::spawn(async move {
            let mut calls = 0;
            while !done.load(Ordering::Relaxed) {
                // Another host each time, so that nothing is answered from memory alone.
                let name = format!("h{n}-{calls}.io/team/app:1");
                client.pull(&name, None).await.unwrap();
                client.status(&name).await.unwrap();
                calls += 1;
            }
            calls
        }));
    }
    for n in 1..=100 {
        let before = world
            .shim
            .log_lines("reloaded shim auth configuration")
            .len();
        assert_eq!(before, n - 1, "{}", world.shim.log());
        world.write(&config(n % 2));
        testkit::wait::until("the reload", || async {
            let now = world
                .shim
                .log_lines("reloaded shim auth configuration")
                .len();
            (now == n).then_some(())
        })
        .await;
    }
    done.store(true, Ordering::Relaxed);
    for task in load {
        assert!(task.await.unwrap() > 0);
    }
    let mut pulled = [0, 0];
    for received in world.runtime.requests() {
        if !received.path.ends_with("/PullImage") {
            continue;
        }
        let request = PullImageRequest::decode(received.message).unwrap();
        let name = request.image.unwrap().image;
        let at = usize::from(name.starts_with(&registries[1].host()));
        assert!(name.starts_with(&registries[at].host()), "{name}");
        assert_eq!(request.auth.unwrap().username, ["a", "b"][at], "{name}");
        pulled[at] += 1;
    }
    assert!(pulled[0] > 0 && pulled[1] > 0, "{pulled:?}");
    world.no_secret_in_the_log();
}
