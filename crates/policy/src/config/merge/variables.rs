//! Which variables of the node's environment a ConfigMap may name (`configMapEnv`).
//!
//! It is decided where the ConfigMap is merged: in the local file nobody could tell any more where a
//! `${NAME}` came from.

use crate::config::fields::Located;
use crate::config::raw::{RawAuth, RawConfig, RawConfigMapEnv, is_variable};

/// Takes every credential out of what a ConfigMap says that names a variable it may not name. The result
/// is a warning for each.
pub(super) fn keep_allowed(
    theirs: &mut RawConfig,
    allowed: Option<&Located<RawConfigMapEnv>>,
) -> Vec<String> {
    let names = match allowed.map(|allowed| &allowed.value) {
        None | Some(RawConfigMapEnv::All) => return Vec::new(),
        Some(RawConfigMapEnv::Names(names)) => names,
    };
    let mut warnings = Vec::new();
    let mut check = |auth: &mut Option<Located<RawAuth>>, field: &str| {
        let texts = auth.as_ref().map(|auth| auth.value.texts());
        if let Some(name) = forbidden(texts.into_iter().flatten(), names) {
            warnings.push(left_out(field, &name));
            *auth = None;
        }
    };
    check(&mut theirs.auth, "sealos.auth");
    let entries = theirs
        .registries
        .iter_mut()
        .flat_map(|list| &mut list.value);
    for (at, entry) in entries.enumerate() {
        check(&mut entry.auth, &format!("registries[{}].auth", at + 1));
    }
    let entries = theirs.redirects.iter_mut().flat_map(|list| &mut list.value);
    for (at, entry) in entries.enumerate() {
        check(
            &mut entry.auth,
            &format!("imageRedirMapping[{}].auth", at + 1),
        );
    }
    if let Some(s3) = &mut theirs.node_cache.s3
        && let Some(credentials) = &s3.value.credentials
    {
        let texts = credentials.value.parts().map(|(_, text)| text);
        if let Some(name) = forbidden(texts.into_iter(), names) {
            warnings.push(left_out("nodeCache.store.s3.credentials", &name));
            s3.value.credentials = None;
        }
    }
    warnings
}

fn left_out(field: &str, name: &str) -> String {
    format!(
        "the ConfigMap's {field} names the variable {name}, which `configMapEnv` of the local file doesn't allow; it is left out"
    )
}

/// The first variable in `texts` that is not one of `allowed`.
fn forbidden<'t>(texts: impl Iterator<Item = &'t str>, allowed: &[String]) -> Option<String> {
    texts
        .flat_map(|text| text.split("${").skip(1))
        .filter_map(|rest| rest.split_once('}'))
        .map(|(name, _)| name)
        .find(|name| is_variable(name) && !allowed.iter().any(|allowed| allowed == name))
        .map(ToOwned::to_owned)
}
