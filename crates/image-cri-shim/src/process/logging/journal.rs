//! Lines in the journal's own protocol: one datagram each.
//!
//! Not by `tracing-journald`, which sends on the thread that logs: a journal that hangs would stop it.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::sink::{Output, Sink};
use super::text;

const SOCKET: &str = "/run/systemd/journal/socket";

/// The journal's socket. No connection: a journal that restarts has a new one.
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// The system's journal.
    ///
    /// # Errors
    /// It isn't there.
    pub(super) fn open() -> io::Result<Self> {
        Self::at(Path::new(SOCKET))
    }

    fn at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // One that hangs is there, too, and must not keep us from starting.
        socket.set_nonblocking(true)?;
        // The journal ignores what is empty.
        match socket.send_to(&[], path) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => socket.set_nonblocking(false)?,
        }
        let path = path.to_owned();
        Ok(Self { socket, path })
    }
}

impl Output for Journal {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.socket.send_to(line, &self.path).map(drop)
    }
}

/// Hands every event to a journal.
pub(super) struct JournalLayer(pub(super) Sink);

impl<S: Subscriber> Layer<S> for JournalLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        let message = text::message(event);
        let entry = entry(*metadata.level(), metadata.target(), &message);
        self.0.line(entry);
    }
}

/// An entry of the journal (systemd.io, "Native Journal Protocol").
pub(super) fn entry(level: Level, target: &str, message: &str) -> Vec<u8> {
    let priority = match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    };
    let mut entry = Vec::with_capacity(message.len() + 96);
    for (field, value) in [
        ("PRIORITY", priority),
        ("SYSLOG_IDENTIFIER", "image-cri-shim"),
        ("TARGET", target),
        ("MESSAGE", message),
    ] {
        // With its length, so that no value can begin another field.
        entry.extend_from_slice(field.as_bytes());
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
        entry.extend_from_slice(value.as_bytes());
        entry.push(b'\n');
    }
    entry
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_value_begins_another_field() {
        let entry = entry(Level::WARN, "config", "a\nPRIORITY=0");
        let length = |length: u64| length.to_le_bytes();
        let expected = [
            b"PRIORITY\n".as_slice(),
            &length(1),
            b"4\nSYSLOG_IDENTIFIER\n",
            &length(14),
            b"image-cri-shim\nTARGET\n",
            &length(6),
            b"config\nMESSAGE\n",
            &length(12),
            b"a\nPRIORITY=0\n",
        ];
        assert_eq!(entry, expected.concat());
    }

    #[test]
    fn a_journal_that_hangs_keeps_nobody_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _journal = UnixDatagram::bind(&path).unwrap();
        let mut is_taken = true;
        while std::mem::take(&mut is_taken) {
            let other = UnixDatagram::unbound().unwrap();
            other.set_nonblocking(true).unwrap();
            while other.send_to(b"full", &path).is_ok() {
                is_taken = true;
            }
        }
        let (done, opened) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(Journal::at(&path).is_ok()));
        assert_eq!(opened.recv_timeout(Duration::from_secs(30)), Ok(true));
    }

    #[test]
    fn a_journal_that_hangs_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert!(Journal::at(&path).is_err());
        let journal = UnixDatagram::bind(&path).unwrap();
        let sink = Sink::start(Journal::at(&path).unwrap(), |lost| {
            entry(Level::WARN, "", &format!(": {lost} lines lost"))
        })
        .unwrap();
        // Far more than its queue and ours hold; nobody reads.
        for number in 0..20_000 {
            sink.line(entry(Level::INFO, "cri", &format!("line {number}")));
        }
        assert!(sink.lost() > 0);
        // It reads again.
        let timeout = Some(Duration::from_secs(30));
        journal.set_read_timeout(timeout).unwrap();
        let mut buffer = [0; 4096];
        let mut reported = 0;
        while reported < sink.lost() {
            let length = journal.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]);
            if let Some((before, _)) = text.split_once(" lines lost") {
                let number = before.rsplit(|c: char| !c.is_ascii_digit()).next();
                reported += number.unwrap().parse::<u64>().unwrap();
            }
        }
        assert_eq!(reported, sink.lost());
    }
}
