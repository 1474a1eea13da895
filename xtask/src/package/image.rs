//! The image, as a tar of an OCI layout: what `Dockerfile` makes, without Docker.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::contents::Kind;
use super::place::gzipped_at;
use super::tarball::Archive;
use super::{HOMEPAGE, LICENCE, NAME, Release, SUMMARY, VERSION, sha256};

/// Certificates of public authorities, for TLS to registries.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Nobody: no role needs more than what its Pod gives it.
const USER: &str = "65532:65532";

/// The layout's tar.
pub(super) fn write(release: &Release) -> Result<Vec<u8>> {
    let layer = layer(release)?;
    let packed = gzipped_at(&layer, release.gzip())?;
    let arch = release.program.debian_arch();
    let created = rfc3339(release.date);
    let labels = json!({
        "org.opencontainers.image.title": NAME,
        "org.opencontainers.image.version": VERSION,
        "org.opencontainers.image.description": SUMMARY,
        "org.opencontainers.image.licenses": LICENCE,
        "org.opencontainers.image.source": HOMEPAGE,
    });
    let config = json!({
        "created": created,
        "architecture": arch,
        "os": "linux",
        "config": {
            "User": USER,
            "Env": ["PATH=/"],
            "Entrypoint": [format!("/{NAME}")],
            "WorkingDir": "/",
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]},
        "history": [{"created": created, "created_by": "cargo xtask package"}],
    });
    let mut blobs = Blobs::default();
    let config = blobs.add(
        "application/vnd.oci.image.config.v1+json",
        encoded(&config)?,
    );
    let layer = blobs.add("application/vnd.oci.image.layer.v1.tar+gzip", packed);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
        "annotations": labels,
    });
    let mut manifest = blobs.add(
        "application/vnd.oci.image.manifest.v1+json",
        encoded(&manifest)?,
    );
    manifest["platform"] = json!({"architecture": arch, "os": "linux"});
    manifest["annotations"] = json!({
        "org.opencontainers.image.ref.name": VERSION,
        // What containerd calls it after an import, and what the manifests in deploy/ ask for.
        "io.containerd.image.name": format!("docker.io/library/{NAME}:{VERSION}"),
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    let mut layout = Archive::new(release.date);
    let version = json!({"imageLayoutVersion": "1.0.0"});
    layout.file("oci-layout", &encoded(&version)?, 0o644)?;
    layout.file("index.json", &encoded(&index)?, 0o644)?;
    for (hash, bytes) in &blobs.by_hash {
        layout.file(&format!("blobs/sha256/{hash}"), bytes, 0o644)?;
    }
    layout.bytes()
}

/// The one layer.
fn layer(release: &Release) -> Result<Vec<u8>> {
    let mut layer = Archive::new(release.date);
    let authorities = fs::read(AUTHORITIES).with_context(|| {
        format!("reading {AUTHORITIES} for the image; the package ca-certificates has it")
    })?;
    layer.file(AUTHORITIES.trim_start_matches('/'), &authorities, 0o644)?;
    layer.file(NAME, &release.program.bytes, 0o755)?;
    for file in &release.contents.files {
        if file.kind == Kind::Licence {
            let path = format!("usr/share/licenses/{NAME}/{}", file.name);
            layer.file(&path, &file.bytes, file.mode())?;
        }
    }
    // A debug build does not run without.
    for library in &release.program.libraries {
        layer.file(&in_archive(library), &read(library)?, 0o755)?;
    }
    layer.bytes()
}

fn in_archive(path: &Path) -> String {
    path.display()
        .to_string()
        .trim_start_matches('/')
        .to_owned()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// The layout's files by their digest.
#[derive(Default)]
struct Blobs {
    by_hash: BTreeMap<String, Vec<u8>>,
}

impl Blobs {
    /// Adds one and gives its descriptor.
    fn add(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let hash = sha256(&bytes);
        let descriptor = json!({
            "mediaType": media_type,
            "digest": format!("sha256:{hash}"),
            "size": bytes.len(),
        });
        self.by_hash.insert(hash, bytes);
        descriptor
    }
}

fn encoded(value: &Value) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

fn rfc3339(seconds: u32) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(u64::from(seconds));
    humantime::format_rfc3339_seconds(time).to_string()
}
