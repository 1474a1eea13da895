//! Frames written by hand, as old clients send them: each `:authority`, on real connections.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::world::{World, frame as message, patiently};

const VERSION: &[u8] = b"/runtime.v1.RuntimeService/Version";
const STATUS: &[u8] = b"/runtime.v1.ImageService/ImageStatus";

/// A connection whose frames are written and read by hand.
struct Raw {
    stream: UnixStream,
    next: u32,
}

impl Raw {
    async fn connect(world: &World) -> Self {
        let mut stream = UnixStream::connect(&world.socket).await.unwrap();
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await
            .unwrap();
        Self { stream, next: 1 }
    }

    /// Sends a request whose header block is given, with an empty message.
    async fn request(&mut self, block: &[u8]) -> u32 {
        let stream = self.next;
        self.next += 2;
        let mut bytes = frame(1, 4, stream, block);
        bytes.extend(frame(0, 1, stream, &message(false, b"")));
        self.stream.write_all(&bytes).await.unwrap();
        stream
    }

    /// Reads until all streams have ended; what came last on each: a frame's type, and the error code
    /// if that is a reset.
    async fn ends(&mut self, mut streams: Vec<u32>) -> BTreeMap<u32, Result<(), u32>> {
        let mut ends = BTreeMap::new();
        while !streams.is_empty() {
            let mut head = [0; 9];
            patiently("a frame", self.stream.read_exact(&mut head))
                .await
                .unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.stream.read_exact(&mut payload).await.unwrap();
            let id = u32::from_be_bytes(head[5..9].try_into().unwrap());
            let end = match (head[3], head[4] & 1) {
                (0 | 1, 1) => Ok(()),
                (3, _) => Err(u32::from_be_bytes(payload[..4].try_into().unwrap())),
                (7, _) => panic!("the connection ended: {payload:?}"),
                _ => continue,
            };
            streams.retain(|stream| *stream != id);
            ends.insert(id, end);
        }
        ends
    }

    async fn succeeds(&mut self, block: &[u8]) {
        let stream = self.request(block).await;
        assert_eq!(self.ends(vec![stream]).await[&stream], Ok(()));
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

fn string(text: &[u8], out: &mut Vec<u8>) {
    out.push(u8::try_from(text.len()).unwrap());
    out.extend(text);
}

/// The fields that grpc-go sends first, each added to the dynamic table, in its order; `authority`
/// between them, if there is one.
fn first_block(path: &[u8], authority: Option<&[u8]>) -> Vec<u8> {
    let mut block = vec![0x83, 0x86]; // POST, http
    block.push(0x44);
    string(path, &mut block);
    if let Some(authority) = authority {
        block.push(0x41);
        string(authority, &mut block);
    }
    for (name, value) in [
        (&b"content-type"[..], &b"application/grpc"[..]),
        (b"user-agent", b"grpc-go/1.38"),
        (b"te", b"trailers"),
    ] {
        block.push(0x40);
        string(name, &mut block);
        string(value, &mut block);
    }
    block
}

/// The same request again, all of it from the dynamic table, and a timeout that is new each time.
fn next_block(authority: bool, timeout: &[u8]) -> Vec<u8> {
    let count = if authority { 5 } else { 4 };
    let mut block = vec![0x83, 0x86];
    // The oldest entry has the highest index.
    for index in (62..62 + count).rev() {
        block.push(0x80 | index);
    }
    block.push(0x00);
    string(b"grpc-timeout", &mut block);
    string(timeout, &mut block);
    block
}

#[tokio::test]
async fn every_authority_is_served_several_times_on_one_connection() {
    let world = World::start().await;
    for authority in [
        &b"/run/x.sock"[..],
        b"%2Frun%2Fx.sock",
        b"unix:/run/x",
        b"unix:///run/x.sock",
        b"",
        b"localhost",
        b"user@localhost",
        b"passthrough:///x",
    ] {
        for path in [VERSION, STATUS] {
            let shown = String::from_utf8_lossy(authority);
            world.runtime.clear_requests();
            let mut client = Raw::connect(&world).await;
            client.succeeds(&first_block(path, Some(authority))).await;
            for timeout in [&b"7S"[..], b"8S", b"9S"] {
                client.succeeds(&next_block(true, timeout)).await;
            }
            let requests = world.runtime.requests();
            assert_eq!(requests.len(), 4, "{shown}");
            for request in requests {
                assert_eq!(request.authority.as_deref(), Some("localhost"), "{shown}");
                assert_eq!(request.path.as_bytes(), path, "{shown}");
                assert_eq!(request.metadata["user-agent"], "grpc-go/1.38", "{shown}");
                assert_eq!(request.metadata["te"], "trailers", "{shown}");
            }
        }
    }
}

#[tokio::test]
async fn no_authority_at_all_is_served() {
    let world = World::start().await;
    let mut client = Raw::connect(&world).await;
    client.succeeds(&first_block(VERSION, None)).await;
    client.succeeds(&next_block(false, b"9S")).await;
    let requests = world.runtime.requests();
    assert_eq!(requests[1].authority.as_deref(), Some("localhost"));
    assert_eq!(requests[1].metadata["grpc-timeout"], "9S");
}

#[tokio::test]
async fn good_then_bad_then_good_on_one_connection() {
    let world = World::start().await;
    let mut client = Raw::connect(&world).await;
    client
        .succeeds(&first_block(VERSION, Some(b"localhost")))
        .await;
    client.succeeds(&next_block(true, b"1S")).await;
    // Another authority, with its name from the dynamic table (62 te, 63 user-agent, 64 content-type,
    // 65 authority, 66 path).
    let mut bad = vec![0x83, 0x86, 0x80 | 66, 0x40 | 63, 2];
    string(b"/run/x.sock", &mut bad);
    bad.extend([0x80 | 65, 0x80 | 64, 0x80 | 63]);
    client.succeeds(&bad).await;
    // The indices moved by one; the good one is still there.
    let good = [
        0x83,
        0x86,
        0x80 | 67,
        0x80 | 66,
        0x80 | 65,
        0x80 | 64,
        0x80 | 63,
    ];
    client.succeeds(&good).await;
    let requests = world.runtime.requests();
    assert_eq!(requests.len(), 4);
    for request in requests {
        assert_eq!(request.authority.as_deref(), Some("localhost"));
        assert_eq!(request.metadata["te"], "trailers");
    }
}

#[tokio::test]
async fn many_requests_in_one_write() {
    let world = World::start().await;
    let mut client = Raw::connect(&world).await;
    let mut streams = vec![
        client
            .request(&first_block(VERSION, Some(b"/run/x.sock")))
            .await,
    ];
    for _ in 0..100 {
        streams.push(client.request(&next_block(true, b"9S")).await);
    }
    let ends = client.ends(streams).await;
    assert!(ends.values().all(Result::is_ok), "{ends:?}");
    assert_eq!(world.runtime.requests().len(), 101);
}

/// What the adaptor does not touch is `h2`'s to refuse: two authorities stay two.
#[tokio::test]
async fn two_authorities_in_one_request_are_refused() {
    let world = World::start().await;
    let mut client = Raw::connect(&world).await;
    let mut block = first_block(VERSION, Some(b"/run/x.sock"));
    block.splice(2..2, [0x01, 1, b'a']);
    let stream = client.request(&block).await;
    assert_eq!(client.ends(vec![stream]).await[&stream], Err(1));
    assert!(world.runtime.requests().is_empty());
}
