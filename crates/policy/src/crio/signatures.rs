//! containers-policy.json(5): which signatures an image must have, judged by the name that it is pulled by.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Place;

/// A signature policy. The default demands nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SignaturePolicy {
    default: Demand,
    /// Demands for `host[:port][/path]` and `*.domain`.
    scopes: BTreeMap<String, Demand>,
}

/// What is demanded of images, the strictest of the requirements that stand together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Demand {
    #[default]
    Nothing,
    Signature,
    Rejected,
}

#[derive(Deserialize)]
struct File {
    default: Vec<Requirement>,
    #[serde(default)]
    transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
}

#[derive(Deserialize)]
struct Requirement {
    r#type: String,
}

impl SignaturePolicy {
    /// Reads `policy.json`.
    ///
    /// # Errors
    /// The line that is no JSON of a policy.
    pub(super) fn read(text: &str) -> Result<Self, usize> {
        let file: File = serde_json::from_str(text.trim_start_matches('\u{feff}'))
            .map_err(|error| error.line())?;
        let docker = file
            .transports
            .into_iter()
            .find(|(name, _)| name == "docker");
        let mut scopes: BTreeMap<String, Demand> = BTreeMap::new();
        for (scope, requirements) in docker.into_iter().flat_map(|(_, scopes)| scopes) {
            scopes.insert(scope, demand(&requirements));
        }
        // The transport's own default is written as the empty scope.
        let default = scopes.remove("").unwrap_or_else(|| demand(&file.default));
        Ok(Self { default, scopes })
    }

    /// What to know about images that come from a place.
    pub(super) fn hints(&self, place: &Place<'_>) -> Vec<String> {
        let mirror = place.endpoint.domain();
        let at_mirror = self.of(&mirror, place.endpoint.path());
        let mut hints = Vec::new();
        if at_mirror == Demand::Rejected {
            hints.push(format!(
                "policy.json rejects images of {mirror}, so none can be pulled from there"
            ));
            return hints;
        }
        if at_mirror == Demand::Signature {
            hints.push(format!(
                "policy.json demands signatures of {mirror}'s own: signatures for an image's first name do not count \
                 there, unless the requirement's `signedIdentity` is `remapIdentity`"
            ));
        }
        for (scope, demand) in &self.scopes {
            if *demand <= at_mirror || !may_serve(place, scope) || is_within(&mirror, scope) {
                continue;
            }
            hints.push(match demand {
                Demand::Rejected => format!(
                    "policy.json rejects {scope}, but CRI-O judges an image by the name that it is pulled by: an image of \
                     {scope} that comes from {mirror} is pulled. Reject {mirror} too, if that must not be"
                ),
                _ => format!(
                    "policy.json demands signatures of {scope}, but CRI-O judges an image by the name that it is pulled \
                     by: one from {mirror} is pulled unchecked, and its container may fail to be created. Demand the \
                     same of {mirror}, and set `use-sigstore-attachments: true` for it in /etc/containers/registries.d"
                ),
            });
        }
        hints
    }

    /// What is demanded at `host/path`: the longest scope that fits decides.
    fn of(&self, host: &str, path: &str) -> Demand {
        let name = match path.is_empty() {
            true => host.to_owned(),
            false => format!("{host}/{path}"),
        };
        let scopes = self
            .scopes
            .iter()
            .filter(|(scope, _)| is_within(&name, scope));
        let longest = scopes.max_by_key(|(scope, _)| scope.len());
        longest.map_or(self.default, |(_, demand)| *demand)
    }
}

fn demand(requirements: &[Requirement]) -> Demand {
    let demands = requirements
        .iter()
        .map(|requirement| match requirement.r#type.as_str() {
            "insecureAcceptAnything" => Demand::Nothing,
            "reject" => Demand::Rejected,
            _ => Demand::Signature,
        });
    demands.max().unwrap_or_default()
}

/// Whether a name is in a scope: `*.domain`, or the name or one of its beginnings.
fn is_within(name: &str, scope: &str) -> bool {
    if let Some(parent) = scope.strip_prefix('*') {
        let host = name.split('/').next().unwrap_or(name);
        return host.ends_with(parent);
    }
    name.strip_prefix(scope)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a place may have images of the scope's host.
fn may_serve(place: &Place<'_>, scope: &str) -> bool {
    let host = scope.split('/').next().unwrap_or(scope);
    match (&place.hosts, host.strip_prefix('*')) {
        (None, _) => true,
        (Some(hosts), Some(parent)) => hosts.iter().any(|served| served.ends_with(parent)),
        (Some(hosts), None) => hosts.contains(&host),
    }
}
