//! The socket that clients dial.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// Connections that may wait to be accepted. The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 1024;
/// How often a runtime's socket that is not there is looked for.
const RUNTIME_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Why the socket can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Something answers there.
    #[error("cannot listen on {}: another process is listening there; stop it or choose another path with `shim:`", path.display())]
    InUse {
        /// The socket's path.
        path: PathBuf,
    },
    /// A file that is no socket is in the way. It is not removed: it may be somebody's.
    #[error("cannot listen on {}: a file that is not a socket is in the way; move it or choose another path with `shim:`", path.display())]
    NotASocket {
        /// The file's path.
        path: PathBuf,
    },
    /// The path is longer than a socket address can be (107 bytes on Linux).
    #[error("cannot listen on {}: the path is too long for a unix socket (at most 107 bytes); choose a shorter one with `shim:`", path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// What another process has handed over is no listening unix socket.
    #[error("cannot listen on {}: what the running shim has handed over is not a listening unix socket", path.display())]
    NotListening {
        /// The socket's path, as the other process has named it.
        path: PathBuf,
    },
    /// Anything else that the system refused.
    #[error("cannot listen on {}: {action}: {source}", path.display())]
    System {
        /// The socket's path.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A listening unix socket and its file. Dropping it removes the file, if it is still ours.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    file: SocketFile,
    /// The runtime's socket, whose owner and mode ours is to have.
    runtime: PathBuf,
    /// Connections that are served before any other.
    first: Mutex<Vec<UnixStream>>,
    /// Whether others are accepted; `None` is at once.
    opened: Option<watch::Receiver<bool>>,
}

/// A listening socket on its way from one process to the next: the same socket, so that a client that connects in
/// between waits and is not refused.
#[derive(Debug)]
pub struct HandedOver {
    /// The socket.
    pub socket: OwnedFd,
    /// Its path.
    pub path: PathBuf,
    /// Device and inode of its file.
    pub identity: (u64, u64),
}

impl Listener {
    /// Listens on `path`. Missing parent directories are made; a socket that nobody listens on any more
    /// is replaced. The socket is made so that only our own user may connect, and then gets the
    /// owner and mode of `runtime`, the runtime's socket; when that is not there yet, as soon as it is
    /// ([`serve`](crate::serve) looks for it).
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Any [`ListenError`].
    pub fn bind(
        path: impl Into<PathBuf>,
        runtime: impl Into<PathBuf>,
    ) -> Result<Self, ListenError> {
        let path = path.into();
        let system = |action, source: io::Error| ListenError::System {
            path: path.clone(),
            action,
            source,
        };
        let address = SocketAddrUnix::new(&path)
            .map_err(|_| ListenError::PathTooLong { path: path.clone() })?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|e| system("making its directory", e))?;
        }
        remove_stale(&path)?;
        let socket = open_private(&address).map_err(|e| match e.kind() {
            // Somebody was faster since `remove_stale`.
            io::ErrorKind::AddrInUse => ListenError::InUse { path: path.clone() },
            _ => system("binding the socket", e),
        })?;
        let metadata =
            fs::symlink_metadata(&path).map_err(|e| system("reading its metadata", e))?;
        let file = SocketFile {
            identity: identity(&metadata),
            path: path.clone(),
            is_ours: AtomicBool::new(true),
        };
        let socket = UnixListener::from_std(socket.into())
            .map_err(|e| system("registering the socket", e))?;
        Ok(Self {
            socket,
            file,
            runtime: runtime.into(),
            first: Mutex::default(),
            opened: None,
        })
    }

    /// Listens on the socket that another process still listens on. `first` are connections that are served at once;
    /// others are accepted as soon as `opened` says true. From then on the file is ours, and before that it is the
    /// other process's.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ListenError::NotListening`], or what the system refuses.
    pub fn take_over(
        from: HandedOver,
        runtime: impl Into<PathBuf>,
        first: Vec<UnixStream>,
        opened: watch::Receiver<bool>,
    ) -> Result<Self, ListenError> {
        let HandedOver {
            socket,
            path,
            identity,
        } = from;
        let listens = sockopt::socket_domain(&socket) == Ok(AddressFamily::UNIX)
            && sockopt::socket_acceptconn(&socket) == Ok(true);
        if !listens {
            return Err(ListenError::NotListening { path });
        }
        let system = |source| ListenError::System {
            path: path.clone(),
            action: "registering the socket",
            source,
        };
        rustix::io::ioctl_fionbio(&socket, true).map_err(|error| system(error.into()))?;
        let socket = UnixListener::from_std(socket.into()).map_err(system)?;
        Ok(Self {
            socket,
            file: SocketFile {
                path,
                identity,
                is_ours: AtomicBool::new(false),
            },
            runtime: runtime.into(),
            first: Mutex::new(first),
            opened: Some(opened),
        })
    }

    /// The socket for another process, which is to [take it over](Self::take_over).
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn copy(&self) -> io::Result<HandedOver> {
        Ok(HandedOver {
            socket: self.socket.as_fd().try_clone_to_owned()?,
            path: self.file.path.clone(),
            identity: self.file.identity,
        })
    }

    /// Gives the socket the owner and the mode of the runtime's socket, once that is there: whoever
    /// could reach the runtime can then reach the shim, and nobody else. Ends when it is done, or when
    /// it can't be done, which is logged: then only our own user may connect.
    pub(crate) async fn share(&self) {
        loop {
            match self.file.share_like(&self.runtime) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    tokio::time::sleep(RUNTIME_RETRY_INTERVAL).await;
                }
                Err(error) => {
                    return tracing::warn!(
                        socket = %self.file.path.display(),
                        %error,
                        "cannot give the socket the owner and mode of {}; only this user can connect",
                        self.runtime.display()
                    );
                }
            }
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        if let Some(first) = self.first.lock().pop() {
            return Ok(first);
        }
        if let Some(opened) = &self.opened {
            // An error is the end of whoever opens it; then nobody else serves.
            let _ = opened.clone().wait_for(|opened| *opened).await;
            if !self.file.is_ours.swap(true, Ordering::Relaxed) {
                // It listens already. From now on clients are told by the kernel that it is we who do (SO_PEERCRED).
                rustix::net::listen(&self.socket, BACKLOG)?;
            }
        }
        self.socket.accept().await.map(|(stream, _)| stream)
    }

    /// Stops listening, and leaves the socket, its file and connections that nobody has accepted yet to the process
    /// that has taken it over.
    pub(crate) fn leave(self) {
        self.file.is_ours.store(false, Ordering::Relaxed);
    }

    /// Stops listening: removes the file, and gives the connections that nobody has accepted yet.
    pub(crate) fn retire(self) -> Vec<UnixStream> {
        let mut waiting = Vec::new();
        if !self.file.is_ours.load(Ordering::Relaxed) {
            // Another process serves it still.
            return waiting;
        }
        self.file.remove();
        // Asked of the kernel and not of tokio, which knows of them only once it has polled again.
        while let Ok(stream) =
            rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
        {
            waiting.extend(UnixStream::from_std(stream.into()));
        }
        waiting
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.file.remove();
    }
}

/// The file of a socket that we made.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode: another process may have put its own socket in our place.
    identity: (u64, u64),
    /// Whether we are the ones who remove it.
    is_ours: AtomicBool,
}

/// Who may connect to a socket: owner, group and permission bits.
#[derive(Clone, Copy)]
struct Access {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Access {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            uid: metadata.uid(),
            gid: metadata.gid(),
            mode: metadata.mode() & 0o7777,
        }
    }
}

impl SocketFile {
    /// # Errors
    /// `NotFound` when the runtime's socket is not there; else what chown or chmod said, for example that
    /// the shim does not run as root.
    fn share_like(&self, runtime_socket: &Path) -> io::Result<()> {
        let wanted = Access::of(&fs::metadata(runtime_socket)?);
        let ours = self.metadata()?;
        let now = Access::of(&ours);
        if (now.uid, now.gid) != (wanted.uid, wanted.gid) {
            std::os::unix::fs::lchown(&self.path, Some(wanted.uid), Some(wanted.gid))?;
        }
        // After the owner: a mode must not open the socket to a group that it was not meant for.
        if now.mode != wanted.mode {
            fs::set_permissions(&self.path, fs::Permissions::from_mode(wanted.mode))?;
        }
        Ok(())
    }

    fn metadata(&self) -> io::Result<fs::Metadata> {
        let metadata = fs::symlink_metadata(&self.path)?;
        if identity(&metadata) == self.identity {
            Ok(metadata)
        } else {
            Err(io::Error::other(
                "the socket was replaced by another process",
            ))
        }
    }

    fn remove(&self) {
        if self.is_ours.load(Ordering::Relaxed)
            && self.metadata().is_ok()
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Removes a socket that nobody listens on.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let system = |action, source| ListenError::System {
        path: path.to_owned(),
        action,
        source,
    };
    let before = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(system("reading its metadata", e)),
    };
    if !before.file_type().is_socket() {
        return Err(ListenError::NotASocket {
            path: path.to_owned(),
        });
    }
    match StdUnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(system("asking whether it is in use", e)),
        Ok(_) => {
            return Err(ListenError::InUse {
                path: path.to_owned(),
            });
        }
    }
    // Another shim may have made the same discovery and be listening by now.
    match fs::symlink_metadata(path) {
        Ok(now) if identity(&now) == identity(&before) => {
            fs::remove_file(path).map_err(|e| system("removing the stale socket", e))
        }
        _ => Ok(()),
    }
}

/// A listening socket whose file was never accessible to anybody else: Linux gives the file the mode
/// that the socket has when it is bound, so that no umask of the process and no race is involved.
fn open_private(address: &SocketAddrUnix) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
