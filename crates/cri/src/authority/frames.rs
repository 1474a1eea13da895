//! Finding header blocks in a client's HTTP/2 bytes (RFC 9113 sections 3.4, 4.1, 6.2 and 6.10).

use super::hpack::Transcoder;

/// What every HTTP/2 client sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of a frame's header.
const HEAD: usize = 9;
/// Bytes of one header block, frame headers and padding included, that are held back at most. More
/// than `h2` accepts, so that it is `h2` that refuses a larger one.
const MAX_BLOCK: usize = 512 << 10;
/// Largest frame we write: what every peer must accept.
const MAX_FRAME: usize = 16_384;

const HEADERS: u8 = 1;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// What to do with the bytes that [`Watcher::step`] was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The first so many bytes pass as they are.
    Pass(usize),
    /// [`Watcher::replacement`] stands for the first so many bytes.
    Replace(usize),
    /// Nothing can be said before more bytes are there; show these again together with them.
    More,
    /// The connection must end: blocks were rewritten, so `h2`'s table is not the client's any more,
    /// and this block can't be rewritten.
    Fail,
}

/// Where in the client's bytes we are.
#[derive(Default)]
enum Phase {
    #[default]
    Preface,
    Frames,
    /// Not HTTP/2, or a breach of its rules: nothing is looked at any more, `h2` answers.
    LookAway,
}

/// Follows the bytes of one connection.
#[derive(Default)]
pub(super) struct Watcher {
    phase: Phase,
    /// Bytes still to come of a frame that passes.
    skip: usize,
    /// A malformed authority was seen: every header block is rewritten.
    rewriting: bool,
    transcoder: Transcoder,
    /// Fragments of a block that came in several frames, joined.
    block: Vec<u8>,
    rewritten: Vec<u8>,
    replacement: Vec<u8>,
}

impl Watcher {
    /// Looks at the next bytes of the connection, which must not be empty.
    pub(super) fn step(&mut self, input: &[u8]) -> Step {
        match self.phase {
            Phase::LookAway => Step::Pass(input.len()),
            Phase::Preface => self.preface(input),
            Phase::Frames if self.skip > 0 => self.skip(input),
            Phase::Frames => self.frame(input),
        }
    }

    /// The bytes that a [`Step::Replace`] spoke of.
    pub(super) fn replacement(&self) -> &[u8] {
        &self.replacement
    }

    fn preface(&mut self, input: &[u8]) -> Step {
        if input.starts_with(PREFACE) {
            self.phase = Phase::Frames;
            Step::Pass(PREFACE.len())
        } else if PREFACE.starts_with(input) {
            Step::More
        } else {
            self.give_up(input)
        }
    }

    fn skip(&mut self, input: &[u8]) -> Step {
        let passed = self.skip.min(input.len());
        self.skip -= passed;
        Step::Pass(passed)
    }

    fn frame(&mut self, input: &[u8]) -> Step {
        let Some(head) = Head::read(input) else {
            return Step::More;
        };
        match head.kind {
            HEADERS => self.header_block(head, input),
            // Neither may stand here.
            CONTINUATION | PUSH_PROMISE => self.give_up(input),
            _ => {
                self.skip = HEAD + head.length;
                self.skip(input)
            }
        }
    }

    fn header_block(&mut self, first: Head, input: &[u8]) -> Step {
        let mut end = HEAD + first.length;
        let mut last = first;
        self.block.clear();
        loop {
            if end > MAX_BLOCK {
                return self.give_up(input);
            }
            if input.len() < end {
                return Step::More;
            }
            if last.flags & END_HEADERS != 0 {
                break;
            }
            let rest = input.get(end..).unwrap_or_default();
            let Some(head) = Head::read(rest) else {
                return Step::More;
            };
            if head.kind != CONTINUATION || head.stream != first.stream {
                return self.give_up(input);
            }
            end += HEAD + head.length;
            last = head;
        }

        let Some(fragment) = first.fragment(input) else {
            return self.give_up(input);
        };
        let single = HEAD + first.length == end;
        if !single {
            self.block.extend_from_slice(fragment);
            let mut rest = input.get(HEAD + first.length..end).unwrap_or_default();
            while let Some(head) = Head::read(rest) {
                let (frame, after) = rest
                    .split_at_checked(HEAD + head.length)
                    .unwrap_or_default();
                self.block
                    .extend_from_slice(frame.get(HEAD..).unwrap_or_default());
                rest = after;
            }
        }
        let block = if single { fragment } else { &self.block };
        self.rewritten.clear();
        match self.transcoder.block(block, &mut self.rewritten) {
            Err(_) => self.give_up(input),
            Ok(malformed) => {
                self.rewriting |= malformed;
                if self.rewriting {
                    self.replace(first);
                    Step::Replace(end)
                } else {
                    Step::Pass(end)
                }
            }
        }
    }

    /// Writes the rewritten block as HEADERS and, where it is too long for one frame, CONTINUATIONs.
    /// Padding and priority are not kept; neither means anything to `h2`.
    fn replace(&mut self, first: Head) {
        self.replacement.clear();
        let mut kind = HEADERS;
        let mut flags = first.flags & END_STREAM;
        let mut rest = &self.rewritten[..];
        loop {
            let (fragment, after) = rest
                .split_at_checked(MAX_FRAME)
                .unwrap_or((rest, Default::default()));
            if after.is_empty() {
                flags |= END_HEADERS;
            }
            // At most MAX_FRAME, so its three low bytes are all of it.
            let [_, length @ ..] = (fragment.len() as u32).to_be_bytes();
            self.replacement.extend_from_slice(&length);
            self.replacement.extend_from_slice(&[kind, flags]);
            self.replacement.extend_from_slice(&first.stream);
            self.replacement.extend_from_slice(fragment);
            if after.is_empty() {
                return;
            }
            (kind, flags, rest) = (CONTINUATION, 0, after);
        }
    }

    fn give_up(&mut self, input: &[u8]) -> Step {
        if self.rewriting {
            return Step::Fail;
        }
        self.phase = Phase::LookAway;
        Step::Pass(input.len())
    }
}

/// A frame's header.
#[derive(Clone, Copy)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: [u8; 4],
}

impl Head {
    fn read(input: &[u8]) -> Option<Self> {
        let &[l0, l1, l2, kind, flags, s0, s1, s2, s3] = input.first_chunk::<HEAD>()?;
        Some(Self {
            length: u32::from_be_bytes([0, l0, l1, l2]) as usize,
            kind,
            flags,
            stream: [s0, s1, s2, s3],
        })
    }

    /// The part of a HEADERS frame that belongs to the header block; `None` when padding or priority
    /// do not fit into the frame.
    fn fragment(self, input: &[u8]) -> Option<&[u8]> {
        let mut payload = input.get(HEAD..HEAD + self.length)?;
        if self.flags & PADDED != 0 {
            let (&padding, rest) = payload.split_first()?;
            payload = rest.get(..rest.len().checked_sub(usize::from(padding))?)?;
        }
        if self.flags & PRIORITY != 0 {
            payload = payload.get(5..)?;
        }
        Some(payload)
    }
}
