//! A network of a test's own, for what loopback can't show: a host that drops every packet.
//!
//! For test programs with a `main` of their own: the program runs itself once more, inside. The
//! namespace ends with its last process, so nothing is left behind whatever happens.

use std::process::{Command, exit};

use anyhow::{Context, Result, bail};

/// An address in the namespace to which packets go, and from which none come: not even a refusal.
/// (RFC 5737, TEST-NET-1; it exists inside the namespace only.)
pub const BLACK_HOLE: &str = "192.0.2.2";

const INSIDE: &str = "TESTKIT_INSIDE_NETNS";

/// Goes on inside a network namespace with loopback and [`BLACK_HOLE`]: runs this program again there
/// and exits with its status. Returns inside only.
///
/// # Errors
/// When the namespace can't be made: that takes root, `unshare` of util-linux and `ip` of iproute2.
pub fn enter() -> Result<()> {
    if std::env::var_os(INSIDE).is_none() {
        let status = Command::new("unshare")
            .args(["--net", "--"])
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
