//! The images of a Pod that may be moved, and where to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cache_prefix::CachePrefix;
use super::object::{Container, Pod, Spec};
use super::patch::{Move, Patch};
use super::scope::{LeftAlone, Operation, Options};
use crate::config::Rewrite;
use crate::plan::{Candidate, Role};
use crate::rules::{Origin, Rules};
use crate::{Plan, Reference, redirect};

/// What may be done to a Pod. Decided without any I/O; who probes hands what was found to
/// [`Draft::patch`].
#[derive(Debug)]
pub struct Draft<'a> {
    pod: &'a Pod,
    rules: &'a Rules,
    cache: Option<&'a CachePrefix>,
    /// The Secrets of a Pod that runs can't be changed any more.
    may_add_secrets: bool,
    images: Vec<PodImage>,
}

/// An image of a Pod that a rule concerns.
#[derive(Clone, Debug)]
pub struct PodImage {
    /// Its place in the Pod: a container's name, or `volume/NAME`.
    pub name: String,
    /// What is written in the Pod.
    pub image: String,
    /// Where it may come from.
    pub plan: Arc<Plan>,
    /// Where in the JSON it stands (RFC 6901).
    pointer: String,
    /// Number of the redirect that applies, and what it leads to.
    redirect: Option<(usize, String)>,
}

/// A place in a Pod where a reference stands.
struct Place<'p> {
    pointer: String,
    name: String,
    image: &'p str,
}

impl<'a> Draft<'a> {
    /// Finds the images of `pod` that a rule concerns. `namespace` is the request's: in the Pod itself
    /// it may be missing.
    ///
    /// # Errors
    /// [`LeftAlone`] says why nothing is to be done.
    pub fn new(
        pod: &'a Pod,
        namespace: &str,
        operation: Operation<'_>,
        rules: &'a Rules,
        options: &'a Options,
    ) -> Result<Self, LeftAlone> {
        if let Some(reason) = options.spares(pod, namespace) {
            return Err(reason);
        }
        let Some(spec) = &pod.spec else {
            return Err(LeftAlone::NoRule);
        };
        let draft = Self {
            pod,
            rules,
            cache: options.cache_prefix.as_ref(),
            may_add_secrets: matches!(operation, Operation::Create),
            images: Vec::new(),
        };
        let records = records(pod, super::ORIGINAL_IMAGES);
        let places = match operation {
            Operation::Create => every_place(spec),
            Operation::EphemeralContainers { old } => new_ephemeral(spec, old),
        };
        let images: Vec<_> = places
            .into_iter()
            .filter_map(|place| {
                let original = records.get(&place.name).map(String::as_str);
                draft.image(place, original, options.rewrite)
            })
            .collect();
        if images.is_empty() {
            return Err(LeftAlone::NoRule);
        }
        Ok(Self { images, ..draft })
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
                .and_then(|at| image.plan.candidates.get(at));
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
        Patch::new(self.pod, moves, secrets)
    }

    /// Where an image goes: its new name, the rule, and the Secret that the rule comes with.
    fn destination(
        &self,
        image: &PodImage,
        candidate: Option<&Candidate>,
    ) -> Option<(String, String, Option<&'a str>)> {
        let (role, to) = match (candidate, &image.redirect) {
            (Some(candidate), _) => (candidate.role, candidate.image.as_str()),
            (None, Some((number, target))) => (Role::Redirect(*number), target.as_str()),
            (None, None) => return None,
        };
        let wrapped = self.cache.and_then(|cache| cache.wrap(to));
        if wrapped.is_none() && is_same(to, &image.plan) {
            return None;
        }
        let (rule, secret) = self.rule(role);
        Some((wrapped.unwrap_or_else(|| to.to_owned()), rule, secret))
    }

    fn rule(&self, role: Role) -> (String, Option<&'a str>) {
        match role {
            Role::Redirect(number) => {
                let rule = self.rules.redirects.iter().find(|r| r.number == number);
                let name = rule.and_then(|rule| rule.name.clone());
                let name = name.unwrap_or_else(|| format!("imageRedirMapping[{number}]"));
                (name, rule.and_then(|rule| rule.pull_secret.as_deref()))
            }
            Role::Registry(origin) => {
                let registry = self.rules.registries.iter().find(|r| r.origin == origin);
                let name = match origin {
                    Origin::Offline => "address".to_owned(),
                    Origin::NodeCache => "useNodeCache".to_owned(),
                    Origin::Listed(number) => format!("registries[{number}]"),
                };
                (name, registry.and_then(|r| r.pull_secret.as_deref()))
            }
        }
    }

    /// The image at `place`, unless there is nothing to do: it is no name, it was moved already, or no
    /// rule concerns it. `original` is what our annotation says that it was.
    fn image(
        &self,
        place: Place<'_>,
        original: Option<&str>,
        rewrite: Rewrite,
    ) -> Option<PodImage> {
        let reference = Reference::parse(place.image).ok()?;
        let cached = |cache: &CachePrefix| cache.unwrap(place.image).is_some();
        if self.cache.is_some_and(cached)
            || original.is_some_and(|original| self.leads_to(original, &reference))
            || redirect::is_settled(self.rules, &reference)
        {
            return None;
        }
        let redirect = redirect::target(self.rules, &reference)
            .map(|(rule, target)| (rule.number, target.image));
        if redirect.is_none() && rewrite == Rewrite::Redirect {
            return None;
        }
        let plan = Plan::new(self.rules, &reference);
        let concerns = redirect.is_some() || !plan.candidates.is_empty();
        concerns.then(|| PodImage {
            name: place.name,
            image: place.image.to_owned(),
            plan: Arc::new(plan),
            pointer: place.pointer,
            redirect,
        })
    }

    /// Whether the rules lead from `original` to where `image` is. Then it was moved already: a target is
    /// never redirected again, also not by a later call for the same Pod (`reinvocationPolicy: IfNeeded`),
    /// and also not when another webhook has pinned its digest in between.
    fn leads_to(&self, original: &str, image: &Reference) -> bool {
        let Ok(original) = Reference::parse(original) else {
            return false;
        };
        let is_at = |other: &Reference| {
            other.domain() == image.domain() && other.repository() == image.repository()
        };
        // Who put the original's name back wants the rules applied.
        if is_at(&original) {
            return false;
        }
        let target = redirect::target(self.rules, &original);
        let plan = Plan::new(self.rules, &original);
        let names = plan.candidates.iter().map(|candidate| &candidate.image);
        names
            .chain(target.as_ref().map(|(_, target)| &target.image))
            .any(|name| Reference::parse(name).is_ok_and(|name| is_at(&name)))
    }
}

impl PodImage {
    /// Whether a redirect applies, so that there is a place to go to without asking anybody.
    pub fn is_redirected(&self) -> bool {
        self.redirect.is_some()
    }
}

fn is_same(image: &str, plan: &Plan) -> bool {
    Reference::parse(image).is_ok_and(|image| image.canonical() == plan.key)
}

fn every_place(spec: &Spec) -> Vec<Place<'_>> {
    let mut places = Vec::new();
    for (kind, containers) in [
        ("initContainers", &spec.init_containers),
        ("containers", &spec.containers),
        ("ephemeralContainers", &spec.ephemeral_containers),
    ] {
        places.extend(of_containers(kind, containers.as_deref(), &|_| true));
    }
    let volumes = spec.volumes.iter().flatten().enumerate();
    places.extend(volumes.filter_map(|(at, volume)| {
        let image = volume.image.as_ref()?;
        let reference = image.reference.as_deref()?;
        is_pulled(image.pull_policy.as_deref()).then(|| Place {
            pointer: format!("/spec/volumes/{at}/image/reference"),
            name: format!("volume/{}", volume.name),
            image: reference,
        })
    }));
    places
}

fn new_ephemeral<'p>(spec: &'p Spec, old: &Pod) -> Vec<Place<'p>> {
    let old = old
        .spec
        .iter()
        .flat_map(|spec| spec.ephemeral_containers.iter().flatten());
    let known: BTreeSet<&str> = old.map(|container| container.name.as_str()).collect();
    let is_new = |name: &str| !known.contains(name);
    let containers = spec.ephemeral_containers.as_deref();
    of_containers("ephemeralContainers", containers, &is_new)
}

fn of_containers<'p>(
    kind: &str,
    containers: Option<&'p [Container]>,
    wanted: &dyn Fn(&str) -> bool,
) -> Vec<Place<'p>> {
    let containers = containers.unwrap_or_default().iter().enumerate();
    containers
        .filter(|(_, container)| wanted(&container.name))
        .filter(|(_, container)| is_pulled(container.image_pull_policy.as_deref()))
        .filter_map(|(at, container)| {
            Some(Place {
                pointer: format!("/spec/{kind}/{at}/image"),
                name: container.name.clone(),
                image: container.image.as_deref()?,
            })
        })
        .collect()
}

/// With `Never` the image is on the node already, under the name that is written.
fn is_pulled(policy: Option<&str>) -> bool {
    policy != Some("Never")
}

/// What an annotation of ours holds. One that can't be read, as when people edit it, is empty.
pub(super) fn records(pod: &Pod, annotation: &str) -> BTreeMap<String, String> {
    pod.annotation(annotation)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}
