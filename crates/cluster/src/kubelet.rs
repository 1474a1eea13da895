//! What a running kubelet says of itself: its endpoints by the API server's proxy to it, its health on the node.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;

use bytes::Bytes;
use http::{Request, StatusCode, Version, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use thiserror::Error;
use tokio::net::TcpStream;

use crate::client::ClientProvider;
use crate::failure::{Failure, FailureKind};

/// The endpoints that a kubelet uses, flags included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeletEndpoints {
    /// Of the runtime. Empty before kubelet 1.27, which does not tell.
    pub container_runtime_endpoint: String,
    /// Of the image service; empty is the runtime's.
    pub image_service_endpoint: String,
}

/// `/configz`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ConfigZ {
    kubeletconfig: KubeletEndpoints,
}

/// Asks the kubelet of `node` once; `None` where there is no such node.
///
/// # Errors
/// There is no client, it may not ask (`nodes/proxy`), or there is no answer.
pub async fn kubelet_endpoints(
    clients: &ClientProvider,
    node: &str,
) -> Result<Option<KubeletEndpoints>, Failure> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    if node.is_empty() || !node.chars().all(is_name) {
        return Ok(None);
    }
    let (client, _) = clients.client().await?;
    let request = Request::get(format!("/api/v1/nodes/{node}/proxy/configz"));
    let request = request.body(Vec::new()).map_err(|error| {
        Failure::new(
            FailureKind::Unavailable,
            format!("no such request: {error}"),
        )
    })?;
    match client.request::<ConfigZ>(request).await {
        Ok(answer) => Ok(Some(answer.kubeletconfig)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(Failure::from_kube(&error)),
    }
}

/// Why kubelet does not say that it is well.
#[derive(Debug, Error)]
pub enum HealthzError {
    /// Nothing listens there.
    #[error("kubelet does not listen on {address}")]
    Connect {
        /// Where it was asked.
        address: SocketAddr,
        /// Why there was no connection.
        source: io::Error,
    },
    /// The connection ended before there was an answer.
    #[error("kubelet's /healthz {what}")]
    Broken {
        /// How.
        what: &'static str,
        /// What went wrong, where something did.
        source: Option<hyper::Error>,
    },
    /// It answers that it is not well.
    #[error("kubelet says: {status}")]
    Unwell {
        /// Of HTTP.
        version: Version,
        /// Anything but 200.
        status: StatusCode,
    },
}

/// Kubelet's own word on whether it is well, from the node that it runs on. The caller limits how long this takes.
///
/// # Errors
/// It does not listen at `address`, gives no answer, or says that it is not well.
pub async fn kubelet_healthz(address: SocketAddr) -> Result<(), HealthzError> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|source| HealthzError::Connect { address, source })?;
    let broken = |what| {
        move |error| HealthzError::Broken {
            what,
            source: Some(error),
        }
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken("speaks no HTTP"))?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = http::Uri::from_static("/healthz");
    let host = header::HeaderValue::from_static("localhost");
    request.headers_mut().insert(header::HOST, host);
    let mut answer = pin!(sender.send_request(request));
    // The connection is driven until the answer's head is there; more is not needed.
    let answer = tokio::select! {
        answer = &mut answer => answer.map_err(broken("gave no answer"))?,
        // The answer may have come with the end.
        ended = connection => match answer.await {
            Ok(answer) => answer,
            Err(_) => {
                ended.map_err(broken("broke off"))?;
                return Err(HealthzError::Broken {
                    what: "closed the connection without an answer",
                    source: None,
                });
            }
        }
    };
    match (answer.version(), answer.status()) {
        (_, StatusCode::OK) => Ok(()),
        (version, status) => Err(HealthzError::Unwell { version, status }),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// What is said of a kubelet that answers with these bytes.
    async fn answered(answer: &str) -> Result<(), String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let kubelet = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = Vec::new();
            while !question.ends_with(b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut question).await.unwrap(), 0);
            }
            assert!(question.starts_with(b"GET /healthz HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let (said, ()) = tokio::join!(kubelet_healthz(address), kubelet);
        said.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn only_200_is_well() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        assert_eq!(answered(ok).await, Ok(()));
        for (answer, said) in [
            (
                "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n",
                "kubelet says: 500 Internal Server Error",
            ),
            (
                "",
                "kubelet's /healthz closed the connection without an answer",
            ),
        ] {
            assert_eq!(answered(answer).await, Err(said.to_owned()));
        }
    }

    #[tokio::test]
    async fn nobody_listens() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = kubelet_healthz(address).await.unwrap_err();
        let said = format!("kubelet does not listen on {address}");
        assert_eq!(error.to_string(), said);
        let why = error.source().unwrap().to_string();
        assert!(why.contains("refused"), "{why}");
    }
}
