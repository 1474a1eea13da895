//! The node cache's story: a pull, the uplink cut, the image lost by the runtime, and the pull again.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use testkit::node_cache::NodeCache;
use testkit::shim::{Options, Shim};

use super::report;
use super::scene::{MIRROR_PATH, Scene};
use super::steps::Outcome;

/// Only the company's mirror has it.
const IMAGE: &str = "quay.io/team/tool:2";
/// The mirror has it too, and nobody has pulled it through the cache.
const NEVER_PULLED: &str = "redis:7";

/// A cache that fills itself from the company's mirror, and a shim that pulls through it and knows nobody else.
struct Part {
    cache: NodeCache,
    shim: Shim,
}

/// Takes the steps and prints each. Every registry is down when it begins.
pub(super) async fn run(scene: &mut Scene, binary: &Path, outcome: &mut Outcome) -> Result<()> {
    scene.start_again("company").await?;
    let company = scene.place("company")?.registry.url();
    let config =
        format!("fallbackToOrigin: false\nregistries: [{{address: '{company}/{MIRROR_PATH}'}}]");
    let cache = NodeCache::start(binary, &config).await?;
    let config = format!(
        "useNodeCache: 'http://{}'\nfallbackToOrigin: false\n",
        cache.address()
    );
    let shim = Shim::start(&config, Options::new(binary, scene.containerd.socket()));
    let part = Part {
        cache,
        shim: shim.await.context("starting the cache's shim")?,
    };
    report::heading("A node cache between another shim and the company mirror, which is up again");
    for line in config.lines() {
        println!("  {line}");
    }
    forget_all(scene).await?;
    outcome.count(&part.pull(scene, Comes::ThroughTheCache).await?);

    scene.stop(&["company"]).await;
    report::heading("Now the uplink is cut, and the runtime loses its images");
    forget_all(scene).await?;
    outcome.count(&part.pull(scene, Comes::FromTheCache).await?);
    outcome.count(&part.missing(scene).await?);
    if outcome.wrong > 0 {
        eprintln!("\nThe cache's log:\n{}", part.cache.log());
    }
    part.end().await
}

/// Where the image has to come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comes {
    ThroughTheCache,
    FromTheCache,
}

impl Part {
    async fn pull(&self, scene: &Scene, comes: Comes) -> Result<Vec<String>> {
        for place in &scene.places {
            place.registry.recording().clear();
        }
        report::asked("pull", IMAGE, None);
        let mut problems = Vec::new();
        match self.shim.client().pull(IMAGE, None).await {
            Err(error) => {
                report::error(error.message());
                problems.push("the pull failed".to_owned());
            }
            Ok(_) => {
                let status = self.shim.client().status(IMAGE).await?;
                let id = status.map(|status| status.id).unwrap_or_default();
                let owner = scene.owner(&id).unwrap_or("nobody knows");
                if owner != "company" {
                    problems.push(format!("it is {owner}'s image"));
                }
                let asked = scene.place("company")?.registry.requests().len();
                let from = match comes {
                    Comes::ThroughTheCache => format!("{owner}, through the cache"),
                    Comes::FromTheCache => format!("the cache; it is {owner}'s image"),
                };
                report::line("from", &from);
                report::line("asked", &format!("the company mirror, {asked} times"));
                let is_expected = match comes {
                    Comes::ThroughTheCache => asked > 0,
                    Comes::FromTheCache => asked == 0,
                };
                if !is_expected {
                    problems.push("that many questions were not expected".to_owned());
                }
            }
        }
        report::problems(&problems);
        Ok(problems)
    }

    /// What has never been pulled can't come, and the error says why.
    async fn missing(&self, scene: &Scene) -> Result<Vec<String>> {
        report::asked("pull", NEVER_PULLED, None);
        let mut problems = Vec::new();
        match self.shim.client().pull(NEVER_PULLED, None).await {
            Ok(_) => problems.push("it was pulled, but nobody is there to give it".to_owned()),
            Err(error) => {
                report::error(error.message());
                let cache = self.cache.address().to_string();
                if !error.message().contains(&cache) {
                    problems.push("the error does not say who was tried".to_owned());
                }
            }
        }
        let left = scene.containerd.client().list().await?.len();
        if left != 1 {
            problems.push(format!("containerd has {left} images, not one"));
        }
        report::problems(&problems);
        Ok(problems)
    }

    /// Ends both as a service manager would.
    async fn end(mut self) -> Result<()> {
        let status = self.shim.terminate().await?;
        ensure!(
            status.success(),
            "the cache's shim ended with {status} on SIGTERM"
        );
        self.cache.stop().await?;
        let folder = self.cache.dir().to_owned();
        drop(self);
        ensure!(!folder.exists(), "{} is left behind", folder.display());
        Ok(())
    }
}

/// As a new disk would: the runtime has no image any more.
async fn forget_all(scene: &Scene) -> Result<()> {
    let client = scene.containerd.client();
    for image in client.list().await? {
        client.remove(&image.id).await?;
    }
    let left = client.list().await?.len();
    ensure!(left == 0, "containerd still has {left} images");
    Ok(())
}
