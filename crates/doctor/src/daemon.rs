//! The running shim: whether it answers, and what it says of itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use telemetry::report::Status;

use crate::patience::{Timely, on_thread, within};
use crate::report::{Area, Line};
use crate::words;

/// Below this many free descriptors of a hundred, calls will soon fail.
const FEW_DESCRIPTORS: u64 = 10;
/// A kubelet calls more often than this.
const CALLS_EXPECTED_AFTER: u64 = 300;

/// What was seen.
pub(crate) struct Facts {
    socket: PathBuf,
    /// Its state, or why there is none.
    pub(crate) status: Timely<Result<Status, String>>,
    /// The process that listens there, where one does.
    pid: Option<u32>,
    /// Its program's name.
    program: Option<String>,
    descriptors: Option<Descriptors>,
}

/// File descriptors of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Descriptors {
    used: u64,
    limit: u64,
}

impl Facts {
    /// Its state, where it has told.
    pub(crate) fn status(&self) -> Option<&Status> {
        self.status.as_ref().ok()?.as_ref().ok()
    }
}

/// Asks the shim on `socket` by `asking`; `pid` is the process that listens there.
pub(crate) async fn gather(
    socket: &Path,
    pid: Option<u32>,
    asking: impl Future<Output = Result<Status, String>>,
    limit: Duration,
) -> Facts {
    let of_process = on_thread(limit, move || {
        let pid = pid?;
        Some((program(pid), descriptors(pid)))
    });
    let (status, of_process) = tokio::join!(within(limit, asking), of_process);
    let (program, descriptors) = of_process.ok().flatten().unwrap_or_default();
    Facts {
        socket: socket.to_owned(),
        status,
        pid,
        program,
        descriptors,
    }
}

fn program(pid: u32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(policy::text::one_line(name.trim(), 40))
}

fn descriptors(pid: u32) -> Option<Descriptors> {
    let used = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let limit = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    Some(Descriptors {
        used: u64::try_from(used).ok()?,
        limit: limit.split_whitespace().next()?.parse().ok()?,
    })
}

/// What else is known, for the judging.
pub(crate) struct Beside<'a> {
    /// Whether systemd starts the shim.
    pub(crate) runs_under_systemd: bool,
    /// The process that systemd looks after as the shim.
    pub(crate) main_pid: Option<u32>,
    /// The version of this program.
    pub(crate) version: &'a str,
}

/// The lines of it.
pub(crate) fn judge(facts: &Facts, beside: &Beside<'_>) -> Vec<Line> {
    const CHECK: &str = "daemon";
    let restart = match beside.runs_under_systemd {
        true => "systemctl restart image-cri-shim",
        false => "image-cri-shim serve",
    };
    let bad = |text: String| vec![Line::bad(Area::Shim, CHECK, text, restart)];
    let socket = facts.socket.display();
    let status = match &facts.status {
        Ok(Ok(status)) => status,
        Ok(Err(why)) => return bad(policy::text::one_line(why, 300)),
        Err(late) => {
            let owner = facts
                .pid
                .map(|pid| format!(" (pid {pid})"))
                .unwrap_or_default();
            return bad(format!(
                "the shim{owner} takes connections at {socket}, but is stuck: {late}"
            ));
        }
    };
    let mut lines = Vec::new();
    let pid = facts
        .pid
        .map(|pid| format!("pid {pid}, "))
        .unwrap_or_default();
    let program = facts.program.as_deref().unwrap_or("image-cri-shim");
    let text = format!(
        "{program} {} answers at {socket}: {pid}up {}",
        status.version,
        words::seconds(Duration::from_secs(status.uptime_seconds)),
    );
    lines.push(Line::ok(Area::Shim, CHECK, text));
    if status.version != beside.version {
        lines.push(Line::warn(
            Area::Shim,
            "daemon.version",
            format!("the running shim is {}, and the installed program is {}", status.version, beside.version),
            "systemctl reload image-cri-shim   # hands over to the installed program, no call is lost",
        ));
    }
    if !status.restart_needed.is_empty() {
        let changed = policy::text::one_line(&status.restart_needed.join(", "), 300);
        lines.push(Line::warn(
            Area::Shim,
            "daemon.unit",
            format!("a restart is needed: {changed} changed since systemd started the shim"),
            "systemctl restart image-cri-shim",
        ));
    }
    lines.extend(stranger(facts, beside));
    lines.extend(facts.descriptors.and_then(of_descriptors));
    lines.extend(calls(status));
    lines
}

/// Another shim than systemd's: one that somebody has started by hand. Who listens there is told by the kernel; after a
/// hand-over it is the one that has taken over.
fn stranger(facts: &Facts, beside: &Beside<'_>) -> Option<Line> {
    let (pid, main) = (facts.pid?, beside.main_pid?);
    let program = facts.program.as_ref()?;
    (pid != main).then(|| {
        Line::warn(
            Area::Shim,
            "daemon.owner",
            format!(
                "{} belongs to {program} (pid {pid}), and not to the shim that systemd looks after (pid {main})",
                facts.socket.display()
            ),
            format!("kill {pid} && systemctl restart image-cri-shim"),
        )
    })
}

fn of_descriptors(descriptors: Descriptors) -> Option<Line> {
    let Descriptors { used, limit } = descriptors;
    let free = limit.saturating_sub(used);
    (free.saturating_mul(100) < limit.saturating_mul(FEW_DESCRIPTORS)).then(|| {
        Line::bad(
            Area::Shim,
            "daemon.descriptors",
            format!(
                "the shim has {used} of {limit} file descriptors open; soon it can take no calls"
            ),
            "systemctl restart image-cri-shim",
        )
    })
}

/// Kubelet makes an image call every few seconds, whether it pulls or not.
fn calls(status: &Status) -> Option<Line> {
    let (calls, up) = (status.image_calls, status.uptime_seconds);
    if calls > 0 {
        return Some(Line::ok(
            Area::Shim,
            "daemon.calls",
            format!("image calls that have come through it since it started: {calls}"),
        ));
    }
    (up > CALLS_EXPECTED_AFTER).then(|| {
        let up = words::seconds(Duration::from_secs(up));
        Line::warn(
            Area::Shim,
            "daemon.calls",
            format!("nobody has made an image call through the shim in {up}; a kubelet that is led here makes some every minute"),
            "systemctl restart kubelet",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patience::Late;
    use crate::report::Verdict;

    fn status() -> Status {
        let json = r#"{"version":"1","started_at":"","uptime_seconds":400,"socket":"","config":{"file":"","generation":1,"loaded_at":"","parts":[]},"runtime":{"socket":"","reachable":true,"detail":""},"registries":[],"image_calls":3,"caches":{"image_hits":0,"image_misses":0,"image_evictions":0,"invalidations":0,"domain_hits":0,"domain_misses":0,"domain_evictions":0},"running":[],"decisions":[],"decisions_total":0}"#;
        serde_json::from_str(json).unwrap()
    }

    fn facts(status: Timely<Result<Status, String>>) -> Facts {
        Facts {
            socket: PathBuf::from("/run/image-cri-shim/shim.sock"),
            status,
            pid: Some(7),
            program: None,
            descriptors: Some(Descriptors {
                used: 20,
                limit: 1000,
            }),
        }
    }

    fn worst(facts: &Facts) -> Line {
        let beside = Beside {
            runs_under_systemd: true,
            main_pid: Some(7),
            version: "1",
        };
        let lines = judge(facts, &beside);
        lines.into_iter().max_by_key(|line| line.verdict).unwrap()
    }

    #[test]
    fn a_shim_that_answers_a_shim_that_does_not() {
        assert_eq!(worst(&facts(Ok(Ok(status())))).verdict, Verdict::Ok);
        let stuck = worst(&facts(Err(Late(Duration::from_secs(3)))));
        assert!(
            stuck.text.contains("(pid 7)") && stuck.text.contains("stuck"),
            "{stuck:?}"
        );
        let gone = worst(&facts(Ok(Err("no image-cri-shim runs".to_owned()))));
        assert_eq!(gone.verdict, Verdict::Bad);
        let mut full = facts(Ok(Ok(status())));
        full.descriptors = Some(Descriptors {
            used: 950,
            limit: 1000,
        });
        assert_eq!(worst(&full).check, "daemon.descriptors");
        let mut by_hand = facts(Ok(Ok(status())));
        by_hand.pid = Some(8);
        assert_eq!(worst(&by_hand).verdict, Verdict::Ok, "it has ended");
        by_hand.program = Some("image-cri-shim".to_owned());
        assert_eq!(worst(&by_hand).check, "daemon.owner");
        let quiet = Status {
            image_calls: 0,
            ..status()
        };
        assert_eq!(worst(&facts(Ok(Ok(quiet)))).check, "daemon.calls");
        let changed = Status {
            restart_needed: vec!["/etc/default/image-cri-shim".to_owned()],
            ..status()
        };
        let line = worst(&facts(Ok(Ok(changed))));
        assert_eq!(line.check, "daemon.unit");
        assert!(
            line.text.contains("/etc/default/image-cri-shim"),
            "{line:?}"
        );
        let old = Status {
            version: "0".to_owned(),
            ..status()
        };
        assert_eq!(worst(&facts(Ok(Ok(old)))).check, "daemon.version");
    }

    #[test]
    fn this_process_has_descriptors() {
        let found = descriptors(std::process::id()).unwrap();
        assert!(found.used > 0 && found.limit > found.used, "{found:?}");
    }
}
