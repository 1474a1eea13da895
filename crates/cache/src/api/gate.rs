//! Who may ask, and by which names the cache is asked for. Pure but for the listener's own reading of
//! the request.

use std::net::{IpAddr, SocketAddr};

use http::StatusCode;
use http::request::Parts;
use ipnet::IpNet;
use listener::host::{named, without_port};

/// The names of this cache, and who may ask it.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    /// What it listens on.
    pub addresses: Vec<SocketAddr>,
    /// Its other names: the config's, and those of its certificate.
    pub names: Vec<String>,
    /// Networks that may ask beside this machine; everybody where it is empty.
    pub allow: Vec<IpNet>,
}

impl Gate {
    /// Whether a request is let in.
    ///
    /// # Errors
    /// The status, and why.
    pub fn check(&self, request: &Parts, peer: Option<IpAddr>) -> Result<(), (StatusCode, String)> {
        let peer = peer.map(|peer| peer.to_canonical());
        let is_allowed = peer.is_none_or(|peer| {
            self.allow.is_empty()
                || peer.is_loopback()
                || self.allow.iter().any(|network| network.contains(&peer))
        });
        if !is_allowed {
            let why = "this address is not in nodeCache.allow".to_owned();
            return Err((StatusCode::FORBIDDEN, why));
        }
        // A web page can have a name of its own lead here; the Host that its browser sends is that name.
        let hosts = named(request).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
        if hosts.iter().all(|host| self.is_own_host(host)) {
            return Ok(());
        }
        let why = "the Host of this request is none of the cache's names; ask for localhost, or add the \
             name to nodeCache.names";
        Err((StatusCode::MISDIRECTED_REQUEST, why.to_owned()))
    }

    fn is_own_host(&self, host: &str) -> bool {
        let Some(name) = without_port(host) else {
            return false;
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if let Ok(address) = name.parse::<IpAddr>() {
            let address = address.to_canonical();
            return address.is_loopback()
                || self
                    .addresses
                    .iter()
                    .any(|own| own.ip().to_canonical() == address || own.ip().is_unspecified());
        }
        name == "localhost"
            || self
                .names
                .iter()
                .any(|own| without_port(own).unwrap_or(own) == name)
    }

    /// Whether `ns` names this cache itself.
    pub fn is_own(&self, ns: &str) -> bool {
        if self.names.iter().any(|own| own == ns) {
            return true;
        }
        let port = ns.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        self.is_own_host(ns)
            && port.is_some_and(|port: u16| self.addresses.iter().any(|own| own.port() == port))
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http::header::HOST;

    use super::*;

    fn gate() -> Gate {
        Gate {
            addresses: vec![
                "127.0.0.1:7439".parse().unwrap(),
                "[::1]:7439".parse().unwrap(),
            ],
            names: vec!["cache.corp".into(), "other.corp:8443".into()],
            allow: Vec::new(),
        }
    }

    fn status(gate: &Gate, host: &str, peer: &str) -> u16 {
        let request = Request::get("/v2/").header(HOST, host).body(()).unwrap();
        let peer = Some(peer.parse().unwrap());
        match gate.check(&request.into_parts().0, peer) {
            Ok(()) => 200,
            Err((status, _)) => status.as_u16(),
        }
    }

    #[test]
    fn names() {
        for (host, expected) in [
            ("localhost:7439", 200),
            ("LOCALHOST", 200),
            ("127.0.0.1:7439", 200),
            ("[::1]:7439", 200),
            ("cache.corp:7439", 200),
            ("other.corp:8443", 200),
            ("evil.example:7439", 421),
            ("localhost.evil.example", 421),
            ("10.0.0.1:7439", 421),
            ("", 421),
        ] {
            assert_eq!(status(&gate(), host, "127.0.0.1"), expected, "{host}");
        }
        let mut everywhere = gate();
        everywhere.addresses = vec!["0.0.0.0:7439".parse().unwrap()];
        assert_eq!(status(&everywhere, "10.0.0.1:7439", "10.0.0.2"), 200);
        everywhere.allow = vec!["10.1.0.0/16".parse().unwrap()];
        assert_eq!(status(&everywhere, "10.0.0.1:7439", "10.1.0.2"), 200);
        assert_eq!(status(&everywhere, "10.0.0.1:7439", "10.2.0.2"), 403);
        assert_eq!(status(&everywhere, "localhost:7439", "127.0.0.1"), 200);
    }

    #[test]
    fn own_names() {
        let gate = gate();
        for (ns, own) in [
            ("localhost:7439", true),
            ("127.0.0.1:7439", true),
            ("[::1]:7439", true),
            ("localhost:5000", false),
            ("localhost", false),
            ("cache.corp", true),
            ("docker.io", false),
        ] {
            assert_eq!(gate.is_own(ns), own, "{ns}");
        }
    }
}
