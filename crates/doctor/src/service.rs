//! Units of systemd: the shim's own, those of its bypass, and the script that turns the link.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::host::Host;
use crate::patience::{Timely, on_thread, run};
use crate::report::{Area, Line};

pub(crate) const SHIM: &str = "image-cri-shim.service";
const BYPASS_SOCKET: &str = "image-cri-shim-bypass.socket";
const BYPASS: &str = "image-cri-shim-bypass.service";
const LINK: &str = "image-cri-shim-link.service";
pub(crate) const CACHE: &str = "image-cri-shim-cache.service";
const UNITS: [&str; 5] = [SHIM, BYPASS_SOCKET, BYPASS, LINK, CACHE];
const PROPERTIES: &str = "Id,LoadState,ActiveState,SubState,UnitFileState,Result,ExecMainStatus,MainPID,NRestarts,WatchdogUSec,NeedDaemonReload";
/// Where systemd keeps its part that the bypass is made of.
const PROXY: [&str; 2] = [
    "/lib/systemd/systemd-socket-proxyd",
    "/usr/lib/systemd/systemd-socket-proxyd",
];
/// Restarts that nobody has to think about: a runtime that came late, an upgrade.
const USUAL_RESTARTS: u64 = 5;

/// What systemd says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Whether systemd runs this node.
    is_systemd: bool,
    /// Whether it has given an answer.
    has_answered: bool,
    /// By name.
    units: BTreeMap<String, Unit>,
    has_proxy: bool,
}

/// One unit, by its properties.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unit(BTreeMap<String, String>);

impl Unit {
    fn get(&self, property: &str) -> &str {
        self.0.get(property).map_or("", String::as_str)
    }

    fn number(&self, property: &str) -> u64 {
        self.get(property).parse().unwrap_or(0)
    }

    /// Whether there is such a unit.
    pub(crate) fn is_there(&self) -> bool {
        !matches!(self.get("LoadState"), "" | "not-found")
    }

    pub(crate) fn is_active(&self) -> bool {
        self.get("ActiveState") == "active"
    }

    /// Whether it starts at the boot.
    pub(crate) fn is_enabled(&self) -> bool {
        self.get("UnitFileState").starts_with("enabled")
    }

    fn is_masked(&self) -> bool {
        self.get("LoadState") == "masked"
    }

    /// `failed (exit-code, status 1)`
    pub(crate) fn state(&self) -> String {
        let (active, sub) = (self.get("ActiveState"), self.get("SubState"));
        let state = match sub.is_empty() || sub == active {
            true => active.to_owned(),
            false => format!("{active} ({sub})"),
        };
        match self.get("Result") {
            "" | "success" => state,
            result => format!(
                "{state}: {result}, exit status {}",
                self.number("ExecMainStatus")
            ),
        }
    }
}

impl Facts {
    fn unit(&self, name: &str) -> Unit {
        self.units.get(name).cloned().unwrap_or_default()
    }

    /// The unit of the cache, where systemd knows one.
    pub(crate) fn cache(&self) -> Option<Unit> {
        Some(self.unit(CACHE)).filter(Unit::is_there)
    }

    /// Whether the shim is a service of systemd here.
    pub(crate) fn runs_the_shim(&self) -> bool {
        self.unit(SHIM).is_there()
    }

    /// Whether systemd says that the shim serves.
    pub(crate) fn shim_is_active(&self) -> bool {
        self.unit(SHIM).is_active()
    }

    /// The shim's process, as systemd knows it.
    pub(crate) fn shim_pid(&self) -> Option<u32> {
        let pid = u32::try_from(self.unit(SHIM).number("MainPID")).ok()?;
        (pid != 0).then_some(pid)
    }
}

pub(crate) async fn gather(host: &Host, limit: Duration) -> Timely<Facts> {
    let on = host.clone();
    let (is_systemd, has_proxy) = on_thread(limit, move || {
        // As sd_booted(3) has it.
        let is_systemd = on.root.exists("/run/systemd/system");
        (is_systemd, PROXY.iter().any(|path| on.root.exists(path)))
    })
    .await?;
    let mut facts = Facts {
        is_systemd,
        has_proxy,
        ..Facts::default()
    };
    // In an image of a node nothing runs.
    if is_systemd && host.is_live {
        let property = format!("--property={PROPERTIES}");
        let mut arguments = vec!["show", "--no-pager", property.as_str(), "--"];
        arguments.extend(UNITS);
        let said = run("systemctl", &arguments, limit).await?;
        facts.has_answered = said.as_ref().is_some_and(|said| said.succeeded);
        facts.units = units(&said.unwrap_or_default().stdout);
    }
    Ok(facts)
}

/// What `systemctl show` prints: `Key=value` lines, an empty line between units.
fn units(shown: &str) -> BTreeMap<String, Unit> {
    let blocks = shown.split("\n\n").map(|block| {
        let lines = block.lines().filter_map(|line| line.split_once('='));
        Unit(
            lines
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        )
    });
    blocks
        .map(|unit| (unit.get("Id").to_owned(), unit))
        .collect()
}

/// The lines of it.
pub(crate) fn judge(facts: &Timely<Facts>) -> Vec<Line> {
    let bad = |check, text: String, mend: String| Line::bad(Area::Shim, check, text, mend);
    let facts = match facts {
        Ok(facts) => facts,
        Err(late) => {
            let text = format!("systemd does not say how the units are: {late}");
            return vec![bad("units", text, "systemctl daemon-reexec".to_owned())];
        }
    };
    if !facts.is_systemd {
        let text = "systemd does not run this node, so nobody starts the shim again and there is no bypass; the shim listens on `shim:` itself";
        return vec![Line::ok(Area::Shim, "units", text)];
    }
    if !facts.has_answered {
        let text = "systemd does not say how the units are: `systemctl show` fails";
        return vec![bad(
            "units",
            text.to_owned(),
            "systemctl daemon-reexec".to_owned(),
        )];
    }
    let mut lines = vec![shim(&facts.unit(SHIM))];
    if !facts.runs_the_shim() {
        return lines;
    }
    lines.extend(watch(&facts.unit(SHIM)));
    lines.extend(bypass(facts));
    lines.push(turning(&facts.unit(LINK)));
    lines
}

fn shim(unit: &Unit) -> Line {
    const CHECK: &str = "unit";
    let bad = |text: String, mend: &str| Line::bad(Area::Shim, CHECK, text, mend);
    let status = unit.state();
    if !unit.is_there() {
        return bad(
            format!("systemd knows no {SHIM}: the shim is not installed"),
            "image-cri-shim install --restart-kubelet",
        );
    }
    if unit.is_masked() {
        return bad(
            format!("{SHIM} is masked, so that nothing starts the shim; it is {status}"),
            "systemctl unmask image-cri-shim && systemctl start image-cri-shim",
        );
    }
    match (unit.get("ActiveState"), unit.number("NRestarts")) {
        ("active", restarts) if restarts > USUAL_RESTARTS => Line::warn(
            Area::Shim,
            CHECK,
            format!("{SHIM} runs, and systemd has had to start it again {restarts} times"),
            "journalctl -u image-cri-shim -n 50   # says why it ended; `systemctl reset-failed image-cri-shim` sets the count back",
        ),
        ("active", _)
            if !matches!(
                unit.get("UnitFileState"),
                "enabled" | "enabled-runtime" | "static"
            ) =>
        {
            Line::warn(
                Area::Shim,
                CHECK,
                format!("{SHIM} runs, but nothing starts it at the next boot"),
                "systemctl enable image-cri-shim",
            )
        }
        ("active", _) => Line::ok(Area::Shim, CHECK, format!("{SHIM} is {status}")),
        ("activating" | "deactivating" | "reloading", 0) => Line::warn(
            Area::Shim,
            CHECK,
            format!("{SHIM} is {status}"),
            "image-cri-shim doctor   # again, in some seconds",
        ),
        ("activating" | "deactivating", restarts) => bad(
            format!(
                "{SHIM} does not stay up: {status}; systemd has started it again {restarts} times"
            ),
            "image-cri-shim --dry-run   # says what keeps it from serving; so does `journalctl -u image-cri-shim -n 50`",
        ),
        ("failed", _) => bad(
            format!("{SHIM} is {status}"),
            "systemctl restart image-cri-shim",
        ),
        _ => bad(
            format!("{SHIM} is not running: {status}"),
            "systemctl start image-cri-shim",
        ),
    }
}

/// What systemd does for a shim that does not end by itself.
fn watch(unit: &Unit) -> Vec<Line> {
    let mut lines = Vec::new();
    if unit.is_active() {
        lines.push(match unit.get("WatchdogUSec") {
            "" | "0" | "infinity" => Line::warn(
                Area::Shim,
                "watchdog",
                "systemd's watchdog is off, so a shim that hangs is not started again",
                "systemctl revert image-cri-shim && systemctl restart image-cri-shim",
            ),
            limit => Line::ok(
                Area::Shim,
                "watchdog",
                format!("a shim that answers nobody for {limit} is started again"),
            ),
        });
    }
    if unit.get("NeedDaemonReload") == "yes" {
        lines.push(Line::warn(
            Area::Shim,
            "unit.changed",
            format!("the files of {SHIM} have changed since systemd has read them"),
            "systemctl daemon-reload && systemctl restart image-cri-shim",
        ));
    }
    lines
}

fn bypass(facts: &Facts) -> Vec<Line> {
    const CHECK: &str = "bypass.unit";
    let (socket, service) = (facts.unit(BYPASS_SOCKET), facts.unit(BYPASS));
    let bad = |text: String, mend: &str| vec![Line::bad(Area::Shim, CHECK, text, mend)];
    if !facts.has_proxy {
        return bad(
            format!(
                "systemd-socket-proxyd is not there, which the bypass is made of ({})",
                PROXY.join(", ")
            ),
            "apt-get install --reinstall systemd   # or dnf reinstall systemd",
        );
    }
    if socket.is_masked() {
        return bad(
            format!("{BYPASS_SOCKET} is masked: while the shim is down, kubelet has no runtime"),
            "systemctl unmask image-cri-shim-bypass.socket && systemctl start image-cri-shim-bypass.socket",
        );
    }
    if !socket.is_active() {
        return bad(
            format!(
                "{BYPASS_SOCKET} is {}: while the shim is down, kubelet has no runtime",
                match socket.is_there() {
                    true => socket.state(),
                    false => "not installed".to_owned(),
                }
            ),
            "systemctl enable --now image-cri-shim-bypass.socket",
        );
    }
    if service.is_masked() || service.get("ActiveState") == "failed" {
        return bad(
            format!(
                "{BYPASS} can't run: {}",
                match service.is_masked() {
                    true => "masked".to_owned(),
                    false => service.state(),
                }
            ),
            "systemctl unmask image-cri-shim-bypass.service && systemctl reset-failed image-cri-shim-bypass.service image-cri-shim-bypass.socket && systemctl restart image-cri-shim-bypass.socket",
        );
    }
    let text = "the bypass is ready, for a shim that is down";
    vec![Line::ok(Area::Shim, CHECK, text)]
}

/// A masked shim is stopped without its own script; this unit still turns the link.
fn turning(unit: &Unit) -> Line {
    const CHECK: &str = "link.unit";
    if unit.is_masked() || !unit.is_there() {
        let text = format!(
            "{LINK} is masked or missing: a shim that is masked would leave kubelet's link turned to it"
        );
        return Line::warn(
            Area::Shim,
            CHECK,
            text,
            "systemctl unmask image-cri-shim-link.service && systemctl start image-cri-shim-link.service",
        );
    }
    Line::ok(
        Area::Shim,
        CHECK,
        format!("{LINK} turns the link also for a shim that is masked"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;

    fn healthy() -> Facts {
        let mut shown = String::new();
        for unit in UNITS {
            shown.push_str(&format!(
                "Id={unit}\nLoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nResult=success\nMainPID=7\nNRestarts=0\nWatchdogUSec=4s\nNeedDaemonReload=no\n\n"
            ));
        }
        Facts {
            is_systemd: true,
            has_answered: true,
            units: units(&shown),
            has_proxy: true,
        }
    }

    fn with(unit: &str, changes: &[(&str, &str)]) -> Facts {
        let mut facts = healthy();
        let properties = &mut facts.units.get_mut(unit).unwrap().0;
        for (name, value) in changes {
            properties.insert((*name).to_owned(), (*value).to_owned());
        }
        facts
    }

    #[test]
    fn a_healthy_node_has_no_other_line() {
        let facts = healthy();
        assert_eq!(facts.shim_pid(), Some(7));
        for line in judge(&Ok(facts)) {
            assert_eq!(line.verdict, Verdict::Ok, "{line:?}");
        }
    }

    #[test]
    fn each_state_has_its_own_way_out() {
        let inactive = ("ActiveState", "inactive");
        for (unit, changes, verdict, mend) in [
            (
                SHIM,
                vec![("LoadState", "masked"), inactive],
                Verdict::Bad,
                "systemctl unmask image-cri-shim",
            ),
            (
                SHIM,
                vec![inactive],
                Verdict::Bad,
                "systemctl start image-cri-shim",
            ),
            (
                SHIM,
                vec![("ActiveState", "failed"), ("Result", "exit-code")],
                Verdict::Bad,
                "systemctl restart",
            ),
            (
                SHIM,
                vec![("ActiveState", "activating"), ("NRestarts", "17")],
                Verdict::Bad,
                "--dry-run",
            ),
            (
                SHIM,
                vec![("LoadState", "not-found"), inactive],
                Verdict::Bad,
                "image-cri-shim install",
            ),
            (
                SHIM,
                vec![("UnitFileState", "disabled")],
                Verdict::Warn,
                "systemctl enable image-cri-shim",
            ),
            (SHIM, vec![("NRestarts", "40")], Verdict::Warn, "journalctl"),
            (
                SHIM,
                vec![("WatchdogUSec", "0")],
                Verdict::Warn,
                "systemctl revert",
            ),
            (
                SHIM,
                vec![("NeedDaemonReload", "yes")],
                Verdict::Warn,
                "daemon-reload",
            ),
            (
                BYPASS_SOCKET,
                vec![inactive],
                Verdict::Bad,
                "enable --now image-cri-shim-bypass.socket",
            ),
            (
                BYPASS_SOCKET,
                vec![("LoadState", "masked")],
                Verdict::Bad,
                "unmask image-cri-shim-bypass.socket",
            ),
            (
                BYPASS,
                vec![("ActiveState", "failed")],
                Verdict::Bad,
                "reset-failed",
            ),
            (
                LINK,
                vec![("LoadState", "masked")],
                Verdict::Warn,
                "unmask image-cri-shim-link",
            ),
        ] {
            let lines = judge(&Ok(with(unit, &changes)));
            let found: Vec<_> = lines
                .iter()
                .filter(|line| line.verdict != Verdict::Ok)
                .collect();
            assert_eq!(found.len(), 1, "{unit} {changes:?}: {found:?}");
            assert_eq!(found[0].verdict, verdict, "{found:?}");
            assert!(found[0].mend.as_ref().unwrap().contains(mend), "{found:?}");
        }
        // An idle bypass is a good one.
        let idle = judge(&Ok(with(BYPASS, &[inactive])));
        assert!(
            idle.iter().all(|line| line.verdict == Verdict::Ok),
            "{idle:?}"
        );
        let missing = Facts {
            has_proxy: false,
            ..healthy()
        };
        assert!(
            judge(&Ok(missing))
                .iter()
                .any(|line| line.verdict == Verdict::Bad)
        );
        let silent = Facts {
            has_answered: false,
            ..healthy()
        };
        assert_eq!(judge(&Ok(silent))[0].verdict, Verdict::Bad);
        assert_eq!(judge(&Ok(Facts::default()))[0].verdict, Verdict::Ok);
    }
}
