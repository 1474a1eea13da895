//! The method table: which gRPC methods the shim takes into its own hands.

use crate::wire;

/// The calls about an image that are answered by our own logic; every other method is forwarded as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageMethod {
    /// `ImageService.PullImage`.
    Pull,
    /// `ImageService.ImageStatus`.
    Status,
    /// `ImageService.RemoveImage`.
    Remove,
    /// `RuntimeService.CreateContainer`, whose config names an image.
    Create,
    /// `ImageService.ListImages`, and `StreamImages`, which is the same in pieces.
    List,
}

impl ImageMethod {
    /// Looks up a request path such as `/runtime.v1.ImageService/PullImage`.
    ///
    /// `runtime.v1` and `runtime.v1alpha2` give their messages the same field numbers, so that one
    /// value stands for both. `None` means: not ours, forward it.
    pub fn from_path(path: &str) -> Option<Self> {
        match path {
            "/runtime.v1.ImageService/PullImage" | "/runtime.v1alpha2.ImageService/PullImage" => {
                Some(Self::Pull)
            }
            "/runtime.v1.ImageService/ImageStatus"
            | "/runtime.v1alpha2.ImageService/ImageStatus" => Some(Self::Status),
            "/runtime.v1.ImageService/RemoveImage"
            | "/runtime.v1alpha2.ImageService/RemoveImage" => Some(Self::Remove),
            "/runtime.v1.RuntimeService/CreateContainer"
            | "/runtime.v1alpha2.RuntimeService/CreateContainer" => Some(Self::Create),
            "/runtime.v1.ImageService/ListImages"
            | "/runtime.v1alpha2.ImageService/ListImages"
            | "/runtime.v1.ImageService/StreamImages" => Some(Self::List),
            _ => None,
        }
    }

    /// The method's name in the CRI, for logs: `PullImage`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pull => "PullImage",
            Self::Status => "ImageStatus",
            Self::Remove => "RemoveImage",
            Self::Create => "CreateContainer",
            Self::List => "ListImages",
        }
    }

    /// Where the image's name is in the method's request.
    pub(crate) fn name_path(self) -> &'static [u32] {
        match self {
            Self::Pull | Self::Status | Self::Remove => wire::IMAGE_NAME,
            Self::Create => wire::CONTAINER_IMAGE_NAME,
            Self::List => wire::FILTERED_IMAGE_NAME,
        }
    }
}

/// The methods of the CRI, for counters: what else a client calls must not become a label.
const KNOWN: [&str; 40] = [
    "Attach",
    "CheckpointContainer",
    "ContainerStats",
    "ContainerStatus",
    "CreateContainer",
    "Exec",
    "ExecSync",
    "GetContainerEvents",
    "ImageFsInfo",
    "ImageStatus",
    "ListContainerStats",
    "ListContainers",
    "ListImages",
    "ListMetricDescriptors",
    "ListPodSandbox",
    "ListPodSandboxMetrics",
    "ListPodSandboxStats",
    "PodSandboxStats",
    "PodSandboxStatus",
    "PortForward",
    "PullImage",
    "RemoveContainer",
    "RemoveImage",
    "RemovePodSandbox",
    "ReopenContainerLog",
    "RunPodSandbox",
    "RuntimeConfig",
    "StartContainer",
    "Status",
    "StopContainer",
    "StopPodSandbox",
    "StreamContainerStats",
    "StreamContainers",
    "StreamImages",
    "StreamPodSandboxStats",
    "StreamPodSandboxes",
    "UpdateContainerResources",
    "UpdatePodSandboxResources",
    "UpdateRuntimeConfig",
    "Version",
];

/// The label of every method that isn't in the CRI.
pub const OTHER: &str = "other";

/// Whether a method, by its label, is a stream that only a client's or a server's end ends. The other
/// streams of the CRI are lists in pieces.
pub(crate) fn is_endless(label: &str) -> bool {
    label == "GetContainerEvents"
}

/// A path's method as a label: its name in the CRI, [`OTHER`] for what isn't in there.
pub fn label(path: &str) -> &'static str {
    path.strip_prefix("/runtime.")
        .and_then(|path| path.rsplit_once("Service/"))
        .and_then(|(_, name)| KNOWN.binary_search(&name).ok())
        .and_then(|at| KNOWN.get(at))
        .copied()
        .unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_the_known_methods_and_nothing_else() {
        assert!(KNOWN.is_sorted());
        assert_eq!(label("/runtime.v1.RuntimeService/Version"), "Version");
        assert_eq!(
            label("/runtime.v1alpha2.ImageService/PullImage"),
            "PullImage"
        );
        for other in [
            "/runtime.v1.RuntimeService/Evil",
            "/a.B/Version",
            "Version",
            "",
        ] {
            assert_eq!(label(other), "other", "{other}");
        }
    }

    #[test]
    fn both_versions_of_the_five_calls_and_nothing_else() {
        for version in ["v1", "v1alpha2"] {
            for (service, method) in [
                ("ImageService", ImageMethod::Pull),
                ("ImageService", ImageMethod::Status),
                ("ImageService", ImageMethod::Remove),
                ("RuntimeService", ImageMethod::Create),
                ("ImageService", ImageMethod::List),
            ] {
                let path = format!("/runtime.{version}.{service}/{}", method.name());
                assert_eq!(ImageMethod::from_path(&path), Some(method));
            }
        }
        for other in [
            "/runtime.v1.ImageService/ImageFsInfo",
            "/runtime.v1.RuntimeService/PullImage",
            "/runtime.v1.ImageService/CreateContainer",
            "/runtime.v2.ImageService/PullImage",
            "/runtime.v1.ImageService/PullImage/",
            "runtime.v1.ImageService/PullImage",
            "",
        ] {
            assert_eq!(ImageMethod::from_path(other), None, "{other}");
        }
    }
}
