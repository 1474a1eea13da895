//! Redirects: prefix rules that change where the origin of an image is (rules 3 and 4).

use crate::name::{self, Name, NameError};
use crate::rules::{Redirect, Rules};
use crate::{Endpoint, Reference};

/// The rule that applies to `reference`, and the name that it leads to or why there is none.
///
/// Whole path segments match, longest `src` first. A name that is below a rule's target already
/// is left alone, so that applying the rules twice is applying them once.
pub(crate) fn find<'r>(
    rules: &'r Rules,
    reference: &Reference,
) -> Option<(&'r Redirect, Result<Name, NameError>)> {
    if is_settled(rules, reference) {
        return None;
    }
    rules.redirects.iter().find_map(|rule| {
        let remainder = remainder(rule, reference)?;
        let repository = match (rule.to.path(), remainder.as_str()) {
            ("", "") => return None,
            (path, "") => path.to_owned(),
            ("", rest) => rest.to_owned(),
            (path, rest) => format!("{path}/{rest}"),
        };
        let name = name::made(&rule.to.domain(), &repository, &reference.suffix());
        Some((rule, name))
    })
}

/// The rule that applies to `reference`, and the name that it leads to.
pub(crate) fn target<'r>(rules: &'r Rules, reference: &Reference) -> Option<(&'r Redirect, Name)> {
    let (rule, name) = find(rules, reference)?;
    // What can't be a name (too long, say) is no target; the request goes on as it came.
    Some((rule, name.ok()?))
}

/// Whether `reference` is below a rule's target already.
pub(crate) fn is_settled(rules: &Rules, reference: &Reference) -> bool {
    rules
        .redirects
        .iter()
        .any(|rule| at_target(&rule.to, reference))
}

fn at_target(to: &Endpoint, reference: &Reference) -> bool {
    to.domain() == reference.domain()
        && !to.path().is_empty()
        && after_segments(reference.repository(), to.path()).is_some()
}

/// What of the repository follows `src`: as the user wrote it, or canonical where the rule wants
/// that or where only the canonical name has the prefix (`docker.io/library/` and `nginx`).
fn remainder(rule: &Redirect, reference: &Reference) -> Option<String> {
    if rule.src_domain != reference.domain() {
        return None;
    }
    let canonical = after_segments(reference.repository(), &rule.src_path);
    let written = after_segments(reference.written_repository(), &rule.src_path);
    if rule.canonical {
        canonical.or(written)
    } else {
        written.or(canonical)
    }
    .map(ToOwned::to_owned)
}

/// What follows `prefix` and its `/`, where `prefix` ends at a segment's end.
fn after_segments<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    if prefix.is_empty() {
        return Some(text);
    }
    match text.strip_prefix(prefix)? {
        "" => Some(""),
        rest => rest.strip_prefix('/'),
    }
}

#[cfg(test)]
mod tests;
