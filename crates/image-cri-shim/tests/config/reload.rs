//! The local file changes, in every way in which people and programs change files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::world::World;

#[tokio::test]
async fn an_edit_is_seen_without_a_signal() {
    let world = World::start("").await;
    world.write("registries: [{address: a.io}]");
    world
        .shim
        .wait_for_log("config: registry[1] address=a.io")
        .await;
    // In place, as `echo >>` does.
    let mut text = world.file();
    text.push_str("timeout: 2m\nofflinePriority: 20000\naddress: http://sealos.hub:5000\n");
    fs::write(world.shim.config_file(), text).unwrap();
    world
        .shim
        .wait_for_log("config: offline_registry address=http://sealos.hub:5000")
        .await;
}

#[tokio::test]
async fn a_mounted_configmap_that_is_swapped_is_seen() {
    let world = World::start("").await;
    // As kubelet mounts one: the file is a link into `..data`, and that link is replaced.
    let dir = world.shim.dir();
    let config = world.shim.config_file();
    let name = config.file_name().unwrap();
    let original = world.file();
    for n in [1, 2] {
        let version = dir.join(format!("..v{n}"));
        fs::create_dir(&version).unwrap();
        let text = format!("{original}registries: [{{address: v{n}.io}}]\n");
        fs::write(version.join(name), text).unwrap();
        symlink(format!("..v{n}"), dir.join("..data_tmp")).unwrap();
        fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
        if n == 1 {
            symlink(Path::new("..data").join(name), dir.join("link")).unwrap();
            fs::rename(dir.join("link"), &config).unwrap();
        }
        world.shim.wait_for_log(&format!("address=v{n}.io")).await;
    }
}

#[tokio::test]
async fn a_bad_file_is_warned_about_once_per_content() {
    let mut world = World::start("").await;
    world.write("registries: [{address: 'http://u:hunter2@'}]\ntimeout: soon");
    let said = world
        .shim
        .wait_for_log("keeping the last good config")
        .await;
    assert!(said.contains("WARN"), "{said}");
    world
        .shim
        .wait_for_log("error: timeout: not a duration")
        .await;
    for _ in 0..3 {
        world.shim.signal(rustix::process::Signal::HUP).unwrap();
        world.shim.client().version().await.unwrap();
    }
    world.write("probeTimeout: never");
    world
        .shim
        .wait_for_log("error: probeTimeout: not a duration")
        .await;
    assert_eq!(
        world.shim.log_lines("keeping the last good config").len(),
        2
    );
    fs::remove_file(world.shim.config_file()).unwrap();
    world.shim.wait_for_log("cannot read the config file").await;
    world.write("timeout: 4m");
    world
        .shim
        .wait_for_log("reloaded shim auth configuration")
        .await;
    world.no_secret_in_the_log();
}

#[tokio::test]
async fn what_needs_a_restart_says_so() {
    let world = World::start("").await;
    world.write("shim: /run/elsewhere.sock\nimage: /tmp/elsewhere");
    world
        .shim
        .wait_for_log("shim, image changed in the config; that takes effect with the next restart")
        .await;
}
