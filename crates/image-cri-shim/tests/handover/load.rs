//! A hundred hand-overs under load.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cri::upstream::Upstream;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::World;

const HAND_OVERS: usize = 100;
/// Clients that call all the while; a quarter of them pulls, each pull longer than several hand-overs.
const CLIENTS: usize = 32;
const PULL_TIME: Duration = Duration::from_secs(2);
const CALL_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    calls: AtomicUsize,
    failures: parking_lot::Mutex<Vec<String>>,
}

impl Seen {
    fn note<T>(&self, what: &str, outcome: Result<T, String>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = outcome {
            self.failures.lock().push(format!("{what}: {error}"));
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

async fn pulls(socket: PathBuf, client: usize, seen: Arc<Seen>) {
    let shim = Upstream::new(socket);
    for n in 0.. {
        if !seen.goes_on() {
            return;
        }
        let image = format!("ghcr.io/team/app-{client}:{n}");
        let pulled = match cri::pull_image(&shim, &image).await {
            Ok(status) if status.is_ok() => Ok(()),
            Ok(status) => Err(status.message),
            Err(error) => Err(error.to_string()),
        };
        seen.note(&image, pulled);
    }
}

async fn calls(socket: PathBuf, client: usize, seen: Arc<Seen>) {
    let mut shim = Upstream::new(&socket);
    while seen.goes_on() {
        // Half of them as crictl, which connects for each call.
        if client.is_multiple_of(2) {
            shim = Upstream::new(&socket);
        }
        let called = cri::runtime_version(&shim).await;
        let called = called.map_err(|error| error.to_string());
        // A runtime that answers with an error is described so.
        let called = called.and_then(|version| match version.starts_with("fake") {
            true => Ok(()),
            false => Err(version),
        });
        seen.note("Version", called);
        tokio::time::sleep(CALL_INTERVAL).await;
    }
}

async fn scrapes(address: String, seen: Arc<Seen>) {
    while seen.goes_on() {
        let mut scraped = scrape(&address).await;
        // Who had connected and not asked yet is hung up on, and asks again. Nobody is refused.
        if matches!(&scraped, Ok(answer) if answer.is_empty()) {
            scraped = scrape(&address).await;
        }
        let scraped = scraped.and_then(|answer| match answer.contains(" 200 ") {
            true => Ok(()),
            false => Err(std::io::Error::other(answer)),
        });
        seen.note("scrape", scraped.map_err(|error| error.to_string()));
        tokio::time::sleep(CALL_INTERVAL).await;
    }
}

async fn scrape(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = "GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_hand_overs_under_load_fail_no_call() {
    let mut world = World::start("").await;
    world.runtime.set_delay("PullImage", PULL_TIME);
    let line = world.shim.wait_for_log("metrics and the page are on").await;
    let address = line.split("http://").nth(1).unwrap();
    let address = address.trim_end_matches('/').to_owned();
    let socket = world.shim.socket();
    let inode = socket.metadata().unwrap().ino();

    let seen = Arc::new(Seen::default());
    let mut clients = vec![tokio::spawn(scrapes(address, Arc::clone(&seen)))];
    for client in 0..CLIENTS {
        let (socket, seen) = (socket.clone(), Arc::clone(&seen));
        clients.push(match client % 4 {
            0 => tokio::spawn(pulls(socket, client, seen)),
            _ => tokio::spawn(calls(socket, client, seen)),
        });
    }
    let mut generations = Vec::new();
    for _ in 0..HAND_OVERS {
        generations.push(world.hand_over().await);
    }
    seen.stop.store(true, Ordering::Relaxed);
    for client in join_all(clients).await {
        client.unwrap();
    }
    let failures = seen.failures.lock().clone();
    let calls = seen.calls.load(Ordering::Relaxed);
    assert!(
        failures.is_empty(),
        "{} of {calls}: {failures:?}\n{}",
        failures.len(),
        world.shim.log()
    );
    assert!(calls > HAND_OVERS, "{calls}");

    // It is the same socket, each old process has ended by itself, and the last one serves.
    assert_eq!(socket.metadata().unwrap().ino(), inode);
    assert!(world.shim.wait().await.unwrap().success());
    let mut last = generations.pop().unwrap();
    for mut generation in generations {
        assert_eq!(generation.end().await, Some(0));
    }
    cri::runtime_version(&world.client()).await.unwrap();
    last.signal(rustix::process::Signal::TERM);
    assert_eq!(last.end().await, Some(0));
    assert!(!socket.exists());
}
