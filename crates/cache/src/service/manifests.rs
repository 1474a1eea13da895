//! Manifests by digest: for ever the same, once one may have them.

use std::sync::Arc;

use futures_util::FutureExt;

use super::{Cache, Class, Given, Manifest, Refusal, SoFar, Who};
use crate::digest::Digest;
use crate::index::Link;
use crate::manifest::{Kind, parse};
use crate::name::Repository;
use crate::rights::Caller;
use crate::upstream::{Asker, Failure, Failures, ManifestBody, Place};

/// What one question is about: the same object, for the same caller, by the same way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    repository: Repository,
    digest: Digest,
    caller: Option<Caller>,
    via: Arc<[String]>,
}

impl Cache {
    pub(super) fn key(&self, who: &Who, digest: &Digest, class: Class) -> Key {
        Key {
            repository: who.repository.clone(),
            digest: digest.clone(),
            caller: match class {
                Class::Everybody => None,
                Class::Caller => self.caller(who),
            },
            via: Arc::clone(&who.via),
        }
    }

    /// A manifest by its digest.
    ///
    /// # Errors
    /// Why there is none for this caller.
    pub async fn manifest_by_digest(
        &self,
        who: &Who,
        digest: &Digest,
    ) -> Result<Manifest, Refusal> {
        if self.may(who, digest).await
            && let Some(manifest) = self.stored_manifest(digest).await
        {
            self.share_use(who, digest);
            return Ok(manifest);
        }
        let name = format!("{}@{digest}", who.repository);
        if who.credentials.is_none() && self.inner.misses.has(&name) {
            return Err(Refusal::NotFound(remembered()));
        }
        if let Some(silent) = self.all_silent(who)
            && let Some(shared) = self.shared_manifest(who, digest, &silent).await
        {
            return Ok(shared);
        }
        let mut so_far = SoFar::default();
        for class in self.classes(who) {
            let key = self.key(who, digest, class);
            let (cache, asker, wanted) = (self.clone(), who.clone(), digest.clone());
            let asked = self.inner.manifests.join(key, move || {
                async move { cache.ask_manifest(&asker, &wanted, class).await }.boxed()
            });
            match asked.await.unwrap_or(Err(Refusal::Unreachable(ended()))) {
                Ok(given) => {
                    self.proved(who, class, &given.place);
                    return Ok(given.what);
                }
                Err(refusal) => {
                    if !self.refused(who, class, refusal, &mut so_far) {
                        break;
                    }
                }
            }
        }
        let shared = self.shared_manifest(who, digest, &so_far.refusal()).await;
        shared.map_or_else(|| Err(self.refuse(&name, &so_far)), Ok)
    }

    pub(super) async fn link_of(&self, who: &Who, digest: &Digest) -> Option<Link> {
        let (repository, digest) = (who.repository.clone(), digest.clone());
        self.stored(move |storage| Ok(storage.index().linked(&repository, &digest)?))
            .await
            .unwrap_or_default()
    }

    /// Whether this caller may have something because it belongs to his repository.
    pub(super) async fn may(&self, who: &Who, digest: &Digest) -> bool {
        let link = self.link_of(who, digest).await;
        link.is_some_and(|link| self.right(who, &link).is_some())
    }

    pub(super) async fn stored_manifest(&self, digest: &Digest) -> Option<Manifest> {
        let wanted = digest.clone();
        let found = self.stored(move |storage| storage.manifest(&wanted)).await;
        let (content, object) = found.ok().flatten()?;
        Some(Manifest {
            content,
            media_type: object.media_type.unwrap_or_default(),
            digest: digest.clone(),
            is_hit: true,
            warning: None,
        })
    }

    /// Asks the places one after another, and stores what comes.
    async fn ask_manifest(
        &self,
        who: &Who,
        digest: &Digest,
        class: Class,
    ) -> Result<Given<Manifest>, Refusal> {
        let asker = self.asker(who, class);
        let stored = self.known_manifest(digest).await;
        let mut failures = Failures::default();
        for place in self.in_order(self.places(who, class)) {
            if self.inner.liars.is_one(&place.name, digest) {
                let wrong = "sent other bytes than asked for a moment ago";
                failures.note(&place.name, Failure::Wrong(wrong.into()));
                continue;
            }
            // What is known from elsewhere opens nothing; but it need not be sent again.
            let answered = match &stored {
                Some(manifest) => self
                    .inner
                    .upstream
                    .head_manifest(&place, digest.as_str(), &asker)
                    .await
                    .map(|_| manifest.clone()),
                None => {
                    self.fetch_manifest(&place, digest, digest.as_str(), &asker)
                        .await
                }
            };
            match answered {
                Ok(manifest) => {
                    self.keep_manifest(who, &place.name, &manifest, class).await;
                    self.share_manifest(who, &place, &asker, digest);
                    return Ok(Given {
                        what: manifest,
                        place: place.name,
                    });
                }
                Err(failure) => failures.note(&place.name, failure),
            }
        }
        Err(Refusal::of(failures))
    }

    /// Places whose circuit is open are asked last.
    pub(super) fn in_order(&self, mut places: Vec<Place>) -> Vec<Place> {
        places.sort_by_key(|place| self.inner.upstream.is_silent(place).is_some());
        places
    }

    /// Fetches one manifest from one place, and verifies it. `reference` is what the place is asked
    /// for: the digest, or a tag that it says has it.
    pub(super) async fn fetch_manifest(
        &self,
        place: &Place,
        digest: &Digest,
        reference: &str,
        asker: &Asker,
    ) -> Result<Manifest, Failure> {
        let body = self
            .inner
            .upstream
            .get_manifest(place, reference, asker)
            .await?;
        self.inner.counters.received(body.content.len() as u64);
        let ManifestBody {
            content,
            media_type,
            warning,
            ..
        } = body;
        if !digest.matches(&content) {
            self.inner.liars.note(&place.name, digest);
            let text = "sent another manifest than it was asked for";
            self.say(&format!("{} {digest}", place.name), || {
                format!("{} {text}: {digest}", place.name)
            });
            return Err(Failure::Wrong(text.to_owned()));
        }
        let parsed = parse(&content, media_type.as_deref())
            .map_err(|error| Failure::Wrong(format!("sent what is no manifest: {error}")))?;
        Ok(Manifest {
            content,
            media_type: parsed.media_type,
            digest: digest.clone(),
            is_hit: false,
            warning,
        })
    }

    /// Stores a verified manifest, or only notes that it belongs to the repository, and by whose right it
    /// came.
    pub(super) async fn keep_manifest(
        &self,
        who: &Who,
        place: &str,
        manifest: &Manifest,
        class: Class,
    ) {
        let link = Link {
            kind: Kind::Manifest,
            place: place.to_owned(),
            open: class == Class::Everybody,
            imported: false,
        };
        let (repository, manifest) = (who.repository.clone(), manifest.clone());
        let kept = self.stored(move |storage| {
            let digest = &manifest.digest;
            if manifest.is_hit {
                return Ok(storage.index().link(&repository, digest, &link)?);
            }
            let parsed = parse(&manifest.content, Some(&manifest.media_type))
                .map_err(std::io::Error::other)?;
            storage.store_manifest(digest, &manifest.content, &parsed, &repository, &link)
        });
        // What can't be stored is served all the same; the store has said why.
        if let Err(error) = kept.await {
            tracing::debug!("a manifest was not stored: {error}");
        }
    }
}

/// The question ended without an answer.
pub(super) fn ended() -> Failures {
    let silent = Failure::Silent("the question was broken off".to_owned());
    Failures(vec![("this cache".to_owned(), silent)])
}

/// It is remembered that nobody has it.
pub(super) fn remembered() -> Failures {
    Failures(vec![(
        "every place, a moment ago,".to_owned(),
        Failure::NotFound,
    )])
}
