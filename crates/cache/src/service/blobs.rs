//! Blobs: for who has the right to a repository that they belong to.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::manifests::{ended, remembered};
use super::{Cache, Class, Given, Refusal, SoFar, Who};
use crate::digest::Digest;
use crate::index::Link;
use crate::manifest::Kind;
use crate::pull_through::{Transfer, Wanted};
use crate::upstream::{Failure, Failures};

/// How long somebody else's registry may take to answer before this caller is answered without it.
const OPENING_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a blob is to be read from.
#[derive(Debug)]
pub enum BlobAnswer {
    /// From a file.
    Whole {
        /// The file.
        file: File,
        /// Its length.
        length: u64,
    },
    /// Along with its download.
    Growing {
        /// The download.
        transfer: Arc<Transfer>,
        /// The blob's length, where it is known.
        total: Option<u64>,
        /// What is to be asked for instead when the download, which is for somebody else, is too slow.
        own: Option<Arc<Wanted>>,
    },
}

impl Cache {
    /// A blob.
    ///
    /// # Errors
    /// Why there is none for this caller.
    pub async fn blob(&self, who: &Who, digest: &Digest) -> Result<BlobAnswer, Refusal> {
        let link = self.link_of(who, digest).await;
        let mut right = link.and_then(|link| self.right(who, &link));
        if right.is_some()
            && let Some(whole) = self.whole(digest).await
        {
            return Ok(whole);
        }
        let is_known = self.is_stored(digest).await || self.inner.transfers.get(digest).is_some();
        if right.is_none() && is_known {
            // It is here because of another repository, or for another caller: does it belong to this one,
            // and may this one have it, too?
            let (class, _) = self.prove_blob(who, digest).await?;
            right = Some(class);
            if let Some(whole) = self.whole(digest).await {
                return Ok(whole);
            }
        }
        self.download(who, digest, right).await
    }

    /// A blob's length, where it is known.
    ///
    /// # Errors
    /// Why there is none for this caller.
    pub async fn blob_size(&self, who: &Who, digest: &Digest) -> Result<Option<u64>, Refusal> {
        if self.may(who, digest).await
            && let Some(BlobAnswer::Whole { length, .. }) = self.whole(digest).await
        {
            return Ok(Some(length));
        }
        let (class, asked) = self.prove_blob(who, digest).await?;
        match self.whole(digest).await {
            Some(BlobAnswer::Whole { length, .. }) => Ok(Some(length)),
            _ if asked.is_some() => Ok(asked),
            // The registry does not say; its content does.
            _ => self.download_size(who, digest, class).await,
        }
    }

    /// A blob's length, by fetching it: whoever asks for its length wants the blob next.
    async fn download_size(
        &self,
        who: &Who,
        digest: &Digest,
        right: Class,
    ) -> Result<Option<u64>, Refusal> {
        match self.download(who, digest, Some(right)).await? {
            BlobAnswer::Growing {
                transfer,
                total: None,
                ..
            } => {
                transfer.finished().await;
                Ok(transfer.watch().borrow().total)
            }
            BlobAnswer::Growing { total, .. } => Ok(total),
            BlobAnswer::Whole { length, .. } => Ok(Some(length)),
        }
    }

    async fn whole(&self, digest: &Digest) -> Option<BlobAnswer> {
        let wanted = digest.clone();
        let opened = self.stored(move |storage| Ok(storage.open_blob(&wanted)?));
        let (file, length) = opened.await.ok().flatten()?;
        Some(BlobAnswer::Whole { file, length })
    }

    async fn is_stored(&self, digest: &Digest) -> bool {
        let wanted = digest.clone();
        let opened = self.stored(move |storage| Ok(storage.disk().open_blob(&wanted)?.is_some()));
        opened.await.unwrap_or(false)
    }

    /// Asks upstream whether a repository has a blob, and by which right this caller may have it. With the
    /// blob's length, where it is said.
    async fn prove_blob(
        &self,
        who: &Who,
        digest: &Digest,
    ) -> Result<(Class, Option<u64>), Refusal> {
        let name = format!("{}@{digest}", who.repository);
        if who.credentials.is_none() && self.inner.misses.has(&name) {
            return Err(Refusal::NotFound(remembered()));
        }
        if let Some(silent) = self.all_silent(who)
            && let Some((class, size)) = self.shared_blob(who, digest, &silent).await
        {
            return Ok((class, Some(size)));
        }
        let mut so_far = SoFar::default();
        for class in self.classes(who) {
            let key = self.key(who, digest, class);
            let (cache, asker, wanted) = (self.clone(), who.clone(), digest.clone());
            let asked = self.inner.blob_proofs.join(key, move || {
                async move { cache.ask_blob(&asker, &wanted, class).await }.boxed()
            });
            match asked.await.unwrap_or(Err(Refusal::Unreachable(ended()))) {
                Ok(given) => {
                    self.proved(who, class, &given.place);
                    return Ok((class, given.what));
                }
                Err(refusal) => {
                    if !self.refused(who, class, refusal, &mut so_far) {
                        break;
                    }
                }
            }
        }
        let shared = self.shared_blob(who, digest, &so_far.refusal()).await;
        if let Some((class, size)) = shared {
            return Ok((class, Some(size)));
        }
        Err(self.refuse(&name, &so_far))
    }

    async fn ask_blob(
        &self,
        who: &Who,
        digest: &Digest,
        class: Class,
    ) -> Result<Given<Option<u64>>, Refusal> {
        let asker = self.asker(who, class);
        let mut failures = Failures::default();
        for place in self.in_order(self.places(who, class)) {
            let asked = self.inner.upstream.head_blob(&place, digest, &asker).await;
            match asked {
                Ok(size) => {
                    self.link_blob(who, digest, &place.name, class).await;
                    self.share_link(who, Kind::Blob, &place, &asker, digest);
                    return Ok(Given {
                        what: size,
                        place: place.name,
                    });
                }
                Err(failure) => failures.note(&place.name, failure),
            }
        }
        Err(Refusal::of(failures))
    }

    /// Notes that a blob belongs to a repository, and by whose right that was found out.
    pub(super) async fn link_blob(&self, who: &Who, digest: &Digest, place: &str, class: Class) {
        let link = Link {
            kind: Kind::Blob,
            place: place.to_owned(),
            open: class == Class::Everybody,
            imported: false,
        };
        let (repository, digest) = (who.repository.clone(), digest.clone());
        let linked =
            self.stored(move |storage| Ok(storage.index().link(&repository, &digest, &link)?));
        if let Err(error) = linked.await {
            self.storage().report_failure(&error);
        }
    }

    /// Joins or begins the download. `right`: by which right the caller may have the blob, where that, and
    /// that the repository has it, is known already.
    async fn download(
        &self,
        who: &Who,
        digest: &Digest,
        right: Option<Class>,
    ) -> Result<BlobAnswer, Refusal> {
        let is_proven = right.is_some();
        let name = format!("{}@{digest}", who.repository);
        if who.credentials.is_none() && self.inner.misses.has(&name) {
            return Err(Refusal::NotFound(remembered()));
        }
        let classes = match right {
            Some(Class::Caller) => vec![Class::Caller],
            Some(Class::Everybody) | None => self.classes(who),
        };
        let mut so_far = SoFar::default();
        for class in classes {
            let wanted = self.wanted(who, digest, class).await?;
            let (mut transfer, mut is_ours) = self.transfer(wanted.clone());
            let mut size = wanted.size;
            if !is_ours && !is_proven {
                // Somebody else began it in this moment, for another repository perhaps.
                let (_, said) = self.prove_blob(who, digest).await?;
                size = size.or(said);
            }
            let mut opened = opened(&transfer, &wanted).await;
            while let Some(Err(_)) = opened
                && !transfer.wanted().speaks_for(&wanted)
            {
                // That nobody had it for another repository, or another caller, is no answer for this one.
                (transfer, is_ours) = self.transfer(wanted.clone());
                opened = self::opened(&transfer, &wanted).await;
            }
            let is_for_others = !transfer.wanted().speaks_for(&wanted);
            let Some(opened) = opened else {
                // Its length from this caller's registry, or not at all.
                let total = match size {
                    Some(size) => Some(size),
                    None => self.prove_blob(who, digest).await?.1,
                };
                return Ok(BlobAnswer::Growing {
                    transfer,
                    total,
                    own: Some(Arc::new(wanted)),
                });
            };
            match opened {
                Ok(mut total) => {
                    if is_for_others {
                        // What somebody else's registry says counts only where nothing else is known.
                        total = size.or(total);
                    }
                    let proven_by = transfer.watch().borrow().proven_by.clone();
                    match proven_by {
                        Some(place) if is_ours && !is_proven => {
                            self.link_blob(who, digest, &place, class).await;
                            self.proved(who, class, &place);
                            let wanted = transfer.wanted();
                            let from = wanted.places.iter().find(|known| known.name == place);
                            if let Some(from) = from {
                                self.share_link(who, Kind::Blob, from, &wanted.asker, digest);
                            }
                        }
                        Some(_) => {}
                        // From the shared store, from before a restart, or it can't be stored.
                        None if !is_proven || total.is_none() => {
                            let (_, size) = self.prove_blob(who, digest).await?;
                            total = total.or(size);
                        }
                        None => {}
                    }
                    let own = is_for_others.then(|| Arc::new(wanted));
                    return Ok(BlobAnswer::Growing {
                        transfer,
                        total,
                        own,
                    });
                }
                Err(failures) => {
                    if !self.refused(who, class, Refusal::of(failures), &mut so_far) {
                        break;
                    }
                }
            }
        }
        Err(self.refuse(&name, &so_far))
    }

    /// What a download of a blob for this caller asks for.
    async fn wanted(&self, who: &Who, digest: &Digest, class: Class) -> Result<Wanted, Refusal> {
        let places = self.places(who, class);
        if places.is_empty() && self.shared().is_none() {
            return Err(Refusal::Denied);
        }
        let (repository, wanted) = (who.repository.clone(), digest.clone());
        let hint =
            self.stored(move |storage| Ok(storage.index().expected_size(&repository, &wanted)?));
        let hint = hint.await.unwrap_or_default();
        Ok(Wanted {
            upstream: Arc::clone(&self.inner.upstream),
            digest: digest.clone(),
            repository: who.repository.clone(),
            places,
            asker: self.asker(who, class),
            shared: self.shared(),
            size: hint,
            limits: Arc::clone(&self.inner.limits),
            liars: Arc::clone(&self.inner.liars),
            received: self.inner.counters.receiving(),
        })
    }

    /// Begins the download of a blob, or joins it. True where it was begun.
    fn transfer(&self, wanted: Wanted) -> (Arc<Transfer>, bool) {
        let parallelism = self.settings().parallelism;
        let hint = wanted.size;
        let cache = self.clone();
        let done = move |transfer: &Transfer| cache.transferred(transfer);
        let storage = self.storage();
        self.inner
            .transfers
            .join(wanted, &storage, hint, parallelism, done)
    }

    fn transferred(&self, transfer: &Transfer) {
        let progress = transfer.watch();
        let progress = progress.borrow();
        if matches!(progress.state, crate::pull_through::State::Whole) {
            self.share_content(transfer.digest());
        }
        if let crate::pull_through::State::Failed(failures) = &progress.state
            && failures
                .0
                .iter()
                .any(|(_, failure)| !matches!(failure, Failure::NotFound))
        {
            self.say(&format!("blob {}", transfer.digest()), || {
                format!("{} could not be fetched: {failures}", transfer.digest())
            });
        }
    }
}

/// Waits until a download has been answered by a source. None where it is for somebody else, and takes long.
async fn opened(transfer: &Transfer, wanted: &Wanted) -> Option<Result<Option<u64>, Failures>> {
    if transfer.wanted().speaks_for(wanted) {
        return Some(transfer.opened().await);
    }
    let opened = tokio::time::timeout(OPENING_TIMEOUT, transfer.opened());
    opened.await.ok()
}
