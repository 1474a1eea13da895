//! One node with the product: its own resolver, breakers and memory, and its own order of pulls.

use std::sync::Arc;

use policy::jitter::Jitter;
use policy::{Candidate, Plan, PullOrder, Step, Verdict};
use registry::{CertsDirs, Client, ClientOptions};
use resolver::{Depth, Resolution, Resolver, ResolverOptions};
use telemetry::Telemetry;
use tokio::runtime::Handle;

use crate::images::Images;
use crate::network::NodeNetwork;
use crate::runtime::Runtime;

/// The product on one node.
pub struct Shim {
    images: Arc<Images>,
    resolver: Resolver,
    runtime: Runtime,
}

impl Shim {
    /// A shim that has just started. Must be called inside of the simulation's tokio runtime.
    pub fn new(images: Arc<Images>, runtime: Runtime, jitter: &Arc<Jitter>) -> Self {
        let settings = images.settings();
        let world = Arc::clone(runtime.world());
        let client = Client::new(ClientOptions {
            certs_dirs: CertsDirs::none(),
            domain_cache_ttl: settings.cache.domain_cache_ttl,
            network: Some(Arc::new(NodeNetwork::new(world, Arc::clone(jitter)))),
            ..ClientOptions::default()
        });
        let options = ResolverOptions {
            probe_timeout: settings.probe_timeout,
            found_ttl: settings.cache.image_cache_ttl,
            absent_ttl: settings.cache.negative_ttl,
            size: settings.cache.image_cache_size,
        };
        let resolver = Resolver::spread_by(
            Jitter::from_seed(jitter.bits()),
            client,
            Handle::current(),
            options,
            Telemetry::off(),
        );
        Self {
            images,
            resolver,
            runtime,
        }
    }

    /// The node's runtime.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Kubelet asks whether an image is there: nobody is asked over the network.
    pub fn has_image(&self, image: usize) -> bool {
        let candidates = self
            .images
            .plan(image)
            .map_or(0, |plan| plan.candidates.len());
        let mut names = (0..candidates).map(Some).chain([None]);
        names.any(|name| self.runtime.has(image, name))
    }

    /// Kubelet asks for an image to be pulled. The steps and their order are those of the shim's PullImage
    /// (`cri::image_calls::pull`), without the pull that begins while registries are asked.
    ///
    /// # Errors
    /// What kubelet is told where nothing has worked.
    pub async fn pull(&self, image: usize) -> Result<(), String> {
        let plan = self.images.plan(image).ok_or("no such image")?;
        let mut resolution = self.resolver.resolve(plan, None, Depth::Best).await;
        let mut verdicts = resolution.verdicts();
        let mut order = PullOrder::new(plan);
        let mut last = "nothing was tried".to_owned();
        loop {
            match order.next(plan, &verdicts, &resolution.open_circuits()) {
                Step::Candidate(at) => {
                    let Some(candidate) = plan.candidates.get(at) else {
                        continue;
                    };
                    let Err(why) = self.pull_candidate(image, plan, at, candidate).await else {
                        return Ok(());
                    };
                    self.resolver.pull_failed(plan, at, None, &why);
                    if let Some(verdict) = verdicts.get_mut(at) {
                        *verdict = Some(Verdict::PullFailed);
                    }
                    last = why;
                }
                Step::Original => match self.pull_original(image, plan).await {
                    Ok(()) => return Ok(()),
                    Err(why) => last = why,
                },
                Step::ProbeRest => {
                    resolution = self.ask_rest(plan, &verdicts).await;
                    order.learn(&mut verdicts, &resolution.verdicts());
                }
                Step::Exhausted => return Err(last),
            }
        }
    }

    async fn ask_rest(&self, plan: &Arc<Plan>, verdicts: &[Option<Verdict>]) -> Arc<Resolution> {
        let failed = verdicts.iter().enumerate();
        let failed = failed.filter(|(_, verdict)| **verdict == Some(Verdict::PullFailed));
        let failed = failed.map(|(at, _)| at).collect();
        let depth = Depth::BestBut(failed);
        self.resolver.resolve(plan, None, depth).await
    }

    async fn pull_candidate(
        &self,
        image: usize,
        plan: &Plan,
        at: usize,
        candidate: &Candidate,
    ) -> Result<(), String> {
        let name = format!("{}:{}", candidate.repository, plan.reference.manifest());
        let host = candidate.endpoint.domain();
        self.runtime.pull(image, Some(at), &host, &name).await
    }

    async fn pull_original(&self, image: usize, plan: &Plan) -> Result<(), String> {
        let meaning = &plan.meaning;
        let name = format!("{}:{}", meaning.repository(), meaning.manifest());
        let pulled = self.runtime.pull(image, None, meaning.domain(), &name);
        pulled.await
    }
}
