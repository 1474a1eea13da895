//! A bearer token that stands in a file, and changes there while we run.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, header};
use kube::client::Body;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How old what was read may be. client-go reads as often.
const RELOAD_INTERVAL: Duration = Duration::from_secs(60);

/// The file, and what was read of it last.
#[derive(Clone)]
pub(crate) struct TokenFile {
    path: Arc<PathBuf>,
    last: Arc<Mutex<(HeaderValue, Instant)>>,
}

impl TokenFile {
    /// Reads the file.
    ///
    /// # Errors
    /// It can't be read, or holds what can't be sent.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let header = read(&path)?;
        Ok(Self {
            path: Arc::new(path),
            last: Arc::new(Mutex::new((header, Instant::now()))),
        })
    }

    /// `request` with the token.
    pub(crate) fn sign(&self, mut request: http::Request<Body>) -> http::Request<Body> {
        let header = self.header();
        request.headers_mut().insert(header::AUTHORIZATION, header);
        request
    }

    fn header(&self) -> HeaderValue {
        let mut last = self.last.lock();
        if last.1.elapsed() >= RELOAD_INTERVAL {
            // One that is gone for a moment is no reason to forget the token.
            if let Ok(header) = read(&self.path) {
                last.0 = header;
            }
            last.1 = Instant::now();
        }
        last.0.clone()
    }
}

/// A file written by hand ends with a line end, which no header may hold.
fn read(path: &PathBuf) -> io::Result<HeaderValue> {
    let token = std::fs::read_to_string(path)?;
    let text = format!("Bearer {}", token.trim());
    let mut header =
        HeaderValue::try_from(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(file: &TokenFile) -> String {
        let request = file.sign(http::Request::new(Body::empty()));
        let header = &request.headers()[header::AUTHORIZATION];
        assert!(header.is_sensitive());
        header.to_str().unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_is_read_again_every_minute_and_outlives_its_absence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        assert!(TokenFile::open(path.clone()).is_err());
        std::fs::write(&path, "first\n").unwrap();
        let file = TokenFile::open(path.clone()).unwrap();
        std::fs::write(&path, "\r\n second \n").unwrap();
        assert_eq!(sent(&file), "Bearer first");
        tokio::time::advance(RELOAD_INTERVAL).await;
        assert_eq!(sent(&file), "Bearer second");
        std::fs::remove_file(&path).unwrap();
        tokio::time::advance(RELOAD_INTERVAL).await;
        assert_eq!(sent(&file), "Bearer second");
    }
}
