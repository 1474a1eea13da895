//! Which image a request is about: the host and the repository that a path and `ns` name.

use std::fmt;

use policy::Reference;

/// Repository of one registry host, by its canonical name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    host: String,
    path: String,
}

/// The path names no repository.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no repository")]
pub struct NoRepository(pub String);

impl Repository {
    /// The repository `path` of `host`, made canonical: `docker.io/nginx` is `docker.io/library/nginx`.
    ///
    /// # Errors
    /// [`NoRepository`] where they make no valid name, or one that parses back to another host.
    pub fn new(host: &str, path: &str) -> Result<Self, NoRepository> {
        let text = format!("{host}/{path}");
        let wrong = || NoRepository(policy::text::one_line(&text, 120));
        // A tag or a digest in the path would become part of another question.
        if path.contains([':', '@']) {
            return Err(wrong());
        }
        let reference = Reference::parse(&text).map_err(|_| wrong())?;
        let given = Reference::parse(&format!("{host}/x/x")).map_err(|_| wrong())?;
        if reference.domain() != given.domain() || given.repository() != "x/x" {
            return Err(wrong());
        }
        Ok(Self {
            host: reference.domain().to_owned(),
            path: reference.repository().to_owned(),
        })
    }

    /// Reads the name part of a path below `/v2/`, and the `ns` parameter where it came.
    /// `is_own` says whether a name is the cache's own; `is_configured` whether the config names a host.
    ///
    /// # Errors
    /// [`NoRepository`] where they make no valid name.
    pub fn from_request(
        name: &str,
        ns: Option<&str>,
        is_own: impl Fn(&str) -> bool,
        is_configured: impl Fn(&str) -> bool,
    ) -> Result<Self, NoRepository> {
        if let Some(ns) = ns.filter(|ns| !ns.is_empty() && !is_own(ns)) {
            return Self::new(ns, name);
        }
        if let Some((first, rest)) = name.split_once('/')
            && let Some(host) = host_of_component(first, is_configured)
        {
            return Self::new(&host, rest);
        }
        Self::new("docker.io", name)
    }

    /// `host[:port]`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository at that host.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The name of one manifest of it.
    ///
    /// # Errors
    /// [`NoRepository`] where `manifest` is neither a tag nor a digest.
    pub fn reference(&self, manifest: &str) -> Result<Reference, NoRepository> {
        let separator = if manifest.contains(':') { '@' } else { ':' };
        let text = format!("{}/{}{separator}{manifest}", self.host, self.path);
        Reference::parse(&text).map_err(|_| NoRepository(policy::text::one_line(&text, 120)))
    }
}

/// The host that the first component of a path stands for, where it stands for one.
fn host_of_component(component: &str, is_configured: impl Fn(&str) -> bool) -> Option<String> {
    // `host_port` is how a name with a port is written inside a path.
    if let Some((host, port)) = component.rsplit_once('_')
        && is_port(port)
        && !host.is_empty()
    {
        return Some(format!("{host}:{port}"));
    }
    // kuik writes `host-port`; a host may end like that too, so only where the config names it.
    if let Some((host, port)) = component.rsplit_once('-')
        && is_port(port)
    {
        let with_port = format!("{host}:{port}");
        if is_configured(&with_port) {
            return Some(with_port);
        }
    }
    let is_host = component.contains(['.', ':']) || component == "localhost";
    is_host.then(|| component.to_owned())
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, ns: Option<&str>) -> Result<String, NoRepository> {
        let is_own = |ns: &str| ns == "localhost:7439";
        let configured = |host: &str| host == "reg.corp:5000";
        Repository::from_request(name, ns, is_own, configured).map(|name| name.to_string())
    }

    #[test]
    fn names_in_every_form() {
        for (name, ns, is) in [
            (
                "library/nginx",
                Some("docker.io"),
                "docker.io/library/nginx",
            ),
            ("nginx", Some("docker.io"), "docker.io/library/nginx"),
            ("a/b", Some("ghcr.io"), "ghcr.io/a/b"),
            ("a", Some("reg.corp:5000"), "reg.corp:5000/a"),
            ("docker.io/nginx", None, "docker.io/library/nginx"),
            ("index.docker.io/nginx", None, "docker.io/library/nginx"),
            (
                "docker.io/nginx",
                Some("localhost:7439"),
                "docker.io/library/nginx",
            ),
            ("nginx", None, "docker.io/library/nginx"),
            ("bitnami/redis", None, "docker.io/bitnami/redis"),
            ("ghcr.io/a/b", None, "ghcr.io/a/b"),
            ("reg.corp_5000/a", None, "reg.corp:5000/a"),
            ("harbor_80/a", None, "harbor:80/a"),
            ("reg.corp-5000/a", None, "reg.corp:5000/a"),
            ("other.corp-5000/a", None, "other.corp-5000/a"),
            ("localhost/a", None, "localhost/a"),
            ("localhost_5000/a", None, "localhost:5000/a"),
            ("my_app/a", None, "docker.io/my_app/a"),
            ("reg.corp:5000/a", None, "reg.corp:5000/a"),
        ] {
            assert_eq!(read(name, ns).as_deref(), Ok(is), "{name} {ns:?}");
        }
    }

    #[test]
    fn names_that_are_none() {
        for (name, ns) in [
            ("", None),
            ("A/b", None),
            ("ghcr.io/", None),
            ("a:tag", None),
            ("a@sha256:00", None),
            ("../a", None),
            ("a", Some("harbor")),
            ("a", Some("ghcr.io/evil")),
            ("a", Some("gh cr.io")),
        ] {
            assert!(read(name, ns).is_err(), "{name} {ns:?}");
        }
    }
}
