//! The Go program of the same name, whose unit an install has taken the place of.

use std::path::{Path, PathBuf};

use super::{before, is_before, read};
use crate::Error;
use crate::file::State;
use crate::ledger::Ledger;
use crate::root::Root;

/// The unit of both.
const UNIT: &str = "/etc/systemd/system/image-cri-shim.service";
/// What only our own unit says, also one that somebody had edited: where the shim listens, behind the link.
const OURS: &str = "/run/image-cri-shim/shim.sock";

/// Whether another shim's unit, whose program is there, stands on the node after [`super::uninstall`]: because that puts it
/// back, or leaves it. It then serves kubelet, on the socket that is a link as long as ours does.
///
/// # Errors
/// When the record, or what is kept with it, can't be read.
pub fn brings_back_the_predecessor(root: &Root) -> Result<bool, Error> {
    let path = unit(root)?;
    let current = read(root, &path)?;
    let ledger = Ledger::load(root)?;
    let then = match ledger.files.get(&path) {
        Some(entry) if entry.is_ours(&current) || is_before(entry, &current) => {
            before(root, entry)?
        }
        // Somebody has edited ours, or has put his own over it, so it stays.
        _ => current,
    };
    Ok(others_program(&then).is_some_and(|program| root.exists(program)))
}

/// Whether `current`, which stands at `path`, is the unit of another shim in the place of ours: it may come at any time, as
/// sealos brings it with each run.
pub(super) fn is_its_unit(root: &Root, path: &Path, current: &State) -> Result<bool, Error> {
    Ok(unit(root)? == path && others_program(current).is_some())
}

/// Where the unit of both stands, without symbolic links.
fn unit(root: &Root) -> Result<PathBuf, Error> {
    let unit = Path::new(UNIT);
    root.canonical(unit)
        .map_err(|e| Error::at("follow the links of", unit, e))
}

/// What a unit starts that is not ours.
fn others_program(unit: &State) -> Option<String> {
    let State::File { content, .. } = unit else {
        return None;
    };
    let text = String::from_utf8_lossy(content);
    if text.contains(OURS) {
        return None;
    }
    program(&text).map(str::to_owned)
}

/// The program that a unit starts.
fn program(unit: &str) -> Option<&str> {
    let starts = unit
        .lines()
        .filter_map(|line| line.trim().strip_prefix("ExecStart="));
    let program = starts
        .filter_map(|start| start.split_whitespace().next())
        .next_back()?;
    Some(program.trim_start_matches(['-', '@', ':', '+', '!']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::{Content, Wanted, install, install_by_steps, revert, uninstall};
    use crate::trees::Tree;

    const GO: &str = "[Unit]\nDescription=sealos image-cri-shim\n[Service]\nExecStart=/usr/bin/image-cri-shim -f /etc/image-cri-shim.yaml\n";

    fn installed(unit: &str, program: Option<&str>) -> Tree {
        let tree = Tree::new(&[]);
        if !unit.is_empty() {
            tree.write(UNIT, unit);
        }
        if let Some(program) = program {
            tree.write(program, "program");
        }
        install(&tree.root(), &ours("")).unwrap();
        tree
    }

    fn ours(more: &str) -> [Wanted; 1] {
        let unit = format!(
            "[Service]\nExecStart=/usr/local/bin/image-cri-shim serve --listen {OURS}\n{more}"
        );
        [Wanted {
            path: UNIT.into(),
            content: Content::File {
                bytes: unit.into(),
                mode: 0o644,
            },
            wiring: false,
            keep_existing: false,
            shared: false,
        }]
    }

    #[test]
    fn only_another_program_s_unit_whose_program_is_there() {
        let brings = |tree: &Tree| brings_back_the_predecessor(&tree.root()).unwrap();
        let tree = installed(GO, Some("/usr/bin/image-cri-shim"));
        assert!(brings(&tree));
        // Put back already, by a run that was killed.
        let ours = tree.text(UNIT);
        tree.write(UNIT, GO);
        assert!(brings(&tree));
        tree.write(UNIT, &format!("{ours}# mine\n"));
        assert!(!brings(&tree));
        assert!(!brings(&installed(GO, None)));
        assert!(!brings(&installed("", Some("/usr/bin/image-cri-shim"))));
        let edited =
            format!("[Service]\nExecStart=/usr/bin/image-cri-shim serve --listen {OURS} --more\n");
        assert!(!brings(&installed(
            &edited,
            Some("/usr/bin/image-cri-shim")
        )));
        assert!(!brings(&Tree::new(&[])));
    }

    #[test]
    fn a_unit_that_came_over_ours_is_put_back_too() {
        let newer = GO.replace("Description=sealos", "Description=newer sealos");
        // Whatever stood there at the first install.
        for first in ["", GO] {
            let tree = installed(first, Some("/usr/bin/image-cri-shim"));
            tree.write(UNIT, &newer);
            // Also while nobody has installed again.
            assert!(brings_back_the_predecessor(&tree.root()).unwrap());
            install(&tree.root(), &ours("")).unwrap();
            assert!(brings_back_the_predecessor(&tree.root()).unwrap());
            // A later version of ours changes nothing about that.
            install(&tree.root(), &ours("# later\n")).unwrap();
            uninstall(&tree.root()).unwrap();
            assert_eq!(tree.text(UNIT), newer, "{first}");

            // Taken back, since it did not work: the unit stays, and whoever leaves the node then knows it.
            let tree = installed(first, Some("/usr/bin/image-cri-shim"));
            tree.write(UNIT, &newer);
            let run = install(&tree.root(), &ours("")).unwrap();
            revert(&tree.root(), &run).unwrap();
            assert_eq!(tree.text(UNIT), newer, "{first}");
            assert!(brings_back_the_predecessor(&tree.root()).unwrap());
            uninstall(&tree.root()).unwrap();
            assert_eq!(tree.text(UNIT), newer, "{first}");
        }
    }

    #[test]
    fn a_crash_at_any_step_of_an_install_over_it() {
        for at in 0.. {
            let tree = installed("", Some("/usr/bin/image-cri-shim"));
            tree.write(UNIT, GO);
            let mut steps = 0;
            let run = install_by_steps(&tree.root(), &ours(""), &mut |what| {
                steps += 1;
                if steps > at {
                    return Err(Error::Unsupported(format!("crash before: {what}")));
                }
                Ok(())
            });
            if at % 2 == 0 {
                install(&tree.root(), &ours("")).unwrap();
            }
            uninstall(&tree.root()).unwrap();
            assert_eq!(tree.text(UNIT), GO, "{at}");
            if run.is_ok() {
                assert!(at > 2, "{at}");
                return;
            }
        }
    }

    #[test]
    fn an_edit_of_ours_is_still_written_over() {
        let tree = installed(GO, Some("/usr/bin/image-cri-shim"));
        let edited = tree.text(UNIT) + "# mine\n";
        for text in [edited.as_str(), ""] {
            tree.write(UNIT, text);
            install(&tree.root(), &ours("")).unwrap();
        }
        uninstall(&tree.root()).unwrap();
        assert_eq!(tree.text(UNIT), GO);
    }
}
