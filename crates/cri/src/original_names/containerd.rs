//! Adding the original names in containerd.
//!
//! A name is only ever made or moved after a successful pull of that very name, and never left behind for
//! content that has gone meanwhile.

use std::future::Future;
use std::time::Duration;

use policy::Reference;

use crate::containerd::{Containerd, ContainerdError};
use crate::runtime_name::{by_digest, stored_name};

/// How long the CRI's own store may take to follow. It does so by events, mostly within a millisecond.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(1);
/// How often it is asked meanwhile.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(10);
/// How often an event is caused.
const ATTEMPTS: usize = 2;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// The image has its original names; the mirror's as well.
    Beside,
    /// It has them, and the mirror's are gone.
    Instead,
    /// It was removed in the meantime.
    Gone,
    /// The names are in containerd, but its CRI does not know of them.
    NotFollowed,
}

/// Gives the image that was just pulled as `mirror` the names of `original`. `keep` says whether the mirror's
/// names stay; `is_present` asks the runtime's CRI for an image by a name.
pub(crate) async fn add<F: Future<Output = bool>>(
    containerd: &Containerd<'_>,
    mirror: &Reference,
    original: &Reference,
    keep: bool,
    is_present: impl Fn(String) -> F,
) -> Result<Added, ContainerdError> {
    let source = stored_name(mirror);
    let Some(image) = containerd.image(&source).await? else {
        return Ok(Added::Gone);
    };
    let (digest, target) = (image.digest(), image.target.unwrap_or_default());
    let names = names(original, &digest);
    let mut created = Vec::new();
    for name in &names {
        if put(containerd, name, &target).await? {
            created.push(name);
        }
    }
    if containerd.image(&source).await?.is_none() {
        for name in created {
            containerd.delete(name).await?;
        }
        return Ok(Added::Gone);
    }
    let follows = async || {
        for name in &names {
            if !within(FOLLOW_TIMEOUT, true, || is_present(name.clone())).await {
                return false;
            }
        }
        true
    };
    let mut attempt = 1;
    while !follows().await {
        if attempt == ATTEMPTS {
            return Ok(Added::NotFollowed);
        }
        attempt += 1;
        for name in &names {
            containerd.lead(name, &target).await?;
        }
    }
    if keep {
        return Ok(Added::Beside);
    }
    let old: Vec<String> = self::names(mirror, &digest)
        .into_iter()
        .filter(|name| !names.contains(name))
        .collect();
    for name in &old {
        if containerd.is_in_use(name).await? {
            return Ok(Added::Beside);
        }
    }
    for name in &old {
        containerd.delete(name).await?;
        // A container must not be made from a name that is gone.
        within(FOLLOW_TIMEOUT, false, || is_present(name.clone())).await;
    }
    Ok(Added::Instead)
}

/// The names that the CRI keeps for an image with this digest.
fn names(reference: &Reference, digest: &str) -> Vec<String> {
    let mut names = vec![stored_name(reference)];
    if reference.digest().is_none() && !digest.is_empty() {
        names.push(by_digest(reference, digest));
    }
    names
}

/// True where the name is new.
async fn put(
    containerd: &Containerd<'_>,
    name: &str,
    target: &[u8],
) -> Result<bool, ContainerdError> {
    if containerd.create(name, target).await? {
        return Ok(true);
    }
    let known = containerd.image(name).await?;
    match known.and_then(|image| image.target) {
        Some(known) if known == target => {}
        Some(_) => containerd.lead(name, target).await?,
        // Removed just now; whoever did that has the last word.
        None => {}
    }
    Ok(false)
}

/// Whether `check` says what is `wanted`, in time.
async fn within<F: Future<Output = bool>>(
    time: Duration,
    wanted: bool,
    check: impl Fn() -> F,
) -> bool {
    let checked = tokio::time::timeout(time, async {
        while check().await != wanted {
            tokio::time::sleep(FOLLOW_INTERVAL).await;
        }
    });
    checked.await.is_ok()
}
