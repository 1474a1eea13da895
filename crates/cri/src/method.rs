//! The method table: which gRPC methods the shim takes into its own hands.

/// The image calls that are answered by our own logic; every other method is forwarded as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageMethod {
    /// `ImageService.PullImage`.
    Pull,
    /// `ImageService.ImageStatus`.
    Status,
    /// `ImageService.RemoveImage`.
    Remove,
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
            _ => None,
        }
    }

    /// The method's name in the CRI, for logs: `PullImage`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pull => "PullImage",
            Self::Status => "ImageStatus",
            Self::Remove => "RemoveImage",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_the_three_calls_and_nothing_else() {
        for version in ["v1", "v1alpha2"] {
            for method in [ImageMethod::Pull, ImageMethod::Status, ImageMethod::Remove] {
                let path = format!("/runtime.{version}.ImageService/{}", method.name());
                assert_eq!(ImageMethod::from_path(&path), Some(method));
            }
        }
        for other in [
            "/runtime.v1.ImageService/ListImages",
            "/runtime.v1.RuntimeService/PullImage",
            "/runtime.v2.ImageService/PullImage",
            "/runtime.v1.ImageService/PullImage/",
            "runtime.v1.ImageService/PullImage",
            "",
        ] {
            assert_eq!(ImageMethod::from_path(other), None, "{other}");
        }
    }
}
