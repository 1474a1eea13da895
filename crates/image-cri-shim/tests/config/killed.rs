//! SIGKILL while the file is being written.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use testkit::fake_api_server::FakeApiServer;
use testkit::wait;

use crate::world::World;

#[tokio::test]
async fn the_file_is_always_one_of_the_whole_ones() {
    let mut world = World::prepare("", FakeApiServer::start().unwrap(), &[]).await;
    let texts = |n: usize| {
        format!(
            "registries: [{{address: a.io, auth: 'u:{}'}}]",
            "x".repeat(n)
        )
    };
    for round in 0..12_usize {
        world.shim.start_again().await.unwrap();
        let before = world.file();
        for n in 0..40 {
            world.server.apply_config_map(&texts(1000 + round * 40 + n));
        }
        // Somewhere between the first write and the last.
        wait::within(Duration::from_secs(10), || async {
            (world.file() != before).then_some(())
        })
        .await
        .expect("written");
        world.shim.kill().unwrap();
        let file = world.file();
        let written = file
            .lines()
            .find_map(|line| line.trim().strip_prefix("auth: u:"));
        let written = written.expect("a password").len();
        assert!((1000..1000 + 12 * 40).contains(&written), "{written}");
        // The last field of the file is there too.
        assert!(file.contains("metricsAddress: "), "{file}");
        let mode = std::fs::metadata(world.shim.config_file())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
