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

/// The man page `name`, without roff's quoting.
fn page(name: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    printed(&["man", dir.path().to_str().unwrap()]);
    let text = std::fs::read_to_string(dir.path().join(format!("{name}.1"))).unwrap();
    text.replace('\\', "")
}

#[test]
fn the_page_of_the_program_has_the_sections_that_people_look_for() {
    let page = page("image-cri-shim");
    for part in [
        ".SH \"EXIT STATUS\"",
        ".SH ENVIRONMENT",
        "IMAGE_CRI_SHIM_RUNTIME",
        ".SH FILES",
        "/etc/image-cri-shim.yaml",
        ".SH SIGNALS",
        "SIGHUP",
        ".SH \"SEE ALSO\"",
        "docs/config.md",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    // The page on standard output is the same, but for the names of the commands' pages.
    assert!(printed(&["man"]).contains(".SH FILES"));
}

#[test]
fn the_page_of_each_command_says_how_it_ends() {
    for (command, status) in [
        ("serve", "could not start"),
        ("config-check", "also with warnings"),
        ("config-diff", "2 where that can't be told"),
        ("resolve", "130"),
        ("install", "3 where --check finds"),
        ("node-installer", "could not start"),
        ("cache", "could not start"),
        ("cache-verify", "is damaged"),
        ("cache-mirror-config", "is damaged"),
        ("status", "no shim answers"),
    ] {
        let page = page(&format!("image-cri-shim-{command}"));
        let (_, ends) = page
            .split_once(".SH \"EXIT STATUS\"")
            .unwrap_or_else(|| panic!("{command}: {page}"));
        assert!(ends.contains(status), "{command}: {ends}");
        assert!(ends.contains("image-cri-shim(1)"), "{command}: {ends}");
    }
}
