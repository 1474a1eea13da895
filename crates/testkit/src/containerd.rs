//! A real containerd with its CRI plugin, in a directory of its own.
//!
//! It touches nothing outside of that directory as long as no container is started in it: state,
//! content, sockets and registry settings are all below it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use crate::cri_client::CriClient;
use crate::process::{Process, log_to, tail};
use crate::tools::Tools;
use crate::wait;

/// How long containerd gets to answer its first call.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// A running containerd. Dropping it kills it, unmounts what it mounted and deletes its directory.
pub struct Containerd {
    tools: Tools,
    process: Option<Process>,
    socket: PathBuf,
    client: CriClient,
    /// Last, so that the process is gone when the directory goes.
    dir: TempDir,
}

impl Containerd {
    /// Starts it, and returns when its CRI answers (about 40 ms). Needs root.
    pub async fn start() -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "containerd needs root for its snapshots; run this as root"
        );
        let tools = Tools::ensure()?;
        let dir = tempfile::Builder::new()
            .prefix("testkit-containerd-")
            .tempdir()?;
        let socket = dir.path().join("containerd.sock");
        fs::create_dir(dir.path().join("certs.d"))?;
        fs::write(dir.path().join("config.toml"), config(dir.path()))?;
        let mut containerd = Self {
            tools,
            process: None,
            client: CriClient::new(&socket),
            socket,
            dir,
        };
        containerd.start_again().await?;
        Ok(containerd)
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The directory that all of it is in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where it looks for registry settings: `<here>/<host>/hosts.toml`.
    #[must_use]
    pub fn certs_dir(&self) -> PathBuf {
        self.dir.path().join("certs.d")
    }

    /// A CRI client straight to it.
    #[must_use]
    pub fn client(&self) -> CriClient {
        self.client.clone()
    }

    /// The programs that it was started from; `ctr` among them.
    #[must_use]
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// What it keeps file systems of containers with, where none is named.
    #[must_use]
    pub fn snapshotter() -> &'static str {
        snapshotter()
    }

    /// Its process ID; `None` while it is stopped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Lets it pull from a registry that speaks plain HTTP. Works at once, without a restart.
    pub fn allow_http(&self, host: &str) -> Result<()> {
        self.write_hosts(host, &format!("server = \"http://{host}\"\n"))
    }

    /// Lets it trust a CA for one registry. Works at once, without a restart.
    pub fn allow_ca(&self, host: &str, ca_pem: &str) -> Result<()> {
        let folder = self.certs_dir().join(host);
        fs::create_dir_all(&folder)?;
        let ca = folder.join("ca.crt");
        fs::write(&ca, ca_pem)?;
        let ca = ca.display();
        self.write_hosts(
            host,
            &format!("server = \"https://{host}\"\n\n[host.\"https://{host}\"]\n  ca = \"{ca}\"\n"),
        )
    }

    /// Lets it pull images of one host from other addresses, as a site's own mirror settings do:
    /// `hosts_toml` is the content of the host's `hosts.toml`.
    pub fn write_hosts(&self, host: &str, hosts_toml: &str) -> Result<()> {
        let folder = self.certs_dir().join(host);
        fs::create_dir_all(&folder)?;
        let file = folder.join("hosts.toml");
        fs::write(&file, hosts_toml).with_context(|| format!("writing {}", file.display()))
    }

    /// All that it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// SIGTERM, and waits for its end. Images stay.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.terminate().await?;
        }
        Ok(())
    }

    /// SIGKILL. Images stay.
    pub fn kill(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Starts it after [`Containerd::stop`] or [`Containerd::kill`], and returns when it answers.
    pub async fn start_again(&mut self) -> Result<()> {
        if self.process.is_some() {
            return Ok(());
        }
        let (config, log) = (self.dir.path().join("config.toml"), self.log_file());
        let mut path = std::env::join_paths(self.tools.folders())?;
        if let Some(inherited) = std::env::var_os("PATH") {
            path.push(":");
            path.push(inherited);
        }
        let mut process = Process::spawn(&self.tools.containerd, |command| {
            command.arg("--config").arg(&config).env("PATH", path);
            if let Err(error) = log_to(command, &log) {
                eprintln!("testkit: {error:#}");
            }
        })?;
        let client = &self.client;
        let ready = wait::within(START_TIMEOUT, || {
            let ended = process.ended();
            async move {
                match ended {
                    Some(status) => Some(Err(status)),
                    None => client.version().await.is_ok().then_some(Ok(())),
                }
            }
        });
        let problem = match ready.await {
            Some(Ok(())) => None,
            Some(Err(status)) => Some(format!("it ended with {status}")),
            None => Some(format!("its CRI did not answer within {START_TIMEOUT:?}")),
        };
        if let Some(problem) = problem {
            bail!(
                "containerd did not start: {problem}; the end of its log:\n{}",
                tail(&log)
            );
        }
        self.process = Some(process);
        Ok(())
    }

    /// Stops it and starts it again.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.start_again().await
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.process = None;
        for place in mounts_below(self.dir.path()) {
            let _ = unmount(&place, UnmountFlags::DETACH);
        }
    }
}

/// Mount points below a folder, the innermost first.
#[must_use]
pub fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut places: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|place| place.starts_with(folder))
        .collect();
    places.reverse();
    places
}

/// The snapshotter that works here: overlayfs as on any node, but not on top of another overlay, as
/// the file system of a container is.
fn snapshotter() -> &'static str {
    static SNAPSHOTTER: OnceLock<&str> = OnceLock::new();
    SNAPSHOTTER.get_or_init(|| {
        if overlay_works().unwrap_or(false) {
            "overlayfs"
        } else {
            "native"
        }
    })
}

fn overlay_works() -> Result<bool> {
    let dir = tempfile::Builder::new()
        .prefix("testkit-overlay-")
        .tempdir()?;
    let path = |name: &str| dir.path().join(name);
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(path(name))?;
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        path("lower").display(),
        path("upper").display(),
        path("work").display()
    );
    let options = std::ffi::CString::new(options)?;
    let works = mount(
        "overlay",
        path("merged"),
        "overlay",
        MountFlags::empty(),
        options.as_c_str(),
    )
    .is_ok();
    if works {
        unmount(path("merged"), UnmountFlags::DETACH)?;
    }
    Ok(works)
}

fn config(dir: &Path) -> String {
    let (dir, snapshotter) = (dir.display(), snapshotter());
    format!(
        r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
temp = "{dir}/tmp"
# What probes the machine for file systems and devices that tests have no use for.
disabled_plugins = [
  "io.containerd.internal.v1.restart",
  "io.containerd.internal.v1.tracing",
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
address = "{dir}/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
stream_server_address = "127.0.0.1"
stream_server_port = "0"
disable_apparmor = true
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{dir}/cni/bin"
conf_dir = "{dir}/cni/conf"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"

[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{dir}/certs.d"

[plugins."io.containerd.internal.v1.opt"]
path = "{dir}/opt"
"#
    )
}
