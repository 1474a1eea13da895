//! The config, the runtime and the machine.

use std::fs;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::world::{Plan, World};

#[tokio::test]
async fn the_config_has_a_mistake_while_the_shim_runs_by_the_last_good_one() {
    let world = World::running().await;
    world.configure("timeout: soon");
    let page = world.doctor().await;
    page.bad(
        "config",
        "image-cri-shim.yaml:5:",
        "vi +5 /etc/image-cri-shim.yaml",
    );
    assert!(page.text.contains("timeout: "), "{}", page.text);
}

#[tokio::test]
async fn the_config_is_gone() {
    let world = World::running().await;
    fs::remove_file(world.place("/etc/image-cri-shim.yaml")).unwrap();
    let page = world.doctor().await;
    page.bad(
        "config",
        "cannot read the config file",
        "image-cri-shim install",
    );
}

#[tokio::test]
async fn everybody_may_read_the_credentials() {
    let world = World::running().await;
    world.chmod("/image-cri-shim.yaml", 0o644);
    let page = world.doctor().await;
    page.bad(
        "permissions",
        "/etc/image-cri-shim.yaml holds credentials, and everybody on this node may read it (mode 0644)",
        "chmod go= /etc/image-cri-shim.yaml",
    );
}

#[tokio::test]
async fn credentials_among_the_units_variables_that_others_may_read() {
    let world = World::running().await;
    let config = world.place("/image-cri-shim.yaml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}# ${{HARBOR_TOKEN}}\n")).unwrap();
    let defaults = "/etc/default/image-cri-shim";
    world.write(defaults, "HARBOR_TOKEN=x\n");
    world.chmod(defaults, 0o644);
    let page = world.doctor().await;
    page.bad(
        "permissions",
        "/etc/default/image-cri-shim holds credentials, and everybody on this node may read it (mode 0644)",
        "chmod go= /etc/default/image-cri-shim",
    );
}

#[tokio::test]
async fn the_runtime_is_down() {
    let mut world = World::running().await;
    world.containerd.kill().unwrap();
    let page = world.doctor().await;
    page.bad(
        "runtime",
        "Connection refused",
        "systemctl restart containerd",
    );
}

#[tokio::test]
async fn shim_and_bypass_lead_to_two_runtimes() {
    let world = World::running().await;
    let defaults = "IMAGE_CRI_SHIM_RUNTIME=/run/crio/crio.sock\n";
    world.write("/etc/default/image-cri-shim", defaults);
    let page = world.doctor().await;
    page.bad(
        "runtime.target",
        "leads the bypass to /run/crio/crio.sock",
        "touch /etc/default/image-cri-shim && sed -i ",
    );
}

/// A small file system in a node's tree, until this is dropped.
struct Mounted<'a> {
    world: &'a World,
    place: &'a str,
}

impl<'a> Mounted<'a> {
    fn new(world: &'a World, place: &'a str, flags: MountFlags) -> Self {
        mount("tmpfs", world.place(place), "tmpfs", flags, c"size=64k").unwrap();
        Self { world, place }
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.world.place(self.place), UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn the_disk_is_full() {
    let world = World::running().await;
    let _small = Mounted::new(&world, "/state", MountFlags::empty());
    let page = world.doctor().await;
    page.bad("disk", "is full: 64 KiB are free", "du -xh ");
}

#[tokio::test]
async fn the_disk_is_read_only() {
    let world = World::running().await;
    let _readonly = Mounted::new(&world, "/state", MountFlags::RDONLY);
    let page = world.doctor().await;
    page.bad("disk", "is read-only", "mount -o remount,rw");
}

#[tokio::test]
async fn selinux_labels_are_wrong() {
    let world = World::running().await;
    world.write("/sys/fs/selinux/enforce", "1");
    world.program(
        "restorecon",
        "echo Would relabel /usr/bin/image-cri-shim from unconfined_u:object_r:user_tmp_t:s0 to system_u:object_r:bin_t:s0",
    );
    let page = world.doctor().await;
    page.bad(
        "selinux",
        "user_tmp_t",
        "restorecon -RFv /usr/bin/image-cri-shim",
    );
}

/// What proves it is a call: a process that SELinux keeps from the runtime still takes connections.
#[tokio::test]
async fn selinux_keeps_the_bypass_from_the_runtime() {
    let world = World::running().await;
    world.write("/sys/fs/selinux/enforce", "1");
    world.program("restorecon", "");
    let bypass = world.place("/run/image-cri-shim/bypass.sock");
    let listener = tokio::net::UnixListener::bind(&bypass).unwrap();
    let task = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let page = world.doctor().await;
    page.bad(
        "bypass.call",
        "does not reach the runtime",
        "ausearch -m AVC,SELINUX_ERR",
    );
    task.abort();
    std::fs::remove_file(&bypass).unwrap();
    std::fs::hard_link(world.containerd.socket(), &bypass).unwrap();
    let page = world.doctor().await;
    let lines = page.json["lines"].to_string();
    assert!(lines.contains("also under SELinux"), "{}", page.text);
}

#[tokio::test]
async fn the_kernel_gives_no_inotify() {
    let world = World::running().await;
    world.write("/proc/sys/fs/inotify/max_user_instances", "0\n");
    let page = world.doctor().await;
    page.warns(
        "inotify",
        "only 0 inotify instances",
        "sysctl -w fs.inotify.max_user_instances=1024",
    );
}

#[tokio::test]
async fn the_config_map_is_no_config() {
    let world = World::running().await;
    world.api_server.apply_config_map("registries: [\n");
    let page = world.doctor().await;
    let area = page.json["lines"].as_array().unwrap().iter();
    let bad = area
        .clone()
        .find(|line| line["check"] == "config_map")
        .unwrap();
    assert_eq!(bad["verdict"], "bad", "{}", page.text);
    assert_eq!(page.code, 2, "{}", page.text);
}

#[tokio::test]
async fn the_api_server_is_silent() {
    let world = World::running().await;
    world
        .api_server
        .set_fault(Some(testkit::fake_api_server::ApiFault::Silence));
    let page = world.doctor_with(&["--live", "--timeout", "2s"]).await;
    page.warns(
        "config_map",
        "the API server gives no answer",
        "kubectl -n kube-system get configmap image-cri-shim",
    );
}

#[tokio::test]
async fn the_cache_is_used_and_does_not_run() {
    let config = "nodeCache:\n  listen: ['127.0.0.1:1']\nuseNodeCache: http://127.0.0.1:1";
    let world = World::running_with(Plan {
        config: config.to_owned(),
        ..Plan::default()
    })
    .await;
    let page = world.doctor().await;
    page.bad(
        "cache.unit",
        "is not running",
        "systemctl enable --now image-cri-shim-cache",
    );
}

#[tokio::test]
async fn the_predecessor_is_still_there() {
    let world = World::running().await;
    assert!(!Path::new("/etc/systemd/system/image-cri-shim.service").exists());
    world.write(
        "/etc/systemd/system/image-cri-shim.service",
        "[Service]\nExecStart=/usr/bin/image-cri-shim -f /etc/image-cri-shim.yaml\n",
    );
    let page = world.doctor().await;
    page.warns(
        "leftovers",
        "hides the package's unit",
        "rm /etc/systemd/system/image-cri-shim.service",
    );
}
