//! The files that systemd has started this process by, to see when they have changed.
//!
//! A hand-over keeps the environment and the sandbox that the first process was started with. What has changed in the
//! unit since then waits for a restart, and somebody has to know.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::systemd;

/// Where systemd looks for units, in its order (systemd.unit(5)).
const FOLDERS: [&str; 12] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
    "/etc/systemd/system.attached",
];
/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 256 << 10;
/// What a file that is not there is noted as.
const ABSENT: &str = "absent";

/// The files of a unit, its drop-ins and its environment: a digest by path. Nothing of what stands in them: there may be
/// passwords.
pub(crate) type Files = BTreeMap<PathBuf, String>;

/// The files of the unit that this process runs in, as they are now; none where systemd does not run us. Blocks on the
/// disk.
pub(crate) fn files() -> Option<Files> {
    if !systemd::runs_us() {
        return None;
    }
    let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
    Some(files_below(Path::new("/"), &service(&cgroups)?))
}

/// The paths whose files are others now than they were. Blocks on the disk.
pub(crate) fn changed(before: &Files) -> Vec<PathBuf> {
    match files() {
        Some(now) => differing(before, &now),
        None => Vec::new(),
    }
}

fn differing(before: &Files, now: &Files) -> Vec<PathBuf> {
    let differs = |path: &&PathBuf| before.get(*path) != now.get(*path);
    let mut paths: Vec<_> = before.keys().chain(now.keys()).filter(differs).collect();
    paths.sort();
    paths.dedup();
    paths.into_iter().cloned().collect()
}

/// The service that a process belongs to, by its `/proc/self/cgroup`. systemd may use the old hierarchy or the unified
/// one, and the other one may be there as well.
fn service(cgroups: &str) -> Option<String> {
    cgroups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_unified = number == "0" && controllers.is_empty();
        if !is_unified && controllers != "name=systemd" {
            return None;
        }
        let unit = path.rsplit('/').find(|part| part.ends_with(".service"))?;
        Some(unit.to_owned())
    })
}

fn files_below(root: &Path, unit: &str) -> Files {
    let below = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    let mut files = Files::new();
    let mut texts = Vec::new();
    let mut note = |path: PathBuf| {
        let text = files::read_text(&below(&path), MAX_FILE).ok()?;
        files.insert(path, digest(&text));
        texts.push(text);
        Some(())
    };
    // The first hides the others.
    let _ = FOLDERS
        .iter()
        .find_map(|folder| note(Path::new(folder).join(unit)));
    for path in drop_ins(unit, &below) {
        note(path);
    }
    for text in &texts {
        for path in environment_files(text) {
            let text = files::read_text(&below(&path), MAX_FILE);
            let seen = text.map_or_else(|_| ABSENT.to_owned(), |text| digest(&text));
            files.insert(path, seen);
        }
    }
    files
}

/// The drop-ins of a unit; of those with one name the first.
fn drop_ins(unit: &str, below: &impl Fn(&Path) -> PathBuf) -> Vec<PathBuf> {
    let mut by_name = BTreeMap::new();
    for folder in FOLDERS {
        for of in [unit, "service"] {
            let folder = Path::new(folder).join(format!("{of}.d"));
            for entry in fs::read_dir(below(&folder)).into_iter().flatten().flatten() {
                let name = entry.file_name();
                if Path::new(&name)
                    .extension()
                    .is_some_and(|ext| ext == "conf")
                {
                    let path = folder.join(&name);
                    by_name.entry(name).or_insert(path);
                }
            }
        }
    }
    by_name.into_values().collect()
}

/// The files that a unit takes variables from, where their names are written out.
fn environment_files(text: &str) -> Vec<PathBuf> {
    let named = text.lines().filter_map(|line| {
        let path = line.trim().strip_prefix("EnvironmentFile=")?.trim();
        let path = path.strip_prefix('-').unwrap_or(path);
        let is_plain = path.starts_with('/') && !path.contains(['%', '*', '?', '[']);
        is_plain.then(|| PathBuf::from(path))
    });
    named.collect()
}

/// Comments and empty lines change nothing.
fn digest(text: &str) -> String {
    let mut sha = Sha256::new();
    let means = |line: &&str| !line.is_empty() && !line.starts_with(['#', ';']);
    for line in text.lines().map(str::trim).filter(means) {
        sha.update(line);
        sha.update("\n");
    }
    format!("{:x}", sha.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "image-cri-shim.service";

    #[test]
    fn the_service_of_a_process() {
        for (cgroups, expected) in [
            ("0::/system.slice/image-cri-shim.service\n", Some(UNIT)),
            ("0::/system.slice/image-cri-shim.service/main\n", Some(UNIT)),
            (
                "12:memory:/x.service\n1:name=systemd:/system.slice/image-cri-shim.service\n0::/\n",
                Some(UNIT),
            ),
            (
                "9:name=systemd:/\n0::/system.slice/image-cri-shim.service\n",
                Some(UNIT),
            ),
            ("0::/user.slice/user-0.slice/session-1.scope\n", None),
            ("", None),
        ] {
            assert_eq!(service(cgroups).as_deref(), expected, "{cgroups}");
        }
    }

    #[test]
    fn what_counts_as_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let now = || files_below(dir.path(), UNIT);
        let unit = format!("usr/lib/systemd/system/{UNIT}");
        let text = "[Service]\nEnvironmentFile=-/etc/default/shim\nExecStart=/bin/shim\n";
        write(&unit, text);
        let before = now();
        let changed = |before: &Files| {
            let changed = differing(before, &now()).into_iter();
            let changed: Vec<_> = changed.map(|path| path.display().to_string()).collect();
            changed.join(" ")
        };
        assert_eq!(changed(&before), "");
        write(&unit, &format!("# a comment\n\n{text}"));
        assert_eq!(changed(&before), "");
        write("etc/default/shim", "HTTPS_PROXY=http://proxy\n");
        assert_eq!(changed(&before), "/etc/default/shim");
        let before = now();
        write(&unit, &format!("{text}Nice=5\n"));
        assert_eq!(changed(&before), format!("/{unit}"));
        let before = now();
        write(
            &format!("etc/systemd/system/{UNIT}.d/a.conf"),
            "[Service]\nNice=1\n",
        );
        // Hidden by the one in /etc.
        write(&format!("{unit}.d/a.conf"), "[Service]\nNice=2\n");
        write(&format!("{unit}.d/notes.txt"), "x\n");
        assert_eq!(
            changed(&before),
            format!("/etc/systemd/system/{UNIT}.d/a.conf")
        );
        let before = now();
        write(&format!("etc/systemd/system/{UNIT}"), text);
        assert_eq!(
            changed(&before),
            format!("/etc/systemd/system/{UNIT} /{unit}")
        );
    }
}
