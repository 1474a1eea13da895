//! Images that travel in a file, between caches and a real containerd.

use std::path::Path;
use std::process::Stdio;

use testkit::containerd::Containerd;
use testkit::docker_registry::DockerRegistry;
use testkit::images::{Format, Image};
use tokio::io::AsyncWriteExt;

use crate::world::{CacheProcess, text};

const NOBODY: &str = "registries: []\naddress: ''\nfallbackToOrigin: false\n";
const NAME: &str = "images.test/team/app:1";

fn config(registry: &DockerRegistry) -> String {
    format!(
        "fallbackToOrigin: false\nregistries:\n  - {{address: '{}'}}\n",
        registry.url()
    )
}

/// Runs containerd's own client.
async fn ctr(containerd: &Containerd, args: &[&str]) -> String {
    let output = tokio::process::Command::new(&containerd.tools().ctr)
        .arg("--address")
        .arg(containerd.socket())
        .args(["--namespace", "k8s.io"])
        .args(args)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "ctr {args:?}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

async fn run(cache: &CacheProcess, args: &[&str]) -> String {
    let output = cache.run(args).await;
    assert!(output.status.success(), "{args:?}: {}", text(&output));
    text(&output)
}

/// A containerd that pulls by way of a cache.
async fn containerd_behind(cache: &CacheProcess) -> Containerd {
    let containerd = Containerd::start().await.unwrap();
    let at = format!("http://{}", cache.address);
    let hosts =
        format!("server = \"{at}\"\n[host.\"{at}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
    containerd.write_hosts("images.test", &hosts).unwrap();
    containerd
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_connected_site_to_one_without_a_network() {
    let registry = DockerRegistry::plain().await.unwrap();
    let image = Image::index("travels", Format::Oci);
    registry.push(&image, "team/app", "1").await.unwrap();
    let connected = CacheProcess::start(&config(&registry), "").await;
    let usb = tempfile::tempdir().unwrap();
    let stick = usb.path().join("stick.tar");

    // What is not there is told, and no file is left.
    let refused = connected.run(&["export", NAME, "-o", path(&stick)]).await;
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("cache warm"), "{}", text(&refused));
    assert_eq!(std::fs::read_dir(usb.path()).unwrap().count(), 0);

    run(&connected, &["warm", "--platform", "all", NAME]).await;
    let said = run(&connected, &["export", NAME, "-o", path(&stick)]).await;
    assert!(said.contains("linux/amd64 linux/arm64"), "{said}");
    assert_eq!(std::fs::read_dir(usb.path()).unwrap().count(), 1);
    drop(registry);

    // Another cache, which reaches nobody, gives it to a containerd; also after a restart.
    let mut alone = CacheProcess::start(NOBODY, "").await;
    let containerd = containerd_behind(&alone).await;
    let client = containerd.client();
    assert!(client.pull(NAME, None).await.is_err());
    let said = run(&alone, &["import", "--pin", path(&stick)]).await;
    assert!(said.contains(&format!("{NAME} is pinned")), "{said}");
    alone.stop().await;
    alone.start_again().await;
    let id = client.pull(NAME, None).await.unwrap();
    assert_eq!(id, image.config_digest);
    let listed = alone.run(&["ls", "--json"]).await;
    let images: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(images[0]["name"], NAME);
    assert_eq!(images[0]["pinned"], true);
    assert_eq!(images[0]["from"], "an image layout");
    let path = "/v2/team/app/manifests/1?ns=images.test";
    let answer = alone.get(path, "").await;
    assert_eq!((answer.status, answer.header("warning")), (200, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containerd_reads_what_we_write_and_we_read_what_it_writes() {
    let registry = DockerRegistry::plain().await.unwrap();
    let image = Image::index("both ways", Format::Docker);
    let single = Image::sized("single", 3_000_000);
    registry.push(&image, "team/app", "1").await.unwrap();
    registry.push(&single, "team/single", "2").await.unwrap();
    let cache = CacheProcess::start(&config(&registry), "").await;
    let single_name = "images.test/team/single:2";
    run(&cache, &["warm", "--platform", "all", NAME, single_name]).await;
    let usb = tempfile::tempdir().unwrap();
    let ours = usb.path().join("ours.tar");
    run(&cache, &["export", NAME, single_name, "-o", path(&ours)]).await;
    drop(registry);

    let containerd = Containerd::start().await.unwrap();
    ctr(
        &containerd,
        &["images", "import", "--all-platforms", path(&ours)],
    )
    .await;
    let names = ctr(&containerd, &["images", "ls", "-q"]).await;
    assert!(names.lines().any(|name| name == NAME), "{names}");
    assert!(names.lines().any(|name| name == single_name), "{names}");
    let checked = ctr(&containerd, &["images", "check"]).await;
    for name in [NAME, single_name] {
        let is_whole = |line: &str| line.starts_with(name) && line.contains(" complete ");
        assert!(checked.lines().any(is_whole), "{checked}");
    }
    // Kubelet sees them.
    let known = containerd.client().status(NAME).await.unwrap().unwrap();
    assert_eq!(known.id, image.config_digest);

    // And back, once with all platforms and once with this machine's.
    for (platforms, file) in [("--all-platforms", "all.tar"), ("--platform", "one.tar")] {
        let theirs = usb.path().join(file);
        let machine = match std::env::consts::ARCH {
            "aarch64" => "linux/arm64",
            _ => "linux/amd64",
        };
        let mut args = vec!["images", "export", platforms];
        if platforms == "--platform" {
            args.push(machine);
        }
        args.extend([path(&theirs), NAME, single_name]);
        ctr(&containerd, &args).await;
        let mut alone = CacheProcess::start(NOBODY, "").await;
        // On the directory itself, without a running cache.
        alone.stop().await;
        run(&alone, &["import", path(&theirs)]).await;
        alone.start_again().await;
        assert!(alone.run(&["verify"]).await.status.success());
        let behind = containerd_behind(&alone).await;
        let id = behind.client().pull(NAME, None).await.unwrap();
        assert_eq!(id, image.config_digest, "{file}");
        let id = behind.client().pull(single_name, None).await.unwrap();
        assert_eq!(id, single.config_digest, "{file}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_pipes_by_directories_and_by_another_name() {
    let registry = DockerRegistry::plain().await.unwrap();
    let image = Image::new("pipes");
    registry.push(&image, "team/app", "1").await.unwrap();
    let cache = CacheProcess::start(&config(&registry), "").await;
    run(&cache, &["warm", NAME]).await;
    // By its digest alone it has no name in the layout.
    let digest = image.manifest_digest.as_str();
    let exported = cache.run(&["export", digest, "-o", "-"]).await;
    assert!(exported.status.success());
    let tar = exported.stdout;

    let alone = CacheProcess::start(NOBODY, "").await;
    let piped = async |args: &[&str], content: &[u8]| {
        let mut command = alone.command(args);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // Who has seen enough closes the pipe.
        let _ = stdin.write_all(content).await;
        drop(stdin);
        child.wait_with_output().await.unwrap()
    };
    let refused = piped(&["import", "-"], &tar).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("--name"), "{}", text(&refused));
    let taken = piped(&["import", "-", "--name", "other.test/x:2"], &tar).await;
    assert!(taken.status.success(), "{}", text(&taken));
    let answer = alone.get("/v2/other.test/x/manifests/2", "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("docker-content-digest"), Some(digest));

    // The same as a directory.
    let dir = tempfile::tempdir().unwrap();
    tar::Archive::new(tar.as_slice())
        .unpack(dir.path())
        .unwrap();
    run(
        &alone,
        &["import", path(dir.path()), "--name", "other.test/y"],
    )
    .await;
    let answer = alone.get("/v2/other.test/y/manifests/latest", "").await;
    assert_eq!(answer.status, 200);
    // What is no layout, and what is not there.
    let refused = piped(&["import", "-"], &[0x1f, 0x8b, 0, 0]).await;
    assert!(text(&refused).contains("gunzip"), "{}", text(&refused));
    let wrong = dir.path().join("values.yaml");
    std::fs::write(&wrong, "auth: admin:hunter2\n".repeat(60)).unwrap();
    let refused = alone.run(&["import", path(&wrong)]).await;
    let told = text(&refused);
    let names_it = told.contains(&format!("{}: it is no tar archive", path(&wrong)));
    assert!(names_it && !told.contains("hunter2"), "{told}");
    let half = &tar[..tar.len() / 2];
    let refused = piped(&["import", "-", "--name", "other.test/x:2"], half).await;
    let told = text(&refused);
    let says_so = told.contains("standard input: ") && told.contains("cut off after");
    assert!(says_so && told.contains("copy it again"), "{told}");
    let refused = alone.run(&["import", "/nonexistent.tar"]).await;
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_is_killed_in_the_middle_has_nothing_half() {
    let registry = DockerRegistry::plain().await.unwrap();
    let image = Image::sized("killed", 4_000_000);
    registry.push(&image, "team/app", "1").await.unwrap();
    let cache = CacheProcess::start(&config(&registry), "").await;
    run(&cache, &["warm", NAME]).await;
    let exported = cache.run(&["export", NAME, "-o", "-"]).await;
    let tar = exported.stdout;
    let mut alone = CacheProcess::start(NOBODY, "").await;
    for part in [1, 2, 3] {
        let mut command = alone.command(&["import", "-"]);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // More than a pipe holds: so the cache has read most of it.
        stdin.write_all(&tar[..tar.len() * part / 4]).await.unwrap();
        alone.kill();
        drop(stdin);
        assert_eq!(child.wait().await.unwrap().code(), Some(2));
        alone.start_again().await;
        run(&alone, &["verify"]).await;
        assert!(!run(&alone, &["ls", "--json"]).await.contains(NAME));
    }
    let file = alone.dir.path().join("layout.tar");
    std::fs::write(&file, &tar).unwrap();
    run(&alone, &["import", path(&file)]).await;
    let answer = alone.get("/v2/images.test/team/app/manifests/1", "").await;
    assert_eq!(answer.status, 200);
}
