//! The cache as a process, and clients of it.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;
use testkit::wait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_image-cri-shim");

/// A cache in a directory of its own. Dropping it kills it.
pub(crate) struct CacheProcess {
    pub(crate) address: SocketAddr,
    child: Option<Child>,
    pub(crate) dir: TempDir,
}

/// An answer, as far as it came.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// All of the announced length came.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

impl CacheProcess {
    /// Starts a cache with this config beside its own section; `section` is more of that.
    pub(crate) async fn start(config: &str, section: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let dir = tempfile::Builder::new().prefix("cache-").tempdir().unwrap();
        let mut cache = Self {
            address,
            child: None,
            dir,
        };
        cache.configure(config, section);
        cache.start_again().await;
        cache
    }

    pub(crate) fn configure(&self, config: &str, section: &str) {
        // The machine's disk may be nearly full: a test must not depend on it.
        let min_free = match section.contains("minFree:") {
            true => "",
            false => "  minFree: 1Mi\n",
        };
        let text = format!(
            "{config}\nnodeCache:\n  listen: ['{}']\n  dir: {}\n  metricsAddress: 'off'\n{min_free}{section}\n",
            self.address,
            self.dir.path().join("store").display()
        );
        std::fs::write(self.file(), text).unwrap();
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("config.yaml")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub(crate) async fn start_again(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        let child = Command::new(BINARY)
            .args(["cache", "--log-format", "text", "--file"])
            .arg(self.file())
            .arg("--socket")
            .arg(self.socket())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("KUBECONFIG", "/nonexistent")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let address = self.address;
        let child = self.child.as_mut().unwrap();
        let log = self.dir.path().join("log");
        wait::until("the cache answers", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("{status}: {}", std::fs::read_to_string(&log).unwrap());
            }
            async move { TcpStream::connect(address).await.ok() }
        })
        .await;
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("commands.sock")
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Ends it as a service manager does.
    pub(crate) async fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        wait::until("the cache has stopped", || {
            let ended = child.try_wait().unwrap();
            async move { ended }
        })
        .await;
    }

    /// Memory that it has, in bytes, at its highest.
    pub(crate) fn peak_memory(&self) -> u64 {
        let pid = self.child.as_ref().unwrap().id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    /// Runs a command of it.
    pub(crate) async fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().await.unwrap()
    }

    /// A command of it, to be run.
    pub(crate) fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(BINARY);
        let (name, rest) = args.split_first().unwrap();
        command
            .args(["cache", name, "--socket"])
            .arg(self.socket())
            .arg("--file")
            .arg(self.file())
            .args(rest)
            .env_clear()
            .env("PATH", "/usr/bin:/bin");
        command
    }

    pub(crate) async fn get(&self, path: &str, headers: &str) -> Answer {
        get(self.address, path, headers).await.unwrap()
    }
}

impl Drop for CacheProcess {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking()
            && let Ok(log) = std::fs::read_to_string(self.log())
        {
            eprintln!("the cache's log:\n{log}");
        }
    }
}

/// One GET on a connection of its own, read to the end or to where it breaks off.
pub(crate) async fn get(address: SocketAddr, path: &str, headers: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut received = Vec::new();
    // A reset is an answer that ends here.
    let _ = stream.read_to_end(&mut received).await;
    let end = received.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.ok_or_else(|| std::io::Error::other("no head"))?;
    let head = String::from_utf8_lossy(&received[..end]).into_owned();
    let body = received[end + 4..].to_vec();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    let mut answer = Answer {
        status,
        head,
        body,
        whole: false,
    };
    let length = answer.header("content-length").and_then(|l| l.parse().ok());
    answer.whole = length == Some(answer.body.len());
    Ok(answer)
}

/// The head of a request or of an answer, with the empty line at its end; what comes after it is left there.
pub(crate) async fn head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// All that a command has printed.
pub(crate) fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
}
