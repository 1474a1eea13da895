//! What is asked for, and of whom.

use std::time::Duration;

use policy::{Credentials, Endpoint, Scheme, TlsOptions};
use url::Url;

/// One question: does this registry have this manifest?
#[derive(Clone, Debug)]
pub struct Target {
    /// The registry.
    pub endpoint: Endpoint,
    /// Repository as the registry knows it, the endpoint's path included: `proxy-cache/library/nginx`.
    pub repository: String,
    /// Tag, or digest with its algorithm.
    pub manifest: String,
    /// What to answer when the registry asks who we are.
    pub credentials: Option<Credentials>,
    /// How the entry wants the registry's certificate checked.
    pub tls: TlsOptions,
    /// Bound on the whole probe: queue, token, redirects, both schemes.
    pub deadline: Duration,
}

impl Target {
    /// Where the manifest is, spoken to by TLS or plainly. `None` only for names that no registry has.
    pub(crate) fn url(&self, tls: bool) -> Option<Url> {
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
            .extend(self.repository.split('/'))
            .push("manifests")
            .push(&self.manifest);
        Some(url)
    }

    /// The digest that is asked for, where it is one and not a tag.
    pub(crate) fn digest(&self) -> Option<&str> {
        self.manifest.contains(':').then_some(&self.manifest)
    }
}

/// A registry as the things we know about it go by: what is learnt for one repository holds for all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Origin {
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        Self {
            scheme: endpoint.scheme(),
            host: endpoint.api_host().to_owned(),
            port: endpoint.effective_port(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(address: &str, repository: &str, manifest: &str) -> String {
        let target = Target {
            endpoint: Endpoint::parse(address).unwrap().0,
            repository: repository.into(),
            manifest: manifest.into(),
            credentials: None,
            tls: TlsOptions::default(),
            deadline: Duration::from_secs(2),
        };
        target
            .url(target.endpoint.scheme() != Scheme::Http)
            .unwrap()
            .to_string()
    }

    #[test]
    fn where_a_manifest_is() {
        assert_eq!(
            url("docker.io", "library/nginx", "1.27"),
            "https://registry-1.docker.io/v2/library/nginx/manifests/1.27"
        );
        assert_eq!(
            url("http://[fd00::7]:5000", "a", "sha256:00"),
            "http://[fd00::7]:5000/v2/a/manifests/sha256:00"
        );
        assert_eq!(
            url("https://h:8443/p", "p/a", "../x?y#z"),
            "https://h:8443/v2/p/a/manifests/..%2Fx%3Fy%23z"
        );
    }
}
