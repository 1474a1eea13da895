//! A node that runs the shim and the cache, both by one file and one ConfigMap.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use testkit::fake_api_server::FakeApiServer;
use testkit::shim::{Options, Shim};

use crate::world::{BINARY, World};

/// A cache that is not started yet and follows the same file as the shim of `world`.
fn cache_of(world: &World) -> Shim {
    let kubeconfig = world.kubeconfig();
    let options = Options::new(BINARY, "/nonexistent")
        .arg("cache")
        .arg("--socket")
        .arg(
            &world
                .shim
                .state_dir()
                .with_file_name("cache.sock")
                .display()
                .to_string(),
        )
        .env("KUBECONFIG", &kubeconfig.display().to_string());
    let cache = Shim::prepare("", options).unwrap();
    fs::remove_file(cache.config_file()).unwrap();
    symlink(world.shim.config_file(), cache.config_file()).unwrap();
    cache
}

#[tokio::test]
async fn the_cache_follows_file_and_config_map_and_writes_neither() {
    let store = tempfile::tempdir().unwrap();
    let local = format!(
        "# ours\nforce: true\nnodeCache: {{listen: ['127.0.0.1:0'], dir: {}, metricsAddress: 'off', minFree: 1Mi}}\n",
        store.path().join("store").display()
    );
    let server = FakeApiServer::start().unwrap();
    let mut world = World::prepare(&local, server, &[]).await;
    let before = world.file();
    let inode = fs::metadata(world.shim.config_file()).unwrap().ino();
    let mut cache = cache_of(&world);
    cache.spawn().unwrap();
    cache.wait_for_log("serving images on").await;

    // Without a shim there is nobody who writes; what the ConfigMap says is in force all the same.
    world.server.apply_config_map(
        "registries: [{address: first.io}]\nnodeCache: {listen: ['127.0.0.1:1'], dir: /elsewhere}\n",
    );
    cache
        .wait_for_log("config: registry[1] address=first.io")
        .await;
    cache
        .wait_for_log("nodeCache.listen and nodeCache.dir take effect at a restart")
        .await;
    assert_eq!(world.file(), before);
    assert_eq!(fs::metadata(world.shim.config_file()).unwrap().ino(), inode);

    // With one, the file has one writer, however often it changes.
    world.shim.start_again().await.unwrap();
    world.file_has("first.io").await;
    for number in 0..10 {
        let name = format!("mirror-{number}.io");
        world
            .server
            .apply_config_map(&format!("registries: [{{address: {name}}}]"));
        world.file_has(&name).await;
        cache
            .wait_for_log(&format!("config: registry[1] address={name}"))
            .await;
    }
    // The file is edited by hand: both take it over, and the shim alone merges into it.
    world.write(&format!(
        "{local}reloadInterval: 30m\nregistries: [{{address: by-hand.io}}]\n"
    ));
    world.file_has("mirror-9.io").await;
    for shim_or_cache in [&world.shim, &cache] {
        shim_or_cache
            .wait_for_log("updated reload interval to 30m")
            .await;
    }
    assert!(world.file().contains("# ours\n"), "{}", world.file());
    let wrote = cache.log_lines("synced image-cri-shim config from ConfigMap into");
    assert_eq!(wrote, Vec::<String>::new());
    let failed = cache.log_lines("cannot write");
    assert_eq!(failed, Vec::<String>::new());
    assert_eq!(world.shim.log_lines("cannot write"), Vec::<String>::new());
    // Nor does it keep a last good config, which is the shim's.
    assert!(!cache.state_dir().join("last-good.yaml").exists());
}
