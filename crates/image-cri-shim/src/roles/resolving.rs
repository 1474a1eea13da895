//! Resolvers by a config: made once, and told of every new one.

use std::path::Path;

use policy::config::Settings;
use registry::{CertsDirs, Client, ClientOptions};
use resolver::{Resolver, ResolverOptions};
use telemetry::Telemetry;
use tokio::runtime::Handle;

/// A resolver that asks registries on `handle`'s runtime, by `settings` and through this process's
/// proxies. `runtime` is the socket of the container runtime whose certificates count, where one is known.
pub(crate) fn resolver(
    settings: &Settings,
    runtime: Option<&Path>,
    handle: Handle,
    telemetry: Telemetry,
) -> Resolver {
    let client = Client::new(ClientOptions {
        certs_dirs: runtime.map_or_else(CertsDirs::default, CertsDirs::of),
        domain_cache_ttl: settings.cache.domain_cache_ttl,
        ..ClientOptions::default()
    });
    Resolver::new(client, handle, options(settings), telemetry)
}

/// Lets a resolver ask by a new config.
pub(crate) fn reconfigure(resolver: &Resolver, new: &Settings) {
    resolver
        .client()
        .set_domain_cache_ttl(new.cache.domain_cache_ttl);
    resolver.reconfigure(options(new), &new.rules);
}

fn options(settings: &Settings) -> ResolverOptions {
    ResolverOptions {
        probe_timeout: settings.probe_timeout,
        found_ttl: settings.cache.image_cache_ttl,
        absent_ttl: settings.cache.negative_ttl,
        size: settings.cache.image_cache_size,
    }
}
