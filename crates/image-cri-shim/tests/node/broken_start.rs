//! The config file can't be used at start.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use testkit::fake_runtime::FakeRuntime;
use testkit::shim::{Options, Shim};
use testkit::wait;
use tokio::process::Command;

use crate::world::{BINARY, metrics};

const NOBODY: &str = "@image-cri-shim-test-of-a-broken-start";
const GOOD: &str = "address: http://hugo:hunter2@127.0.0.1:9\n";

/// A shim that is not started yet, in front of a runtime. systemd waits for it where it runs it.
async fn prepare(config: &str, by_systemd: bool) -> (Shim, FakeRuntime) {
    let runtime = FakeRuntime::start().await.unwrap();
    let mut options = Options::new(BINARY, runtime.socket());
    if by_systemd {
        // Nobody listens there, which the shim does not mind.
        options = options.env("NOTIFY_SOCKET", NOBODY);
    }
    (Shim::prepare(config, options).unwrap(), runtime)
}

fn kept_in(shim: &Shim) -> PathBuf {
    shim.state_dir().join("last-good.yaml")
}

/// Puts a last good config where the shim keeps it.
fn keep(shim: &Shim, text: &str) {
    std::fs::create_dir_all(shim.state_dir()).unwrap();
    let sockets = std::fs::read_to_string(shim.config_file()).unwrap();
    let sockets = sockets.lines().filter(|line| {
        let fields = ["shim:", "cri:", "image:", "metricsAddress:"];
        fields.iter().any(|field| line.starts_with(field))
    });
    let sockets: Vec<_> = sockets.collect();
    let whole = format!("{text}{}\n", sockets.join("\n"));
    std::fs::write(kept_in(shim), stored(shim, &whole)).unwrap();
}

/// How the shim keeps a text.
fn stored(shim: &Shim, text: &str) -> String {
    let file = shim.config_file();
    format!("{text}\n# Kept by image-cri-shim: the last good config of {file:?}.\n")
}

async fn page(shim: &Shim) -> String {
    let line = shim.wait_for_log("metrics and the page are on").await;
    let address = line.split("http://").nth(1).unwrap();
    metrics(address.trim_end_matches('/')).await
}

async fn is_good(shim: &Shim) -> bool {
    let page = page(shim).await;
    let line = page.lines().find(|line| line.starts_with(METRIC));
    let forwards = page.contains("\nimage_cri_shim_config_forwards_everything 1\n");
    assert_eq!(forwards, shim.log().contains("every call is forwarded"));
    line.unwrap_or_else(|| panic!("{page}")).ends_with(" 1")
}

const METRIC: &str = "image_cri_shim_config_last_reload_successful ";

async fn status_until(shim: &Shim, what: &str, is: impl Fn(&serde_json::Value) -> bool) {
    wait::until(what, || async {
        is(&shim.status().await.unwrap()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_last_good_config_serves_until_the_file_is_mended() {
    let (mut shim, _runtime) = prepare(GOOD, true).await;
    shim.start_again().await.unwrap();
    let whole = std::fs::read_to_string(shim.config_file()).unwrap();
    let whole = stored(&shim, &whole);
    wait::until("the config to be kept", || async {
        std::fs::read_to_string(kept_in(&shim))
            .is_ok_and(|kept| kept == whole)
            .then_some(())
    })
    .await;
    let mode = kept_in(&shim).metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(is_good(&shim).await);
    shim.terminate().await.unwrap();

    for broken in [
        "timeout: soon",
        "registries: [{address: 'http://",
        "# cut off",
    ] {
        shim.write_config(broken).unwrap();
        shim.start_again().await.unwrap();
        let config = shim.status().await.unwrap();
        let registry = config["registries"][0]["address"].to_string();
        assert!(registry.contains("127.0.0.1:9"), "{broken}: {config}");
        assert!(config["config"]["error"]["message"].is_string(), "{config}");
        assert_eq!(config["config"].get("forwards_everything"), None);
        // It is not kept in place of what it is.
        assert_eq!(std::fs::read_to_string(kept_in(&shim)).unwrap(), whole);
        shim.terminate().await.unwrap();
    }
    assert_eq!(
        shim.log_lines("keeping the last good config, from").len(),
        3
    );

    shim.start_again().await.unwrap();
    let output = Command::new(BINARY)
        .arg("-f")
        .arg(shim.config_file())
        .args(["config", "show", "--local"])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "an emptied file is a config");
    shim.write_config("address: http://mended.io").unwrap();
    status_until(&shim, "the mended file to be in force", |status| {
        let registry = status["registries"][0]["address"].to_string();
        registry.contains("mended.io") && status["config"].get("error").is_none()
    })
    .await;
    wait::until("the mended config to be kept", || async {
        std::fs::read_to_string(kept_in(&shim))
            .is_ok_and(|kept| kept.contains("mended.io"))
            .then_some(())
    })
    .await;
    shim.terminate().await.unwrap();

    // It is of that file alone.
    let other = shim.config_file().with_file_name("other.yaml");
    let sockets = std::fs::read_to_string(kept_in(&shim)).unwrap();
    let sockets = sockets.replace("address: http://mended.io", "timeout: soon");
    std::fs::rename(shim.config_file(), &other).unwrap();
    std::fs::write(&other, sockets).unwrap();
    let mut second = Command::new(BINARY);
    let second = second.env("NOTIFY_SOCKET", NOBODY).kill_on_drop(true);
    let second = second
        .arg("-f")
        .arg(&other)
        .args(["config", "show", "--local"]);
    let shown = String::from_utf8(second.output().await.unwrap().stderr).unwrap();
    assert!(shown.contains("no last good config"), "{shown}");
    assert!(!shim.log().contains("hunter2"), "{}", shim.log());
}

#[tokio::test]
async fn what_is_tried_by_hand_takes_no_last_good_config_s_place() {
    let (mut shim, _runtime) = prepare(GOOD, false).await;
    shim.start_again().await.unwrap();
    shim.write_config("address: http://tried.io").unwrap();
    status_until(&shim, "the other config to be in force", |status| {
        status["config"]["generation"] == 2
    })
    .await;
    shim.terminate().await.unwrap();
    assert!(!kept_in(&shim).exists());
}

#[tokio::test]
async fn without_a_last_good_config_everything_is_forwarded() {
    let broken = "address: http://127.0.0.1:9\nregistries: [{address: 'http://";
    let (mut shim, runtime) = prepare(broken, true).await;
    shim.start_again().await.unwrap();
    shim.wait_for_log("every call is forwarded as it comes")
        .await;
    assert!(!is_good(&shim).await);
    let shown = shim.status().await.unwrap();
    assert_eq!(shown["config"]["forwards_everything"], true, "{shown}");
    assert!(shown["config"]["error"]["message"].is_string(), "{shown}");
    shim.client().pull("ghcr.io/x:1", None).await.unwrap();
    let pulled = runtime.requests().into_iter().any(|request| {
        request.path.ends_with("/PullImage")
            && String::from_utf8_lossy(&request.message).contains("ghcr.io/x:1")
    });
    assert!(pulled);
    // Nobody has written that config, so nobody gets it at the next start.
    assert!(!kept_in(&shim).exists());
    let output = Command::new(BINARY)
        .arg("-f")
        .arg(shim.config_file())
        .args(["config", "show", "--local"])
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("every call is forwarded as it comes"),
        "{told}"
    );
    shim.write_config("address: http://mended.io").unwrap();
    status_until(&shim, "the mended file to be in force", |status| {
        let config = &status["config"];
        config.get("error").is_none() && config.get("forwards_everything").is_none()
    })
    .await;
    let page = page(&shim).await;
    for line in [
        "image_cri_shim_config_forwards_everything 0",
        "image_cri_shim_config_last_reload_successful 1",
    ] {
        assert!(page.contains(line), "{page}");
    }
}

#[tokio::test]
async fn who_must_not_start_so_does_not() {
    let open = "address: http://127.0.0.1:9\n";
    let closed = "address: http://127.0.0.1:9\nfallbackToOrigin: false\n";
    for (by_systemd, config, last_good, says) in [
        (
            true,
            "strict: true\na: [",
            Some(closed),
            "`strict: true` forbids",
        ),
        (
            true,
            "strict: true\ntimeout: soon",
            Some(open),
            "`strict: true` forbids",
        ),
        (
            true,
            "fallbackToOrigin: false\na: [",
            None,
            "is not opened by a mistake",
        ),
        (
            true,
            "fallbackToOrigin: false\na: [",
            Some(open),
            "is not opened by a mistake",
        ),
        (
            true,
            "fallbackToOrigin: fasle",
            None,
            "is not opened by a mistake",
        ),
        (
            true,
            "bypass: false\na: [",
            Some(open),
            "is not opened by a mistake",
        ),
        // By hand it is an error to be seen.
        (false, "timeout: soon", Some(open), "not a duration"),
        (false, "a: [", None, "image-cri-shim.yaml:"),
    ] {
        let (mut shim, _runtime) = prepare(config, by_systemd).await;
        if let Some(last_good) = last_good {
            keep(&shim, last_good);
        }
        shim.spawn().unwrap();
        assert_eq!(shim.wait().await.unwrap().code(), Some(1), "{config}");
        shim.wait_for_log(says).await;
        assert!(!shim.socket().exists(), "{config}");
    }
    // The last good config of a closed site is as closed.
    let (mut shim, runtime) = prepare("fallbackToOrigin: false\na: [", true).await;
    keep(&shim, closed);
    shim.start_again().await.unwrap();
    // The runtime takes what it is told; what matters is what that is.
    let _ = shim.client().pull("ghcr.io/open/x:1", None).await;
    let asked = runtime.requests().into_iter().any(|request| {
        request.path.ends_with("/PullImage")
            && String::from_utf8_lossy(&request.message).contains("ghcr.io/open")
    });
    assert!(!asked, "{}", shim.log());
}
