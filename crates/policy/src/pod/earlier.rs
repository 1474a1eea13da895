//! What was done to a Pod before: by an earlier call for the same request (`reinvocationPolicy: IfNeeded`), or
//! when it was created.

use std::collections::BTreeMap;

use super::ORIGINAL_IMAGES;
use super::patch::records;
use super::places::{Place, places};
use super::rule_names::{CACHE_RULE, rule_of};
use super::scope::Operation;
use crate::cache_images::Cache;
use crate::plan::CandidateKind;
use crate::rules::Rules;
use crate::{Plan, Reference, redirect};

/// The Pod as it was before the request.
#[derive(Debug, Default)]
pub(super) struct Before<'p> {
    /// By the name of their place.
    images: BTreeMap<String, &'p str>,
    /// What stood there before, as recorded.
    originals: BTreeMap<String, String>,
}

impl<'p> Before<'p> {
    pub(super) fn of(operation: Operation<'p>) -> Self {
        match operation {
            Operation::Create => Self::default(),
            Operation::Update { old } => {
                let places = old.spec.iter().flat_map(places);
                Self {
                    images: places.map(|place| (place.name, place.image)).collect(),
                    originals: records(old, ORIGINAL_IMAGES),
                }
            }
        }
    }

    /// Whether the request leaves the image at `place` as it was.
    pub(super) fn has(&self, place: &Place<'_>) -> bool {
        self.images.get(&place.name) == Some(&place.image)
    }

    /// The image that was at `place`, and the rule that had moved it there, where the request puts back the name
    /// that it was moved from. `kubectl apply` of an unchanged file does that with every image that we have
    /// moved. The container runs, and would be restarted by another name, so it keeps the one that it has,
    /// whatever registries say today.
    pub(super) fn moved(&self, place: &Place<'_>, rules: Moving<'_>) -> Option<(&'p str, String)> {
        let (image, original) = (
            self.images.get(&place.name)?,
            self.originals.get(&place.name)?,
        );
        let written = Reference::parse(place.image).ok()?;
        if !place.is_pulled || !is_same(original, &written) {
            return None;
        }
        let rule = rules.moves(original, image)?;
        Some((image, rule))
    }
}

/// What moves images.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moving<'r> {
    pub(super) rules: &'r Rules,
    pub(super) cache: Option<&'r Cache>,
}

impl Moving<'_> {
    /// The rule by which `image` is where it is, where we have moved it there from `original`, or led it through
    /// the cache. A target is never redirected again, also not by a later call for the same Pod, and also not
    /// when another webhook has pinned its digest in between.
    pub(super) fn moves(self, original: &str, image: &str) -> Option<String> {
        let inner = self.cache.and_then(|cache| cache.prefix.unwrap(image));
        let image = Reference::parse(inner.as_deref().unwrap_or(image)).ok()?;
        let original = Reference::parse(original).ok()?;
        if is_one_repository(&image, &original) {
            // Who put the original's name back wants the rules applied.
            let is_led_through = inner.is_some() && is_pinned_from(&original, &image);
            return is_led_through.then(|| CACHE_RULE.to_owned());
        }
        let kind = self.leads_to(&original, &image)?;
        Some(rule_of(self.rules, kind).0)
    }

    /// The rule that leads from `original` to `image`.
    fn leads_to(self, original: &Reference, image: &Reference) -> Option<CandidateKind> {
        let leads = |name: &str| Reference::parse(name).is_ok_and(|n| is_pinned_from(&n, image));
        let target = redirect::target(self.rules, original);
        let target = target.filter(|(_, target)| leads(&target.image));
        if let Some((rule, _)) = target {
            return Some(CandidateKind::Redirect(rule.number));
        }
        let candidates = Plan::new(self.rules, original).candidates;
        let candidate = candidates.into_iter().find(|c| leads(&c.image))?;
        Some(candidate.kind)
    }
}

/// Whether a text names this image.
pub(super) fn is_same(image: &str, reference: &Reference) -> bool {
    Reference::parse(image).is_ok_and(|image| image.canonical() == reference.canonical())
}

fn is_one_repository(one: &Reference, other: &Reference) -> bool {
    one.domain() == other.domain() && one.repository() == other.repository()
}

/// Whether `image` is `name`, or `name` with a digest beside its tag or in place of it. Another tag is another
/// image, which somebody has chosen since.
fn is_pinned_from(name: &Reference, image: &Reference) -> bool {
    let is_version = match (name.digest(), image.digest()) {
        (None, Some(_)) => image.tag().is_none_or(|tag| tag == name.manifest()),
        _ => name.suffix() == image.suffix(),
    };
    is_version && is_one_repository(name, image)
}
