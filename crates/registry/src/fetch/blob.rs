//! A blob, or a part of one, while it arrives.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use policy::text::host_of;

use super::opened::Opened;
use crate::manifest::content_digest;
use crate::outcome::{Cause, ExchangeError};

/// How long a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobSize {
    /// In bytes; `None` where the registry does not say.
    pub size: Option<u64>,
}

/// An answer with a blob's bytes, as they arrive. Dropping it ends the transfer.
#[derive(Debug)]
pub struct Blob {
    /// Where in the blob the first byte of the body belongs: what was asked for, or 0 where the source
    /// sends everything from its beginning.
    pub start: u64,
    /// Bytes of this body, where the source says.
    pub length: Option<u64>,
    /// Bytes of the whole blob, where the source says.
    pub size: Option<u64>,
    /// The digest that the source names. The bytes decide, not this.
    pub named_digest: Option<String>,
    /// Who sends it, as `scheme://host[:port]`: the registry, or a storage host.
    pub from: String,
    response: reqwest::Response,
    received: u64,
    idle_timeout: Duration,
}

impl Blob {
    pub(super) fn new(
        opened: Opened,
        first: u64,
        last: Option<u64>,
        idle_timeout: Duration,
    ) -> Result<Self, ExchangeError> {
        let headers = &opened.headers;
        let length = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let (start, size) = match opened.status {
            206 => part(headers, first, last, length)?,
            _ => (0, length),
        };
        Ok(Self {
            start,
            length,
            size,
            named_digest: content_digest(headers),
            from: host_of(&opened.received.url),
            response: opened.received.response,
            received: 0,
            idle_timeout,
        })
    }

    /// The next bytes; `None` at the end of the body.
    ///
    /// # Errors
    /// [`crate::Failure::ImageFailed`]: the body ended before its time ([`Cause::Reset`]), or nothing
    /// came for [`crate::FetchOptions::idle_timeout`] ([`Cause::Timeout`]).
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ExchangeError> {
        let next = tokio::time::timeout(self.idle_timeout, self.response.chunk()).await;
        let chunk = match next {
            Ok(Ok(chunk)) => chunk,
            Ok(Err(_)) => return Err(self.broken(Cause::Reset, "closed the connection")),
            Err(_) => {
                let silence = format!("sent nothing for {:?}", self.idle_timeout);
                return Err(self.broken(Cause::Timeout, &silence));
            }
        };
        match &chunk {
            Some(chunk) => self.received += chunk.len() as u64,
            None if self.length.is_some_and(|length| self.received < length) => {
                return Err(self.broken(Cause::Reset, "ended"));
            }
            None => {}
        }
        Ok(chunk)
    }

    fn broken(&self, cause: Cause, what: &str) -> ExchangeError {
        let of = self
            .length
            .map_or_else(String::new, |length| format!(" of {length}"));
        ExchangeError::image_failed(
            cause,
            None,
            format!(
                "{} {what} in the middle of its body, after {}{of} bytes",
                self.from, self.received
            ),
        )
    }
}

/// Where the part that was sent begins, and how long the whole is.
fn part(
    headers: &HeaderMap,
    first: u64,
    last: Option<u64>,
    length: Option<u64>,
) -> Result<(u64, Option<u64>), ExchangeError> {
    let wrong = |what: &str| {
        let detail = format!("answered 206 with {what} than was asked for");
        Err(ExchangeError::image_failed(
            Cause::Protocol,
            Some(206),
            detail,
        ))
    };
    let Some(range) = headers.get(CONTENT_RANGE).and_then(content_range) else {
        return wrong("no range, or another one");
    };
    if range.first != first || last.is_some_and(|last| range.last > last) {
        return wrong("another range");
    }
    if length.is_some_and(|length| length != range.last - range.first + 1) {
        return wrong("more or fewer bytes");
    }
    Ok((range.first, range.size))
}

#[derive(Debug, PartialEq, Eq)]
struct ContentRange {
    first: u64,
    last: u64,
    size: Option<u64>,
}

/// `bytes 0-99/1000` or `bytes 0-99/*` (RFC 9110, section 14.4).
fn content_range(value: &http::HeaderValue) -> Option<ContentRange> {
    let (unit, rest) = value.to_str().ok()?.trim().split_once(' ')?;
    let (range, size) = rest.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let range = ContentRange {
        first: first.parse().ok()?,
        last: last.parse().ok()?,
        size: match size {
            "*" => None,
            size => Some(size.parse().ok()?),
        },
    };
    let fits = range.first <= range.last && range.size.is_none_or(|size| range.last < size);
    (unit.eq_ignore_ascii_case("bytes") && fits).then_some(range)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn ranges_of_answers() {
        for (text, want) in [
            ("bytes 0-99/1000", Some((0, 99, Some(1000)))),
            ("Bytes 5-5/*", Some((5, 5, None))),
            ("bytes 5-4/9", None),
            ("bytes 0-9/9", None),
            ("bytes */9", None),
            ("items 0-1/2", None),
            ("bytes -1-2/9", None),
            ("bytes 99999999999999999999-1/*", None),
            ("", None),
        ] {
            let found = content_range(&HeaderValue::from_static(text));
            let found = found.map(|range| (range.first, range.last, range.size));
            assert_eq!(found, want, "{text}");
        }
    }
}
