//! Whether kubelet may be led past the shim while the shim is down, told to those who lead it.
//!
//! That is done by a script of the packages which needs nothing of this program. It looks at the config file, and
//! for a mark beside the socket: the config in force may say what the file no longer says.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use policy::config::Settings;

/// The mark that says: nobody may be led past the shim.
const MARK: &str = "no-bypass";

/// Leaves the mark beside `socket`, or takes it away, as `settings` says. Only where the packages' units named the
/// socket: elsewhere nobody looks for it.
pub(super) fn mark(socket: &Path, settings: &Settings) {
    let path = socket.with_file_name(MARK);
    let done = if settings.bypass {
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    } else {
        fs::write(&path, "by the config in force\n")
    };
    if let Err(error) = done {
        tracing::warn!(
            "cannot note at {} whether kubelet may be led past the shim while it is down: {error}; the config file alone decides",
            path.display()
        );
    }
}
