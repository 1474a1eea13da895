//! What systemd wants to be told: ready, stopping, and that we are alive.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, sendmsg, socket_with, sockopt,
};
use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;

/// Whether systemd has started us: then it also starts us again, and what we wait for.
pub(crate) fn runs_us() -> bool {
    ["NOTIFY_SOCKET", "INVOCATION_ID"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// Whether systemd waits to be told that we serve: then it runs us as the service of a node, which must come back
/// whatever was done to its config. [`runs_us`] is also true in a shell of a session.
pub(crate) fn waits_for_us() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|value| !value.is_empty())
}

/// News that may wait for a systemd that does not read. More are dropped: each says the same again.
const MAX_NEWS: usize = 8;
/// How long what is said once is waited for: the process may be gone in a moment.
const ONCE_TIMEOUT: Duration = Duration::from_millis(100);

/// We serve.
pub(crate) fn ready() {
    once(NotifyState::Ready);
}

/// We are going.
pub(crate) fn stopping() {
    once(NotifyState::Stopping);
}

/// Tells the watchdog that we are alive, where there is one, for as long as this future runs: after each
/// `probe` that says so. A timer alone would feed it for a daemon that answers nobody.
///
/// `probe` is given the time that it may take.
pub(crate) async fn watchdog(probe: impl AsyncFn(Duration) -> bool) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut ticks = tokio::time::interval((limit / 4).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if probe(limit / 2).await {
            notify(NotifyState::Watchdog);
        } else {
            tracing::error!(
                "this shim does not answer its own call; systemd restarts it if that goes on"
            );
        }
    }
}

/// Tells systemd that the process `pid` of this service is the one to look after from now on, and waits until systemd
/// has heard it. Nothing to do where systemd waits for nobody. Blocks, at most `limit` for each of the two.
///
/// # Errors
/// systemd does not read what it is told.
pub(crate) fn main_pid(pid: u32, limit: Duration) -> anyhow::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    let told = || -> anyhow::Result<()> {
        let socket = notify_socket(path, limit)?;
        let state = NotifyState::MainPid(pid).to_string();
        rustix::net::send(&socket, state.as_bytes(), SendFlags::NOSIGNAL)?;
        barrier(&socket, limit)
    };
    told().context("systemd does not hear which process is the main one")
}

fn notify_socket(path: OsString, limit: Duration) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(limit))?;
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name)?,
        None => SocketAddrUnix::new(path)?,
    };
    connect(&socket, &address)?;
    Ok(socket)
}

/// Waits until systemd has handled what it was told before (sd_notify_barrier(3)): it closes what comes with this.
fn barrier(socket: &OwnedFd, limit: Duration) -> anyhow::Result<()> {
    let (reader, writer) = io::pipe()?;
    let fds = [writer.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let message = [IoSlice::new(b"BARRIER=1")];
    sendmsg(socket, &message, &mut control, SendFlags::NOSIGNAL)?;
    drop(writer);
    let limit = Timespec::try_from(limit)?;
    let mut closed = [PollFd::new(&reader, PollFlags::empty())];
    if rustix::io::retry_on_intr(|| poll(&mut closed, Some(&limit)))? == 0 {
        bail!("it has not answered in time");
    }
    Ok(())
}

fn once(state: NotifyState<'static>) {
    if let Some(sent) = notify(state) {
        // systemd hears it later, or never.
        let _ = sent.recv_timeout(ONCE_TIMEOUT);
    }
}

/// Hands news to the thread that tells systemd; a systemd that does not read must not hold up calls. What is
/// given back hears when it is sent. `None` where nobody is to be told, or can be.
fn notify(state: NotifyState<'static>) -> Option<Receiver<()>> {
    static NEWS: OnceLock<Option<SyncSender<News>>> = OnceLock::new();
    let news = NEWS.get_or_init(start).as_ref()?;
    let (done, sent) = sync_channel(1);
    news.try_send(News { state, done }).ok()?;
    Some(sent)
}

struct News {
    state: NotifyState<'static>,
    done: SyncSender<()>,
}

/// Starts the thread, where there is a systemd to tell.
fn start() -> Option<SyncSender<News>> {
    std::env::var_os("NOTIFY_SOCKET")?;
    let (sender, receiver) = sync_channel::<News>(MAX_NEWS);
    let run = move || {
        for News { state, done } in receiver {
            if let Err(error) = sd_notify::notify(&[state]) {
                tracing::debug!("cannot notify systemd: {error}");
            }
            // Nobody waits for it any more where this fails.
            let _ = done.try_send(());
        }
    };
    let started = thread::Builder::new().name("systemd".to_owned()).spawn(run);
    if let Err(error) = &started {
        tracing::warn!("cannot notify systemd: {error}");
    }
    started.is_ok().then_some(sender)
}
