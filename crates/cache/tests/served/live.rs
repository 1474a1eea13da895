//! Settings of the door that change while the cache serves: TLS, the CA of clients, certificates.

use std::net::SocketAddr;
use std::path::Path;

use cache::role::{Handle, Role};
use policy::config::{CacheTls, ListenAddress, NodeCache, Settings};
use registry::CertsDirs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use testkit::certs::{Ca, ServerCert, crypto};
use testkit::wait;

/// A cache whose settings change.
struct Live {
    address: SocketAddr,
    handle: Handle,
    settings: Settings,
    dir: TempDir,
}

impl Live {
    /// The server's certificate is by `ca`.
    async fn start(ca: &Ca, change: impl FnOnce(&mut NodeCache, &Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "fallbackToOrigin: false\nregistries: []\naddress: ''\nnodeCache: {{dir: '{}', minFree: 1Mi}}\n",
            dir.path().join("store").display()
        );
        let (mut settings, _) = Settings::read(&config, &|_| None);
        settings.node_cache.listen = vec![ListenAddress {
            address: "127.0.0.1:0".parse().unwrap(),
            required: true,
        }];
        show(dir.path(), &ca.issue(&["localhost", "127.0.0.1"]).unwrap());
        change(&mut settings.node_cache, dir.path());
        let role = Role::start(&settings, "live", CertsDirs::none())
            .await
            .unwrap();
        let (address, handle) = (role.addresses()[0], role.handle());
        // It ends with the test's runtime.
        tokio::spawn(role.serve(std::future::pending()));
        Self {
            address,
            handle,
            settings,
            dir,
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut NodeCache, &Path)) {
        change(&mut self.settings.node_cache, self.dir.path());
        self.handle.configure(&self.settings);
    }

    fn file(&self, name: &str, content: &str) {
        std::fs::write(self.dir.path().join(name), content).unwrap();
    }

    /// The status of an answer, on a connection of its own.
    async fn ask(&self, ca: Option<&Ca>, own: Option<&ServerCert>) -> Option<u16> {
        let scheme = if ca.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}/v2/", self.address);
        let asked = client(ca, own).get(url).send().await;
        asked.ok().map(|answer| answer.status().as_u16())
    }

    async fn until(&self, ca: Option<&Ca>, own: Option<&ServerCert>, status: Option<u16>) {
        wait::until(&format!("{status:?} is the answer"), || async {
            (self.ask(ca, own).await == status).then_some(())
        })
        .await;
    }
}

/// A client that trusts `ca` and shows `own`.
fn client(ca: Option<&Ca>, own: Option<&ServerCert>) -> reqwest::Client {
    let mut roots = RootCertStore::empty();
    if let Some(ca) = ca {
        let pem = ca.pem();
        roots
            .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
            .unwrap();
    }
    let tls = ClientConfig::builder_with_provider(crypto())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let tls = match own {
        Some(own) => {
            let chain = CertificateDer::from_pem_slice(own.cert_pem.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).unwrap();
            tls.with_client_auth_cert(vec![chain], key).unwrap()
        }
        None => tls.with_no_client_auth(),
    };
    reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(tls)
        .build()
        .unwrap()
}

fn show(dir: &Path, certificate: &ServerCert) {
    std::fs::write(dir.join("tls.crt"), &certificate.cert_pem).unwrap();
    std::fs::write(dir.join("tls.key"), &certificate.key_pem).unwrap();
}

fn tls(dir: &Path, client_ca: Option<&str>) -> CacheTls {
    CacheTls {
        cert_file: dir.join("tls.crt"),
        key_file: dir.join("tls.key"),
        client_ca: client_ca.map(|name| dir.join(name)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_switched_on_and_off() {
    let ca = Ca::new().unwrap();
    let mut cache = Live::start(&ca, |_, _| ()).await;
    cache.until(None, None, Some(200)).await;
    cache.change(|settings, dir| settings.tls = Some(tls(dir, None)));
    cache.until(Some(&ca), None, Some(200)).await;
    assert_ne!(cache.ask(None, None).await, Some(200));
    assert!(!cache.handle.is_plain());
    cache.change(|settings, _| settings.tls = None);
    cache.until(None, None, Some(200)).await;
    assert_eq!(cache.ask(Some(&ca), None).await, None);
    assert!(cache.handle.is_plain());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ca_of_clients_is_another_one_at_once() {
    let (ca, first, second) = (Ca::new().unwrap(), Ca::new().unwrap(), Ca::new().unwrap());
    let anna = first.issue_client("anna").unwrap();
    let bert = second.issue_client("bert").unwrap();
    let mut cache = Live::start(&ca, |settings, dir| {
        std::fs::write(dir.join("first.crt"), first.pem()).unwrap();
        settings.tls = Some(tls(dir, Some("first.crt")));
    })
    .await;
    cache.until(Some(&ca), Some(&anna), Some(200)).await;
    assert_eq!(cache.ask(Some(&ca), None).await, None);
    assert_eq!(cache.ask(Some(&ca), Some(&bert)).await, None);

    // Another file by the config.
    cache.file("second.crt", &second.pem());
    cache.change(|settings, dir| settings.tls = Some(tls(dir, Some("second.crt"))));
    cache.until(Some(&ca), Some(&bert), Some(200)).await;
    assert_eq!(cache.ask(Some(&ca), Some(&anna)).await, None);

    // One that is not there changes nothing.
    cache.change(|settings, dir| settings.tls = Some(tls(dir, Some("nowhere.crt"))));
    assert_eq!(cache.ask(Some(&ca), Some(&bert)).await, Some(200));
    assert_eq!(cache.ask(Some(&ca), Some(&anna)).await, None);

    // As soon as it is there it counts, and a file that changes does too.
    cache.file("nowhere.crt", &first.pem());
    cache.until(Some(&ca), Some(&anna), Some(200)).await;
    cache.file("nowhere.crt", &second.pem());
    cache.until(Some(&ca), Some(&anna), None).await;
    assert_eq!(cache.ask(Some(&ca), Some(&bert)).await, Some(200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_a_new_certificate_count() {
    let ca = Ca::new().unwrap();
    let cache = Live::start(&ca, |settings, dir| settings.tls = Some(tls(dir, None))).await;
    let asked_as = async |host: &str| {
        let url = format!("https://{}/v2/", cache.address);
        let asked = client(Some(&ca), None).get(url).header("Host", host);
        asked.send().await.unwrap().status().as_u16()
    };
    assert_eq!(asked_as("fat-node").await, 421);
    let renewed = ca.issue(&["localhost", "127.0.0.1", "fat-node"]).unwrap();
    show(cache.dir.path(), &renewed);
    wait::until("the new name is known", || async {
        (asked_as("fat-node").await == 200).then_some(())
    })
    .await;
}
