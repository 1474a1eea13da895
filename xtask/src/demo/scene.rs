//! What the demo plays in: a containerd, three registries with images, and the shim.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use testkit::containerd::Containerd;
use testkit::docker_registry::DockerRegistry;
use testkit::images::Image;
use testkit::shim::{Options, Shim};

/// The password of the offline registry; the shim has it from its config.
pub(crate) const OFFLINE: (&str, &str) = ("admin", "passw0rd");

/// The password of the origin; kubelet has it from a pod's pull secret, and the shim doesn't.
pub(crate) const PULL_SECRET: (&str, &str) = ("pod", "pull-secret");

/// The path below which the company's mirror keeps what it mirrors.
pub(crate) const MIRROR_PATH: &str = "proxy-cache";

/// A registry of the scene.
pub(crate) struct Place {
    /// What the report calls it.
    pub(crate) label: &'static str,
    /// What it is, for the report.
    pub(crate) what: String,
    pub(crate) registry: DockerRegistry,
    /// What it holds: repository with tag, and the image.
    pub(crate) images: Vec<(String, Image)>,
}

/// All that was started. Dropping it ends and deletes it.
pub(crate) struct Scene {
    pub(crate) shim: Shim,
    pub(crate) containerd: Containerd,
    /// By priority: the offline registry, the company's mirror, the origin.
    pub(crate) places: [Place; 3],
    /// The shim's config, with its password masked.
    pub(crate) config: String,
}

impl Scene {
    /// Starts everything.
    pub(crate) async fn set(binary: &Path) -> Result<Self> {
        let (user, password) = OFFLINE;
        let mut offline = Place::new(
            "offline",
            "offline registry, priority 1000, with a password".to_owned(),
            DockerRegistry::with_password(user, password).await?,
        );
        offline.push("library/nginx", "1.27").await?;
        offline.push("library/redis", "7").await?;

        let mut company = Place::new(
            "company",
            format!("company mirror below /{MIRROR_PATH}, priority 800"),
            DockerRegistry::plain().await?,
        );
        for (repository, tag) in [
            ("library/nginx", "1.27"),
            ("library/redis", "7"),
            ("team/tool", "2"),
        ] {
            company
                .push(&format!("{MIRROR_PATH}/{repository}"), tag)
                .await?;
        }

        let mut origin = Place::new(
            "origin",
            "where an image's own name points; asks for the pod's password".to_owned(),
            DockerRegistry::with_password(PULL_SECRET.0, PULL_SECRET.1).await?,
        );
        origin.push("team/app", "1").await?;

        let containerd = Containerd::start().await?;
        for place in [&offline, &company, &origin] {
            containerd.allow_http(&place.registry.host())?;
        }
        let config = |password: &str| {
            format!(
                "address: {}\nauth: {user}:{password}\nregistries:\n  - address: {}/{MIRROR_PATH}\n    priority: 800\n",
                offline.registry.url(),
                company.registry.url(),
            )
        };
        let options = Options::new(binary, containerd.socket());
        let shim = Shim::start(&config(password), options)
            .await
            .context("starting the shim")?;
        Ok(Self {
            shim,
            containerd,
            config: config("***"),
            places: [offline, company, origin],
        })
    }

    pub(crate) fn place(&self, label: &str) -> Result<&Place> {
        let place = self.places.iter().find(|place| place.label == label);
        place.with_context(|| format!("no registry is called {label}"))
    }

    /// Whose image has this ID.
    pub(crate) fn owner(&self, id: &str) -> Option<&'static str> {
        let owner = self.places.iter().find(|place| {
            let mut images = place.images.iter();
            images.any(|(_, image)| image.id() == id)
        });
        owner.map(|place| place.label)
    }

    /// Stops registries by their label.
    pub(crate) async fn stop(&mut self, labels: &[&str]) {
        for place in &mut self.places {
            if labels.contains(&place.label) {
                place.registry.stop().await;
            }
        }
    }

    /// Starts a registry again that was stopped.
    pub(crate) async fn start_again(&mut self, label: &str) -> Result<()> {
        for place in &mut self.places {
            if place.label == label {
                place.registry.start_again().await?;
            }
        }
        Ok(())
    }

    /// Ends the shim as a service manager would, and all the rest, and sees to it that nothing is left.
    pub(crate) async fn end(mut self) -> Result<()> {
        let status = self.shim.terminate().await?;
        ensure!(status.success(), "the shim ended with {status} on SIGTERM");
        ensure!(
            !self.shim.socket().exists(),
            "the shim left its socket behind"
        );
        let mut folders = vec![self.shim.dir().to_owned(), self.containerd.dir().to_owned()];
        folders.extend(
            self.places
                .iter()
                .map(|place| place.registry.dir().to_owned()),
        );
        drop(self);
        for folder in folders {
            ensure!(!folder.exists(), "{} is left behind", folder.display());
            let mounts = testkit::containerd::mounts_below(&folder);
            ensure!(mounts.is_empty(), "still mounted: {mounts:?}");
        }
        Ok(())
    }
}

impl Place {
    fn new(label: &'static str, what: String, registry: DockerRegistry) -> Self {
        Self {
            label,
            what,
            registry,
            images: Vec::new(),
        }
    }

    /// Pushes an image that no other registry has.
    async fn push(&mut self, repository: &str, tag: &str) -> Result<()> {
        let name = format!("{repository}:{tag}");
        let image = Image::new(&format!("{name} at {}", self.label));
        let pushed = self.registry.push(&image, repository, tag).await;
        pushed.with_context(|| format!("pushing {name} to {}", self.label))?;
        self.images.push((name, image));
        Ok(())
    }

    /// The digest of an image that it holds.
    pub(crate) fn digest(&self, name: &str) -> Result<&str> {
        let found = self.images.iter().find(|(other, _)| other.ends_with(name));
        let (_, image) = found.with_context(|| format!("{} has no {name}", self.label))?;
        Ok(&image.manifest_digest)
    }
}
