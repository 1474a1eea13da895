//! containerd's own services on the runtime's socket, as far as the names of images need them.
//!
//! An image there is a name for a descriptor of content. The CRI's images are those of one namespace, and
//! the CRI's own store follows changes by events.

use std::collections::HashMap;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};
use prost::Message;

use crate::call::CallHead;
use crate::grpc::{Code, Status};
use crate::upstream::{Outgoing, Upstream, UpstreamError};

/// The namespace that the CRI keeps its images in.
const NAMESPACE: &str = "k8s.io";
/// Marks images that the CRI is to know.
const MANAGED: (&str, &str) = ("io.cri-containerd.image", "managed");

/// `containerd.services.images.v1.Image`, as far as it is needed.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Image {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(map = "string, string", tag = "2")]
    labels: HashMap<String, String>,
    /// A `Descriptor`, kept as it came: it may have fields that are not known here.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub(crate) target: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Descriptor {
    #[prost(string, tag = "2")]
    digest: String,
}

/// `GetImageRequest`, `DeleteImageRequest`.
#[derive(Clone, PartialEq, Message)]
struct NameRequest {
    #[prost(string, tag = "1")]
    name: String,
}

/// `GetImageResponse`, `CreateImageRequest`.
#[derive(Clone, PartialEq, Message)]
struct ImageMessage {
    #[prost(message, optional, tag = "1")]
    image: Option<Image>,
}

#[derive(Clone, PartialEq, Message)]
struct UpdateImageRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<Image>,
    #[prost(message, optional, tag = "2")]
    update_mask: Option<FieldMask>,
}

#[derive(Clone, PartialEq, Message)]
struct FieldMask {
    #[prost(string, repeated, tag = "1")]
    paths: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ListContainersRequest {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ListContainersResponse {
    /// `Container`s, which are only counted.
    #[prost(bytes = "vec", repeated, tag = "1")]
    containers: Vec<Vec<u8>>,
}

/// Why a call gave no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContainerdError {
    /// The runtime is not containerd, or shuts its services off.
    #[error("the runtime has no such service")]
    NoSuchService,
    /// It said no.
    #[error("the runtime refused {call}: {}", status.message)]
    Refused {
        /// The call.
        call: &'static str,
        /// What it said.
        status: Status,
    },
    /// It gave no answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// It gave one that can't be read.
    #[error("the runtime's answer to {0} can't be read")]
    Unreadable(&'static str),
}

impl Image {
    /// The digest of the content that the name is for; empty where there is none.
    pub(crate) fn digest(&self) -> String {
        let target = self.target.as_deref().unwrap_or_default();
        Descriptor::decode(target).map_or_else(|_| String::new(), |target| target.digest)
    }
}

/// containerd, for a moment.
pub(crate) struct Containerd<'a> {
    upstream: &'a Upstream,
}

impl<'a> Containerd<'a> {
    pub(crate) fn new(upstream: &'a Upstream) -> Self {
        Self { upstream }
    }

    /// The image of a name.
    pub(crate) async fn image(&self, name: &str) -> Result<Option<Image>, ContainerdError> {
        let request = NameRequest {
            name: name.to_owned(),
        };
        match self.call("images.v1.Images/Get", &request).await {
            Ok(ImageMessage { image }) => Ok(image),
            Err(ContainerdError::Refused { status, .. }) if status.code == Code::NOT_FOUND => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives content another name. False where the name is taken.
    pub(crate) async fn create(&self, name: &str, target: &[u8]) -> Result<bool, ContainerdError> {
        let (label, value) = MANAGED;
        let image = Image {
            labels: HashMap::from([(label.to_owned(), value.to_owned())]),
            ..named(name, target)
        };
        let request = ImageMessage { image: Some(image) };
        match self.call("images.v1.Images/Create", &request).await {
            Ok(ImageMessage { .. }) => Ok(true),
            Err(ContainerdError::Refused { status, .. }) if status.code == Code::ALREADY_EXISTS => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Leads a name that there is to other content. Its labels stay.
    pub(crate) async fn lead(&self, name: &str, target: &[u8]) -> Result<(), ContainerdError> {
        let request = UpdateImageRequest {
            image: Some(named(name, target)),
            update_mask: Some(FieldMask {
                paths: vec!["target".to_owned()],
            }),
        };
        let ImageMessage { .. } = self.call("images.v1.Images/Update", &request).await?;
        Ok(())
    }

    /// Takes a name away. One that is not there is no error.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), ContainerdError> {
        let request = NameRequest {
            name: name.to_owned(),
        };
        match self.call("images.v1.Images/Delete", &request).await {
            // Empty, whatever else it is.
            Ok(ImageMessage { .. }) => Ok(()),
            Err(ContainerdError::Refused { status, .. }) if status.code == Code::NOT_FOUND => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a container was made from an image by this name.
    pub(crate) async fn is_in_use(&self, name: &str) -> Result<bool, ContainerdError> {
        let request = ListContainersRequest {
            // A name has no quotes and no backslashes.
            filters: vec![format!("image==\"{name}\"")],
        };
        let found: ListContainersResponse =
            self.call("containers.v1.Containers/List", &request).await?;
        Ok(!found.containers.is_empty())
    }

    async fn call<A: Message + Default>(
        &self,
        call: &'static str,
        request: &impl Message,
    ) -> Result<A, ContainerdError> {
        let Ok(path) = PathAndQuery::try_from(format!("/containerd.services.{call}")) else {
            return Err(ContainerdError::NoSuchService);
        };
        let mut metadata = HeaderMap::new();
        for (name, value) in [
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("containerd-namespace", NAMESPACE),
        ] {
            metadata.insert(name, HeaderValue::from_static(value));
        }
        let head = CallHead::new(path, metadata);
        let message = Outgoing::message(&request.encode_to_vec())?;
        let reply = self.upstream.unary(&head, &message).await?;
        let status = reply.status();
        if status.code == Code::UNIMPLEMENTED {
            return Err(ContainerdError::NoSuchService);
        }
        if !status.is_ok() {
            let status = status.clone();
            return Err(ContainerdError::Refused { call, status });
        }
        let message = reply.message();
        let answer = message.ok().and_then(|message| A::decode(message).ok());
        answer.ok_or(ContainerdError::Unreadable(call))
    }
}

fn named(name: &str, target: &[u8]) -> Image {
    Image {
        name: name.to_owned(),
        labels: HashMap::new(),
        target: Some(target.to_vec()),
    }
}
