//! Why the API server gave no answer, said so that an operator knows what to do, and without what a
//! library's own text may quote (tokens, objects).

use std::error::Error;

use kube::client::{AuthError, RustlsTlsError};
use policy::text::one_line;

/// What kind of failure it was; a change of kind is worth a line in the log, a repetition isn't.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// No kubeconfig and no service account.
    NoClient,
    /// There is a kubeconfig, but none that can be used; which and why is logged as well.
    Unusable,
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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
            // The text of all these may hold what was read: an object, a plugin's output, a key, a password.
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => Self::new(
                FailureKind::Unavailable,
                "the answer is not what a Kubernetes API server gives",
            ),
            kube::Error::Auth(_) => Self::no_credentials(),
            kube::Error::ProxyProtocolUnsupported { .. }
            | kube::Error::ProxyProtocolDisabled { .. } => Self::new(
                FailureKind::Unavailable,
                "the way to the API server is a proxy of a kind that can't be used; give one that \
                 begins with http://, https:// or socks5://",
            ),
            kube::Error::InferKubeconfig(_)
            | kube::Error::RustlsTls(
                RustlsTlsError::InvalidIdentityPem(_)
                | RustlsTlsError::MissingPrivateKey
                | RustlsTlsError::MissingCertificate
                | RustlsTlsError::InvalidPrivateKey(_)
                | RustlsTlsError::UnknownPrivateKeyFormat,
            ) => Self::new(
                FailureKind::Unauthorized,
                "the kubeconfig's client certificate or key can't be used",
            ),
            // Of a connection: hosts, names in certificates, the system's words.
            kube::Error::HyperError(_)
            | kube::Error::Service(_)
            | kube::Error::ReadEvents(_)
            | kube::Error::RustlsTls(_) => Self::of_connection(error),
            _ => Self::new(
                FailureKind::Unavailable,
                "the request to the API server can't be made",
            ),
        }
    }

    fn no_credentials() -> Self {
        Self::new(
            FailureKind::Unauthorized,
            "the kubeconfig's credentials can't be obtained (token file or exec plugin)",
        )
    }

    fn of_connection(error: &kube::Error) -> Self {
        // A token that is fetched anew when it has expired fails on the way of a request.
        if causes(error).any(|cause| cause.is::<AuthError>()) {
            return Self::no_credentials();
        }
        let text = chain(error);
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

fn first_line(text: &str) -> String {
    one_line(text.lines().next().unwrap_or_default(), 200)
}

/// An error and its causes, without saying the same twice.
fn chain(error: &kube::Error) -> String {
    let mut text = error.to_string();
    for cause in causes(error) {
        let next = cause.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
    }
    first_line(&text)
}

/// The causes of an error, without itself.
fn causes<'a>(error: &'a kube::Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |&error: &&'a (dyn Error + 'static)| {
        error.source()
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{ExitStatus, Output};

    use kube::config::{KubeconfigError, LoadDataError};

    use super::*;

    fn said(error: kube::Error) -> Failure {
        let failure = Failure::from_kube(&error);
        assert!(
            !failure.message.contains("hunter2"),
            "{error}: {}",
            failure.message
        );
        failure
    }

    /// A plugin that has failed after it printed a token.
    fn plugin() -> AuthError {
        AuthError::AuthExecRun {
            cmd: "login --password hunter2".to_owned(),
            out: Box::new(Output {
                status: ExitStatus::from_raw(256),
                stdout: b"{\"token\": \"hunter2\"}".to_vec(),
                stderr: Vec::new(),
            }),
        }
    }

    #[test]
    fn a_proxys_password_is_not_shown() {
        for proxy in [
            "socks5h://hugo:hunter2@proxy.corp:1080",
            "hugo:hunter2@proxy.corp:3128",
        ] {
            let proxy_url: Box<http::Uri> = Box::new(proxy.parse().unwrap());
            let disabled = kube::Error::ProxyProtocolDisabled {
                proxy_url: proxy_url.clone(),
                protocol_feature: "kube/socks5",
            };
            for error in [
                kube::Error::ProxyProtocolUnsupported { proxy_url },
                disabled,
            ] {
                assert!(
                    error.to_string().contains("hunter2"),
                    "else it proves nothing"
                );
                let failure = said(error);
                assert_eq!(failure.kind, FailureKind::Unavailable);
                assert!(failure.message.contains("proxy"), "{failure}");
            }
        }
    }

    #[test]
    fn what_a_plugin_printed_is_not_shown_whenever_it_runs() {
        for error in [
            kube::Error::Auth(plugin()),
            kube::Error::Service(Box::new(plugin())),
        ] {
            let failure = said(error);
            assert_eq!(failure.kind, FailureKind::Unauthorized);
            assert!(failure.message.contains("exec plugin"), "{failure}");
        }
    }

    #[test]
    fn a_key_is_not_shown() {
        // Its line ends are lost, so the line that begins it holds all of it.
        let line = b"-----BEGIN PRIVATE KEY hunter2".to_vec();
        let pem = rustls_pki_types::pem::Error::IllegalSectionStart { line };
        let folded = kube::Error::RustlsTls(RustlsTlsError::InvalidIdentityPem(pem));
        let no_base64 =
            kube::Error::InferKubeconfig(KubeconfigError::LoadClientKey(LoadDataError::ReadFile(
                std::io::ErrorKind::NotFound.into(),
                "hunter2-where-the-path-should-be".into(),
            )));
        for error in [folded, no_base64] {
            let failure = said(error);
            assert_eq!(failure.kind, FailureKind::Unauthorized);
            assert!(
                failure.message.contains("client certificate or key"),
                "{failure}"
            );
        }
    }

    #[test]
    fn of_a_connection_the_systems_words_are_shown() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let failure = said(kube::Error::Service(Box::new(refused)));
        assert_eq!(failure.kind, FailureKind::Unavailable);
        assert!(failure.message.contains("connection refused"), "{failure}");
    }
}
