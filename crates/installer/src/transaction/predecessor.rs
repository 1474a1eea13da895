//! The Go program of the same name, whose unit an install has taken the place of.

use std::path::Path;

use super::{before, is_before, read};
use crate::Error;
use crate::file::State;
use crate::ledger::Ledger;
use crate::root::Root;

/// The unit of both.
const UNIT: &str = "/etc/systemd/system/image-cri-shim.service";
/// What only our own unit says, also one that somebody had edited: where the shim listens, behind the link.
const OURS: &str = "/run/image-cri-shim/shim.sock";

/// Whether [`super::uninstall`] puts the unit of another shim back, whose program is there: it then serves kubelet, on
/// the socket that is a link as long as ours does.
///
/// # Errors
/// When the record, or what is kept with it, can't be read.
pub fn brings_back_the_predecessor(root: &Root) -> Result<bool, Error> {
    let unit = Path::new(UNIT);
    let path = root
        .canonical(unit)
        .map_err(|e| Error::at("follow the links of", unit, e))?;
    let ledger = Ledger::load(root)?;
    let Some(entry) = ledger.files.get(&path) else {
        return Ok(false);
    };
    let current = read(root, &path)?;
    if !entry.is_ours(&current) && !is_before(entry, &current) {
        // Somebody has edited ours, so it stays.
        return Ok(false);
    }
    let State::File { content, .. } = before(root, entry)? else {
        return Ok(false);
    };
    let text = String::from_utf8_lossy(&content);
    Ok(!text.contains(OURS) && program(&text).is_some_and(|program| root.exists(program)))
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
    use crate::transaction::{Content, Wanted, install};
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
        let ours =
            format!("[Service]\nExecStart=/usr/local/bin/image-cri-shim serve --listen {OURS}\n");
        let wanted = Wanted {
            path: UNIT.into(),
            content: Content::File {
                bytes: ours.into(),
                mode: 0o644,
            },
            wiring: false,
            keep_existing: false,
            shared: false,
        };
        install(&tree.root(), &[wanted]).unwrap();
        tree
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
}
