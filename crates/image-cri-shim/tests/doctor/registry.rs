//! Registries, and this node's clock by theirs.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::StatusCode;
use testkit::fake_registry::{Behaviour, FakeRegistry};

use crate::world::{Certificate, Plan, SECRET, World};

#[tokio::test]
async fn it_is_down() {
    let mut world = World::running().await;
    world.registry.stop().await;
    let page = world.doctor().await;
    page.bad(
        "registry.reach",
        "connection refused by",
        "curl -v --cacert ",
    );
}

#[tokio::test]
async fn its_certificate_has_expired() {
    let world = World::running_with(Plan {
        certificate: Certificate::Expired,
        ..Plan::default()
    })
    .await;
    let page = world.doctor().await;
    page.bad(
        "registry.certificate",
        "has expired",
        "openssl s_client -connect 127.0.0.1:",
    );
}

#[tokio::test]
async fn its_certificate_is_for_another_name() {
    let world = World::running_with(Plan {
        names: vec!["registry.example"],
        ..Plan::default()
    })
    .await;
    let page = world.doctor().await;
    page.bad(
        "registry.certificate",
        "is for another host",
        "openssl s_client -connect 127.0.0.1:",
    );
}

#[tokio::test]
async fn nobody_knows_who_has_signed_its_certificate() {
    let world = World::running().await;
    world.write("/etc/pki/registry-ca.pem", "");
    let page = world.doctor().await;
    page.bad(
        "registry.certificate",
        "is signed by an authority that this node does not know",
        "/etc/pki/registry-ca.pem   # CA.pem: ",
    );
    assert!(
        page.text.contains("$ install -D -m 644 CA.pem"),
        "{}",
        page.text
    );
}

#[tokio::test]
async fn it_refuses_the_credentials() {
    let world = World::running().await;
    let text = std::fs::read_to_string(world.shim.config_file()).unwrap();
    let wrong = text.replace("-of-the-registry", "-of-yesterday");
    std::fs::write(world.shim.config_file(), wrong).unwrap();
    let page = world.doctor().await;
    page.bad(
        "registry.credentials",
        "the credentials of auth in the config are refused",
        "vi /etc/image-cri-shim.yaml",
    );
}

#[tokio::test]
async fn the_file_of_credentials_knows_nothing_of_it() {
    let world = World::new().await;
    let file = world.place("/root/.docker/config.json");
    let auth =
        format!(r#"{{"auths":{{"other.io":{{"username":"u","password":"{SECRET}-of-other"}}}}}}"#);
    world.write("/root/.docker/config.json", &auth);
    world.chmod("/root/.docker/config.json", 0o600);
    let plain = FakeRegistry::start().unwrap();
    world.configure(&format!(
        "- address: {}\n  authFile: {}",
        plain.url(),
        file.display()
    ));
    let page = world.doctor().await;
    let lines = page.json["lines"].as_array().unwrap();
    let bad = lines
        .iter()
        .find(|line| line["check"] == "registry.credentials")
        .unwrap();
    assert!(
        bad["text"].as_str().unwrap().contains("has no entry for"),
        "{}",
        page.text
    );
    assert!(
        bad["mend"].as_str().unwrap().starts_with("vi "),
        "{}",
        page.text
    );
}

#[tokio::test]
async fn its_name_has_no_address() {
    let world = World::running_with(Plan {
        config: "- address: https://registry.doctor-test.invalid".to_owned(),
        ..Plan::default()
    })
    .await;
    let page = world.doctor_with(&["--live", "--timeout", "30s"]).await;
    page.bad(
        "registry.dns",
        "registry.doctor-test.invalid can't be resolved",
        "getent hosts registry.doctor-test.invalid",
    );
}

#[tokio::test]
async fn this_nodes_clock_is_off() {
    let registry = FakeRegistry::start().unwrap();
    let there = SystemTime::now() + Duration::from_secs(7200);
    registry.behave(Behaviour::Answer {
        status: StatusCode::OK,
        headers: vec![("date", httpdate::fmt_http_date(there))],
        body: Bytes::new(),
    });
    let mut world = World::with(Plan {
        config: format!("- address: {}", registry.url()),
        ..Plan::default()
    })
    .await;
    // The one registry that is right about the time does not answer.
    world.registry.stop().await;
    world.shim.start_again().await.unwrap();
    let page = world.doctor().await;
    page.bad("clock", "behind", "timedatectl set-ntp true");
}

#[tokio::test]
async fn the_running_shim_leaves_out_a_registry_that_is_back() {
    let registry = FakeRegistry::start().unwrap();
    // Longer than this test takes.
    registry.behave(Behaviour::RateLimited {
        retry_after: Some("300".to_owned()),
    });
    let world = World::running_with(Plan {
        config: format!("- address: {}", registry.url()),
        ..Plan::default()
    })
    .await;
    let image = format!("{}/team/app:1", registry.host());
    let pulled = world.shim.client().pull(&image, None).await;
    assert!(pulled.is_err());
    registry.behave(Behaviour::Serve);
    let page = world.doctor().await;
    page.warns(
        "registry.circuit",
        "it answers now, but the running shim leaves it out",
        "systemctl kill -s HUP image-cri-shim",
    );
}
