//! `rewrite: best` asks registries as the shim does: with credentials that stand elsewhere.

use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;
use testkit::certs::Ca;
use testkit::docker_registry::DockerRegistry;
use testkit::fake_api_server::FakeApiServer;
use testkit::images::Image;
use testkit::wait::until;
use testkit::webhook::Webhook;

use crate::{file_args, prepared, start};

/// In every password here, so that one search finds any that got out.
const SECRET: &str = "hunter2";

/// A webhook, an API server that it follows, and a registry that answers nobody without a password.
struct World {
    registry: DockerRegistry,
    server: FakeApiServer,
    ca: Ca,
    dir: TempDir,
}

impl World {
    async fn new() -> Self {
        let registry = DockerRegistry::with_password("robot", SECRET).await;
        let registry = registry.unwrap();
        let image = Image::new("private");
        registry.push(&image, "library/nats", "1").await.unwrap();
        let ca = Ca::new().unwrap();
        Self {
            registry,
            server: FakeApiServer::start().unwrap(),
            dir: prepared(&ca),
            ca,
        }
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// A config whose one registry has `option` beside its address.
    fn config(&self, option: &str) -> String {
        format!(
            "rewrite: best\ndebug: true\nreloadInterval: 1s\nregistries: [{{address: '{}'{option}}}]\n",
            self.registry.url()
        )
    }

    /// A docker `config.json` with the password.
    fn docker_config(&self) -> String {
        format!(
            r#"{{"auths": {{"{}": {{"username": "robot", "password": "{SECRET}"}}}}}}"#,
            self.registry.host()
        )
    }

    fn apply_secret(&self) {
        let data = self.docker_config();
        let kind = "kubernetes.io/dockerconfigjson";
        let data = [(".dockerconfigjson", data.as_str())];
        self.server.apply_secret("mirror-pull", kind, &data);
    }

    async fn start(&self, more: &[&str]) -> Webhook {
        let kubeconfig = self.write("kubeconfig", &self.server.kubeconfig());
        let mut args = file_args(&self.dir);
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        let webhook = start(&args, &[("KUBECONFIG", &kubeconfig)]).await;
        webhook.until_ready().await;
        webhook
    }

    /// Where the webhook sends the image that the registry has; `None` is nowhere.
    async fn rewritten(&self, webhook: &Webhook) -> Option<String> {
        webhook.rewritten("nats:1", &[&self.ca.pem()]).await
    }

    async fn until_found(&self, webhook: &Webhook) {
        let there = format!("{}/library/nats:1", self.registry.host());
        until("the registry lets the webhook in", || async {
            (self.rewritten(webhook).await.as_ref() == Some(&there)).then_some(())
        })
        .await;
    }

    async fn until_not_found(&self, webhook: &Webhook) {
        until("the registry turns the webhook away", || async {
            self.rewritten(webhook).await.is_none().then_some(())
        })
        .await;
    }

    fn no_secret_in_the_log(&self, webhook: &Webhook) {
        let log = webhook.log();
        assert!(!log.contains(SECRET), "{log}");
        assert!(!log.contains(self.server.token()), "{log}");
    }
}

#[tokio::test]
async fn auth_file_of_a_config_file() {
    let world = World::new().await;
    let auth = world.write("auth.json", "{}");
    world.write("config.yaml", &world.config(&format!(", authFile: {auth}")));
    let webhook = world.start(&[]).await;
    webhook.until_logged("has no entry for").await;
    assert_eq!(world.rewritten(&webhook).await, None);
    world.write("auth.json", &world.docker_config());
    world.until_found(&webhook).await;
    // A new config, a new place for the same.
    let other = world.write("other.json", &world.docker_config());
    world.write("auth.json", "{}");
    world.until_not_found(&webhook).await;
    world.write(
        "config.yaml",
        &world.config(&format!(", authFile: {other}")),
    );
    world.until_found(&webhook).await;
    world.no_secret_in_the_log(&webhook);
}

#[tokio::test]
async fn auth_secret_of_a_config_file() {
    let world = World::new().await;
    world.write("config.yaml", &world.config(", authSecret: mirror-pull"));
    let webhook = world.start(&[]).await;
    webhook
        .until_logged("authSecret mirror-pull: there is no such Secret in kube-system")
        .await;
    assert_eq!(world.rewritten(&webhook).await, None);
    world.apply_secret();
    world.until_found(&webhook).await;
    world.server.delete_secret("mirror-pull");
    world.until_not_found(&webhook).await;
    world.no_secret_in_the_log(&webhook);
}

#[tokio::test]
async fn auth_secret_and_auth_file_of_the_config_map() {
    let world = World::new().await;
    world
        .server
        .apply_config_map(&world.config(", authSecret: mirror-pull"));
    let webhook = world.start(&["--config-map"]).await;
    webhook.until_logged("there is no such Secret").await;
    world.apply_secret();
    world.until_found(&webhook).await;
    world.server.delete_secret("mirror-pull");
    world.until_not_found(&webhook).await;
    let auth = world.write("auth.json", &world.docker_config());
    world
        .server
        .apply_config_map(&world.config(&format!(", authFile: {auth}")));
    world.until_found(&webhook).await;
    world.no_secret_in_the_log(&webhook);
}

#[tokio::test]
async fn a_plugin_of_kubelet() {
    let world = World::new().await;
    let host = world.registry.host();
    let plugin = world.write(
        "cloud",
        &format!("#!/bin/sh\necho '{{\"kind\":\"CredentialProviderResponse\",\"apiVersion\":\"credentialprovider.kubelet.k8s.io/v1\",\"cacheKeyType\":\"Registry\",\"auth\":{{\"{host}\":{{\"username\":\"robot\",\"password\":\"{SECRET}\"}}}}}}'\n"),
    );
    std::fs::set_permissions(plugin, std::fs::Permissions::from_mode(0o755)).unwrap();
    let providers = world.write(
        "providers.yaml",
        &format!("providers: [{{name: cloud, apiVersion: credentialprovider.kubelet.k8s.io/v1, matchImages: ['{host}'], defaultCacheDuration: 1h}}]"),
    );
    let dir = world.dir.path().display();
    let config = format!(
        "imageCredentialProviderConfig: {providers}\nimageCredentialProviderBinDir: {dir}\n{}",
        world.config("")
    );
    world.write("config.yaml", &config);
    let webhook = world.start(&[]).await;
    world.until_found(&webhook).await;
    world.no_secret_in_the_log(&webhook);
}

#[tokio::test]
async fn redirects_alone_read_no_secret() {
    let world = World::new().await;
    let best = world.config(", authSecret: mirror-pull");
    let redirect = best.replace("rewrite: best", "rewrite: redirect");
    let rule = "imageRedirMapping: [{src: docker.io, to: m.io, authSecret: other}]\n";
    world.server.apply_config_map(&format!("{redirect}{rule}"));
    let webhook = world.start(&["--config-map"]).await;
    assert_eq!(world.rewritten(&webhook).await.unwrap(), "m.io/nats:1");
    let asked_for_secrets = || {
        let requests = world.server.requests();
        requests.iter().any(|r| r.uri.contains("/secrets"))
    };
    assert!(!asked_for_secrets());
    // The right to read them is needed from here on.
    world.server.apply_config_map(&best);
    world.apply_secret();
    world.until_found(&webhook).await;
    assert!(asked_for_secrets());
}
