//! The packages' script that leads kubelet to the shim or past it, without systemd.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use policy::config::{BrokenText, StartConfig, StartRefusal, start_without_file};

/// The script with its directories below `root`, and a `systemctl` that does nothing.
fn run(root: &Path, verb: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/lib/link");
    let script = fs::read_to_string(script).unwrap();
    let mut own = script;
    for dir in ["/run/", "/etc/", "/var/lib/"] {
        let below = root.join(dir.trim_start_matches('/'));
        fs::create_dir_all(below.join("image-cri-shim")).unwrap();
        own = own.replace(dir, &format!("{}/", below.display()));
    }
    let bin = root.join("bin");
    fs::create_dir_all(&bin).unwrap();
    fs::write(bin.join("systemctl"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(bin.join("systemctl"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh")
        .args(["-c", &own, "link", verb])
        .env("PATH", path)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    let link = fs::read_link(root.join("run/image-cri-shim.sock")).unwrap();
    link.display().to_string()
}

#[test]
fn script_and_shim_read_the_same_words() {
    let closed: &[&[u8]] = &[
        b"fallbackToOrigin: false\n",
        b"bypass: false",
        b"\"fallbackToOrigin\": False # as it was\n",
        b"'fallbackToOrigin' : 'no'\n",
        b"'bypass': fasle\n",
        b"{fallbackToOrigin: off, registries: [}\n",
        b"{bypass: true, fallbackToOrigin: false}\n",
        b"{bypass: true,fallbackToOrigin: false,\n",
        b"a: [\nfallbackToOrigin:\n  false\n",
        b"bypass:\nfallbackToOrigin: # ours\n\n  false\n",
        b"fallbackToOrigin:false\n",
        b"fallbackToOrigin: trueish\n",
        b"fallbackToOrigin: !!bool false\n",
        b"a: b\r\nfallbackToOrigin: false\r\n",
        b"# ours\rfallbackToOrigin: false\r",
        b"fallbackToOrigin: true\nfallbackToOrigin: false\n",
        // No text at all, marks of an encoding, and zeros of another one.
        b"fallbackToOrigin: false\n\xff\xfe\x80\n",
        b"\xef\xbb\xbffallbackToOrigin: false\n",
        b"\xff\xfef\0a\0l\0l\0b\0a\0c\0k\0T\0o\0O\0r\0i\0g\0i\0n\0:\0 \0n\0o\0\n\0",
    ];
    let open: &[&[u8]] = &[
        b"",
        b"fallbackToOrigin: true\nbypass: yes\n",
        b"{\"fallbackToOrigin\": \"on\",bypass: true,a: [\n",
        b"{\"fallbackToOrigin\":true,\"bypass\":true}\n",
        b"# fallbackToOrigin: false\n",
        b"  # bypass: no\r\n",
        b"fallbackToOrigin:\nbypass: ''\n",
        b"fallbackToOrigin: \"\"\nbypass: ~\n",
        b"fallbackToOrigin: null # ours\na: [\n",
        b"address: no-bypass\nregistries: [{address: bypass.corp}]\n",
        b"fallbackToOrigin: true\n\xff\xfe",
    ];
    let root = tempfile::tempdir().unwrap();
    assert_eq!(run(root.path(), "up"), "image-cri-shim/shim.sock");
    for (texts, target) in [(closed, "closed"), (open, "bypass")] {
        for text in texts {
            let shown = String::from_utf8_lossy(text).into_owned();
            fs::write(root.path().join("etc/image-cri-shim.yaml"), text).unwrap();
            let link = run(root.path(), "down");
            assert_eq!(link, format!("image-cri-shim/{target}.sock"), "{shown:?}");
            let start = start_without_file(BrokenText::Unusable(&shown), None, &|_| None);
            let refuses = start == StartConfig::Refuse(StartRefusal::ClosedSite);
            assert_eq!(refuses, target == "closed", "{shown:?}");
        }
    }
}

#[test]
fn the_last_good_config_and_the_mark_close_a_site_too() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(run(root.path(), "down"), "image-cri-shim/bypass.sock");
    let kept = root.path().join("var/lib/image-cri-shim/last-good.yaml");
    fs::write(&kept, "bypass: false\n\n# Kept.\n").unwrap();
    assert_eq!(run(root.path(), "boot"), "image-cri-shim/closed.sock");
    fs::remove_file(&kept).unwrap();
    // A pipe is not waited for.
    for pipe in ["etc/image-cri-shim.yaml", "var/lib/image-cri-shim/last-good.yaml"] {
        let made = Command::new("mkfifo").arg(root.path().join(pipe)).status();
        assert!(made.unwrap().success());
    }
    assert_eq!(run(root.path(), "down"), "image-cri-shim/bypass.sock");
    fs::write(root.path().join("run/image-cri-shim/no-bypass"), "").unwrap();
    assert_eq!(run(root.path(), "down"), "image-cri-shim/closed.sock");
}
