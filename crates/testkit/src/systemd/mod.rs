//! A real systemd in namespaces of its own, for what only a service manager can show.
//!
//! A minimal Debian of this machine's own release is unpacked once, by debootstrap, below the target directory. Each
//! [`Machine`] boots on a copy of it that is dropped with it, with its own processes, mounts and cgroups. The
//! network is this machine's, so what listens there must take random ports, unless it is asked for one of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::process::{Process, find, log_to, tail};
use crate::tools;
use crate::wait;

const BOOT: &str = include_str!("boot.sh");

/// A program for what kubelet does that matters to systemd: it stays connected to the endpoint of its image service that its
/// command line names, as HTTP/2 begins, and comes back when it is cut off. It makes no image call.
pub const KUBELET: &str = include_str!("kubelet.pl");

/// A booted systemd. Dropping it ends it with all of its processes.
pub struct Machine {
    process: Process,
    /// Its systemd, seen from here.
    pid: u32,
    cgroup: String,
    work: TempDir,
}

impl Machine {
    /// Boots, after `prepare` has put its files into the tree that it is given, and with folders of this machine
    /// mounted there: `(here, there)`. Returns when systemd says that it is up. Needs root.
    ///
    /// # Errors
    /// When Debian's packages can't be had, the kernel lacks what is needed, or systemd doesn't come up.
    pub async fn boot(
        prepare: impl FnOnce(&Path) -> Result<()>,
        mounts: &[(&Path, &str)],
    ) -> Result<Self> {
        Self::boot_in(prepare, mounts, false).await
    }

    /// As [`Self::boot`], with a network of its own that has loopback only: what the kernel lists of sockets is then
    /// this machine's alone, also of unix sockets. Needs `ip` of iproute2.
    ///
    /// # Errors
    /// As [`Self::boot`].
    pub async fn boot_alone(
        prepare: impl FnOnce(&Path) -> Result<()>,
        mounts: &[(&Path, &str)],
    ) -> Result<Self> {
        Self::boot_in(prepare, mounts, true).await
    }

    async fn boot_in(
        prepare: impl FnOnce(&Path) -> Result<()>,
        mounts: &[(&Path, &str)],
        own_network: bool,
    ) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        ensure!(
            rustix::process::geteuid().is_root(),
            "namespaces and mounts need root; run this as root"
        );
        let base = debian()?;
        // Not in /tmp, which may be an overlay itself, on which no other can be put.
        let work = tempfile::Builder::new()
            .prefix("systemd-")
            .tempdir_in(tools::folder())?;
        let changes = work.path().join("changes");
        fs::create_dir(&changes)?;
        prepare(&changes)?;
        fs::write(work.path().join("boot.sh"), BOOT)?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("testkit-{}-{number}", std::process::id());
        let log = work.path().join("log");
        let unshare = find("unshare").context("`unshare` of util-linux is not on this machine")?;
        let mut process = Process::spawn(&unshare, |command| {
            if own_network {
                command.arg("--net").env("OWN_NETWORK", "1");
            }
            command
                .args(["--mount", "--pid", "--uts", "--ipc", "--fork"])
                .args(["--kill-child", "--mount-proc", "--", "sh"])
                .arg(work.path().join("boot.sh"))
                .arg(&base)
                .arg(work.path())
                .arg(&cgroup);
            for (here, there) in mounts {
                command.arg(here).arg(there);
            }
            // A log that can't be opened is missed when something fails, and only then.
            let _ = log_to(command, &log);
        })?;
        let booted = wait::within(wait::TIMEOUT, || {
            let ended = process.ended().is_some();
            let pid = child_of(process.pid());
            std::future::ready(match pid {
                _ if ended => Some(None),
                Some(pid) if is_up(pid) => Some(Some(pid)),
                _ => None,
            })
        })
        .await
        .flatten();
        let Some(pid) = booted else {
            bail!("systemd did not come up:\n{}", tail(&log));
        };
        Ok(Self {
            process,
            pid,
            cgroup,
            work,
        })
    }

    /// Where a path of the machine stands, seen from here; also sockets and what is mounted.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.pid.to_string())
            .join("root")
            .join(inside.trim_start_matches('/'))
    }

    /// Runs a program inside, to its end.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn output(&self, command: &[&str]) -> Result<Output> {
        inside(self.pid, command)
            .output()
            .with_context(|| format!("running {command:?}"))
    }

    /// Runs a program inside and gives what it printed.
    ///
    /// # Errors
    /// When it can't be started or fails; with what it said.
    pub fn run(&self, command: &[&str]) -> Result<String> {
        let output = self.output(command)?;
        ensure!(
            output.status.success(),
            "{command:?} failed ({}): {}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A property of a unit, as `systemctl show` prints it.
    ///
    /// # Errors
    /// When systemctl fails.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        let shown = self.run(&["systemctl", "show", "--value", "--property", name, unit])?;
        Ok(shown.trim().to_owned())
    }

    /// The journal of a unit, for messages of failed tests.
    #[must_use]
    pub fn journal(&self, unit: &str) -> String {
        let command = ["journalctl", "--no-pager", "--lines=40", "--unit", unit];
        self.run(&command).unwrap_or_else(|error| error.to_string())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        remove_cgroup(self.work.path(), &self.cgroup);
    }
}

/// The unpacked Debian; made at the first call, which takes a minute or two.
fn debian() -> Result<PathBuf> {
    let release = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    // The program under test is linked against this machine's libraries.
    let release = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .context("/etc/os-release names no release; these tests need Debian")?;
    let folder = tools::folder();
    fs::create_dir_all(&folder)?;
    let lock = fs::File::create(folder.join(".systemd.lock"))?;
    lock.lock().context("locking the tools folder")?;
    let ready = folder.join(format!("debian-{release}"));
    if ready.is_dir() {
        return Ok(ready.canonicalize()?);
    }
    let package = tools::package(&folder, "debootstrap")?;
    let script = tools::program(&package, "debootstrap")?;
    let unfinished = folder.join(format!(".debian-{release}"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    eprintln!(
        "testkit: unpacking a minimal Debian {release} with systemd into {} (once, a minute or two)",
        ready.display()
    );
    let output = Command::new("sh")
        .arg(&script)
        .args(["--variant=minbase", "--include=systemd,systemd-sysv,dbus"])
        .arg(&release)
        .arg(&unfinished)
        .env("DEBOOTSTRAP_DIR", package.join("usr/share/debootstrap"))
        .stdin(Stdio::null())
        .output()
        .context("running debootstrap")?;
    ensure!(
        output.status.success(),
        "debootstrap failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    fs::rename(&unfinished, &ready)?;
    Ok(ready.canonicalize()?)
}

/// The process that `unshare` started inside its namespaces.
fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Whether that process has become systemd and has started what everything else needs, sockets included. A
/// service that fails again and again is a test's own business, and would keep systemd "starting".
fn is_up(pid: u32) -> bool {
    // The word and not the exit status: in what is no booted system yet, systemctl ignores everything with success.
    inside(pid, &["systemctl", "is-active", "basic.target"])
        .output()
        .is_ok_and(|output| output.stdout.trim_ascii() == b"active")
}

fn inside(pid: u32, command: &[&str]) -> Command {
    let mut nsenter = Command::new("nsenter");
    nsenter
        .args(["--target", &pid.to_string()])
        .args(["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup"])
        .args(["--root", "--wd=/", "--", "env", "-i"])
        .arg("PATH=/usr/sbin:/usr/bin:/sbin:/bin")
        .args(command)
        .stdin(Stdio::null());
    nsenter
}

/// Removes the cgroups that a machine had: innermost first. Where that fails they stay, empty.
fn remove_cgroup(work: &Path, name: &str) {
    fn remove(folder: &Path) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove(&entry.path());
            }
        }
        let _ = fs::remove_dir(folder);
    }
    let mounted = work.join("cgroup");
    let flags = rustix::mount::MountFlags::empty();
    if rustix::mount::mount("cgroup2", &mounted, "cgroup2", flags, None).is_ok() {
        remove(&mounted.join(name));
        let _ = rustix::mount::unmount(&mounted, rustix::mount::UnmountFlags::empty());
    }
}
