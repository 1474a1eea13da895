//! Whether kubelet is led past the shim, and since when.
//!
//! The script that turns kubelet's link (`packaging/lib/link`) notes each turn beside the shim's socket. It needs nothing
//! of the shim, and neither does this: it can be asked while no shim runs. The link itself is what counts; a note that
//! does not fit it, or that nobody can read, is as good as none.

use std::fmt;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use crate::{LINK, Root};

/// The note's name, beside the shim's socket.
const NOTE: &str = "bypass.state";
/// A note is one line.
const MAX_BYTES: u64 = 4096;

/// Where kubelet's link leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeadsTo {
    /// To the shim.
    Shim,
    /// Past it, to the container runtime: images are pulled from where their own names point.
    Bypass,
    /// To nobody, since the config allows no bypass: kubelet waits.
    Nowhere,
    /// Somebody else has made it, or there is none.
    Elsewhere,
}

impl fmt::Display for LeadsTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shim => "to the shim",
            Self::Bypass => "past the shim, to the container runtime",
            Self::Nowhere => "nowhere, since the config allows no bypass",
            Self::Elsewhere => "elsewhere, by a link that is not ours",
        })
    }
}

/// A time in which kubelet was led away from the shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// Where it was led.
    pub leads_to: LeadsTo,
    /// How long ago that ended.
    pub ended_ago: Duration,
    /// How long it lasted.
    pub length: Duration,
}

/// What is known about kubelet's link since the node has booted. Times are by the clock that never jumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bypass {
    /// Where the link leads now.
    pub leads_to: LeadsTo,
    /// Whether the script has noted the same: it turns the link first.
    pub is_noted: bool,
    /// For how long it has led away from the shim; `None` where it leads to the shim, or nobody has noted it.
    pub since: Option<Duration>,
    /// How often a bypass has been in force, one that still is included.
    pub periods: u64,
    /// For how long in all, one that still is included.
    pub total: Duration,
    /// The last time that has ended.
    pub last: Option<Period>,
}

impl Bypass {
    /// On a node. `None` where kubelet's link is not there, or is no link: the packages' units are not used.
    pub fn on(root: &Root) -> Option<Self> {
        // Both parts by themselves: the last one is the link that is looked at.
        let link = Path::new(LINK);
        let folder = root.resolve(link.parent()?).ok()?;
        Self::of_link(&folder.join(link.file_name()?))
    }

    /// Of the shim that listens on `socket`, as the packages' units name it: `FOLDER/shim.sock`, with kubelet's link
    /// at `FOLDER.sock`.
    pub fn beside(socket: &Path) -> Option<Self> {
        Self::of_link(&socket.parent()?.with_extension("sock"))
    }

    /// Of kubelet's link, which may stand elsewhere than at [`LINK`]. `None` where it is no link.
    pub fn of_link(link: &Path) -> Option<Self> {
        Self::look(link, &link.with_extension(""))
    }

    fn look(link: &Path, folder: &Path) -> Option<Self> {
        let target = fs::read_link(link).ok()?;
        let leads_to = leads_to(target.file_name()?.to_str()?);
        let note = note(&folder.join(NOTE)).unwrap_or_default();
        Some(Self::from_note(leads_to, &note, uptime()))
    }

    /// `note` is what the script has written, or anything else.
    fn from_note(leads_to: LeadsTo, note: &str, uptime: Option<Duration>) -> Self {
        let unknown = Self {
            leads_to,
            is_noted: false,
            since: None,
            periods: u64::from(leads_to == LeadsTo::Bypass),
            total: Duration::ZERO,
            last: None,
        };
        let (Some(note), Some(uptime)) = (Note::parse(note), uptime) else {
            return unknown;
        };
        let ago = |at: Duration| uptime.checked_sub(at);
        let is_noted = note.leads_to == leads_to;
        let is_away = leads_to != LeadsTo::Shim && is_noted;
        let since = ago(note.since).filter(|_| is_away);
        let current = since.filter(|_| leads_to == LeadsTo::Bypass);
        let last = note.last.and_then(|(leads_to, from, to)| {
            Some(Period {
                leads_to,
                ended_ago: ago(to)?,
                length: to.checked_sub(from)?,
            })
        });
        Self {
            is_noted,
            since,
            periods: note.periods.max(unknown.periods),
            total: note.total.saturating_add(current.unwrap_or_default()),
            last,
            ..unknown
        }
    }
}

/// `v1 LEADS-TO SINCE PERIODS SECONDS LAST-LED-TO FROM TO`, times in seconds since the node has booted.
struct Note {
    leads_to: LeadsTo,
    since: Duration,
    /// Bypasses that have begun.
    periods: u64,
    /// How long those were that have ended.
    total: Duration,
    last: Option<(LeadsTo, Duration, Duration)>,
}

impl Note {
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let &["v1", now, since, periods, total, last, from, to] = fields.as_slice() else {
            return None;
        };
        // No node has been up for longer, and nothing overflows.
        let seconds = |text: &str| {
            let seconds = text.parse::<u32>().ok()?;
            Some(Duration::from_secs(seconds.into()))
        };
        let last = match last {
            "-" => None,
            name => Some((
                leads_to(&format!("{name}.sock")),
                seconds(from)?,
                seconds(to)?,
            )),
        };
        Some(Self {
            leads_to: leads_to(&format!("{now}.sock")),
            since: seconds(since)?,
            periods: periods.parse::<u32>().ok()?.into(),
            total: seconds(total)?,
            last,
        })
    }
}

fn leads_to(socket: &str) -> LeadsTo {
    match socket {
        "shim.sock" => LeadsTo::Shim,
        "bypass.sock" => LeadsTo::Bypass,
        "closed.sock" => LeadsTo::Nowhere,
        _ => LeadsTo::Elsewhere,
    }
}

fn note(path: &Path) -> Option<String> {
    let bytes = files::read_start(path, MAX_BYTES).ok()?;
    String::from_utf8(bytes).ok()
}

/// How long the machine has been up, suspended times included.
fn uptime() -> Option<Duration> {
    let mut text = String::new();
    let file = fs::File::open("/proc/uptime").ok()?;
    file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn read(leads_to: LeadsTo, note: &str) -> Bypass {
        Bypass::from_note(leads_to, note, Some(secs(1000)))
    }

    #[test]
    fn what_the_script_has_noted() {
        let now = read(LeadsTo::Bypass, "v1 bypass 900 3 40 closed 700 750\n");
        let last = Period {
            leads_to: LeadsTo::Nowhere,
            ended_ago: secs(250),
            length: secs(50),
        };
        let expected = Bypass {
            leads_to: LeadsTo::Bypass,
            is_noted: true,
            since: Some(secs(100)),
            periods: 3,
            total: secs(140),
            last: Some(last),
        };
        assert_eq!(now, expected);
        let was = read(LeadsTo::Shim, "v1 shim 950 3 90 bypass 900 950");
        assert_eq!((was.since, was.periods, was.total), (None, 3, secs(90)));
        assert_eq!(was.last.unwrap().length, secs(50));
        // Somebody has turned the link by hand: since when, nobody knows.
        let turned = read(LeadsTo::Bypass, "v1 shim 950 0 0 - 0 0");
        assert_eq!((turned.since, turned.periods), (None, 1));
    }

    #[test]
    fn garbage_is_as_good_as_none() {
        for note in [
            "",
            "\0\0",
            "v2 bypass 900 3 40 - 0 0",
            "v1 bypass 900",
            "v1 bypass -9 3 40 - 0 0",
            "v1 bypass 1e9 3 40 - 0 0",
            "v1 bypass 99999999999999999999 3 40 - 0 0",
        ] {
            let now = read(LeadsTo::Bypass, note);
            assert_eq!(
                (now.since, now.periods, now.last),
                (None, 1, None),
                "{note}"
            );
            assert_eq!(read(LeadsTo::Shim, note).periods, 0, "{note}");
        }
        // From another boot.
        let later = read(LeadsTo::Bypass, "v1 bypass 2000 1 0 bypass 3000 2500");
        assert_eq!((later.since, later.last), (None, None));
    }

    #[test]
    fn it_is_found_on_a_node_and_beside_a_socket() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let folder = dir.path().join("run/image-cri-shim");
        fs::create_dir_all(&folder).unwrap();
        assert_eq!(Bypass::on(&root), None);
        let link = dir.path().join("run/image-cri-shim.sock");
        for (target, expected) in [
            ("image-cri-shim/shim.sock", LeadsTo::Shim),
            ("/run/containerd/containerd.sock", LeadsTo::Elsewhere),
            ("image-cri-shim/closed.sock", LeadsTo::Nowhere),
        ] {
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(target, &link).unwrap();
            let found = Bypass::on(&root).unwrap();
            assert_eq!(found.leads_to, expected);
            assert_eq!(Bypass::beside(&folder.join("shim.sock")), Some(found));
        }
        fs::write(folder.join(NOTE), "v1 closed 0 0 0 - 0 0\n").unwrap();
        assert!(Bypass::on(&root).unwrap().since.is_some());
        // A pipe is not waited for.
        fs::remove_file(folder.join(NOTE)).unwrap();
        let made = std::process::Command::new("mkfifo")
            .arg(folder.join(NOTE))
            .status();
        assert!(made.unwrap().success());
        assert_eq!(Bypass::on(&root).unwrap().since, None);
    }

    proptest! {
        #[test]
        fn any_note_is_read(note in "(v1 )?([a-z0-9-]{0,12} ?){0,9}") {
            read(LeadsTo::Bypass, &note);
        }
    }
}
