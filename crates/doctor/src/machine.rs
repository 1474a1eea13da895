//! The machine: room on its disks, and what the kernel still gives.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::StatVfsMountFlags;

use crate::host::Host;
use crate::patience::{Timely, on_thread};
use crate::report::{Area, Line};
use crate::words::size;

/// Below this nothing can be written any more that matters.
const FULL: u64 = 16 * 1024 * 1024;
/// A file system with less than this share free fills up soon.
const NEARLY_FULL_PERCENT: u64 = 5;
/// Fewer than the shim and its neighbours need.
const FEW_INOTIFY_INSTANCES: u64 = 16;
const FEW_INOTIFY_WATCHES: u64 = 512;

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    folders: Vec<Folder>,
    inotify: Inotify,
    open_files: Option<OpenFiles>,
}

/// A folder that somebody writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Folder {
    /// As the node sees it.
    path: PathBuf,
    what: &'static str,
    /// The nearest folder above that is there.
    seen: Result<Seen, String>,
}

/// A file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    total: u64,
    free: u64,
    inodes: u64,
    free_inodes: u64,
    is_read_only: bool,
    /// Whether the folder itself is there, and is one.
    is_there: bool,
    is_folder: bool,
}

/// What the kernel gives of inotify.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Inotify {
    instances: Option<u64>,
    watches: Option<u64>,
    /// Why one more can't be had.
    refused: Option<String>,
}

/// `folders` are those that somebody writes to, with what for.
pub(crate) async fn gather(
    host: &Host,
    folders: Vec<(PathBuf, &'static str)>,
    limit: Duration,
) -> Vec<Timely<Facts>> {
    // One by one: what hangs must not hide the others.
    let mut looks = Vec::new();
    for (path, what) in folders {
        let host = host.clone();
        looks.push(on_thread(limit, move || Facts {
            folders: vec![folder(&host, path, what)],
            ..Facts::default()
        }));
    }
    let host = host.clone();
    let kernel = on_thread(limit, move || Facts {
        inotify: inotify(&host),
        open_files: open_files(&host),
        ..Facts::default()
    });
    let (mut all, kernel) = tokio::join!(futures_util::future::join_all(looks), kernel);
    all.push(kernel);
    all
}

fn folder(host: &Host, path: PathBuf, what: &'static str) -> Folder {
    let seen = host.place(&path).and_then(|place| {
        let metadata = place.metadata().ok();
        let mut there: &Path = &place;
        while !there.exists() {
            there = there.parent().unwrap_or(Path::new("/"));
        }
        let system = rustix::fs::statvfs(there)?;
        Ok(Seen {
            total: system.f_blocks.saturating_mul(system.f_frsize),
            free: system.f_bavail.saturating_mul(system.f_frsize),
            inodes: system.f_files,
            free_inodes: system.f_favail,
            is_read_only: system.f_flag.contains(StatVfsMountFlags::RDONLY),
            is_there: metadata.is_some(),
            is_folder: metadata.is_none_or(|metadata| metadata.is_dir()),
        })
    });
    Folder {
        path,
        what,
        seen: seen.map_err(|error| error.to_string()),
    }
}

fn inotify(host: &Host) -> Inotify {
    let number = |name: &str| {
        let text = host.text(format!("/proc/sys/fs/inotify/{name}"))?;
        text.trim().parse().ok()
    };
    let refused = match host.root.is_live() {
        true => rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC).err(),
        false => None,
    };
    Inotify {
        instances: number("max_user_instances"),
        watches: number("max_user_watches"),
        refused: refused.map(|error| error.to_string()),
    }
}

/// The lines of it.
pub(crate) fn judge(all: &[Timely<Facts>]) -> Vec<Line> {
    let mut lines = Vec::new();
    for facts in all {
        match facts {
            Err(late) => lines.push(Line::bad(
                Area::Node,
                "disk",
                format!("a file system of this node does not answer: {late}"),
                "findmnt -t nfs,nfs4,cifs,fuse   # mend or unmount the one that hangs",
            )),
            Ok(facts) => {
                lines.extend(facts.folders.iter().map(disk));
                lines.extend(of_inotify(&facts.inotify));
                lines.extend(facts.open_files.map(judge_open_files));
            }
        }
    }
    lines
}

fn disk(folder: &Folder) -> Line {
    const CHECK: &str = "disk";
    let (path, what) = (folder.path.display(), folder.what);
    let bad = |text: String, mend: String| Line::bad(Area::Node, CHECK, text, mend);
    let usage = format!("du -xh {path} | sort -h | tail -n 20   # shows what takes the room");
    let seen = match &folder.seen {
        Ok(seen) => *seen,
        Err(why) => {
            return bad(
                format!("{path} ({what}) can't be looked at: {why}"),
                format!("ls -ld {path}"),
            );
        }
    };
    if !seen.is_folder {
        return bad(
            format!("{path} ({what}) is no directory"),
            format!("mv {path} {path}.old && systemctl restart image-cri-shim"),
        );
    }
    if seen.is_read_only {
        return bad(
            format!("{path} ({what}) is on a file system that is read-only"),
            format!("mount -o remount,rw $(findmnt -no TARGET -T {path})"),
        );
    }
    let percent = seen.free.saturating_mul(100).checked_div(seen.total);
    let percent = percent.unwrap_or(100);
    let free = size(seen.free);
    if seen.total > 0 && seen.free < FULL {
        return bad(
            format!("the file system of {path} ({what}) is full: {free} are free"),
            usage,
        );
    }
    if seen.inodes > 0 && seen.free_inodes == 0 {
        return bad(
            format!("the file system of {path} ({what}) has no inode left"),
            usage,
        );
    }
    if percent < NEARLY_FULL_PERCENT {
        let text = format!(
            "the file system of {path} ({what}) is nearly full: {free}, {percent} %, are free"
        );
        return Line::warn(Area::Node, CHECK, text, usage);
    }
    let missing = match seen.is_there {
        true => "",
        false => ", and is made when it is needed",
    };
    Line::ok(
        Area::Node,
        CHECK,
        format!("{path} ({what}) can be written to{missing}; {free} are free"),
    )
}

fn of_inotify(inotify: &Inotify) -> Vec<Line> {
    const CHECK: &str = "inotify";
    let Inotify {
        instances,
        watches,
        refused,
    } = inotify;
    let (Some(instances), Some(watches)) = (instances, watches) else {
        return Vec::new();
    };
    let what = "a changed config is only seen at the next reloadInterval";
    let line = if let Some(why) = refused {
        let text = format!(
            "the kernel gives no inotify instance ({why}), of {instances} per user: {what}"
        );
        let more = instances.saturating_mul(4).max(1024);
        Line::warn(
            Area::Node,
            CHECK,
            text,
            format!("sysctl -w fs.inotify.max_user_instances={more}"),
        )
    } else if *instances < FEW_INOTIFY_INSTANCES {
        let text = format!(
            "the kernel gives only {instances} inotify instances to a user; without one, {what}"
        );
        Line::warn(
            Area::Node,
            CHECK,
            text,
            "sysctl -w fs.inotify.max_user_instances=1024",
        )
    } else if *watches < FEW_INOTIFY_WATCHES {
        let text = format!(
            "the kernel gives only {watches} inotify watches to a user; without one, {what}"
        );
        Line::warn(
            Area::Node,
            CHECK,
            text,
            "sysctl -w fs.inotify.max_user_watches=65536",
        )
    } else {
        Line::ok(
            Area::Node,
            CHECK,
            "the kernel gives inotify, so that a changed config is seen at once",
        )
    };
    vec![line]
}

/// Descriptors of the whole machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OpenFiles {
    used: u64,
    limit: u64,
}

/// Reads `/proc/sys/fs/file-nr`. On the thread that calls.
fn open_files(host: &Host) -> Option<OpenFiles> {
    let text = host.text("/proc/sys/fs/file-nr")?;
    let numbers: Vec<u64> = text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    match numbers.as_slice() {
        [used, _, limit] => Some(OpenFiles {
            used: *used,
            limit: *limit,
        }),
        _ => None,
    }
}

/// The line of the machine's descriptors.
fn judge_open_files(open: OpenFiles) -> Line {
    let OpenFiles { used, limit } = open;
    let free = limit.saturating_sub(used);
    match free < limit / 20 {
        true => Line::bad(
            Area::Node,
            "descriptors",
            format!(
                "this node has {used} of {limit} files open; soon nothing can open another one"
            ),
            format!("sysctl -w fs.file-max={}", limit.saturating_mul(2)),
        ),
        false => Line::ok(
            Area::Node,
            "descriptors",
            format!("{used} files are open on this node; the limit is far away"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;

    const GOOD: Seen = Seen {
        total: 100 << 30,
        free: 50 << 30,
        inodes: 100,
        free_inodes: 50,
        is_read_only: false,
        is_there: true,
        is_folder: true,
    };

    fn judged(seen: Seen) -> Line {
        disk(&Folder {
            path: PathBuf::from("/var/lib/image-cri-shim"),
            what: "state",
            seen: Ok(seen),
        })
    }

    #[test]
    fn disks() {
        for (seen, verdict, part) in [
            (GOOD, Verdict::Ok, "50 GiB are free"),
            (
                Seen {
                    is_there: false,
                    ..GOOD
                },
                Verdict::Ok,
                "made when it is needed",
            ),
            (
                Seen {
                    is_folder: false,
                    ..GOOD
                },
                Verdict::Bad,
                "no directory",
            ),
            (
                Seen {
                    is_read_only: true,
                    ..GOOD
                },
                Verdict::Bad,
                "read-only",
            ),
            (Seen { free: 4096, ..GOOD }, Verdict::Bad, "is full: 4 KiB"),
            (
                Seen {
                    free_inodes: 0,
                    ..GOOD
                },
                Verdict::Bad,
                "no inode left",
            ),
            (
                Seen {
                    free: 1 << 30,
                    ..GOOD
                },
                Verdict::Warn,
                "1 GiB, 1 %",
            ),
            // proc, and what else has no size.
            (
                Seen {
                    total: 0,
                    free: 0,
                    inodes: 0,
                    free_inodes: 0,
                    ..GOOD
                },
                Verdict::Ok,
                "0 bytes",
            ),
        ] {
            let line = judged(seen);
            assert_eq!(line.verdict, verdict, "{line:?}");
            assert!(line.text.contains(part), "{line:?}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_judged_by_the_one_above() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path(), false);
        let folder = folder(&host, PathBuf::from("/var/lib/x"), "state");
        let seen = folder.seen.unwrap();
        assert!(
            seen.total > 0 && !seen.is_there && seen.is_folder,
            "{seen:?}"
        );
    }

    #[test]
    fn inotify_that_is_not_given() {
        let good = Inotify {
            instances: Some(128),
            watches: Some(8192),
            refused: None,
        };
        assert_eq!(of_inotify(&good)[0].verdict, Verdict::Ok);
        for broken in [
            Inotify {
                instances: Some(0),
                ..good.clone()
            },
            Inotify {
                watches: Some(0),
                ..good.clone()
            },
            Inotify {
                refused: Some("too many".to_owned()),
                ..good.clone()
            },
        ] {
            assert_eq!(of_inotify(&broken)[0].verdict, Verdict::Warn, "{broken:?}");
        }
        assert_eq!(of_inotify(&Inotify::default()), []);
    }

    #[test]
    fn files_that_are_open() {
        let judged = |used| judge_open_files(OpenFiles { used, limit: 100 }).verdict;
        assert_eq!((judged(99), judged(9)), (Verdict::Bad, Verdict::Ok));
    }
}
