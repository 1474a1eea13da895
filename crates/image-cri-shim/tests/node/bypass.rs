//! What a shim says of the bypass that was in force before it was ready.

use std::fs;
use std::os::unix::fs::symlink;

use testkit::fake_runtime::FakeRuntime;
use testkit::shim::{Options, Shim};
use testkit::wait;
use tokio::process::Command;

use crate::world::{BINARY, metrics};

#[tokio::test]
async fn status_metrics_and_the_log_say_so() {
    let runtime = FakeRuntime::start().await.unwrap();
    let run = tempfile::tempdir().unwrap();
    let folder = run.path().join("image-cri-shim");
    fs::create_dir(&folder).unwrap();
    let socket = folder.join("shim.sock");
    let link = run.path().join("image-cri-shim.sock");
    let lead = |target: &str, note: &str| {
        let new = run.path().join("new");
        symlink(format!("image-cri-shim/{target}.sock"), &new).unwrap();
        fs::rename(&new, &link).unwrap();
        fs::write(folder.join("bypass.state"), note).unwrap();
    };
    lead("bypass", "v1 bypass 1 2 30 - 0 0\n");
    let options = Options::new(BINARY, runtime.socket())
        .arg("serve")
        .arg("--listen")
        .arg(socket.to_str().unwrap());
    let mut shim = Shim::prepare("", options).unwrap();
    shim.spawn().unwrap();
    let line = shim.wait_for_log("metrics and the page are on").await;
    let address = line.split("http://").nth(1).unwrap().to_owned();
    shim.wait_for_log("kubelet has been led past the shim")
        .await;
    let ask = |arguments: &'static [&'static str]| {
        let file = run.path().join("ask.yaml");
        fs::write(&file, format!("shim: {}\n", link.display())).unwrap();
        let mut command = Command::new(BINARY);
        command.arg("-f").arg(file).arg("status").args(arguments);
        async move { command.output().await.unwrap() }
    };
    // Nobody listens on the bypass.
    let failed = ask(&[]).await;
    assert!(!failed.status.success());
    let failed = String::from_utf8(failed.stderr).unwrap();
    assert!(failed.contains("kubelet is led past the shim"), "{failed}");
    let page = metrics(address.trim_end_matches('/')).await;
    assert!(
        page.contains("\nimage_cri_shim_bypass_in_force 1\n"),
        "{page}"
    );

    lead("shim", "v1 shim 50 2 49 bypass 30 49\n");
    shim.wait_for_log("kubelet is led to the shim again; it was led past the shim, to the container runtime, for 19 seconds")
        .await;
    let shown = ask(&["--json"]).await;
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let bypass = &shown["bypass"];
    assert_eq!(bypass["link"], "shim", "{shown}");
    assert_eq!(bypass["periods"], 2, "{shown}");
    assert_eq!(bypass["total_seconds"], 49, "{shown}");
    assert_eq!(bypass["last"]["seconds"], 19, "{shown}");
    assert_eq!(bypass.get("seconds"), None);
    let page = metrics(address.trim_end_matches('/')).await;
    for line in [
        "image_cri_shim_bypass_in_force 0",
        "image_cri_shim_bypass_periods_total 2",
        "image_cri_shim_bypass_seconds_total 49",
    ] {
        assert!(page.contains(&format!("\n{line}\n")), "{line}: {page}");
    }
    // Garbage is as good as none.
    lead("shim", "\0 v1 v1 v1");
    let shown = ask(&["--json"]).await;
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["bypass"]["periods"], 0, "{shown}");
    wait::until("text, too", || async {
        let text = ask(&[]).await;
        String::from_utf8(text.stdout)
            .unwrap()
            .contains("not used since the boot")
            .then_some(())
    })
    .await;
}
