//! The network of one run: all places, and how the product's own registry client reaches them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use policy::jitter::Jitter;
use registry::{Answering, Cause, Network};

use crate::places::{Asker, Place, PlaceModel, Question, Said};

/// All places of a run.
#[derive(Debug)]
pub struct World {
    places: Vec<Place>,
    by_host: HashMap<&'static str, usize>,
}

impl World {
    /// Places whose run begins now.
    pub fn new(models: Vec<PlaceModel>) -> Self {
        let mut by_host = HashMap::new();
        for (at, model) in models.iter().enumerate() {
            for host in model.hosts {
                by_host.insert(*host, at);
            }
        }
        Self {
            places: models.into_iter().map(Place::new).collect(),
            by_host,
        }
    }

    /// All of them.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The place that is asked by this name (`host[:port]`).
    pub fn place(&self, host: &str) -> Option<&Place> {
        self.places.get(*self.by_host.get(host)?)
    }
}

/// What one node's shim asks over.
pub struct NodeNetwork {
    world: Arc<World>,
    jitter: Arc<Jitter>,
}

impl fmt::Debug for NodeNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeNetwork").finish_non_exhaustive()
    }
}

impl NodeNetwork {
    /// The way from one node to all places.
    pub fn new(world: Arc<World>, jitter: Arc<Jitter>) -> Self {
        Self { world, jitter }
    }
}

impl Network for NodeNetwork {
    fn send(&self, request: Request<Bytes>) -> Answering {
        let world = Arc::clone(&self.world);
        let spread = self.jitter.next();
        Box::pin(async move {
            let authority = request.uri().authority().map_or("", |of| of.as_str());
            let place = world.place(authority).ok_or(Cause::Dns)?;
            let path = request.uri().path();
            let image = image(path);
            let question = match &image {
                Some(image) => Question::Manifest {
                    image,
                    with_token: request.headers().contains_key(AUTHORIZATION),
                },
                None if path == "/v2/" => Question::Alive,
                None => Question::Token,
            };
            let said = place.ask(question, Asker::Shim, spread).await?;
            response(said, question).map_err(|_| Cause::Protocol)
        })
    }
}

/// `repository:tag` of a path that asks for a manifest.
fn image(path: &str) -> Option<String> {
    let (repository, tag) = path.strip_prefix("/v2/")?.split_once("/manifests/")?;
    Some(format!("{repository}:{tag}"))
}

fn response(said: Said, question: Question<'_>) -> Result<Response<Bytes>, http::Error> {
    const CHALLENGE: &str = r#"Bearer realm="https://auth.docker.io/token",service="registry""#;
    const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
    let response = Response::builder();
    match (said, question) {
        (Said::Yes, Question::Token) => {
            let token = Bytes::from_static(br#"{"token":"t","expires_in":300}"#);
            response.status(StatusCode::OK).body(token)
        }
        (Said::Yes, _) => response
            .status(StatusCode::OK)
            .header(CONTENT_TYPE, "application/vnd.oci.image.index.v1+json")
            .header("Docker-Content-Digest", DIGEST)
            .body(Bytes::new()),
        (Said::No, _) => response.status(StatusCode::NOT_FOUND).body(Bytes::new()),
        (Said::WantsToken, _) => response
            .status(StatusCode::UNAUTHORIZED)
            .header(WWW_AUTHENTICATE, CHALLENGE)
            .body(Bytes::new()),
        (Said::TooMany { retry_after }, _) => {
            let response = response.status(StatusCode::TOO_MANY_REQUESTS);
            match retry_after {
                Some(pause) => response.header(RETRY_AFTER, pause.as_secs()),
                None => response,
            }
            .body(Bytes::new())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_paths() {
        let path = "/v2/library/nginx/manifests/1.27";
        assert_eq!(image(path).as_deref(), Some("library/nginx:1.27"));
        assert_eq!(image("/v2/"), None);
        assert_eq!(image("/token"), None);
    }
}
