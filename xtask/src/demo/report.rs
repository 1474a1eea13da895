//! What the demo prints.

use testkit::cri_api::Image;

use super::scene::Scene;

/// The registries with what they hold, and the shim's config.
pub(crate) fn scene(scene: &Scene) {
    heading("A real containerd, three real registries, and the shim");
    for place in &scene.places {
        let images: Vec<&str> = place.images.iter().map(|(name, _)| name.as_str()).collect();
        println!(
            "  {:<8} {:<16} {}",
            place.label,
            place.registry.host(),
            place.what
        );
        println!("  {:<8} {:<16} has {}", "", "", images.join(", "));
    }
    println!("\n  Every image differs from all others, so that its ID tells where it came from.");
    heading("The shim's config");
    for line in scene.config.lines() {
        println!("  {line}");
    }
}

pub(crate) fn heading(text: &str) {
    println!("\n{text}");
}

/// What was asked of the shim.
pub(crate) fn asked(call: &str, image: &str, more: Option<&str>) {
    let more = more.map(|more| format!(" ({more})")).unwrap_or_default();
    println!("\n  {call} {}{more}", short(image));
}

/// One line of what came of it.
pub(crate) fn line(name: &str, text: &str) {
    println!("    {name:<7} {}", short(text));
}

pub(crate) fn problems(problems: &[String]) {
    for problem in problems {
        println!("    WRONG   {problem}");
    }
}

/// The images of a runtime.
pub(crate) fn images(scene: &Scene, images: &[Image]) {
    println!("\n  {:<14} {:<9} NAME", "IMAGE ID", "FROM");
    for image in images {
        let names = if image.repo_tags.is_empty() {
            &image.repo_digests
        } else {
            &image.repo_tags
        };
        let id = image.id.trim_start_matches("sha256:");
        let id = id.get(..12).unwrap_or(id);
        let owner = scene.owner(&image.id).unwrap_or("?");
        println!("  {id:<14} {owner:<9} {}", short(&names.join(", ")));
    }
}

/// An error that came back through the shim: the runtime's words, then one line of what was tried.
pub(crate) fn error(message: &str) {
    let mut lines = message.lines();
    line("error", lines.next().unwrap_or(""));
    for trail in lines {
        for part in trail.split("; ") {
            line("", part);
        }
    }
}

/// Cuts every digest in a text to what tells it from others: `sha256:0123456789ab…`.
pub(crate) fn short(text: &str) -> String {
    const KEPT: usize = 12;
    let mut parts = text.split("sha256:");
    let mut short = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let hex = part.bytes().take_while(u8::is_ascii_hexdigit).count();
        let (digest, rest) = part.split_at(hex);
        short.push_str("sha256:");
        match digest.get(..KEPT) {
            Some(kept) if hex == 64 => {
                short.push_str(kept);
                short.push('…');
            }
            _ => short.push_str(digest),
        }
        short.push_str(rest);
    }
    short
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn digests_are_cut_and_nothing_else_is() {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        assert_eq!(short(&digest), "sha256:0123456789ab…");
        assert_eq!(
            short(&format!("a@{digest}: not found; b@{digest}")),
            "a@sha256:0123456789ab…: not found; b@sha256:0123456789ab…"
        );
        for kept in ["", "nginx:1.27", "sha256:abc", "x sha256: y"] {
            assert_eq!(short(kept), kept);
        }
    }
}
