//! Completions and man pages.

use std::process::Command;

use crate::world::BINARY;

fn printed(args: &[&str]) -> String {
    let output = Command::new(BINARY).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn completions_know_commands_and_options() {
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&["completions", shell]);
        for word in ["resolve", "webhook", "log-format", "fallback", "history"] {
            // A word of the help alone is no option.
            assert_eq!(script.contains(word), word != "fallback", "{shell}: {word}");
        }
    }
    // bash itself reads it.
    let script = printed(&["completions", "bash"]);
    let read = Command::new("bash")
        .args(["-n", "-c", &script])
        .output()
        .unwrap();
    assert!(read.status.success(), "{read:?}");
}

#[test]
fn each_command_has_a_man_page() {
    assert!(printed(&["man"]).contains(".TH image-cri-shim 1"));
    let dir = tempfile::tempdir().unwrap();
    printed(&["man", dir.path().to_str().unwrap()]);
    for command in [
        "",
        "-serve",
        "-webhook",
        "-resolve",
        "-status",
        "-history",
        "-config-check",
    ] {
        let page = dir.path().join(format!("image-cri-shim{command}.1"));
        let text = std::fs::read_to_string(&page).unwrap();
        assert!(text.contains(".SH NAME"), "{}", page.display());
    }
}
