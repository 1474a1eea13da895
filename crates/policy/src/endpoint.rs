//! Where a registry answers: scheme, host, port and path of a configured address.

use std::fmt;
use std::net::IpAddr;

use thiserror::Error;

use crate::host::{canonical_host, has_host_form, is_domain_name};
use crate::{Credentials, reference};

/// RFC 1035: a name's longest form.
const MAX_HOST: usize = 253;

/// How a registry is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// TLS: `https://` was written, or no scheme.
    Https,
    /// Plain HTTP: `http://` was written. No TLS is attempted.
    Http,
    /// No scheme on `localhost` or a loopback address: TLS first, then plain.
    HttpsThenHttp,
}

/// One registry's address, normalised: host in lower case (`index.docker.io` and
/// `registry-1.docker.io` are `docker.io`), default ports dropped, path without slashes at its ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    scheme: Scheme,
    host: String,
    port: Option<u16>,
    path: String,
}

/// Why an address is not one. The text never repeats what was written: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EndpointError {
    /// Nothing was written.
    #[error("the address is empty; write a host such as `registry.example.com:5000`")]
    Empty,
    /// Neither `http://` nor `https://`.
    #[error("unknown scheme before `://`; write `http://`, `https://` or no scheme")]
    Scheme,
    /// The host is not a DNS name, IPv4 address or bracketed IPv6 address.
    #[error(
        "the host is not a valid name or address; write a host such as `registry.example.com` or `[::1]`"
    )]
    Host,
    /// More than one `:`, and no brackets that say which of them comes before the port.
    #[error(
        "more than one `:` in host and port; write an IPv6 address in brackets, such as `[fd00::5]` or `[fd00::5]:5000`, and one `:` before a port"
    )]
    Brackets,
    /// The host is longer than a host may be.
    #[error("the host has {0} characters; {MAX_HOST} are allowed")]
    LongHost(usize),
    /// The port is not 1-65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// The path can't be the start of a repository name.
    #[error(
        "the path is not a repository prefix; it may hold lower-case letters, digits, `.`, `_`, `-` and `/`"
    )]
    Path,
    /// A query or fragment was written.
    #[error("an address has no `?` or `#`; write scheme, host, port and path only")]
    Query,
}

impl Endpoint {
    /// Parses `[http://|https://][user:password@]host[:port][/path]`. Credentials inside the
    /// address count as its `auth` and are handed back beside it.
    ///
    /// # Errors
    /// [`EndpointError`] says which part is wrong, without repeating the text.
    pub fn parse(text: &str) -> Result<(Self, Option<Credentials>), EndpointError> {
        let text = text.trim();
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
                "http" => (Some(Scheme::Http), rest),
                "https" => (Some(Scheme::Https), rest),
                other if other.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                    return Err(EndpointError::Scheme);
                }
                _ => return Err(EndpointError::Host),
            },
            None => (None, text),
        };
        // A password may hold `/`, `?` and `#` as written by people, so the last `@` decides.
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((pair, rest)) => (userinfo(pair), rest),
            None => (None, rest),
        };
        if rest.is_empty() {
            return Err(EndpointError::Empty);
        }
        if rest.contains(['?', '#']) {
            return Err(EndpointError::Query);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = split_port(authority)?;
        if host.len() > MAX_HOST {
            return Err(EndpointError::LongHost(host.len()));
        }
        let host = canonical_host(&host.to_ascii_lowercase()).to_owned();
        if !is_host(&host) {
            return Err(EndpointError::Host);
        }
        // `docker.io:443` would be another host to the runtime than `docker.io`, and nobody answers there.
        let port = port.filter(|port| host != "docker.io" || *port != 443);
        let path = path.trim_matches('/');
        // What the API itself adds; people paste it from a browser's address line or `docker info`.
        let path = if matches!(path, "v1" | "v2") {
            ""
        } else {
            path
        };
        if !path.is_empty() && !reference::is_repository(path) {
            return Err(EndpointError::Path);
        }
        let scheme = scheme.unwrap_or(if is_loopback(&host) {
            Scheme::HttpsThenHttp
        } else {
            Scheme::Https
        });
        let endpoint = Self {
            scheme,
            host,
            port,
            path: path.to_owned(),
        };
        Ok((endpoint, credentials))
    }

    /// How to speak to it.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host name or address in lower case; IPv6 in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether it is on this machine.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// Port, where one was written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Port that is connected to: the written one, else the scheme's own.
    pub fn effective_port(&self) -> u16 {
        self.port.unwrap_or(match self.scheme {
            Scheme::Http => 80,
            Scheme::Https | Scheme::HttpsThenHttp => 443,
        })
    }

    /// Repository prefix without slashes at its ends; empty for most registries.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `host[:port]`, as it stands at the start of a reference and in the name of a `certs.d` directory.
    ///
    /// A host that is one word (`harbor`) is written with its port, the scheme's own where none was
    /// written: `harbor/app` would be Docker Hub's.
    pub fn domain(&self) -> String {
        match self.port {
            None if !has_host_form(&self.host) => {
                format!("{}:{}", self.host, self.effective_port())
            }
            _ => self.authority(),
        }
    }

    /// `host[:port]`, with a port only where one was written.
    fn authority(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    /// Whether what is safe to send to `other` is safe to send here: TLS is never given up for plain HTTP.
    pub(crate) fn is_as_safe_as(&self, other: &Self) -> bool {
        let safety = |scheme| match scheme {
            Scheme::Http => 0,
            Scheme::HttpsThenHttp => 1,
            Scheme::Https => 2,
        };
        safety(self.scheme) >= safety(other.scheme)
    }

    /// Whether both are the same place: host, port and path, however they were written.
    pub fn same_place(&self, other: &Self) -> bool {
        self.host == other.host
            && self.effective_port() == other.effective_port()
            && self.path == other.path
    }

    /// The host that answers the registry API: `registry-1.docker.io` for Docker Hub, else [`Self::host`].
    pub fn api_host(&self) -> &str {
        if self.host == "docker.io" {
            "registry-1.docker.io"
        } else {
            &self.host
        }
    }

    /// The URL that credentials for this place are marked with in a pull request: its host and port are
    /// those that containerd asks when it pulls a name of this place. A containerd that is led elsewhere by
    /// mirror settings of its own then keeps the credentials to itself.
    pub fn server_address(&self) -> String {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https | Scheme::HttpsThenHttp => "https",
        };
        let domain = self.domain();
        let asked = if domain == self.host {
            self.api_host()
        } else {
            &domain
        };
        format!("{scheme}://{asked}")
    }
}

impl fmt::Display for Endpoint {
    /// The address with its scheme where one was decided, never with credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Scheme::Http => f.write_str("http://")?,
            Scheme::Https => f.write_str("https://")?,
            Scheme::HttpsThenHttp => {}
        }
        f.write_str(&self.authority())?;
        if !self.path.is_empty() {
            write!(f, "/{}", self.path)?;
        }
        Ok(())
    }
}

/// `text` without the credentials that an address may hold; for logs.
pub fn without_credentials(text: &str) -> String {
    let text = text.trim();
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    format!("{scheme}{rest}")
}

/// Splits `host[:port]`; the host may be a bracketed IPv6 address.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), EndpointError> {
    let after_host = authority.rfind(']').map_or(0, |end| end + 1);
    let Some(colon) = authority
        .get(after_host..)
        .and_then(|rest| rest.find(':'))
        .map(|at| at + after_host)
    else {
        return Ok((authority, None));
    };
    let (host, port) = authority.split_at(colon);
    let port = port.strip_prefix(':').unwrap_or(port);
    if port.contains(':') {
        return Err(EndpointError::Brackets);
    }
    // `parse` alone would take `+5000`.
    match port.parse() {
        Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => {
            Ok((host, Some(number)))
        }
        _ => Err(EndpointError::Port),
    }
}

/// `user:password` out of an address, percent-decoded part by part as RFC 3986 (3.2.1) wants it.
fn userinfo(text: &str) -> Option<Credentials> {
    let (username, password) = text.split_once(':').unwrap_or((text, ""));
    if username.is_empty() && password.is_empty() {
        return None;
    }
    Some(Credentials::new(
        percent_decoded(username),
        percent_decoded(password),
    ))
}

/// Decodes `%XX`; what is not an escape stays as written.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escape = (first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escape {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    is_domain_name(host)
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::parse(text).unwrap().0
    }

    #[test]
    fn parts_of_an_address() {
        for (text, scheme, domain, path) in [
            ("sealos.hub:5000", Scheme::Https, "sealos.hub:5000", ""),
            (
                "http://sealos.hub:5000",
                Scheme::Http,
                "sealos.hub:5000",
                "",
            ),
            (
                "https://harbor.corp/proxy-cache",
                Scheme::Https,
                "harbor.corp",
                "proxy-cache",
            ),
            (
                "https://harbor.corp/a/b/",
                Scheme::Https,
                "harbor.corp",
                "a/b",
            ),
            (
                "HTTPS://Harbor.Corp:8443/",
                Scheme::Https,
                "harbor.corp:8443",
                "",
            ),
            (
                "localhost:5000",
                Scheme::HttpsThenHttp,
                "localhost:5000",
                "",
            ),
            ("127.0.0.3", Scheme::HttpsThenHttp, "127.0.0.3", ""),
            ("[::1]:5000", Scheme::HttpsThenHttp, "[::1]:5000", ""),
            (
                "http://[fd00::7]:5000/x",
                Scheme::Http,
                "[fd00::7]:5000",
                "x",
            ),
            (
                "https://index.docker.io/v1/",
                Scheme::Https,
                "docker.io",
                "",
            ),
            ("registry-1.docker.io", Scheme::Https, "docker.io", ""),
            ("my_registry:5000", Scheme::Https, "my_registry:5000", ""),
        ] {
            if domain.starts_with("my_") {
                assert_eq!(Endpoint::parse(text), Err(EndpointError::Host));
                continue;
            }
            let found = endpoint(text);
            assert_eq!(
                (found.scheme(), found.domain().as_str(), found.path()),
                (scheme, domain, path),
                "{text}"
            );
        }
    }

    #[test]
    fn credentials_inside_the_address_are_taken_out() {
        let (endpoint, credentials) = Endpoint::parse("http://u:p%40s:s@host:5000/x").unwrap();
        assert_eq!(endpoint.to_string(), "http://host:5000/x");
        assert_eq!(credentials, Some(Credentials::new("u", "p@s:s")));
        assert_eq!(without_credentials("http://u:p@s@host/x"), "http://host/x");
        assert_eq!(without_credentials("u:p@host"), "host");
        assert_eq!(without_credentials("host:5000"), "host:5000");
    }

    #[test]
    fn wrong_addresses_say_what_is_wrong_and_keep_the_password() {
        for (text, error) in [
            ("", EndpointError::Empty),
            ("http://", EndpointError::Empty),
            ("ftp://host", EndpointError::Scheme),
            ("hunter2://host", EndpointError::Scheme),
            ("fd00::5", EndpointError::Brackets),
            ("http://fd00::5/x", EndpointError::Brackets),
            ("harbor.test::5000", EndpointError::Brackets),
            ("harbor.test:5000:5000", EndpointError::Brackets),
            ("[fd00::5]::5000", EndpointError::Brackets),
            ("host:+5000", EndpointError::Port),
            ("a b", EndpointError::Host),
            ("[::1", EndpointError::Brackets),
            ("host:", EndpointError::Port),
            ("host:0", EndpointError::Port),
            ("host:65536", EndpointError::Port),
            ("host/Upper", EndpointError::Path),
            ("host/a?b=c", EndpointError::Query),
            ("http://user:hunter2@ho st", EndpointError::Host),
        ] {
            let found = Endpoint::parse(text).unwrap_err();
            assert_eq!(found, error, "{text}");
            assert!(!found.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn one_word_is_written_with_its_port() {
        for (address, domain, shown) in [
            ("http://harbor", "harbor:80", "http://harbor"),
            ("https://harbor/hub", "harbor:443", "https://harbor/hub"),
            ("Harbor", "harbor:443", "https://harbor"),
            ("harbor:5000", "harbor:5000", "https://harbor:5000"),
            ("http://localhost", "localhost", "http://localhost"),
            ("http://[::1]", "[::1]", "http://[::1]"),
            ("10.0.0.1", "10.0.0.1", "https://10.0.0.1"),
            ("index.docker.io:443", "docker.io", "https://docker.io"),
        ] {
            let endpoint = endpoint(address);
            assert_eq!(endpoint.domain(), domain, "{address}");
            assert_eq!(endpoint.to_string(), shown, "{address}");
        }
    }

    #[test]
    fn docker_hub_answers_elsewhere() {
        assert_eq!(endpoint("docker.io").api_host(), "registry-1.docker.io");
        for (address, expected) in [
            ("index.docker.io", "https://registry-1.docker.io"),
            ("http://sealos.hub:5000/path", "http://sealos.hub:5000"),
            ("https://harbor.corp:443", "https://harbor.corp:443"),
            ("http://harbor", "http://harbor:80"),
            ("[::1]:5000", "https://[::1]:5000"),
        ] {
            assert_eq!(endpoint(address).server_address(), expected);
        }
        assert_eq!(endpoint("quay.io").api_host(), "quay.io");
    }

    #[test]
    fn the_same_place_however_written() {
        assert!(endpoint("https://a.io").same_place(&endpoint("a.io:443")));
        assert!(!endpoint("http://a.io").same_place(&endpoint("a.io")));
        assert!(!endpoint("a.io/x").same_place(&endpoint("a.io")));
    }
}
