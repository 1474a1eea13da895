//! A blob that is wanted in the store, by whoever warms or mends an image.

use crate::digest::Digest;
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
                    false => Err(format!("{} could not be stored", digest.short())),
                };
            }
            // Not every piece is news.
            () = tokio::time::sleep(std::time::Duration::from_millis(200)) => {}
        }
    }
}
