//! Looking at everything at once, and putting the lines in their order.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::BoxFuture;
use installer::DEFAULTS;
use policy::config::Settings;
use telemetry::report::Status;

use crate::environment::Environment;
use crate::host::Host;
use crate::patience::{Timely, on_thread};
use crate::report::{Line, Report, Verdict};
use crate::scrub::Secrets;
use crate::{
    access, api_server, cache, clock, daemon, kubelet, leftovers, link, machine, registries,
    runtime, service, settings, wiring,
};

/// Asks the shim that listens on a socket for its state; the error is one sentence.
pub type AskDaemon = Box<dyn FnOnce(PathBuf) -> BoxFuture<'static, Result<Status, String>> + Send>;

/// What to look at, and how long to wait.
pub struct Options {
    /// Where the node's files stand; `/` is this machine.
    pub root: PathBuf,
    /// The config, as the node names it.
    pub file: PathBuf,
    /// Whether the node's processes, sockets, units and registries are this machine's, although `root` is not `/`.
    pub is_live: bool,
    /// How long each look may take.
    pub deadline: Duration,
    /// How the running shim is asked.
    pub ask_daemon: AskDaemon,
    /// The version of this program.
    pub version: String,
}

/// What several areas need, looked at first.
struct Basis {
    wiring: Timely<wiring::Facts>,
    environment: Environment,
    settings: Timely<settings::Facts>,
    shim_socket: PathBuf,
    shim_pid: Option<u32>,
}

impl Basis {
    async fn look(host: &Host, file: &Path, limit: Duration) -> Self {
        let on = host.clone();
        let wiring = on_thread(limit, move || wiring::gather(&on));
        let (on, of) = (host.clone(), file.to_owned());
        let configured = on_thread(limit, move || {
            let place = on.place(&of).unwrap_or(of);
            let configured = config::file::shim_socket(&place).ok();
            link::shim_socket(
                &on,
                configured.as_deref().unwrap_or(Path::new(installer::LINK)),
            )
        });
        let (wiring, shim_socket) = tokio::join!(wiring, configured);
        let shim_socket = shim_socket.unwrap_or_else(|_| PathBuf::from(installer::LINK));
        let shim_pid = match host.is_live {
            true => link::listener(&shim_socket, limit).await,
            false => None,
        };
        let on = host.clone();
        let environment = on_thread(limit, move || Environment::of(&on, shim_pid)).await;
        let environment = environment.unwrap_or_default();
        let (on, of, variables) = (host.clone(), file.to_owned(), environment.clone());
        let settings = on_thread(limit, move || settings::gather(&on, &of, &variables)).await;
        Self {
            wiring,
            environment,
            settings,
            shim_socket,
            shim_pid,
        }
    }

    /// What a shim goes by that starts now.
    fn effective(&self) -> Settings {
        let facts = self.settings.as_ref().ok();
        let effective = facts.and_then(settings::Facts::effective);
        effective.map_or_else(|| Settings::read("", &|_| None).0, Clone::clone)
    }
}

/// Looks at the whole chain. Takes a few times `deadline` at most, whatever hangs.
pub async fn examine(options: Options) -> Report {
    let started = Instant::now();
    let Options {
        root,
        file,
        is_live,
        deadline: limit,
        ask_daemon,
        version,
    } = options;
    let host = Host::new(&root, is_live);
    let basis = Basis::look(&host, &file, limit).await;
    let settings = basis.effective();
    let link_facts = link::gather(&host, limit);
    let access = access::gather(&host, secret_files(&basis), limit);
    let leftovers = leftovers::gather(&host, limit);
    let service = service::gather(&host, limit);
    let live = async {
        match host.is_live {
            true => Some(look_live(&host, &basis, &settings, ask_daemon, limit).await),
            false => None,
        }
    };
    let (link_facts, access, leftovers, service, live) =
        tokio::join!(link_facts, access, leftovers, service, live);
    let is_doubtful = host.is_live
        && settings.bypass
        && access.as_ref().is_ok_and(access::Facts::selinux_enforces);
    let bypass_call = match is_doubtful {
        true => link::call_bypass(&host, limit).await,
        false => None,
    };
    let folders = folders(&settings, live.as_ref());
    let machine = machine::gather(&host, folders, limit).await;

    let wiring = basis.wiring.as_ref().ok();
    let node = wiring.and_then(wiring::Facts::node);
    let leads_here = wiring.is_some_and(wiring::Facts::leads_here);
    let status = live.as_ref().and_then(|live| live.daemon.status());
    let runs_the_shim = service.as_ref().is_ok_and(service::Facts::runs_the_shim);
    let mut lines = wiring::judge(&basis.wiring);
    lines.extend(settings::judge(&basis.settings, status));
    lines.extend(machine::judge(&machine));
    lines.extend(access::judge(&access));
    lines.extend(leftovers::judge(&leftovers, node));
    let written = runtime::Written::of(
        settings.runtime_socket.as_deref(),
        &basis.environment,
        node,
        status,
    );
    lines.push(runtime::judge_target(
        &host,
        &written,
        runs_the_shim || !host.is_live,
    ));
    let (on, socket, rules) = (host.clone(), written.effective(), settings.rules.clone());
    // Files that can't be had in time are named by others.
    let hints = on_thread(limit, move || runtime::hints(&on, &socket, &rules)).await;
    lines.extend(runtime::judge_hints(&hints.unwrap_or_default()));
    let unit_is_active = match &service {
        Ok(facts) if facts.runs_the_shim() => Some(facts.shim_is_active()),
        _ => None,
    };
    let beside = link::Beside {
        unit_is_active,
        is_live: host.is_live,
    };
    if let Some(live) = &live {
        if let (Some(node), Some(facts)) = (node, &live.kubelet) {
            lines.extend(kubelet::judge(node, leads_here, facts));
        }
        lines.extend(runtime::judge(&live.runtime, node));
        lines.extend(service::judge(&service));
        lines.extend(link::judge(&link_facts, beside));
        let beside = daemon::Beside {
            runs_under_systemd: runs_the_shim,
            main_pid: service.as_ref().ok().and_then(service::Facts::shim_pid),
            version: &version,
        };
        // Why nobody answers is said by the unit's line then.
        if unit_is_active != Some(false) || status.is_some() {
            lines.extend(daemon::judge(&live.daemon, &beside));
        }
        let answers = live.runtime.answers();
        lines.extend(link::judge_call(&link_facts, answers));
        lines.extend(link::judge_bypass(bypass_call.as_ref(), answers));
        lines.extend(api_server::judge(&live.api_server));
        let unit = service.as_ref().ok().and_then(service::Facts::cache);
        lines.extend(cache::judge(&live.cache, unit.as_ref()));
        lines.extend(registries::judge(
            &live.registries,
            status,
            SystemTime::now(),
        ));
        lines.extend(clock::judge(&clock::skews(&live.registries)));
    } else {
        lines.extend(link::judge(&link_facts, beside));
    }
    let secrets = live.as_ref().map(|live| Secrets::of(&live.filled));
    for line in &mut lines {
        mend_by_hand(line, &file, rustix::process::geteuid().is_root());
    }
    let mut report = put_together(lines, node, version, started.elapsed());
    secrets
        .unwrap_or_else(|| Secrets::of(&settings))
        .scrub(&mut report);
    report
}

/// What can be asked only where the node is this machine.
struct Live {
    kubelet: Option<Timely<kubelet::Facts>>,
    runtime: runtime::Facts,
    daemon: daemon::Facts,
    api_server: Timely<api_server::Facts>,
    registries: Vec<registries::Facts>,
    /// The config with its credentials.
    filled: Settings,
    cache: cache::Facts,
}

async fn look_live(
    host: &Host,
    basis: &Basis,
    settings: &Settings,
    ask_daemon: AskDaemon,
    limit: Duration,
) -> Live {
    let node = basis.wiring.as_ref().ok().and_then(wiring::Facts::node);
    let written = runtime::Written::of(
        settings.runtime_socket.as_deref(),
        &basis.environment,
        node,
        None,
    );
    let socket = written.effective();
    let runtime = runtime::gather(host, socket.clone(), limit);
    let asking = ask_daemon(basis.shim_socket.clone());
    let daemon = daemon::gather(&basis.shim_socket, basis.shim_pid, asking, limit);
    let link = api_server::link(&basis.environment);
    let kubelet = async {
        let files = basis.wiring.as_ref().map(wiring::Facts::files);
        let files = files.unwrap_or_default();
        match node {
            Some(node) => Some(kubelet::gather(host, node, files, &link, limit).await),
            None => None,
        }
    };
    let api_server = api_server::gather(&link, limit);
    let registries = async {
        let filled = settings::filled(settings, link.clone(), limit).await;
        let environment = &basis.environment;
        let all = registries::gather(host, &filled, environment, &socket, limit).await;
        (filled, all)
    };
    let cache = cache::gather(host, settings, limit);
    let (kubelet, runtime, daemon, api_server, (filled, registries), cache) =
        tokio::join!(kubelet, runtime, daemon, api_server, registries, cache);
    Live {
        kubelet,
        runtime,
        daemon,
        api_server,
        registries,
        filled,
        cache,
    }
}

fn secret_files(basis: &Basis) -> Vec<PathBuf> {
    let Ok(facts) = &basis.settings else {
        return Vec::new();
    };
    let mut files = access::secret_files(&facts.file, &facts.settings, facts.is_usable());
    let config = facts.text.as_deref().unwrap_or_default();
    if basis.environment.file_holds_secrets(config) {
        files.push(PathBuf::from(DEFAULTS));
    }
    files
}

/// Folders that somebody writes to.
fn folders(settings: &Settings, live: Option<&Live>) -> Vec<(PathBuf, &'static str)> {
    let mut folders = vec![
        (settings.state_dir.clone(), "the shim's state"),
        (PathBuf::from("/etc"), "the config"),
    ];
    let images = live.map(|live| live.runtime.folders()).unwrap_or_default();
    folders.extend(
        images
            .into_iter()
            .map(|folder| (folder, "the runtime's images")),
    );
    folders
}

/// What mends a line, for who reads it: with the config that was looked at, and, where only root may look, with that.
fn mend_by_hand(line: &mut Line, file: &Path, is_root: bool) {
    const CONFIG: &str = installer::payload::CONFIG;
    let is_closed = line.text.contains("(os error 13)") || line.text.contains("may not open");
    if !is_root && is_closed && line.verdict == Verdict::Bad {
        // That this user may not look says nothing about the node.
        line.verdict = Verdict::Warn;
        line.mend = Some("sudo image-cri-shim doctor".to_owned());
    }
    let Some(mend) = line.mend.as_mut().filter(|_| file != Path::new(CONFIG)) else {
        return;
    };
    let shown = quoted(file);
    *mend = mend.replace(&format!(" {CONFIG}"), &format!(" {shown}"));
    for command in ["image-cri-shim config check", "image-cri-shim doctor"] {
        *mend = mend.replace(command, &format!("{command} -f {shown}"));
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:@%".contains(c);
    match text.chars().all(is_plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

fn put_together(
    mut lines: Vec<Line>,
    node: Option<&installer::Node>,
    version: String,
    elapsed: Duration,
) -> Report {
    // Stable: within an area the order is the judges'.
    lines.sort_by_key(|line| line.area);
    let verdict = lines.iter().map(|line| line.verdict).max();
    Report {
        version,
        node: node.map(|node| format!("{}, {}", node.kind, node.unit)),
        verdict: verdict.unwrap_or(Verdict::Ok),
        elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        lines,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Area;

    fn mended(text: &str, mend: &str, file: &str, is_root: bool) -> Line {
        let mut line = Line::bad(Area::Config, "config", text, mend);
        mend_by_hand(&mut line, Path::new(file), is_root);
        line
    }

    #[test]
    fn a_mend_names_the_config_that_was_looked_at() {
        let check = "vi +3 /etc/image-cri-shim.yaml   # then: image-cri-shim config check";
        let line = mended("wrong", check, "/etc/image-cri-shim.yaml", true);
        assert_eq!(line.mend.unwrap(), check);
        let line = mended("wrong", check, "/srv/my shim.yaml", true);
        assert_eq!(
            line.mend.unwrap(),
            "vi +3 '/srv/my shim.yaml'   # then: image-cri-shim config check -f '/srv/my shim.yaml'"
        );
        let other = "vi +3 /tree/etc/image-cri-shim.yaml";
        let line = mended("wrong", other, "/tree/etc/image-cri-shim.yaml", true);
        assert_eq!(line.mend.unwrap(), other);
    }

    #[test]
    fn what_only_root_may_look_at_is_no_fault_of_the_node() {
        let text = "cannot reach it: Permission denied (os error 13)";
        let restart = "systemctl restart containerd";
        let file = "/etc/image-cri-shim.yaml";
        let line = mended(text, restart, file, false);
        assert_eq!(line.verdict, Verdict::Warn);
        assert_eq!(line.mend.unwrap(), "sudo image-cri-shim doctor");
        // Root is refused by SELinux, for example.
        let line = mended(text, restart, file, true);
        assert_eq!(
            (line.verdict, line.mend.unwrap().as_str()),
            (Verdict::Bad, restart)
        );
    }
}
