//! The packages under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The version in all names.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The folder that `cargo xtask package --debug` has filled; made once.
pub(crate) fn packages() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| make("packages", "1"))
}

/// The same version, packaged once more: the next one for a package manager.
pub(crate) fn second_packages() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| make("packages-2", "2"))
}

/// Makes the packages in a folder of this name, kept until the next run.
fn make(name: &str, revision: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["package", "--debug", "--revision", revision, "--output"])
        .arg(&folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    folder
}

/// The one package whose name ends so.
pub(crate) fn package(folder: &Path, end: &str) -> PathBuf {
    let mut found = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(end));
    let package = found.next().unwrap();
    assert_eq!(found.next(), None);
    package
}

/// What both streams say.
pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// What a program prints, which has to succeed.
pub(crate) fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}
