//! Where a redirect leads, and whether it may be followed. Pure: the loop that sends is in
//! `transport`.

use http::HeaderMap;
use http::header::LOCATION;
use policy::text::host_of;
use url::Url;

/// Redirects that one request follows: a registry needs one (its blob store), sometimes two.
const MAX_REDIRECTS: usize = 5;
/// Longer targets are refused; signed storage URLs have 1 to 2 KiB.
const MAX_LOCATION: usize = 16 * 1024;

/// The way that one request has taken.
pub(crate) struct Trail {
    /// Every URL asked so far; the first is where it began.
    seen: Vec<Url>,
    left_origin: bool,
}

/// Why a redirect is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RedirectError {
    /// The answer names no target, or one that is no URL.
    #[error("redirected ({0}) without a usable Location header")]
    NoTarget(u16),
    /// Neither http nor https.
    #[error("redirected to a `{0}:` address; only http and https are followed")]
    Scheme(String),
    /// The target was asked before.
    #[error("redirected in a circle, back to {0}")]
    Loop(String),
    /// More than [`MAX_REDIRECTS`].
    #[error("redirected more than {MAX_REDIRECTS} times, last to {0}")]
    TooMany(String),
}

impl Trail {
    pub(crate) fn new(start: Url) -> Self {
        Self {
            seen: vec![start],
            left_origin: false,
        }
    }

    /// Whether any hop so far went to another scheme, host or port. Credentials stay behind from
    /// there on, even if a later hop comes back: the path would be the other host's choice.
    pub(crate) fn left_origin(&self) -> bool {
        self.left_origin
    }

    /// Takes the next hop out of a redirecting answer.
    ///
    /// # Errors
    /// [`RedirectError`] where it can't or must not be followed.
    pub(crate) fn next(&mut self, status: u16, headers: &HeaderMap) -> Result<Url, RedirectError> {
        let no_target = || RedirectError::NoTarget(status);
        let current = self.seen.last().ok_or_else(no_target)?;
        let location = headers
            .get(LOCATION)
            // Storage that names files in UTF-8 forgets to encode them; browsers and runtimes follow all the same.
            .and_then(|value| str::from_utf8(value.as_bytes()).ok())
            .filter(|text| text.len() <= MAX_LOCATION)
            .ok_or_else(no_target)?;
        let mut next = current.join(location).map_err(|_| no_target())?;
        if !matches!(next.scheme(), "http" | "https") {
            return Err(RedirectError::Scheme(next.scheme().to_owned()));
        }
        next.set_fragment(None);
        // A target could smuggle credentials of its choice into the request.
        if !next.username().is_empty() || next.password().is_some() {
            let cleared = next.set_username("").and_then(|()| next.set_password(None));
            cleared.map_err(|()| no_target())?;
        }
        if self.seen.contains(&next) {
            return Err(RedirectError::Loop(host_of(&next)));
        }
        if self.seen.len() > MAX_REDIRECTS {
            return Err(RedirectError::TooMany(host_of(&next)));
        }
        if self.seen.first().map(Url::origin) != Some(next.origin()) {
            self.left_origin = true;
        }
        self.seen.push(next.clone());
        Ok(next)
    }
}

/// Whether a status is a redirect that is followed. 304 and the obsolete ones are not.
pub(crate) fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn hop(trail: &mut Trail, location: &str) -> Result<String, RedirectError> {
        let mut headers = HeaderMap::new();
        headers.insert(
            LOCATION,
            HeaderValue::from_bytes(location.as_bytes()).unwrap(),
        );
        trail.next(307, &headers).map(|url| url.to_string())
    }

    fn trail() -> Trail {
        Trail::new(Url::parse("https://reg.io/v2/a/manifests/1").unwrap())
    }

    #[test]
    fn relative_and_same_origin_targets_stay_home() {
        let mut trail = trail();
        assert_eq!(
            hop(&mut trail, "/v2/b/manifests/1").unwrap(),
            "https://reg.io/v2/b/manifests/1"
        );
        assert_eq!(
            hop(&mut trail, "https://reg.io:443/x#frag").unwrap(),
            "https://reg.io/x"
        );
        assert!(!trail.left_origin());
    }

    #[test]
    fn targets_in_utf8_are_encoded() {
        assert_eq!(
            hop(&mut trail(), "/blobs/é?name=镜像").unwrap(),
            "https://reg.io/blobs/%C3%A9?name=%E9%95%9C%E5%83%8F"
        );
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_bytes(b"/blobs/\xe9").unwrap());
        assert_eq!(
            trail().next(307, &headers),
            Err(RedirectError::NoTarget(307))
        );
    }

    #[test]
    fn another_scheme_host_or_port_leaves_home_for_good() {
        for target in [
            "http://reg.io/x",
            "https://cdn.io/x",
            "https://reg.io:8443/x",
        ] {
            let mut trail = trail();
            hop(&mut trail, target).unwrap();
            assert!(trail.left_origin(), "{target}");
            hop(&mut trail, "https://reg.io/back").unwrap();
            assert!(trail.left_origin(), "{target} and back");
        }
    }

    #[test]
    fn loops_and_long_chains_end() {
        let mut circle = trail();
        hop(&mut circle, "/other").unwrap();
        assert_eq!(
            hop(&mut circle, "/v2/a/manifests/1"),
            Err(RedirectError::Loop("https://reg.io".into()))
        );

        let mut chain = trail();
        for n in 0..MAX_REDIRECTS {
            hop(&mut chain, &format!("/{n}")).unwrap();
        }
        assert_eq!(
            hop(&mut chain, "/more"),
            Err(RedirectError::TooMany("https://reg.io".into()))
        );
    }

    #[test]
    fn odd_targets_are_refused_or_cleaned() {
        assert_eq!(
            hop(&mut trail(), "ftp://reg.io/x"),
            Err(RedirectError::Scheme("ftp".into()))
        );
        assert_eq!(
            hop(&mut trail(), "http://[::"),
            Err(RedirectError::NoTarget(307))
        );
        assert_eq!(
            hop(&mut trail(), "https://u:p@cdn.io/x").unwrap(),
            "https://cdn.io/x"
        );
        assert_eq!(
            trail().next(302, &HeaderMap::new()),
            Err(RedirectError::NoTarget(302))
        );
    }
}
