//! What the log says, and how often.

use std::fs;

use rustix::process::Signal;
use testkit::cri_api::RpcStatus;
use testkit::fake_registry::FakeRegistry;
use testkit::fake_runtime::FakeRuntime;
use testkit::images::Image;
use testkit::shim::{Options, Shim};
use testkit::wait::until;

use crate::world::{BINARY, metrics, with_fake_runtime};

const IMAGE: &str = "ghcr.io/team/app:1";

fn lines_about(log: &str, image: &str) -> Vec<String> {
    log.lines()
        .filter(|line| line.contains(image))
        .map(ToOwned::to_owned)
        .collect()
}

#[tokio::test]
async fn a_decision_is_one_line() {
    let registry = FakeRegistry::start().unwrap();
    registry.add(&Image::new("one line"), "team/app", "1");
    let (shim, _runtime) = with_fake_runtime(&format!("address: {}", registry.url())).await;
    shim.client().pull(IMAGE, None).await.unwrap();
    shim.client().pull("quay.io/else:1", None).await.unwrap();
    shim.wait_for_log("quay.io/else:1").await;
    let log = shim.log();
    let lines = lines_about(&log, IMAGE);
    assert_eq!(lines.len(), 1, "{log}");
    let result = format!("result={}/team/app:1", registry.host());
    for part in [
        "priority match: image=ghcr.io/team/app:1 action=PullImage matched_registry=",
        "priority=1000",
        "rewrite action=PullImage cache_hit=false source=offline original=ghcr.io/team/app:1",
        "replaced=true",
        "tried: http://",
        &result,
    ] {
        assert!(lines[0].contains(part), "{part}: {lines:?}");
    }
    let lines = lines_about(&log, "quay.io/else:1");
    assert_eq!(lines.len(), 1, "{log}");
    for part in ["source=origin", "replaced=false", ": 404"] {
        assert!(lines[0].contains(part), "{part}: {lines:?}");
    }
}

#[tokio::test]
async fn a_pull_that_goes_on_failing_is_said_when_it_begins_and_when_it_ends() {
    let (shim, runtime) = with_fake_runtime("").await;
    let status = RpcStatus {
        code: 5,
        message: "no such image\nat all".to_owned(),
        details: Vec::new(),
    };
    runtime.fail(IMAGE, status);
    for _ in 0..3 {
        shim.client().pull(IMAGE, None).await.unwrap_err();
    }
    shim.wait_for_log("pull failed: ").await;
    let lines = shim.log_lines("pull failed: ");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].contains("image=ghcr.io/team/app:1 action=PullImage code=NOT_FOUND")
            && lines[0].contains("no such image at all"),
        "{lines:?}"
    );
    runtime.answer(IMAGE);
    shim.client().pull(IMAGE, None).await.unwrap();
    shim.client().pull(IMAGE, None).await.unwrap();
    // The last line of all, so that what comes before it is there too.
    shim.client().pull("last.io/x:1", None).await.unwrap();
    shim.wait_for_log("last.io/x:1").await;
    let lines = shim.log_lines("ghcr.io/team/app:1 can be pulled again");
    assert_eq!(lines.len(), 1, "{}", shim.log());
}

#[tokio::test]
async fn debug_lines_follow_the_config_and_sigusr1() {
    let (mut shim, _runtime) = with_fake_runtime("").await;
    let client = shim.client();
    let removals = |shim: &Shim| shim.log_lines("action=RemoveImage").len();
    let remove = async || {
        client.pull(IMAGE, None).await.unwrap();
        client.remove(IMAGE).await.unwrap();
    };
    remove().await;
    assert_eq!(removals(&shim), 0);
    shim.signal(Signal::USR1).unwrap();
    shim.wait_for_log("debug lines are on").await;
    remove().await;
    shim.wait_for_log("action=RemoveImage").await;
    assert_eq!(removals(&shim), 1);
    // The config says the same as the switch, so that the next signal switches off.
    let config = fs::read_to_string(shim.config_file()).unwrap();
    fs::write(shim.config_file(), format!("{config}debug: true\n")).unwrap();
    until("the reload", || async {
        let lines = shim.log_lines("reloaded shim auth configuration");
        (lines.len() == 1).then_some(())
    })
    .await;
    shim.signal(Signal::USR1).unwrap();
    shim.wait_for_log("debug lines are off").await;
    remove().await;
    assert_eq!(removals(&shim), 1);
}

/// A shim that has written more than fits, while nobody reads.
async fn with_a_log_that_nobody_reads() -> (Shim, FakeRuntime) {
    let runtime = FakeRuntime::start().await.unwrap();
    let options = Options::new(BINARY, runtime.socket()).unread_stderr();
    let shim = Shim::start("debug: true", options).await.unwrap();
    for number in 0..200 {
        // Names that are long enough for the lines to be more than a pipe and our own queue hold.
        let image = format!("ghcr.io/team/{}/{number}:1", "long/".repeat(40));
        shim.client().pull(&image, None).await.unwrap();
    }
    (shim, runtime)
}

#[tokio::test]
async fn a_log_that_nobody_reads_costs_lines_and_no_call() {
    let (mut shim, _runtime) = with_a_log_that_nobody_reads().await;
    shim.client().version().await.unwrap();
    let mut lost = 0;
    for number in 0.. {
        let image = format!("ghcr.io/team/{}/more{number}:1", "long/".repeat(40));
        shim.client().pull(&image, None).await.unwrap();
        lost = metric(&shim, "image_cri_shim_log_lines_lost_total").await;
        if lost > 0 {
            break;
        }
    }
    // It reads again.
    shim.read_stderr();
    let notice = shim.wait_for_log("lines lost, because nobody read").await;
    assert!(
        notice.contains(&format!("log: {lost} lines lost")),
        "{notice}"
    );
    assert!(shim.terminate().await.unwrap().success());
}

#[tokio::test]
async fn sigterm_ends_a_shim_whose_log_nobody_reads() {
    let (mut shim, _runtime) = with_a_log_that_nobody_reads().await;
    assert!(shim.terminate().await.unwrap().success());
    assert!(!shim.socket().exists());
}

#[tokio::test]
async fn all_mistakes_of_a_config_are_one_line() {
    let (shim, _runtime) = with_fake_runtime("").await;
    shim.write_config("timeout: soon\nprobeTimeout: never\n")
        .unwrap();
    let line = shim.wait_for_log("keeping the last good config").await;
    assert!(
        line.contains("1:10: error: timeout:") && line.contains("; /"),
        "{line}"
    );
    assert!(line.contains("2:15: error: probeTimeout:"), "{line}");
}

/// A counter of the running shim.
async fn metric(shim: &Shim, name: &str) -> u64 {
    let status = shim.status().await.unwrap();
    let address = status["metrics_address"].as_str().unwrap();
    let page = metrics(address).await;
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim().parse().unwrap()
}
