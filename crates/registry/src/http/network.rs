//! A network that is not this machine's own: what simulations of many clients ask registries over, without
//! sockets and on whatever clock tokio has.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use url::Url;

use super::failure::SendError;
use crate::outcome::Cause;

/// What becomes of one request.
pub type Answering = Pin<Box<dyn Future<Output = Result<http::Response<Bytes>, Cause>> + Send>>;

/// Carries requests. Everything above it is as always: schemes, tokens, redirects, slots and deadlines.
pub trait Network: Send + Sync + fmt::Debug {
    /// Sends one request. Redirects are answers, as they are on the wire.
    ///
    /// The error is why there is no answer; what that says about the registry follows from the cause.
    fn send(&self, request: Request<Bytes>) -> Answering;
}

/// Sends one request to `url` over a network that is not the machine's own. `request` is without it.
pub(super) async fn send(
    network: &Arc<dyn Network>,
    mut request: Request<Bytes>,
    url: &Url,
) -> Result<reqwest::Response, SendError> {
    let cut = |cause: Cause| SendError::new(cause, format!("no answer: {cause}"));
    *request.uri_mut() = url.as_str().parse().map_err(|_| cut(Cause::Protocol))?;
    let answer = network.send(request).await.map_err(cut)?;
    Ok(answer.into())
}
