//! A file that comes with a command. The cache runs as a user that may open next to nothing; who asks has
//! opened the file, and hands it over.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// Longest question.
const MAX_LINE: usize = 1024 * 1024;

/// Sends a line, with a file where there is one.
pub(super) async fn send(
    stream: &mut UnixStream,
    line: &[u8],
    file: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let sent = match file {
        None => 0,
        Some(file) => {
            stream
                .async_io(Interest::WRITABLE, || {
                    let files = [file];
                    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                    let mut with = SendAncillaryBuffer::new(&mut space);
                    with.push(SendAncillaryMessage::ScmRights(&files));
                    let sent = sendmsg(
                        &*stream,
                        &[IoSlice::new(line)],
                        &mut with,
                        SendFlags::NOSIGNAL,
                    );
                    Ok(sent?)
                })
                .await?
        }
    };
    stream.write_all(line.get(sent..).unwrap_or_default()).await
}

/// Receives a line, and the file that came with it.
pub(super) async fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let (mut line, mut file) = (Vec::new(), None);
    let mut piece = vec![0; 16 * 1024];
    while !line.ends_with(b"\n") && line.len() <= MAX_LINE {
        let received = stream
            .async_io(Interest::READABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut with = RecvAncillaryBuffer::new(&mut space);
                let received = recvmsg(
                    stream,
                    &mut [IoSliceMut::new(&mut piece)],
                    &mut with,
                    RecvFlags::CMSG_CLOEXEC,
                )?;
                for message in with.drain() {
                    if let RecvAncillaryMessage::ScmRights(mut files) = message {
                        file = files.next().or(file.take());
                    }
                }
                Ok(received.bytes)
            })
            .await?;
        if received == 0 {
            break;
        }
        line.extend_from_slice(piece.get(..received).unwrap_or_default());
    }
    Ok((line, file))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[tokio::test]
    async fn a_long_line_and_its_file() {
        let (mut one, other) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        let line = [vec![b'x'; 500_000], vec![b'\n']].concat();
        let (sent, received) =
            tokio::join!(send(&mut one, &line, Some(file.as_fd())), receive(&other));
        sent.unwrap();
        let (got, with) = received.unwrap();
        assert_eq!(got, line);
        let mut with = std::fs::File::from(with.unwrap());
        let mut text = String::new();
        with.rewind().unwrap();
        with.read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");

        let (sent, received) = tokio::join!(send(&mut one, b"alone\n", None), receive(&other));
        sent.unwrap();
        let (got, with) = received.unwrap();
        assert!(got == b"alone\n" && with.is_none());
    }
}
