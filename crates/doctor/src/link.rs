//! The socket that kubelet dials: where it leads, who answers there, and whether a bypass is or was in force.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cri::upstream::Upstream;
use installer::LINK;
use installer::bypass::{Bypass, LeadsTo};
use tokio::net::UnixStream;

use crate::host::Host;
use crate::patience::{Timely, on_thread, within};
use crate::report::{Area, Line};
use crate::words::seconds;

/// The shim's socket, in the folder beside the link.
const SHIM: &str = "shim.sock";
/// The bypass's.
const BYPASS: &str = "bypass.sock";
/// A bypass that ended this short a time ago is worth a thought, if there were several.
const RECENT: Duration = Duration::from_secs(3600);
/// Bypasses that nobody has to think about: one at the boot, one with each start of the shim.
const USUAL_PERIODS: u64 = 4;

/// What was seen.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// What kubelet dials, as the node sees it.
    link: PathBuf,
    /// Whether anything stands there.
    is_there: bool,
    /// Where the link leads; none where it is no link, so that the shim listens there itself.
    target: Option<PathBuf>,
    bypass: Option<Bypass>,
    /// A call as kubelet makes it: what the runtime says it is.
    call: Option<Timely<Result<String, String>>>,
}

/// The socket on which the shim listens: behind the link, or what the config says.
pub(crate) fn shim_socket(host: &Host, configured: &Path) -> PathBuf {
    let is_link = host
        .place_of_link(Path::new(LINK))
        .is_ok_and(|place| place.is_symlink());
    let socket = match is_link {
        true => Path::new(LINK).with_extension("").join(SHIM),
        false => configured.to_owned(),
    };
    host.place(&socket).unwrap_or(socket)
}

/// The process that listens on a socket; none where nobody does.
pub(crate) async fn listener(socket: &Path, limit: Duration) -> Option<u32> {
    let stream = within(limit, UnixStream::connect(socket))
        .await
        .ok()?
        .ok()?;
    let pid = stream.peer_cred().ok()?.pid()?;
    u32::try_from(pid).ok().filter(|pid| *pid != 0)
}

pub(crate) async fn gather(host: &Host, limit: Duration) -> Timely<Facts> {
    let link = PathBuf::from(LINK);
    let place = host.place_of_link(&link).unwrap_or_else(|_| link.clone());
    let looked = place.clone();
    let (is_there, target, bypass) = on_thread(limit, move || {
        let is_there = looked.symlink_metadata().is_ok();
        let target = looked.read_link().ok();
        (is_there, target, Bypass::of_link(&looked))
    })
    .await?;
    let call = match is_there && host.is_live {
        true => Some(call(&place, limit).await),
        false => None,
    };
    Ok(Facts {
        link,
        is_there,
        target,
        bypass,
        call,
    })
}

/// A call as kubelet makes it while the shim is down: what the runtime says it is, by the bypass. None where that does not
/// listen. This starts the bypass's process, which then waits; so it is asked only where there is a reason for doubt.
pub(crate) async fn call_bypass(
    host: &Host,
    limit: Duration,
) -> Option<Timely<Result<String, String>>> {
    let socket = Path::new(LINK).with_extension("").join(BYPASS);
    let place = host.place(&socket).ok()?;
    let looked = place.clone();
    let is_there = on_thread(limit, move || looked.exists()).await;
    if !is_there.is_ok_and(|is_there| is_there) {
        return None;
    }
    Some(call(&place, limit).await)
}

/// What the runtime says it is, asked on `socket`.
async fn call(socket: &Path, limit: Duration) -> Timely<Result<String, String>> {
    let upstream = Upstream::new(socket);
    let called = within(limit, cri::runtime_version(&upstream)).await;
    called.map(|called| called.map_err(|error| error.to_string()))
}

/// The line of it. A runtime that does not answer has its own line.
pub(crate) fn judge_bypass(
    call: Option<&Timely<Result<String, String>>>,
    runtime_answers: bool,
) -> Option<Line> {
    const CHECK: &str = "bypass.call";
    let why = match call? {
        Ok(Ok(version)) => {
            let version = policy::text::one_line(version, 100);
            let text = format!("the bypass leads to the runtime, also under SELinux: {version}");
            return Some(Line::ok(Area::Shim, CHECK, text));
        }
        Ok(Err(why)) => policy::text::one_line(why, 200),
        Err(late) => late.to_string(),
    };
    runtime_answers.then(|| {
        Line::bad(
            Area::Shim,
            CHECK,
            format!(
                "a call by the bypass does not reach the runtime, so kubelet has no image service while the shim is down; SELinux may forbid it: {why}"
            ),
            "ausearch -m AVC,SELINUX_ERR -c systemd-socket- -ts recent   # what was denied; a policy module has to allow it",
        )
    })
}

/// What else is known, for the judging.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beside {
    /// Whether systemd says that the shim serves; none where systemd does not run it.
    pub(crate) unit_is_active: Option<bool>,
    pub(crate) is_live: bool,
}

/// The lines of it.
pub(crate) fn judge(facts: &Timely<Facts>, beside: Beside) -> Vec<Line> {
    const CHECK: &str = "link";
    let bad = |text: String, mend: &str| Line::bad(Area::Shim, CHECK, text, mend);
    let facts = match facts {
        Ok(facts) => facts,
        Err(late) => {
            return vec![bad(
                format!("{LINK} can't be looked at: {late}"),
                "findmnt /run",
            )];
        }
    };
    let link = facts.link.display();
    if !facts.is_there {
        if !beside.is_live {
            // systemd-tmpfiles makes it at the boot.
            return Vec::new();
        }
        return vec![bad(
            format!("{link} is not there: a kubelet that dials it has no image service"),
            "systemd-tmpfiles --create image-cri-shim.conf; systemctl restart image-cri-shim",
        )];
    }
    let mut lines = vec![where_to(facts, beside)];
    lines.extend(facts.bypass.as_ref().and_then(history));
    lines
}

/// The line of a call as kubelet makes it. A runtime that does not answer has its own line.
pub(crate) fn judge_call(facts: &Timely<Facts>, runtime_answers: bool) -> Option<Line> {
    let facts = facts.as_ref().ok()?;
    let call = facts.call.as_ref()?;
    let is_well = matches!(call, Ok(Ok(_)));
    (is_well || runtime_answers).then(|| of_call(call, facts))
}

fn where_to(facts: &Facts, beside: Beside) -> Line {
    const CHECK: &str = "link";
    let link = facts.link.display();
    let Some(bypass) = &facts.bypass else {
        return Line::ok(
            Area::Shim,
            CHECK,
            format!("the shim listens on {link} itself, without a bypass"),
        );
    };
    let since = bypass
        .since
        .map(|since| format!(", for {}", seconds(since)));
    let since = since.unwrap_or_default();
    let target = facts.target.as_deref().unwrap_or(Path::new("")).display();
    match (bypass.leads_to, beside.unit_is_active) {
        (LeadsTo::Shim, _) => Line::ok(Area::Shim, CHECK, format!("{link} leads to the shim")),
        // Why is said by the unit's line.
        (LeadsTo::Bypass, Some(false)) => Line::bad(
            Area::Shim,
            CHECK,
            format!(
                "a bypass is in force{since}: kubelet is led past the shim, and images are pulled from where their own names point"
            ),
            "systemctl start image-cri-shim",
        ),
        (LeadsTo::Nowhere, Some(false)) => Line::bad(
            Area::Shim,
            CHECK,
            format!(
                "kubelet is led nowhere{since}, since the config allows no bypass: no image can be pulled"
            ),
            "systemctl start image-cri-shim",
        ),
        (LeadsTo::Bypass | LeadsTo::Nowhere, _) => Line::bad(
            Area::Shim,
            CHECK,
            format!(
                "kubelet is led {}{since}, although the shim runs: somebody has turned {link} by hand",
                bypass.leads_to
            ),
            "systemctl restart image-cri-shim-link.service",
        ),
        (LeadsTo::Elsewhere, _) => Line::bad(
            Area::Shim,
            CHECK,
            format!("{link} leads to {target}, which is neither the shim nor its bypass"),
            "systemctl restart image-cri-shim-link.service",
        ),
    }
}

/// What was, since the boot.
fn history(bypass: &Bypass) -> Option<Line> {
    const CHECK: &str = "bypass";
    if bypass.leads_to != LeadsTo::Shim {
        return None;
    }
    let Some(last) = &bypass.last else {
        return Some(Line::ok(
            Area::Shim,
            CHECK,
            "no bypass was in force since the boot",
        ));
    };
    let text = format!(
        "a bypass was in force {} times since the boot, for {} in all; kubelet was last led {} for {}, until {} ago",
        bypass.periods,
        seconds(bypass.total),
        last.leads_to,
        seconds(last.length),
        seconds(last.ended_ago),
    );
    Some(
        match bypass.periods > USUAL_PERIODS && last.ended_ago < RECENT {
            true => Line::warn(
                Area::Shim,
                CHECK,
                text,
                "journalctl -u image-cri-shim -n 50   # says why the shim ended",
            ),
            false => Line::ok(Area::Shim, CHECK, text),
        },
    )
}

fn of_call(call: &Timely<Result<String, String>>, facts: &Facts) -> Line {
    const CHECK: &str = "link.call";
    let link = facts.link.display();
    let mend = match &facts.bypass {
        Some(bypass) if bypass.leads_to == LeadsTo::Bypass => {
            "systemctl restart image-cri-shim-bypass.socket"
        }
        _ => "systemctl restart image-cri-shim",
    };
    match call {
        Ok(Ok(version)) => Line::ok(
            Area::Shim,
            CHECK,
            format!(
                "a call as kubelet makes it is answered at {link}: {}",
                policy::text::one_line(version, 100)
            ),
        ),
        Ok(Err(why)) => Line::bad(
            Area::Shim,
            CHECK,
            format!(
                "a call as kubelet makes it fails at {link}: {}",
                policy::text::one_line(why, 200)
            ),
            mend,
        ),
        Err(late) => Line::bad(
            Area::Shim,
            CHECK,
            format!("a call as kubelet makes it hangs at {link}: {late}"),
            mend,
        ),
    }
}

#[cfg(test)]
mod tests {
    use installer::bypass::Period;

    use super::*;
    use crate::report::Verdict;

    const ACTIVE: Beside = Beside {
        unit_is_active: Some(true),
        is_live: true,
    };

    fn facts(leads_to: LeadsTo) -> Facts {
        Facts {
            link: PathBuf::from(LINK),
            is_there: true,
            target: Some(PathBuf::from("image-cri-shim/shim.sock")),
            bypass: Some(Bypass {
                leads_to,
                is_noted: true,
                since: (leads_to != LeadsTo::Shim).then_some(Duration::from_secs(41)),
                periods: 1,
                total: Duration::from_secs(41),
                last: None,
            }),
            call: None,
        }
    }

    #[test]
    fn a_bypass_is_told_with_its_reason() {
        let shim = judge(&Ok(facts(LeadsTo::Shim)), ACTIVE);
        assert!(
            shim.iter().all(|line| line.verdict == Verdict::Ok),
            "{shim:?}"
        );
        let down = Beside {
            unit_is_active: Some(false),
            is_live: true,
        };
        for (leads_to, beside, part, mend) in [
            (
                LeadsTo::Bypass,
                down,
                "a bypass is in force, for 41s",
                "systemctl start image-cri-shim",
            ),
            (
                LeadsTo::Nowhere,
                down,
                "no image can be pulled",
                "systemctl start image-cri-shim",
            ),
            (
                LeadsTo::Bypass,
                ACTIVE,
                "by hand",
                "restart image-cri-shim-link",
            ),
            (
                LeadsTo::Elsewhere,
                ACTIVE,
                "leads to image-cri-shim/shim.sock",
                "restart image-cri-shim-link",
            ),
        ] {
            let lines = judge(&Ok(facts(leads_to)), beside);
            assert_eq!(lines[0].verdict, Verdict::Bad);
            assert!(lines[0].text.contains(part), "{lines:?}");
            assert!(lines[0].mend.as_ref().unwrap().contains(mend), "{lines:?}");
        }
    }

    #[test]
    fn what_was_counts_when_it_was_often_and_just_now() {
        let mut facts = facts(LeadsTo::Shim);
        let bypass = facts.bypass.as_mut().unwrap();
        bypass.last = Some(Period {
            leads_to: LeadsTo::Bypass,
            ended_ago: Duration::from_secs(100),
            length: Duration::from_secs(7),
        });
        assert_eq!(history(bypass).unwrap().verdict, Verdict::Ok);
        bypass.periods = 9;
        let line = history(bypass).unwrap();
        assert_eq!(line.verdict, Verdict::Warn);
        assert!(line.text.contains("9 times since the boot"), "{line:?}");
        assert!(line.text.ends_with("for 7s, until 1m 40s ago"), "{line:?}");
    }

    #[test]
    fn no_link_at_all() {
        let facts = Facts {
            is_there: false,
            bypass: None,
            ..facts(LeadsTo::Shim)
        };
        assert_eq!(judge(&Ok(facts.clone()), ACTIVE)[0].verdict, Verdict::Bad);
        // In an image of a node there can be none yet.
        let image = Beside {
            is_live: false,
            ..ACTIVE
        };
        assert_eq!(judge(&Ok(facts), image), []);
        assert!(matches!(
            judge(&Err(crate::patience::Late(RECENT)), ACTIVE)[0].verdict,
            Verdict::Bad
        ));
    }
}
