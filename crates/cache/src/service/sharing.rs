//! What the shared store is told, and what is believed of what it says.
//!
//! Its bytes are used before upstream's: they are verified. Its word counts only where upstream is silent,
//! and only for what came without any credential, from a place that this node would ask, too.

use policy::CredentialChoice;

use super::{Cache, Class, Manifest, Refusal, Who};
use crate::digest::Digest;
use crate::freshness::Stale;
use crate::index::{Tag, TagName};
use crate::manifest::{Kind, parse};
use crate::shared::{Job, SharedLink, SharedTag};
use crate::storage::now;
use crate::upstream::{Asker, Failure, Failures, Place};

impl Cache {
    /// A manifest of this store, or of the shared one; that is verified, and not stored here yet.
    pub(super) async fn known_manifest(&self, digest: &Digest) -> Option<Manifest> {
        if let Some(manifest) = self.stored_manifest(digest).await {
            return Some(manifest);
        }
        let content = self.shared()?.manifest(digest).await.ok().flatten()?;
        let parsed = parse(&content, None).ok()?;
        Some(Manifest {
            content,
            media_type: parsed.media_type,
            digest: digest.clone(),
            is_hit: false,
            warning: None,
        })
    }

    /// A tag by the bucket's word: upstream is silent, and this node has never seen it.
    pub(super) async fn shared_tag(
        &self,
        who: &Who,
        name: &TagName,
        refusal: &Refusal,
    ) -> Option<Manifest> {
        let why = silence(refusal)?;
        let known = self.shared()?.tag(name).await.ok().flatten()?;
        let class = self
            .right_by_word(who, &known.place, known.needs_proof)
            .await?;
        let age = now().saturating_sub(known.validated_at);
        let max_stale = self.settings().freshness.max_stale;
        if max_stale.is_some_and(|limit| age >= limit.as_secs()) {
            return None;
        }
        let mut manifest = self.known_manifest(&known.digest).await?;
        self.keep_manifest(who, &known.place, &manifest, class)
            .await;
        let tag = Tag {
            digest: known.digest,
            place: known.place,
            // By a clock that may be ahead of ours.
            validated_at: known.validated_at.min(now()),
            silent_since: Some(now()),
            imported: false,
        };
        self.remember(name, tag, true).await;
        self.say(&format!("stale {name}"), || {
            format!("{name} is served stale, by the shared store's word: {refusal}")
        });
        manifest.warning = Some(why.text().to_owned());
        Some(manifest)
    }

    /// A manifest by its digest, by the bucket's word: upstream is silent.
    pub(super) async fn shared_manifest(
        &self,
        who: &Who,
        digest: &Digest,
        refusal: &Refusal,
    ) -> Option<Manifest> {
        let (class, link) = self
            .shared_link(who, Kind::Manifest, digest, refusal)
            .await?;
        let manifest = self.known_manifest(digest).await?;
        self.keep_manifest(who, &link.place, &manifest, class).await;
        Some(manifest)
    }

    /// The length of a blob that belongs to a repository, by the bucket's word, and by which right this
    /// caller may have it: upstream is silent.
    pub(super) async fn shared_blob(
        &self,
        who: &Who,
        digest: &Digest,
        refusal: &Refusal,
    ) -> Option<(Class, u64)> {
        let (class, link) = self.shared_link(who, Kind::Blob, digest, refusal).await?;
        let size = self.shared()?.stat(digest).await.ok().flatten()?;
        self.link_blob(who, digest, &link.place, class).await;
        Some((class, size))
    }

    /// Why it is of no use to ask upstream now: every place's circuit is open.
    pub(super) fn all_silent(&self, who: &Who) -> Option<Refusal> {
        let mut failures = Failures::default();
        for place in self.places(who, Class::Everybody) {
            let why = self.inner.upstream.is_silent(&place)?;
            failures.note(&place.name, Failure::Silent(why));
        }
        (!failures.0.is_empty()).then_some(Refusal::Unreachable(failures))
    }

    async fn shared_link(
        &self,
        who: &Who,
        kind: Kind,
        digest: &Digest,
        refusal: &Refusal,
    ) -> Option<(Class, SharedLink)> {
        silence(refusal)?;
        let link = self.shared()?.link(&who.repository, kind, digest).await;
        let link = link.ok().flatten()?;
        let class = self
            .right_by_word(who, &link.place, link.needs_proof)
            .await?;
        Some((class, link))
    }

    /// By which right this caller may have what the bucket says came from a place.
    async fn right_by_word(&self, who: &Who, place: &str, needs_proof: bool) -> Option<Class> {
        // Another node's place may be one that this node's config does not trust, or has a password for.
        let is_ours = self.places(who, Class::Everybody).iter().any(|ours| {
            ours.name == place && !matches!(ours.credentials, CredentialChoice::Configured(_))
        });
        if !needs_proof && is_ours && !self.inner.proofs.is_closed(&who.repository) {
            return Some(Class::Everybody);
        }
        // The place has given this node something else of the repository, for everybody.
        let (repository, from) = (who.repository.clone(), place.to_owned());
        let open =
            self.stored(move |storage| Ok(storage.index().is_open_at(&repository, &from)?));
        if open.await.unwrap_or(false) {
            return Some(Class::Everybody);
        }
        let caller = self.caller(who)?;
        let is_proven = self.inner.proofs.has(&who.repository, place, caller);
        is_proven.then_some(Class::Caller)
    }

    fn publish(&self, job: Job) {
        if let Some(shared) = self.shared() {
            shared.publish(&self.storage(), job);
        }
    }

    /// Content that was verified and stored here.
    pub(super) fn share_content(&self, digest: &Digest) {
        self.publish(Job::Content(digest.clone()));
    }

    /// A manifest that a place has given, or says it has.
    pub(super) fn share_manifest(&self, who: &Who, place: &Place, asker: &Asker, digest: &Digest) {
        self.share_content(digest);
        self.share_link(who, Kind::Manifest, place, asker, digest);
    }

    /// That something belongs to a repository.
    pub(super) fn share_link(
        &self,
        who: &Who,
        kind: Kind,
        place: &Place,
        asker: &Asker,
        digest: &Digest,
    ) {
        let needs_proof = needs_proof(place, asker);
        // Of a blob that has to be proved anew this says nothing; a manifest is kept by it.
        if needs_proof && kind == Kind::Blob {
            return;
        }
        self.publish(Job::Link {
            repository: who.repository.clone(),
            kind,
            digest: digest.clone(),
            link: SharedLink {
                place: place.name.clone(),
                needs_proof,
            },
        });
    }

    /// What a place has just said that a tag means.
    pub(super) fn share_tag(&self, name: &TagName, tag: &Tag, place: &Place, asker: &Asker) {
        self.publish(Job::Tag {
            name: name.clone(),
            tag: SharedTag {
                digest: tag.digest.clone(),
                place: place.name.clone(),
                validated_at: tag.validated_at,
                needs_proof: needs_proof(place, asker),
            },
        });
    }

    /// That a manifest was asked for by its digest, and was here.
    pub(super) fn share_use(&self, who: &Who, digest: &Digest) {
        self.publish(Job::Use {
            repository: who.repository.clone(),
            digest: digest.clone(),
        });
    }
}

/// Whether a place gave something to who had a credential: its own one, or the config's.
fn needs_proof(place: &Place, asker: &Asker) -> bool {
    match place.credentials {
        CredentialChoice::Configured(_) => true,
        CredentialChoice::Callers => asker.credentials.is_some(),
        CredentialChoice::Anonymous => false,
    }
}

/// Why an answer would be stale, where nobody upstream has said anything of use: as for this node's own
/// tags.
fn silence(refusal: &Refusal) -> Option<Stale> {
    match refusal {
        Refusal::Unreachable(_) | Refusal::Wrong(_) => Some(Stale::Unreachable),
        Refusal::RateLimited(..) => Some(Stale::RateLimited),
        Refusal::NotFound(_) | Refusal::Unauthorized(_) | Refusal::Denied => None,
    }
}
