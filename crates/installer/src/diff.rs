//! Changes as people read them: unified diffs.

use std::fmt::Write as _;
use std::path::Path;

use similar::TextDiff;

use crate::file::State;
use crate::transaction::Change;
use crate::{DEFAULTS, RUNTIME_VARIABLE, env_file};

/// Lines around a change that are shown with it.
const CONTEXT: usize = 3;
/// Content beyond this is named, not shown: a program.
const MAX_SHOWN: usize = 64 * 1024;

/// One change as a unified diff. Lines that may hold a credential are not shown as they are: a diff goes
/// into tickets.
pub fn unified(change: &Change) -> String {
    let path = change.path.display();
    let name = |state: &State| match state {
        State::Absent => "/dev/null".to_owned(),
        _ => path.to_string(),
    };
    let (old_name, new_name) = (name(&change.current), name(&change.new));
    let shown = |state: &State| match state {
        State::Absent => Some(String::new()),
        State::Link { target } => Some(format!("symbolic link to {}\n", target.display())),
        State::File { content, .. } if content.len() > MAX_SHOWN => None,
        State::File { content, .. } => {
            let text = std::str::from_utf8(content).ok();
            match change.path == Path::new(DEFAULTS) {
                true => text.map(without_values),
                false => text.map(masked),
            }
        }
    };
    let (old_text, new_text) = (shown(&change.current), shown(&change.new));
    let (Some(old_text), Some(new_text)) = (old_text, new_text) else {
        let size = |state: &State| match state {
            State::File { content, .. } => format!("{} bytes", content.len()),
            State::Absent => "absent".to_owned(),
            State::Link { .. } => "a symbolic link".to_owned(),
        };
        let mut text = format!("--- {old_name}\n+++ {new_name}\n");
        let _ = writeln!(
            text,
            "not text: {} -> {}",
            size(&change.current),
            size(&change.new)
        );
        return text;
    };
    TextDiff::from_lines(&old_text, &new_text)
        .unified_diff()
        .context_radius(CONTEXT)
        .header(&old_name, &new_name)
        .to_string()
}

/// The shim's variables without their values: any of them may be what the config names as a password.
fn without_values(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut from = 0;
    for assignment in env_file::assignments(text) {
        let span = assignment.span;
        // Lines between them are comments.
        shown.push_str(&masked(text.get(from..span.start).unwrap_or_default()));
        if assignment.name == RUNTIME_VARIABLE {
            shown.push_str(text.get(span.clone()).unwrap_or_default());
        } else {
            let _ = write!(shown, "{}=<not shown>", assignment.name);
        }
        from = span.end;
    }
    shown.push_str(&masked(text.get(from..).unwrap_or_default()));
    shown
}

/// Words in the name of something whose value nobody should see.
const SECRETS: [&str; 5] = ["password", "token", "auth", "secret", "credential"];

/// `text` with the values of everything that is named like a secret replaced. A path is not one.
fn masked(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    // Whether the words up to the next line end, or only the next word, are a value.
    let (mut line_hidden, mut word_hidden) = (false, false);
    for part in text.split_inclusive(char::is_whitespace) {
        let word = part.trim_end_matches(char::is_whitespace);
        let space = part.get(word.len()..).unwrap_or_default();
        let bare = word.trim_matches(['"', '\'', ',', '[', ']', '{', '}']);
        let (name, value) = match bare.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (bare, None),
        };
        let lower = name.to_ascii_lowercase();
        let secret = SECRETS.iter().any(|word| lower.contains(word));
        let path = value.unwrap_or(bare).starts_with('/');
        if line_hidden || (word_hidden && !path && !word.starts_with('-')) {
            masked.push_str(if word.is_empty() { "" } else { "<not shown>" });
        } else if let (true, Some(value)) = (secret && !path, value) {
            masked.push_str(name);
            masked.push_str(if value.is_empty() {
                "="
            } else {
                "=<not shown>"
            });
        } else {
            masked.push_str(word);
        }
        if !word.is_empty() {
            word_hidden = secret && value.is_none() && bare.starts_with('-');
        }
        line_hidden |= secret && value.is_none() && bare.ends_with(':');
        if space.contains('\n') {
            (line_hidden, word_hidden) = (false, false);
        }
        masked.push_str(space);
    }
    masked
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::file::Attributes;

    #[test]
    fn a_change_reads_as_a_diff_and_holds_no_secret() {
        let change = Change {
            path: PathBuf::from("/etc/default/kubelet"),
            current: State::File {
                content: b"A=1\nTOKEN=hunter2\n".to_vec(),
                attributes: Attributes::default(),
            },
            new: State::File {
                content: b"A=2\nTOKEN=hunter2\n".to_vec(),
                attributes: Attributes::default(),
            },
        };
        assert_eq!(
            unified(&change),
            "--- /etc/default/kubelet\n+++ /etc/default/kubelet\n@@ -1,2 +1,2 @@\n-A=1\n+A=2\n TOKEN=<not shown>\n"
        );
    }

    #[test]
    fn secrets_are_masked_wherever_they_stand() {
        for (text, shown) in [
            (
                "auth: admin:pass word\nx: 1\n",
                "auth: <not shown> <not shown>\nx: 1\n",
            ),
            (
                "k3s agent --token hunter2 --v 2",
                "k3s agent --token <not shown> --v 2",
            ),
            (
                "k3s agent --token=hunter2 x",
                "k3s agent --token=<not shown> x",
            ),
            ("k0s --token-file=/etc/token", "k0s --token-file=/etc/token"),
            ("K3S_TOKEN='hunter2'\n", "K3S_TOKEN=<not shown>\n"),
        ] {
            assert_eq!(masked(text), shown);
        }
    }

    #[test]
    fn no_value_of_the_shim_s_own_variables_is_shown_but_the_runtime() {
        let before = "# HARBOR_TOKEN=old\nPW='a b'\nHTTPS_PROXY=http://u:p@proxy\n";
        let file = |text: &str| State::File {
            content: text.as_bytes().to_vec(),
            attributes: Attributes::default(),
        };
        let change = Change {
            path: PathBuf::from(DEFAULTS),
            current: file(before),
            new: file(&format!("{before}{RUNTIME_VARIABLE}=/run/x.sock\n")),
        };
        let shown = unified(&change);
        assert!(
            shown.ends_with(
                " # HARBOR_TOKEN=<not shown>\n PW=<not shown>\n HTTPS_PROXY=<not shown>\n+IMAGE_CRI_SHIM_RUNTIME=/run/x.sock\n"
            ),
            "{shown}"
        );
    }

    #[test]
    fn what_is_no_text_is_named() {
        let change = Change {
            path: PathBuf::from("/usr/local/bin/image-cri-shim"),
            current: State::Absent,
            new: State::File {
                content: vec![0xff; 10],
                attributes: Attributes::default(),
            },
        };
        assert_eq!(
            unified(&change),
            "--- /dev/null\n+++ /usr/local/bin/image-cri-shim\nnot text: absent -> 10 bytes\n"
        );
    }
}
