//! What registries, their clients, and the runtime's own files say.

use std::path::Path;

/// Paths are below the file's own folder unless they are absolute.
pub(crate) fn hosts_toml(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let dir = Path::new("/etc/containerd/certs.d/a.io");
    let Ok(paths) = registry::fuzzing::hosts_toml(&text, dir, "a.io") else {
        return;
    };
    for path in paths {
        assert!(path.is_absolute(), "{}", path.display());
    }
}

/// Few challenges, with schemes in lower case, and no more text than came.
pub(crate) fn challenge(data: &[u8]) {
    let challenges = registry::fuzzing::challenges(data);
    assert!(challenges.len() <= 16);
    let mut length = 0;
    for (scheme, params) in &challenges {
        assert!(!scheme.is_empty());
        assert_eq!(scheme.to_ascii_lowercase(), *scheme);
        length += scheme.len();
        for (name, value) in params {
            assert_eq!(name.to_ascii_lowercase(), *name);
            length += name.len() + value.len();
        }
    }
    // A byte that is no UTF-8 becomes three.
    assert!(length <= 3 * data.len(), "{length} of {}", data.len());
}

/// Parts are there, and together no more than the whole; one simple range is what it says.
pub(crate) fn range(data: &[u8]) {
    let (length, header) = data.split_at(data.len().min(2));
    let length = length
        .iter()
        .fold(0, |length, byte| length * 256 + u64::from(*byte));
    let header = String::from_utf8_lossy(header);
    let Some(parts) = cache::fuzzing::range(&header, length) else {
        return;
    };
    assert!(!parts.is_empty());
    assert!(
        parts
            .iter()
            .all(|(start, end)| start < end && *end <= length),
        "{parts:?}"
    );
    assert!(parts.iter().map(|(start, end)| end - start).sum::<u64>() <= length);
    let simple = header.trim().strip_prefix("bytes=").and_then(|spec| {
        let (first, last) = spec.split_once('-')?;
        Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?))
    });
    if let Some((first, last)) = simple {
        assert_eq!(parts, [(first, last.min(length - 1) + 1)]);
    }
}

/// What is taken as a manifest names only digests that are some, and is read again as the same.
pub(crate) fn oci_manifest(data: &[u8]) {
    let Ok(parsed) = cache::manifest::parse(data, None) else {
        return;
    };
    assert!(
        cache::manifest::is_manifest_type(&parsed.media_type),
        "{}",
        parsed.media_type
    );
    let again = cache::manifest::parse(data, Some(&parsed.media_type));
    assert_eq!(
        format!("{:?}", again.expect("the same")),
        format!("{parsed:?}")
    );
}
