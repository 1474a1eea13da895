//! What the predecessor, the Go program of the same name, has left on the node.

use std::path::Path;
use std::time::Duration;

use installer::Node;

use crate::host::Host;
use crate::patience::{Timely, on_thread};
use crate::report::{Area, Line};

const UNIT: &str = "/etc/systemd/system/image-cri-shim.service";
/// Ours stands in one of these places, never in both.
const PROGRAMS: [&str; 2] = ["/usr/bin/image-cri-shim", "/usr/local/bin/image-cri-shim"];
/// Where a package puts the unit.
const PACKAGED_UNIT: [&str; 2] = [
    "/usr/lib/systemd/system/image-cri-shim.service",
    "/lib/systemd/system/image-cri-shim.service",
];

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The command that a unit of the administrator's starts, where it is not ours.
    foreign_start: Option<String>,
    /// Whether that unit hides the package's.
    hides_package: bool,
    /// Whether there are two programs.
    two_programs: bool,
}

pub(crate) async fn gather(host: &Host, limit: Duration) -> Timely<Facts> {
    let host = host.clone();
    on_thread(limit, move || {
        let unit = host.text(UNIT).unwrap_or_default();
        let mut starts = unit
            .lines()
            .filter_map(|line| line.trim().strip_prefix("ExecStart="));
        let start = starts.rfind(|start| !start.is_empty());
        let foreign = start.filter(|start| !start.contains(" serve --listen "));
        Facts {
            foreign_start: foreign.map(|start| policy::text::one_line(start, 120)),
            hides_package: PACKAGED_UNIT.iter().any(|unit| host.root.exists(unit)),
            two_programs: PROGRAMS
                .iter()
                .all(|program| host.root.exists(Path::new(program))),
        }
    })
    .await
}

/// The lines of it; none where nothing is left.
pub(crate) fn judge(facts: &Timely<Facts>, node: Option<&Node>) -> Vec<Line> {
    const CHECK: &str = "leftovers";
    let Ok(facts) = facts else {
        // The same files hang elsewhere, and are named there.
        return Vec::new();
    };
    let mut lines = Vec::new();
    let is_predecessor = node.is_some_and(|node| node.predecessor);
    if let Some(start) = facts.foreign_start.as_ref() {
        let text = match (is_predecessor, facts.hides_package) {
            (true, false) => {
                format!("the Go program of the same name is installed: {UNIT} starts `{start}`")
            }
            (_, true) => format!(
                "{UNIT} hides the package's unit and starts `{start}`: the Go program's, or one without a bypass"
            ),
            (false, false) => {
                format!("{UNIT} is not ours, and starts `{start}`: there is no bypass")
            }
        };
        let mend = match facts.hides_package {
            true => {
                format!("rm {UNIT} && systemctl daemon-reload && systemctl restart image-cri-shim")
            }
            false => crate::wiring::install(node),
        };
        lines.push(Line::warn(Area::Shim, CHECK, text, mend));
    }
    if facts.two_programs {
        lines.push(Line::warn(
            Area::Shim,
            CHECK,
            format!("there are two programs, {}: which one a shell starts is not the one that systemd starts", PROGRAMS.join(" and ")),
            "systemctl cat image-cri-shim | grep ExecStart=   # shows which one runs; remove the other",
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_go_program_leaves_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let place = dir.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(place, text).unwrap();
        };
        let host = Host::new(dir.path(), false);
        let limit = Duration::from_secs(60);
        let facts = gather(&host, limit).await;
        assert_eq!(judge(&facts, None), []);
        write(
            UNIT,
            "[Service]\nExecStart=/usr/bin/image-cri-shim -f /etc/image-cri-shim.yaml\n",
        );
        let facts = gather(&host, limit).await;
        let lines = judge(&facts, None);
        assert!(
            lines[0].text.contains("-f /etc/image-cri-shim.yaml"),
            "{lines:?}"
        );
        write(PACKAGED_UNIT[0], "[Service]\n");
        for program in PROGRAMS {
            write(program, "");
        }
        let facts = gather(&host, limit).await;
        let lines = judge(&facts, None);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines[0]
                .mend
                .as_ref()
                .unwrap()
                .starts_with("rm /etc/systemd/system")
        );
        write(
            UNIT,
            "[Service]\nExecStart=/usr/local/bin/image-cri-shim serve --listen /run/x\n",
        );
        let facts = gather(&host, limit).await;
        assert_eq!(judge(&facts, None).len(), 1);
    }
}
