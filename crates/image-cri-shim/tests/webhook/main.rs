//! The webhook role, end to end: the binary as a process, over real TLS.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod callers;
mod credentials;
mod hostile;

use std::path::Path;
use std::process::ExitStatus;

use testkit::admission::{NAME, published, register, shared};
use testkit::certs::Ca;
use testkit::fake_api_server::FakeApiServer;
use testkit::wait::until;
use testkit::webhook::Webhook;

const CONFIG: &str =
    "imageRedirMapping: [{src: docker.io/, to: project-a.azurecr.io/docker-mirror/}]\n";

/// A directory with a config and a certificate.
fn prepared(ca: &Ca) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.yaml"), CONFIG).unwrap();
    let cert = ca.issue(&[NAME]).unwrap();
    std::fs::write(dir.path().join("tls.crt"), &cert.cert_pem).unwrap();
    std::fs::write(dir.path().join("tls.key"), &cert.key_pem).unwrap();
    dir
}

fn file_args(dir: &tempfile::TempDir) -> Vec<String> {
    let path = |name: &str| dir.path().join(name).display().to_string();
    vec![
        format!("--file={}", path("config.yaml")),
        format!("--tls-cert={}", path("tls.crt")),
        format!("--tls-key={}", path("tls.key")),
    ]
}

async fn start(args: &[String], env: &[(&str, &str)]) -> Webhook {
    let binary = Path::new(env!("CARGO_BIN_EXE_image-cri-shim"));
    Webhook::start(binary, args, env).await.unwrap()
}

/// Runs the webhook to its end.
async fn run(args: &[String], env: &[(&str, &str)]) -> (ExitStatus, String) {
    let binary = Path::new(env!("CARGO_BIN_EXE_image-cri-shim"));
    Webhook::run(binary, args, env).await.unwrap()
}

#[tokio::test]
async fn config_and_certificate_from_files_live() {
    let ca = Ca::new().unwrap();
    let dir = prepared(&ca);
    let webhook = start(&file_args(&dir), &[]).await;
    webhook.until_ready().await;
    let image = webhook.rewritten("nats:2.10.26-alpine", &[&ca.pem()]).await;
    assert_eq!(
        image.unwrap(),
        "project-a.azurecr.io/docker-mirror/nats:2.10.26-alpine"
    );

    // A config that can't be used changes nothing; the next one that can does.
    let config = dir.path().join("config.yaml");
    std::fs::write(&config, "imageRedirMapping: [{src: 'a b', to: x.io}]\n").unwrap();
    webhook.until_logged("keeping the last good config").await;
    let image = webhook.rewritten("nats:1", &[&ca.pem()]).await;
    assert_eq!(image.unwrap(), "project-a.azurecr.io/docker-mirror/nats:1");
    std::fs::write(
        &config,
        "imageRedirMapping: [{src: docker.io, to: new.io}]\n",
    )
    .unwrap();
    until("the new config holds", || async {
        let image = webhook.rewritten("nats:1", &[&ca.pem()]).await;
        (image.as_deref() == Some("new.io/nats:1")).then_some(())
    })
    .await;

    let other = Ca::new().unwrap();
    let cert = other.issue(&[NAME]).unwrap();
    std::fs::write(dir.path().join("tls.crt"), &cert.cert_pem).unwrap();
    std::fs::write(dir.path().join("tls.key"), &cert.key_pem).unwrap();
    until("the new certificate is in use", || async {
        webhook.rewritten("nats:1", &[&other.pem()]).await
    })
    .await;
}

#[tokio::test]
async fn it_counts_and_tells_how_its_config_is() {
    let ca = Ca::new().unwrap();
    let dir = prepared(&ca);
    let webhook = start(&file_args(&dir), &[]).await;
    webhook.until_ready().await;
    webhook.rewritten("nats:1", &[&ca.pem()]).await.unwrap();
    let has = async |line: &str| {
        until(line, || async {
            let (status, text) = webhook.health("/metrics").await?;
            assert_eq!(status, 200);
            text.lines().any(|l| l.starts_with(line)).then_some(())
        })
        .await;
    };
    has(r#"image_cri_shim_reviews_total{result="patched"} 1"#).await;
    has(r#"image_cri_shim_images_moved_total{rule="imageRedirMapping[1]"} 1"#).await;
    has("image_cri_shim_review_duration_seconds_count{} 1").await;
    has("image_cri_shim_certificate_not_after_timestamp_seconds ").await;
    has("image_cri_shim_config_generation 1").await;
    has("image_cri_shim_config_last_reload_successful 1").await;
    has("process_resident_memory_bytes ").await;
    let config = dir.path().join("config.yaml");
    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, "imageRedirMapping: [\n").unwrap();
    has("image_cri_shim_config_last_reload_successful 0").await;
    has("image_cri_shim_config_reload_errors_total 1").await;
    std::fs::write(&config, good + "debug: true\n").unwrap();
    has("image_cri_shim_config_last_reload_successful 1").await;
    has("image_cri_shim_config_generation 2").await;
}

#[tokio::test]
async fn sigterm_lets_api_servers_find_the_other_replica_first() {
    let ca = Ca::new().unwrap();
    let dir = prepared(&ca);
    let mut args = file_args(&dir);
    args.push("--shutdown-delay=4s".to_owned());
    let mut webhook = start(&args, &[]).await;
    webhook.until_ready().await;
    webhook.terminate().unwrap();
    until("it is not ready any more", || async {
        (webhook.health("/readyz").await == Some((503, "stopping\n".to_owned()))).then_some(())
    })
    .await;
    // Still answered: not every API server knows yet.
    assert!(webhook.rewritten("nats:1", &[&ca.pem()]).await.is_some());
    assert!(webhook.ended().await.unwrap().success());
}

#[tokio::test]
async fn not_ready_without_a_certificate() {
    let ca = Ca::new().unwrap();
    let dir = prepared(&ca);
    std::fs::remove_file(dir.path().join("tls.key")).unwrap();
    let webhook = start(&file_args(&dir), &[]).await;
    let key = dir.path().join("tls.key");
    let why = format!("cannot read {}: No such file", key.display());
    let said = format!("no certificate yet: {why}");
    webhook.until_logged(&said).await;
    let expected = format!("there is no certificate yet: {why}");
    // The config may come later.
    until("it is said what is missing", || async {
        let (status, text) = webhook.health("/readyz").await?;
        (status == 503 && text.starts_with(&expected)).then_some(())
    })
    .await;
    assert_eq!(
        webhook.health("/healthz").await,
        Some((200, "ok\n".to_owned()))
    );
}

#[tokio::test]
async fn straight_from_the_config_map() {
    let server = FakeApiServer::start().unwrap();
    let ca = Ca::new().unwrap();
    let dir = prepared(&ca);
    let kubeconfig = dir.path().join("kubeconfig");
    std::fs::write(&kubeconfig, server.kubeconfig()).unwrap();
    let mut args = file_args(&dir);
    args.push("--config-map".to_owned());
    let webhook = start(&args, &[("KUBECONFIG", kubeconfig.to_str().unwrap())]).await;
    webhook
        .until_logged("configmap kube-system/image-cri-shim not found")
        .await;
    let (status, text) = webhook.health("/readyz").await.unwrap();
    assert_eq!(
        (status, text.as_str()),
        (503, "there is no valid config yet\n")
    );
    // Not ready is not closed: who asks anyway gets the Pod as it is.
    until("the certificate is in use", || async {
        webhook.response("nats:1", &[&ca.pem()]).await.ok()
    })
    .await;
    assert_eq!(webhook.rewritten("nats:1", &[&ca.pem()]).await, None);

    server.apply_config_map("imageRedirMapping: [{src: docker.io, to: one.io}]\n");
    webhook.until_ready().await;
    let image = webhook.rewritten("nats:1", &[&ca.pem()]).await;
    assert_eq!(image.as_deref(), Some("one.io/nats:1"));
    server.apply_config_map("imageRedirMapping: [{src: docker.io, to: two.io}]\nrewrite: worst\n");
    until("the new config holds", || async {
        let image = webhook.rewritten("nats:1", &[&ca.pem()]).await;
        (image.as_deref() == Some("two.io/nats:1")).then_some(())
    })
    .await;
    server.delete_config_map();
    webhook.until_logged("the last config stays").await;
    assert!(webhook.rewritten("nats:1", &[&ca.pem()]).await.is_some());
}

#[tokio::test]
async fn self_signed_replicas_share_one_ca() {
    let server = FakeApiServer::start().unwrap();
    register(&server);
    let dir = prepared(&Ca::new().unwrap());
    let kubeconfig = dir.path().join("kubeconfig");
    std::fs::write(&kubeconfig, server.kubeconfig()).unwrap();
    let args = [
        format!("--file={}", dir.path().join("config.yaml").display()),
        "--self-signed".to_owned(),
        "--namespace=image-cri-shim".to_owned(),
    ];
    let env = [("KUBECONFIG", kubeconfig.to_str().unwrap())];
    let (one, other) = (start(&args, &env).await, start(&args, &env).await);
    one.until_ready().await;
    other.until_ready().await;
    let bundle = published(&server).unwrap();
    for webhook in [&one, &other] {
        let image = webhook.rewritten("nats:1", &[&bundle]).await;
        assert_eq!(image.unwrap(), "project-a.azurecr.io/docker-mirror/nats:1");
    }
    let key = shared(&server, "ca.key").unwrap();
    let secret = key.lines().nth(1).unwrap();
    assert!(!one.log().contains(secret) && !other.log().contains(secret));
    assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 1);
}

#[tokio::test]
async fn what_can_not_work_is_said_at_once() {
    let dir = prepared(&Ca::new().unwrap());
    let config = dir.path().join("config.yaml");
    std::fs::write(&config, "rewrite: worst\ncache: {prefix: 'http://x'}\n").unwrap();
    let (status, text) = run(&file_args(&dir), &[]).await;
    assert!(!status.success());
    assert!(text.contains("config.yaml:1:10: error: rewrite"), "{text}");
    assert!(text.contains("error: cache.prefix"), "{text}");
    let mut args = file_args(&dir);
    args.push("--self-signed".to_owned());
    let (status, text) = run(&args, &[]).await;
    assert!(!status.success());
    assert!(text.contains("cannot be used with"), "{text}");
    std::fs::write(&config, CONFIG).unwrap();
    let mut args = file_args(&dir);
    args.push("--dry-run".to_owned());
    let (status, text) = run(&args, &[]).await;
    assert!(status.success(), "{text}");
    assert!(text.contains("config: ok"), "{text}");
    assert!(text.contains("certificate: ok"), "{text}");
    // It would serve when there is one.
    std::fs::write(dir.path().join("tls.crt"), "none").unwrap();
    let (status, text) = run(&args, &[]).await;
    assert!(status.success(), "{text}");
    let warning = "warning: no review is answered before there is a certificate: ";
    assert!(text.contains(warning) && text.contains("tls.crt"), "{text}");
}

#[tokio::test]
async fn a_dry_run_looks_where_the_rules_are() {
    let server = FakeApiServer::start().unwrap();
    let dir = prepared(&Ca::new().unwrap());
    let kubeconfig = dir.path().join("kubeconfig");
    let args = ["--config-map", "--dry-run"].map(str::to_owned);
    let env = [("KUBECONFIG", kubeconfig.to_str().unwrap())];
    let dry_run = || run(&args, &env);
    let (status, text) = dry_run().await;
    assert!(!status.success(), "{text}");
    assert!(text.contains("no kubeconfig"), "{text}");
    std::fs::write(&kubeconfig, server.kubeconfig()).unwrap();
    let (status, text) = dry_run().await;
    assert!(!status.success(), "{text}");
    assert!(text.contains("image-cri-shim not found"), "{text}");
    server.apply_config_map("rewrite: [");
    let (status, text) = dry_run().await;
    assert!(!status.success(), "{text}");
    server.apply_config_map("rewrite: worst");
    let (status, text) = dry_run().await;
    assert!(status.success(), "{text}");
    assert!(text.contains("warning: rewrite"), "{text}");
    assert!(text.contains("config: ok"), "{text}");
}
