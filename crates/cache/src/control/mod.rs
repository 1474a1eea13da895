//! Commands for people, asked of the running cache over its unix socket: one line of JSON in, lines of
//! JSON out, the last of them with `done`.

mod attached;
mod blob;
mod images;
mod layouts;
mod warm;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use telemetry::report::{NodeCacheImage, NodeCacheStatus};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

pub use self::images::ImageRecord;
use crate::service::Cache;
use crate::status;
use crate::storage::Verified;

/// Where the running cache is asked, unless the command line says otherwise.
pub const SOCKET: &str = "/run/image-cri-shim-cache.sock";

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub enum Command {
    /// How the cache is.
    Status,
    /// What it has of an image.
    Look {
        /// Which.
        name: String,
    },
    /// Lists images.
    Ls,
    /// Deletes images: `NAME`, `NAME@DIGEST` or `DIGEST`.
    Rm {
        /// Which.
        names: Vec<String>,
    },
    /// Never evicts images.
    Pin {
        /// Which.
        names: Vec<String>,
    },
    /// Lets images be evicted again.
    Unpin {
        /// Which.
        names: Vec<String>,
    },
    /// Reads every blob.
    Verify {
        /// Deletes what is damaged, and fetches it anew where that can be done.
        repair: bool,
    },
    /// Makes room as `maxSize` and `minFree` want it, and throws old downloads away.
    Gc {
        /// Frees what nobody uses any more in the shared store, instead.
        #[serde(default)]
        shared: bool,
    },
    /// Fetches images before they are wanted.
    Warm {
        /// Which.
        images: Vec<WarmImage>,
        /// `os/architecture[/variant]`, or `all`; empty is this machine's.
        platforms: Vec<String>,
    },
    /// Writes images to the file that comes with the command, as an OCI image layout in a tar.
    Export {
        /// Which.
        names: Vec<String>,
    },
    /// Takes the images of such a file in.
    Import {
        /// What an image is called that has no name in the file.
        name: Option<String>,
        /// Pins them, too.
        pin: bool,
    },
}

/// An image that is to be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmImage {
    /// Its name.
    pub image: String,
    /// Whether it is pinned then.
    pub pin: bool,
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// How the cache is.
    Status(Box<NodeCacheStatus>),
    /// What it has of an image.
    Known(Box<NodeCacheImage>),
    /// An image in the store.
    Image(ImageRecord),
    /// Something was done.
    Text(String),
    /// How far something is: which image, bytes that are there, and bytes in all.
    Progress {
        /// The image.
        image: String,
        /// Bytes that are there.
        bytes: u64,
        /// Bytes in all, as far as it is known.
        total: u64,
    },
    /// Something could not be done.
    Failed(String),
    /// What reading every blob has found.
    Verified(Verified),
    /// The end. False where something could not be done.
    Done(bool),
}

/// Where events go.
#[derive(Clone, Debug)]
pub struct Sink(mpsc::UnboundedSender<Event>);

impl Sink {
    fn send(&self, event: Event) {
        // Nobody listens any more: the command is done to its end all the same.
        let _ = self.0.send(event);
    }

    /// Whether anybody waits for what is done.
    fn is_listened_to(&self) -> bool {
        !self.0.is_closed()
    }
}

/// Does a command, with the file that it is about where there is one. The events end with
/// [`Event::Done`].
pub fn run(
    cache: Cache,
    command: Command,
    file: Option<OwnedFd>,
) -> mpsc::UnboundedReceiver<Event> {
    let (sender, events) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let sink = Sink(sender);
        let done = execute(&cache, command, file, &sink).await;
        sink.send(Event::Done(done));
    });
    events
}

async fn execute(cache: &Cache, command: Command, file: Option<OwnedFd>, sink: &Sink) -> bool {
    match command {
        Command::Status => {
            let status = status::status(cache).await;
            sink.send(Event::Status(Box::new(status)));
            true
        }
        Command::Look { name } => match status::image(cache, &name).await {
            Ok(known) => {
                sink.send(Event::Known(Box::new(known)));
                true
            }
            Err(why) => images::failed(sink, &format!("{name}: {why}")),
        },
        Command::Ls => images::list(cache, sink).await,
        Command::Rm { names } => {
            let mut all = true;
            for name in names {
                all &= images::remove(cache, &name, sink).await;
            }
            all
        }
        Command::Pin { names } => {
            let mut all = true;
            for name in names {
                all &= images::pin(cache, &name, sink).await;
            }
            all
        }
        Command::Unpin { names } => {
            let mut all = true;
            for name in names {
                all &= images::unpin(cache, &name, sink).await;
            }
            all
        }
        Command::Verify { repair } => images::verify(cache, repair, sink).await,
        Command::Gc { shared: false } => images::collect(cache, sink).await,
        Command::Gc { shared: true } => images::collect_shared(cache, sink).await,
        Command::Warm { images, platforms } => {
            warm::warm_all(cache, images, &platforms, sink).await
        }
        Command::Export { names } => layouts::export(cache, names, file, sink).await,
        Command::Import { name, pin } => {
            let Some(names) = layouts::import(cache, name, file, sink).await else {
                return false;
            };
            let mut all = true;
            for name in names.iter().filter(|_| pin) {
                all &= images::pin(cache, name, sink).await;
            }
            all
        }
    }
}

/// Listens for commands. Only who may write to the socket, root, is heard.
///
/// # Errors
/// The socket can't be had.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => return Err(io::Error::other("another cache answers there")),
        // The kernel refuses connections to files of any kind.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
                let why = "a file that is no socket is in the way; move it, or name another path by `--socket`";
                return Err(io::Error::other(why));
            }
            // Left over by one that was killed.
            std::fs::remove_file(path)?;
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, mode)?;
    Ok(listener)
}

/// Answers commands until it is dropped.
pub async fn serve(listener: UnixListener, cache: Cache) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let cache = cache.clone();
                tokio::spawn(async move {
                    if let Err(error) = answer(stream, cache).await {
                        tracing::debug!("a command was broken off: {error}");
                    }
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept commands: {error}");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(stream: UnixStream, cache: Cache) -> io::Result<()> {
    let (line, file) = attached::receive(&stream).await?;
    let (_, mut writer) = stream.into_split();
    let mut events = match serde_json::from_slice(&line) {
        Ok(command) => run(cache, command, file),
        Err(error) => {
            let (sender, events) = mpsc::unbounded_channel();
            let sink = Sink(sender);
            sink.send(Event::Failed(format!("no such command: {error}")));
            sink.send(Event::Done(false));
            events
        }
    };
    while let Some(event) = events.recv().await {
        let mut line = serde_json::to_vec(&event)?;
        line.push(b'\n');
        writer.write_all(&line).await?;
    }
    writer.shutdown().await
}

/// Asks the running cache, with the file that the command is about where there is one. None where none
/// answers at `path`.
///
/// # Errors
/// The connection broke.
pub async fn ask(
    path: &Path,
    command: &Command,
    file: Option<&OwnedFd>,
) -> io::Result<Option<mpsc::UnboundedReceiver<io::Result<Event>>>> {
    let mut stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut line = serde_json::to_vec(command)?;
    line.push(b'\n');
    attached::send(&mut stream, &line, file.map(AsFd::as_fd)).await?;
    let (reader, writer) = stream.into_split();
    let (sender, events) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        // Dropped earlier, the answer would be cut off.
        let _writer = writer;
        let mut lines = BufReader::new(reader).lines();
        loop {
            let event = match lines.next_line().await {
                Ok(Some(line)) => serde_json::from_str(&line).map_err(io::Error::other),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            let is_broken = event.is_err();
            if sender.send(event).is_err() || is_broken {
                return;
            }
        }
    });
    Ok(Some(events))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_socket_that_nobody_serves_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        drop(bind(&path).unwrap());
        let serves = bind(&path).unwrap();
        assert!(bind(&path).is_err());
        drop(serves);

        let theirs = dir.path().join("theirs");
        std::fs::write(&theirs, "theirs").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("theirs", &link).unwrap();
        for path in [&theirs, &link] {
            let error = bind(path).unwrap_err().to_string();
            assert!(error.contains("in the way"), "{error}");
        }
        assert_eq!(std::fs::read(&theirs).unwrap(), b"theirs");
        assert!(link.is_symlink());
    }
}
