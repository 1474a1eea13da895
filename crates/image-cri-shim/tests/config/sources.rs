//! Credentials that stand elsewhere reach the registry, and nobody else.

use std::os::unix::fs::PermissionsExt;

use prost::Message;
use testkit::cri_api::PullImageRequest;
use testkit::fake_api_server::{ApiFault, FakeApiServer};
use testkit::fake_registry::FakeRegistry;
use testkit::images::Image;
use testkit::wait;

use crate::world::{SECRET, World};

fn registry() -> FakeRegistry {
    let registry = FakeRegistry::start().unwrap();
    registry.add(&Image::new("private"), "team/app", "1");
    registry.require_basic("robot", SECRET);
    registry
}

/// Who the runtime was told to be in its last pull, and what it was told to pull.
fn last_pull(world: &World) -> (String, String) {
    let requests = world.runtime.requests();
    let last = requests
        .iter()
        .rev()
        .find(|r| r.path.ends_with("/PullImage"));
    let request = PullImageRequest::decode(last.unwrap().message.clone()).unwrap();
    let user = request.auth.map(|auth| auth.username).unwrap_or_default();
    (user, request.image.unwrap().image)
}

/// Pulls a new name each time, until the trail of a pull has `part` in it.
async fn trail_says(world: &World, part: &str) {
    let mut n = 0;
    let said = wait::within(wait::TIMEOUT, || {
        n += 1;
        async move {
            let name = format!("t{n}.io/team/app:1");
            world.shim.client().pull(&name, None).await.unwrap();
            let trails = world.shim.log_lines("tried: ");
            trails.iter().any(|line| line.contains(part)).then_some(())
        }
    });
    assert!(said.await.is_some(), "{}", world.shim.log());
}

/// Pulls a new name each time, until the registry is the one that is pulled from.
async fn pulled_as_robot(world: &World, registry: &FakeRegistry) {
    let mut n = 0;
    let pulled = wait::within(wait::TIMEOUT, || {
        n += 1;
        async move {
            let name = format!("h{n}.io/team/app:1");
            world.shim.client().pull(&name, None).await.unwrap();
            let (user, image) = last_pull(world);
            (user == "robot" && image.starts_with(&registry.host())).then_some(())
        }
    });
    assert!(pulled.await.is_some(), "{}", world.shim.log());
}

#[tokio::test]
async fn a_secret_that_the_configmap_names() {
    let registry = registry();
    let world = World::start("").await;
    world.server.apply_config_map(&format!(
        "registries: [{{address: '{}', authSecret: mirror-pull}}]",
        registry.url()
    ));
    let said = world
        .shim
        .wait_for_log("authSecret mirror-pull: there is no such Secret")
        .await;
    assert!(said.contains("WARN"), "{said}");
    // A pull without them goes to the origin, and doesn't fail.
    world
        .shim
        .client()
        .pull("h.io/team/app:1", None)
        .await
        .unwrap();
    world.server.apply_secret(
        "mirror-pull",
        "kubernetes.io/basic-auth",
        &[("username", "robot"), ("password", SECRET)],
    );
    pulled_as_robot(&world, &registry).await;
    // Changed, as a rotation does it.
    registry.require_basic("robot", "hunter2-new");
    let auth =
        "{\"auths\": {\"REGISTRY\": {\"username\": \"robot\", \"password\": \"hunter2-new\"}}}";
    world.server.apply_secret(
        "mirror-pull",
        "kubernetes.io/dockerconfigjson",
        &[(
            ".dockerconfigjson",
            &auth.replace("REGISTRY", &registry.host()),
        )],
    );
    pulled_as_robot(&world, &registry).await;
    let file = world.file();
    assert!(
        file.contains("authSecret: mirror-pull") && !file.contains(SECRET),
        "{file}"
    );
    world.no_secret_in_the_log();
}

#[tokio::test]
async fn a_secret_that_may_not_be_read_is_said_once_and_no_pull_fails() {
    let registry = registry();
    let server = FakeApiServer::start().unwrap();
    server.set_fault_of("secrets", Some(ApiFault::Status(403)));
    let config = format!(
        "reloadInterval: 1s\nregistries: [{{address: '{}', authSecret: s}}]",
        registry.url()
    );
    let world = World::start_with(&config, server).await;
    world.shim.wait_for_log("authSecret s: 403").await;
    world
        .shim
        .client()
        .pull("h.io/team/app:1", None)
        .await
        .unwrap();
    assert_eq!(last_pull(&world).1, "h.io/team/app:1");
    wait::until("three questions", || async {
        let about = world.server.requests();
        (about
            .iter()
            .filter(|r| r.uri.contains("/secrets/s"))
            .count()
            >= 3)
            .then_some(())
    })
    .await;
    let said = world.shim.log_lines("authSecret s: 403");
    let warned = said.iter().filter(|line| line.contains(" WARN "));
    assert_eq!(warned.count(), 1, "{said:#?}");
}

#[tokio::test]
async fn a_docker_config_file_and_its_helper() {
    let registry = registry();
    let dir = tempfile::tempdir().unwrap();
    let helper = dir.path().join("docker-credential-test");
    std::fs::write(
        &helper,
        format!(
            "#!/bin/sh\nread -r server\n[ \"$1 $server\" = \"get {}\" ] || exit 1\necho '{{\"ServerURL\":\"x\",\"Username\":\"robot\",\"Secret\":\"{SECRET}\"}}'\n",
            registry.host()
        ),
    )
    .unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = dir.path().join("config.json");
    let wrong = |host: &str| format!("{{\"credHelpers\": {{\"{host}\": \"missing\"}}}}");
    std::fs::write(&file, wrong(&registry.host())).unwrap();
    let config = format!(
        "reloadInterval: 1s\nregistries: [{{address: '{}', authFile: {}}}]",
        registry.url(),
        file.display()
    );
    let path = format!(
        "{}:{}",
        dir.path().display(),
        std::env::var("PATH").unwrap()
    );
    let mut world =
        World::prepare(&config, FakeApiServer::start().unwrap(), &[("PATH", &path)]).await;
    world.shim.start_again().await.unwrap();
    world
        .shim
        .wait_for_log("cannot run docker-credential-missing")
        .await;
    // The keeper says it first, and then every trail does.
    trail_says(&world, "cannot run docker-credential-missing").await;
    world
        .shim
        .client()
        .pull("h.io/team/app:1", None)
        .await
        .unwrap();
    std::fs::write(&file, wrong(&registry.host()).replace("missing", "test")).unwrap();
    pulled_as_robot(&world, &registry).await;
    world.no_secret_in_the_log();
}

#[tokio::test]
async fn a_plugin_of_kubelet() {
    let registry = registry();
    let dir = tempfile::tempdir().unwrap();
    let plugin = dir.path().join("cloud");
    std::fs::write(
        &plugin,
        format!("#!/bin/sh\necho '{{\"kind\":\"CredentialProviderResponse\",\"apiVersion\":\"credentialprovider.kubelet.k8s.io/v1\",\"cacheKeyType\":\"Registry\",\"auth\":{{\"127.0.0.1:*\":{{}},\"{}\":{{\"username\":\"robot\",\"password\":\"{SECRET}\"}}}}}}'\n", registry.host()),
    )
    .unwrap();
    std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = dir.path().join("config.yaml");
    std::fs::write(
        &file,
        format!("providers: [{{name: cloud, apiVersion: credentialprovider.kubelet.k8s.io/v1, matchImages: ['{}'], defaultCacheDuration: 1h}}]", registry.host()),
    )
    .unwrap();
    let world = World::start(&format!(
        "imageCredentialProviderConfig: {}\nimageCredentialProviderBinDir: {}\nregistries: [{{address: '{}'}}]",
        file.display(),
        dir.path().display(),
        registry.url()
    ))
    .await;
    pulled_as_robot(&world, &registry).await;
    world.no_secret_in_the_log();
}
