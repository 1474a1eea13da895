//! An upstream that breaks off in the middle of a blob, by every way that connections end.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{CacheProcess, get, head};

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// It is closed.
    Fin,
    /// It is reset.
    Reset,
    /// It stays open, and nothing more comes.
    Stall,
}

/// A registry with one blob, which breaks off at these offsets, once at each.
struct Upstream {
    address: SocketAddr,
    sent: Arc<AtomicUsize>,
    cuts: Arc<Mutex<Vec<usize>>>,
    /// Where in the blob each request began.
    starts: Arc<Mutex<Vec<usize>>>,
}

impl Upstream {
    async fn start(blob: Arc<Vec<u8>>, cuts: Vec<usize>, how: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            sent: Arc::default(),
            cuts: Arc::new(Mutex::new(cuts)),
            starts: Arc::default(),
        };
        let served = Served {
            blob,
            sent: Arc::clone(&upstream.sent),
            cuts: Arc::clone(&upstream.cuts),
            starts: Arc::clone(&upstream.starts),
            how,
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = served.clone();
                tokio::spawn(async move {
                    // The cache hangs up when it has what it wants.
                    let _ = answer(stream, &served).await;
                });
            }
        });
        upstream
    }
}

/// What all connections share.
#[derive(Clone)]
struct Served {
    blob: Arc<Vec<u8>>,
    sent: Arc<AtomicUsize>,
    cuts: Arc<Mutex<Vec<usize>>>,
    starts: Arc<Mutex<Vec<usize>>>,
    how: Cut,
}

async fn answer(mut stream: TcpStream, served: &Served) -> std::io::Result<()> {
    let Served {
        blob,
        sent,
        cuts,
        starts,
        how,
    } = served;
    loop {
        let head = head(&mut stream).await?.to_lowercase();
        if !head.contains("/blobs/") {
            stream
                .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                .await?;
            continue;
        }
        let range = head
            .lines()
            .find_map(|line| line.strip_prefix("range: bytes="));
        let start = range.and_then(|range| range.split_once('-')?.0.parse::<usize>().ok());
        let mut at = start.unwrap_or(0);
        let status = match start {
            Some(start) => format!(
                "206 Partial Content\r\nContent-Range: bytes {start}-{}/{}",
                blob.len() - 1,
                blob.len()
            ),
            None => "200 OK".to_owned(),
        };
        let length = blob.len() - at;
        let head_out = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head_out.as_bytes()).await?;
        if head.starts_with("head ") {
            continue;
        }
        starts.lock().push(at);
        while at < blob.len() {
            let next = {
                let mut cuts = cuts.lock();
                if let Some(which) = cuts.iter().position(|cut| *cut == at) {
                    cuts.remove(which);
                    None
                } else {
                    let until = cuts.iter().copied().filter(|cut| *cut > at).min();
                    Some(until.unwrap_or(blob.len()).min(at + 16 * 1024))
                }
            };
            let Some(next) = next else {
                match how {
                    Cut::Fin => stream.shutdown().await?,
                    Cut::Reset => stream.set_zero_linger()?,
                    Cut::Stall => std::future::pending().await,
                }
                return Ok(());
            };
            stream.write_all(&blob[at..next]).await?;
            sent.fetch_add(next - at, Ordering::SeqCst);
            at = next;
        }
    }
}

const LENGTH: usize = 2_000_000;

/// One cache, and for each case a registry that has one blob and breaks off in that way. All at once: a stall
/// costs its time-out each time.
async fn check(cases: Vec<(Cut, Vec<usize>)>) {
    let mut upstreams = Vec::new();
    let mut config = "fallbackToOrigin: false\nregistries:\n".to_owned();
    for (number, (how, cuts)) in cases.into_iter().enumerate() {
        let blob: Vec<u8> = (0..LENGTH).map(|n| ((n + number) % 251) as u8).collect();
        let digest = testkit::images::digest(&blob);
        let blob = Arc::new(blob);
        let what = format!("{how:?} at {cuts:?}");
        let upstream = Upstream::start(Arc::clone(&blob), cuts, how).await;
        config.push_str(&format!(
            "  - {{address: 'http://{}', mirrorOf: [host{number}.test]}}\n",
            upstream.address
        ));
        upstreams.push((upstream, blob, digest, how, what));
    }
    let cache = CacheProcess::start(&config, "").await;
    let mut clients = tokio::task::JoinSet::new();
    for (number, (upstream, blob, digest, how, what)) in upstreams.into_iter().enumerate() {
        let address = cache.address;
        clients.spawn(async move {
            let path = format!("/v2/team/app/blobs/{digest}?ns=host{number}.test");
            let answer = get(address, &path, "").await.unwrap();
            assert_eq!(answer.status, 200, "{what}: {}", answer.head);
            assert!(answer.whole && answer.body == *blob, "{what}");
            assert!(upstream.cuts.lock().is_empty(), "{what}");
            // No request goes back behind what had come. A reset loses what was on its way, so that only
            // the others tell how many bytes were sent.
            let starts = upstream.starts.lock().clone();
            assert!(starts.is_sorted(), "{what}: {starts:?}");
            if how != Cut::Reset {
                assert_eq!(upstream.sent.load(Ordering::SeqCst), LENGTH, "{what}");
            }
            // And it was kept.
            let again = get(address, &path, "Range: bytes=1999990-\r\n")
                .await
                .unwrap();
            assert_eq!((again.status, again.body.len()), (206, 10), "{what}");
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_every_tenth_by_every_way() {
    let tenths: Vec<usize> = (0..10).map(|tenth| tenth * LENGTH / 10).collect();
    let mut cases = vec![(Cut::Fin, tenths.clone()), (Cut::Reset, tenths.clone())];
    cases.extend(tenths.into_iter().map(|tenth| (Cut::Stall, vec![tenth])));
    check(cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anywhere() {
    let random = |seed: usize| RandomState::new().hash_one(seed) as usize;
    let cases = (0..16).map(|number| {
        let how = [Cut::Fin, Cut::Reset, Cut::Fin, Cut::Stall][number % 4];
        let count = if how == Cut::Stall {
            1
        } else {
            1 + random(number) % 6
        };
        let mut cuts: Vec<usize> = (0..count).map(|seed| random(seed) % LENGTH).collect();
        cuts.sort_unstable();
        cuts.dedup();
        (how, cuts)
    });
    check(cases.collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_costs_nothing() {
    let blob: Arc<Vec<u8>> = Arc::new((0..LENGTH).map(|n| (n % 249) as u8).collect());
    let digest = testkit::images::digest(&blob);
    let upstream = Upstream::start(Arc::clone(&blob), Vec::new(), Cut::Fin).await;
    let config = format!(
        "fallbackToOrigin: false\nregistries:\n  - {{address: 'http://{}'}}\n",
        upstream.address
    );
    let cache = CacheProcess::start(&config, "").await;
    let path = format!("/v2/team/app/blobs/{digest}?ns=images.test");
    // As containerd hangs up after the chunk that it wanted.
    let mut stream = TcpStream::connect(cache.address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nRange: bytes=0-\r\n\r\n",
        cache.address
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0; 512];
    stream.read_exact(&mut first).await.unwrap();
    drop(stream);
    // Nobody is left, and it comes to its end.
    testkit::wait::until("all of it has come", || async {
        (upstream.sent.load(Ordering::SeqCst) == LENGTH).then_some(())
    })
    .await;
    let answer = cache.get(&path, "").await;
    assert!(answer.whole && answer.body == *blob);
    assert_eq!(upstream.sent.load(Ordering::SeqCst), LENGTH);
    assert_eq!(upstream.starts.lock().len(), 1);
}
