//! Many clients of one large layer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::net::RecvFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, watch};

use crate::world::{CacheProcess, head};

const LENGTH: u64 = 256 << 20;
/// It is made of these many bytes, again and again, each time with its number in front.
const PATTERN: usize = 64 << 10;
/// What the registry holds back until every client has something.
const HELD_BACK: u64 = 32 << 20;
const CLIENTS: usize = 64;

/// The layer's content, piece by piece: nothing of it is kept.
fn piece(number: u64, pattern: &[u8]) -> Vec<u8> {
    let mut piece = pattern.to_vec();
    piece[..8].copy_from_slice(&number.to_le_bytes());
    piece
}

fn pattern() -> Vec<u8> {
    testkit::images::noise("one layer", PATTERN)
}

fn digest() -> String {
    let pattern = pattern();
    let numbers = 0..LENGTH / PATTERN as u64;
    testkit::images::digest_of_pieces(numbers.map(|number| piece(number, &pattern)))
}

/// A registry that has the layer only. It counts what it sends, and waits with the end of it for `go_on`.
async fn registry(sent: Arc<AtomicU64>, go_on: watch::Receiver<bool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (sent, go_on) = (Arc::clone(&sent), go_on.clone());
            tokio::spawn(async move {
                // The cache hangs up when it has what it wants.
                let _ = answer(stream, &sent, go_on).await;
            });
        }
    });
    address
}

async fn answer(
    mut stream: TcpStream,
    sent: &AtomicU64,
    mut go_on: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let pattern = pattern();
    loop {
        let head = head(&mut stream).await?.to_lowercase();
        if !head.contains("/blobs/") {
            let none = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(none).await?;
            continue;
        }
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
        stream.write_all(text.as_bytes()).await?;
        if head.starts_with("head ") {
            continue;
        }
        for number in 0..LENGTH / PATTERN as u64 {
            if number * PATTERN as u64 >= LENGTH - HELD_BACK {
                let _ = go_on.wait_for(|go_on| *go_on).await;
            }
            stream.write_all(&piece(number, &pattern)).await?;
            sent.fetch_add(PATTERN as u64, Ordering::SeqCst);
        }
    }
}

/// One client: reads a little, waits for all others at the barrier, and throws the rest away in the kernel.
async fn client(address: SocketAddr, path: &str, all: &Barrier, go_on: &watch::Sender<bool>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = head(&mut stream).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    // The first bytes are here while the registry holds the last ones back.
    let mut first = [0; 64];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(first[..], piece(0, &pattern())[..64]);
    all.wait().await;
    go_on.send_replace(true);
    let mut received = first.len() as u64;
    let mut space = vec![0; 256 << 10];
    loop {
        stream.readable().await.unwrap();
        let read = stream.try_io(Interest::READABLE, || {
            let (_, read) = rustix::net::recv(&stream, &mut space[..], RecvFlags::TRUNC)?;
            Ok(read)
        });
        match read {
            Ok(0) => break,
            Ok(read) => received += read as u64,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error} after {received} bytes"),
        }
    }
    assert_eq!(received, LENGTH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_clients_are_one_transfer_and_little_memory() {
    let (sent, go_on) = (Arc::new(AtomicU64::new(0)), watch::Sender::new(false));
    let registry = registry(Arc::clone(&sent), go_on.subscribe()).await;
    let config =
        format!("fallbackToOrigin: false\nregistries:\n  - {{address: 'http://{registry}'}}\n");
    let cache = CacheProcess::start(&config, "").await;
    let path: Arc<str> = format!("/v2/team/app/blobs/{}?ns=images.test", digest()).into();
    let all = Arc::new(Barrier::new(CLIENTS));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (path, all, go_on) = (Arc::clone(&path), Arc::clone(&all), go_on.clone());
        let address = cache.address;
        clients.spawn(async move { client(address, &path, &all, &go_on).await });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    assert_eq!(sent.load(Ordering::SeqCst), LENGTH);
    let peak = cache.peak_memory();
    assert!(peak < 64 << 20, "{peak} bytes");
    // It was right, and is there: a part of it, from the middle.
    let middle = LENGTH / 2;
    let range = format!("Range: bytes={middle}-{}\r\n", middle + 7);
    let part = cache.get(&path, &range).await;
    assert_eq!(part.status, 206, "{}", part.head);
    assert_eq!(part.body, (middle / PATTERN as u64).to_le_bytes());
    let verified = cache.run(&["verify"]).await;
    assert!(verified.status.success(), "{verified:?}");
    assert_eq!(sent.load(Ordering::SeqCst), LENGTH);
}
