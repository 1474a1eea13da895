//! Clients that never rest: pulls and image calls through the shim, pulls from the cache, reviews.
//!
//! No call is tried again. What each chooses follows from the seed; how calls interleave does not.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use http::header::{ACCEPT, RANGE};
use testkit::admission;
use testkit::cri_client::{CriClient, kubelet_auth};
use testkit::images::Blob;
use tokio::time::timeout;

use super::health::{Need, Part};
use super::ledger::{Call, Invariant};
use super::random::Random;
use super::site::{BYSTANDER, CACHED_HOST, Held, ORIGIN, TAG, Way};
use super::world::World;

/// A call that has no answer after this has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(150);
/// What an API server waits for a review.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);
/// How many clients ask the cache over HTTP.
const CACHE_CLIENTS: usize = 2;
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// Lets all clients work until a moment of the run; returns when the last call is answered.
pub(crate) async fn run(world: &World, seed: u64, end: Duration) {
    let pullers = (0..world.own_images.len()).map(|client| async move {
        let mut puller = Puller::new(world, Random::new(seed, 100 + client as u64), client);
        while world.now() < end {
            puller.turn().await;
        }
    });
    let cache_clients = (0..CACHE_CLIENTS).map(|client| async move {
        let mut client = CacheClient::new(world, Random::new(seed, 200 + client as u64));
        while world.now() < end {
            client.turn().await;
        }
    });
    tokio::join!(
        join_all(pullers),
        join_all(cache_clients),
        lists(world, end),
        statuses(world, Random::new(seed, 300), end),
        reviews(world, Random::new(seed, 301), end),
    );
}

/// Pulls every image once more; all parts have to be well.
pub(crate) async fn pull_everything(world: &World) {
    for client in 0..world.own_images.len() {
        let puller = Puller::new(world, Random::new(0, 0), client);
        for held in &world.own_images[client] {
            puller.remove(&held.name).await;
            puller.pull(held, &held.name).await;
        }
    }
}

/// What calls to the runtime need.
fn runtime() -> Need {
    Need {
        all: vec![Part::Runtime, Part::Shim],
        source: None,
    }
}

/// The outcome of a call within its time.
async fn within<T, E: std::fmt::Display>(
    limit: Duration,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match timeout(limit, call).await {
        Ok(answer) => answer.map_err(|error| format!("{error:#}")),
        Err(_) => Err(format!("no answer within {limit:?}")),
    }
}

/// Pulls and removes images, as kubelet does for the Pods of one team.
struct Puller<'a> {
    world: &'a World,
    random: Random,
    client: CriClient,
    own: &'a [Held],
}

impl<'a> Puller<'a> {
    fn new(world: &'a World, random: Random, client: usize) -> Self {
        Self {
            world,
            random,
            client: CriClient::new(&world.shim_socket).that_connects_anew(),
            own: &world.own_images[client],
        }
    }

    async fn turn(&mut self) {
        let world = self.world;
        if self.random.chance(1, 5) {
            if let Some(held) = self.random.one_of(&world.shared_images) {
                self.pull(held, &held.name).await;
            }
        } else if let Some(held) = self.random.one_of(self.own) {
            let name = match self.random.below(6) {
                0 => held.by_digest(),
                _ => held.name.clone(),
            };
            if self.random.chance(4, 5) {
                self.remove(&name).await;
            }
            self.pull(held, &name).await;
        }
        tokio::time::sleep(self.random.between(20, 250)).await;
    }

    async fn remove(&self, name: &str) {
        let from = self.world.now();
        let removed = within(CALL_TIMEOUT, self.client.remove(name)).await;
        self.world
            .judge(Call::RemoveImage, name, &runtime(), from, removed);
    }

    /// Pulls, and looks whether that is there which should be.
    async fn pull(&self, held: &Held, name: &str) {
        let world = self.world;
        let (call, secret) = match held.way {
            Way::Direct => (Call::PullDirect, ORIGIN),
            Way::Cached => (Call::PullCached, BYSTANDER),
        };
        let secret = kubelet_auth(secret.0, secret.1);
        let need = Need {
            source: Some(held.by.to_vec()),
            ..runtime()
        };
        let from = world.now();
        let pulled = within(CALL_TIMEOUT, self.client.pull(name, Some(secret))).await;
        let is_pulled = pulled.is_ok();
        world.judge(call, name, &need, from, pulled.map(|_| ()));
        if !is_pulled {
            return;
        }
        let asked = world.now();
        let status = within(CALL_TIMEOUT, self.client.status(name)).await;
        let there = status.map(|image| image.map(|image| image.id));
        world.ledger().check(Invariant::Right);
        let outcome = match there {
            Ok(Some(id)) if id == held.image.id() => Ok(()),
            Ok(Some(id)) => {
                let text = format!("{name} is {id}, and should be {}", held.image.id());
                world.ledger().breaks(Invariant::Right, world.now(), text);
                Ok(())
            }
            Ok(None) => Err("it was pulled, and is not there".to_owned()),
            Err(error) => Err(error),
        };
        // What was pulled before a restart of the runtime is there afterwards.
        world.judge(Call::ImageStatus, name, &runtime(), asked, outcome);
    }
}

async fn lists(world: &World, end: Duration) {
    let client = CriClient::new(&world.shim_socket).that_connects_anew();
    while world.now() < end {
        let from = world.now();
        let listed = within(CALL_TIMEOUT, client.list()).await;
        let outcome = listed.map(|_| ());
        world.judge(Call::ListImages, "", &runtime(), from, outcome);
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
}

async fn statuses(world: &World, mut random: Random, end: Duration) {
    let client = CriClient::new(&world.shim_socket).that_connects_anew();
    let all: Vec<&Held> = world.own_images.iter().flatten().collect();
    while world.now() < end {
        if let Some(held) = random.one_of(&all) {
            let from = world.now();
            let status = within(CALL_TIMEOUT, client.status(&held.name)).await;
            let outcome = status.map(|_| ());
            world.judge(Call::ImageStatus, &held.name, &runtime(), from, outcome);
        }
        tokio::time::sleep(random.between(50, 200)).await;
    }
}

/// Asks the webhook as an API server does.
async fn reviews(world: &World, mut random: Random, end: Duration) {
    let need = Need {
        all: vec![Part::Webhook],
        source: None,
    };
    let all: Vec<&Held> = world.own_images.iter().flatten().collect();
    let mut known = None;
    while world.now() < end {
        let address = match world.webhook.try_lock() {
            Ok(webhook) => webhook.address(),
            // It is being restarted.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let client = match &known {
            Some((at, client)) if *at == address => Ok(client),
            _ => admission::client_as(
                address,
                &[&world.webhook_ca],
                &[b"h2", b"http/1.1"],
                Some(&world.api_server_cert),
            )
            .map(|client| &known.insert((address, client)).1),
        };
        if let Some(held) = random.one_of(&all) {
            let from = world.now();
            let outcome = match client {
                Ok(client) => within(REVIEW_TIMEOUT, review(world, client, held)).await,
                Err(error) => Err(error.to_string()),
            };
            world.judge(Call::Review, &held.name, &need, from, outcome);
        }
        tokio::time::sleep(random.between(50, 250)).await;
    }
}

async fn review(world: &World, client: &reqwest::Client, held: &Held) -> anyhow::Result<()> {
    let review = admission::review_of(&held.name);
    let response = admission::ask(client, &review).await?;
    let pod = admission::admitted(&review, &response)?;
    let image = pod["spec"]["containers"][0]["image"].as_str();
    let places = held.places(&world.addresses);
    anyhow::ensure!(
        places.iter().any(|place| image == Some(place)),
        "the Pod's image is {image:?}, and should be one of {places:?}"
    );
    Ok(())
}

/// Pulls from the cache over HTTP, as a runtime or another cache does.
struct CacheClient<'a> {
    world: &'a World,
    random: Random,
    http: Option<reqwest::Client>,
    images: Vec<&'a Held>,
    /// Since when the cache must have an image, whatever happens upstream: by its digest, and by its tag. What was
    /// fetched by digest says nothing of the tag.
    stored: RefCell<HashMap<(&'a str, Known), Duration>>,
}

/// As what the cache knows an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Known {
    Digest,
    Tag,
}

impl<'a> CacheClient<'a> {
    fn new(world: &'a World, random: Random) -> Self {
        let any = (std::net::Ipv4Addr::LOCALHOST, 0).into();
        Self {
            world,
            random,
            http: admission::client_with(any, &[], &[]).ok(),
            images: world.cached_images(),
            stored: RefCell::default(),
        }
    }

    async fn turn(&mut self) {
        if let Some(held) = self.random.one_of(&self.images).copied() {
            self.fetch(held).await;
        }
        tokio::time::sleep(self.random.between(30, 300)).await;
    }

    /// Whether the cache has had the image all the time since it was fetched.
    fn is_stored(&self, held: &Held, known: Known) -> bool {
        let stored = self.stored.borrow();
        stored
            .get(&(held.name.as_str(), known))
            .is_some_and(|since| {
                let (health, now) = (self.world.health(), self.world.now());
                health.was_well(Part::CacheDisk, *since, now)
            })
    }

    /// The cache has the image since `began`, unless it has had it for longer.
    fn note_stored(&self, held: &'a Held, known: Known, began: Duration) {
        let health = self.world.health();
        let mut stored = self.stored.borrow_mut();
        let since = stored.entry((&held.name, known)).or_insert(began);
        if !health.was_well(Part::CacheDisk, *since, began) {
            *since = began;
        }
    }

    async fn fetch(&mut self, held: &'a Held) {
        let world = self.world;
        let began = world.now();
        let (known, reference) = match self.random.chance(1, 4) {
            true => (Known::Digest, held.image.manifest_digest.as_str()),
            false => (Known::Tag, TAG),
        };
        let url = format!("manifests/{reference}");
        let stored = self.is_stored(held, known);
        let manifest = Blob {
            digest: held.image.manifest_digest.clone(),
            content: held.image.manifest.clone(),
        };
        let asking = self.get(Call::CacheManifest, held, stored, &url, None, &manifest);
        let mut complete = asking.await;
        for blob in &held.image.blobs {
            let from = match blob.content.len() {
                large if large > 4096 && self.random.chance(1, 3) => Some(self.random.below(large)),
                _ => None,
            };
            let url = format!("blobs/{}", blob.digest);
            let stored = self.is_stored(held, Known::Digest);
            let asking = self.get(Call::CacheBlob, held, stored, &url, from, blob);
            complete &= asking.await;
        }
        if complete && world.health().was_well(Part::CacheDisk, began, world.now()) {
            self.note_stored(held, Known::Digest, began);
            if known == Known::Tag {
                self.note_stored(held, Known::Tag, began);
            }
        }
    }

    /// One request; whether it brought what it should. Nobody upstream is needed for what is stored.
    async fn get(
        &self,
        call: Call,
        held: &Held,
        is_stored: bool,
        url: &str,
        start: Option<usize>,
        expected: &Blob,
    ) -> bool {
        let world = self.world;
        let need = Need {
            all: vec![Part::Cache],
            source: (!is_stored).then(|| held.by.to_vec()),
        };
        let subject = format!("{CACHED_HOST}/{}/{url}", held.repository);
        let from = world.now();
        let answer = within(CALL_TIMEOUT, self.ask(&subject, start)).await;
        let outcome = answer.map(|content| {
            let name = &expected.digest;
            let expected = &expected.content[start.unwrap_or(0)..];
            let mut ledger = world.ledger();
            ledger.check(Invariant::Right);
            if content != expected {
                let text = format!(
                    "the cache gave {} bytes for {subject} from {start:?} that are not those of {name}",
                    content.len()
                );
                ledger.breaks(Invariant::Right, world.now(), text);
            }
        });
        let is_there = outcome.is_ok();
        world.judge(call, &subject, &need, from, outcome);
        is_there
    }

    async fn ask(&self, subject: &str, start: Option<usize>) -> anyhow::Result<Vec<u8>> {
        let url = format!("http://{}/v2/{subject}", self.world.addresses.cache);
        let http = self.http.as_ref();
        let http = http.ok_or_else(|| anyhow::anyhow!("there is no HTTP client"))?;
        let mut request = http.get(url).header(ACCEPT, MANIFESTS);
        if let Some(start) = start {
            request = request.header(RANGE, format!("bytes={start}-"));
        }
        let response = request.send().await?;
        let status = response.status();
        let body = response.bytes().await?;
        let expected = match start {
            Some(_) => StatusCode::PARTIAL_CONTENT,
            None => StatusCode::OK,
        };
        anyhow::ensure!(
            status == expected,
            "{status}: {}",
            String::from_utf8_lossy(&body[..body.len().min(300)])
        );
        Ok(body.to_vec())
    }
}
