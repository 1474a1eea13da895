//! Proxies on the way to an API server.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use cluster::{ClientProvider, FailureKind, KubeconfigCandidates, read_config_map};
use parking_lot::Mutex;
use policy::ProxySettings;
use serde_json::Value;
use tempfile::TempDir;
use testkit::fake_api_server::FakeApiServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::world::only;

/// A name that only a proxy knows.
const SERVER: &str = "api.invalid:6443";

/// Leads every connection to one place, by CONNECT or SOCKS5, and notes where it should have led.
struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _serving: AbortOnDropHandle<()>,
}

impl Proxy {
    async fn start(to: String) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&asked);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(lead(stream, to.clone(), Arc::clone(&notes)));
            }
        });
        Self {
            address,
            asked,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    /// What it was asked for since the last call.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock())
    }
}

async fn lead(mut client: TcpStream, to: String, asked: Arc<Mutex<Vec<String>>>) {
    let first = client.read_u8().await.unwrap();
    let wanted = if first == 5 {
        socks(&mut client).await
    } else {
        connect(&mut client, first).await
    };
    asked.lock().push(wanted);
    let mut server = TcpStream::connect(to).await.unwrap();
    // Either side may end it.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

/// The request's first line, and who asks.
async fn connect(client: &mut TcpStream, first: u8) -> String {
    let mut head = vec![first];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let head = String::from_utf8(head).unwrap();
    let who = head
        .lines()
        .find(|line| line.starts_with("Proxy-Authorization"));
    let line = head.lines().next().unwrap();
    [Some(line), who].map(Option::unwrap_or_default).join(" ")
}

/// The name and port of a request of SOCKS5 without a password.
async fn socks(client: &mut TcpStream) -> String {
    let methods = client.read_u8().await.unwrap();
    for _ in 0..methods {
        client.read_u8().await.unwrap();
    }
    client.write_all(&[5, 0]).await.unwrap();
    let mut head = [0; 5];
    client.read_exact(&mut head).await.unwrap();
    assert_eq!(head[..4], [5, 1, 0, 3], "a connection by name");
    let mut name = vec![0; usize::from(head[4])];
    client.read_exact(&mut name).await.unwrap();
    let port = client.read_u16().await.unwrap();
    let done = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    client.write_all(&done).await.unwrap();
    format!("SOCKS {}:{port}", String::from_utf8(name).unwrap())
}

struct World {
    server: FakeApiServer,
    proxy: Proxy,
    dir: TempDir,
}

impl World {
    async fn start() -> Self {
        let server = FakeApiServer::start().unwrap();
        server.apply_config_map("ours: true");
        Self {
            proxy: Proxy::start(server.address()).await,
            server,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// A client by a kubeconfig for a server at `address`, and an environment.
    fn clients(
        &self,
        address: &str,
        proxy_url: Option<&str>,
        environment: &[(&str, String)],
    ) -> ClientProvider {
        let mut kubeconfig: Value = serde_json::from_str(&self.server.kubeconfig()).unwrap();
        let cluster = &mut kubeconfig["clusters"][0]["cluster"];
        cluster["server"] = format!("https://{address}").into();
        cluster["tls-server-name"] = "localhost".into();
        cluster["proxy-url"] = proxy_url.into();
        let file = self.dir.path().join("kubeconfig");
        std::fs::write(&file, kubeconfig.to_string()).unwrap();
        ClientProvider::new(KubeconfigCandidates {
            proxies: ProxySettings::from_lookup(|name| {
                let found = environment.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| value.clone())
            }),
            ..only(file)
        })
    }
}

async fn reads(clients: &ClientProvider, case: &str) {
    let read = read_config_map(clients).await;
    let map = read.unwrap_or_else(|failure| panic!("{case}: {failure}"));
    assert_eq!(map.unwrap().text.as_deref(), Some("ours: true"), "{case}");
}

#[tokio::test]
async fn a_server_is_asked_through_the_environments_proxy() {
    let world = World::start().await;
    let proxy = world.proxy.address;
    // base64 of hugo:hunter2
    let hugo = "Proxy-Authorization: Basic aHVnbzpodW50ZXIy";
    for (written, asked) in [
        (
            format!("http://{proxy}"),
            format!("CONNECT {SERVER} HTTP/1.1 "),
        ),
        (proxy.to_string(), format!("CONNECT {SERVER} HTTP/1.1 ")),
        (
            format!("hugo:hunter2@{proxy}"),
            format!("CONNECT {SERVER} HTTP/1.1 {hugo}"),
        ),
        (format!("socks5://{proxy}"), format!("SOCKS {SERVER}")),
        (format!("socks5h://{proxy}"), format!("SOCKS {SERVER}")),
    ] {
        // The proxy's own address is no exception for what is behind it.
        let no_proxy = format!("{proxy},127.0.0.1,10.0.0.0/8, ,");
        let environment = [("HTTPS_PROXY", written.clone()), ("NO_PROXY", no_proxy)];
        let clients = world.clients(SERVER, None, &environment);
        reads(&clients, &written).await;
        assert_eq!(world.proxy.asked(), [asked], "{written}");
    }
}

#[tokio::test]
async fn an_excepted_server_is_asked_directly() {
    let world = World::start().await;
    let (proxy, address) = (world.proxy.address, world.server.address());
    let localhost = address.replace("127.0.0.1", "localhost");
    for (address, no_proxy) in [
        // As k3s has it: loopback needs no exception.
        (&address, ""),
        (&localhost, ""),
        (&address, "127.0.0.1,"),
        (&address, "*"),
    ] {
        let environment = [
            ("HTTPS_PROXY", format!("http://{proxy}")),
            ("NO_PROXY", no_proxy.to_owned()),
        ];
        reads(&world.clients(address, None, &environment), no_proxy).await;
    }
    assert_eq!(world.proxy.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_kubeconfigs_own_proxy_is_always_used() {
    let world = World::start().await;
    let own = format!("http://{}", world.proxy.address);
    let environment = [
        ("HTTPS_PROXY", "http://127.0.0.1:1".to_owned()),
        ("NO_PROXY", "*".to_owned()),
    ];
    let address = world.server.address();
    let clients = world.clients(&address, Some(&own), &environment);
    reads(&clients, "proxy-url").await;
    let asked = format!("CONNECT {address} HTTP/1.1 ");
    assert_eq!(world.proxy.asked(), [asked]);
}

#[tokio::test]
async fn a_proxy_that_can_not_be_used_is_named_without_its_password() {
    let world = World::start().await;
    // Nobody listens there.
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    for (proxy, kind, said) in [
        (
            format!("http://hugo:hunter2@{address}"),
            FailureKind::Unavailable,
            "refused".to_owned(),
        ),
        (
            format!("socks5://hugo:hunter2@{address}"),
            FailureKind::Unusable,
            format!("(socks5://{address})"),
        ),
    ] {
        let environment = [("HTTPS_PROXY", proxy)];
        let clients = world.clients(SERVER, None, &environment);
        let failure = read_config_map(&clients).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{failure}");
        assert!(failure.message.contains(&said), "{failure}");
        assert!(!failure.message.contains("hunter2"), "{failure}");
    }
}
