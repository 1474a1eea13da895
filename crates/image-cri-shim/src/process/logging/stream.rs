//! Lines on standard error.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};

use super::sink::Output;

/// Standard error by a descriptor of its own: std's has a lock, and who waits for a reader while he
/// holds it stops all who have something to say to people.
pub(super) struct Stream(File);

impl Stream {
    /// Standard error.
    ///
    /// # Errors
    /// There is none, or the process has no descriptor left.
    pub(super) fn stderr() -> io::Result<Self> {
        Ok(Self(File::from(io::stderr().as_fd().try_clone_to_owned()?)))
    }
}

impl Output for Stream {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let mut line = [line, b"\n"].concat();
        let mut rest = line.as_mut_slice();
        while !rest.is_empty() {
            match self.0.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = rest.split_at_mut(written).1,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Somebody else has made the pipe that we share a non-blocking one.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut pipe = [PollFd::new(&self.0, PollFlags::OUT)];
                    poll(&mut pipe, None)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
