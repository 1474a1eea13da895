//! A registry whose host drops every packet, in a network namespace of the test's own. A program of
//! its own, because a namespace is a process's.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

use testkit::fake_registry::FakeRegistry;
use testkit::fake_runtime::FakeRuntime;
use testkit::images::Image;
use testkit::netns;
use testkit::shim::{Options, Shim};

fn main() {
    // What test runners ask of a program before they run it.
    if std::env::args().any(|argument| argument == "--list") {
        println!("a_host_that_drops_packets_is_passed_over_and_named: test");
        return;
    }
    netns::enter().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(a_host_that_drops_packets_is_passed_over_and_named());
    println!("test a_host_that_drops_packets_is_passed_over_and_named ... ok");
}

async fn a_host_that_drops_packets_is_passed_over_and_named() {
    let good = FakeRegistry::start().unwrap();
    let tags = ["1", "2", "3"];
    for tag in tags {
        good.add(&Image::new("app"), "team/app", tag);
    }
    let runtime = FakeRuntime::start().await.unwrap();
    let config = format!(
        "probeTimeout: 500ms\nregistries: [{{address: 'http://{}:5000', priority: 900}}, {{address: '{}'}}]",
        netns::BLACK_HOLE,
        good.url()
    );
    let options = Options::new(env!("CARGO_BIN_EXE_image-cri-shim"), runtime.socket());
    let shim = Shim::start(&config, options).await.unwrap();
    for tag in tags {
        let name = format!("ghcr.io/team/app:{tag}");
        shim.client().pull(&name, None).await.unwrap();
        let matched = shim
            .wait_for_log(&format!("image={name} action=PullImage matched"))
            .await;
        assert!(matched.contains(&good.host()), "{matched}");
    }
    let aside = shim.log_lines("circuit open: ");
    assert_eq!(aside.len(), 1, "said once: {aside:?}");
    assert!(
        aside[0].contains(netns::BLACK_HOLE) && aside[0].contains("500ms"),
        "{aside:?}"
    );
}
