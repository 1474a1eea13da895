//! Who can read what is secret, who can change what runs as root, and SELinux.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use policy::CredentialSource;
use policy::config::Settings;

use crate::host::Host;
use crate::patience::{Timely, on_thread, run};
use crate::report::{Area, Line};

/// Where programs of ours may stand.
const PROGRAMS: [&str; 4] = [
    "/usr/bin/image-cri-shim",
    "/usr/local/bin/image-cri-shim",
    "/usr/lib/image-cri-shim/link",
    "/usr/local/lib/image-cri-shim/link",
];
/// Files whose SELinux labels matter to services.
const LABELLED: [&str; 7] = [
    "/etc/image-cri-shim.yaml",
    "/etc/default/image-cri-shim",
    "/etc/systemd/system/image-cri-shim.service",
    "/etc/systemd/system/image-cri-shim-bypass.service",
    "/etc/systemd/system/image-cri-shim-bypass.socket",
    "/etc/systemd/system/image-cri-shim-link.service",
    "/var/lib/image-cri-shim",
];

/// Why others must not read a file, or write to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It holds credentials.
    Secret,
    /// It runs as root.
    Program,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    files: Vec<File>,
    selinux: Selinux,
}

impl Facts {
    /// Whether SELinux refuses what its policy does not allow.
    pub(crate) fn selinux_enforces(&self) -> bool {
        self.selinux.enforces == Some(true)
    }
}

/// A file that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    path: PathBuf,
    kept: Kept,
    mode: u32,
    owner: u32,
}

/// What SELinux says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Selinux {
    /// Whether it refuses anything; none where it is off.
    enforces: Option<bool>,
    /// Files whose labels are not what the policy says, with both labels.
    wrong: Vec<String>,
    /// Whether that could be found out.
    is_known: bool,
}

/// Files that hold secrets, by what the config says.
pub(crate) fn secret_files(file: &Path, settings: &Settings, is_usable: bool) -> Vec<PathBuf> {
    let registries = settings.configured.iter();
    let redirects = settings.rules.redirects.iter();
    let sources = registries
        .clone()
        .map(|one| one.source.as_ref())
        .chain(redirects.clone().map(|one| one.source.as_ref()));
    let mut files: Vec<PathBuf> = Vec::new();
    let writes_some = registries
        .clone()
        .any(|one| one.credentials.is_some() && one.source.is_none())
        || redirects
            .clone()
            .any(|one| one.credentials.is_some() && one.source.is_none());
    // What can't be understood may hold some.
    if writes_some || !is_usable {
        files.push(file.to_owned());
    }
    if writes_some {
        files.push(settings.state_dir.join("last-good.yaml"));
    }
    files.extend(sources.flatten().filter_map(|source| match source {
        CredentialSource::File(path) => Some(path.clone()),
        CredentialSource::Secret(_) | CredentialSource::Plugin => None,
    }));
    files.extend(
        settings
            .node_cache
            .tls
            .iter()
            .map(|tls| tls.key_file.clone()),
    );
    files.push(PathBuf::from(installer::ledger::FOLDER));
    files.sort();
    files.dedup();
    files
}

pub(crate) async fn gather(host: &Host, secrets: Vec<PathBuf>, limit: Duration) -> Timely<Facts> {
    let on = host.clone();
    let files = on_thread(limit, move || {
        let secrets = secrets.into_iter().map(|path| (path, Kept::Secret));
        let programs = PROGRAMS.map(|path| (PathBuf::from(path), Kept::Program));
        let files = secrets.chain(programs);
        files
            .filter_map(|(path, kept)| file(&on, path, kept))
            .collect()
    });
    Ok(Facts {
        files: files.await?,
        selinux: selinux(host, limit).await?,
    })
}

fn file(host: &Host, path: PathBuf, kept: Kept) -> Option<File> {
    let metadata = host.place(&path).ok()?.metadata().ok()?;
    Some(File {
        path,
        kept,
        mode: metadata.mode() & 0o7777,
        owner: metadata.uid(),
    })
}

/// `restorecon -n` changes nothing and says what it would change.
async fn selinux(host: &Host, limit: Duration) -> Timely<Selinux> {
    let on = host.clone();
    let looked = on_thread(limit, move || {
        let enforces = on.text("/sys/fs/selinux/enforce")?;
        let all = PROGRAMS.iter().chain(&LABELLED);
        let places = all.filter_map(|path| {
            let place = on.place(Path::new(path)).ok()?;
            place.exists().then(|| place.display().to_string())
        });
        Some((enforces.trim() == "1", places.collect::<Vec<String>>()))
    });
    let Some((enforces, places)) = looked.await? else {
        return Ok(Selinux::default());
    };
    let mut arguments = vec!["-n", "-v"];
    arguments.extend(places.iter().map(String::as_str));
    let said = run("restorecon", &arguments, limit).await?;
    let wrong = said.iter().flat_map(|said| said.stdout.lines());
    let wrong = wrong.filter_map(|line| line.strip_prefix("Would relabel "));
    Ok(Selinux {
        enforces: Some(enforces),
        wrong: wrong
            .map(|line| policy::text::one_line(line, 200))
            .collect(),
        is_known: said.is_some(),
    })
}

/// The lines of it.
pub(crate) fn judge(facts: &Timely<Facts>) -> Vec<Line> {
    let facts = match facts {
        Ok(facts) => facts,
        Err(late) => {
            return vec![Line::bad(
                Area::Node,
                "permissions",
                format!("who can read the shim's files can't be found out: {late}"),
                "findmnt -t nfs,nfs4,cifs,fuse   # mend or unmount the file system that hangs",
            )];
        }
    };
    let mut lines: Vec<Line> = facts.files.iter().filter_map(open_to_others).collect();
    if lines.is_empty() {
        let text =
            "files with credentials are closed to others, and programs can't be changed by them";
        lines.push(Line::ok(Area::Node, "permissions", text));
    }
    lines.extend(of_selinux(&facts.selinux));
    lines
}

fn open_to_others(file: &File) -> Option<Line> {
    const CHECK: &str = "permissions";
    let path = file.path.display();
    let mode = file.mode;
    let line = match file.kept {
        Kept::Secret if mode & 0o007 != 0 => Line::bad(
            Area::Node,
            CHECK,
            format!(
                "{path} holds credentials, and everybody on this node may read it (mode {mode:04o})"
            ),
            format!("chmod go= {path}"),
        ),
        Kept::Secret if mode & 0o070 != 0 => Line::warn(
            Area::Node,
            CHECK,
            format!("{path} holds credentials, and its group may read it (mode {mode:04o})"),
            format!("chmod go= {path}"),
        ),
        Kept::Program if mode & 0o022 != 0 => Line::bad(
            Area::Node,
            CHECK,
            format!("{path} runs as root, and others may change it (mode {mode:04o})"),
            format!("chmod go-w {path}"),
        ),
        Kept::Program if mode & 0o111 == 0 => Line::bad(
            Area::Node,
            CHECK,
            format!("{path} can't be run (mode {mode:04o})"),
            format!("chmod 755 {path}"),
        ),
        Kept::Program if file.owner != 0 => Line::bad(
            Area::Node,
            CHECK,
            format!("{path} runs as root, and belongs to user {}", file.owner),
            format!("chown root:root {path}"),
        ),
        Kept::Secret | Kept::Program => return None,
    };
    Some(line)
}

fn of_selinux(selinux: &Selinux) -> Option<Line> {
    const CHECK: &str = "selinux";
    let Some(enforces) = selinux.enforces else {
        return Some(Line::ok(Area::Node, CHECK, "SELinux is off"));
    };
    if !selinux.is_known {
        return Some(Line::warn(
            Area::Node,
            CHECK,
            "SELinux is on, and there is no restorecon to compare the labels of the shim's files with its policy",
            "dnf install policycoreutils",
        ));
    }
    let Some(first) = selinux.wrong.first() else {
        return Some(Line::ok(
            Area::Node,
            CHECK,
            "SELinux is on, and the shim's files are labelled as its policy says",
        ));
    };
    let paths: Vec<&str> = selinux
        .wrong
        .iter()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let text = format!(
        "{} files have another SELinux label than the policy says: {first}",
        selinux.wrong.len()
    );
    let mend = format!("restorecon -RFv {}", paths.join(" "));
    Some(match enforces {
        true => Line::bad(Area::Node, CHECK, text, mend),
        false => Line::warn(
            Area::Node,
            CHECK,
            format!("{text} (SELinux only warns here)"),
            mend,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;

    #[test]
    fn who_may_read_and_change_what() {
        for (kept, mode, owner, verdict) in [
            (Kept::Secret, 0o600, 0, None),
            (Kept::Secret, 0o644, 0, Some(Verdict::Bad)),
            (Kept::Secret, 0o640, 0, Some(Verdict::Warn)),
            // The cache's own user owns its key.
            (Kept::Secret, 0o600, 998, None),
            (Kept::Program, 0o755, 0, None),
            (Kept::Program, 0o775, 0, Some(Verdict::Bad)),
            (Kept::Program, 0o644, 0, Some(Verdict::Bad)),
            (Kept::Program, 0o755, 1000, Some(Verdict::Bad)),
        ] {
            let file = File {
                path: PathBuf::from("/etc/x"),
                kept,
                mode,
                owner,
            };
            let line = open_to_others(&file);
            assert_eq!(line.map(|line| line.verdict), verdict, "{file:?}");
        }
    }

    #[test]
    fn which_files_hold_secrets() {
        let file = Path::new("/etc/image-cri-shim.yaml");
        let read = |text: &str| {
            let (settings, _) = Settings::read(text, &|_| None);
            secret_files(file, &settings, true)
        };
        let none = read("address: http://a.io\n");
        assert_eq!(none, [PathBuf::from(installer::ledger::FOLDER)]);
        let some = read(
            "address: http://a.io\nauth: u:p\nregistries: [{address: b.io, authFile: /root/x.json}]\n",
        );
        assert!(some.contains(&file.to_owned()), "{some:?}");
        assert!(some.contains(&PathBuf::from("/root/x.json")), "{some:?}");
    }

    #[test]
    fn labels() {
        let on = Selinux {
            enforces: Some(true),
            wrong: vec!["/usr/local/bin/image-cri-shim from a to b".to_owned()],
            is_known: true,
        };
        let line = of_selinux(&on).unwrap();
        assert_eq!(line.verdict, Verdict::Bad);
        assert_eq!(
            line.mend.as_deref(),
            Some("restorecon -RFv /usr/local/bin/image-cri-shim")
        );
        let warns = Selinux {
            enforces: Some(false),
            ..on.clone()
        };
        assert_eq!(of_selinux(&warns).unwrap().verdict, Verdict::Warn);
        let good = Selinux {
            wrong: Vec::new(),
            ..on
        };
        assert_eq!(of_selinux(&good).unwrap().verdict, Verdict::Ok);
        assert_eq!(
            of_selinux(&Selinux::default()).unwrap().verdict,
            Verdict::Ok
        );
    }
}
