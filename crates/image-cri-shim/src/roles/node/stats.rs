//! The periodic line of counters.

use std::time::{Duration, SystemTime};

use resolver::Resolver;
use tokio::time::Instant;

/// How often the interval is asked for.
const CONFIG_INTERVAL: Duration = Duration::from_secs(15);
/// Whatever the config says: a line at each turn of the loop would leave no turn for anything else.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// The line, in the predecessor's wording.
pub(crate) fn line(resolver: &Resolver) -> String {
    let images = resolver.stats();
    let domains = resolver.client().stats();
    format!(
        "cache stats: image_hits={} image_misses={} domain_hits={} domain_misses={} \
         image_evictions={} domain_evictions={} invalidations={} generated_at={}",
        images.hits,
        images.misses,
        domains.hits,
        domains.misses,
        images.evictions,
        domains.evictions,
        images.invalidations,
        humantime::format_rfc3339_seconds(SystemTime::now()),
    )
}

/// Logs the line at the interval that `interval` gives each time; `None` is not now, ask again later.
pub(crate) async fn log_periodically(resolver: Resolver, interval: impl Fn() -> Option<Duration>) {
    let mut logged = Instant::now();
    loop {
        let now = Instant::now();
        match interval().map(|interval| logged + interval.max(SHORTEST_INTERVAL)) {
            Some(due) if due <= now => {
                tracing::info!("{}", line(&resolver));
                logged = now;
            }
            // Waits in steps, so that a shorter interval from a reload is seen.
            due => {
                let soon = now + CONFIG_INTERVAL;
                tokio::time::sleep_until(due.map_or(soon, |due| due.min(soon))).await;
            }
        }
    }
}
