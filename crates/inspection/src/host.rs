//! Who may ask, by the name that he asks for.
//!
//! Against DNS rebinding ([`listener::host`]): an IP address can't be another page's name, and `localhost`
//! and the machine's own names lead here for everybody.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use http::StatusCode;
use http::request::Parts;
use listener::host;

/// Where the system says which domains complete a short name.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Says by their `Host` which requests may be answered.
#[derive(Debug)]
pub(crate) struct HostCheck {
    address: Option<SocketAddr>,
    /// Domains that complete this machine's short name.
    domains: Vec<String>,
}

impl HostCheck {
    /// For a listener at `address`.
    pub(crate) fn new(address: Option<SocketAddr>) -> Self {
        let resolv_conf = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        Self {
            address,
            domains: search_domains(&resolv_conf),
        }
    }

    /// Whether a request may be answered. `is_open` is for paths that tell nothing secret, which machines
    /// ask for by names of their own choice.
    ///
    /// # Errors
    /// The status, and what to do instead.
    pub(crate) fn check(&self, request: &Parts, is_open: bool) -> Result<(), (StatusCode, String)> {
        let is_local = self
            .address
            .is_none_or(|address| address.ip().to_canonical().is_loopback());
        if is_open && !is_local {
            return Ok(());
        }
        let hosts =
            host::named(request).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
        if hosts.iter().all(|host| self.is_ours(host, is_local)) {
            return Ok(());
        }
        Err((StatusCode::MISDIRECTED_REQUEST, self.advice(is_local)))
    }

    fn is_ours(&self, host: &str, is_local: bool) -> bool {
        let Some(name) = host::without_port(host) else {
            return false;
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.eq_ignore_ascii_case("localhost") {
            return true;
        }
        match name.parse::<IpAddr>() {
            Ok(address) => !is_local || address.to_canonical().is_loopback(),
            Err(_) => {
                !is_local
                    && own_names(&node_name(), &self.domains)
                        .any(|own| own == name.to_ascii_lowercase())
            }
        }
    }

    fn advice(&self, is_local: bool) -> String {
        let port = self.address.map_or(0, |address| address.port());
        if is_local {
            format!(
                "This listener answers to localhost and to loopback addresses only, so that no web page \
                 can read it through a DNS name of its own. Ask for http://localhost:{port}/ or \
                 http://127.0.0.1:{port}/. From another machine: forward the port, for instance with \
                 ssh -L {port}:127.0.0.1:{port}, or change metricsAddress."
            )
        } else {
            format!(
                "The page and /api/ answer to an IP address, to localhost and to the name of this machine \
                 only, so that no web page can read them through a DNS name of its own. Ask for them at \
                 http://<address of this node>:{port}/."
            )
        }
    }
}

fn node_name() -> String {
    let system = rustix::system::uname();
    system.nodename().to_string_lossy().to_ascii_lowercase()
}

/// The names of the machine called `node`: as it is, short, and completed by each of the domains. A name
/// that only begins like it may be anybody's.
fn own_names<'a>(node: &'a str, domains: &'a [String]) -> impl Iterator<Item = String> + 'a {
    let short = node.split('.').next().unwrap_or(node);
    let completed = domains
        .iter()
        .map(move |domain| format!("{short}.{domain}"));
    [node.to_owned(), short.to_owned()]
        .into_iter()
        .filter(|name| !name.is_empty())
        .chain(completed)
}

fn search_domains(resolv_conf: &str) -> Vec<String> {
    let mut domains = Vec::new();
    for line in resolv_conf.lines() {
        let mut words = line.split_ascii_whitespace();
        if matches!(words.next(), Some("search" | "domain")) {
            domains.extend(words.map(|word| word.trim_end_matches('.').to_ascii_lowercase()));
        }
    }
    domains.retain(|domain| !domain.is_empty());
    domains
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::HOST;
    use http::{Request, Version};

    fn judge(address: &str, host: &str, is_open: bool) -> bool {
        let keeper = HostCheck {
            address: Some(address.parse().unwrap()),
            domains: vec!["corp.example".to_owned()],
        };
        let request = Request::get("/").header(HOST, host).body(()).unwrap();
        keeper.check(&request.into_parts().0, is_open).is_ok()
    }

    #[test]
    fn a_loopback_listener_answers_to_loopback_only() {
        for (host, expected) in [
            ("localhost", true),
            ("LocalHost:7441", true),
            ("localhost.", true),
            ("127.0.0.1:7441", true),
            ("127.8.9.1", true),
            ("[::1]:7441", true),
            ("[::ffff:127.0.0.1]", true),
            ("10.0.0.1:7441", false),
            ("[fe80::1]", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("evil.example:7441", false),
            ("user@localhost", false),
            ("localhost:7441x", false),
            ("[::1", false),
            ("[::1]x", false),
            ("[localhost]", false),
            ("::1", false),
            (":7441", false),
            ("", false),
        ] {
            for address in ["127.0.0.1:7441", "[::1]:7441"] {
                for is_open in [true, false] {
                    assert_eq!(judge(address, host, is_open), expected, "{host:?}");
                }
            }
        }
    }

    #[test]
    fn another_listener_answers_to_addresses_and_to_its_own_name() {
        let node = node_name();
        let short = node.split('.').next().unwrap();
        for (host, expected) in [
            ("10.0.0.1:7441", true),
            ("[fe80::1]", true),
            ("localhost", true),
            (node.as_str(), true),
            (short, true),
            (&format!("{}.corp.example.:80", short.to_uppercase()), true),
            (&format!("{short}.evil.example"), false),
            ("evil.example", false),
        ] {
            assert_eq!(judge("0.0.0.0:7441", host, false), expected, "{host:?}");
            assert!(judge("0.0.0.0:7441", host, true), "{host:?}");
        }
    }

    #[test]
    fn the_request_line_counts_too() {
        let keeper = HostCheck::new(Some("127.0.0.1:7441".parse().unwrap()));
        let check = |request: http::request::Builder| {
            let refused = keeper.check(&request.body(()).unwrap().into_parts().0, true);
            refused.err().map(|(status, _)| status.as_u16())
        };
        let get = |uri: &str| Request::get(uri).header(HOST, "localhost");
        assert_eq!(check(get("http://localhost:7441/")), None);
        assert_eq!(check(get("http://evil.example/")), Some(421));
        assert_eq!(check(get("/").header(HOST, "localhost")), Some(400));
        assert_eq!(check(Request::get("/")), Some(400));
        assert_eq!(check(Request::get("/").version(Version::HTTP_10)), None);
    }

    #[test]
    fn domains_of_the_system() {
        let text = "# a comment\nnameserver 10.0.0.2\nsearch Corp.Example. lan\noptions ndots:5\n";
        assert_eq!(search_domains(text), ["corp.example", "lan"]);
        assert!(search_domains("search .\n").is_empty());
    }
}
