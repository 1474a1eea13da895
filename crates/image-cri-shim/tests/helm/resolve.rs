//! `helm template | image-cri-shim resolve -f -`, on our own chart.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use testkit::fake_registry::FakeRegistry;
use testkit::helm::Helm;
use testkit::images::Image;

use crate::world::{chart, rendered, root, value_set};

struct Resolved {
    code: Option<i32>,
    text: String,
}

fn resolve(config: &str, manifests: &str, more: &[&str]) -> Resolved {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, config).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_image-cri-shim"))
        .env_clear()
        // Nothing is looked for outside of this machine.
        .env("HTTPS_PROXY", "http://127.0.0.1:9")
        .env("KUBECONFIG", "/nonexistent")
        .env("COLUMNS", "1000")
        .arg("-f")
        .arg(&file)
        .args(["resolve", "-f", "-"])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(manifests.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    Resolved {
        code: output.status.code(),
        text: format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

#[test]
fn our_own_image_is_found_in_our_own_chart() {
    let image = format!("image-cri-shim:{}", env!("CARGO_PKG_VERSION"));
    let registry = FakeRegistry::start().unwrap();
    let config = format!(
        "registries:\n  - address: {}\n    mirrorOf: [registry.example.com]\n",
        registry.url()
    );
    let manifests = rendered(&value_set("defaults"), &[]);
    let absent = resolve(&config, &manifests, &[]);
    assert_eq!(absent.code, Some(1), "{}", absent.text);
    registry.add(
        &Image::new("shim"),
        "image-cri-shim",
        env!("CARGO_PKG_VERSION"),
    );
    let found = resolve(&config, &manifests, &[]);
    assert_eq!(found.code, Some(0), "{}", found.text);
    assert!(
        found
            .text
            .contains(&format!("registry.example.com/{image}")),
        "{}",
        found.text
    );
    assert!(
        found.text.contains(&format!("{}/{image}", registry.host())),
        "{}",
        found.text
    );
}

#[test]
fn every_image_of_every_set_is_found() {
    for (set, values) in crate::world::value_sets() {
        let manifests = rendered(&values, &[]);
        let pods = manifests.matches("\n          image: ").count();
        let resolved = resolve("registries: []\n", &manifests, &["--offline", "--json"]);
        if pods == 0 {
            assert_eq!(resolved.code, Some(2), "{set}: {}", resolved.text);
            continue;
        }
        assert_eq!(resolved.code, Some(0), "{set}: {}", resolved.text);
        assert!(resolved.text.contains("image-cri-shim"), "{set}");
    }
}

/// The commands of the chart's README, as they stand there.
#[test]
fn the_readme_says_how_to_look_at_the_config_first() {
    let readme = std::fs::read_to_string(chart().join("README.md")).unwrap();
    let block = |after: &str, language: &str| {
        let (_, rest) = readme.split_once(after).unwrap();
        let (_, rest) = rest.split_once(&format!("```{language}\n")).unwrap();
        rest.split_once("```").unwrap().0.to_owned()
    };
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(
        root().join("deploy").canonicalize().unwrap(),
        dir.path().join("deploy"),
    )
    .unwrap();
    std::fs::write(
        dir.path().join("my-values.yaml"),
        block("# The Helm chart", "yaml"),
    )
    .unwrap();
    let commands: Vec<String> = block("## Check it first", "console")
        .lines()
        .map(|line| line.strip_prefix("$ ").unwrap().to_owned())
        // Nobody is asked, and a chart is what is there.
        .map(|line| match line.contains("resolve") {
            true => format!(
                "{} --offline",
                line.replace("my-chart", "deploy/helm/image-cri-shim")
            ),
            false => line,
        })
        .collect();
    assert_eq!(commands.len(), 4);
    let helm = Helm::ensure().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_image-cri-shim"));
    let folders = [helm.helm.as_path(), program]
        .map(|program| program.parent().unwrap().display().to_string());
    let output = Command::new("sh")
        .env_clear()
        .env("HOME", dir.path())
        .env("KUBECONFIG", "/nonexistent")
        .env("PATH", format!("{}:/usr/bin:/bin", folders.join(":")))
        .env("COLUMNS", "1000")
        .current_dir(dir.path())
        .args(["-euc", &commands.join("\n")])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("config.yaml: good"), "{text}");
    assert!(
        text.contains("harbor.corp.example/dockerhub/nginx:1.27"),
        "{text}"
    );
    assert!(
        text.contains(&format!("image-cri-shim:{}", env!("CARGO_PKG_VERSION"))),
        "{text}"
    );
}
