//! The image, imported by a real containerd and run by a real runc.

use std::process::Command;

use serde_json::Value;
use testkit::containerd::Containerd;

use super::world::{VERSION, package, packages, printed};

#[tokio::test(flavor = "multi_thread")]
async fn it_is_imported_and_runs_as_nobody() {
    let containerd = Containerd::start().await.unwrap();
    let ctr = |arguments: &[&str]| {
        let mut path = std::env::join_paths(containerd.tools().folders()).unwrap();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        printed(
            Command::new(&containerd.tools().ctr)
                .arg("--address")
                .arg(containerd.socket())
                .args(["--namespace", "k8s.io"])
                .args(arguments)
                .env("PATH", path),
        )
    };
    let image = format!("docker.io/library/image-cri-shim:{VERSION}");
    let archive = package(packages(), ".oci.tar").display().to_string();
    let snapshotter = format!("--snapshotter={}", Containerd::snapshotter());
    ctr(&["images", "import", &snapshotter, &archive]);
    // Kubelet finds it by the name that the manifests in deploy/ have.
    let (cri, name) = (containerd.client(), format!("image-cri-shim:{VERSION}"));
    assert!(cri.status(&name).await.unwrap().is_some());

    let name = format!("packaged-{}", std::process::id());
    let run = ["run", &snapshotter, &image, &name, "/image-cri-shim"];
    let said = ctr(&[&run[..], &["--version"]].concat());
    assert_eq!(said, format!("image-cri-shim {VERSION}\n"));
    let container: Value = serde_json::from_str(&ctr(&["containers", "info", &name])).unwrap();
    let user = &container["Spec"]["process"]["user"];
    assert_eq!((&user["uid"], &user["gid"]), (&65532.into(), &65532.into()));
    assert_eq!(container["Spec"]["process"]["args"][0], "/image-cri-shim");
    ctr(&["containers", "rm", &name]);
}
