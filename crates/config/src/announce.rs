//! The log lines about the config that runbooks grep for ; see the README.

use policy::config::Settings;
use policy::rules::{EntryKind, Registry};

/// Says what the config amounts to.
pub fn config(settings: &Settings) {
    for line in lines(settings) {
        tracing::info!("{line}");
    }
}

/// Says why the newest config is not in force. All that is wrong with it is one line.
pub(crate) fn kept_last_good(problem: &str) {
    let problem = problem.replace('\n', "; ");
    tracing::warn!("keeping the last good config: {problem}");
}

fn lines(settings: &Settings) -> Vec<String> {
    let is_listed = |registry: &&Registry| matches!(registry.kind, EntryKind::Listed(_));
    let listed = settings.configured.iter().filter(is_listed).count();
    let mut lines = vec![format!("config: processing {listed} configured registries")];
    let (listed, offline): (Vec<_>, Vec<_>) = settings.configured.iter().partition(is_listed);
    for registry in listed.into_iter().chain(offline) {
        let name = match registry.kind {
            EntryKind::Listed(number) => format!("registry[{number}]"),
            EntryKind::Offline => "offline_registry".to_owned(),
            EntryKind::NodeCache => "node_cache".to_owned(),
        };
        let mark = if registry.default_priority {
            " (default)"
        } else {
            ""
        };
        lines.push(format!(
            "config: {name} address={} domain={} priority={}{mark}",
            registry.address,
            domain(registry),
            registry.priority.get(),
        ));
    }
    for redirect in &settings.rules.redirects {
        lines.push(format!(
            "config: redirect[{}] src={}/{} to={}",
            redirect.number, redirect.src_domain, redirect.src_path, redirect.to
        ));
    }
    lines
}

/// The predecessor's word for Docker Hub, and the host without port.
fn domain(registry: &Registry) -> &str {
    match registry.endpoint.host() {
        "docker.io" => "index.docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_runbooks_grep_for_them() {
        let (settings, _) = Settings::read(
            "address: http://sealos.hub:5000\nregistries: [{address: docker.io}, {address: 'http://u:p@b.io:80', priority: 800}]\n",
            &|_| None,
        );
        assert_eq!(
            lines(&settings),
            [
                "config: processing 2 configured registries",
                "config: registry[1] address=docker.io domain=index.docker.io priority=500 (default)",
                "config: registry[2] address=http://b.io:80 domain=b.io priority=800",
                "config: offline_registry address=http://sealos.hub:5000 domain=sealos.hub priority=1000 (default)",
            ]
        );
    }
}
