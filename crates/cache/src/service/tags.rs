//! Manifests by tag: asked about before they are used, served stale when nobody answers.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use policy::CredentialChoice;

use super::manifests::{ended, remembered};
use super::{Cache, Class, Given, Manifest, Refusal, SoFar, Who};
use crate::digest::Digest;
use crate::freshness::{Asked, Decision, Heard, Stale, Whose, decide, is_fresh, is_taken_back};
use crate::index::{Link, Tag, TagName};
use crate::rights::Caller;
use crate::storage::now;
use crate::upstream::{Asker, Failure, Failures, Place};

/// Which round of questions: the same tag, for the same caller, by the same way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RoundKey {
    name: TagName,
    caller: Option<Caller>,
    via: Arc<[String]>,
}

/// What a round has found out.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// The manifest, confirmed.
    Fresh(Given<Manifest>),
    /// What it was before.
    Stale(Digest, Stale, Failures),
    /// The place that gave it to everybody refuses it.
    Private(Failures),
    /// Nothing to serve.
    Nothing(Failures),
}

impl Cache {
    /// A manifest by its tag.
    ///
    /// # Errors
    /// Why there is none for this caller.
    pub async fn manifest_by_tag(&self, who: &Who, tag: &str) -> Result<Manifest, Refusal> {
        let name = TagName {
            repository: who.repository.clone(),
            tag: tag.to_owned(),
        };
        let known = self.known_tag(&name).await;
        if let Some(known) = &known
            && is_fresh(known, &self.settings().freshness, now())
            && (known.imported || self.may(who, &known.digest).await)
            && let Some(manifest) = self.stored_manifest(&known.digest).await
        {
            return Ok(manifest);
        }
        let miss = name.to_string();
        if who.credentials.is_none() && self.inner.misses.has(&miss) {
            return Err(Refusal::NotFound(remembered()));
        }
        let mut so_far = SoFar::default();
        let mut classes = self.classes(who);
        // One class alone hears for itself what that place says.
        let own = match classes.len() {
            0 | 1 => None,
            _ => known.and_then(|tag| self.own_place(who, &tag)),
        };
        if own.as_ref().is_some_and(|own| !own.is_callers()) {
            // What the tag's own place says decides, and only everybody's round asks that.
            classes.sort_by_key(|class| *class != Class::Everybody);
        }
        let mut own = own.map(|own| asked(&own, Class::Everybody));
        for class in classes {
            let key = RoundKey {
                name: name.clone(),
                caller: match class {
                    Class::Everybody => None,
                    Class::Caller => self.caller(who),
                },
                via: Arc::clone(&who.via),
            };
            let (cache, asker, wanted, own_said) =
                (self.clone(), who.clone(), name.clone(), own.clone());
            let round = self.inner.rounds.join(key, move || {
                let round = async move { cache.round(&asker, &wanted, class, own_said).await };
                round.map(Arc::new).boxed()
            });
            let outcome = round.await;
            match outcome.as_deref() {
                Some(Outcome::Fresh(given)) => {
                    self.proved(who, class, &given.place);
                    return Ok(given.what.clone());
                }
                Some(Outcome::Stale(digest, why, failures)) => {
                    return self.stale(who, &name, digest, *why, failures).await;
                }
                Some(Outcome::Private(failures) | Outcome::Nothing(failures)) => {
                    if let Some(own) = &mut own
                        && let Some((_, said)) = failures.0.iter().find(|(at, _)| *at == own.name)
                    {
                        own.heard = Some(Heard::Failed(said.clone()));
                    }
                    let refusal = Refusal::of(failures.clone());
                    if !self.refused(who, class, refusal, &mut so_far) {
                        break;
                    }
                }
                None => return Err(Refusal::Unreachable(ended())),
            }
        }
        let shared = self.shared_tag(who, &name, &so_far.refusal()).await;
        shared.map_or_else(|| Err(self.refuse(&miss, &so_far)), Ok)
    }

    /// The place that a tag came from, where the config still has it.
    fn own_place(&self, who: &Who, tag: &Tag) -> Option<Place> {
        let mut places = self.places(who, Class::Everybody).into_iter();
        places.find(|place| place.name == tag.place)
    }

    async fn known_tag(&self, name: &TagName) -> Option<Tag> {
        let wanted = name.clone();
        self.stored(move |storage| Ok(storage.index().tag(&wanted)?))
            .await
            .unwrap_or_default()
    }

    /// What the tag was before, for who may have it.
    async fn stale(
        &self,
        who: &Who,
        name: &TagName,
        digest: &Digest,
        why: Stale,
        failures: &Failures,
    ) -> Result<Manifest, Refusal> {
        let link = self.link_of(who, digest).await;
        let link = link.filter(|link| self.right(who, link).is_some());
        let Some(Link { imported, .. }) = link else {
            return Err(Refusal::of(failures.clone()));
        };
        let Some(mut manifest) = self.known_manifest(digest).await else {
            return Err(Refusal::of(failures.clone()));
        };
        if !imported {
            self.say(&format!("stale {name}"), || {
                format!("{name} is served stale, {why:?}: {failures}")
            });
            manifest.warning = Some(why.text().to_owned());
        }
        Ok(manifest)
    }

    /// Asks the places what a tag means, decides, and fetches what is new. `own_said`: what the tag's own place said to
    /// everybody, for a caller whose credentials it does not take.
    async fn round(
        &self,
        who: &Who,
        name: &TagName,
        class: Class,
        own_said: Option<Asked>,
    ) -> Outcome {
        let rules = self.settings().freshness.clone();
        let known = self.known_tag(name).await;
        let places = self.places(who, class);
        let asker = self.asker(who, class);
        let mut asked: Vec<Asked> = places.iter().map(|place| asked(place, class)).collect();
        let is_elsewhere = |own: &Asked| !asked.iter().any(|place| place.name == own.name);
        if class == Class::Caller
            && let Some(own) = own_said.filter(is_elsewhere)
        {
            // Behind all others, so that their numbers stay.
            asked.push(own);
        }
        // First those that can decide: the tag's own place and all above it; or, for a new tag, all
        // that the config names. The rest only where these have not decided.
        let own = known
            .as_ref()
            .and_then(|tag| places.iter().position(|place| place.name == tag.place));
        let first = match own {
            Some(own) => own + 1,
            None => places.iter().filter(|place| place.priority > 0).count(),
        };
        let mut warnings = vec![None; places.len()];
        for range in [0..first, first..places.len()] {
            let is_decided = {
                self.hear(&places, range, &mut asked, &mut warnings, name, &asker)
                    .await;
                matches!(
                    decide(known.as_ref(), &asked, &rules, now()),
                    Decision::Fresh { .. }
                )
            };
            if is_decided {
                break;
            }
        }
        loop {
            match decide(known.as_ref(), &asked, &rules, now()) {
                Decision::Fresh { place, tag } => {
                    if let Some(known) = &known
                        && class == Class::Everybody
                        && is_taken_back(known, &asked)
                    {
                        self.take_back(&name.repository, &known.place).await;
                    }
                    let Some(from) = places.get(place) else {
                        return Outcome::Nothing(failures(&asked));
                    };
                    let confirmed = self
                        .confirmed(who, name, from, &tag.digest, &asker, class)
                        .await;
                    match confirmed {
                        Ok(mut manifest) => {
                            let above = warnings.get_mut(place).and_then(Option::take);
                            manifest.warning = manifest.warning.or(above);
                            let is_new = known.as_ref().is_none_or(|k| k.digest != tag.digest);
                            self.share_tag(name, &tag, from, &asker);
                            self.remember(name, tag, is_new).await;
                            return Outcome::Fresh(Given {
                                what: manifest,
                                place: from.name.clone(),
                            });
                        }
                        Err(failure) => {
                            // It says that it has the tag, and does not give what the tag means.
                            let failure = match failure {
                                Failure::NotFound => {
                                    Failure::Wrong("has the tag and not its manifest".to_owned())
                                }
                                other => other,
                            };
                            if let Some(asked) = asked.get_mut(place) {
                                asked.heard = Some(Heard::Failed(failure));
                            }
                            // Those that were not needed may be needed now.
                            self.hear(
                                &places,
                                0..places.len(),
                                &mut asked,
                                &mut warnings,
                                name,
                                &asker,
                            )
                            .await;
                        }
                    }
                }
                Decision::Stale { why, tag } => {
                    let digest = tag.digest.clone();
                    self.remember(name, tag, false).await;
                    return Outcome::Stale(digest, why, failures(&asked));
                }
                Decision::Private { place } => {
                    if class == Class::Everybody {
                        let gave = known.as_ref().map(|tag| &tag.place);
                        let refuses = places.get(place).map(|place| &place.name);
                        for place in gave.into_iter().chain(refuses) {
                            self.take_back(&name.repository, place).await;
                        }
                    }
                    return Outcome::Private(failures(&asked));
                }
                Decision::Nothing => return Outcome::Nothing(failures(&asked)),
            }
        }
    }

    /// Asks those of the places in `range` that have not been asked, all at once, until the best answer
    /// has nothing undecided above it.
    async fn hear(
        &self,
        places: &[Place],
        range: std::ops::Range<usize>,
        asked: &mut [Asked],
        warnings: &mut [Option<String>],
        name: &TagName,
        asker: &Asker,
    ) {
        let mut questions = FuturesUnordered::new();
        for number in range {
            let (Some(place), Some(asked)) = (places.get(number), asked.get_mut(number)) else {
                continue;
            };
            if asked.heard.is_some() {
                continue;
            }
            if let Some(why) = self.inner.upstream.is_silent(place) {
                asked.heard = Some(Heard::Failed(Failure::Silent(why)));
                continue;
            }
            let question = self.inner.upstream.head_manifest(place, &name.tag, asker);
            let counters = &self.inner.counters;
            questions.push(async move {
                let asked = std::time::Instant::now();
                let answer = question.await;
                counters.answered(asked.elapsed());
                (number, answer)
            });
        }
        while let Some((number, answer)) = questions.next().await {
            let heard = match answer {
                Ok(described) => {
                    if let Some(warning) = warnings.get_mut(number) {
                        *warning = described.warning;
                    }
                    Heard::Found(described.digest)
                }
                Err(failure) => Heard::Failed(failure),
            };
            if let Some(asked) = asked.get_mut(number) {
                asked.heard = Some(heard);
            }
            let best = asked
                .iter()
                .position(|place| matches!(place.heard, Some(Heard::Found(_))));
            let is_settled =
                best.is_some_and(|best| asked.iter().take(best).all(|place| place.heard.is_some()));
            if is_settled {
                return;
            }
        }
    }

    /// The manifest that a place says the tag means.
    async fn confirmed(
        &self,
        who: &Who,
        name: &TagName,
        place: &Place,
        digest: &Digest,
        asker: &Asker,
        class: Class,
    ) -> Result<Manifest, Failure> {
        let manifest = match self.known_manifest(digest).await {
            Some(manifest) => manifest,
            None => {
                let by_digest = self
                    .fetch_manifest(place, digest, digest.as_str(), asker)
                    .await;
                match by_digest {
                    // Some registries give by tag what they don't give by digest.
                    Err(Failure::NotFound) => {
                        self.fetch_manifest(place, digest, &name.tag, asker).await?
                    }
                    other => other?,
                }
            }
        };
        self.keep_manifest(who, &place.name, &manifest, class).await;
        self.share_manifest(who, place, asker, digest);
        Ok(manifest)
    }

    pub(super) async fn remember(&self, name: &TagName, tag: Tag, is_new: bool) {
        let name = name.clone();
        let set = self.stored(move |storage| Ok(storage.index().set_tag(&name, &tag, is_new)?));
        if let Err(error) = set.await {
            self.storage().report_failure(&error);
        }
    }
}

/// A place that is to be asked.
fn asked(place: &Place, class: Class) -> Asked {
    Asked {
        name: place.name.clone(),
        priority: place.priority,
        whose: match (&place.credentials, class) {
            (CredentialChoice::Configured(_), _) => Whose::Config,
            (CredentialChoice::Callers, Class::Caller) => Whose::Caller,
            (CredentialChoice::Callers | CredentialChoice::Anonymous, _) => Whose::Nobody,
        },
        heard: None,
    }
}

fn failures(asked: &[Asked]) -> Failures {
    let mut failures = Failures::default();
    for place in asked {
        if let Some(Heard::Failed(failure)) = &place.heard {
            failures.note(&place.name, failure.clone());
        }
    }
    failures
}
