//! Messages between two processes, with file descriptors: JSON on a pair of unix sockets that keep each message apart.

use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair, sockopt,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// Longest message, in bytes. They have paths and names.
const MAX_MESSAGE: usize = 64 << 10;
/// Most descriptors with one message.
const MAX_FDS: usize = 4;

/// One end of a channel.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
}

/// A message, and the descriptors that came with it.
pub(crate) type Received<T> = (T, Vec<OwnedFd>);

impl Channel {
    /// Two ends.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self { socket: one }, Self { socket: other }))
    }

    /// The end that this process was given as its standard input.
    ///
    /// # Errors
    /// The standard input is no such socket.
    pub(crate) fn from_stdin() -> io::Result<Self> {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        if sockopt::socket_type(&socket)? != SocketType::SEQPACKET {
            return Err(io::Error::other("it is not a channel of image-cri-shim"));
        }
        Ok(Self { socket })
    }

    /// The descriptor, to give it to another process.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.socket
    }

    /// An end that was a descriptor.
    pub(crate) fn from_fd(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Sends a message. The socket has room for many; one that is full is an error.
    pub(crate) fn send(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        send(self.socket.as_fd(), message, fds)
    }

    /// The next message; `None` when the other process is gone.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`], or what came can't be read.
    pub(crate) fn receive<T: DeserializeOwned>(
        &self,
        timeout: Duration,
    ) -> io::Result<Option<Received<T>>> {
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| poll(&mut fds, Some(&timeout)))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        receive(self.socket.as_fd())
    }

    /// For a task. To be called on the runtime that it is used on.
    pub(crate) fn into_async<Out, In>(self) -> io::Result<AsyncChannel<Out, In>> {
        Ok(AsyncChannel {
            socket: UnixDatagram::from_std(self.socket.into())?,
            messages: PhantomData,
        })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One end of a channel, for tasks, on which `Out` is said and `In` is heard.
#[derive(Debug)]
pub(crate) struct AsyncChannel<Out, In> {
    /// In truth it keeps messages apart and has an end, which nothing in the type depends on.
    socket: UnixDatagram,
    messages: PhantomData<fn(Out) -> In>,
}

impl<Out: Serialize, In: DeserializeOwned> AsyncChannel<Out, In> {
    /// Sends a message. The socket has room for many; one that is full is an error.
    pub(crate) fn send(&self, message: &Out, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        send(self.socket.as_fd(), message, fds)
    }

    /// The next message; `None` when the other process is gone. Nothing is lost where this is dropped.
    ///
    /// # Errors
    /// What came can't be read.
    pub(crate) async fn receive(&self) -> io::Result<Option<Received<In>>> {
        let received = self
            .socket
            .async_io(Interest::READABLE, || receive(self.socket.as_fd()));
        received.await
    }
}

fn send(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let message = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors"));
    }
    // A process that is gone is an error and not a signal.
    sendmsg(
        socket,
        &[IoSlice::new(&message)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<Received<T>>> {
    let mut message = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut message)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    );
    let received = match received {
        // The other process was killed with something unread.
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        received => received?,
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(io::Error::other("a message is too long"));
    }
    let message = message.get(..received.bytes).unwrap_or_default();
    Ok(Some((serde_json::from_slice(message)?, fds)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    const SHORT: Duration = Duration::from_millis(10);

    #[test]
    fn messages_and_descriptors_arrive_whole_and_in_order() {
        let (one, other) = Channel::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        one.send(&"first", &[writer.as_fd()]).unwrap();
        one.send(&vec!["x"; 100], &[]).unwrap();
        drop(writer);
        let (first, mut fds) = other.receive::<String>(SHORT).unwrap().unwrap();
        assert_eq!((first.as_str(), fds.len()), ("first", 1));
        let mut writer = io::PipeWriter::from(fds.remove(0));
        writer.write_all(b"by another way").unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "by another way");
        let (second, _) = other.receive::<Vec<String>>(SHORT).unwrap().unwrap();
        assert_eq!(second.len(), 100);
        let waited = other.receive::<String>(SHORT).unwrap_err();
        assert_eq!(waited.kind(), io::ErrorKind::TimedOut);
        drop(one);
        assert!(other.receive::<String>(SHORT).unwrap().is_none());
        other.send(&"nobody", &[]).unwrap_err();
    }

    #[tokio::test]
    async fn tasks_hear_of_the_other_s_end() {
        let (one, other) = Channel::pair().unwrap();
        let one = one.into_async::<u32, String>().unwrap();
        one.send(&7, &[]).unwrap();
        other.send(&"seven", &[]).unwrap();
        assert_eq!(one.receive().await.unwrap().unwrap().0, "seven");
        assert_eq!(other.receive::<u32>(SHORT).unwrap().unwrap().0, 7);
        drop(other);
        assert!(one.receive().await.unwrap().is_none());
    }
}
