//! The images of a Pod that may be moved, and where to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::bounded::{Few, ImageVolumes};
use super::object::{Pod, Spec};
use super::patch::{Move, Patch, records};
use super::scope::{Operation, PodSettings, Skipped};
use crate::cache_images::Cache;
use crate::config::Rewrite;
use crate::plan::{Candidate, CandidateKind};
use crate::rules::{EntryKind, Redirect, Rules};
use crate::{Plan, Reference, placeholder, redirect};

/// What may be done to a Pod. Decided without any I/O; who probes hands what was found to
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
    /// Where it may come from; only with `rewrite: best`, where somebody is asked.
    pub plan: Option<Arc<Plan>>,
    /// Where in the JSON it stands (RFC 6901).
    pointer: String,
    reference: Reference,
    /// Number of the redirect that applies, and what it leads to.
    redirect: Option<(usize, String)>,
}

/// A place in a Pod where a reference stands.
struct Place<'p> {
    pointer: String,
    name: String,
    image: &'p str,
    /// Whether it is pulled: with `Never` it is on the node already, under the name that is written.
    is_pulled: bool,
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
        let (places, old) = (places(spec), unchanged(operation));
        let mut stale: BTreeSet<String> = originals.keys().cloned().collect();
        stale.extend(records(pod, super::RULES).into_keys());
        let mut images = Vec::new();
        for place in places {
            let original = originals.get(&place.name).map(String::as_str);
            let is_as_it_was = old.get(place.name.as_str()) == Some(&place.image);
            let is_told = original.is_some_and(|original| draft.is_told(original, place.image));
            if is_as_it_was || is_told {
                stale.remove(&place.name);
                continue;
            }
            images.extend(draft.image(place, options.rewrite));
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

    /// The patch. `chosen` has, for each of [`Draft::images`], the candidate of its plan that was found
    /// to have it; where there is none, the redirect applies. `None`: nothing changes.
    pub fn patch(&self, chosen: &[Option<usize>]) -> Option<Patch> {
        let mut moves = Vec::new();
        let mut secrets = BTreeSet::new();
        for (at, image) in self.images.iter().enumerate() {
            let candidate = chosen
                .get(at)
                .copied()
                .flatten()
                .and_then(|at| image.plan.as_ref()?.candidates.get(at));
            let Some((to, rule, secret)) = self.destination(image, candidate) else {
                continue;
            };
            secrets.extend(secret);
            moves.push(Move {
                pointer: &image.pointer,
                name: &image.name,
                from: &image.image,
                to,
                rule,
            });
        }
        if !self.may_add_secrets {
            secrets.clear();
        }
        Patch::new(self.pod, moves, &self.stale, secrets)
    }

    /// Where an image goes: its new name, the rule, and the Secret that the rule comes with.
    fn destination(
        &self,
        image: &PodImage,
        candidate: Option<&Candidate>,
    ) -> Option<(String, String, Option<&'a str>)> {
        let place = match (candidate, &image.redirect) {
            (Some(candidate), _) => Some((candidate.kind, candidate.image.as_str())),
            (None, Some((number, target))) => {
                Some((CandidateKind::Redirect(*number), target.as_str()))
            }
            (None, None) => None,
        };
        let place = place.filter(|(_, to)| !is_same(to, &image.reference));
        let cache = self
            .cache
            .filter(|cache| cache.takes(&image.reference, place.is_some()));
        let to = place.map_or(image.image.as_str(), |(_, to)| to);
        let wrapped = cache.and_then(|cache| cache.prefix.wrap(to));
        let (rule, secret) = match place {
            Some((role, _)) => self.rule(role),
            None => (CACHE_RULE.to_owned(), None),
        };
        match (wrapped, place) {
            (Some(wrapped), _) => Some((wrapped, rule, secret)),
            (None, Some((_, to))) => Some((to.to_owned(), rule, secret)),
            (None, None) => None,
        }
    }

    /// The name of a rule, and the Secret that comes with it.
    fn rule(&self, kind: CandidateKind) -> (String, Option<&'a str>) {
        match kind {
            CandidateKind::Redirect(number) => {
                let rule = self.rules.redirects.iter().find(|r| r.number == number);
                let name = rule.map_or_else(|| redirect_name(number, None), name_of_redirect);
                (name, rule.and_then(|rule| rule.pull_secret.as_deref()))
            }
            CandidateKind::Registry(entry) => {
                let registry = self.rules.registries.iter().find(|r| r.kind == entry);
                let secret = registry.and_then(|r| r.pull_secret.as_deref());
                (name_of_registry(entry), secret)
            }
        }
    }

    /// Whether `image` is where it is because we moved it there from `original`, or led it through the
    /// cache.
    fn is_told(&self, original: &str, image: &str) -> bool {
        let inner = self.cache.and_then(|cache| cache.prefix.unwrap(image));
        let image = Reference::parse(inner.as_deref().unwrap_or(image));
        let original = Reference::parse(original);
        let (Ok(image), Ok(original)) = (image, original) else {
            return false;
        };
        if is_at(&image, &original) {
            // Who put the original's name back wants the rules applied.
            return inner.is_some();
        }
        self.leads_to(&original, &image)
    }

    fn is_through_cache(&self, image: &str) -> bool {
        self.cache
            .is_some_and(|cache| cache.prefix.unwrap(image).is_some())
    }

    /// The image at `place`, unless there is nothing to do: it is no name, it is filled in later, or no rule
    /// concerns it.
    fn image(&self, place: Place<'_>, rewrite: Rewrite) -> Option<PodImage> {
        if !place.is_pulled
            || placeholder::is_placeholder(place.image)
            || self.is_through_cache(place.image)
        {
            return None;
        }
        let reference = Reference::parse(place.image).ok()?;
        let is_settled = redirect::is_settled(self.rules, &reference);
        let redirect = redirect::target(self.rules, &reference)
            .map(|(rule, target)| (rule.number, target.image));
        let plan = match rewrite {
            Rewrite::Best if !is_settled => Some(Arc::new(Plan::new(self.rules, &reference))),
            Rewrite::Best | Rewrite::Redirect => None,
        };
        let is_cached = || {
            self.cache
                .is_some_and(|cache| cache.takes(&reference, false))
        };
        let has_candidates = plan
            .as_ref()
            .is_some_and(|plan| !plan.candidates.is_empty());
        let concerns = redirect.is_some() || has_candidates || is_cached();
        concerns.then(|| PodImage {
            name: place.name,
            image: place.image.to_owned(),
            plan,
            pointer: place.pointer,
            reference,
            redirect,
        })
    }

    /// Whether the rules lead from `original` to where `image` is. Then it was moved already: a target is
    /// never redirected again, also not by a later call for the same Pod (`reinvocationPolicy: IfNeeded`),
    /// and also not when another webhook has pinned its digest in between.
    fn leads_to(&self, original: &Reference, image: &Reference) -> bool {
        let target = redirect::target(self.rules, original);
        let plan = Plan::new(self.rules, original);
        let names = plan.candidates.iter().map(|candidate| &candidate.image);
        names
            .chain(target.as_ref().map(|(_, target)| &target.image))
            .any(|name| Reference::parse(name).is_ok_and(|name| is_at(&name, image)))
    }
}

/// Whether two names are of one repository.
fn is_at(one: &Reference, other: &Reference) -> bool {
    one.domain() == other.domain() && one.repository() == other.repository()
}

/// What an image is recorded to have been moved by that goes through the cache only.
const CACHE_RULE: &str = "cache.prefix";

/// All rules that can move an image, by the names that they are recorded by.
pub fn rule_names(rules: &Rules, options: &PodSettings) -> Vec<String> {
    let redirects = rules.redirects.iter().map(name_of_redirect);
    let registries = rules.registries.iter().map(|r| name_of_registry(r.kind));
    let registries = registries.filter(|_| options.rewrite == Rewrite::Best);
    let cache = options.cache.iter().map(|_| CACHE_RULE.to_owned());
    redirects.chain(registries).chain(cache).collect()
}

fn name_of_redirect(rule: &Redirect) -> String {
    redirect_name(rule.number, rule.name.as_deref())
}

fn redirect_name(number: usize, name: Option<&str>) -> String {
    name.map_or_else(|| format!("imageRedirMapping[{number}]"), ToOwned::to_owned)
}

fn name_of_registry(entry: EntryKind) -> String {
    match entry {
        EntryKind::Offline => "address".to_owned(),
        EntryKind::NodeCache => "useNodeCache".to_owned(),
        EntryKind::Listed(number) => format!("registries[{number}]"),
    }
}

impl PodImage {
    /// Whether a redirect applies, so that there is a place to go to without asking anybody.
    pub fn is_redirected(&self) -> bool {
        self.redirect.is_some()
    }
}

fn is_same(image: &str, reference: &Reference) -> bool {
    Reference::parse(image).is_ok_and(|image| image.canonical() == reference.canonical())
}

fn places(spec: &Spec) -> Vec<Place<'_>> {
    let mut places = Vec::new();
    for (kind, containers) in spec.containers() {
        let containers = containers.map_or(&[][..], Few::kept).iter().enumerate();
        places.extend(containers.filter_map(|(at, container)| {
            Some(Place {
                pointer: format!("/spec/{kind}/{at}/image"),
                name: container.name.clone(),
                image: container.image.as_deref()?,
                is_pulled: is_pulled(container.image_pull_policy.as_deref()),
            })
        }));
    }
    let volumes = spec.volumes.as_ref().map_or(&[][..], ImageVolumes::kept);
    places.extend(volumes.iter().filter_map(|(at, name, image)| {
        Some(Place {
            pointer: format!("/spec/volumes/{at}/image/reference"),
            name: format!("volume/{name}"),
            image: image.reference.as_deref()?,
            is_pulled: is_pulled(image.pull_policy.as_deref()),
        })
    }));
    places
}

/// The images that stood there before, by their place's name.
fn unchanged(operation: Operation<'_>) -> BTreeMap<String, &str> {
    match operation {
        Operation::Create => BTreeMap::new(),
        Operation::Update { old } => {
            let places = old.spec.iter().flat_map(places);
            places.map(|place| (place.name, place.image)).collect()
        }
    }
}

fn is_pulled(policy: Option<&str>) -> bool {
    policy != Some("Never")
}
