//! The real programs that tests run: containerd with runc, and docker-registry.
//!
//! What is on PATH is used as it is. What isn't is fetched as a Debian package and unpacked below
//! the target directory. None of these gets installed, so no service is started and a containerd that
//! the machine has of its own is left alone. (A browser has to be: see [`crate::browser`].)

use parking_lot::Mutex;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::process::find;

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The container runtime.
    pub containerd: PathBuf,
    /// containerd's own client.
    pub ctr: PathBuf,
    /// What containerd starts a container with.
    pub runc: PathBuf,
    /// What containerd keeps per container; must be on containerd's PATH under this name.
    pub containerd_shim_runc_v2: PathBuf,
    /// distribution's registry, under Debian's name.
    pub docker_registry: PathBuf,
}

impl Tools {
    /// Finds the programs, fetching what is missing. The first call on a machine may take a minute,
    /// any later one some microseconds. Tests may call it at once, also from several processes.
    ///
    /// # Errors
    /// When a program is missing and this is no Debian-like system, or its package can't be fetched.
    pub fn ensure() -> Result<Self> {
        static FOUND: Mutex<Option<Tools>> = Mutex::new(None);
        let mut found = FOUND.lock();
        if let Some(tools) = &*found {
            return Ok(tools.clone());
        }
        let tools = Self::locate(&folder())?;
        *found = Some(tools.clone());
        Ok(tools)
    }

    /// The folders of the programs, for the PATH of a process that starts some of them by name.
    #[must_use]
    pub fn folders(&self) -> Vec<&Path> {
        let all = [
            &self.containerd,
            &self.ctr,
            &self.runc,
            &self.containerd_shim_runc_v2,
        ];
        let mut folders: Vec<&Path> = all.into_iter().filter_map(|tool| tool.parent()).collect();
        folders.dedup();
        folders
    }

    fn locate(folder: &Path) -> Result<Self> {
        // containerd, its shim and runc belong together: all from the machine, or all from packages.
        let runtime = ["containerd", "ctr", "containerd-shim-runc-v2", "runc"];
        let [containerd, ctr, containerd_shim_runc_v2, runc] = all_on_path(runtime).map_or_else(
            || -> Result<[PathBuf; 4]> {
                let containerd = package(folder, "containerd")?;
                let runc = package(folder, "runc")?;
                Ok([
                    program(&containerd, "containerd")?,
                    program(&containerd, "ctr")?,
                    program(&containerd, "containerd-shim-runc-v2")?,
                    program(&runc, "runc")?,
                ])
            },
            Ok,
        )?;
        let docker_registry = match find("docker-registry") {
            Some(path) => path,
            None => program(&package(folder, "docker-registry")?, "docker-registry")?,
        };
        Ok(Self {
            containerd,
            ctr,
            runc,
            containerd_shim_runc_v2,
            docker_registry,
        })
    }
}

/// The library that changes what time it is for the processes that it is preloaded into: on the machine, or
/// from Debian's package.
pub fn libfaketime() -> Result<PathBuf> {
    const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
    let below = |root: &Path| -> Option<PathBuf> {
        let folders = fs::read_dir(root.join("usr/lib")).ok()?.flatten();
        let mut libraries = folders.map(|folder| folder.path().join(LIBRARY));
        libraries.find(|library| library.is_file())
    };
    if let Some(library) = below(Path::new("/")) {
        return Ok(library);
    }
    let package = package(&folder(), "libfaketime")?;
    below(&package).with_context(|| format!("no {LIBRARY} in {}", package.display()))
}

fn all_on_path<const N: usize>(programs: [&str; N]) -> Option<[PathBuf; N]> {
    let found: Vec<PathBuf> = programs
        .iter()
        .filter_map(|program| find(program))
        .collect();
    found.try_into().ok()
}

/// `target/tools`: kept between runs, gone with `cargo clean`.
pub(crate) fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        PathBuf::from,
    );
    target.join("tools")
}

/// Where an unpacked Debian package keeps a program.
pub(crate) fn program(package: &Path, name: &str) -> Result<PathBuf> {
    ["usr/bin", "usr/sbin", "bin", "sbin"]
        .iter()
        .map(|folder| package.join(folder).join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("no program {name} in the package at {}", package.display()))
}

/// The folder of an unpacked Debian package: `<tools>/<package>/<version>`.
pub(crate) fn package(tools: &Path, package: &str) -> Result<PathBuf> {
    let versions = tools.join(package);
    fs::create_dir_all(&versions).with_context(|| format!("creating {}", versions.display()))?;
    // One fetch at a time, also between processes; the lock ends with the file handle.
    let lock = versions.join(".lock");
    let lock = File::create(&lock).with_context(|| format!("creating {}", lock.display()))?;
    lock.lock().context("locking the tools folder")?;
    if let Some(unpacked) = unpacked_version(&versions)? {
        return Ok(unpacked);
    }
    fetch(package, &versions).with_context(|| {
        format!(
            "{package} is not on PATH and could not be fetched as a Debian package; \
             install it yourself, or run this on Debian or Ubuntu"
        )
    })
}

fn unpacked_version(versions: &Path) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(versions)? {
        let entry = entry?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && entry.file_type()?.is_dir() {
            return Ok(Some(entry.path().canonicalize()?));
        }
    }
    Ok(None)
}

fn fetch(package: &str, versions: &Path) -> Result<PathBuf> {
    for program in ["apt-get", "dpkg-deb"] {
        ensure!(find(program).is_some(), "{program} is not on this machine");
    }
    eprintln!(
        "testkit: {package} is not on PATH; fetching its Debian package into {} (nothing is installed)",
        versions.display()
    );
    // In the folder where it goes in the end, so that the rename stays within one file system.
    let work = tempfile::Builder::new()
        .prefix(".fetch-")
        .tempdir_in(versions)?;
    if download(package, work.path()).is_err() {
        // No package lists yet (a fresh container image), or lists that name a version that is gone.
        eprintln!("testkit: apt-get download {package} failed; trying again after apt-get update");
        ensure!(
            rustix::process::geteuid().is_root(),
            "apt's package lists are missing or old, and only root can update them; \
             run `apt-get update` as root once"
        );
        run(Command::new("apt-get").args(["update", "--quiet"]))?;
        download(package, work.path())?;
    }
    let (deb, version) = downloaded(work.path())?;
    let unpacked = work.path().join("unpacked");
    run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&unpacked))?;
    let place = versions.join(version);
    fs::rename(&unpacked, &place).with_context(|| format!("renaming to {}", place.display()))?;
    Ok(place.canonicalize()?)
}

fn download(package: &str, folder: &Path) -> Result<()> {
    run(Command::new("apt-get")
        // Without this, apt warns that its own user may not write here.
        .args([
            "-o",
            "APT::Sandbox::User=root",
            "--quiet",
            "download",
            package,
        ])
        .current_dir(folder))
}

/// The `.deb` in a folder, and the version in its name: `runc_1.1.5+ds1-1_amd64.deb`.
fn downloaded(folder: &Path) -> Result<(PathBuf, String)> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let (true, Some(version)) = (name.ends_with(".deb"), name.split('_').nth(1)) {
            return Ok((entry.path(), version.to_owned()));
        }
    }
    bail!("apt-get download left no .deb file behind")
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("running {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
