//! A background runtime that no longer runs: a caller gets an answer all the same.

use std::sync::mpsc;
use std::time::Duration;

use policy::Verdict;
use registry::{Client, ClientOptions};
use resolver::{Resolver, ResolverOptions};
use telemetry::Telemetry;
use testkit::wait;

use crate::setup::{IMAGE, asked, options, plan, registries, resolve, trail};

/// A runtime with one worker, as the shim's, and what ends the work that blocks it.
fn blocked() -> (tokio::runtime::Runtime, mpsc::Sender<()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (free, wedge) = mpsc::channel();
    let (blocks, blocking) = mpsc::channel();
    runtime.spawn(async move {
        blocks.send(()).unwrap();
        let _ = wedge.recv();
    });
    blocking.recv().unwrap();
    (runtime, free)
}

#[test]
fn a_stuck_background_is_given_up_once_and_used_again_when_it_runs() {
    let (background, free) = blocked();
    let all = registries(1);
    let resolver = Resolver::new(
        Client::new(ClientOptions::default()),
        background.handle().clone(),
        ResolverOptions {
            probe_timeout: Duration::from_millis(100),
            ..options()
        },
        Telemetry::new(),
    );
    let callers = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    callers.block_on(async {
        let plan = plan(&all, IMAGE);
        let given_up = resolve(&resolver, &plan).await;
        assert_eq!(given_up.verdicts(), [Some(Verdict::Unavailable)]);
        assert!(trail(&given_up).contains("stuck"), "{}", trail(&given_up));
        // The next ones don't wait at all: were there a timer, it would have to fire first.
        let at_once = tokio::time::timeout(Duration::ZERO, resolve(&resolver, &plan)).await;
        assert!(at_once.is_ok());
        assert_eq!(asked(&all[0]), 0);
        resolver.reconfigure(options(), &crate::setup::settings(&all, "").rules);
        free.send(()).unwrap();
        wait::until("registries are asked again", async || {
            resolve(&resolver, &plan).await.chosen()
        })
        .await;
    });
    background.shutdown_background();
}
