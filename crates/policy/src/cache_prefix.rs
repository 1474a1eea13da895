//! Names that lead through the node cache: `localhost:7439/quay.io/team/app:1`.

use crate::{Reference, host, layout, name, reference};

/// Where the node cache is pulled from: `host[:port]`, maybe with a path.
///
/// A host with a port is written with an underscore below it, `registry_5000`: a `:` can't stand inside
/// a repository, and an underscore can't stand in a host, so it can be read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachePrefix(String);

impl CachePrefix {
    /// Reads `host[:port][/path]`, with or without `/` at its end. There is no scheme: it becomes the
    /// start of an image name.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_end_matches('/');
        let (domain, path) = text.split_once('/').unwrap_or((text, ""));
        let fits = host::is_domain(domain)
            // A single word would be read as a repository of Docker Hub.
            && host::has_host_form(domain)
            && (path.is_empty() || reference::is_repository(path));
        fits.then(|| Self(text.to_owned()))
    }

    /// As it stands before the names, without `/` at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The `host[:port]` that names begin with.
    pub(super) fn domain(&self) -> &str {
        self.0.split('/').next().unwrap_or(&self.0)
    }

    /// The name that leads through the cache. `None` where there is none: not every host can stand inside a
    /// repository and be read back, and a repository has 255 characters at most.
    pub fn wrap(&self, image: &str) -> Option<String> {
        let image = Reference::parse(image).ok()?;
        let host = layout::host_to_segment(image.domain())?;
        let (domain, path) = self.0.split_once('/').unwrap_or((&self.0, ""));
        let inner = format!("{host}/{}", image.repository());
        let repository = match path {
            "" => inner,
            path => format!("{path}/{inner}"),
        };
        let name = name::made(domain, &repository, &image.suffix()).ok()?;
        Some(name.image)
    }

    /// The name that was wrapped; `None` where `image` doesn't lead through the cache.
    pub fn unwrap(&self, image: &str) -> Option<String> {
        let inner = image.strip_prefix(&self.0)?.strip_prefix('/')?;
        let (host, rest) = inner.split_once('/')?;
        let host = layout::segment_to_host(host, &|_| false)?;
        let image = format!("{host}/{rest}");
        Reference::parse(&image).is_ok().then_some(image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_and_read_back() {
        let cache = CachePrefix::parse("localhost:7439/").unwrap();
        for (image, wrapped) in [
            (
                "project-a.azurecr.io/docker-mirror/nats:2.10.26-alpine",
                "localhost:7439/project-a.azurecr.io/docker-mirror/nats:2.10.26-alpine",
            ),
            (
                "sealos.hub:5000/library/nginx:1",
                "localhost:7439/sealos.hub_5000/library/nginx:1",
            ),
            ("localhost:5000/x:1", "localhost:7439/localhost_5000/x:1"),
        ] {
            assert_eq!(cache.wrap(image).as_deref(), Some(wrapped));
            assert_eq!(cache.unwrap(wrapped).as_deref(), Some(image));
        }
        let digest = format!("a.io/x:1@sha256:{}", "0".repeat(64));
        let wrapped = cache.wrap(&digest).unwrap();
        assert_eq!(cache.unwrap(&wrapped), Some(digest));
    }

    #[test]
    fn what_can_not_be_wrapped() {
        let cache = CachePrefix::parse("localhost:7439").unwrap();
        assert_eq!(cache.wrap("[::1]:5000/x:1"), None);
        assert_eq!(cache.wrap("Foo/x:1"), None);
        assert_eq!(cache.wrap(&format!("a.io/{}:1", "x".repeat(254))), None);
        assert_eq!(cache.unwrap("localhost:74391/a.io/x:1"), None);
        assert_eq!(cache.unwrap("a.io/x:1"), None);
    }

    #[test]
    fn prefixes() {
        for good in [
            "localhost:7439",
            "localhost",
            "cache.corp/edge/",
            "10.0.0.1:80",
        ] {
            assert!(CachePrefix::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "/",
            "cache",
            "http://localhost:7439",
            "a.io/Upper",
            "a.io//x",
        ] {
            assert!(CachePrefix::parse(bad).is_none(), "{bad}");
        }
    }
}
