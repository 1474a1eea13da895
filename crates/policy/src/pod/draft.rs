//! The images of a Pod that may be moved, and where to.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::earlier::{Before, Moving, is_same};
use super::object::Pod;
use super::patch::{Move, Patch, records};
use super::places::{Place, places};
use super::rule_names::{CACHE_RULE, rule_of};
use super::scope::{Operation, PodSettings, Skipped};
use crate::cache_images::Cache;
use crate::config::Rewrite;
use crate::plan::CandidateKind;
use crate::rules::Rules;
use crate::{Plan, Reference, Verdict, placeholder, redirect};

/// What may be done to a Pod. Decided without any I/O; who asks registries hands what they said to
/// [`Draft::patch`].
#[derive(Debug)]
pub struct Draft<'a> {
    pod: &'a Pod,
    rules: &'a Rules,
    cache: Option<&'a Cache>,
    /// The Secrets of a Pod that runs can't be changed any more.
    may_add_secrets: bool,
    images: Vec<PodImage>,
    /// Records in the annotations that are not true any more, unless their image is moved again.
    stale: BTreeSet<String>,
}

/// An image of a Pod that a rule concerns.
#[derive(Clone, Debug)]
pub struct PodImage {
    /// Its place in the Pod: a container's name, or `volume/NAME`.
    pub name: String,
    /// What is written in the Pod.
    pub image: String,
    /// Where in the JSON it stands (RFC 6901).
    pointer: String,
    goal: Goal,
}

/// What decides where an image goes.
#[derive(Clone, Debug)]
enum Goal {
    /// The rules.
    Ruled {
        reference: Reference,
        /// Number of the redirect that applies, and what it leads to.
        redirect: Option<(usize, String)>,
        /// Whether registries are asked: with `rewrite: best` only.
        is_asked_for: bool,
    },
    /// It runs already, and keeps the name that it was moved to, by this rule.
    Kept { image: String, rule: String },
}

/// Where an image goes.
struct Destination<'a> {
    to: String,
    rule: String,
    /// The Secret that comes with the rule.
    secret: Option<&'a str>,
}

impl<'a> Draft<'a> {
    /// Finds the images of `pod` that a rule concerns. `namespace` is the request's: in the Pod itself
    /// it may be missing.
    ///
    /// # Errors
    /// [`Skipped`] says why nothing is to be done.
    pub fn new(
        pod: &'a Pod,
        namespace: &str,
        operation: Operation<'_>,
        rules: &'a Rules,
        options: &'a PodSettings,
    ) -> Result<Self, Skipped> {
        if let Some(reason) = options.skips(pod, namespace) {
            return Err(reason);
        }
        let Some(spec) = &pod.spec else {
            return Err(Skipped::NoRule);
        };
        let draft = Self {
            pod,
            rules,
            cache: options.cache.as_ref(),
            may_add_secrets: matches!(operation, Operation::Create),
            images: Vec::new(),
            stale: BTreeSet::new(),
        };
        let originals = records(pod, super::ORIGINAL_IMAGES);
        let (places, before) = (places(spec), Before::of(operation));
        let moving = Moving {
            rules,
            cache: draft.cache,
        };
        let mut stale: BTreeSet<String> = originals.keys().cloned().collect();
        stale.extend(records(pod, super::RULES).into_keys());
        let mut images = Vec::new();
        for place in places {
            let original = originals.get(&place.name);
            let is_told = |original: &String| moving.moves(original, place.image).is_some();
            if before.has(&place) || original.is_some_and(is_told) {
                stale.remove(&place.name);
                continue;
            }
            let kept = before.moved(&place, moving);
            images.extend(match kept {
                Some((image, rule)) => Some(PodImage::kept(place, image, rule)),
                None => draft.ruled(place, options.rewrite),
            });
        }
        if images.is_empty() && stale.is_empty() {
            return Err(Skipped::NoRule);
        }
        Ok(Self {
            images,
            stale,
            ..draft
        })
    }

    /// The images that a rule concerns.
    pub fn images(&self) -> &[PodImage] {
        &self.images
    }

    /// Bytes that it has in memory beside the Pod, about.
    pub fn size(&self) -> usize {
        let images = self.images.iter().map(PodImage::size);
        let stale = self
            .stale
            .iter()
            .map(|name| 2 * size_of::<String>() + name.len());
        images.chain(stale).sum()
    }

    /// Who is to be asked for one of [`Draft::images`]; `None`: nobody. Made anew each time: a Pod may have 500
    /// images, and a plan is some kilobytes.
    pub fn plan(&self, image: &PodImage) -> Option<Arc<Plan>> {
        match &image.goal {
            Goal::Ruled {
                reference,
                is_asked_for: true,
                ..
            } => Some(Arc::new(Plan::new(self.rules, reference))),
            Goal::Ruled { .. } | Goal::Kept { .. } => None,
        }
    }

    /// How many candidates a plan may have.
    pub fn places_at_most(&self) -> usize {
        self.rules.registries.len() + 1
    }

    /// The patch. `answers` has, for each of [`Draft::images`], what the candidates of its plan are known to
    /// say; for an image that nobody was asked for it is empty. `None`: nothing changes.
    pub fn patch(&self, answers: &[Vec<Option<Verdict>>]) -> Option<Patch> {
        let mut moves = Vec::new();
        let mut secrets = BTreeSet::new();
        for (at, image) in self.images.iter().enumerate() {
            let answers = answers.get(at).map_or(&[][..], Vec::as_slice);
            let Some(destination) = self.destination(image, answers) else {
                continue;
            };
            secrets.extend(destination.secret);
            moves.push(Move {
                pointer: &image.pointer,
                name: &image.name,
                from: &image.image,
                to: destination.to,
                rule: destination.rule,
            });
        }
        if !self.may_add_secrets {
            secrets.clear();
        }
        Patch::new(self.pod, moves, &self.stale, secrets)
    }

    /// Where an image goes; `None`: it stays where it is.
    fn destination(
        &self,
        image: &PodImage,
        answers: &[Option<Verdict>],
    ) -> Option<Destination<'a>> {
        let (reference, redirect) = match &image.goal {
            Goal::Ruled {
                reference,
                redirect,
                ..
            } => (reference, redirect.as_ref()),
            Goal::Kept { image, rule } => {
                return Some(Destination {
                    to: image.clone(),
                    rule: rule.clone(),
                    secret: None,
                });
            }
        };
        let plan = self.plan(image).filter(|_| !answers.is_empty());
        let candidates = plan.iter().flat_map(|plan| &plan.candidates);
        let answered: Vec<_> = candidates.zip(answers.iter().copied()).collect();
        let said = |answer| {
            let answered = answered
                .iter()
                .filter(move |(_, said)| *said == Some(answer));
            answered.map(|(candidate, _)| (candidate.kind, candidate.image.as_str()))
        };
        // Rule 4: only a 404 rules the target out; not where the origin must never be pulled.
        let is_ruled_out = |target: &str| {
            self.rules.fallback_to_origin
                && said(Verdict::NotFound).any(|(_, image)| image == target)
        };
        let target = redirect
            .map(|(number, target)| (CandidateKind::Redirect(*number), target.as_str()))
            .filter(|(_, target)| !is_ruled_out(target));
        let place = said(Verdict::Found)
            .chain(target)
            .find(|(kind, to)| self.can_be_pulled(reference, *kind, to))
            .filter(|(_, to)| !is_same(to, reference));
        let Some((kind, to)) = place else {
            return Some(Destination {
                to: self.through_cache(reference, &image.image, false)?,
                rule: CACHE_RULE.to_owned(),
                secret: None,
            });
        };
        let (rule, secret) = rule_of(self.rules, kind);
        let wrapped = self.through_cache(reference, to, true);
        Some(Destination {
            to: wrapped.unwrap_or_else(|| to.to_owned()),
            rule,
            secret,
        })
    }

    /// Whether a node can pull an image from where it is to be moved to: the place may want a Secret, and that
    /// can't be added to a Pod that is there already. Its own name can perhaps be pulled without.
    fn can_be_pulled(&self, reference: &Reference, kind: CandidateKind, to: &str) -> bool {
        let (_, Some(secret)) = rule_of(self.rules, kind) else {
            return true;
        };
        let present = self.pod.pull_secrets().unwrap_or_default();
        self.may_add_secrets
            || present.iter().any(|present| present.name == secret)
            || is_same(to, reference)
            // The cache has credentials of its own.
            || self.through_cache(reference, to, true).is_some()
            // What is better left there must not be pulled at all.
            || !self.rules.fallback_to_origin
    }

    /// The name by which `to` is pulled through the cache, where `reference` is one that goes there.
    fn through_cache(&self, reference: &Reference, to: &str, is_moved: bool) -> Option<String> {
        let cache = self.cache?;
        let takes = cache.takes(reference, is_moved);
        takes.then(|| cache.prefix.wrap(to)).flatten()
    }

    /// The image at `place`, unless there is nothing to do: it is no name, it is filled in later, or no rule
    /// concerns it.
    fn ruled(&self, place: Place<'_>, rewrite: Rewrite) -> Option<PodImage> {
        let is_cached = |image: &str| {
            self.cache
                .is_some_and(|cache| cache.prefix.unwrap(image).is_some())
        };
        if !place.is_pulled || placeholder::is_placeholder(place.image) || is_cached(place.image) {
            return None;
        }
        let reference = Reference::parse(place.image).ok()?;
        let redirect = redirect::target(self.rules, &reference)
            .map(|(rule, target)| (rule.number, target.image));
        let is_asked_for = rewrite == Rewrite::Best
            && !redirect::is_settled(self.rules, &reference)
            && !Plan::new(self.rules, &reference).candidates.is_empty();
        let concerns = redirect.is_some()
            || is_asked_for
            || self
                .cache
                .is_some_and(|cache| cache.takes(&reference, false));
        concerns.then(|| PodImage {
            name: place.name,
            image: place.image.to_owned(),
            pointer: place.pointer,
            goal: Goal::Ruled {
                reference,
                redirect,
                is_asked_for,
            },
        })
    }
}

impl PodImage {
    fn size(&self) -> usize {
        let goal = match &self.goal {
            Goal::Ruled { redirect, .. } => {
                // As written, and once more in its parts.
                2 * self.image.len() + redirect.as_ref().map_or(0, |(_, target)| target.len())
            }
            Goal::Kept { image, rule } => image.len() + rule.len(),
        };
        size_of::<Self>() + self.name.len() + self.image.len() + self.pointer.len() + goal
    }

    fn kept(place: Place<'_>, image: &str, rule: String) -> Self {
        Self {
            name: place.name,
            image: place.image.to_owned(),
            pointer: place.pointer,
            goal: Goal::Kept {
                image: image.to_owned(),
                rule,
            },
        }
    }
}
