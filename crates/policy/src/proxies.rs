//! Which proxy a request goes through, to a registry, a bucket or an API server. Decided as Go's
//! `golang.org/x/net/http/httpproxy` decides it, because that is what containerd does with the same variables.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use url::{Host, Url};

use crate::text::host_of;

/// Proxies and their exceptions.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxySettings {
    http: Option<Url>,
    https: Option<Url>,
    direct: Vec<Exception>,
    direct_always: bool,
}

/// One entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    /// `10.0.0.0/8`
    Network(IpNet),
    /// `10.0.0.1`, `10.0.0.1:80`, `[::1]:80`
    Address(IpAddr, Option<String>),
    /// `example.com` (itself and below), `.example.com` and `*.example.com` (below only), each with an
    /// optional port.
    Domain {
        /// With its leading dot.
        suffix: String,
        port: Option<String>,
        itself_too: bool,
    },
}

impl ProxySettings {
    /// No proxy at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// Takes `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` (upper case first, as Go does) from the variables of an
    /// environment. A value that is no URL is as good as absent.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let any = |names: [&str; 2]| {
            names
                .into_iter()
                .filter_map(&lookup)
                .find(|value| !value.is_empty())
                .unwrap_or_default()
        };
        let mut settings = Self {
            http: parse(&any(["HTTP_PROXY", "http_proxy"])),
            https: parse(&any(["HTTPS_PROXY", "https_proxy"])),
            direct: Vec::new(),
            direct_always: false,
        };
        for entry in any(["NO_PROXY", "no_proxy"]).split(',') {
            let entry = entry.trim().to_lowercase();
            if entry == "*" {
                settings.direct_always = true;
            } else {
                settings.direct.extend(exception(&entry));
            }
        }
        settings
    }

    /// The proxy for a URL; none where it is to be asked directly.
    pub fn for_url(&self, url: &Url) -> Option<&Url> {
        let proxy = match url.scheme() {
            "https" => self.https.as_ref(),
            "http" => self.http.as_ref(),
            _ => None,
        }?;
        let port = url.port_or_known_default().unwrap_or_default().to_string();
        let direct = match url.host()? {
            Host::Ipv4(ip) => self.is_direct_address(IpAddr::V4(ip), &port),
            Host::Ipv6(ip) => self.is_direct_address(ip.to_canonical(), &port),
            Host::Domain(name) => {
                name == "localhost" || self.is_direct_name(&name.to_lowercase(), &port)
            }
        };
        (!direct && !self.direct_always).then_some(proxy)
    }

    /// Whether a proxy is itself reached by TLS, so that even a plain request needs roots.
    pub fn speaks_tls(&self) -> bool {
        [&self.http, &self.https]
            .into_iter()
            .flatten()
            .any(|url| url.scheme() == "https")
    }

    fn is_direct_address(&self, ip: IpAddr, port: &str) -> bool {
        ip.is_loopback()
            || self.direct.iter().any(|exception| match exception {
                Exception::Network(network) => network.contains(&ip),
                Exception::Address(address, only) => {
                    *address == ip && only.as_deref().is_none_or(|only| only == port)
                }
                Exception::Domain { .. } => false,
            })
            // Go runs its domain rules over addresses too: `.1` covers `10.0.0.1`.
            || self.is_direct_name(&ip.to_string(), port)
    }

    fn is_direct_name(&self, name: &str, port: &str) -> bool {
        self.direct.iter().any(|exception| match exception {
            Exception::Domain {
                suffix,
                port: only,
                itself_too,
            } => {
                let matches = name.ends_with(suffix.as_str())
                    || (*itself_too && suffix.strip_prefix('.') == Some(name));
                matches && only.as_deref().is_none_or(|only| only == port)
            }
            _ => false,
        })
    }
}

impl fmt::Debug for ProxySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxySettings")
            .field("http", &self.http.as_ref().map(host_of))
            .field("https", &self.https.as_ref().map(host_of))
            .field("direct", &self.direct)
            .field("direct_always", &self.direct_always)
            .finish()
    }
}

/// A proxy's URL, or `host[:port]`, which means `http://`.
pub fn parse(text: &str) -> Option<Url> {
    if text.is_empty() {
        return None;
    }
    Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https" | "socks5" | "socks5h"))
        .or_else(|| {
            let bare = !text.contains("://");
            bare.then(|| Url::parse(&format!("http://{text}")).ok())?
        })
        .filter(|url| url.host().is_some())
}

/// Reads one lower-case entry of `NO_PROXY`; malformed ones are ignored, as Go ignores them.
fn exception(entry: &str) -> Option<Exception> {
    if let Ok(network) = entry.parse::<IpNet>() {
        return Some(Exception::Network(network));
    }
    let (host, port) = split_port(entry);
    let bare = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Some(Exception::Address(ip.to_canonical(), port));
    }
    let host = host
        .strip_prefix('*')
        .filter(|h| h.starts_with('.'))
        .unwrap_or(host);
    if host.is_empty() {
        return None;
    }
    let itself_too = !host.starts_with('.');
    let name = host.strip_prefix('.').unwrap_or(host);
    Some(Exception::Domain {
        suffix: format!(".{}", in_ascii(name)),
        port,
        itself_too,
    })
}

/// An internationalised name as URLs have it (`xn--…`). What is none stays as it is, and matches nothing.
fn in_ascii(name: &str) -> Cow<'_, str> {
    if name.is_ascii() {
        return name.into();
    }
    match Host::parse(name) {
        Ok(Host::Domain(ascii)) => ascii.into(),
        _ => name.into(),
    }
}

/// `host:port` where exactly one colon, or one after `]`, separates them (Go's `net.SplitHostPort`).
fn split_port(entry: &str) -> (&str, Option<String>) {
    match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, Some(port.to_owned()).filter(|port| !port.is_empty()))
        }
        _ => (entry, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &'static [(&str, &str)]) -> ProxySettings {
        ProxySettings::from_lookup(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    fn chosen(settings: &ProxySettings, url: &str) -> Option<String> {
        settings
            .for_url(&Url::parse(url).unwrap())
            .map(ToString::to_string)
    }

    fn is_direct(no_proxy: &'static str, url: &str) -> bool {
        let settings = ProxySettings::from_lookup(|name| match name {
            "HTTPS_PROXY" | "HTTP_PROXY" => Some("proxy:3128".to_owned()),
            "NO_PROXY" => Some(no_proxy.to_owned()),
            _ => None,
        });
        chosen(&settings, url).is_none()
    }

    #[test]
    fn each_scheme_has_its_own_proxy() {
        let both = settings(&[("HTTPS_PROXY", "http://s:1"), ("http_proxy", "p:2")]);
        assert_eq!(chosen(&both, "https://a.io").unwrap(), "http://s:1/");
        assert_eq!(chosen(&both, "http://a.io").unwrap(), "http://p:2/");
        let one = settings(&[("HTTP_PROXY", "p:2")]);
        assert_eq!(chosen(&one, "https://a.io"), None);
        assert_eq!(chosen(&ProxySettings::none(), "https://a.io"), None);
    }

    #[test]
    fn upper_case_wins_unless_empty() {
        let upper = settings(&[("HTTPS_PROXY", "up:1"), ("https_proxy", "low:1")]);
        assert_eq!(chosen(&upper, "https://a.io").unwrap(), "http://up:1/");
        let empty = settings(&[("HTTPS_PROXY", ""), ("https_proxy", "low:1")]);
        assert_eq!(chosen(&empty, "https://a.io").unwrap(), "http://low:1/");
    }

    #[test]
    fn exceptions_follow_go() {
        for (no_proxy, url, direct) in [
            ("", "https://a.io", false),
            ("", "https://localhost:5000", true),
            ("", "http://127.0.0.9:5000", true),
            ("", "https://[::1]:5000", true),
            ("*", "https://a.io", true),
            ("x, * ,y", "https://a.io", true),
            ("a.io", "https://a.io", true),
            ("A.IO", "https://sub.a.io", true),
            ("a.io", "https://ba.io", false),
            (".a.io", "https://a.io", false),
            (".a.io", "https://sub.a.io", true),
            ("*.a.io", "https://a.io", false),
            ("*.a.io", "https://x.sub.a.io", true),
            ("a.io:443", "https://a.io", true),
            ("a.io:443", "https://a.io:8443", false),
            ("a.io:80", "http://a.io", true),
            (".a.io:8443", "https://x.a.io:8443", true),
            ("10.0.0.0/8", "http://10.200.3.4:5000", true),
            ("10.0.0.0/8", "http://11.0.0.1", false),
            ("10.0.0.0/8", "http://ten.internal", false),
            ("10.0.0.1", "http://10.0.0.1:5000", true),
            ("10.0.0.1:5000", "http://10.0.0.1:5000", true),
            ("10.0.0.1:5000", "http://10.0.0.1", false),
            ("fd00::/8", "http://[fd00::7]:5000", true),
            ("fd00::7", "http://[fd00::7]", true),
            ("[fd00::7]:5000", "http://[fd00::7]:5000", true),
            ("[fd00::7]:5000", "http://[fd00::7]:5001", false),
            ("::ffff:10.0.0.1", "http://10.0.0.1", true),
            (" , ,:80, a.io ", "https://a.io", true),
            ("sealos.hub:5000", "https://sealos.hub:5000/v2/", true),
            ("示例.com", "http://www.xn--fsq092h.com", true),
            ("xn--fsq092h.com", "http://www.示例.com", true),
            ("示例.com:80", "http://示例.com", true),
            (".示例.com", "https://www.xn--fsq092h.com", true),
            ("*.示例.com", "https://www.示例.com", true),
            (".示例.com", "https://示例.com", false),
            ("BÜCHER.example", "https://xn--bcher-kva.example", true),
            ("示例.com", "https://a.io", false),
            ("示 例.com,a.io", "https://a.io", true),
        ] {
            assert_eq!(
                is_direct(no_proxy, url),
                direct,
                "NO_PROXY={no_proxy} {url}"
            );
        }
    }

    #[test]
    fn proxies_of_every_kind() {
        for (text, want) in [
            ("proxy.corp:3128", Some("http://proxy.corp:3128/")),
            ("10.1.1.1:3128", Some("http://10.1.1.1:3128/")),
            ("https://proxy.corp", Some("https://proxy.corp/")),
            ("socks5://proxy.corp:1080", Some("socks5://proxy.corp:1080")),
            ("socks5h://u:p@proxy.corp", Some("socks5h://u:p@proxy.corp")),
            ("u:p@proxy.corp:3128", Some("http://u:p@proxy.corp:3128/")),
            ("ftp://proxy.corp", None),
            ("http://[::", None),
            ("", None),
        ] {
            assert_eq!(
                parse(text).map(|url| url.to_string()).as_deref(),
                want,
                "{text}"
            );
        }
    }

    #[test]
    fn credentials_of_a_proxy_are_never_shown() {
        let shown = format!(
            "{:?}",
            settings(&[("HTTPS_PROXY", "http://user:hunter2@proxy:3128")])
        );
        assert!(
            !shown.contains("hunter2") && !shown.contains("user"),
            "{shown}"
        );
        assert!(shown.contains("http://proxy:3128"), "{shown}");
    }
}
