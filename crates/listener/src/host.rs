//! By which names a request calls the listener.
//!
//! A web page can have a DNS name of its own lead to a listener of ours (DNS rebinding); the browser then
//! takes us for a part of that page's site and lets it read. What gives it away is the `Host` that the
//! browser sends: it is that name. Which names are a listener's own is for its role to say.

use std::net::Ipv6Addr;

use http::Version;
use http::header::HOST;
use http::request::Parts;
use thiserror::Error;

/// A request that doesn't say which host it is for. It deserves a `400`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HostError {
    /// HTTP/1.1 without a `Host`.
    #[error("a Host header is missing")]
    Missing,
    /// More than one `Host`.
    #[error("two Host headers")]
    Several,
}

/// The hosts that `request` names, with their ports: in `Host`, and in a request line that holds a whole
/// URL, as HTTP/2 always has it. None where it is HTTP/1.0 without a `Host`, which no browser sends.
///
/// # Errors
/// [`HostError`].
pub fn named(request: &Parts) -> Result<Vec<&str>, HostError> {
    let mut headers = request.headers.get_all(HOST).iter();
    let target = request.uri.authority().map(http::uri::Authority::as_str);
    // A header that is no text is no name that anybody has.
    let header = headers.next().map(|host| host.to_str().unwrap_or_default());
    if headers.next().is_some() {
        return Err(HostError::Several);
    }
    let is_told = target.is_some() && request.version >= Version::HTTP_2;
    if header.is_none() && !is_told && request.version != Version::HTTP_10 {
        return Err(HostError::Missing);
    }
    Ok(header.into_iter().chain(target).collect())
}

/// A host without its port, and an IPv6 address without its brackets. `None` where it is no host at all.
pub fn without_port(host: &str) -> Option<&str> {
    let (name, port) = if let Some(rest) = host.strip_prefix('[') {
        let (name, rest) = rest.split_once(']')?;
        name.parse::<Ipv6Addr>().ok()?;
        (name, rest)
    } else {
        let end = host.find(':').unwrap_or(host.len());
        host.split_at(end)
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let has_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    (has_port && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn parts(request: http::request::Builder) -> Parts {
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn every_name_counts() {
        let get = |uri: &str| Request::get(uri).header(HOST, "localhost:1");
        assert_eq!(named(&parts(get("/"))), Ok(vec!["localhost:1"]));
        let whole = parts(get("http://evil.example/"));
        assert_eq!(named(&whole), Ok(vec!["localhost:1", "evil.example"]));
        let twice = parts(get("/").header(HOST, "localhost:1"));
        assert_eq!(named(&twice), Err(HostError::Several));
        assert_eq!(named(&parts(Request::get("/"))), Err(HostError::Missing));
        let old = Request::get("/").version(Version::HTTP_10);
        assert_eq!(named(&parts(old)), Ok(Vec::new()));
        let http2 = Request::get("http://a.io/").version(Version::HTTP_2);
        assert_eq!(named(&parts(http2)), Ok(vec!["a.io"]));
        let http1 = parts(Request::get("http://a.io/"));
        assert_eq!(named(&http1), Err(HostError::Missing));
    }

    #[test]
    fn ports_and_brackets() {
        for (host, expected) in [
            ("localhost", Some("localhost")),
            ("localhost:7441", Some("localhost")),
            ("[::1]:7441", Some("::1")),
            ("[::1]", Some("::1")),
            ("localhost:7441x", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[localhost]", None),
            ("::1", None),
            (":7441", None),
            ("", None),
        ] {
            assert_eq!(without_port(host), expected, "{host:?}");
        }
    }
}
