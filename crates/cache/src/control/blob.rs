//! A blob that is wanted in the store, by whoever warms or mends an image.

use crate::digest::Digest;
use crate::pull_through::State;
use crate::service::{BlobAnswer, Cache, Who};

/// Waits until a blob is in the store.
pub(super) async fn fetch_blob(
    cache: &Cache,
    who: &Who,
    digest: &Digest,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), String> {
    let answer = cache.blob(who, digest).await;
    let BlobAnswer::Growing { transfer, .. } = answer.map_err(|refusal| refusal.to_string())?
    else {
        return Ok(());
    };
    let mut watch = transfer.watch();
    loop {
        let bytes = watch.borrow_and_update().ranges.bytes();
        progress(bytes);
        tokio::select! {
            whole = transfer.finished() => {
                return match whole {
                    true => Ok(()),
                    false => Err(why_not(digest, &watch.borrow().state)),
                };
            }
            // Not every piece is news.
            () = tokio::time::sleep(std::time::Duration::from_millis(200)) => {}
        }
    }
}

/// Why a download that has ended gave no whole blob: its sources or the disk.
fn why_not(digest: &Digest, state: &State) -> String {
    let blob = digest.short();
    match state {
        State::Failed(failures) => format!("{blob} could not be fetched: {failures}"),
        State::Unstored { .. } => format!(
            "{blob} could not be stored: there is no room for it, or nodeCache.dir can't be written; the cache's log says which"
        ),
        State::Opening | State::Arriving | State::Whole => {
            format!("{blob}: its download was broken off; ask for it again")
        }
    }
}
