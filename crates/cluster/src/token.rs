//! A bearer token that stands in a file, and changes there while we run.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, header};
use kube::client::Body;
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use crate::kubeconfig::MAX_FILE;

/// How often it is read again. client-go reads as often.
const RELOAD_INTERVAL: Duration = Duration::from_secs(60);

/// What was read of the file last. Cheap to clone; it is read again for as long as there is a clone.
#[derive(Clone)]
pub(crate) struct TokenFile {
    last: Arc<Mutex<HeaderValue>>,
    _reloading: Arc<AbortOnDropHandle<()>>,
}

impl TokenFile {
    /// Reads the file, and again from time to time. On a runtime.
    ///
    /// # Errors
    /// It can't be read, or holds what can't be sent.
    pub(crate) async fn open(path: PathBuf) -> io::Result<Self> {
        Self::open_with(path, RELOAD_INTERVAL).await
    }

    async fn open_with(path: PathBuf, interval: Duration) -> io::Result<Self> {
        let last = Arc::new(Mutex::new(read(&path).await?));
        let reloading = tokio::spawn(reload(path, Arc::clone(&last), interval));
        Ok(Self {
            last,
            _reloading: Arc::new(AbortOnDropHandle::new(reloading)),
        })
    }

    /// `request` with the token.
    pub(crate) fn sign(&self, mut request: http::Request<Body>) -> http::Request<Body> {
        let header = self.last.lock().clone();
        request.headers_mut().insert(header::AUTHORIZATION, header);
        request
    }
}

/// Nobody waits for the file, which may be on a file system that does not answer.
async fn reload(path: PathBuf, last: Arc<Mutex<HeaderValue>>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        // One that is gone for a moment is no reason to forget the token.
        if let Ok(header) = read(&path).await {
            *last.lock() = header;
        }
    }
}

/// A file written by hand ends with a line end, which no header may hold.
async fn read(path: &Path) -> io::Result<HeaderValue> {
    let token = files::read(path, MAX_FILE).await?;
    let text = format!("Bearer {}", token.trim());
    let mut header =
        HeaderValue::try_from(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use testkit::wait::until;

    use super::*;

    fn sent(file: &TokenFile) -> String {
        let request = file.sign(http::Request::new(Body::empty()));
        let header = &request.headers()[header::AUTHORIZATION];
        assert!(header.is_sensitive());
        header.to_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn the_file_is_read_again_and_outlives_its_absence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let open = || TokenFile::open_with(path.clone(), Duration::from_millis(1));
        assert!(open().await.is_err());
        std::fs::write(&path, "first\n").unwrap();
        let file = open().await.unwrap();
        assert_eq!(sent(&file), "Bearer first");
        // In one step: half of it is none of it.
        let new = dir.path().join("new");
        std::fs::write(&new, "\r\n second \n").unwrap();
        std::fs::rename(&new, &path).unwrap();
        let is_second = async || (sent(&file) == "Bearer second").then_some(());
        until("the new token", is_second).await;
        // Gone, and then a pipe that nobody writes to.
        std::fs::remove_file(&path).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        assert!(open().await.is_err());
        assert_eq!(sent(&file), "Bearer second");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&new, "third").unwrap();
        std::fs::rename(&new, &path).unwrap();
        let is_third = async || (sent(&file) == "Bearer third").then_some(());
        until("the token after the pipe", is_third).await;
    }
}
