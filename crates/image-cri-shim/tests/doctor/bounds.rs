//! Deadlines, images of nodes, and what else is bounded.

use std::time::{Duration, Instant};

use crate::world::World;

#[tokio::test]
async fn what_hangs_keeps_its_deadline_and_hides_nothing_else() {
    let world = World::running().await;
    // systemd does not answer, and neither does the registry.
    world.program("systemctl", "exec sleep 600");
    world.registry.set_black_hole(true);
    let started = Instant::now();
    let page = world.doctor_with(&["--live", "--timeout", "1s"]).await;
    // Two runs, each of which would take ten minutes. The machine may be busy.
    assert!(
        started.elapsed() < Duration::from_secs(120),
        "{}",
        page.text
    );
    assert_eq!(page.code, 2);
    for part in [
        "systemd does not say how the units are: no answer within 1s",
        "no answer within 1s from https://127.0.0.1:",
        "kubelet is told to dial",
        "its image service answers",
    ] {
        assert!(page.text.contains(part), "{part}\n{}", page.text);
    }
}

#[tokio::test]
async fn an_image_of_a_node_has_files_only() {
    let world = World::new().await;
    let page = world.doctor_with(&[]).await;
    assert_eq!(page.code, 0, "{}", page.text);
    assert!(world.registry.requests().is_empty(), "{}", page.text);
    let lines = page.json["lines"].as_array().unwrap();
    assert!(
        lines.iter().any(|line| line["check"] == "wiring"),
        "{}",
        page.text
    );
    assert!(
        lines.iter().all(|line| line["check"] != "daemon"),
        "{}",
        page.text
    );
    world.write("/etc/default/kubelet", "KUBELET_EXTRA_ARGS=\n");
    let page = world.doctor_with(&[]).await;
    page.bad("wiring", "the wiring is lost", "image-cri-shim install");
}

#[tokio::test]
async fn no_node_at_all() {
    let world = World::new().await;
    let nothing = tempfile::tempdir().unwrap();
    let (code, text) = world.run_in(nothing.path(), &["--live"]).await;
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("no kubelet was found"), "{text}");
}
