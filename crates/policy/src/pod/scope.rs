//! Which Pods are left alone, and why.

use std::fmt;

use super::cache_prefix::CachePrefix;
use super::object::Pod;
use crate::config::{Rewrite, WebhookSettings};

/// What is done to the Pod.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'p> {
    /// It is created.
    Create,
    /// Ephemeral containers are added (`pods/ephemeralcontainers`). The API server refuses any change
    /// of those that are there already, so they must be known.
    EphemeralContainers {
        /// The Pod as it was.
        old: &'p Pod,
    },
}

/// What of the config concerns Pods.
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) rewrite: Rewrite,
    pub(super) cache_prefix: Option<CachePrefix>,
    exclude_namespaces: Vec<String>,
}

/// Why a Pod is left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftAlone {
    /// Its namespace is one of `excludeNamespaces`, by default `kube-system` and the webhook's own.
    Namespace,
    /// It is the API server's picture of a Pod that a kubelet read from a file; what is changed in
    /// the picture changes nothing on the node.
    Static,
    /// A label or annotation [`OPT_OUT`](super::OPT_OUT) says so.
    OptedOut,
    /// No rule concerns any of its images.
    NoRule,
}

impl Options {
    /// Takes what `settings` say. `own_namespace` is the webhook's, left alone unless
    /// `excludeNamespaces` is written.
    pub fn new(settings: &WebhookSettings, own_namespace: Option<&str>) -> Self {
        let default = || {
            let own = own_namespace.map(ToOwned::to_owned);
            own.into_iter().chain(["kube-system".to_owned()]).collect()
        };
        Self {
            rewrite: settings.rewrite,
            cache_prefix: settings.cache_prefix.clone(),
            exclude_namespaces: settings.exclude_namespaces.clone().unwrap_or_else(default),
        }
    }

    /// Whether `pod` as a whole is left alone.
    pub(super) fn spares(&self, pod: &Pod, namespace: &str) -> Option<LeftAlone> {
        if self.exclude_namespaces.iter().any(|name| name == namespace) {
            return Some(LeftAlone::Namespace);
        }
        let mirror = pod.annotation("kubernetes.io/config.mirror").is_some();
        let source = pod.annotation("kubernetes.io/config.source");
        if mirror || source.is_some_and(|source| source != "api") {
            return Some(LeftAlone::Static);
        }
        let marks = [pod.label(super::OPT_OUT), pod.annotation(super::OPT_OUT)];
        if marks.into_iter().flatten().any(is_opt_out) {
            return Some(LeftAlone::OptedOut);
        }
        None
    }
}

/// Whether the value of an [`OPT_OUT`](super::OPT_OUT) label or annotation means: leave me alone.
pub fn is_opt_out(value: &str) -> bool {
    matches!(value.trim(), "false" | "off" | "no" | "disabled")
}

impl fmt::Display for LeftAlone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespace => "its namespace is excluded",
            Self::Static => "it is a static pod",
            Self::OptedOut => "it has opted out",
            Self::NoRule => "no rule concerns its images",
        })
    }
}
