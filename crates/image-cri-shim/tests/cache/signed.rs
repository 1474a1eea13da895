//! A registry that sends its clients to a storage host by signed URLs, which expire.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::world::{CacheProcess, head};

const LENGTH: usize = 1_000_000;
/// What one URL is good for: then the storage host closes the connection, and refuses that URL from then on.
const EACH: usize = 170_000;

#[derive(Clone, Default)]
struct Served {
    blob: Arc<Vec<u8>>,
    /// URLs that the registry has given out.
    signed: Arc<AtomicUsize>,
    /// Those that were used.
    used: Arc<Mutex<HashSet<String>>>,
    sent: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

/// Listens, and answers each connection's requests by `answer` until it says to close.
async fn listen<A, F>(served: Served, answer: A) -> SocketAddr
where
    A: Fn(String, Served) -> F + Clone + Send + 'static,
    F: Future<Output = (Vec<u8>, bool)> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (served, answer) = (served.clone(), answer.clone());
            tokio::spawn(async move {
                while let Ok(head) = head(&mut stream).await {
                    let (bytes, is_last) = answer(head.to_lowercase(), served.clone()).await;
                    if stream.write_all(&bytes).await.is_err() || is_last {
                        let _ = stream.shutdown().await;
                        return;
                    }
                }
            });
        }
    });
    address
}

fn storage(head: &str, served: &Served) -> (Vec<u8>, bool) {
    let url = head
        .split_whitespace()
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    if !served.used.lock().insert(url) {
        served.refused.fetch_add(1, Ordering::SeqCst);
        let text = "HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\nexpired";
        return (text.into(), false);
    }
    let range = head
        .lines()
        .find_map(|line| line.strip_prefix("range: bytes="));
    let start = range.and_then(|range| range.split_once('-')?.0.parse::<usize>().ok());
    let from = start.unwrap_or(0);
    let status = match start {
        Some(start) => format!(
            "206 Partial Content\r\nContent-Range: bytes {start}-{}/{LENGTH}",
            LENGTH - 1
        ),
        None => "200 OK".to_owned(),
    };
    let length = LENGTH - from;
    let mut answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    let end = LENGTH.min(from + EACH);
    answer.extend_from_slice(&served.blob[from..end]);
    served.sent.fetch_add(end - from, Ordering::SeqCst);
    (answer, end < LENGTH)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_that_has_expired_is_asked_for_anew() {
    let blob: Vec<u8> = (0..LENGTH).map(|n| (n % 241) as u8).collect();
    let digest = testkit::images::digest(&blob);
    let served = Served {
        blob: Arc::new(blob),
        ..Served::default()
    };
    let storage = listen(served.clone(), |head, served| async move {
        storage(&head, &served)
    })
    .await;
    let registry = listen(served.clone(), move |head, served| async move {
        if !head.starts_with("get ") || !head.contains("/blobs/") {
            let text = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
            return (text.into(), false);
        }
        let number = served.signed.fetch_add(1, Ordering::SeqCst);
        let text = format!(
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{storage}/blob?signature={number}\r\n\
             Content-Length: 0\r\n\r\n"
        );
        (text.into_bytes(), false)
    })
    .await;
    let config =
        format!("fallbackToOrigin: false\nregistries:\n  - {{address: 'http://{registry}'}}\n");
    let cache = CacheProcess::start(&config, "").await;
    let path = format!("/v2/team/app/blobs/{digest}?ns=images.test");
    let answer = cache.get(&path, "").await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert!(answer.whole && answer.body == *served.blob);
    // Each part by a URL of its own, and none of the bytes twice.
    let parts = LENGTH.div_ceil(EACH);
    assert_eq!(served.signed.load(Ordering::SeqCst), parts);
    assert_eq!(served.refused.load(Ordering::SeqCst), 0);
    assert_eq!(served.sent.load(Ordering::SeqCst), LENGTH);
}
