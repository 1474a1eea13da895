//! What the config says to the admission webhook alone.

use super::diagnostic::Diagnostic;
use super::fields::Located;
use super::raw::{RawCache, RawConfig};
use crate::cache_images::{Cache, CachedImages};
use crate::cache_prefix::CachePrefix;
use crate::glob::Glob;

/// What the webhook does with an image that a rule concerns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rewrite {
    /// Its redirect, and nothing else; no network on the admission path. The default.
    #[default]
    Redirect,
    /// The first candidate of the plan that has it, asked for as the shim asks; else its redirect.
    Best,
}

/// What the config says to the admission webhook alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookSettings {
    /// `rewrite`. Default `redirect`.
    pub rewrite: Rewrite,
    /// `excludeNamespaces`: namespaces whose Pods are left alone. `None` is the default:
    /// `kube-system` and the webhook's own.
    pub exclude_namespaces: Option<Vec<String>>,
    /// `cache.prefix`, `images`, `include`, `exclude`: which images are led through the node cache, and
    /// where that is. Default none.
    pub cache: Option<Cache>,
}

impl WebhookSettings {
    pub(super) fn read(raw: &RawConfig, findings: &mut Vec<Diagnostic>) -> Self {
        Self {
            rewrite: rewrite(raw.rewrite.as_ref(), findings),
            exclude_namespaces: raw.exclude_namespaces.as_ref().map(|list| {
                let names = list.value.iter();
                names
                    .map(|name| name.value.trim().to_owned())
                    .filter(|name| !name.is_empty())
                    .collect()
            }),
            cache: cache(&raw.cache, findings),
        }
    }
}

fn cache(raw: &RawCache, findings: &mut Vec<Diagnostic>) -> Option<Cache> {
    let images = match raw.images.as_ref().map(|images| images.value.trim()) {
        None | Some("all") => CachedImages::All,
        Some("moved") => CachedImages::Moved,
        Some(_) => {
            let position = raw.images.as_ref().map(|images| images.position);
            let message = "neither `all` nor `moved`";
            let error = Diagnostic::error(position.unwrap_or_default(), "cache.images", message);
            findings.push(error);
            CachedImages::All
        }
    };
    let include = globs(raw.include.as_ref(), "cache.include", findings);
    let exclude = globs(raw.exclude.as_ref(), "cache.exclude", findings);
    let written = raw.prefix.as_ref()?;
    let prefix = CachePrefix::parse(&written.value);
    if prefix.is_none() {
        let message =
            "not where images can be pulled from; write `host:port` such as `localhost:7439`";
        findings.push(Diagnostic::error(written.position, "cache.prefix", message));
    }
    Some(Cache {
        prefix: prefix?,
        images,
        include,
        exclude,
    })
}

fn globs(
    written: Option<&Located<Vec<Located<String>>>>,
    field: &str,
    findings: &mut Vec<Diagnostic>,
) -> Vec<Glob> {
    let written = written.iter().flat_map(|list| &list.value);
    written
        .filter_map(|pattern| {
            let glob = Glob::parse(&pattern.value);
            if glob.is_none() {
                let message =
                    "not a pattern for image names; write `docker.io/library/*` or `ghcr.io/**`";
                findings.push(Diagnostic::error(pattern.position, field, message));
            }
            glob
        })
        .collect()
}

fn rewrite(written: Option<&Located<String>>, findings: &mut Vec<Diagnostic>) -> Rewrite {
    let Some(written) = written else {
        return Rewrite::default();
    };
    match written.value.trim() {
        "redirect" => Rewrite::Redirect,
        "best" => Rewrite::Best,
        _ => {
            let message = "neither `redirect` nor `best`";
            findings.push(Diagnostic::error(written.position, "rewrite", message));
            Rewrite::default()
        }
    }
}

/// A Secret's name. One that can't be a name would make the API server refuse the Pod.
pub(super) fn pull_secret(
    written: Option<&Located<String>>,
    field: &str,
    findings: &mut Vec<Diagnostic>,
) -> Option<String> {
    let written = written?;
    let name = written.value.trim();
    if is_dns_subdomain(name) {
        return Some(name.to_owned());
    }
    findings.push(Diagnostic::error(written.position, field, NO_SECRET_NAME));
    None
}

/// What is said of a text that can't be a Secret's name.
pub(super) const NO_SECRET_NAME: &str =
    "not the name of a Secret; write lower-case letters, digits, `-` and `.`";

/// RFC 1123 as Kubernetes reads it (`apimachinery/pkg/util/validation`, `IsDNS1123Subdomain`).
pub(super) fn is_dns_subdomain(name: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= 253
        && name.split('.').all(|label| {
            let bytes = label.as_bytes();
            bytes.first().is_some_and(alphanumeric)
                && bytes.last().is_some_and(alphanumeric)
                && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn defaults_and_what_is_written() {
        let (settings, findings) = Settings::read("address: a.io", &|_| None);
        assert!(findings.is_empty());
        assert_eq!(settings.webhook, WebhookSettings::default());
        let (settings, findings) = Settings::read(
            "address: a.io\nrewrite: best\nexcludeNamespaces: [ops, '']\ncache: {prefix: 'localhost:7439/'}\n\
             imageRedirMapping: [{src: a.io, to: b.io/x, name: a to b, pullSecret: mirror.pull}]\n",
            &|_| None,
        );
        assert!(findings.is_empty(), "{findings:?}");
        assert_eq!(settings.webhook.rewrite, Rewrite::Best);
        assert_eq!(
            settings.webhook.exclude_namespaces,
            Some(vec!["ops".to_owned()])
        );
        assert_eq!(
            settings.webhook.cache.unwrap().prefix.as_str(),
            "localhost:7439"
        );
        let rule = &settings.rules.redirects[0];
        assert_eq!(rule.name.as_deref(), Some("a to b"));
        assert_eq!(rule.pull_secret.as_deref(), Some("mirror.pull"));
    }

    #[test]
    fn what_would_make_a_pod_invalid_is_an_error() {
        for (text, field) in [
            ("rewrite: worst", "rewrite"),
            ("cache: {prefix: 'http://localhost:7439'}", "cache.prefix"),
            ("cache: {prefix: 'localhost:7439/Upper'}", "cache.prefix"),
            ("cache: {prefix: a.io, images: some}", "cache.images"),
            ("cache: {prefix: a.io, include: ['a b']}", "cache.include"),
            ("cache: {prefix: a.io, exclude: ['{']}", "cache.exclude"),
            (
                "imageRedirMapping: [{src: a.io, to: b.io, pullSecret: A_b}]",
                "imageRedirMapping[1].pullSecret",
            ),
            (
                "registries: [{address: b.io, pullSecret: '-x'}]",
                "registries[1].pullSecret",
            ),
        ] {
            let (_, findings) = Settings::read(text, &|_| None);
            let errors: Vec<_> = findings.iter().filter(|f| f.is_error()).collect();
            assert_eq!(errors.len(), 1, "{text}: {findings:?}");
            assert_eq!(errors[0].field, field);
        }
    }
    #[test]
    fn a_config_map_says_the_same() {
        let text = "sealos: {address: s.io}\nrewrite: best\nexcludeNamespaces: [ops]\ncache: {prefix: 'localhost:7439'}\n\
             imageRedirMapping: [{src: a.io, to: b.io, name: n, pullSecret: p}, {src: c.io, to: d.io, pullSecret: A_b}]\n";
        let (map, findings) = crate::config::ConfigMap::read(text).unwrap();
        assert_eq!(findings.len(), 1, "{findings:?}");
        let (settings, findings) = Settings::from_raw(map.as_written(), &|_| None);
        assert!(findings.is_empty(), "{findings:?}");
        assert_eq!(settings.webhook.rewrite, Rewrite::Best);
        assert_eq!(
            settings.webhook.exclude_namespaces.as_deref(),
            Some(&["ops".to_owned()][..])
        );
        let secrets: Vec<_> = settings
            .rules
            .redirects
            .iter()
            .map(|r| r.pull_secret.as_deref())
            .collect();
        assert_eq!(secrets, [Some("p"), None]);
        let (map, _) = crate::config::ConfigMap::read("rewrite: worst").unwrap();
        assert!(map.as_written().rewrite.is_none());
    }
}
