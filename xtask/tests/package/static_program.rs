//! A static program loads no module of the node that it runs on.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use super::world::printed;

const LOOK_UP: &str = r#"
#include <netdb.h>
#include <stdio.h>
int main(void)
{
    struct addrinfo *found;
    int error = getaddrinfo("known", "443", NULL, &found);
    puts(error ? gai_strerror(error) : "found");
    return error != 0;
}
"#;
/// Ends the process that loads it, as a module of another glibc does.
const MODULE: &str =
    "__attribute__((constructor)) static void loaded(void) { __builtin_trap(); }\n";

#[test]
fn names_are_looked_up_without_the_node_s_modules() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    for folder in ["etc", "lib"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join("etc/nsswitch.conf"), "hosts: probe files\n").unwrap();
    fs::write(root.join("etc/hosts"), "192.0.2.7 known\n").unwrap();
    let source = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (program, module) = (source("look_up.c", LOOK_UP), source("module.c", MODULE));
    printed(
        Command::new("cc")
            .args(["-shared", "-fPIC", "-nostdlib", "-o"])
            .arg(root.join("lib/libnss_probe.so.2"))
            .arg(module),
    );
    let ours =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/image-cri-shim/static/no_modules.c");
    let run = |name: &str, more: &[&Path]| {
        let mut cc = Command::new("cc");
        cc.args(["-static", "-o"]).arg(root.join(name));
        printed(cc.arg(&program).args(more));
        Command::new("chroot")
            .arg(&root)
            .arg(format!("/{name}"))
            .output()
            .unwrap()
    };
    // As glibc has it: this is what is to be kept away.
    let loads = run("loads", &[]);
    assert!(loads.status.signal().is_some(), "{loads:?}");
    let found = run("finds", &[&ours]);
    assert!(found.status.success(), "{found:?}");
    assert_eq!(found.stdout, b"found\n");
}
