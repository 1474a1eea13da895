//! The `image-cri-shim` binary under test, as a process of its own.

use parking_lot::Mutex;
use std::fs;
use std::future::ready;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::cri_client::CriClient;
use crate::process::{Process, collect};
use crate::wait;

/// What a shim needs to start, beside its config.
#[derive(Clone, Debug)]
pub struct Options {
    /// The binary: `env!("CARGO_BIN_EXE_image-cri-shim")` in a test.
    pub binary: PathBuf,
    /// The socket of the runtime, for the config's `cri`.
    pub cri: PathBuf,
    /// Arguments after `-f FILE`.
    pub args: Vec<String>,
    /// Variables of its environment, which has nothing but PATH otherwise.
    pub env: Vec<(String, String)>,
    /// Whether nobody reads what it writes to stderr, until [`Shim::read_stderr`].
    pub unread_stderr: bool,
}

impl Options {
    /// The binary in front of a runtime's socket, without more arguments or variables.
    pub fn new(binary: impl Into<PathBuf>, cri: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            cri: cri.into(),
            args: Vec::new(),
            env: Vec::new(),
            unread_stderr: false,
        }
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With nobody who reads its stderr: the pipe is full after some lines.
    #[must_use]
    pub fn unread_stderr(mut self) -> Self {
        self.unread_stderr = true;
        self
    }

    /// With another argument after `-f FILE`.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }
}

/// A running shim in a directory of its own. Dropping it kills it and deletes the directory.
pub struct Shim {
    options: Options,
    /// What [`Options::binary`] was at first: a test may put something else there.
    program: PathBuf,
    process: Option<Process>,
    client: CriClient,
    log: Log,
    /// Its stderr, while nobody reads it.
    unread: Option<ChildStderr>,
    /// Last, so that the process is gone when the directory goes.
    dir: TempDir,
}

/// The lines of stdout and stderr, of every start of one [`Shim`].
type Log = Arc<Mutex<Vec<String>>>;

impl Shim {
    /// Writes the config, starts the binary, and returns when its socket answers a call.
    ///
    /// `shim`, `cri`, `image` (the state directory) and `metricsAddress` (a free port) are added to
    /// the config, each unless `config_yaml` has it at the start of a line.
    pub async fn start(config_yaml: &str, options: Options) -> Result<Self> {
        let mut shim = Self::prepare(config_yaml, options)?;
        shim.start_again().await?;
        Ok(shim)
    }

    /// Writes the config and starts nothing yet.
    pub fn prepare(config_yaml: &str, options: Options) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("testkit-shim-").tempdir()?;
        let shim = Self {
            client: CriClient::new(dir.path().join("shim.sock")),
            program: fs::canonicalize(&options.binary).context("looking for the shim's binary")?,
            options,
            process: None,
            log: Log::default(),
            unread: None,
            dir,
        };
        shim.write_config(config_yaml)?;
        Ok(shim)
    }

    /// Starts the binary and returns when its socket answers a call, with any status.
    pub async fn start_again(&mut self) -> Result<()> {
        self.spawn()?;
        let process = self.process.as_mut().context("just spawned")?;
        // Not one with a connection of old: the socket itself must be there.
        let fresh = CriClient::new(self.dir.path().join("shim.sock"));
        let (client, log) = (&fresh, &self.log);
        let answer = wait::within(wait::TIMEOUT, || {
            let ended = process.ended();
            async move {
                if let Some(status) = ended {
                    return Some(Err(status));
                }
                match client.version().await {
                    Ok(_) => Some(Ok(())),
                    // An answer of the shim, whatever the runtime's state.
                    Err(error) if error.code().is_some() => Some(Ok(())),
                    Err(_) => None,
                }
            }
        });
        match answer.await {
            Some(Ok(())) => Ok(()),
            Some(Err(status)) => {
                // The last lines of its output may still be in the pipe.
                let lines = || ready((!log.lock().is_empty()).then_some(()));
                wait::within(Duration::from_secs(5), lines).await;
                self.process = None;
                bail!("image-cri-shim ended with {status}:\n{}", self.log());
            }
            None => bail!("image-cri-shim does not answer:\n{}", self.log()),
        }
    }

    /// Starts the binary and does not wait for anything.
    pub fn spawn(&mut self) -> Result<()> {
        if self.process.is_some() {
            return Ok(());
        }
        let (config, options) = (self.config_file(), &self.options);
        let mut process = Process::spawn(&options.binary, |command| {
            command.arg("-f").arg(config).args(&options.args);
            command.envs(options.env.iter().cloned());
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        })?;
        let (stdout, stderr) = process.outputs();
        if let Some(stdout) = stdout {
            collect(stdout, Arc::clone(&self.log));
        }
        self.unread = stderr;
        if !self.options.unread_stderr {
            self.read_stderr();
        }
        self.process = Some(process);
        Ok(())
    }

    /// Reads its stderr from now on.
    pub fn read_stderr(&mut self) {
        if let Some(stderr) = self.unread.take() {
            collect(stderr, Arc::clone(&self.log));
        }
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("shim.sock")
    }

    /// Its config file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("image-cri-shim.yaml")
    }

    /// The directory for its state.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The directory that all of it is in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A CRI client of it.
    #[must_use]
    pub fn client(&self) -> CriClient {
        self.client.clone()
    }

    /// What `status --json` shows of it.
    pub async fn status(&self) -> Result<Value> {
        let mut command = tokio::process::Command::new(&self.program);
        command.arg("-f").arg(self.config_file());
        let output = command.args(["status", "--json"]).output().await?;
        if !output.status.success() {
            bail!("`status --json` failed: {output:?}\n{}", self.log());
        }
        let status = serde_json::from_slice(&output.stdout);
        status.with_context(|| format!("`status --json` gave {output:?}"))
    }

    /// Replaces the config, in one step as an editor does, with the same additions as at the start.
    pub fn write_config(&self, config_yaml: &str) -> Result<()> {
        use std::io::Write;
        let dir = self.dir.path().display();
        let cri = self.options.cri.display();
        let mut config = config_yaml.trim_end().to_owned() + "\n";
        for (field, value) in [
            ("shim", format!("{dir}/shim.sock")),
            ("cri", format!("{cri}")),
            ("image", format!("{dir}/state")),
            ("metricsAddress", "127.0.0.1:0".to_owned()),
        ] {
            let prefix = format!("{field}:");
            if !config.lines().any(|line| line.starts_with(&prefix)) {
                config.push_str(&format!("{field}: {value}\n"));
            }
        }
        let new = self.dir.path().join(".image-cri-shim.yaml.new");
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(config.as_bytes())?;
        fs::rename(&new, self.config_file()).context("replacing the shim's config")
    }

    /// All lines that it has written to stdout and stderr so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().join("\n")
    }

    /// The lines that contain `part`.
    #[must_use]
    pub fn log_lines(&self, part: &str) -> Vec<String> {
        let lines = self.log.lock();
        lines
            .iter()
            .filter(|line| line.contains(part))
            .cloned()
            .collect()
    }

    /// Waits for a line that contains `part` and gives it.
    ///
    /// # Panics
    /// When there is none in time; the log is in the message.
    pub async fn wait_for_log(&self, part: &str) -> String {
        match self.find_log(part, wait::TIMEOUT).await {
            Some(line) => line,
            None => panic!("no log line with {part:?} in:\n{}", self.log()),
        }
    }

    /// The first line that contains `part`, waited for at most `timeout`: lines come through a pipe,
    /// and may be a little later than the answer that they go with.
    pub async fn find_log(&self, part: &str, timeout: Duration) -> Option<String> {
        wait::within(timeout, || ready(self.log_lines(part).into_iter().next())).await
    }

    /// Gives the lines so far and forgets them; none is lost in between.
    #[must_use]
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock())
    }

    /// Forgets the log so far.
    pub fn clear_log(&self) {
        self.log.lock().clear();
    }

    /// SIGTERM, and waits for the end.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        let mut process = self.process.take().context("the shim is not running")?;
        process.terminate().await
    }

    /// Waits for an end that was brought about otherwise.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        let mut process = self.process.take().context("the shim is not running")?;
        process.end().await
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the shim is not running")?;
        process.kill()
    }

    /// Sends a signal, such as HUP.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        let process = self.process.as_mut().context("the shim is not running")?;
        process.signal(signal)
    }

    /// Terminates it and starts it again, with the same config file, state and socket.
    pub async fn restart(&mut self) -> Result<()> {
        self.terminate().await?;
        self.start_again().await
    }

    /// Lets the program at [`Options::binary`] take over from the running process, without a lost call. What is
    /// asked of the shim from now on is asked of the new process.
    ///
    /// Processes whose parent has ended become children of this one from now on.
    pub async fn hand_over(&mut self) -> Result<()> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let config = self.config_file();
        let mut command = tokio::process::Command::new(&self.options.binary);
        command.arg("handover").arg("--file").arg(config);
        command.kill_on_drop(true).stdin(Stdio::null());
        let output = command.output().await?;
        let text = String::from_utf8_lossy(&output.stdout);
        let pid = text.split("serves as process ").nth(1);
        let pid = pid.and_then(|rest| rest.split(';').next()?.trim().parse().ok());
        let (Some(pid), true) = (pid, output.status.success()) else {
            bail!("the hand-over failed: {output:?}\n{}", self.log());
        };
        let process = self.process.as_mut().context("the shim is not running")?;
        process.succeeded_by(pid)
    }

    /// Whether the process is there.
    pub fn is_running(&mut self) -> bool {
        self.process
            .as_mut()
            .is_some_and(|process| process.ended().is_none())
    }

    /// Its process ID.
    pub fn pid(&self) -> Result<u32> {
        let process = self.process.as_ref().context("the shim is not running")?;
        Ok(process.pid())
    }

    /// How many file descriptors it has open.
    pub fn open_fds(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.pid()?))?.count())
    }

    /// Its resident memory in KiB (`VmRSS`).
    pub fn rss_kib(&self) -> Result<u64> {
        rss_kib(self.pid()?)
    }

    /// The CPU time that it has used, user and system, all threads; in steps of a clock tick (10 ms).
    pub fn cpu_time(&self) -> Result<Duration> {
        cpu_time(self.pid()?)
    }
}

/// Resident memory of a process in KiB (`VmRSS`).
pub fn rss_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("no VmRSS in /proc/<pid>/status")?.parse()?)
}

/// The CPU time of a process, user and system, all threads; in steps of a clock tick (10 ms).
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in parentheses and may hold anything; see proc(5).
    let (_, fields) = stat.rsplit_once(')').context("/proc/<pid>/stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |index: usize| -> Result<u64> {
        let field = fields.get(index).context("/proc/<pid>/stat is short")?;
        Ok(field.parse()?)
    };
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_millis(
        (ticks(11)? + ticks(12)?) * 1000 / per_second,
    ))
}
