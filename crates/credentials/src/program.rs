//! Running a credential program: bounded in time and output, and with nothing of what it says in any
//! error, because what it says are credentials.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use secrecy::SecretString;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// More than any credential.
const MAX_OUTPUT: u64 = 1024 * 1024;

/// Why a program gave no answer.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// It isn't there, or may not be run.
    #[error("cannot run {program}: {error}")]
    Start {
        /// Its name.
        program: String,
        /// The system's reason.
        error: io::Error,
    },
    /// It ended badly. What it wrote is not repeated.
    #[error("{program} failed ({status})")]
    Failed {
        /// Its name.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// Its output, for whoever knows what may be in it.
        output: SecretString,
    },
    /// It took too long, and was killed.
    #[error("{program} gave no answer within {timeout:?}")]
    Timeout {
        /// Its name.
        program: String,
        /// How long it had.
        timeout: Duration,
    },
    /// It wrote more than 1 MiB, or no UTF-8.
    #[error("{program} gave an answer that is too long or no text")]
    Output {
        /// Its name.
        program: String,
    },
}

/// What to run.
pub(crate) struct Program<'a> {
    pub(crate) path: &'a Path,
    pub(crate) args: &'a [String],
    /// Beside our own environment.
    pub(crate) env: &'a [(String, String)],
    pub(crate) input: &'a str,
    pub(crate) timeout: Duration,
}

impl Program<'_> {
    /// Runs it and gives what it wrote to standard output.
    pub(crate) async fn run(&self) -> Result<String, ProgramError> {
        let program = || {
            let name = self.path.file_name().unwrap_or(self.path.as_os_str());
            name.to_string_lossy().into_owned()
        };
        let answer = tokio::time::timeout(self.timeout, self.talk()).await;
        let (status, output) = match answer {
            Err(_) => {
                return Err(ProgramError::Timeout {
                    program: program(),
                    timeout: self.timeout,
                });
            }
            Ok(Err(error)) => {
                return Err(ProgramError::Start {
                    program: program(),
                    error,
                });
            }
            Ok(Ok(ended)) => ended,
        };
        let text = if output.len() as u64 > MAX_OUTPUT {
            None
        } else {
            String::from_utf8(output).ok()
        };
        let output = text.ok_or_else(|| ProgramError::Output { program: program() })?;
        if !status.success() {
            return Err(ProgramError::Failed {
                program: program(),
                status,
                output: output.into(),
            });
        }
        Ok(output)
    }

    async fn talk(&self) -> io::Result<(std::process::ExitStatus, Vec<u8>)> {
        let mut child = Command::new(self.path)
            .args(self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // One that hangs goes when nobody waits for it any more.
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let write = async {
            if let Some(mut stdin) = stdin {
                // A program that doesn't read its input may still answer.
                let _ = stdin.write_all(self.input.as_bytes()).await;
            }
        };
        let read = async {
            let mut output = Vec::new();
            if let Some(stdout) = stdout {
                stdout.take(MAX_OUTPUT + 1).read_to_end(&mut output).await?;
            }
            io::Result::Ok(output)
        };
        let ((), output) = tokio::join!(write, read);
        let output = output?;
        if output.len() as u64 > MAX_OUTPUT {
            child.start_kill()?;
        }
        Ok((child.wait().await?, output))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_hangs_is_given_up_and_killed() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("echo $$ > {}; exec sleep 600", pid.display());
        let run = Program {
            path: Path::new("/bin/sh"),
            args: &["-c".to_owned(), script],
            env: &[],
            input: "",
            timeout: Duration::from_millis(500),
        };
        assert!(matches!(run.run().await, Err(ProgramError::Timeout { .. })));
        let pid = std::fs::read_to_string(pid).unwrap();
        testkit::wait::until("it is gone", || async {
            let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim()));
            // Until it is reaped, it is a zombie.
            status
                .map_or(true, |status| status.contains("State:\tZ"))
                .then_some(())
        })
        .await;
    }

    #[tokio::test]
    async fn what_it_said_is_in_no_form_of_the_error() {
        for script in ["echo hunter2; exit 3", "printf '\\377hunter2'"] {
            let run = Program {
                path: Path::new("/bin/sh"),
                args: &["-c".to_owned(), script.to_owned()],
                env: &[],
                input: "",
                timeout: Duration::from_secs(60),
            };
            let error = run.run().await.unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
