//! How a registry arranges the images that it holds, and a host's name as a part of a repository.
//!
//! A `:` can't stand in a repository, and an underscore can't stand in a host. So `quay.io:5000` is
//! written `quay.io_5000` there, and can be read back.

use crate::host::{has_host_form, is_domain};

/// Where in a registry an image of another host is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `R/repository`, whatever host the image comes from. The default.
    #[default]
    Repository,
    /// `R/host[_port]/repository`, for registries that keep the images of many hosts apart.
    Host,
}

impl Layout {
    /// Reads `layout` of an entry.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "repository" => Some(Self::Repository),
            "host" => Some(Self::Host),
            _ => None,
        }
    }
}

/// `host[:port]` as the first part of a repository. `None` for a host that could not be read back from it: an
/// IPv6 address, and one word in upper case (`Foo/app`), which would be read as a part of Docker Hub's.
pub fn host_to_segment(domain: &str) -> Option<String> {
    // A host means the same in any case, and a repository has no upper-case letters.
    let host = domain.to_ascii_lowercase();
    let segment = host.replacen(':', "_", 1);
    let read = segment_to_host(&segment, &|_| false)?;
    (read == host).then_some(segment)
}

/// The `host[:port]` that `segment` stands for; `None` where it is no host but the first part of a Docker
/// Hub repository. kuik writes `host-port`: `is_known` says whether the config names a host, and only a
/// known one is read that way, because `a-5000` is a good host as well.
pub fn segment_to_host(segment: &str, is_known: &dyn Fn(&str) -> bool) -> Option<String> {
    let is_port = |port: &str| {
        (1..=5).contains(&port.len())
            && port.bytes().all(|b| b.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    let host = match segment.rsplit_once('_') {
        Some((host, port)) if is_port(port) => format!("{host}:{port}"),
        Some(_) => return None,
        None => {
            let kuik = segment
                .rsplit_once('-')
                .filter(|(_, port)| is_port(port))
                .map(|(host, port)| format!("{host}:{port}"))
                .filter(|host| is_known(host));
            kuik.unwrap_or_else(|| segment.to_owned())
        }
    };
    (has_host_form(&host) && is_domain(&host)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_written_and_read_back() {
        for (host, segment) in [
            ("docker.io", "docker.io"),
            ("sealos.hub:5000", "sealos.hub_5000"),
            ("localhost", "localhost"),
            ("harbor:80", "harbor_80"),
        ] {
            assert_eq!(host_to_segment(host).as_deref(), Some(segment));
            assert_eq!(segment_to_host(segment, &|_| false).as_deref(), Some(host));
        }
        assert_eq!(host_to_segment("[::1]:5000"), None);
        assert_eq!(host_to_segment("Foo:5000").as_deref(), Some("foo_5000"));
        assert_eq!(host_to_segment("Foo.corp").as_deref(), Some("foo.corp"));
        // `foo/app` would be read as Docker Hub's.
        assert_eq!(host_to_segment("Foo"), None);
    }

    #[test]
    fn a_repository_of_docker_hub_is_no_host() {
        for segment in [
            "library",
            "nginx",
            "my_app",
            "my_app_v2",
            "harbor",
            "a_0",
            "a_70000",
            "",
        ] {
            assert_eq!(segment_to_host(segment, &|_| true), None, "{segment}");
        }
    }

    #[test]
    fn kuiks_spelling_is_read_for_hosts_that_are_known() {
        let known = |host: &str| host == "harbor.corp:5000";
        let read = |segment: &str| segment_to_host(segment, &known);
        assert_eq!(
            read("harbor.corp-5000").as_deref(),
            Some("harbor.corp:5000")
        );
        // Not named by the config: a host whose name ends so.
        assert_eq!(read("other.corp-5000").as_deref(), Some("other.corp-5000"));
    }
}
