//! All is well.

use regex::Regex;

use crate::world::World;

#[tokio::test]
async fn every_line_is_ok_and_the_page_is_short() {
    let world = World::running().await;
    // A call of kubelet's.
    world
        .shim
        .client()
        .status("docker.io/library/x:1")
        .await
        .unwrap();
    let page = world.doctor().await;
    assert_eq!(page.code, 0, "{}", page.text);
    assert_eq!(page.json["verdict"], "ok");
    let lines = page.json["lines"].as_array().unwrap();
    assert!(
        lines.iter().all(|line| line["mend"].is_null()),
        "{}",
        page.text
    );
    // One page, so that it can be read at three in the morning.
    assert!(page.text.lines().count() < 60, "{}", page.text);
    insta::assert_snapshot!(settled(&page.text, &world));
}

/// The text with what differs from run to run replaced.
fn settled(text: &str, world: &World) -> String {
    let mut text = text.replace(&world.root().display().to_string(), "");
    for (pattern, replacement) in [
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "[time]"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "[time]"),
        (r"127\.0\.0\.1:\d{4,5}\b", "registry.test:5000"),
        (r"\b\d+(\.\d+)? (µs|ms|s)\b", "[duration]"),
        (r"up \d+s", "up [duration]"),
        (r"pid \d+, up", "pid [pid], up"),
        (r"\d+ (GiB|MiB)", "[size]"),
        (r"containerd \S+", "containerd [version]"),
        (
            r"/tmp/testkit-containerd-[^/ ]+/root",
            "/var/lib/containerd",
        ),
        (
            r"image-cri-shim doctor \S+",
            "image-cri-shim doctor [version]",
        ),
        (
            r"image-cri-shim \d+\.\d+\.\d+ answers",
            "image-cri-shim [version] answers",
        ),
    ] {
        text = Regex::new(pattern)
            .unwrap()
            .replace_all(&text, replacement)
            .into_owned();
    }
    text
}
