//! TLS: protocols, and certificates of clients.

use listener::{ClientCertificates, Protocols};
use testkit::certs::Ca;
use tokio::io::AsyncWriteExt;

use crate::world::{GET, World, answered, places, rest};

async fn greeted(world: &World, ca: &Ca, shown: Option<&testkit::certs::ServerCert>) -> String {
    let Ok(mut stream) = world.connect_tls(ca, b"http/1.1", shown).await else {
        return String::new();
    };
    // With TLS 1.3 a client learns that its certificate is missing only afterwards.
    let request = String::from_utf8_lossy(GET).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(request.as_bytes()).await;
    let answer = rest(&mut stream).await;
    answer.lines().last().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn certificates_of_clients() {
    let (ca, clients, others) = (Ca::new().unwrap(), Ca::new().unwrap(), Ca::new().unwrap());
    let good = clients.issue_client("kube-apiserver").unwrap();
    let bad = others.issue_client("kube-apiserver").unwrap();
    let http1 = Protocols::Http1;
    let optional = ClientCertificates::Optional(clients.pem());
    let world = World::tls(places(8), http1, &ca, optional).await;
    assert_eq!(greeted(&world, &ca, Some(&good)).await, "known");
    assert_eq!(greeted(&world, &ca, None).await, "ok");
    assert_eq!(greeted(&world, &ca, Some(&bad)).await, "unfit");

    // The other CA from now on.
    let tls = world.tls.as_ref().unwrap();
    let required = ClientCertificates::Required(others.pem());
    tls.ask_for(&required).unwrap();
    assert_eq!(greeted(&world, &ca, Some(&bad)).await, "known");
    assert_eq!(greeted(&world, &ca, None).await, "");
    assert_eq!(greeted(&world, &ca, Some(&good)).await, "");
    let error = tls.ask_for(&ClientCertificates::Required("x".to_owned()));
    assert!(error.unwrap_err().to_string().contains("no CA certificate"));
    assert_eq!(greeted(&world, &ca, Some(&bad)).await, "known");
}

#[tokio::test]
async fn http2_only_where_it_is_spoken() {
    let ca = Ca::new().unwrap();
    let none = || ClientCertificates::None;
    let world = World::tls(places(8), Protocols::Http1, &ca, none()).await;
    let refused = world.connect_tls(&ca, b"h2", None).await;
    assert!(refused.is_err());
    let mut stream = world.connect_tls(&ca, b"http/1.1", None).await.unwrap();
    stream.write_all(GET).await.unwrap();
    assert!(answered(&mut stream).await.contains(" 200 "));
}
