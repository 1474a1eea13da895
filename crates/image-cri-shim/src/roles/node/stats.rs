//! The periodic line of counters.

use std::time::{Duration, SystemTime};

use resolver::Resolver;

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
    const ASK_AGAIN: Duration = Duration::from_secs(15);
    let mut logged = tokio::time::Instant::now();
    loop {
        let due = interval().map(|interval| logged + interval);
        let soon = tokio::time::Instant::now() + ASK_AGAIN;
        match due {
            Some(due) if due <= tokio::time::Instant::now() => {
                tracing::info!("{}", line(&resolver));
                logged = tokio::time::Instant::now();
            }
            // Waits in steps, so that a shorter interval from a reload is seen.
            Some(due) => tokio::time::sleep_until(due.min(soon)).await,
            None => tokio::time::sleep_until(soon).await,
        }
    }
}
