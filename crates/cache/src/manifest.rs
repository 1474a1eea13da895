//! What a manifest or an index refers to: the part of it that a cache has to understand.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Longest manifest that is read or stored. containerd reads this much.
pub const MAX_MANIFEST: usize = 4 * 1048 * 1048;
/// Entries of one manifest that are kept. A manifest with more is refused: it could fill the index.
const MAX_CHILDREN: usize = 10_000;

/// The OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The OCI manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Docker's index.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What an object of the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A manifest or an index.
    Manifest,
    /// A layer, a config, or any other content.
    Blob,
}

/// One thing that a manifest refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes, as the manifest says.
    pub size: u64,
    /// What it is.
    pub kind: Kind,
    /// `os/architecture[/variant]` of an entry of an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}

/// What was understood of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Its media type: the one inside it, else the one that the registry named.
    pub media_type: String,
    /// Whether it is an index.
    pub is_index: bool,
    /// All that it refers to, without what is fetched from elsewhere (`urls`).
    pub children: Vec<Child>,
    /// What it is about (referrers).
    pub subject: Option<Digest>,
    /// What kind of thing it is (referrers): its own type, else that of its config. An index has only its own.
    pub artifact_type: Option<String>,
    /// Its annotations (referrers).
    pub annotations: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Why a content is no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoManifest {
    /// Not a JSON object.
    #[error("it is not a JSON object")]
    Json,
    /// The media type inside is another than the registry's.
    #[error("its mediaType is {inside}, and the registry said {header}")]
    MediaType {
        /// In the document.
        inside: String,
        /// In the header.
        header: String,
    },
    /// Too many entries.
    #[error("it refers to more than {MAX_CHILDREN} objects")]
    TooLong,
    /// A descriptor without a digest or a size.
    #[error("an entry has no valid digest or size")]
    Descriptor,
    /// A media type that no manifest has.
    #[error("{0} is not the media type of a manifest")]
    NotAManifest(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    blobs: Option<Vec<Descriptor>>,
    #[serde(default)]
    subject: Option<Descriptor>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    annotations: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    urls: Option<Vec<String>>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    os: Option<String>,
    #[serde(default)]
    architecture: Option<String>,
    #[serde(default)]
    variant: Option<String>,
}

/// Reads a manifest. `header` is the media type that the registry named, without parameters.
///
/// # Errors
/// [`NoManifest`] for what must neither be stored nor served as a manifest.
pub fn parse(content: &[u8], header: Option<&str>) -> Result<Parsed, NoManifest> {
    let document: Document = serde_json::from_slice(content).map_err(|_| NoManifest::Json)?;
    let named = header.filter(|header| is_manifest_type(header));
    let generic = |text: &str| {
        matches!(
            text,
            "" | "application/json" | "application/octet-stream" | "binary/octet-stream"
        )
    };
    if let Some(header) = header
        && named.is_none()
        && !generic(header)
    {
        return Err(NoManifest::NotAManifest(policy::text::one_line(header, 80)));
    }
    let is_index = document.manifests.is_some();
    let media_type = match (&document.media_type, named) {
        (Some(inside), Some(header)) if inside != header => {
            return Err(NoManifest::MediaType {
                inside: policy::text::one_line(inside, 80),
                header: header.to_owned(),
            });
        }
        (Some(inside), _) if is_manifest_type(inside) => inside.clone(),
        (Some(inside), _) => {
            return Err(NoManifest::NotAManifest(policy::text::one_line(inside, 80)));
        }
        (None, Some(header)) => header.to_owned(),
        // An OCI document without a media type is what its shape says.
        (None, None) if is_index => OCI_INDEX.to_owned(),
        (None, None) => OCI_MANIFEST.to_owned(),
    };
    let is_text = |text: &String| !text.is_empty();
    let artifact_type = document.artifact_type.filter(is_text);
    let config_type = document.config.as_ref().and_then(|c| c.media_type.clone());
    let artifact_type = match is_index {
        true => artifact_type,
        false => artifact_type.or(config_type),
    };
    let indexed = document.manifests.unwrap_or_default();
    let single = document.config.into_iter();
    let layers = document.layers.unwrap_or_default().into_iter();
    let blobs = single
        .chain(layers)
        .chain(document.blobs.unwrap_or_default());
    let mut children: Vec<Child> = Vec::new();
    for (descriptor, kind) in indexed
        .into_iter()
        .map(|descriptor| (descriptor, Kind::Manifest))
        .chain(blobs.map(|descriptor| (descriptor, Kind::Blob)))
    {
        if descriptor
            .urls
            .as_ref()
            .is_some_and(|urls| !urls.is_empty())
        {
            continue;
        }
        if children.len() == MAX_CHILDREN {
            return Err(NoManifest::TooLong);
        }
        children.push(child(descriptor, kind)?);
    }
    let subject = document
        .subject
        .and_then(|subject| subject.digest)
        .and_then(|digest| digest.parse().ok());
    Ok(Parsed {
        media_type,
        is_index,
        children,
        subject,
        artifact_type,
        annotations: document.annotations,
    })
}

fn child(descriptor: Descriptor, kind: Kind) -> Result<Child, NoManifest> {
    let digest = descriptor.digest.and_then(|digest| digest.parse().ok());
    let (Some(digest), Some(size)) = (digest, descriptor.size) else {
        return Err(NoManifest::Descriptor);
    };
    let platform = descriptor.platform.and_then(|platform| {
        let mut text = format!("{}/{}", platform.os?, platform.architecture?);
        if let Some(variant) = platform.variant {
            text.push('/');
            text.push_str(&variant);
        }
        Some(policy::text::one_line(&text, 80))
    });
    // An index may hold things that are no manifests; what they are decides how they are fetched.
    let kind = match (&descriptor.media_type, kind) {
        (Some(media_type), Kind::Manifest) if !is_manifest_type(media_type) => Kind::Blob,
        (_, kind) => kind,
    };
    Ok(Child {
        digest,
        size,
        kind,
        platform,
    })
}

/// Whether a media type is that of a manifest or an index.
pub fn is_manifest_type(text: &str) -> bool {
    matches!(
        text,
        OCI_INDEX
            | OCI_MANIFEST
            | DOCKER_LIST
            | DOCKER_MANIFEST
            | "application/vnd.oci.artifact.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v1+prettyjws"
    )
}

/// A `Content-Type` without its parameters.
pub fn essence(value: &str) -> String {
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(byte: char) -> String {
        format!("sha256:{}", byte.to_string().repeat(64))
    }

    #[test]
    fn an_index_with_attestations() {
        let content = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[
            {{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":7,"platform":{{"os":"linux","architecture":"arm","variant":"v7"}}}},
            {{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":8,"platform":{{"os":"unknown","architecture":"unknown"}}}}]}}"#,
            digest('a'),
            digest('b')
        );
        let parsed = parse(content.as_bytes(), Some(OCI_INDEX)).unwrap();
        assert!(parsed.is_index);
        assert_eq!(parsed.children.len(), 2);
        assert_eq!(parsed.children[0].platform.as_deref(), Some("linux/arm/v7"));
        assert_eq!(parsed.children[1].kind, Kind::Manifest);
    }

    #[test]
    fn a_manifest_without_its_foreign_layers() {
        let content = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{}","size":1}},"layers":[
            {{"digest":"{}","size":2}},{{"digest":"{}","size":3,"urls":["https://elsewhere/x"]}}]}}"#,
            digest('a'),
            digest('b'),
            digest('c')
        );
        let parsed = parse(content.as_bytes(), Some("application/json")).unwrap();
        assert_eq!(parsed.media_type, OCI_MANIFEST);
        let sizes: Vec<u64> = parsed.children.iter().map(|child| child.size).collect();
        assert_eq!(sizes, [1, 2]);
    }

    #[test]
    fn what_is_no_manifest() {
        let ok = r#"{"schemaVersion":2}"#;
        assert_eq!(
            parse(b"<html>", Some(OCI_MANIFEST)).unwrap_err(),
            NoManifest::Json
        );
        assert_eq!(parse(b"", None).unwrap_err(), NoManifest::Json);
        assert!(matches!(
            parse(ok.as_bytes(), Some("text/html")).unwrap_err(),
            NoManifest::NotAManifest(_)
        ));
        let other = format!(r#"{{"mediaType":"{OCI_INDEX}"}}"#);
        assert!(matches!(
            parse(other.as_bytes(), Some(OCI_MANIFEST)).unwrap_err(),
            NoManifest::MediaType { .. }
        ));
        let negative = r#"{"layers":[{"digest":"sha256:00","size":1}]}"#;
        assert_eq!(
            parse(negative.as_bytes(), None).unwrap_err(),
            NoManifest::Descriptor
        );
    }
}
