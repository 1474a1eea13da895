//! The folder that the shim's socket is in.

use std::path::Path;

use anyhow::bail;

/// Folders that are empty after each boot, so that whoever listens there makes his own.
const EMPTIED: [&str; 2] = ["/run", "/var/run"];

/// Whether the socket's folder is there, or may be made: in what a boot empties, and in the shim's own state.
///
/// # Errors
/// It may not: a mistyped path would make a folder where nobody looks for the socket.
pub(super) fn check(socket: &Path, state: &Path) -> anyhow::Result<()> {
    let Some(folder) = socket.parent() else {
        return Ok(());
    };
    let is_relative = folder == Path::new("");
    let may_be_made = EMPTIED.into_iter().map(Path::new).chain([state]);
    if is_relative || folder.is_dir() || may_be_made.into_iter().any(|top| folder.starts_with(top))
    {
        return Ok(());
    }
    bail!(
        "cannot listen on {}: there is no folder {}; mend `shim:` in the config, or make the folder",
        socket.display(),
        folder.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_and_what_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let state = Path::new("/var/lib/image-cri-shim");
        for (socket, is_fine) in [
            (dir.path().join("shim.sock"), true),
            (dir.path().join("nodir/shim.sock"), false),
            ("/run/nodir-of-a-test/shim.sock".into(), true),
            ("/var/run/nodir-of-a-test/shim.sock".into(), true),
            (state.join("nodir/shim.sock"), true),
            ("/runn/shim.sock".into(), false),
            ("shim.sock".into(), true),
        ] {
            let checked = check(&socket, state);
            assert_eq!(checked.is_ok(), is_fine, "{}", socket.display());
        }
    }
}
