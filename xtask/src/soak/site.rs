//! The site that is simulated: what the registries hold, and the configs that lead to them.

use testkit::images::Image;

use super::schedule::REGISTRIES;

/// The host of the images that come through the cache. No resolver knows it: a redirect leads to the origin.
pub(crate) const CACHED_HOST: &str = "registry.soak.invalid";
/// The path below which the company's mirror keeps what it mirrors.
const MIRROR_PATH: &str = "proxy-cache";
/// The path at the origin where the redirect leads to.
const REDIRECT_PATH: &str = "soak";
/// The offline registry's user and password, in config file and ConfigMap.
pub(crate) const OFFLINE: (&str, &str) = ("admin", "hunter2-offline-registry");
/// The origin's, in the redirect of the configs, and in the pull secret of Pods whose image names the origin.
pub(crate) const ORIGIN: (&str, &str) = ("soak", "hunter2-origin");
/// A pull secret for [`CACHED_HOST`], which nobody in the plan may get.
pub(crate) const BYSTANDER: (&str, &str) = ("pod", "hunter2-bystander");

/// Which registries hold an image, in turn. One is often enough in trouble, all are not.
const HELD_BY: [&[usize]; 8] = [
    &[0, 1],
    &[1, 2],
    &[0, 2],
    &[0, 1, 2],
    &[0],
    &[2],
    &[1],
    &[0, 1, 2],
];
/// Bytes of content that doesn't compress, in turn.
const PADDING: [usize; 8] = [0, 0, 0, 512 << 10, 0, 0, 0, 3 << 20];

/// The way on which an image comes to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// From the registries; its name points to the origin.
    Direct,
    /// Through the node cache, or from the registries when that is down.
    Cached,
}

/// An image of the site. Its content is the same everywhere, as with real mirrors.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) way: Way,
    /// Without host: `team-1/image-3`.
    pub(crate) repository: String,
    /// As a Pod names it, with its tag.
    pub(crate) name: String,
    pub(crate) image: Image,
    /// The registries that have it.
    pub(crate) by: &'static [usize],
}

/// The tag of every image.
pub(crate) const TAG: &str = "1";

/// Where everything listens.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    /// The registries, as hosts of image names.
    pub(crate) registries: [String; REGISTRIES],
    pub(crate) cache: String,
    pub(crate) shim_metrics: String,
    pub(crate) cache_metrics: String,
}

impl Held {
    /// Images of one team.
    pub(crate) fn images(team: &str, way: Way, count: usize, origin: &str) -> Vec<Self> {
        let host = match way {
            Way::Direct => origin,
            Way::Cached => CACHED_HOST,
        };
        let kind = match way {
            Way::Direct => "direct",
            Way::Cached => "cached",
        };
        let images = (0..count).map(|index| {
            let repository = format!("{team}/{kind}-{index}");
            let turn = index % HELD_BY.len();
            let image = match PADDING[turn] {
                0 => Image::new(&repository),
                bytes => Image::sized(&repository, bytes),
            };
            Self {
                way,
                name: format!("{host}/{repository}:{TAG}"),
                repository,
                image,
                by: HELD_BY[turn],
            }
        });
        images.collect()
    }

    /// The repository that a registry keeps it in.
    pub(crate) fn repository_at(&self, registry: usize) -> String {
        let repository = &self.repository;
        match (registry, self.way) {
            (1, _) => format!("{MIRROR_PATH}/{repository}"),
            (2, Way::Cached) => format!("{REDIRECT_PATH}/{repository}"),
            _ => repository.clone(),
        }
    }

    /// By its digest, as Pods may name it, too.
    pub(crate) fn by_digest(&self) -> String {
        let name = self.name.trim_end_matches(TAG).trim_end_matches(':');
        format!("{name}@{}", self.image.manifest_digest)
    }

    /// What the webhook may make of its name: where it is to be found, or where the redirect leads to, or the
    /// name as it is.
    pub(crate) fn places(&self, addresses: &Addresses) -> Vec<String> {
        let mut places = vec![self.name.clone()];
        for (registry, host) in addresses.registries.iter().enumerate() {
            places.push(format!("{host}/{}:{TAG}", self.repository_at(registry)));
        }
        if self.way == Way::Cached {
            let cache = &addresses.cache;
            places.push(format!("{cache}/{CACHED_HOST}/{}:{TAG}", self.repository));
        }
        places
    }
}

/// Lines of a variant of the rules that change how they are used, but never who has what.
fn habits(variant: usize) -> &'static str {
    match variant {
        1 => "cache: {imageCacheTTL: 3s, negativeTTL: 2s}\ndebug: true\n",
        2 => "cache: {imageCacheSize: 8}\nreloadInterval: 2s\ndebug: false\n",
        3 => "cache: {imageCacheSize: -1}\ndebug: true\n",
        _ => "debug: true\n",
    }
}

/// The mirror's priority, and what else stands in the redirect.
fn order(variant: usize) -> (u32, &'static str) {
    match variant {
        1 => (1200, ""),
        3 => (800, ", priority: 900"),
        _ => (800, ""),
    }
}

/// `registries` and `imageRedirMapping`, which are the same in a file and in the ConfigMap.
fn lists(addresses: &Addresses, variant: usize, with_cache: bool) -> String {
    let [_, company, origin] = &addresses.registries;
    let (user, password) = ORIGIN;
    let (priority, redirect) = order(variant);
    let cache = format!(
        "- {{address: 'http://{}', layout: host, priority: 10000, mirrorOf: [{CACHED_HOST}]}}",
        addresses.cache
    );
    let cache = if with_cache { &*cache } else { "" };
    format!(
        "registries:\n{cache}\n- {{address: 'http://{company}/{MIRROR_PATH}', priority: {priority}}}\n\
        imageRedirMapping:\n- {{src: {CACHED_HOST}/, to: 'http://{origin}/{REDIRECT_PATH}', auth: '{user}:{password}'{redirect}}}\n"
    )
}

fn offline(addresses: &Addresses) -> String {
    let (user, password) = OFFLINE;
    format!(
        "address: http://{}\nauth: {user}:{password}\n",
        addresses.registries[0]
    )
}

/// The shim's config file, without what testkit adds.
pub(crate) fn shim_config(addresses: &Addresses, variant: usize) -> String {
    format!(
        "{}{}{}metricsAddress: {}\n",
        offline(addresses),
        lists(addresses, variant, true),
        habits(variant),
        addresses.shim_metrics
    )
}

/// The cache's config file, with its store in this directory.
pub(crate) fn cache_config(addresses: &Addresses, variant: usize, store: &str) -> String {
    let parallel = if variant == 2 { 1 } else { 4 };
    format!(
        "{}{}{}nodeCache:\n  listen: ['{}']\n  dir: {store}\n  metricsAddress: '{}'\n  minFree: 1Mi\n  parallelAbove: 2Mi\n  parallel: {parallel}\n",
        offline(addresses),
        lists(addresses, variant, false),
        habits(variant),
        addresses.cache,
        addresses.cache_metrics,
    )
}

/// The ConfigMap's `registries.yaml`.
pub(crate) fn config_map(addresses: &Addresses, variant: usize) -> String {
    let (user, password) = OFFLINE;
    format!(
        "version: v1\nrewrite: best\nsealos: {{address: 'http://{}', auth: {{username: {user}, password: {password}}}}}\n{}{}",
        addresses.registries[0],
        lists(addresses, variant, true),
        habits(variant),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        Addresses {
            registries: ["a:1", "b:2", "c:3"].map(str::to_owned),
            cache: "d:4".to_owned(),
            shim_metrics: "e:5".to_owned(),
            cache_metrics: "f:6".to_owned(),
        }
    }

    #[test]
    fn names_say_where_images_come_from() {
        let direct = Held::images("team", Way::Direct, 2, "c:3");
        assert_eq!(direct[1].name, "c:3/team/direct-1:1");
        assert_eq!(direct[1].repository_at(0), "team/direct-1");
        assert_eq!(direct[1].repository_at(1), "proxy-cache/team/direct-1");
        assert_eq!(direct[1].repository_at(2), "team/direct-1");
        assert_eq!(
            direct[1].places(&addresses()),
            [
                "c:3/team/direct-1:1",
                "a:1/team/direct-1:1",
                "b:2/proxy-cache/team/direct-1:1",
                "c:3/team/direct-1:1",
            ]
        );
        assert!(
            direct[1]
                .by_digest()
                .starts_with("c:3/team/direct-1@sha256:")
        );
        let cached = Held::images("team", Way::Cached, 1, "c:3");
        assert_eq!(cached[0].repository_at(2), "soak/team/cached-0");
        let places = cached[0].places(&addresses());
        assert_eq!(places[3], "c:3/soak/team/cached-0:1");
        assert_eq!(places[4], "d:4/registry.soak.invalid/team/cached-0:1");
    }

    #[test]
    fn every_variant_knows_every_registry() {
        for variant in 0..4 {
            for text in [
                shim_config(&addresses(), variant),
                cache_config(&addresses(), variant, "/x"),
                config_map(&addresses(), variant),
            ] {
                for host in ["http://a:1", "http://b:2/", "http://c:3/"] {
                    assert!(text.contains(host), "{text}");
                }
            }
        }
    }
}
