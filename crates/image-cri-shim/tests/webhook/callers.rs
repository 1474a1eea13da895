//! `--client-ca`: who may make the webhook ask registries.

use testkit::admission::{admitted, ask, client_as, review_of};
use testkit::certs::{Ca, ServerCert};
use testkit::fake_registry::FakeRegistry;
use testkit::images::Image;
use testkit::wait::until;
use testkit::webhook::Webhook;

use crate::{file_args, prepared, start};

/// The image that this caller gets for `nats:2`.
async fn image(webhook: &Webhook, ca: &Ca, shown: Option<&ServerCert>) -> Option<String> {
    let client = client_as(webhook.address(), &[&ca.pem()], &[b"h2"], shown).unwrap();
    let review = review_of("nats:2");
    let response = ask(&client, &review).await.ok()?;
    let pod = admitted(&review, &response).unwrap();
    let image = pod["spec"]["containers"][0]["image"].as_str();
    image.map(ToOwned::to_owned)
}

#[tokio::test]
async fn registries_are_asked_for_api_servers_only() {
    let registry = FakeRegistry::start().unwrap();
    registry.add(&Image::new("nats"), "library/nats", "2");
    let found = format!("{}/library/nats:2", registry.host());
    let (ca, clients, next) = (Ca::new().unwrap(), Ca::new().unwrap(), Ca::new().unwrap());
    let dir = prepared(&ca);
    let config = format!(
        "rewrite: best\nregistries: [{{address: '{}'}}]\n",
        registry.url()
    );
    std::fs::write(dir.path().join("config.yaml"), config).unwrap();
    let authority = dir.path().join("client-ca.crt");
    std::fs::write(&authority, clients.pem()).unwrap();
    let mut args = file_args(&dir);
    args.push(format!("--client-ca={}", authority.display()));
    args.push("--client-name=kube-apiserver".to_owned());
    let webhook = start(&args, &[]).await;
    webhook.until_ready().await;
    webhook.until_logged("using the client CA").await;

    let server = |clients: &Ca| clients.issue_client("kube-apiserver").unwrap();
    let kubelet = clients.issue_client("system:node:n1").unwrap();
    for stranger in [None, Some(&kubelet)] {
        let image = image(&webhook, &ca, stranger).await;
        assert_eq!(image.as_deref(), Some("nats:2"));
    }
    assert!(registry.requests().is_empty());
    let known = image(&webhook, &ca, Some(&server(&clients))).await;
    assert_eq!(known.as_ref(), Some(&found));

    // Another CA, without a restart.
    std::fs::write(&authority, next.pem()).unwrap();
    until("the new client CA holds", || async {
        let image = image(&webhook, &ca, Some(&server(&next))).await;
        (image.as_ref() == Some(&found)).then_some(())
    })
    .await;
    // An API server whose certificate is of another CA is answered all the same, as a stranger, and that is said.
    let old = image(&webhook, &ca, Some(&server(&clients))).await;
    assert_eq!(old.as_deref(), Some("nats:2"));
    webhook
        .until_logged("has shown a certificate that is not an API server's")
        .await;
}
