//! Child processes that never outlive the test that started them.

use parking_lot::Mutex;
use std::fs::{self, File};
use std::future::ready;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::wait;

/// How long a process gets to end by itself after SIGTERM.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// A child process. Dropping it kills it and waits for its end.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    /// The process that has taken over from it.
    successor: Option<Successor>,
}

/// A process that a child has started, and that became ours when that child ended.
#[derive(Debug)]
struct Successor {
    pid: Pid,
    ended: Option<ExitStatus>,
    /// Those before it; each ends with its last call.
    before: Vec<Pid>,
}

impl Process {
    /// Starts `program` with what `configure` adds to the command.
    ///
    /// The environment is empty but for `PATH`: a proxy or a `REGISTRY_…` variable of the developer's
    /// shell must not reach a process under test.
    pub(crate) fn spawn(program: &Path, configure: impl FnOnce(&mut Command)) -> Result<Self> {
        let name = program
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let mut command = match find("setpriv") {
            // The kernel ends the child when this process ends, even by SIGKILL.
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.env_clear().stdin(Stdio::null());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        configure(&mut command);
        let child = spawn_on_lasting_thread(command)
            .with_context(|| format!("starting {}", program.display()))?;
        Ok(Self {
            name,
            child,
            successor: None,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        match &self.successor {
            Some(successor) => u32::try_from(successor.pid.as_raw_nonzero().get()).unwrap_or(0),
            None => self.child.id(),
        }
    }

    /// Another process, which it has started, has taken over from it. What is asked of it is that one's from now on.
    pub(crate) fn succeeded_by(&mut self, pid: u32) -> Result<()> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.context("a process ID that is none")?;
        let mut before = Vec::new();
        if let Some(last) = self.successor.take() {
            before = last.before;
            before.push(last.pid);
        }
        // Those that have ended meanwhile.
        before.retain(|pid| {
            !matches!(
                waitpid(Some(*pid), WaitOptions::NOHANG),
                Ok(Some(_)) | Err(_)
            )
        });
        let _ = self.child.try_wait();
        self.successor = Some(Successor {
            pid,
            ended: None,
            before,
        });
        Ok(())
    }

    /// What is left to read of its stdout and stderr, where they are pipes; once.
    pub(crate) fn outputs(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdout.take(), self.child.stderr.take())
    }

    /// Its stdin and stdout, where both are pipes; once.
    pub(crate) fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        Some((self.child.stdin.take()?, self.child.stdout.take()?))
    }

    /// The exit status, if the process has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        match &mut self.successor {
            Some(successor) => successor.ended(WaitOptions::NOHANG),
            None => self.child.try_wait().ok().flatten(),
        }
    }

    /// SIGTERM, then waits for the end.
    pub(crate) async fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.end().await
    }

    /// Waits for the end, at most [`END_TIMEOUT`].
    pub(crate) async fn end(&mut self) -> Result<ExitStatus> {
        match wait::within(END_TIMEOUT, || ready(self.ended())).await {
            Some(status) => Ok(status),
            None => bail!(
                "{} did not end within {END_TIMEOUT:?} of SIGTERM",
                self.name
            ),
        }
    }

    /// SIGKILL, and waits for the end, which is at once.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(successor) = &mut self.successor {
            for pid in successor.before.drain(..) {
                let _ = kill_process(pid, Signal::KILL);
                let _ = waitpid(Some(pid), WaitOptions::empty());
            }
            if successor.ended(WaitOptions::NOHANG).is_none() {
                kill_process(successor.pid, Signal::KILL)?;
                successor.ended(WaitOptions::empty());
            }
            let _ = self.child.kill();
            self.child.wait()?;
            return Ok(());
        }
        let killed = self.child.kill();
        self.child.wait()?;
        killed.with_context(|| format!("killing {}", self.name))
    }

    /// Sends a signal; not an error when the process has ended already.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        // As long as the child isn't reaped, its process ID can't be another process's.
        if self.ended().is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        let pid = pid.context("a process ID that is none")?;
        kill_process(pid, signal).with_context(|| format!("sending {signal:?} to {}", self.name))
    }
}

impl Successor {
    /// Its exit status, once it has ended.
    fn ended(&mut self, how: WaitOptions) -> Option<ExitStatus> {
        if self.ended.is_none()
            && let Ok(Some((_, status))) = waitpid(Some(self.pid), how)
        {
            self.ended = Some(ExitStatus::from_raw(status.as_raw()));
        }
        self.ended
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Where `program` is found on PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Debian keeps runc in sbin, which is not on every user's PATH.
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/bin".into()])
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// The last lines of a log file, for an error message.
pub(crate) fn tail(log: &Path) -> String {
    const LINES: usize = 15;
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Sends the command's stdout and stderr to the end of `log`.
pub(crate) fn log_to(command: &mut Command, log: &Path) -> Result<()> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("opening {}", log.display()))?;
    command.stderr(file.try_clone()?).stdout(file);
    Ok(())
}

type Job = (Command, mpsc::Sender<io::Result<Child>>);

/// The parent-death signal comes when the *thread* that started the child ends. A test's thread ends
/// with the test, which may be before a process that it shares with others; this one never does.
fn spawn_on_lasting_thread(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, inbox) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                let _ = reply.send(command.spawn());
            }
        });
        jobs
    });
    let (reply, child) = mpsc::channel();
    spawner
        .send((command, reply))
        .ok()
        .context("spawner ended")?;
    Ok(child.recv().context("spawner ended")??)
}

/// Adds the lines of an output to `log`, on a thread of its own, until the output ends.
pub(crate) fn collect(output: impl Read + Send + 'static, log: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            log.lock().push(line);
        }
    });
}
