//! A resolver over registries that misbehave on demand.

use std::sync::Arc;
use std::time::Duration;

use policy::config::Settings;
use policy::{Plan, Reference};
use registry::{Client, ClientOptions};
use resolver::{Depth, Resolution, Resolver, ResolverOptions};
use telemetry::Telemetry;
use testkit::fake_registry::FakeRegistry;
use testkit::images::Image;

pub(crate) const IMAGE: &str = "ghcr.io/team/app:1";

/// ResolverOptions whose deadline a registry on a busy machine doesn't reach.
pub(crate) fn options() -> ResolverOptions {
    ResolverOptions {
        probe_timeout: Duration::from_secs(20),
        found_ttl: Duration::from_secs(1800),
        absent_ttl: Duration::from_secs(30),
        size: 1024,
    }
}

pub(crate) fn resolver() -> Resolver {
    resolver_with(options())
}

/// A resolver for registries that never answer, whose deadline the test waits out.
pub(crate) fn impatient() -> Resolver {
    resolver_with(ResolverOptions {
        probe_timeout: Duration::from_secs(1),
        ..options()
    })
}

pub(crate) fn resolver_with(options: ResolverOptions) -> Resolver {
    let client = Client::new(ClientOptions::default());
    Resolver::new(
        client,
        tokio::runtime::Handle::current(),
        options,
        Telemetry::new(),
    )
}

/// Registries that all have [`IMAGE`].
pub(crate) fn registries(count: usize) -> Vec<FakeRegistry> {
    let image = Image::new("app");
    (0..count)
        .map(|_| {
            let registry = FakeRegistry::start().unwrap();
            registry.add(&image, "team/app", "1");
            registry
        })
        .collect()
}

/// A config that lists `registries`, the first with the highest priority; `extra` goes into every
/// entry.
pub(crate) fn settings(registries: &[FakeRegistry], extra: &str) -> Settings {
    let entries: Vec<_> = registries
        .iter()
        .enumerate()
        .map(|(at, registry)| {
            let priority = 1000 - at;
            format!(
                "{{address: '{}', priority: {priority}{extra}}}",
                registry.url()
            )
        })
        .collect();
    let text = format!("registries: [{}]", entries.join(", "));
    let (settings, findings) = Settings::read(&text, &|_| None);
    assert!(findings.is_empty(), "{findings:?}");
    settings
}

/// The plan for `image` over `registries`.
pub(crate) fn plan(registries: &[FakeRegistry], image: &str) -> Arc<Plan> {
    let settings = settings(registries, "");
    Arc::new(Plan::new(
        &settings.rules,
        &Reference::parse(image).unwrap(),
    ))
}

pub(crate) async fn resolve(resolver: &Resolver, plan: &Arc<Plan>) -> Arc<Resolution> {
    resolver.resolve(plan, None, Depth::Best).await
}

/// Manifest requests that `registry` has seen.
pub(crate) fn asked(registry: &FakeRegistry) -> usize {
    registry.recording().count(|request| request.is_manifest())
}

/// Who said what, best candidate first.
pub(crate) fn trail(resolution: &Resolution) -> String {
    let said = resolution.report().into_iter().map(|candidate| {
        let detail = candidate
            .probe
            .map_or_else(|| "not waited for".to_owned(), |p| p.detail);
        format!("{}: {detail}", candidate.registry)
    });
    said.collect::<Vec<_>>().join("; ")
}
