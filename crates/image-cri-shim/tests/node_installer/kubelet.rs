//! What the nodes start as their kubelet.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use testkit::cri_client::CriClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Where it stands on a node.
pub(crate) const PATH: &str = "/usr/bin/kubelet";
/// Where it is, it does not work with an image service of its own, as a kubelet that does not know the flag.
pub(crate) const REFUSES: &str = "/opt/refuses";
/// Holds the size of a version of the shim with which it makes no image call any more.
pub(crate) const BAD_SIZE: &str = "/opt/bad-size";
const SHIM: &str = "/usr/local/bin/image-cri-shim";
const RUNTIME: &str = "/run/containerd/containerd.sock";
/// Between two image calls.
const CALL_INTERVAL: Duration = Duration::from_millis(300);

pub(crate) fn run(arguments: impl Iterator<Item = String>) {
    let told = arguments
        .filter_map(|argument| {
            let endpoint = argument.strip_prefix("--image-service-endpoint=unix://")?;
            Some(endpoint.to_owned())
        })
        .last();
    assert!(
        told.is_none() || !Path::new(REFUSES).exists(),
        "unknown flag: --image-service-endpoint"
    );
    let socket = told.unwrap_or_else(|| RUNTIME.to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = CriClient::new(socket);
        // Without a second try.
        client.list().await.unwrap();
        let healthz = TcpListener::bind((Ipv4Addr::LOCALHOST, 10248))
            .await
            .unwrap();
        let mut calls = tokio::time::interval(CALL_INTERVAL);
        loop {
            tokio::select! {
                accepted = healthz.accept() => {
                    let (mut stream, _) = accepted.unwrap();
                    let mut request = [0; 1024];
                    let _ = stream.read(&mut request).await;
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    let _ = stream.write_all(answer).await;
                }
                _ = calls.tick() => {
                    if is_bad() {
                        continue;
                    }
                    if let Err(error) = client.list().await {
                        eprintln!("{error}");
                    }
                }
            }
        }
    });
}

fn is_bad() -> bool {
    let bad = std::fs::read_to_string(BAD_SIZE).ok();
    let size = std::fs::metadata(SHIM).map(|file| file.len().to_string());
    bad.is_some() && bad == size.ok()
}
