//! The images of a run, and the product's plans for them.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use policy::config::Settings;
use policy::{Plan, Reference};

/// The images that pods want, by number.
#[derive(Debug)]
pub struct Images {
    settings: Settings,
    plans: Vec<Arc<Plan>>,
}

impl Images {
    /// The images `names`, under this config. All nodes have the same config and a plan is pure, so it is made
    /// once for all of them.
    ///
    /// # Errors
    /// The config has mistakes, or a name is none.
    pub fn new(config: &str, names: &[String]) -> Result<Self> {
        let (settings, findings) = Settings::read(config, &|_name| None);
        if let Some(finding) = findings.iter().find(|finding| finding.is_error()) {
            bail!("the scenario's config: {}", finding.in_file("config"));
        }
        let plan = |name: &String| {
            let reference = Reference::parse(name).with_context(|| format!("image {name}"))?;
            Ok(Arc::new(Plan::new(&settings.rules, &reference)))
        };
        let plans = names.iter().map(plan).collect::<Result<_>>()?;
        Ok(Self { settings, plans })
    }

    /// The config's meaning.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The plan for one image.
    pub fn plan(&self, image: usize) -> Option<&Arc<Plan>> {
        self.plans.get(image)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.plans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }
}
