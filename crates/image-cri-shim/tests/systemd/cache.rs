//! The cache's unit: an unprivileged user, the store that outlives restarts, the commands of root.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use testkit::docker_registry::DockerRegistry;
use testkit::images::Image;
use testkit::systemd::Machine;

use super::hardening::exposure;

const UNIT: &str = "image-cri-shim-cache.service";
const STORE: &str = "/var/lib/image-cri-shim/cache";
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// What the package puts on a node for the cache.
fn install(tree: &Path, config: &str) {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
    for (from, to, mode) in [
        (
            packaging.join("systemd").join(UNIT),
            format!("usr/lib/systemd/system/{UNIT}"),
            0o644,
        ),
        (
            packaging.join("sysusers.d/image-cri-shim-cache.conf"),
            "usr/lib/sysusers.d/image-cri-shim-cache.conf".to_owned(),
            0o644,
        ),
        (
            Path::new(env!("CARGO_BIN_EXE_image-cri-shim")).to_owned(),
            "usr/bin/image-cri-shim".to_owned(),
            0o755,
        ),
    ] {
        let to = tree.join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(mode)).unwrap();
    }
    // As the shim's unit leaves it: nobody but root gets in.
    let state = tree.join("var/lib/image-cri-shim");
    fs::create_dir_all(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    let file = tree.join("etc/image-cri-shim.yaml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, config).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
}

/// The status and the body of one GET.
fn get(address: SocketAddr, path: &str) -> Option<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(READ_TIMEOUT)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split_whitespace().nth(1)?.to_owned();
    Some((status, answer[end + 4..].to_vec()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_runs_as_a_user_of_its_own_and_keeps_what_it_has() {
    let mut registry = DockerRegistry::plain().await.unwrap();
    let image = Image::new("a unit's cache");
    registry.push(&image, "team/app", "1").await.unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let config = format!(
        "fallbackToOrigin: false\nregistries: [{{address: '{}'}}]\n\
         nodeCache: {{listen: ['{address}'], metricsAddress: 'off', minFree: 1Mi}}\n",
        registry.url()
    );
    let machine = Machine::boot(
        |tree| {
            install(tree, &config);
            Ok(())
        },
        &[],
    )
    .await
    .unwrap();
    let systemctl = |verb: &str| {
        if let Err(error) = machine.run(&["systemctl", verb, UNIT]) {
            panic!("{error}\n{}", machine.journal(UNIT));
        }
    };
    machine.run(&["systemd-sysusers"]).unwrap();
    systemctl("start");

    // `start` returns when it is ready, so it answers now.
    assert_eq!(get(address, "/v2/").unwrap().0, "200");
    let manifest = "/v2/team/app/manifests/1?ns=images.test";
    let found = get(address, manifest).unwrap();
    assert_eq!(found, ("200".to_owned(), image.manifest.to_vec()));
    let blobs = image.blobs.iter();
    let blobs: Vec<_> = blobs
        .map(|blob| {
            let path = format!("/v2/team/app/blobs/{}?ns=images.test", blob.digest);
            (path, blob.content.to_vec())
        })
        .collect();
    for (path, content) in &blobs {
        let (status, body) = get(address, path).unwrap();
        assert_eq!((status.as_str(), &body), ("200", content));
    }

    // It is not root, its store is its own, and root's commands reach it where they look by default.
    let pid = machine.property(UNIT, "MainPID").unwrap();
    let owner = fs::metadata(machine.path(&format!("/proc/{pid}"))).unwrap();
    assert_ne!(owner.uid(), 0);
    let store = fs::metadata(machine.path(STORE)).unwrap();
    assert_eq!((store.uid(), store.mode() & 0o777), (owner.uid(), 0o700));
    let list = ["image-cri-shim", "cache", "ls"];
    let listed = machine.run(&list);
    let listed = listed.unwrap_or_else(|error| panic!("{error}\n{}", machine.journal(UNIT)));
    assert!(listed.contains("images.test/team/app:1"), "{listed}");
    let level = exposure(&machine, UNIT);
    assert!(level <= super::hardening::HIGHEST_EXPOSURE, "{level}");

    registry.stop().await;
    // Again by itself after a stop, and after root has worked in its directory while it was away.
    systemctl("restart");
    for worked_in in [false, true] {
        if worked_in {
            systemctl("stop");
            let link = machine.path("/run/image-cri-shim-cache.sock");
            assert!(fs::symlink_metadata(link).is_err());
            let pinned = ["image-cri-shim", "cache", "pin", "images.test/team/app:1"];
            machine.run(&pinned).unwrap();
            let left = machine.path(&format!("{STORE}/partial/left-by-root"));
            fs::write(&left, b"x").unwrap();
            systemctl("start");
            assert_eq!(fs::metadata(&left).unwrap().uid(), owner.uid());
        }
        let found = get(address, manifest).unwrap();
        assert_eq!(found, ("200".to_owned(), image.manifest.to_vec()));
        for (path, content) in &blobs {
            assert_eq!(&get(address, path).unwrap().1, content);
        }
    }
    let listed = machine.run(&list).unwrap();
    assert!(listed.contains("pinned"), "{listed}");
}

/// The commands of docs/cache.md for who has the tarball, in the folder that it makes.
#[tokio::test(flavor = "multi_thread")]
async fn from_the_tarball_it_comes_by_the_commands_of_the_document() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let document = fs::read_to_string(root.join("docs/cache.md")).unwrap();
    let (_, section) = document.split_once("### From the tarball").unwrap();
    let (_, block) = section.split_once("```console\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let commands: Vec<&str> = block
        .lines()
        .map(|line| line.strip_prefix("# ").unwrap())
        .collect();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let config =
        format!("nodeCache: {{listen: ['{address}'], metricsAddress: 'off', minFree: 1Mi}}\n");
    let unit = format!("packaging/systemd/{UNIT}");
    let user = "packaging/sysusers.d/image-cri-shim-cache.conf";
    let machine = Machine::boot(
        |tree| {
            let folder = tree.join("root/image-cri-shim");
            for file in [unit.as_str(), user] {
                let to = folder.join(file);
                fs::create_dir_all(to.parent().unwrap())?;
                fs::copy(root.join(file), to)?;
            }
            fs::copy(
                env!("CARGO_BIN_EXE_image-cri-shim"),
                folder.join("image-cri-shim"),
            )?;
            fs::create_dir_all(tree.join("etc"))?;
            fs::write(tree.join("etc/image-cri-shim.yaml"), &config)?;
            Ok(())
        },
        &[],
    )
    .await
    .unwrap();
    let script = format!("cd /root/image-cri-shim\n{}", commands.join("\n"));
    if let Err(error) = machine.run(&["sh", "-euc", &script]) {
        panic!("{error}\n{}", machine.journal(UNIT));
    }
    assert_eq!(get(address, "/v2/").unwrap().0, "200");
    let pid = machine.property(UNIT, "MainPID").unwrap();
    let owner = fs::metadata(machine.path(&format!("/proc/{pid}"))).unwrap();
    assert_ne!(owner.uid(), 0);
    assert_eq!(machine.property(UNIT, "UnitFileState").unwrap(), "enabled");
}
