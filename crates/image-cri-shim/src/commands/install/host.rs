//! From a Pod to its host: the program goes on as if it had been started there.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, ensure};
use rustix::process::{chdir, chroot, fchdir};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Moves this process to the mounts and the root of the host's first process, which a Pod with `hostPID` sees.
///
/// So files are renamed and made durable where they stand, `systemctl` finds the host's sockets and does not believe
/// itself in a chroot, and whatever the host mounts later is there. A directory of the host that is mounted into the
/// Pod would give none of that for certain. Nothing of the host is executed to get there, and the image needs no shell.
///
/// # Errors
/// The Pod lacks `hostPID` or `privileged`, or the host has no systemd.
pub(super) fn enter() -> anyhow::Result<()> {
    const NEEDS: &str = "the Pod needs hostPID: true and a privileged container";
    let mounts = File::open("/proc/1/ns/mnt")
        .with_context(|| format!("cannot see the host's mounts; {NEEDS}"))?;
    let root = File::open("/proc/1/root")
        .with_context(|| format!("cannot see the host's files; {NEEDS}"))?;
    let own = fs::metadata("/proc/self/ns/mnt").context("cannot see this process's own mounts")?;
    ensure!(
        mounts
            .metadata()
            .context("cannot see the host's mounts")?
            .ino()
            != own.ino(),
        "--host is for a Pod, and the first process that is seen here has the same mounts as this one; {NEEDS}"
    );
    move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))
        .with_context(|| format!("cannot move to the host's mounts; {NEEDS}"))?;
    fchdir(&root)
        .and_then(|()| chroot("."))
        .and_then(|()| chdir("/"))
        .context("cannot move to the host's root")?;
    ensure!(
        fs::exists("/run/systemd/system").unwrap_or(false),
        "this host does not run systemd (there is no /run/systemd/system), so nothing can be installed on it. Use the webhook and the cache instead (docs/install.md)"
    );
    Ok(())
}
