//! What `kubectl apply` does to a node.

use std::os::unix::fs::PermissionsExt;

use crate::world::World;

#[tokio::test]
async fn a_configmap_is_merged_written_and_in_force_at_once() {
    let world = World::start(
        "# ours\nforce: true # keep\nregistries: [{address: old.io, caFile: /dev/null}]\n",
    )
    .await;
    world.server.apply_config_map(
        "version: v1\nofflinePriority: 1000\n\
         sealos: {address: 'http://sealos.hub:5000', auth: {username: admin, password: 'hunter2:1'}}\n\
         registries:\n  - {address: docker.io, priority: 600}\n  - {address: 'https://u:hunter2@b.io'}\n\
         timeout: 5m\n",
    );
    for line in [
        "configmap: synced offlinePriority=1000",
        "configmap: syncing registry docker.io with priority=600",
        "configmap: syncing registry https://b.io with priority=500",
        "configmap: merged 2 registries into config",
        &format!(
            "synced image-cri-shim config from ConfigMap into {}",
            world.shim.config_file().display()
        ),
        "config: processing 2 configured registries",
        "config: registry[1] address=docker.io domain=index.docker.io priority=600",
        "config: offline_registry address=http://sealos.hub:5000 domain=sealos.hub priority=1000 (default)",
        &format!(
            "reloaded shim auth configuration from {}",
            world.shim.config_file().display()
        ),
        "`caFile` of old.io is lost",
    ] {
        world.shim.wait_for_log(line).await;
    }
    let file = world.file();
    assert!(file.contains("# ours\nforce: true # keep\n"), "{file}");
    assert!(file.contains("auth: admin:hunter2:1\n"), "{file}");
    assert!(file.contains("timeout: 5m0s\n"), "{file}");
    let mode = std::fs::metadata(world.shim.config_file())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    // Once per change.
    assert_eq!(
        world.shim.log_lines("configmap: merged 2 registries").len(),
        1
    );
    assert_eq!(
        world
            .shim
            .log_lines("synced image-cri-shim config from")
            .len(),
        1
    );
    world.no_secret_in_the_log();
}

#[tokio::test]
async fn the_reload_interval_follows_the_configmap() {
    let world = World::start("").await;
    world.server.apply_config_map("reloadInterval: 30s");
    world
        .shim
        .wait_for_log("updated reload interval to 30s")
        .await;
    world.file_has("reloadInterval: 30s\n").await;
}

#[tokio::test]
async fn debug_follows_the_configmap() {
    let world = World::start("debug: false").await;
    assert_eq!(world.shim.log_lines("DEBUG"), Vec::<String>::new());
    world.server.apply_config_map("debug: true");
    world.file_has("debug: true").await;
    // The file is written before the new level holds.
    world
        .shim
        .wait_for_log("reloaded shim auth configuration from")
        .await;
    world.server.delete_config_map();
    world
        .shim
        .wait_for_log("configmap kube-system/image-cri-shim not found; skip syncing")
        .await;
}

#[tokio::test]
async fn bad_values_are_named_and_the_others_applied() {
    let world = World::start("timeout: 1m").await;
    world.server.apply_config_map(
        "timeout: soon\nforce: true\nregistries: [{address: a.io, priority: much}]\n",
    );
    world.file_has("force: true").await;
    world.file_has("  - address: a.io\n").await;
    assert!(world.file().contains("timeout: 1m\n"), "{}", world.file());
    world
        .shim
        .wait_for_log("configmap kube-system/image-cri-shim:1:10: warning: timeout: not a duration")
        .await;
    world
        .shim
        .wait_for_log("warning: registries[1].priority: ")
        .await;
    // A text that is no YAML changes nothing, and is warned about once.
    let before = world.file();
    world.server.apply_config_map("timeout: [hunter2");
    world.shim.wait_for_log("nothing is synced from it").await;
    assert_eq!(world.file(), before);
    world.server.apply_config_map("timeout: 7m");
    world.file_has("timeout: 7m0s").await;
    assert_eq!(world.shim.log_lines("nothing is synced from it").len(), 1);
    assert_eq!(
        world
            .shim
            .log_lines("warning: timeout: not a duration")
            .len(),
        1
    );
    world.no_secret_in_the_log();
}

#[tokio::test]
async fn an_unchanged_file_is_never_touched() {
    let config = "# comment\ntimeout:   900s   # odd spacing\nregistries: [ ]\n";
    let world = World::start(config).await;
    let before = std::fs::metadata(world.shim.config_file()).unwrap();
    world.server.apply_config_map(
        "timeout: 15m\nofflinePriority: 1000\nregistries: []\ncache: {imageCacheSize: 1024}",
    );
    // The next change is known to come after that one.
    world.server.apply_config_map("timeout: 15m0s\nnonsense: 1");
    world.shim.wait_for_log("nonsense: unknown field").await;
    use std::os::unix::fs::MetadataExt;
    let after = std::fs::metadata(world.shim.config_file()).unwrap();
    assert_eq!(
        (before.ino(), before.mtime_nsec()),
        (after.ino(), after.mtime_nsec())
    );
    assert!(
        world
            .shim
            .log_lines("synced image-cri-shim config")
            .is_empty()
    );
}

#[tokio::test]
async fn a_deleted_configmap_keeps_what_was_merged() {
    let mut world = World::start("").await;
    world.server.apply_config_map("timeout: 5m");
    world.file_has("timeout: 5m0s").await;
    world.server.delete_config_map();
    world
        .shim
        .wait_for_log("configmap kube-system/image-cri-shim not found; skip syncing")
        .await;
    world.file_has("timeout: 5m0s").await;
    world.shim.restart().await.unwrap();
    world.file_has("timeout: 5m0s").await;
}

#[tokio::test]
async fn a_thousand_changes_in_a_burst_end_in_the_last() {
    let world = World::start("").await;
    for n in 1..=1000 {
        world.server.apply_config_map(&format!("timeout: {n}s"));
    }
    world.file_has("timeout: 16m40s").await;
    world.shim.client().version().await.unwrap();
}

#[tokio::test]
async fn a_broken_local_file_is_not_overwritten() {
    let world = World::start("timeout: 1m").await;
    world.write("timeout: [hunter2");
    world
        .shim
        .wait_for_log("keeping the last good config")
        .await;
    world.server.apply_config_map("force: true\nnonsense: 1");
    world.shim.wait_for_log("nonsense: unknown field").await;
    assert!(
        world.file().contains("timeout: [hunter2"),
        "{}",
        world.file()
    );
    world.write("timeout: 2m");
    world.file_has("force: true").await;
    world.no_secret_in_the_log();
}
