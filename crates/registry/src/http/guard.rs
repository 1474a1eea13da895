//! Which addresses may be connected to. Registries name the hosts that we go to next (redirects, token
//! services), and names lead to whatever address their owner likes, so a service that fetches for
//! others must not be led to its own machine, to link-local addresses or to a cloud's metadata.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::RwLock;

/// Keeps a client away from loopback, link-local and metadata addresses, except at hosts that the
/// config names. Clones are the same guard.
#[derive(Clone, Debug, Default)]
pub struct AddressGuard {
    named: Arc<RwLock<HashSet<String>>>,
}

impl AddressGuard {
    /// A guard to which the config names no host yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the hosts that the config names in place of those before: names or addresses, without
    /// ports; IPv6 with or without brackets. Who is named may be at any address.
    pub fn set_named<H: AsRef<str>>(&self, hosts: impl IntoIterator<Item = H>) {
        let hosts = hosts.into_iter().map(|host| bare(host.as_ref()));
        *self.named.write() = hosts.collect();
    }

    pub(crate) fn is_named(&self, host: &str) -> bool {
        self.named.read().contains(&bare(host))
    }
}

fn bare(host: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.to_ascii_lowercase()
}

/// What one connection may lead to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Reach {
    /// Any address.
    #[default]
    Anywhere,
    /// Every address that is not local to this machine or its link, and these.
    Outside(Vec<IpAddr>),
}

impl Reach {
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Outside(also) => !is_local(address) || also.contains(&address.to_canonical()),
        }
    }
}

/// The metadata services of clouds that are not at a link-local address: Alibaba, Oracle (classic),
/// Azure's host, Amazon over IPv6.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];
const METADATA_V6: [Ipv6Addr; 1] = [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)];

/// Whether an address is this machine's own, its link's, a metadata service's, or no host's at all.
pub(crate) fn is_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_local_v4(v4),
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || METADATA_V6.contains(&v6)
                || embedded_v4(v6).is_some_and(is_local_v4)
        }
    }
}

fn is_local_v4(address: Ipv4Addr) -> bool {
    address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        // All of 0.0.0.0/8 is "this host" (RFC 1122); Linux connects 0.0.0.0 to loopback.
        || address.octets()[0] == 0
        || METADATA_V4.contains(&address)
}

/// The IPv4 address that a translated IPv6 one leads to: NAT64 (RFC 6052), 6to4 (RFC 3056), and the
/// compatible form (RFC 4291). The mapped form is canonical IPv4 already.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match (a, b, c, d, e, f) {
        (0x64, 0xff9b, 0, 0, 0, 0) | (0, 0, 0, 0, 0, 0) => v4(g, h),
        (0x2002, high, low, ..) => v4(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_in_every_spelling() {
        for (address, local) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("0.0.0.0", true),
            ("169.254.169.254", true),
            ("100.100.100.200", true),
            ("168.63.129.16", true),
            ("255.255.255.255", true),
            ("224.0.0.1", true),
            ("::1", true),
            ("::", true),
            ("fe80::1", true),
            ("fd00:ec2::254", true),
            ("::ffff:127.0.0.1", true),
            ("::127.0.0.1", true),
            ("64:ff9b::a9fe:a9fe", true),
            ("2002:7f00:1::", true),
            ("10.0.0.1", false),
            ("192.168.1.1", false),
            ("100.64.0.1", false),
            ("1.1.1.1", false),
            ("fd00::7", false),
            ("2606:4700::1111", false),
            ("64:ff9b::101:101", false),
        ] {
            assert_eq!(is_local(address.parse().unwrap()), local, "{address}");
        }
    }

    #[test]
    fn who_is_named_is_named_in_every_spelling() {
        let guard = AddressGuard::new();
        guard.set_named(["LocalHost", "[::1]", "10.0.0.1"]);
        for (host, named) in [
            ("localhost", true),
            ("::1", true),
            ("[::1]", true),
            ("127.0.0.1", false),
        ] {
            assert_eq!(guard.is_named(host), named, "{host}");
        }
        guard.clone().set_named(["other"]);
        assert!(
            !guard.is_named("localhost"),
            "one guard, replaced as a whole"
        );
    }

    #[test]
    fn an_address_that_is_allowed_opens_no_other() {
        let reach = Reach::Outside(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        assert!(reach.allows("127.0.0.1".parse().unwrap()));
        assert!(reach.allows("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!reach.allows("127.0.0.2".parse().unwrap()));
        assert!(!reach.allows("169.254.169.254".parse().unwrap()));
        assert!(reach.allows("9.9.9.9".parse().unwrap()));
        assert!(Reach::Anywhere.allows("127.0.0.2".parse().unwrap()));
    }
}
