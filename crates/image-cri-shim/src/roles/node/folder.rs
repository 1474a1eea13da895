//! The folder that the shim's socket is in.

use std::path::Path;

/// Folders that are empty after each boot, so that whoever listens there makes his own.
const EMPTIED: [&str; 2] = ["/run", "/var/run"];

/// What to say where the socket's folder is not there, and would not be expected to be made. It is made all the same: a
/// node whose shim does not start pulls nothing.
pub(super) fn warning(socket: &Path, state: &Path) -> Option<String> {
    let folder = socket.parent()?;
    let is_relative = folder == Path::new("");
    let mut may_be_made = EMPTIED.into_iter().map(Path::new).chain([state]);
    if is_relative || folder.is_dir() || may_be_made.any(|top| folder.starts_with(top)) {
        return None;
    }
    Some(format!(
        "the socket {} needs a new folder, {}; if that is not where kubelet looks for it, mend `shim:` in the config",
        socket.display(),
        folder.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_in_silence_and_what_is_told() {
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
            let warning = warning(&socket, state);
            assert_eq!(warning.is_none(), is_fine, "{}", socket.display());
        }
    }
}
