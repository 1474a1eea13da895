//! The packages' script that leads kubelet to the shim or past it, without systemd.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use installer::Root;
use installer::bypass::{Bypass, LeadsTo};
use policy::config::{BrokenText, StartConfig, StartRefusal, start_without_file};

/// Where the link leads after the script has run.
fn run(root: &Path, verb: &str) -> String {
    turn(root, verb);
    let link = fs::read_link(root.join("run/image-cri-shim.sock")).unwrap();
    link.display().to_string()
}

/// Runs the script with its directories below `root`, and a `systemctl` that does nothing; what it prints.
fn turn(root: &Path, verb: &str) -> String {
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
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_turn_is_noted_whatever_stood_there() {
    let dir = tempfile::tempdir().unwrap();
    let (root, on) = (dir.path(), || Bypass::on(&Root::new(dir.path())).unwrap());
    assert!(turn(root, "boot").contains("led past the shim"));
    let first = on();
    assert_eq!((first.leads_to, first.periods), (LeadsTo::Bypass, 1));
    assert!(first.since.is_some() && first.last.is_none());
    // It is noted once.
    assert_eq!(turn(root, "down"), "");
    assert_eq!(on().periods, 1);
    assert!(turn(root, "up").contains("led to the shim again"));
    let back = on();
    assert_eq!((back.leads_to, back.since), (LeadsTo::Shim, None));
    assert_eq!(back.last.unwrap().leads_to, LeadsTo::Bypass);
    fs::write(root.join("etc/image-cri-shim.yaml"), "bypass: false\n").unwrap();
    assert!(turn(root, "down").contains("led nowhere"));
    turn(root, "up");
    let closed = on();
    assert_eq!((closed.leads_to, closed.periods), (LeadsTo::Shim, 1));
    assert_eq!(closed.last.unwrap().leads_to, LeadsTo::Nowhere);

    // Lengths are added up. The node has been up for more than the seconds of these notes.
    let note = root.join("run/image-cri-shim/bypass.state");
    fs::write(&note, "v1 bypass 1 7 40 - 0 0\n").unwrap();
    assert!(turn(root, "up").contains("led to the shim again"));
    let (now, up) = (on(), uptime());
    assert_eq!(now.periods, 7);
    assert!(now.total.as_secs().abs_diff(40 + up - 1) < 60, "{now:?}");
    assert_eq!(
        now.last.unwrap().length,
        now.total - Duration::from_secs(40)
    );

    for garbage in [
        "",
        "v1",
        "v1 bypass 08 09 0x1 $(reboot) `x` -1 *\n",
        "v1 bypass 99999999999999999999 99999999999999999999 99999999999999999999 bypass 1 2\n",
        "v1 bypass 4000000000 1 1 - 0 0\n",
        "\0\u{1}\n\n",
    ] {
        fs::write(&note, garbage).unwrap();
        turn(root, "up");
        fs::write(root.join("etc/image-cri-shim.yaml"), "").unwrap();
        assert_eq!(
            run(root, "down"),
            "image-cri-shim/bypass.sock",
            "{garbage:?}"
        );
        let now = on();
        assert!(now.since.unwrap().as_secs() < 60, "{garbage:?}: {now:?}");
        assert!(now.total.as_secs() < 60, "{garbage:?}: {now:?}");
    }
    // What can't be noted is done all the same.
    fs::remove_file(&note).unwrap();
    fs::create_dir_all(root.join("run/image-cri-shim/bypass.state.new")).unwrap();
    fs::create_dir_all(&note).unwrap();
    let script = std::panic::catch_unwind(|| run(root, "up"));
    assert!(script.is_err(), "the script says so");
    let link = fs::read_link(root.join("run/image-cri-shim.sock")).unwrap();
    assert_eq!(link, Path::new("image-cri-shim/shim.sock"));
}

fn uptime() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    text.split('.').next().unwrap().parse().unwrap()
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
    for pipe in [
        "etc/image-cri-shim.yaml",
        "var/lib/image-cri-shim/last-good.yaml",
    ] {
        let made = Command::new("mkfifo").arg(root.path().join(pipe)).status();
        assert!(made.unwrap().success());
    }
    assert_eq!(run(root.path(), "down"), "image-cri-shim/bypass.sock");
    fs::write(root.path().join("run/image-cri-shim/no-bypass"), "").unwrap();
    assert_eq!(run(root.path(), "down"), "image-cri-shim/closed.sock");
}
