//! Length-prefixed messages: one byte that says whether it is compressed, four of length, the message.

use std::io::Read;

use bytes::{BufMut, Bytes, BytesMut};
use flate2::read::{GzDecoder, ZlibDecoder};
use http::HeaderMap;

use super::GRPC_ENCODING;

/// Bytes of flag and length before each message.
const PREFIX: usize = 5;

/// Largest message that is decompressed: 64 MiB. What is larger passes untouched.
pub const MAX_DECOMPRESSED: usize = 64 << 20;

/// Why a body can't be read as one message. The caller forwards it as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No message at all.
    #[error("the body holds no message")]
    Empty,
    /// Bytes are missing.
    #[error("the body ends inside a message")]
    Truncated,
    /// More bytes than one message.
    #[error("the body holds more than one message")]
    TrailingBytes,
    /// A flag byte other than 0 and 1.
    #[error("the message has an unknown flag byte")]
    UnknownFlag,
    /// Compressed, but in a way that is not known here, or that no `grpc-encoding` names.
    #[error("the message is compressed in an unknown way")]
    UnknownEncoding,
    /// The compressed data is broken.
    #[error("the message can't be decompressed")]
    Corrupt,
    /// Larger than [`MAX_DECOMPRESSED`] when decompressed.
    #[error("the message is larger than {} MiB when decompressed", MAX_DECOMPRESSED >> 20)]
    TooLarge,
}

/// One message as it stands in a body: still compressed, where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    compressed: bool,
    payload: Bytes,
}

impl Message {
    /// Reads a body that must hold exactly one message.
    ///
    /// # Errors
    /// [`FrameError::Empty`], [`FrameError::Truncated`], [`FrameError::TrailingBytes`],
    /// [`FrameError::UnknownFlag`].
    pub fn parse(body: &Bytes) -> Result<Self, FrameError> {
        if body.is_empty() {
            return Err(FrameError::Empty);
        }
        let total = Self::length(body).ok_or(FrameError::Truncated)?;
        if body.len() < total {
            return Err(FrameError::Truncated);
        }
        if body.len() > total {
            return Err(FrameError::TrailingBytes);
        }
        let compressed = match body.first() {
            Some(0) => false,
            Some(1) => true,
            _ => return Err(FrameError::UnknownFlag),
        };
        Ok(Self {
            compressed,
            payload: body.slice(PREFIX..),
        })
    }

    /// Bytes that the first message of `body` takes, its prefix included; `None` while the prefix is
    /// not there yet.
    pub fn length(body: &[u8]) -> Option<usize> {
        let length: [u8; 4] = body.get(1..PREFIX)?.try_into().ok()?;
        usize::try_from(u32::from_be_bytes(length))
            .ok()?
            .checked_add(PREFIX)
    }

    /// The message itself, decompressed as the `grpc-encoding` of `headers` says.
    ///
    /// # Errors
    /// [`FrameError::UnknownEncoding`], [`FrameError::Corrupt`], [`FrameError::TooLarge`].
    pub fn decode(self, headers: &HeaderMap) -> Result<Bytes, FrameError> {
        if !self.compressed {
            return Ok(self.payload);
        }
        match headers.get(GRPC_ENCODING).map(http::HeaderValue::as_bytes) {
            Some(b"gzip") => inflate(GzDecoder::new(&self.payload[..])),
            // gRPC's deflate is the zlib format (RFC 1950), as HTTP's is meant to be.
            Some(b"deflate") => inflate(ZlibDecoder::new(&self.payload[..])),
            Some(b"identity") => Ok(self.payload),
            _ => Err(FrameError::UnknownEncoding),
        }
    }
}

/// Reads the one message of `body`, decompressed: [`Message::parse`] and [`Message::decode`].
///
/// # Errors
/// Any [`FrameError`].
pub fn single_message(body: &Bytes, headers: &HeaderMap) -> Result<Bytes, FrameError> {
    Message::parse(body)?.decode(headers)
}

/// Puts the prefix of an uncompressed message before it. `None` above 4 GiB, which no frame can hold.
pub fn frame(message: &[u8]) -> Option<Bytes> {
    let length = u32::try_from(message.len()).ok()?;
    let mut out = BytesMut::with_capacity(PREFIX + message.len());
    out.put_u8(0);
    out.put_u32(length);
    out.put_slice(message);
    Some(out.freeze())
}

fn inflate(reader: impl Read) -> Result<Bytes, FrameError> {
    let mut out = Vec::new();
    reader
        .take(MAX_DECOMPRESSED as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|_| FrameError::Corrupt)?;
    if out.len() > MAX_DECOMPRESSED {
        return Err(FrameError::TooLarge);
    }
    Ok(Bytes::from(out))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use http::HeaderValue;

    use super::*;

    fn headers(encoding: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_ENCODING, HeaderValue::from_static(encoding));
        headers
    }

    fn compressed(payload: &[u8]) -> Bytes {
        let mut body = frame(payload).unwrap().to_vec();
        body[0] = 1;
        Bytes::from(body)
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn plain_gzip_and_deflate_are_read() {
        let none = HeaderMap::new();
        assert_eq!(
            single_message(&frame(b"hello").unwrap(), &none).unwrap(),
            "hello"
        );
        assert_eq!(single_message(&frame(b"").unwrap(), &none).unwrap(), "");
        // An encoding is named, but this message does not use it.
        assert_eq!(
            single_message(&frame(b"hello").unwrap(), &headers("snappy")).unwrap(),
            "hello"
        );
        let body = compressed(&gzip(b"hello"));
        assert_eq!(single_message(&body, &headers("gzip")).unwrap(), "hello");
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(b"hello").unwrap();
        let body = compressed(&encoder.finish().unwrap());
        assert_eq!(single_message(&body, &headers("deflate")).unwrap(), "hello");
    }

    #[test]
    fn what_is_not_one_readable_message_is_refused() {
        let none = HeaderMap::new();
        let check = |body: &[u8], headers: &HeaderMap, error| {
            assert_eq!(
                single_message(&Bytes::copy_from_slice(body), headers),
                Err(error)
            );
        };
        check(b"", &none, FrameError::Empty);
        check(&[0, 0, 0], &none, FrameError::Truncated);
        check(&[0, 0, 0, 0, 2, 1], &none, FrameError::Truncated);
        check(&[0, 255, 255, 255, 255, 1], &none, FrameError::Truncated);
        check(&[0, 0, 0, 0, 1, 1, 0], &none, FrameError::TrailingBytes);
        check(&[2, 0, 0, 0, 0], &none, FrameError::UnknownFlag);
        check(&[1, 0, 0, 0, 0], &none, FrameError::UnknownEncoding);
        let body = compressed(&gzip(b"hello"));
        check(&body, &headers("snappy"), FrameError::UnknownEncoding);
        check(&body, &headers("deflate"), FrameError::Corrupt);
        check(&compressed(b"xx"), &headers("gzip"), FrameError::Corrupt);
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit() {
        let body = compressed(&gzip(&vec![0; MAX_DECOMPRESSED + 1]));
        assert!(body.len() < 1 << 20);
        assert_eq!(
            single_message(&body, &headers("gzip")),
            Err(FrameError::TooLarge)
        );
    }
}
