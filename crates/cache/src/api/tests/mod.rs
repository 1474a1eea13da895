//! Requests to the service without a listener, over places with the faults of the real world.

mod disk;
mod errors;
mod images;
mod names;
mod pulls;
mod ranges;
mod rights;
mod status;
mod tags;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{HOST, HeaderMap};
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::json;
use tempfile::TempDir;

use super::{Api, Gate};
use crate::digest::Digest;
use crate::fake::FakeUpstream;
use crate::freshness::Freshness;
use crate::manifest::OCI_MANIFEST;
use crate::pull_through::Parallelism;
use crate::service::{Cache, Settings};
use crate::storage::Storage;
use crate::upstream::Failure;

struct World {
    upstream: FakeUpstream,
    cache: Cache,
    api: Api,
    dir: TempDir,
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    /// The body ended before its end.
    broken: bool,
}

impl Reply {
    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).map(|value| value.to_str().unwrap());
        value.unwrap_or_default()
    }
}

fn settings() -> Settings {
    Settings {
        freshness: Freshness {
            tag_ttl: Duration::ZERO,
            max_stale: None,
            auth_stale: Duration::from_secs(24 * 3600),
            serve_deleted: false,
        },
        auth_ttl: Duration::from_secs(300),
        negative_ttl: Duration::from_secs(30),
        parallelism: Parallelism {
            connections: 4,
            above: 32 * 1024 * 1024,
        },
    }
}

impl World {
    fn new() -> Self {
        Self::over(FakeUpstream::default(), tempfile::tempdir().unwrap())
    }

    fn over(upstream: FakeUpstream, dir: TempDir) -> Self {
        let storage = Arc::new(Storage::open(dir.path()).unwrap());
        let cache = Cache::new(storage, Arc::new(upstream.clone()), None, settings());
        let gate = Gate {
            addresses: vec!["127.0.0.1:7439".parse().unwrap()],
            ..Gate::default()
        };
        Self {
            upstream,
            api: Api::new(cache.clone(), gate, "this-cache"),
            cache,
            dir,
        }
    }

    /// The same directory in another process.
    async fn restarted(self) -> Self {
        let Self {
            upstream,
            cache,
            api,
            dir,
        } = self;
        let storage = cache.storage();
        drop((cache, api));
        testkit::wait::until("nobody uses the store any more", || async {
            (Arc::strong_count(&storage) == 1).then_some(())
        })
        .await;
        drop(storage);
        Self::over(upstream, dir)
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(HOST, "localhost:7439");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let Ok(response) = self.api.handle(request.body(()).unwrap()).await;
        let (parts, mut body) = response.into_parts();
        let (mut content, mut broken) = (Vec::new(), false);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => content.extend_from_slice(frame.data_ref().unwrap()),
                Err(_) => broken = true,
            }
        }
        Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: content,
            broken,
        }
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask(Method::GET, path, &[]).await
    }

    async fn head(&self, path: &str) -> Reply {
        self.ask(Method::HEAD, path, &[]).await
    }

    /// Everybody that is there is gone.
    fn cut(&self, places: &[&str]) {
        for place in places {
            self.upstream.with(place, |fake| {
                fake.failure = Some(Failure::Silent("cut".into()))
            });
        }
    }
}

/// An image of one layer, at a place.
struct Image {
    manifest: Digest,
    layer: Digest,
    layer_content: Vec<u8>,
}

fn place(world: &World, name: &str, priority: u32) {
    world.upstream.with(name, |fake| fake.priority = priority);
}

fn push(world: &World, at: &str, tag: &str, layer: &[u8]) -> Image {
    let layer_digest = Digest::of(layer);
    let config = b"{}";
    let content = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(config), "size": 2},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest, "size": layer.len()}],
    })
    .to_string();
    let digest = Digest::of(content.as_bytes());
    world.upstream.with(at, |fake| {
        let entry = (Bytes::from(content), OCI_MANIFEST.to_owned());
        fake.manifests.insert(tag.to_owned(), entry.clone());
        fake.manifests.insert(digest.to_string(), entry);
        fake.blobs
            .insert(layer_digest.clone(), layer.to_vec().into());
        fake.blobs
            .insert(Digest::of(config), Bytes::from_static(config));
    });
    Image {
        manifest: digest,
        layer: layer_digest,
        layer_content: layer.to_vec(),
    }
}

/// Pulls an image as a runtime does.
async fn pull(
    world: &World,
    name: &str,
    tag: &str,
    headers: &[(&str, &str)],
) -> Result<Image, u16> {
    let head = world
        .ask(
            Method::HEAD,
            &format!("/v2/{name}/manifests/{tag}"),
            headers,
        )
        .await;
    if head.status != 200 {
        return Err(head.status);
    }
    let digest = head.header("docker-content-digest").to_owned();
    let path = format!("/v2/{name}/manifests/{digest}");
    let manifest = world.ask(Method::GET, &path, headers).await;
    if manifest.status != 200 {
        return Err(manifest.status);
    }
    let parsed = crate::manifest::parse(&manifest.body, None).unwrap();
    let layer = parsed.children[1].digest.clone();
    for child in &parsed.children {
        let path = format!("/v2/{name}/blobs/{}", child.digest);
        let blob = world.ask(Method::GET, &path, headers).await;
        if blob.status != 200 || blob.broken {
            return Err(blob.status);
        }
        assert!(child.digest.matches(&blob.body));
    }
    Ok(Image {
        manifest: digest.parse().unwrap(),
        layer,
        layer_content: Vec::new(),
    })
}

fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:password")))
}
