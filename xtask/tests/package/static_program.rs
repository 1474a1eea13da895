//! A static program loads no module of the node that it runs on.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::world::printed;

/// What a node may have in the place of `myhostname` or `resolve`: it ends the process that loads it, as a module of another
/// glibc does.
const MODULE: &str =
    "__attribute__((constructor)) static void loaded(void) { __builtin_trap(); }\n";
const LOOK_UP: &str = r#"
fn main() {
    let found = std::net::ToSocketAddrs::to_socket_addrs("known:443").map(|mut all| all.next());
    println!("{found:?}");
}
"#;
const MANIFEST: &str = r#"
[package]
name = "look-up"
version = "0.0.0"
edition = "2024"

[build-dependencies]
cc = "1.2"

[workspace]
"#;

#[test]
fn names_are_looked_up_without_the_node_s_modules() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    for folder in ["etc", "lib"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join("etc/nsswitch.conf"), "hosts: probe files\n").unwrap();
    fs::write(root.join("etc/hosts"), "192.0.2.7 known\n").unwrap();
    let module = dir.path().join("module.c");
    fs::write(&module, MODULE).unwrap();
    printed(
        Command::new("cc")
            .args(["-shared", "-fPIC", "-nostdlib", "-o"])
            .arg(root.join("lib/libnss_probe.so.2"))
            .arg(module),
    );
    let run = |program: PathBuf| -> Output {
        fs::copy(program, root.join("look-up")).unwrap();
        let mut chroot = Command::new("chroot");
        chroot.arg(&root).arg("/look-up").output().unwrap()
    };
    // As glibc has it: this is what is to be kept away.
    let loads = run(built(&dir.path().join("plain"), "fn main() {}\n"));
    assert!(loads.status.signal().is_some(), "{loads:?}");
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/image-cri-shim");
    let ours = fs::read_to_string(ours.join("build.rs")).unwrap();
    let found = run(built(&dir.path().join("ours"), &ours));
    let said = String::from_utf8_lossy(&found.stdout);
    assert_eq!(said, "Ok(Some(192.0.2.7:443))\n", "{found:?}");
}

/// Builds a static program that looks a name up, as a release is built, with this build script.
fn built(folder: &Path, build_script: &str) -> PathBuf {
    let c = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/image-cri-shim/static");
    fs::create_dir_all(folder.join("src")).unwrap();
    fs::create_dir_all(folder.join("static")).unwrap();
    for entry in fs::read_dir(c).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.join("static").join(path.file_name().unwrap())).unwrap();
    }
    fs::write(folder.join("Cargo.toml"), MANIFEST).unwrap();
    fs::write(folder.join("src/main.rs"), LOOK_UP).unwrap();
    fs::write(folder.join("build.rs"), build_script).unwrap();
    // What it needs is on this machine already: the shim needs it, too.
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    fs::copy(lock, folder.join("Cargo.lock")).unwrap();
    let host = printed(Command::new("rustc").args(["--print", "host-tuple"]));
    let host = host.trim();
    printed(
        Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args([
                "build",
                "--offline",
                "--quiet",
                "--target",
                host,
                "--target-dir",
            ])
            .arg(folder.join("target"))
            .current_dir(folder)
            .env("RUSTFLAGS", "-C target-feature=+crt-static"),
    );
    folder.join("target").join(host).join("debug/look-up")
}
