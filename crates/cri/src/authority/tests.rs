//! The adaptor as a reader: whatever pieces the bytes come in, the same comes out.

use std::collections::VecDeque;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A reader that gives its bytes in given pieces, with a pause before each.
struct Pieces(VecDeque<Vec<u8>>, bool);

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.1 = !self.1;
        if self.1 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(mut piece) = self.0.pop_front() {
            let rest = piece.split_off(piece.len().min(buf.remaining()));
            buf.put_slice(&piece);
            if !rest.is_empty() {
                self.0.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// `:method: POST`, an authority that is indexed, `/` as path.
fn request(authority: &[u8]) -> Vec<u8> {
    let mut block = vec![0x83, 0x41, authority.len() as u8];
    block.extend(authority);
    block.push(0x84);
    block
}

/// The same, with the authority from the dynamic table.
const AGAIN: &[u8] = &[0x83, 0xbe, 0x84];
/// The same as it must come out, when it is rewritten.
const REWRITTEN: &[u8] = b"\x83\x01\x09localhost\x84";

/// What comes out for bytes that come in, in pieces of the given lengths, read into a buffer of the
/// given size.
fn read(input: &[u8], cuts: &[usize], buffer: usize) -> io::Result<Vec<u8>> {
    let mut pieces = VecDeque::new();
    let mut rest = input;
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*cut).clamp(1, rest.len()));
        pieces.push_back(piece.to_vec());
        rest = after;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let mut reader = AuthorityFix::new(Pieces(pieces, false));
        let mut out = Vec::new();
        let mut buf = vec![0; buffer];
        loop {
            match reader.read(&mut buf).await? {
                0 => return Ok(out),
                n => out.extend_from_slice(&buf[..n]),
            }
        }
    })
}

fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    out.extend(frame(4, 0, 0, &[]));
    out.extend(frames.concat());
    out
}

#[test]
fn well_formed_requests_pass_byte_for_byte() {
    let input = connection(&[
        frame(1, 4, 1, &request(b"localhost")),
        frame(0, 1, 1, &[7; 3000]),
        frame(1, 5, 3, AGAIN),
        frame(6, 0, 0, &[0; 8]),
        frame(200, 9, 3, &[1, 2, 3]),
    ]);
    assert_eq!(read(&input, &[usize::MAX], 8192).unwrap(), input);
}

#[test]
fn from_the_first_malformed_one_on_all_are_rewritten() {
    let input = connection(&[
        frame(1, 5, 1, &request(b"localhost")),
        frame(1, 4, 3, &request(b"/run/x.sock")),
        frame(0, 1, 3, b"body"),
        frame(1, 5, 5, AGAIN),
        // The good one, which is the second newest by now.
        frame(1, 5, 7, &[0x83, 0xbf, 0x84]),
        // Trailers: no authority is put into them.
        frame(1, 5, 7, b"\x00\x03x-t\x01v"),
    ]);
    let expected = connection(&[
        frame(1, 5, 1, &request(b"localhost")),
        frame(1, 4, 3, REWRITTEN),
        frame(0, 1, 3, b"body"),
        frame(1, 5, 5, REWRITTEN),
        frame(1, 5, 7, REWRITTEN),
        frame(1, 5, 7, b"\x00\x03x-t\x01v"),
    ]);
    assert_eq!(read(&input, &[usize::MAX], 8192).unwrap(), expected);
}

#[test]
fn padding_priority_and_continuations_are_understood() {
    let block = request(b"/run/x.sock");
    let (first, second) = block.split_at(5);
    let mut padded = vec![3, 0, 0, 0, 1, 16];
    padded.extend(first);
    padded.extend([0; 3]);
    let input = connection(&[
        frame(1, 0x8 | 0x20 | 0x1, 1, &padded),
        frame(9, 0, 1, &[]),
        frame(9, 4, 1, second),
    ]);
    let expected = connection(&[frame(1, 5, 1, REWRITTEN)]);
    assert_eq!(read(&input, &[usize::MAX], 8192).unwrap(), expected);
}

#[test]
fn a_long_block_is_written_in_several_frames() {
    let value = [b'v'; 20_000];
    let mut block = request(b"");
    block.extend(b"\x00\x01x");
    loona_hpack::encoder::encode_integer_into(value.len(), 7, 0, &mut block).unwrap();
    block.extend(value);
    let (first, rest) = block.split_at(16_000);
    let input = connection(&[frame(1, 1, 1, first), frame(9, 4, 1, rest)]);
    let out = read(&input, &[usize::MAX], 8192).unwrap();
    let out = out.strip_prefix(&connection(&[])[..]).unwrap();
    assert_eq!(out[..9], frame(1, 1, 1, &[0; 16_384])[..9]);
    let rest = &out[9 + 16_384..];
    assert_eq!(rest[3..9], [9, 4, 0, 0, 0, 1]);
    let block = [&out[9..9 + 16_384], &rest[9..]].concat();
    let fields = loona_hpack::Decoder::new().decode(&block).unwrap();
    assert_eq!(fields[1].1, b"localhost");
    assert_eq!(fields[3].1, value);
}

#[test]
fn what_is_not_http2_passes() {
    for input in [
        &b"GET / HTTP/1.1\r\nhost: /run/x.sock\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"PRI",
        b"\x16\x03\x01\x02\x00",
    ] {
        assert_eq!(read(input, &[1, 2], 100).unwrap(), input);
    }
}

#[test]
fn breaches_of_the_protocol_pass_for_h2_to_judge() {
    for frames in [
        // A continuation of nothing, a client's push, an interrupted block, padding beyond the frame.
        vec![frame(9, 4, 1, AGAIN)],
        vec![frame(5, 4, 1, AGAIN)],
        vec![frame(1, 0, 1, AGAIN), frame(0, 0, 1, b"x")],
        vec![frame(1, 0, 1, AGAIN), frame(9, 4, 3, b"x")],
        vec![frame(1, 4 | 8, 1, &[9, 0])],
        vec![frame(1, 4 | 0x20, 1, &[9, 0])],
        vec![frame(1, 4, 1, &[0xbe])],
        vec![
            frame(1, 4, 1, &[]),
            frame(1, 0, 3, &[0; 16_384]),
            vec![0, 0],
        ],
    ] {
        let input = connection(&frames);
        assert_eq!(read(&input, &[usize::MAX], 8192).unwrap(), input);
    }
}

#[test]
fn an_unreadable_block_ends_a_connection_that_is_being_rewritten() {
    let input = connection(&[
        frame(1, 5, 1, &request(b"")),
        frame(1, 5, 3, &[0xff, 0xff]),
        frame(1, 5, 5, AGAIN),
    ]);
    let error = read(&input, &[usize::MAX], 8192).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_block_without_end_is_not_kept_without_end() {
    let mut frames = vec![frame(1, 0, 1, &request(b"localhost"))];
    for _ in 0..64 {
        frames.push(frame(9, 0, 1, &[0x83; 16_384]));
    }
    let input = connection(&frames);
    assert_eq!(read(&input, &[usize::MAX], 65_536).unwrap(), input);
}

proptest! {
    #[test]
    fn how_the_bytes_are_cut_makes_no_difference(
        authorities in vec(prop::sample::select(vec![
            &b"localhost"[..], b"/run/x.sock", b"", b"%2Frun%2Fx.sock",
        ]), 1..6),
        body in 0usize..300,
        cuts in vec(1usize..200, 1..10),
        buffer in 1usize..300,
    ) {
        let mut frames = Vec::new();
        for (n, authority) in authorities.iter().enumerate() {
            let stream = 2 * n as u32 + 1;
            let block = request(authority);
            let (first, rest) = block.split_at(n % block.len());
            frames.push(frame(1, 0, stream, first));
            frames.push(frame(9, 4, stream, rest));
            frames.push(frame(0, 1, stream, &vec![9; body]));
        }
        let input = connection(&frames);
        let whole = read(&input, &[usize::MAX], 65_536).unwrap();
        prop_assert_eq!(&read(&input, &cuts, buffer).unwrap(), &whole);
        if authorities.iter().all(|authority| *authority == b"localhost") {
            prop_assert_eq!(whole, input);
        }
    }

    #[test]
    fn garbage_passes_or_fails_but_never_panics(
        garbage in vec(any::<u8>(), 0..300),
        cuts in vec(1usize..50, 1..5),
    ) {
        let mut input = PREFACE.to_vec();
        input.extend(garbage);
        let _ = read(&input, &cuts, 64);
    }
}
