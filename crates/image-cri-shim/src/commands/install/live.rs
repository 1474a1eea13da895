//! The running node: its services, and whether kubelet works.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use installer::payload::CONFIG;
use installer::{Change, KubeletService, LINK, Root};
use telemetry::report::Status;

use super::kubelet::{healthz, is_connected_to};
use crate::commands::daemon::{Daemon, DaemonError, ask, one_thread};
use crate::commands::terminal;
use crate::requests::{HandOverAnswer, HandOverRequest};

/// The shim's unit.
const SERVICE: &str = "image-cri-shim.service";
/// The sockets behind [`LINK`].
const SHIM: &str = "/run/image-cri-shim/shim.sock";
const BYPASS: &str = "/run/image-cri-shim/bypass.sock";
/// What the shim and the script that turns the link note beside them.
const NOTES: [&str; 2] = [
    "/run/image-cri-shim/no-bypass",
    "/run/image-cri-shim/bypass.state",
];
/// Units of ours, in the order in which they stop.
const UNITS: [&str; 4] = [
    SERVICE,
    "image-cri-shim-link.service",
    "image-cri-shim-bypass.socket",
    "image-cri-shim-bypass.service",
];
/// Where the shim keeps what it needs after a restart.
const STATE: &str = "/var/lib/image-cri-shim";
/// What it keeps there, or in the directory that the config names (`image:`); and what it writes beside each before that
/// takes its place.
const STATE_FILES: [&str; 4] = [
    "aliases",
    "aliases.new",
    "last-good.yaml",
    ".last-good.yaml.new",
];
/// What the shim writes beside the config before that takes its place.
const CONFIG_DRAFT: &str = ".image-cri-shim.yaml.new";
/// How often what is waited for is looked at.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// How long a client may stay connected before it counts as kubelet: others call once and go.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long kubelet may take to come, where it should be connected: both may just have been started.
const LED_TIMEOUT: Duration = Duration::from_secs(20);

/// Services and processes of the machine itself.
pub(super) struct Live<'a> {
    root: &'a Root,
    /// What starts kubelet; `None` where nothing does any more.
    service: Option<&'a KubeletService>,
    timeout: Duration,
    has_restarted_kubelet: Cell<bool>,
}

impl<'a> Live<'a> {
    pub(super) fn new(
        root: &'a Root,
        service: Option<&'a KubeletService>,
        timeout: Duration,
    ) -> Self {
        Self {
            root,
            service,
            timeout,
            has_restarted_kubelet: Cell::new(false),
        }
    }

    /// What starts kubelet.
    pub(super) fn service(&self) -> Option<&KubeletService> {
        self.service
    }

    /// Starts the bypass and the shim, and waits until it answers. Where a shim runs whose files have changed, now or in a run
    /// that did not come this far, the new program takes over from it without a lost call; one that knows no hand-over
    /// is started anew. `files` are all of the install, changed or not.
    pub(super) fn start_the_shim(
        &self,
        files: &[PathBuf],
        changes: &[Change],
    ) -> anyhow::Result<()> {
        self.relabel(files);
        self.reload_units()?;
        run("systemd-tmpfiles", &["--create", "image-cri-shim.conf"])?;
        run("systemctl", &["start", "image-cri-shim-bypass.socket"])?;
        let deadline = Instant::now() + self.timeout;
        let is_active = self.shim_is_active();
        let ours = changes
            .iter()
            .any(|change| change.path.to_string_lossy().contains("image-cri-shim"));
        if is_active && (ours || self.runs_another_program()?) {
            self.replace_the_shim()?;
        } else {
            run("systemctl", &["start", SERVICE])?;
        }
        let mut restart_needed = Vec::new();
        // Right after a hand-over on a busy node one question may come too early.
        self.wait(deadline, "the shim to answer", || {
            restart_needed = self.status()?.restart_needed;
            Ok(())
        })
        .context("the shim does not serve, so kubelet goes past it; `journalctl -u image-cri-shim` says why")?;
        for path in restart_needed {
            terminal::print(&format!(
                "{path} has changed, which only a restart brings into force: systemctl restart image-cri-shim\n"
            ))?;
        }
        Ok(())
    }

    fn replace_the_shim(&self) -> anyhow::Result<()> {
        let daemon = Daemon::new(Path::new(SHIM));
        let request = HandOverRequest::default();
        match one_thread()?.block_on(daemon.hand_over(&request)) {
            Ok(HandOverAnswer { pid, version, .. }) => {
                terminal::print(&format!(
                    "image-cri-shim {version} has taken over as process {pid}\n"
                ))?;
                Ok(())
            }
            // It serves on: a restart would replace a shim that works by one that does not.
            Err(DaemonError::Failed { why, .. }) => {
                bail!("the new program can't take over from the running shim: {why}")
            }
            Err(denied @ DaemonError::Denied { .. }) => Err(denied.into()),
            Err(DaemonError::NotRunning { .. } | DaemonError::NotOurs { .. }) => {
                run("systemctl", &["restart", SERVICE]).map(|_| ())
            }
        }
    }

    /// The version before, whose files stand there again, in place of whatever runs: with a hand-over where that is
    /// possible.
    pub(super) fn go_back(&self, changes: &[Change]) -> anyhow::Result<()> {
        let files: Vec<_> = changes.iter().map(|change| change.path.clone()).collect();
        if self.start_the_shim(&files, changes).is_ok() {
            return Ok(());
        }
        run("systemctl", &["restart", SERVICE])?;
        self.start_the_shim(&files, &[])
    }

    /// Whether the shim runs, as far as systemd knows.
    pub(super) fn shim_is_active(&self) -> bool {
        succeeds("systemctl", &["is-active", "--quiet", SERVICE])
    }

    /// Whether the shim that runs is another program than the one that its unit would start: what is on the disk has not
    /// taken over yet.
    pub(super) fn runs_another_program(&self) -> anyhow::Result<bool> {
        let show = |property: &str| {
            run(
                "systemctl",
                &["show", "--value", "--property", property, SERVICE],
            )
        };
        let pid = show("MainPID")?;
        // `{ path=/usr/local/bin/image-cri-shim ; argv[]=…`, of which there is one.
        let start = show("ExecStart")?;
        let program = start
            .split_once("path=")
            .and_then(|(_, rest)| rest.split_once(" ;"))
            .map(|(path, _)| Path::new(path))
            // Somebody's wrapper says nothing about the program inside.
            .filter(|path| path.file_name() == Some(OsStr::new("image-cri-shim")));
        let Some(program) = program.filter(|_| pid != "0") else {
            return Ok(false);
        };
        // By this name the kernel finds it also where another file has taken its place.
        let running = PathBuf::from(format!("/proc/{pid}/exe"));
        let is_same = is_same_content(&running, program).with_context(|| {
            format!(
                "cannot compare the program that runs as process {pid} with {}",
                program.display()
            )
        })?;
        Ok(!is_same)
    }

    /// Restarts what starts kubelet, and waits until kubelet works, as [`Self::kubelet_works`] does.
    pub(super) fn restart_kubelet(&self, through_the_shim: bool) -> anyhow::Result<()> {
        let Some(KubeletService { unit, .. }) = self.service else {
            bail!("no unit that starts kubelet is here, so none can be restarted");
        };
        let deadline = Instant::now() + self.timeout;
        let calls = self.calls_before(through_the_shim)?;
        let before = start_of(unit)?;
        self.has_restarted_kubelet.set(true);
        // Without waiting for the job: k3s's ends when k3s is ready, and has no end where k3s never is.
        run("systemctl", &["--no-block", "restart", unit])?;
        self.wait(deadline, "kubelet to start anew", || {
            ensure!(start_of(unit)? != before, "it has not yet");
            Ok(())
        })?;
        self.wait_for_kubelet(deadline, calls)
    }

    /// Waits until kubelet says that it is well, and with `through_the_shim` until it has made an image call there.
    /// Only this node is asked: an API server that can't be reached says nothing about it.
    pub(super) fn kubelet_works(&self, through_the_shim: bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + self.timeout;
        let calls = self.calls_before(through_the_shim)?;
        self.wait_for_kubelet(deadline, calls)
    }

    fn calls_before(&self, through_the_shim: bool) -> anyhow::Result<Option<u64>> {
        through_the_shim.then(|| self.image_calls()).transpose()
    }

    /// `calls`: how many the shim had seen before; `None` where kubelet does not go through it.
    fn wait_for_kubelet(&self, deadline: Instant, calls: Option<u64>) -> anyhow::Result<()> {
        // Where it is told to say nothing, its image call is what is left.
        if let Some(address) = self.service.and_then(|service| service.healthz) {
            self.wait(deadline, "kubelet to be well", || healthz(address))?;
        }
        let Some(before) = calls else {
            return Ok(());
        };
        self.wait(deadline, "an image call of kubelet at the shim", || {
            let now = self.image_calls()?;
            ensure!(now > before, "none came");
            Ok(())
        })
    }

    /// Whether kubelet was restarted here.
    pub(super) fn has_restarted_kubelet(&self) -> bool {
        self.has_restarted_kubelet.get()
    }

    /// Whether somebody stays connected to the shim or its bypass: kubelet keeps its connection, others call
    /// once and go.
    pub(super) fn kubelet_dials_the_shim(&self) -> anyhow::Result<bool> {
        let started = Instant::now();
        while is_connected_to([SHIM, BYPASS])? {
            if started.elapsed() > SETTLE_TIMEOUT {
                return Ok(true);
            }
            pause();
        }
        Ok(false)
    }

    /// The same, where it should be so, with some patience.
    pub(super) fn kubelet_comes_to_dial_the_shim(&self) -> anyhow::Result<bool> {
        let started = Instant::now();
        while !self.kubelet_dials_the_shim()? {
            if started.elapsed() > LED_TIMEOUT {
                return Ok(false);
            }
            pause();
        }
        Ok(true)
    }

    /// Stops everything of ours and takes the link away.
    pub(super) fn stop_the_shim(&self) -> anyhow::Result<()> {
        for unit in UNITS {
            // A unit that is not there is stopped.
            if succeeds("systemctl", &["cat", "--quiet", unit]) {
                run("systemctl", &["stop", unit])?;
                // Nothing to see of it any more among failed units; where it has not failed, that fails.
                succeeds("systemctl", &["reset-failed", unit]);
            }
        }
        for path in [LINK, SHIM, BYPASS].into_iter().chain(NOTES) {
            remove_file(Path::new(path))?;
        }
        // Not empty is somebody else's.
        let _ = fs::remove_dir("/run/image-cri-shim");
        Ok(())
    }

    /// Starts the unit that stands in the place of the shim's again, and waits until it listens where kubelet dials.
    pub(super) fn start_the_predecessor(&self) -> anyhow::Result<()> {
        run("systemctl", &["start", SERVICE])
            .map(|_| ())
            .and_then(|()| {
                let deadline = Instant::now() + self.timeout;
                self.wait(deadline, "it to listen", || {
                    UnixStream::connect(LINK)
                        .map(|_| ())
                        .with_context(|| format!("nobody answers at {LINK}"))
                })
            })
            .with_context(|| {
                format!("the unit {SERVICE} of before stands there again, but does not serve kubelet; `journalctl -u image-cri-shim` says why. When it does, run uninstall again")
            })
    }

    /// Lets systemd read its files again.
    pub(super) fn reload_units(&self) -> anyhow::Result<()> {
        run("systemctl", &["daemon-reload"]).map(|_| ())
    }

    /// Removes what the shim itself has kept on this node, which may hold credentials. Other files in its directories are
    /// somebody else's: the cache's, the predecessor's.
    pub(super) fn remove_state(&self) -> anyhow::Result<()> {
        // Where the config can't be read, there is nothing but the directory of the unit to look in.
        let config = self.root.read(CONFIG).ok().flatten().unwrap_or_default();
        let told = installer::top_level(&config, "image").map(PathBuf::from);
        let told = told.filter(|folder| folder.is_absolute());
        for folder in told.iter().map(PathBuf::as_path).chain([Path::new(STATE)]) {
            let folder = self.root.resolve(folder)?;
            for name in STATE_FILES {
                remove_file(&folder.join(name))?;
            }
            if folder != Path::new(STATE) {
                // Not empty is somebody else's.
                let _ = fs::remove_dir(&folder);
            }
        }
        let config = self.root.resolve(CONFIG)?;
        remove_file(&config.with_file_name(CONFIG_DRAFT))
    }

    /// Removes the directory of the unit, unless it was somebody else's, too: then it is not empty.
    pub(super) fn remove_state_folder(&self) -> anyhow::Result<()> {
        let _ = fs::remove_dir(self.root.resolve(STATE)?);
        Ok(())
    }

    /// Image calls that the shim has seen since it started.
    fn image_calls(&self) -> anyhow::Result<u64> {
        Ok(self.status()?.image_calls)
    }

    fn status(&self) -> anyhow::Result<Status> {
        let daemon = Daemon::new(Path::new(SHIM));
        one_thread()?.block_on(ask(daemon.status(0)))
    }

    /// SELinux labels of our files, also of those that a killed run has written; where that fails, it is said, since a
    /// service may fail by it.
    fn relabel(&self, files: &[PathBuf]) {
        if !succeeds("selinuxenabled", &[]) {
            return;
        }
        for path in files {
            let path = path.display().to_string();
            if let Err(error) = run("restorecon", &["-F", &path]) {
                terminal::say(&format!("{error:#}; SELinux may keep services from {path}"));
            }
        }
    }

    fn wait(
        &self,
        deadline: Instant,
        what: &str,
        mut check: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        loop {
            match check() {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error)
                        .with_context(|| format!("waited {:?} for {what}", self.timeout));
                }
                Err(_) => pause(),
            }
        }
    }
}

/// One that is not there is removed.
fn remove_file(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Whether two files hold the same bytes.
fn is_same_content(one: &Path, other: &Path) -> io::Result<bool> {
    let (first, second) = (fs::metadata(one)?, fs::metadata(other)?);
    if (first.dev(), first.ino()) == (second.dev(), second.ino()) {
        return Ok(true);
    }
    Ok(first.len() == second.len() && fs::read(one)? == fs::read(other)?)
}

/// Changes with each start of a unit.
fn start_of(unit: &str) -> anyhow::Result<String> {
    let show = ["show", "--value", "--property=InvocationID", unit];
    run("systemctl", &show)
}

/// Runs a program to its end, and gives what it printed.
fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let shown = format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run `{shown}`"))?;
    if !output.status.success() {
        bail!(
            "`{shown}` failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .output()
        .is_ok_and(|output| output.status.success())
}

// A command for people on a thread of its own: nothing else waits here.
#[allow(clippy::disallowed_methods)]
fn pause() {
    std::thread::sleep(CHECK_INTERVAL);
}
