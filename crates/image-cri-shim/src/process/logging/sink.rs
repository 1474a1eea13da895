//! Lines on their way out. Whoever reads them may stop reading: a full pipe, a journal that hangs. That
//! costs lines, and a count of them, but never a call: the thread that logs never waits.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// Lines that may wait. The places are allocated at the start, so they are few.
const MAX_LINES: usize = 2048;
/// Bytes that may wait.
const MAX_BYTES: usize = 1024 * 1024;

/// Where lines end up. May block for as long as it likes.
pub(super) trait Output: Send + 'static {
    /// Writes one line, which has no line end.
    fn write(&mut self, line: &[u8]) -> io::Result<()>;
}

/// Takes lines, and writes them on a thread of its own. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Sink {
    sender: SyncSender<Message>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting_bytes: AtomicUsize,
    lost: AtomicU64,
}

enum Message {
    Line(Vec<u8>),
    /// Everything before it has been written.
    Flush(SyncSender<()>),
}

impl Sink {
    /// Writes to `output` from now on. `notice` makes the line that says how many lines were lost.
    ///
    /// # Errors
    /// There can be no further thread.
    pub(super) fn start(
        output: impl Output,
        notice: impl Fn(u64) -> Vec<u8> + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(MAX_LINES);
        let state = Arc::new(State::default());
        let writer = Writer {
            output,
            notice,
            state: Arc::clone(&state),
            reported: 0,
        };
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.run(&receiver))?;
        Ok(Self { sender, state })
    }

    /// Hands a line on, or counts it as lost. Never waits.
    pub(super) fn line(&self, line: Vec<u8>) {
        let size = line.len();
        let waiting = self.state.waiting_bytes.fetch_add(size, Ordering::Relaxed);
        if waiting.saturating_add(size) <= MAX_BYTES
            && self.sender.try_send(Message::Line(line)).is_ok()
        {
            return;
        }
        self.state.waiting_bytes.fetch_sub(size, Ordering::Relaxed);
        self.state.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Lines that were lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::Relaxed)
    }

    /// Waits until what was handed on is written, at most `timeout`.
    pub(super) fn flush(&self, timeout: Duration) {
        let (done, written) = sync_channel(1);
        let sender = self.sender.clone();
        // A queue that is full is one that nobody reads, or one that moves on in a moment: a thread can wait
        // for that, and be left waiting.
        thread::spawn(move || sender.send(Message::Flush(done)));
        // Whoever leaves does so in time, written or not.
        let _ = written.recv_timeout(timeout);
    }
}

/// The thread's side.
struct Writer<O, N> {
    output: O,
    notice: N,
    state: Arc<State>,
    /// Lost lines that were reported.
    reported: u64,
}

impl<O: Output, N: Fn(u64) -> Vec<u8>> Writer<O, N> {
    fn run(mut self, receiver: &Receiver<Message>) {
        while let Ok(message) = receiver.recv() {
            match message {
                Message::Line(line) => {
                    if self.output.write(&line).is_err() {
                        self.state.lost.fetch_add(1, Ordering::Relaxed);
                    }
                    let size = line.len();
                    self.state.waiting_bytes.fetch_sub(size, Ordering::Relaxed);
                    self.report();
                }
                // Nobody waits for it any more where this fails.
                Message::Flush(done) => {
                    let _ = done.try_send(());
                }
            }
        }
    }

    /// Says how many lines were lost, as soon as there is a reader again.
    fn report(&mut self) {
        let lost = self.state.lost.load(Ordering::Relaxed);
        let new = lost - self.reported;
        if new > 0 && self.output.write(&(self.notice)(new)).is_ok() {
            self.reported = lost;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// An output that writes a line only when it is let.
    struct Gate {
        open: mpsc::Receiver<()>,
        written: mpsc::Sender<String>,
    }

    impl Output for Gate {
        fn write(&mut self, line: &[u8]) -> io::Result<()> {
            if self.open.recv().is_err() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let line = String::from_utf8_lossy(line).into_owned();
            self.written.send(line).map_err(io::Error::other)
        }
    }

    fn gated() -> (Sink, mpsc::Sender<()>, mpsc::Receiver<String>) {
        let (opener, open) = mpsc::channel();
        let (written, lines) = mpsc::channel();
        let notice = |lost| format!("{lost} lines lost").into_bytes();
        (
            Sink::start(Gate { open, written }, notice).unwrap(),
            opener,
            lines,
        )
    }

    #[test]
    fn a_reader_that_stops_costs_lines_and_a_count_of_them() {
        let (sink, opener, lines) = gated();
        let sent = 3 * MAX_LINES as u64;
        for number in 0..sent {
            sink.line(format!("line {number}").into_bytes());
        }
        let lost = sink.lost();
        assert!(lost >= sent - MAX_LINES as u64 - 1 && lost < sent, "{lost}");
        // Nobody waits for a reader that isn't there.
        sink.flush(Duration::from_millis(20));
        for _ in 0..=sent - lost {
            opener.send(()).unwrap();
        }
        assert_eq!(lines.recv().unwrap(), "line 0");
        assert_eq!(lines.recv().unwrap(), format!("{lost} lines lost"));
        assert_eq!(lines.recv().unwrap(), "line 1");
    }

    #[test]
    fn few_long_lines_are_too_much_too() {
        let (sink, _opener, _lines) = gated();
        for _ in 0..8 {
            sink.line(vec![b'x'; MAX_BYTES / 4]);
        }
        assert_eq!(sink.lost(), 4);
        // There is room for short ones where a long one has none.
        sink.line(vec![b'x'; 2 * MAX_BYTES]);
        assert_eq!(sink.lost(), 5);
    }

    #[test]
    fn a_reader_that_is_gone_stops_nothing() {
        let (sink, opener, _lines) = gated();
        drop(opener);
        for number in 0..10 {
            sink.line(format!("line {number}").into_bytes());
        }
        sink.flush(Duration::from_secs(30));
        assert_eq!(sink.lost(), 10);
    }

    #[test]
    fn what_was_handed_on_is_written_before_the_end() {
        let (sink, opener, lines) = gated();
        opener.send(()).unwrap();
        sink.line(b"last words".to_vec());
        sink.flush(Duration::from_secs(30));
        assert_eq!(lines.try_recv().unwrap(), "last words");
    }
}
