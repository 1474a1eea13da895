//! Which images are led through the node cache.

use crate::Reference;
use crate::cache_prefix::CachePrefix;
use crate::glob::Glob;

/// The last part of the repository that our own image has, wherever it was copied to: the cache can't be
/// pulled through itself.
const OWN_IMAGE: &str = "image-cri-shim";

/// Which images are led through the node cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CachedImages {
    /// All of them. The default.
    #[default]
    All,
    /// Those that a rule moves.
    Moved,
}

/// `cache` of the config, as far as it concerns the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Where the cache is pulled from.
    pub prefix: CachePrefix,
    /// Which images are led there.
    pub images: CachedImages,
    /// Of these only those that match one of the patterns; empty is no limit.
    pub include: Vec<Glob>,
    /// None of those that match one of these patterns.
    pub exclude: Vec<Glob>,
}

impl Cache {
    /// Whether `image` goes through the cache, as far as its name is concerned. `is_moved`: a rule leads it
    /// to another place.
    pub(super) fn takes(&self, image: &Reference, is_moved: bool) -> bool {
        let matches = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(image));
        let is_wanted = match self.images {
            CachedImages::All => is_moved || !self.is_near(image),
            CachedImages::Moved => is_moved,
        };
        is_wanted
            && image.repository().rsplit('/').next() != Some(OWN_IMAGE)
            && (self.include.is_empty() || matches(&self.include))
            && !matches(&self.exclude)
    }

    /// An image of the node itself, or of the cache's own host: there is nothing to be nearer to. kuik's
    /// `localhost:7439/…` is one of these.
    fn is_near(&self, image: &Reference) -> bool {
        let host = image.domain();
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        let is_loopback = name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback());
        is_loopback || name == "localhost" || self.prefix.domain() == host
    }
}
