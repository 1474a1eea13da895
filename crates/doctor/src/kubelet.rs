//! The kubelet that runs: what it was started with, and whether it is well.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cluster::{ClientProvider, HealthzError, KubeletEndpoints};
use installer::{Kind, LINK, Node, flags, is_ours};

use crate::host::Host;
use crate::patience::{Late, Timely, on_thread, within};
use crate::report::{Area, Line};

/// Longest command line that is read.
const MAX_ARGUMENTS: u64 = 256 * 1024;
const PROC: &str = "/proc";

/// What runs.
pub(crate) struct Facts {
    process: Option<Process>,
    /// What kubelet says of itself; none where it is told to say nothing.
    healthz: Option<Timely<Result<(), HealthzError>>>,
    /// What it says of its endpoints, where that may be asked.
    told: Option<KubeletEndpoints>,
}

/// A process that is kubelet, or has it inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Process {
    pid: u32,
    /// Whether its own flags are kubelet's.
    has_flags: bool,
    image_endpoint: Option<String>,
    /// The endpoint that the config file it was started with names.
    endpoint_in_file: Option<String>,
    healthz: Option<SocketAddr>,
    /// What its node is called.
    node: String,
    started: Option<SystemTime>,
    /// When the newest file was written by which it is led to the shim.
    wired: Option<SystemTime>,
}

/// `files` are those by which kubelet is led to the shim; `link` leads to the API server.
pub(crate) async fn gather(
    host: &Host,
    node: &Node,
    files: Vec<PathBuf>,
    link: &ClientProvider,
    limit: Duration,
) -> Timely<Facts> {
    let (on, kind) = (host.clone(), node.kind);
    let process = on_thread(limit, move || find(&on, kind, &files)).await?;
    let healthz = async {
        let address = process.as_ref().and_then(|process| process.healthz)?;
        Some(within(limit, cluster::kubelet_healthz(address)).await)
    };
    let told = async {
        let name = &process.as_ref()?.node;
        // Most nodes may not ask that. Then the other evidence has to do.
        let told = within(limit, cluster::kubelet_endpoints(link, name)).await;
        told.ok()?.ok()?
    };
    let (healthz, told) = tokio::join!(healthz, told);
    Ok(Facts {
        process,
        healthz,
        told,
    })
}

fn find(host: &Host, kind: Kind, files: &[PathBuf]) -> Option<Process> {
    let pids = host.root.list(PROC).ok()?;
    let mut pids: Vec<u32> = pids.iter().filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    pids.into_iter().find_map(|pid| {
        let words = arguments(host, pid)?;
        let program = Path::new(words.first()?).file_name()?.to_str()?;
        match (kind, program) {
            // k3s has kubelet inside, and shows its own arguments in one word or in several.
            (Kind::K3s, program) if program.starts_with("k3s") => {
                let is_node = words.iter().any(|word| {
                    word.split(' ')
                        .any(|word| matches!(word, "server" | "agent"))
                });
                is_node.then(|| process(host, pid, &[], files))
            }
            (_, "kubelet") => Some(process(host, pid, &words, files)),
            // A program that is several, or a script that starts it: `hyperkube kubelet`, `sh /usr/bin/kubelet`.
            (_, "hyperkube" | "sh" | "bash") => {
                let second = Path::new(words.get(1)?).file_name()?;
                (second == "kubelet").then(|| process(host, pid, &words, files))
            }
            _ => None,
        }
    })
}

fn arguments(host: &Host, pid: u32) -> Option<Vec<String>> {
    let place = host.root.resolve(format!("{PROC}/{pid}/cmdline")).ok()?;
    let bytes = files::read_start(&place, MAX_ARGUMENTS).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let words = text.split('\0').filter(|word| !word.is_empty());
    Some(words.map(str::to_owned).collect())
}

fn process(host: &Host, pid: u32, words: &[String], files: &[PathBuf]) -> Process {
    let last = |name: &str| flags::values_of(words, name).pop();
    let config = last("config")
        .and_then(|path| host.text(path))
        .unwrap_or_default();
    let name = last("hostname-override").or_else(|| host.text("/proc/sys/kernel/hostname"));
    let modified = |path: &PathBuf| host.place(path).ok()?.metadata().ok()?.modified().ok();
    Process {
        pid,
        has_flags: !words.is_empty(),
        image_endpoint: last("image-service-endpoint"),
        endpoint_in_file: installer::top_level(&config, "imageServiceEndpoint"),
        healthz: installer::healthz(words, &config),
        node: name.unwrap_or_default().trim().to_lowercase(),
        started: started(host, pid),
        wired: files.iter().filter_map(modified).max(),
    }
}

/// When a process was started (proc(5): field 22 of its `stat`, in clock ticks since the boot).
fn started(host: &Host, pid: u32) -> Option<SystemTime> {
    let stat = host.text(format!("{PROC}/{pid}/stat"))?;
    // The second field is the program's name in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let boot = host.text(format!("{PROC}/stat"))?;
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?;
    let boot = Duration::from_secs(boot.trim().parse().ok()?);
    let after = Duration::from_millis(ticks.saturating_mul(1000) / per_second);
    SystemTime::UNIX_EPOCH.checked_add(boot)?.checked_add(after)
}

/// Why kubelet does not say that it is well, shorter than the error does: the line names kubelet already.
fn because(error: &HealthzError) -> String {
    match error {
        HealthzError::Connect { address, source } => format!("{address}: {source}"),
        HealthzError::Unwell { version, status } => format!("{version:?} {status}"),
        other => policy::text::one_line(&other.to_string(), 60),
    }
}

/// The lines of it, where the node's files lead kubelet to the shim or do not.
pub(crate) fn judge(node: &Node, leads_here: bool, facts: &Timely<Facts>) -> Vec<Line> {
    let restart = format!("systemctl restart {}", node.unit);
    let facts = match facts {
        Ok(facts) => facts,
        Err(late) => return vec![no_processes(*late)],
    };
    let Some(process) = &facts.process else {
        return vec![Line::bad(
            Area::Kubelet,
            "kubelet.process",
            format!("no kubelet runs, and {} should start one", node.unit),
            format!("systemctl start {}", node.unit),
        )];
    };
    let mut lines = vec![of_process(process, leads_here, &restart)];
    lines.extend(
        facts
            .told
            .as_ref()
            .and_then(|told| of_told(told, leads_here, &restart)),
    );
    if let Some(healthz) = &facts.healthz {
        lines.push(match healthz {
            Ok(Ok(())) => Line::ok(
                Area::Kubelet,
                "kubelet.health",
                "kubelet says that it is well",
            ),
            Ok(Err(why)) => {
                let text = format!("kubelet does not say that it is well: {}", because(why));
                Line::bad(Area::Kubelet, "kubelet.health", text, restart)
            }
            Err(late) => {
                let text = format!("kubelet does not say whether it is well: {late}");
                Line::bad(Area::Kubelet, "kubelet.health", text, restart)
            }
        });
    }
    lines
}

fn no_processes(late: Late) -> Line {
    Line::bad(
        Area::Wiring,
        "kubelet.process",
        format!("the processes of this node can't be listed: {late}"),
        "journalctl -k -n 50   # the kernel may say what hangs",
    )
}

/// What kubelet itself says counts for most. Before 1.27 it does not tell.
fn of_told(told: &KubeletEndpoints, leads_here: bool, restart: &str) -> Option<Line> {
    const CHECK: &str = "kubelet.configz";
    if told.container_runtime_endpoint.is_empty() {
        return None;
    }
    let endpoint = policy::text::one_line(&told.image_service_endpoint, 120);
    Some(match endpoint.as_str() {
        ours if is_ours(ours) => {
            let text = format!("kubelet says at /configz that it dials {LINK}");
            Line::ok(Area::Wiring, CHECK, text)
        }
        "" if !leads_here => return None,
        "" => Line::bad(
            Area::Wiring,
            CHECK,
            "kubelet says at /configz that it does not dial the shim, although its files say so",
            restart,
        ),
        other => Line::bad(
            Area::Wiring,
            CHECK,
            format!("kubelet says at /configz that it uses another image service: {other}"),
            restart,
        ),
    })
}

fn of_process(process: &Process, leads_here: bool, restart: &str) -> Line {
    const CHECK: &str = "kubelet.process";
    let pid = process.pid;
    // Flags win over the file.
    let endpoint = process.image_endpoint.as_ref();
    let endpoint = endpoint.or(process.endpoint_in_file.as_ref());
    match endpoint {
        Some(endpoint) if is_ours(endpoint) => Line::ok(
            Area::Wiring,
            CHECK,
            format!("kubelet (pid {pid}) was started with {LINK}"),
        ),
        Some(other) => {
            let text = format!(
                "the running kubelet (pid {pid}) uses another image service: {}",
                policy::text::one_line(other, 120)
            );
            Line::bad(Area::Wiring, CHECK, text, restart)
        }
        // Its command line does not tell; what was written after it had started, it has not read.
        None if !process.has_flags => match (process.started, process.wired) {
            (Some(started), Some(wired)) if leads_here && wired > started => Line::bad(
                Area::Wiring,
                CHECK,
                format!(
                    "kubelet (inside pid {pid}) was started before it was led to the shim, and has not read that yet"
                ),
                restart,
            ),
            _ => Line::ok(
                Area::Wiring,
                CHECK,
                format!(
                    "kubelet runs inside pid {pid}; its command line does not say what it dials"
                ),
            ),
        },
        None if leads_here => Line::bad(
            Area::Wiring,
            CHECK,
            format!(
                "the running kubelet (pid {pid}) was started before it was led to the shim, and does not dial it"
            ),
            restart,
        ),
        None => Line::warn(
            Area::Wiring,
            CHECK,
            format!("the running kubelet (pid {pid}) does not dial the shim"),
            restart,
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::report::Verdict;

    fn node(kind: Kind) -> Node {
        Node {
            kind,
            unit: "kubelet.service".to_owned(),
            runtime: PathBuf::from("/run/containerd/containerd.sock"),
            runtime_from: String::new(),
            both: false,
            healthz: None,
            image_endpoint: None,
            predecessor: false,
            packaged: true,
        }
    }

    fn found(kind: Kind, commands: &[(u32, &str)]) -> Option<Process> {
        let dir = tempfile::tempdir().unwrap();
        for (pid, command) in commands {
            let folder = dir.path().join(format!("proc/{pid}"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("cmdline"), command.replace('|', "\0")).unwrap();
        }
        find(&Host::new(dir.path(), true), kind, &[])
    }

    fn judged(kind: Kind, leads_here: bool, commands: &[(u32, &str)]) -> Line {
        let facts = Facts {
            process: found(kind, commands),
            healthz: None,
            told: None,
        };
        judge(&node(kind), leads_here, &Ok(facts)).remove(0)
    }

    #[test]
    fn what_runs_is_compared_with_what_is_written() {
        let ours =
            "/usr/bin/kubelet|--v=2|--image-service-endpoint|unix:///var/run/image-cri-shim.sock|";
        let shell = (7, "bash|-c|kubelet");
        for (commands, leads_here, verdict, part) in [
            (vec![shell, (812, ours)], true, Verdict::Ok, "(pid 812)"),
            (
                vec![(1, "kubelet|--v=2")],
                true,
                Verdict::Bad,
                "before it was led",
            ),
            (vec![(1, "kubelet")], false, Verdict::Warn, "does not dial"),
            (
                vec![(1, "kubelet|-image-service-endpoint=unix:///x.sock")],
                true,
                Verdict::Bad,
                "another image service: unix:///x.sock",
            ),
            (vec![shell], true, Verdict::Bad, "no kubelet runs"),
        ] {
            let line = judged(Kind::Kubeadm, leads_here, &commands);
            assert_eq!(line.verdict, verdict, "{line:?}");
            assert!(line.text.contains(part), "{line:?}");
        }
    }

    #[test]
    fn k3s_has_it_inside() {
        let line = judged(Kind::K3s, true, &[(5, "/usr/local/bin/k3s agent|")]);
        assert_eq!(line.verdict, Verdict::Ok, "{line:?}");
        assert!(found(Kind::K3s, &[(5, "/usr/local/bin/k3s|kubectl")]).is_none());
        let before = Process {
            started: Some(SystemTime::UNIX_EPOCH),
            wired: Some(SystemTime::now()),
            ..Process::default()
        };
        assert_eq!(of_process(&before, true, "").verdict, Verdict::Bad);
    }

    #[test]
    fn where_kubelet_says_that_it_is_well() {
        let healthz = |command: &str| found(Kind::Kubelet, &[(1, command)]).unwrap().healthz;
        assert_eq!(
            healthz("kubelet"),
            Some(SocketAddr::from(([127, 0, 0, 1], 10248)))
        );
        assert_eq!(healthz("kubelet|--healthz-port=0"), None);
        let other = healthz("kubelet|--healthz-port=1|--healthz-bind-address=::1");
        assert_eq!(other.unwrap().to_string(), "[::1]:1");
    }

    #[test]
    fn what_kubelet_says_itself() {
        let told = |image: &str, leads_here| {
            let told = KubeletEndpoints {
                container_runtime_endpoint: "unix:///run/containerd/containerd.sock".to_owned(),
                image_service_endpoint: image.to_owned(),
            };
            of_told(&told, leads_here, "").map(|line| line.verdict)
        };
        assert_eq!(
            told("unix:///run/image-cri-shim.sock", true),
            Some(Verdict::Ok)
        );
        assert_eq!(told("", true), Some(Verdict::Bad));
        assert_eq!(told("", false), None);
        assert_eq!(told("unix:///run/x.sock", false), Some(Verdict::Bad));
        assert_eq!(of_told(&KubeletEndpoints::default(), true, ""), None);
    }
}
