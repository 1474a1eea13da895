//! Why the API server gave no answer, said so that an operator knows what to do, and without what a
//! library's own text may quote (tokens, objects).

use std::error::Error as _;

use thiserror::Error;

/// What kind of failure it was; a change of kind is worth a line in the log, a repetition isn't.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// No kubeconfig and no service account.
    NoClient,
    /// 401: the identity is not accepted.
    Unauthorized,
    /// 403: the identity may not read the object.
    Forbidden,
    /// The server's certificate, or ours, is not accepted.
    Tls,
    /// No connection, no answer in time, an error of the server (429, 5xx), or a broken answer.
    Unavailable,
}

/// A question that the API server did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct Failure {
    /// Its kind.
    pub kind: FailureKind,
    /// For people; without secrets.
    pub message: String,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub(crate) fn from_kube(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let (kind, hint) = match status.code {
                    401 => (
                        FailureKind::Unauthorized,
                        "; the kubeconfig's identity is not accepted",
                    ),
                    403 => (
                        FailureKind::Forbidden,
                        "; its Role does not allow that, and those of deploy/ do",
                    ),
                    _ => (FailureKind::Unavailable, ""),
                };
                let text = first_line(&status.message);
                Self::new(kind, format!("{} {text}{hint}", status.code))
            }
            // The text of these may hold what was read: an object, or a plugin's output.
            kube::Error::SerdeError(_) => Self::new(
                FailureKind::Unavailable,
                "the answer is not what a Kubernetes API server gives",
            ),
            kube::Error::Auth(_) => Self::new(
                FailureKind::Unauthorized,
                "the kubeconfig's credentials can't be obtained (token file or exec plugin)",
            ),
            other => {
                let text = chain(other);
                let tls = ["certificate", "handshake failure", "fatal alert"]
                    .iter()
                    .any(|word| text.to_ascii_lowercase().contains(word));
                if tls {
                    Self::new(
                        FailureKind::Tls,
                        format!("{text}; is the kubeconfig's certificate authority this server's?"),
                    )
                } else {
                    Self::new(FailureKind::Unavailable, text)
                }
            }
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(200)
        .collect()
}

/// An error and its causes, without saying the same twice.
fn chain(error: &kube::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    first_line(&text)
}
