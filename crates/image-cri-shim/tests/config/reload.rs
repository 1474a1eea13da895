//! The local file changes, in every way in which people and programs change files.

use std::fs;
use std::io::Write;
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

#[tokio::test]
async fn a_file_that_is_being_written_opens_nothing() {
    let closed = "address: http://127.0.0.1:9\nfallbackToOrigin: false\nreloadInterval: 1s";
    let world = World::start(closed).await;
    let whole = fs::read_to_string(world.shim.config_file()).unwrap();
    let asked_of_origin = || {
        let requests = world.runtime.requests();
        let mut pulls = requests.iter().filter(|r| r.path.ends_with("/PullImage"));
        pulls.any(|pull| String::from_utf8_lossy(&pull.message).contains("ghcr.io/open"))
    };
    let refused = async |image: &str| {
        // The registry is dead; what matters is where else the image is looked for.
        let _ = world.shim.client().pull(image, None).await;
        assert!(!asked_of_origin(), "{image}\n{}", world.shim.log());
    };
    // Open and truncated, for longer than the file is left alone between two looks.
    let mut file = fs::File::create(world.shim.config_file()).unwrap();
    for number in 0..20 {
        refused(&format!("ghcr.io/open/a{number}:1")).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    // Half of it.
    let half = whole.find("fallbackToOrigin").unwrap();
    file.write_all(&whole.as_bytes()[..half]).unwrap();
    for number in 0..12 {
        refused(&format!("ghcr.io/open/b{number}:1")).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    file.write_all(&whole.as_bytes()[half..]).unwrap();
    drop(file);
    refused("ghcr.io/open/c:1").await;
    // Truncated and closed, as by a shell.
    fs::write(world.shim.config_file(), "").unwrap();
    world
        .shim
        .wait_for_log("is empty; where no registry is meant")
        .await;
    refused("ghcr.io/open/d:1").await;
    // One that says what it means is taken.
    world.write("registries: []\naddress: ''");
    world
        .shim
        .wait_for_log("reloaded shim auth configuration")
        .await;
    world
        .shim
        .client()
        .pull("ghcr.io/open/e:1", None)
        .await
        .unwrap();
    assert_eq!(
        world
            .shim
            .log_lines("reloaded shim auth configuration")
            .len(),
        1
    );
}
