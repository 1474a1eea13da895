//! A network of a test's own, for what loopback can't show: a host that drops every packet, names and
//! ports of one's own choice.
//!
//! For programs with a `main` of their own: the program runs itself once more, inside. The namespaces
//! end with their last process, so nothing is left behind whatever happens.

use std::io::Write;
use std::process::{Command, exit};

use anyhow::{Context, Result, bail};
use rustix::mount::mount_bind;

/// An address in the namespace to which packets go, and from which none come: not even a refusal.
/// (RFC 5737, TEST-NET-1; it exists inside the namespace only.)
pub const BLACK_HOLE: &str = "192.0.2.2";

const INSIDE: &str = "TESTKIT_INSIDE_NETNS";

/// Whether this program runs inside already.
#[must_use]
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Goes on inside a network namespace with loopback and [`BLACK_HOLE`], and mounts of its own: runs this
/// program again there and exits with its status. Returns inside only.
///
/// # Errors
/// When the namespace can't be made: that takes root, `unshare` of util-linux and `ip` of iproute2.
pub fn enter() -> Result<()> {
    if !is_inside() {
        let status = Command::new("unshare")
            .args(["--net", "--mount", "--"])
            .arg(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .env(INSIDE, "1")
            .status()
            .context("running `unshare` of util-linux")?;
        exit(status.code().unwrap_or(1));
    }
    ip("link set lo up")?;
    // A pair of which the far end drops what is not for its own address, and nothing is.
    ip("link add hole0 type veth peer name hole1")?;
    ip("address add 192.0.2.1/24 dev hole0")?;
    ip("link set hole0 up")?;
    ip("link set hole1 up")?;
    ip("neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev hole0 nud permanent")
}

/// Gives addresses names, for this program and all that it starts. Inside only.
///
/// # Errors
/// `/etc/hosts` can't be covered, as it can't outside.
pub fn call(names: &[(&str, &str)]) -> Result<()> {
    if !is_inside() {
        bail!("this would change the machine's own names");
    }
    // The mount keeps the file when its name goes.
    let mut hosts = tempfile::NamedTempFile::new()?;
    writeln!(hosts, "127.0.0.1 localhost")?;
    for (name, address) in names {
        writeln!(hosts, "{address} {name}")?;
    }
    mount_bind(hosts.path(), "/etc/hosts").context("covering /etc/hosts")
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .context("running `ip`; install the package iproute2")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`ip {arguments}` failed: {}", said.trim());
    }
    Ok(())
}
