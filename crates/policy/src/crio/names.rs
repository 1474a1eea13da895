//! Images that CRI-O knows by a name: those that it keeps, and its own.

use super::CrioConfig;
use crate::rules::Rules;
use crate::{Plan, Reference};

/// What CRI-O uses where its config names no pause image.
const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10";

impl CrioConfig {
    /// Pinned images are kept by the name that they were pulled by.
    pub(super) fn pinned(&self, rules: &Rules) -> Vec<String> {
        let mut hints = Vec::new();
        for pinned in &self.pinned_images {
            let names = names(rules, pinned);
            let missing: Vec<_> = names.iter().filter(|name| !self.is_pinned(name)).collect();
            if let Some(first) = missing.first() {
                hints.push(format!(
                    "`pinned_images` of crio.conf lists {pinned}; an image that came from a mirror has the mirror's \
                     name: list {first} too, or kubelet may remove it"
                ));
            }
        }
        hints
    }

    /// The pause image is pulled by CRI-O itself, so no rule applies to it.
    pub(super) fn pause(&self, rules: &Rules) -> Option<String> {
        let pause = self.pause_image.as_deref().unwrap_or(PAUSE_IMAGE);
        let names = names(rules, pause);
        let first = names.first()?;
        Some(format!(
            "CRI-O pulls the pause image {pause} itself, without these rules; where its registry can't be reached, \
             write `pause_image = \"{first}\"` into /etc/crio/crio.conf.d/"
        ))
    }

    /// Whether a pattern of the list has this name: whole, by its beginning (`x*`) or by a part (`*x*`).
    fn is_pinned(&self, name: &str) -> bool {
        self.pinned_images.iter().any(|pattern| {
            let pattern = pattern.trim();
            match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
                (Some(rest), Some(_)) => name.contains(rest.trim_end_matches('*')),
                (None, Some(start)) => name.starts_with(start),
                _ => pattern == name,
            }
        })
    }
}

/// The names that `image` may have once it came from a place of the rules; none where it stays where it is.
fn names(rules: &Rules, image: &str) -> Vec<String> {
    let Ok(reference) = Reference::parse(image.trim()) else {
        return Vec::new();
    };
    let plan = Plan::new(rules, &reference);
    let same = reference.canonical();
    let others = plan.candidates.into_iter().filter(|candidate| {
        Reference::parse(&candidate.image).is_ok_and(|name| name.canonical() != same)
    });
    others.map(|candidate| candidate.image).collect()
}
