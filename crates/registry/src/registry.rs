//! Who is asked, and for what.

use policy::{Credentials, Endpoint, Scheme, TlsOptions};
use url::Url;

use crate::manifest::as_digest;

/// One registry, as an entry of the config describes it.
#[derive(Clone, Debug)]
pub struct Registry {
    /// Where it answers. The endpoint's path is part of the repositories' names.
    pub endpoint: Endpoint,
    /// What to answer when it asks who we are; `None` is anonymous.
    pub credentials: Option<Credentials>,
    /// How the entry wants its certificate checked.
    pub tls: TlsOptions,
}

impl Registry {
    /// A registry that is asked anonymously and trusted as the system and the runtime have it.
    pub fn anonymous(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            credentials: None,
            tls: TlsOptions::default(),
        }
    }

    /// URL of a path of its API, spoken to by TLS or plainly. `None` only for names that no registry
    /// has.
    pub(crate) fn url(&self, tls: bool, path: &ApiPath) -> Option<Url> {
        let scheme = if tls { "https" } else { "http" };
        let host = self.endpoint.api_host();
        let mut url = match self.endpoint.port() {
            Some(port) => Url::parse(&format!("{scheme}://{host}:{port}/")),
            None => Url::parse(&format!("{scheme}://{host}/")),
        }
        .ok()?;
        // Segment by segment, so that nothing in a name can change the path or add a query.
        url.path_segments_mut()
            .ok()?
            .clear()
            .push("v2")
            .extend(&path.segments);
        if !path.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&path.query);
        }
        Some(url)
    }
}

/// A manifest, by its name at a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestName {
    /// Repository as the registry knows it, the endpoint's path included: `proxy-cache/library/nginx`.
    pub repository: String,
    /// Tag, or digest with its algorithm.
    pub reference: String,
}

impl ManifestName {
    pub(crate) fn path(&self) -> ApiPath {
        ApiPath::of_repository(&self.repository, ["manifests", &self.reference])
    }

    /// The digest that is asked for, where it is one and not a tag.
    pub(crate) fn digest(&self) -> Option<&str> {
        as_digest(&self.reference)
    }
}

/// A path below `/v2/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiPath {
    segments: Vec<String>,
    query: Vec<(String, String)>,
}

impl ApiPath {
    /// `/v2/` itself.
    pub(crate) fn root() -> Self {
        Self {
            segments: vec![String::new()],
            query: Vec::new(),
        }
    }

    /// `/v2/<repository>/<rest…>`.
    pub(crate) fn of_repository<'a>(
        repository: &'a str,
        rest: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self {
            segments: repository
                .split('/')
                .chain(rest)
                .map(str::to_owned)
                .collect(),
            query: Vec::new(),
        }
    }

    /// The same with a query.
    pub(crate) fn with_query(self, query: Vec<(String, String)>) -> Self {
        Self { query, ..self }
    }
}

/// A registry as the things we know about it go by: what is learnt for one repository holds for all.
/// The scheme is part of it, so that nothing that was learnt or given over TLS is used without it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Site {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Site {
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        Self {
            scheme: endpoint.scheme(),
            host: endpoint.api_host().to_owned(),
            port: endpoint.effective_port(),
        }
    }

    /// The site that a request was redirected to.
    pub(crate) fn of_url(url: &Url) -> Self {
        Self {
            scheme: match url.scheme() {
                "https" => Scheme::Https,
                _ => Scheme::Http,
            },
            host: url.host_str().unwrap_or_default().to_owned(),
            port: url.port_or_known_default().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(address: &str, path: &ApiPath) -> String {
        let registry = Registry::anonymous(Endpoint::parse(address).unwrap().0);
        let tls = registry.endpoint.scheme() != Scheme::Http;
        registry.url(tls, path).unwrap().to_string()
    }

    fn manifest(address: &str, repository: &str, reference: &str) -> String {
        let name = ManifestName {
            repository: repository.into(),
            reference: reference.into(),
        };
        url(address, &name.path())
    }

    #[test]
    fn where_a_manifest_is() {
        assert_eq!(
            manifest("docker.io", "library/nginx", "1.27"),
            "https://registry-1.docker.io/v2/library/nginx/manifests/1.27"
        );
        assert_eq!(
            manifest("http://[fd00::7]:5000", "a", "sha256:00"),
            "http://[fd00::7]:5000/v2/a/manifests/sha256:00"
        );
        assert_eq!(
            manifest("https://h:8443/p", "p/a", "../x?y#z"),
            "https://h:8443/v2/p/a/manifests/..%2Fx%3Fy%23z"
        );
        assert_eq!(url("h.io", &ApiPath::root()), "https://h.io/v2/");
        let tags = ApiPath::of_repository("a", ["tags", "list"]);
        let second = tags.with_query(vec![("last".into(), "b&c".into())]);
        assert_eq!(
            url("h.io", &second),
            "https://h.io/v2/a/tags/list?last=b%26c"
        );
    }
}
