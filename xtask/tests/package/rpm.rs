//! The .rpm: read back by rpm itself, and on a node.

use super::node::{BYPASS, Node, SERVICE, SHIM};
use super::world::{VERSION, package, packages, second_packages};

/// Debian's rpm asks for this.
const RPM: &str = "rpm --force-debian --nodeps";

/// A folder with two versions of the package.
fn versions() -> tempfile::TempDir {
    let folder = tempfile::Builder::new()
        .prefix("rpms-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .unwrap();
    for (from, to) in [(packages(), "1.rpm"), (second_packages(), "2.rpm")] {
        std::fs::hard_link(package(from, ".rpm"), folder.path().join(to)).unwrap();
    }
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn read_back_installed_upgraded_under_load_and_erased() {
    let versions = versions();
    let node = Node::boot(versions.path(), "", |tree| {
        testkit::rpm::put_into(tree).unwrap()
    })
    .await;
    let about =
        node.sh("rpm -qp --qf '%{NAME} %{VERSION}-%{RELEASE} %{LICENSE}\\n' /packages/1.rpm");
    assert_eq!(about, format!("image-cri-shim {VERSION}-1 Apache-2.0\n"));
    let requires = node.sh("rpm -qp --requires /packages/1.rpm");
    assert!(requires.lines().any(|line| line == "systemd"), "{requires}");
    let files = node.sh("rpm -qp --qf '[%{FILEMODES:perms} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILENAMES}\\n]' /packages/1.rpm");
    for line in [
        "-rwxr-xr-x root:root /usr/bin/image-cri-shim",
        "-rwxr-xr-x root:root /usr/lib/image-cri-shim/link",
        "-rw-r--r-- root:root /usr/lib/systemd/system/image-cri-shim.service",
        "-rw-r--r-- root:root /usr/lib/systemd/system/image-cri-shim-cache.service",
        "-rw-r--r-- root:root /usr/lib/tmpfiles.d/image-cri-shim.conf",
        "-rw-r--r-- root:root /usr/lib/sysusers.d/image-cri-shim-cache.conf",
        "-rw-r--r-- root:root /usr/share/zsh/site-functions/_image-cri-shim",
        "-rw-r--r-- root:root /usr/share/man/man1/image-cri-shim.1.gz",
        "-rw-r--r-- root:root /usr/share/licenses/image-cri-shim/LICENSE",
        "drwxr-xr-x root:root /usr/share/doc/image-cri-shim",
    ] {
        assert!(
            files.lines().any(|file| file == line),
            "no {line} in {files}"
        );
    }
    let scripts = node.sh("rpm -qp --scripts /packages/1.rpm");
    for part in ["preinstall", "postinstall", "preuninstall", "postuninstall"] {
        assert!(
            scripts.contains(&format!("{part} scriptlet (using /bin/sh):")),
            "{scripts}"
        );
    }

    let before = node.everything();
    node.sh(&format!("{RPM} -i /packages/1.rpm"));
    node.until_served().await;
    for unit in [SERVICE, BYPASS] {
        assert_eq!(
            node.sh(&format!("systemctl is-enabled {unit}")),
            "enabled\n"
        );
    }
    assert_eq!(node.sh("rpm -V --nodeps image-cri-shim"), "");
    let (shim, bypass) = (node.invocation(SERVICE), node.invocation(BYPASS));
    let old = node.main_pid();
    let calls = node.call_on();
    node.sh(&format!("{RPM} -U /packages/2.rpm"));
    let seen = calls.end().await;
    assert_eq!(seen.refused, 0, "{seen:?}");
    assert_eq!(node.link(), SHIM);
    assert_eq!(
        (node.invocation(SERVICE), node.invocation(BYPASS)),
        (shim, bypass)
    );
    assert_ne!(node.main_pid(), old);
    assert_eq!(node.sh("rpm -V --nodeps image-cri-shim"), "");

    // Led to the shim by hand: the removal fails. Led back: it goes.
    node.sh("echo 'KUBELET_EXTRA_ARGS=--image-service-endpoint=unix:///run/image-cri-shim.sock' >/etc/default/kubelet");
    let said = node.fails(&format!("{RPM} -e image-cri-shim 2>&1"));
    assert!(said.contains("/etc/default/kubelet:1"), "{said}");
    assert_eq!(node.link(), SHIM);
    node.sh(">/etc/default/kubelet");
    node.sh(&format!("{RPM} -e image-cri-shim"));
    assert_eq!(node.link(), "");
    let left: Vec<_> = node
        .everything()
        .into_iter()
        .filter(|line| !before.contains(line))
        .collect();
    // rpm knows no purge: config, state and the cache's user stay. So do folders that other packages have, too, and that this
    // Debian lacked.
    let of_all = [
        "/etc/image-cri-shim.yaml 600 ",
        "/usr/share/fish ",
        "/usr/share/fish/vendor_completions.d ",
        "/usr/share/licenses ",
        "/usr/share/zsh/site-functions ",
        "/var/lib/image-cri-shim",
        "image-cri-shim-cache:",
    ];
    assert!(
        left.iter()
            .all(|line| of_all.iter().any(|known| line.starts_with(known))),
        "{left:#?}"
    );
}
