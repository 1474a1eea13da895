//! Images that are named in texts: arguments, environment variables, ConfigMaps.
//!
//! A text says nowhere that it is an image, so a name counts only where it is hard to mistake: with a
//! registry's host and with a tag or digest, as in `--prometheus-config-reloader=quay.io/org/reloader:v1`.
//! Less is enough where a flag or a variable says `image` itself: `--image=nginx:1.27`.

use crate::reference::Reference;

/// Whether a field of this name holds arguments or environment variables.
pub(super) fn is_field(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower == "command"
        || lower == "env"
        || ["args", "envs", "envvars"]
            .iter()
            .any(|end| lower.ends_with(end))
}

/// The images in a text. The `hint` says what the text is for, such as a variable's name or the flag
/// before it.
pub(super) fn images<'a>(hint: &str, text: &'a str) -> Vec<&'a str> {
    let (hint, value) = match text.split_once('=') {
        Some((name, value)) if !name.contains(char::is_whitespace) => (name, value),
        _ => (hint, text),
    };
    let value = value.trim();
    if hint.to_ascii_lowercase().contains("image") && is_image(value) {
        return vec![value];
    }
    let is_between = |c: char| c.is_whitespace() || ",;=|&`\"'\\()[]{}<>".contains(c);
    let words = text.split(is_between);
    let words = words.map(|word| word.trim_end_matches(['.', ':']));
    words.filter(|word| is_image_beyond_doubt(word)).collect()
}

/// In a text that is said to be an image: not the name of a policy or of a folder.
fn is_image(text: &str) -> bool {
    Reference::parse(text).is_ok_and(|name| is_pinned(&name) || has_host(text))
}

fn is_image_beyond_doubt(text: &str) -> bool {
    has_host(text) && Reference::parse(text).is_ok_and(|name| is_pinned(&name))
}

fn is_pinned(name: &Reference) -> bool {
    name.tag().is_some() || name.digest().is_some()
}

/// Whether the text begins with what only a host can be: `quay.io/`, `harbor:80/`.
fn has_host(text: &str) -> bool {
    match text.split_once('/') {
        Some((host, _)) => {
            host.contains(['.', ':']) && !host.starts_with('.') || host == "localhost"
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_texts() {
        let table: &[(&str, &str, &[&str])] = &[
            (
                "",
                "--prometheus-config-reloader=quay.io/p/reloader:v0.7",
                &["quay.io/p/reloader:v0.7"],
            ),
            ("", "--image=nginx:1.27", &["nginx:1.27"]),
            ("--sidecar-image", "nginx:1.27", &["nginx:1.27"]),
            ("--image-pull-policy", "Always", &[]),
            ("IMAGE_PULL_SECRET", "regcred", &[]),
            ("IMAGE_DIR", "var/lib/images", &[]),
            (
                "RELATED_IMAGE_PROXY",
                "quay.io/org/proxy",
                &["quay.io/org/proxy"],
            ),
            ("FOO", "quay.io/org/proxy", &[]),
            (
                "FOO",
                "localhost/app:1, harbor:80/b/c:2.",
                &["localhost/app:1", "harbor:80/b/c:2"],
            ),
            (
                "",
                "docker run --rm 'docker.io/library/alpine:3' sh",
                &["docker.io/library/alpine:3"],
            ),
            (
                "",
                "{\"image\":\"ghcr.io/a/b@sha256:0\"} ghcr.io/a/b:1",
                &["ghcr.io/a/b:1"],
            ),
            ("", "https://quay.io/a/b:1", &[]),
            ("", "http://proxy.corp:8080/x:1", &[]),
            ("--listen", "0.0.0.0:8080", &[]),
            ("", "$(IMAGE)", &[]),
            ("", "./bin/app:1", &[]),
        ];
        for (hint, text, expected) in table {
            assert_eq!(images(hint, text), *expected, "{hint} {text}");
        }
    }
}
