//! Certificates from files, as cert-manager and others put them into a mounted Secret.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::Notify;

use super::{CertificateError, Pem, Store};
use crate::tls::{ClientCertificates, Tls};

/// How often the files are looked at without an event.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// More than any chain; a mistaken path is refused instead of read.
const MAX_FILE_SIZE: u64 = 1 << 20;

/// Where certificate and key are.
#[derive(Clone, Debug)]
pub struct Files {
    /// The chain, in PEM (`tls.crt`).
    pub certificate: PathBuf,
    /// The private key, in PEM (`tls.key`).
    pub key: PathBuf,
}

/// Why the files can't be used.
#[derive(Debug, Error)]
pub enum FilesError {
    /// A file can't be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// What is in them can't be used.
    #[error("{certificate} with {key}: {error}")]
    Content {
        /// The chain's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        error: CertificateError,
    },
}

impl Files {
    /// Puts what the files hold into `store`. `false`: it is in use already.
    ///
    /// # Errors
    /// [`FilesError`]; the certificate in use stays.
    pub async fn load(&self, store: &Store) -> Result<bool, FilesError> {
        let pem = Pem {
            chain: read_pem(&self.certificate).await?,
            key: read_pem(&self.key).await?,
        };
        store.set(&pem).map_err(|error| FilesError::Content {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            error,
        })
    }

    /// Follows the files until it is dropped; `wake` asks for a look at once. While they can't be used, as between the writing of one
    /// and of the other, the certificate in use stays; a problem is reported once.
    pub async fn follow(self, store: Arc<Store>, wake: Arc<Notify>) {
        let mut reported = None;
        loop {
            match self.load(&store).await {
                Ok(false) => reported = None,
                Ok(true) => {
                    reported = None;
                    tracing::info!("using the certificate in {}", self.certificate.display());
                }
                Err(error) => {
                    let error = error.to_string();
                    let is_missing = store.note_missing(&error);
                    if reported.as_ref() != Some(&error) {
                        match is_missing {
                            true => tracing::warn!("no certificate yet: {error}"),
                            false => tracing::warn!("keeping the certificate in use: {error}"),
                        }
                        reported = Some(error);
                    }
                }
            }
            // Running out is no failure: not every change makes an event.
            let _ = tokio::time::timeout(CHECK_INTERVAL, wake.notified()).await;
        }
    }
}

/// Where the CA is whose certificates clients may show.
#[derive(Clone, Debug)]
pub struct ClientAuthority {
    /// In PEM; several may follow each other.
    pub file: PathBuf,
}

impl ClientAuthority {
    /// Follows the file until it is dropped; `wake` asks for a look at once. A certificate of this CA is
    /// optional for clients. While the file can't be used, what was asked for before still is; a problem is
    /// reported once.
    pub async fn follow(self, tls: Arc<Tls>, wake: Arc<Notify>) {
        let mut reported = None;
        let mut current = None;
        loop {
            match self.load(&tls, &mut current).await {
                Ok(false) => reported = None,
                Ok(true) => {
                    reported = None;
                    tracing::info!("using the client CA in {}", self.file.display());
                }
                Err(error) => {
                    if reported.as_ref() != Some(&error) {
                        match current.is_none() {
                            true => tracing::warn!("no client CA yet: {error}"),
                            false => tracing::warn!("keeping the client CA in use: {error}"),
                        }
                        reported = Some(error);
                    }
                }
            }
            // Running out is no failure: not every change makes an event.
            let _ = tokio::time::timeout(CHECK_INTERVAL, wake.notified()).await;
        }
    }

    async fn load(&self, tls: &Tls, current: &mut Option<String>) -> Result<bool, String> {
        let pem = read_pem(&self.file).await;
        let pem = pem.map_err(|error| error.to_string())?;
        if current.as_ref() == Some(&pem) {
            return Ok(false);
        }
        let asked = tls.ask_for(&ClientCertificates::Optional(pem.clone()));
        asked.map_err(|error| format!("{}: {error}", self.file.display()))?;
        *current = Some(pem);
        Ok(true)
    }
}

/// Reads a file of certificates or of a key, in PEM.
///
/// # Errors
/// It can't be read, is no regular file, or is larger than any chain.
pub async fn read_pem(path: &Path) -> Result<String, FilesError> {
    let text = files::read(path, MAX_FILE_SIZE).await;
    text.map_err(|error| FilesError::Read {
        path: path.to_owned(),
        error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocols;

    #[tokio::test]
    async fn a_pipe_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let store = Arc::new(Store::default());
        let files = Files {
            certificate: path.clone(),
            key: path.clone(),
        };
        let error = files.load(&store).await.unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
        let tls = Tls::new(store, Protocols::Http1, &ClientCertificates::None).unwrap();
        let authority = ClientAuthority { file: path };
        let error = authority.load(&tls, &mut None).await.unwrap_err();
        assert!(error.contains("not a regular file"), "{error}");
    }
}
