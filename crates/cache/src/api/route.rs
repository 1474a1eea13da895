//! What a path below `/v2/` asks for. Pure.

use percent_encoding::percent_decode_str;

use crate::digest::Digest;

/// What a request asks for; `name` is as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/v2/`: whether this is a registry.
    Root,
    /// A manifest by its tag.
    Tag {
        /// The repository.
        name: String,
        /// The tag.
        tag: String,
    },
    /// A manifest by its digest.
    Manifest {
        /// The repository.
        name: String,
        /// The digest.
        digest: Digest,
    },
    /// A blob.
    Blob {
        /// The repository.
        name: String,
        /// The digest.
        digest: Digest,
    },
    /// The list of tags.
    Tags {
        /// The repository.
        name: String,
    },
    /// What refers to a manifest.
    Referrers {
        /// The repository.
        name: String,
        /// The manifest.
        digest: Digest,
    },
}

/// The path is none of a registry's, or has a part that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoute {
    /// Not a path of the API.
    Unknown,
    /// What stands in a digest's place is none.
    Digest,
    /// What stands in a tag's place is neither a tag nor a digest.
    Tag,
}

/// Longest path that is read.
const MAX_PATH: usize = 2048;

/// Reads a path.
///
/// # Errors
/// [`NoRoute`].
pub(super) fn parse(path: &str) -> Result<Route, NoRoute> {
    if path.len() > MAX_PATH {
        return Err(NoRoute::Unknown);
    }
    let path = percent_decode_str(path)
        .decode_utf8()
        .map_err(|_| NoRoute::Unknown)?;
    if path == "/v2" {
        return Ok(Route::Root);
    }
    let rest = path.strip_prefix("/v2/").ok_or(NoRoute::Unknown)?;
    if rest.is_empty() {
        return Ok(Route::Root);
    }
    if let Some(name) = rest.strip_suffix("/tags/list") {
        let name = name.to_owned();
        return Ok(Route::Tags { name });
    }
    let (rest, last) = rest.rsplit_once('/').ok_or(NoRoute::Unknown)?;
    let (name, what) = rest.rsplit_once('/').ok_or(NoRoute::Unknown)?;
    let name = name.to_owned();
    let digest = || last.parse::<Digest>().map_err(|_| NoRoute::Digest);
    match what {
        "manifests" if last.contains(':') => {
            let digest = digest()?;
            Ok(Route::Manifest { name, digest })
        }
        "manifests" => {
            let tag = last.to_owned();
            if !is_tag(&tag) {
                return Err(NoRoute::Tag);
            }
            Ok(Route::Tag { name, tag })
        }
        "blobs" => {
            let digest = digest()?;
            Ok(Route::Blob { name, digest })
        }
        "referrers" => {
            let digest = digest()?;
            Ok(Route::Referrers { name, digest })
        }
        _ => Err(NoRoute::Unknown),
    }
}

fn is_tag(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = text.bytes();
    bytes.next().is_some_and(is_word)
        && text.len() <= 128
        && bytes.all(|b| is_word(b) || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let digest = Digest::of(b"x");
        let name = || "a/manifests/b".to_owned();
        for (path, expected) in [
            ("/v2/".to_owned(), Ok(Route::Root)),
            ("/v2".to_owned(), Ok(Route::Root)),
            (
                "/v2/a/manifests/b/manifests/1.0".to_owned(),
                Ok(Route::Tag {
                    name: name(),
                    tag: "1.0".into(),
                }),
            ),
            (
                format!(
                    "/v2/a/manifests/b/manifests/{}",
                    digest.as_str().replace(':', "%3A")
                ),
                Ok(Route::Manifest {
                    name: name(),
                    digest: digest.clone(),
                }),
            ),
            (
                format!("/v2/a/manifests/b/blobs/{digest}"),
                Ok(Route::Blob {
                    name: name(),
                    digest: digest.clone(),
                }),
            ),
            (
                format!("/v2/a/manifests/b/referrers/{digest}"),
                Ok(Route::Referrers {
                    name: name(),
                    digest,
                }),
            ),
            (
                "/v2/a/manifests/b/tags/list".to_owned(),
                Ok(Route::Tags { name: name() }),
            ),
            ("/v2/a/blobs/sha256:abc".to_owned(), Err(NoRoute::Digest)),
            (
                "/v2/a/manifests/sha256:abc".to_owned(),
                Err(NoRoute::Digest),
            ),
            ("/v2/a/manifests/-x".to_owned(), Err(NoRoute::Tag)),
            ("/v2/_catalog".to_owned(), Err(NoRoute::Unknown)),
            ("/v2/a/uploads/x".to_owned(), Err(NoRoute::Unknown)),
            ("/metrics".to_owned(), Err(NoRoute::Unknown)),
            ("/v2/a%ff/manifests/x".to_owned(), Err(NoRoute::Unknown)),
        ] {
            assert_eq!(parse(&path), expected, "{path}");
        }
    }
}
