//! A shim whose program can be replaced, the processes that take over from it, and a stand-in for systemd.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use cri::upstream::Upstream;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, waitpid};
use tempfile::TempDir;
use testkit::fake_runtime::FakeRuntime;
use testkit::shim::{Options, Shim};
use testkit::wait::until;
use tokio::process::Command;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_image-cri-shim");

/// How long systemd's stand-in waits for what it is told.
const NEWS_TIMEOUT: Duration = Duration::from_secs(60);

/// A shim in front of a fake runtime, started by a path that other programs can be put at.
pub(crate) struct World {
    pub(crate) shim: Shim,
    pub(crate) runtime: FakeRuntime,
    pub(crate) program: PathBuf,
    pub(crate) systemd: Option<Systemd>,
    _dir: TempDir,
}

impl World {
    /// Without a systemd.
    pub(crate) async fn start(config: &str) -> Self {
        Self::with(config, |options| options, None).await
    }

    /// With a stand-in for systemd.
    pub(crate) async fn under_systemd(config: &str) -> Self {
        let systemd = Systemd::start();
        let socket = systemd.path.to_str().unwrap().to_owned();
        let with = |options: Options| {
            options
                .env("NOTIFY_SOCKET", &socket)
                .env("WATCHDOG_USEC", "400000")
        };
        let world = Self::with(config, with, Some(systemd)).await;
        let systemd = world.systemd.as_ref().unwrap();
        until("it to be ready", async || {
            systemd.next_is("READY=1").then_some(())
        })
        .await;
        world
    }

    /// With options of the test's own.
    pub(crate) async fn with(
        config: &str,
        with: impl FnOnce(Options) -> Options,
        systemd: Option<Systemd>,
    ) -> Self {
        // Processes whose parent has ended become ours, so that we hear how they end.
        set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        let runtime = FakeRuntime::start().await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("image-cri-shim");
        symlink(BINARY, &program).unwrap();
        let options = with(Options::new(&program, runtime.socket()));
        let shim = Shim::start(config, options).await.unwrap();
        Self {
            shim,
            runtime,
            program,
            systemd,
            _dir: dir,
        }
    }

    /// Puts a link to another program in the shim's place, in one step.
    pub(crate) fn replace_program(&self, with: &Path) {
        let new = self.program.with_extension("new");
        symlink(with, &new).unwrap();
        fs::rename(&new, &self.program).unwrap();
    }

    /// Puts a script in the shim's place, in one step.
    pub(crate) fn replace_by_script(&self, text: &str) {
        let new = self.program.with_extension("new");
        fs::write(&new, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&new, &self.program).unwrap();
    }

    /// Runs `image-cri-shim handover` to its end.
    pub(crate) async fn ask(&self) -> Output {
        let asked = Command::new(BINARY)
            .arg("-f")
            .arg(self.shim.config_file())
            .arg("handover")
            .kill_on_drop(true)
            .output();
        asked.await.unwrap()
    }

    /// A hand-over that succeeds; gives the new process.
    pub(crate) async fn hand_over(&self) -> Generation {
        let output = self.ask().await;
        assert!(output.status.success(), "{output:?}\n{}", self.shim.log());
        let text = String::from_utf8(output.stdout).unwrap();
        let pid = text.split("as process ").nth(1).unwrap();
        Generation::of(pid.split(';').next().unwrap().parse().unwrap())
    }

    /// A hand-over that fails; gives what was said.
    pub(crate) async fn fail(&self) -> String {
        let output = self.ask().await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}\n{}", self.shim.log());
        said
    }

    /// A client that keeps its connection, as kubelet does: it connects anew when it is asked to (GOAWAY), and sends
    /// again what was certainly not taken.
    pub(crate) fn client(&self) -> Upstream {
        Upstream::new(self.shim.socket())
    }

    /// The process that answers on the socket.
    pub(crate) async fn serving(&self) -> String {
        let status = self.shim.status().await.unwrap();
        status["started_at"].as_str().unwrap().to_owned()
    }
}

/// A process that has taken over. Dropping it kills it.
pub(crate) struct Generation {
    pub(crate) pid: Pid,
    has_ended: bool,
}

impl Generation {
    pub(crate) fn of(pid: u32) -> Self {
        Self {
            pid: Pid::from_raw(pid.try_into().unwrap()).unwrap(),
            has_ended: false,
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    /// Waits for its end; gives its exit code, where no signal has ended it.
    pub(crate) async fn end(&mut self) -> Option<i32> {
        let pid = self.pid;
        let status = until("the process to end", async || {
            waitpid(Some(pid), WaitOptions::NOHANG).unwrap()
        })
        .await;
        self.has_ended = true;
        status.1.exit_status()
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if !self.has_ended {
            let _ = kill_process(self.pid, Signal::KILL);
            let _ = waitpid(Some(self.pid), WaitOptions::empty());
        }
    }
}

/// What a shim tells systemd, heard one by one.
pub(crate) struct Systemd {
    path: PathBuf,
    socket: UnixDatagram,
    _dir: TempDir,
}

impl Systemd {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(NEWS_TIMEOUT)).unwrap();
        Self {
            path,
            socket,
            _dir: dir,
        }
    }

    /// What comes next. Blocks.
    fn next(&self) -> String {
        let mut news = [0; 256];
        // Descriptors that come with it are closed: nobody has room for them.
        let length = self.socket.recv(&mut news).unwrap();
        String::from_utf8_lossy(&news[..length]).trim().to_owned()
    }

    fn next_is(&self, wanted: &str) -> bool {
        self.next() == wanted
    }

    /// Hears on until something begins with `start`, and gives the rest of it. Blocks.
    pub(crate) fn hear(&self, start: &str) -> String {
        loop {
            if let Some(rest) = self.next().strip_prefix(start) {
                return rest.to_owned();
            }
        }
    }

    /// Hears whatever comes, from now on.
    pub(crate) fn read_on(self) {
        std::thread::spawn(move || {
            // All of it: the socket's file goes with its folder.
            let systemd = self;
            let mut news = [0; 256];
            while systemd.socket.recv(&mut news).is_ok() {}
        });
    }

    /// As [`Self::hear`], on a thread that may block; gives itself back.
    pub(crate) async fn heard(self, start: &'static str) -> (Self, String) {
        let heard = tokio::task::spawn_blocking(move || {
            let rest = self.hear(start);
            (self, rest)
        });
        heard.await.unwrap()
    }
}
