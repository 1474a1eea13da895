//! Looking at something that may hang: a file system whose server is gone, a program, a socket.

use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::oneshot;

/// There was no answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Late(pub(crate) Duration);

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within {}", humantime::format_duration(self.0))
    }
}

/// What was looked at, unless it took too long.
pub(crate) type Timely<T> = Result<T, Late>;

/// Waits for `looking`, for as long as `limit`.
pub(crate) async fn within<T>(limit: Duration, looking: impl Future<Output = T>) -> Timely<T> {
    let looked = tokio::time::timeout(limit, looking).await;
    looked.map_err(|_| Late(limit))
}

/// Looks on a thread of its own. One that hangs is left behind: the process ends without it.
pub(crate) async fn on_thread<T: Send + 'static>(
    limit: Duration,
    look: impl FnOnce() -> T + Send + 'static,
) -> Timely<T> {
    let (sender, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name("look".to_owned());
    let started = thread.spawn(move || {
        // Nobody waits any more where this fails.
        let _ = sender.send(look());
    });
    match (started, within(limit, result).await) {
        (Ok(_), Ok(Ok(found))) => Ok(found),
        _ => Err(Late(limit)),
    }
}

/// Output of a program that is longer is cut off.
const MAX_OUTPUT: u64 = 256 * 1024;

/// What a program said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) succeeded: bool,
    pub(crate) stdout: String,
}

/// Runs a program to its end; `None` where it is not there. One that takes longer than `limit` is killed. What it says
/// on standard error is for nobody: it may quote anything.
pub(crate) async fn run(
    program: &str,
    arguments: &[&str],
    limit: Duration,
) -> Timely<Option<Said>> {
    within(limit, async {
        let mut child = Command::new(program)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .ok()?;
        let mut bytes = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            // What was read before a failure counts. The rest is not waited for: the pipe is closed.
            let _ = stdout.take(MAX_OUTPUT).read_to_end(&mut bytes).await;
        }
        let status = child.wait().await.ok()?;
        Some(Said {
            succeeded: status.success(),
            stdout: String::from_utf8_lossy(&bytes).into_owned(),
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn what_hangs_is_left_behind() {
        let limit = Duration::from_millis(50);
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let started = Instant::now();
        let late = on_thread(limit, move || ended.recv()).await;
        assert_eq!(late.err(), Some(Late(limit)));
        assert!(started.elapsed() < Duration::from_secs(20));
        drop(end);
        assert_eq!(on_thread(Duration::from_secs(20), || 7).await, Ok(7));
        assert_eq!(
            within(limit, std::future::pending::<()>()).await,
            Err(Late(limit))
        );
        assert_eq!(Late(limit).to_string(), "no answer within 50ms");
    }

    #[tokio::test]
    async fn programs() {
        let limit = Duration::from_secs(60);
        assert_eq!(run("/nonexistent/program", &[], limit).await, Ok(None));
        let said = run("sh", &["-c", "echo here; echo secret >&2; exit 3"], limit);
        let expected = Said {
            succeeded: false,
            stdout: "here\n".to_owned(),
        };
        assert_eq!(said.await, Ok(Some(expected)));
        let short = Duration::from_millis(50);
        let hangs = run("sleep", &["600"], short).await;
        assert_eq!(hangs, Err(Late(short)));
    }
}
