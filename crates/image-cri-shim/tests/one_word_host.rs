//! A registry whose host is one word, `http://harbor`, in a network namespace of the test's own: the name
//! and the port 80 take one. A program of its own, because a namespace is a process's.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

use testkit::fake_registry::FakeRegistry;
use testkit::fake_runtime::FakeRuntime;
use testkit::images::Image;
use testkit::netns;
use testkit::shim::{Options, Shim};
use tokio::net::{TcpListener, TcpStream};

const NAME: &str = "a_host_of_one_word_is_pulled_from_by_its_port";

fn main() {
    // What test runners ask of a program before they run it.
    if std::env::args().any(|argument| argument == "--list") {
        println!("{NAME}: test");
        return;
    }
    netns::enter().unwrap();
    netns::call(&[("harbor", "127.0.0.1")]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(a_host_of_one_word_is_pulled_from_by_its_port());
    println!("test {NAME} ... ok");
}

/// Leads port 80 to the registry.
async fn forward_port_80(to: String) {
    let listener = TcpListener::bind("127.0.0.1:80").await.unwrap();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let to = to.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(to).await.unwrap();
                // Either end may hang up first.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
}

async fn a_host_of_one_word_is_pulled_from_by_its_port() {
    let registry = FakeRegistry::start().unwrap();
    registry.add(&Image::new("app"), "library/app", "1");
    registry.add(&Image::new("tool"), "hub/tool", "1");
    forward_port_80(registry.host()).await;
    let runtime = FakeRuntime::start().await.unwrap();
    let config = "address: http://harbor\nauth: admin:hunter2\n\
                  imageRedirMapping: [{src: quay.io/team, to: 'http://harbor/hub', auth: 'admin:hunter2'}]\n";
    let options = Options::new(env!("CARGO_BIN_EXE_image-cri-shim"), runtime.socket());
    let shim = Shim::start(config, options).await.unwrap();
    for (name, pulled) in [
        ("app:1", "harbor:80/library/app:1"),
        ("quay.io/team/tool:1", "harbor:80/hub/tool:1"),
    ] {
        runtime.clear_requests();
        shim.client().pull(name, None).await.unwrap();
        let requests = runtime.requests();
        let asked: Vec<_> = requests
            .iter()
            .map(|request| String::from_utf8_lossy(&request.message).into_owned())
            .collect();
        assert!(
            asked.iter().any(|asked| asked.contains(pulled)),
            "{asked:?}"
        );
        // `harbor/library/app` would be `docker.io/harbor/library/app`: a stranger's image, and he would
        // be offered the password.
        assert!(
            !asked.iter().any(|asked| asked.contains("harbor/")),
            "{asked:?}"
        );
    }
}
