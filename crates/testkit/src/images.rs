//! Tiny OCI images, made in code and pushed to a registry.
//!
//! All bytes of an image follow from its seed, so that the same seed gives the same digests, and
//! two registries can hold different images under one tag.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::certs::crypto;

/// The two families of media types that registries hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/vnd.oci.image.…`, of the OCI image specification.
    Oci,
    /// `application/vnd.docker.distribution.…`, Docker's "schema 2".
    Docker,
}

/// A blob: a layer or a config.
#[derive(Clone, Debug)]
pub struct Blob {
    /// `sha256:…` of the content.
    pub digest: String,
    /// The content.
    pub content: Bytes,
}

/// An image, or an index of images for several platforms, that can be pushed.
#[derive(Clone, Debug)]
pub struct Image {
    /// `sha256:…` of the manifest (of the index): what a `name@digest` reference holds.
    pub manifest_digest: String,
    /// `sha256:…` of the config (for an index, of the image for this machine's platform): what the
    /// CRI calls the image ID.
    pub config_digest: String,
    /// The media type of the manifest or index.
    pub media_type: &'static str,
    /// The manifest's bytes.
    pub manifest: Bytes,
    /// The blobs of a single image; empty for an index.
    pub blobs: Vec<Blob>,
    /// The images of an index; empty for a single image.
    pub children: Vec<Image>,
}

impl Image {
    /// An OCI image for this machine's platform with one small layer.
    #[must_use]
    pub fn new(seed: &str) -> Self {
        Self::build(seed, Format::Oci, host_architecture(), 0)
    }

    /// Like [`Image::new`], with Docker's media types.
    #[must_use]
    pub fn docker(seed: &str) -> Self {
        Self::build(seed, Format::Docker, host_architecture(), 0)
    }

    /// Like [`Image::new`], with `bytes` of content that doesn't compress in its layer.
    #[must_use]
    pub fn sized(seed: &str, bytes: usize) -> Self {
        Self::build(seed, Format::Oci, host_architecture(), bytes)
    }

    /// An index ("multi-arch image") with one image for amd64 and one for arm64.
    #[must_use]
    pub fn index(seed: &str, format: Format) -> Self {
        let children: Vec<(&str, Image)> = ["amd64", "arm64"]
            .into_iter()
            .map(|architecture| (architecture, Self::build(seed, format, architecture, 0)))
            .collect();
        let manifests: Vec<Value> = children
            .iter()
            .map(|(architecture, child)| {
                json!({
                    "mediaType": child.media_type,
                    "digest": child.manifest_digest,
                    "size": child.manifest.len(),
                    "platform": {"os": "linux", "architecture": architecture},
                })
            })
            .collect();
        let media_type = match format {
            Format::Oci => "application/vnd.oci.image.index.v1+json",
            Format::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
        };
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
        let manifest = Bytes::from(index.to_string());
        let ours = children
            .iter()
            .find(|(architecture, _)| *architecture == host_architecture());
        Self {
            manifest_digest: digest(&manifest),
            config_digest: ours.map_or_else(String::new, |(_, child)| child.config_digest.clone()),
            media_type,
            manifest,
            blobs: Vec::new(),
            children: children.into_iter().map(|(_, child)| child).collect(),
        }
    }

    /// An artifact about another image (a signature, an SBOM). Without an artifact type of its own its
    /// config says what it is.
    #[must_use]
    pub fn about(subject: &Image, seed: &str, artifact_type: Option<&str>) -> Self {
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let config = blob(Bytes::from_static(b"{}"));
        let layer = blob(Bytes::from(format!("about: {seed}")));
        let config_type = match artifact_type {
            Some(_) => "application/vnd.oci.empty.v1+json",
            None => "application/vnd.testkit.config.v1+json",
        };
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": descriptor(config_type, &config),
            "layers": [descriptor("application/octet-stream", &layer)],
            "subject": subject.descriptor(),
            "annotations": {"testkit.seed": seed},
        });
        if let Some(artifact_type) = artifact_type {
            manifest["artifactType"] = artifact_type.into();
        }
        let manifest = Bytes::from(manifest.to_string());
        Self {
            manifest_digest: digest(&manifest),
            config_digest: config.digest.clone(),
            media_type,
            manifest,
            blobs: vec![layer, config],
            children: Vec::new(),
        }
    }

    /// An index about another image, which says nothing of what it is.
    #[must_use]
    pub fn index_about(subject: &Image, seed: &str) -> Self {
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "manifests": [],
            "subject": subject.descriptor(),
            "annotations": {"testkit.seed": seed},
        });
        Self::of_index(media_type, &index)
    }

    /// The index that registries without a referrers API keep under a tag.
    #[must_use]
    pub fn referrers_index(descriptors: &[Value]) -> Self {
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": descriptors});
        Self::of_index(media_type, &index)
    }

    fn of_index(media_type: &'static str, index: &Value) -> Self {
        let manifest = Bytes::from(index.to_string());
        Self {
            manifest_digest: digest(&manifest),
            config_digest: String::new(),
            media_type,
            manifest,
            blobs: Vec::new(),
            children: Vec::new(),
        }
    }

    /// What other manifests name it by.
    #[must_use]
    pub fn descriptor(&self) -> Value {
        json!({
            "mediaType": self.media_type,
            "digest": self.manifest_digest,
            "size": self.manifest.len(),
        })
    }

    /// The image ID as the CRI tells it: the digest of the config.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.config_digest
    }

    fn build(seed: &str, format: Format, architecture: &str, padding: usize) -> Self {
        let (manifest_type, config_type, layer_type) = match format {
            Format::Oci => (
                "application/vnd.oci.image.manifest.v1+json",
                "application/vnd.oci.image.config.v1+json",
                "application/vnd.oci.image.layer.v1.tar+gzip",
            ),
            Format::Docker => (
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
            ),
        };
        let tar = layer(seed, padding);
        let diff_id = digest(&tar);
        let level = match padding {
            0 => Compression::fast(),
            // It does not get shorter, and a test would wait for the attempt.
            _ => Compression::none(),
        };
        let layer = blob(gzip(&tar, level));
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "created": "2020-01-01T00:00:00Z",
            "config": {"Cmd": ["/marker"], "Labels": {"testkit.seed": seed}},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "testkit"}],
        });
        let config = blob(Bytes::from(config.to_string()));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": descriptor(config_type, &config),
            "layers": [descriptor(layer_type, &layer)],
        });
        let manifest = Bytes::from(manifest.to_string());
        Self {
            manifest_digest: digest(&manifest),
            config_digest: config.digest.clone(),
            media_type: manifest_type,
            manifest,
            blobs: vec![layer, config],
            children: Vec::new(),
        }
    }
}

/// `sha256:` and the hex digits of the content's hash.
#[must_use]
pub fn digest(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

/// The digest of what comes in pieces.
#[must_use]
pub fn digest_of_pieces(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    let hash = pieces
        .into_iter()
        .fold(Sha256::new(), |hash, piece| hash.chain_update(piece));
    hex(&hash.finalize())
}

fn hex(hash: &[u8]) -> String {
    hash.iter().fold("sha256:".to_owned(), |mut text, byte| {
        use std::fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The platform's name in Go's words, which images use.
fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

fn blob(content: Bytes) -> Blob {
    Blob {
        digest: digest(&content),
        content,
    }
}

fn descriptor(media_type: &str, blob: &Blob) -> Value {
    json!({"mediaType": media_type, "digest": blob.digest, "size": blob.content.len()})
}

/// A layer with the seed in a marker file, and a file of `padding` bytes that don't compress.
fn layer(seed: &str, padding: usize) -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    let mut add = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        layer
            .append_data(&mut header, name, content)
            .expect("writing to memory");
    };
    add("marker", seed.as_bytes());
    if padding > 0 {
        add("padding", &noise(seed, padding));
    }
    layer.into_inner().expect("writing to memory")
}

/// Bytes that no compression makes shorter; others for another seed.
#[must_use]
pub fn noise(seed: &str, length: usize) -> Vec<u8> {
    let hash = Sha256::digest(seed);
    let mut state = hash.iter().take(8).fold(0, |state: u64, byte| {
        state.rotate_left(8) ^ u64::from(*byte)
    }) | 1;
    let mut noise = Vec::with_capacity(length + 8);
    while noise.len() < length {
        // Xorshift: fast also where nothing is optimized.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(length);
    noise
}

fn gzip(content: &[u8], level: Compression) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(content).expect("writing to memory");
    encoder.finish().expect("writing to memory").into()
}

/// Pushes images to a registry, as `docker push` does.
#[derive(Clone)]
pub struct Pusher {
    base: Url,
    credentials: Option<(String, String)>,
    client: reqwest::Client,
}

impl Pusher {
    /// A pusher to `base` (`http://127.0.0.1:5000`), with Basic credentials if the registry wants
    /// them, trusting the CA in `ca_pem` and no other.
    pub fn new(
        base: &str,
        credentials: Option<(&str, &str)>,
        ca_pem: Option<&str>,
    ) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        if let Some(pem) = ca_pem {
            roots.add(CertificateDer::from_pem_slice(pem.as_bytes())?)?;
        }
        let tls = rustls::ClientConfig::builder_with_provider(crypto())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            base: Url::parse(base).with_context(|| format!("registry address {base}"))?,
            credentials: credentials.map(|(user, password)| (user.into(), password.into())),
            client: reqwest::Client::builder()
                .tls_backend_preconfigured(tls)
                .no_proxy()
                .build()?,
        })
    }

    /// Pushes an image with all that belongs to it, under `tag` and by its digest.
    pub async fn push(&self, image: &Image, repository: &str, tag: &str) -> Result<()> {
        for child in &image.children {
            self.push_blobs(child, repository).await?;
            self.push_manifest(child, repository, &child.manifest_digest)
                .await?;
        }
        self.push_blobs(image, repository).await?;
        self.push_manifest(image, repository, tag).await
    }

    /// Deletes the manifest; the registry must allow it.
    pub async fn delete_manifest(&self, image: &Image, repository: &str) -> Result<()> {
        let url = self.url(&format!("{repository}/manifests/{}", image.manifest_digest))?;
        let what = format!("deleting the manifest of {repository}");
        self.send(self.client.delete(url), &what).await?;
        Ok(())
    }

    /// Deletes the blobs and leaves the manifest: a half-synced registry.
    pub async fn delete_blobs(&self, image: &Image, repository: &str) -> Result<()> {
        for blob in &image.blobs {
            let url = self.url(&format!("{repository}/blobs/{}", blob.digest))?;
            let what = format!("deleting blob {} of {repository}", blob.digest);
            self.send(self.client.delete(url), &what).await?;
        }
        Ok(())
    }

    /// What a tag or digest stands for in the registry: its manifest's digest, or `None`.
    pub async fn resolve(&self, repository: &str, tag: &str) -> Result<Option<String>> {
        let url = self.url(&format!("{repository}/manifests/{tag}"))?;
        let accept = "application/vnd.oci.image.manifest.v1+json, \
            application/vnd.oci.image.index.v1+json, \
            application/vnd.docker.distribution.manifest.v2+json, \
            application/vnd.docker.distribution.manifest.list.v2+json";
        let request = self.authorized(self.client.get(url).header(ACCEPT, accept));
        let response = request.send().await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = response.error_for_status()?;
        Ok(Some(digest(&response.bytes().await?)))
    }

    async fn push_blobs(&self, image: &Image, repository: &str) -> Result<()> {
        for blob in &image.blobs {
            self.push_blob(blob, repository).await?;
        }
        Ok(())
    }

    /// Pushes a blob that no manifest names yet.
    pub async fn push_blob(&self, blob: &Blob, repository: &str) -> Result<()> {
        let start = self.url(&format!("{repository}/blobs/uploads/"))?;
        let what = format!("uploading a blob to {start}");
        let started = self.send(self.client.post(start.clone()), &what).await?;
        let location = started.headers().get(LOCATION).context("no Location")?;
        let mut location = start.join(location.to_str()?)?;
        location
            .query_pairs_mut()
            .append_pair("digest", &blob.digest);
        let upload = self.client.put(location).body(blob.content.clone());
        self.send(upload, &what).await?;
        Ok(())
    }

    async fn push_manifest(&self, image: &Image, repository: &str, tag: &str) -> Result<()> {
        let url = self.url(&format!("{repository}/manifests/{tag}"))?;
        let what = format!("uploading a manifest to {url}");
        let request = self
            .client
            .put(url)
            .header(CONTENT_TYPE, image.media_type)
            .body(image.manifest.clone());
        self.send(request, &what).await?;
        Ok(())
    }

    fn url(&self, path: &str) -> Result<Url> {
        Ok(self.base.join("/v2/")?.join(path)?)
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.credentials {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder, what: &str) -> Result<Response> {
        let sent = self.authorized(request).send().await;
        let response = sent.with_context(|| what.to_owned())?;
        let status = response.status();
        ensure!(
            status.is_success(),
            "{what}: {status}: {}",
            response.text().await.unwrap_or_default()
        );
        Ok(response)
    }
}
