//! Which Pods are left alone, and why.

use std::fmt;

use super::bounded::MAX_CONTAINERS;
use super::object::Pod;
use super::{CONFIG_MIRROR, CONFIG_SOURCE};
use crate::cache_images::Cache;
use crate::config::{Rewrite, WebhookSettings};

/// Longest name of a container or a volume (a label of DNS). Names are validated after admission only.
const MAX_NAME: usize = 63;

/// What is done to the Pod.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'p> {
    /// It is created.
    Create,
    /// It is changed: other images (`kubectl set image` on a Pod), or more ephemeral containers. What is
    /// as it was stays as it is.
    Update {
        /// The Pod as it was.
        old: &'p Pod,
    },
}

/// What of the config concerns Pods.
#[derive(Clone, Debug)]
pub struct PodSettings {
    pub(super) rewrite: Rewrite,
    pub(super) cache: Option<Cache>,
    exclude_namespaces: Vec<String>,
}

/// Why a Pod is left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// Its namespace is one of `excludeNamespaces`, by default `kube-system` and the webhook's own.
    Namespace,
    /// It is the API server's picture of a Pod that a kubelet read from a file; what is changed in
    /// the picture changes nothing on the node.
    Static,
    /// A label or annotation says so: [`OPT_OUT`](super::OPT_OUT), or kuik's
    /// [`KUIK_POLICY`](super::KUIK_POLICY).
    OptedOut,
    /// It has more than [`MAX_CONTAINERS`] containers, or image volumes.
    TooMany,
    /// A container or image volume of it has a name that is longer than Kubernetes accepts.
    LongName,
    /// No rule concerns any of its images.
    NoRule,
}

impl PodSettings {
    /// Takes what `settings` say. `own_namespace` is the webhook's, left alone unless
    /// `excludeNamespaces` is written.
    pub fn new(settings: &WebhookSettings, own_namespace: Option<&str>) -> Self {
        let default = || {
            let own = own_namespace.map(ToOwned::to_owned);
            own.into_iter().chain(["kube-system".to_owned()]).collect()
        };
        Self {
            rewrite: settings.rewrite,
            cache: settings.cache.clone(),
            exclude_namespaces: settings.exclude_namespaces.clone().unwrap_or_else(default),
        }
    }

    /// Why `pod` as a whole is left alone.
    pub(super) fn skips(&self, pod: &Pod, namespace: &str) -> Option<Skipped> {
        if self.exclude_namespaces.iter().any(|name| name == namespace) {
            return Some(Skipped::Namespace);
        }
        let source = pod.annotation(CONFIG_SOURCE);
        if pod.annotation(CONFIG_MIRROR).is_some() || source.is_some_and(|source| source != "api") {
            return Some(Skipped::Static);
        }
        let marks = [pod.label(super::OPT_OUT), pod.annotation(super::OPT_OUT)];
        let kuik = [
            pod.label(super::KUIK_POLICY),
            pod.annotation(super::KUIK_POLICY),
        ];
        if marks.into_iter().flatten().any(is_opt_out)
            || kuik.into_iter().flatten().any(|policy| policy == "ignore")
        {
            return Some(Skipped::OptedOut);
        }
        let spec = pod.spec.as_ref()?;
        let containers = spec.containers();
        let containers = containers.iter().filter_map(|(_, list)| *list);
        let containers: usize = containers.map(|list| list.count()).sum();
        let volumes = spec.volumes.as_ref().map_or(0, |volumes| volumes.count());
        if containers > MAX_CONTAINERS || volumes > MAX_CONTAINERS {
            return Some(Skipped::TooMany);
        }
        let is_long = |name: &str| name.len() > MAX_NAME;
        spec.names().any(is_long).then_some(Skipped::LongName)
    }
}

/// Whether the value of an [`OPT_OUT`](super::OPT_OUT) label or annotation means: leave me alone. It does
/// as it reads, in any case: `false`, `off`, `no`, `0`, `disabled`, `never`, `none`, `ignore`, `skip`.
pub fn is_opt_out(value: &str) -> bool {
    matches!(
        value.trim().to_ascii_lowercase().as_str(),
        "false"
            | "f"
            | "off"
            | "no"
            | "n"
            | "0"
            | "disabled"
            | "disable"
            | "never"
            | "none"
            | "ignore"
            | "skip"
    )
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace => f.write_str("its namespace is excluded"),
            Self::Static => f.write_str("it is a static pod"),
            Self::OptedOut => f.write_str("it has opted out"),
            Self::TooMany => write!(
                f,
                "it has more than {MAX_CONTAINERS} containers or image volumes"
            ),
            Self::LongName => write!(
                f,
                "the name of a container or volume is longer than {MAX_NAME} characters"
            ),
            Self::NoRule => f.write_str("no rule concerns its images"),
        }
    }
}
