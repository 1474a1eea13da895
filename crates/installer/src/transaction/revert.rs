//! Going back to what an earlier run had installed.

use super::{Back, Change, Undone, is_before, put, put_back, read};
use crate::Error;
use crate::ledger::{Entry, Ledger, Saved};
use crate::root::Root;

/// Undoes one run of [`super::install`] alone, by the changes that it made: what an earlier run had installed stands
/// there again, and `uninstall` still puts back what was there first. A file that somebody has edited since is left and
/// named.
///
/// # Errors
/// When a step fails. Whatever runs next, `install` or `uninstall`, goes on from there.
pub fn revert(root: &Root, changes: &[Change]) -> Result<Undone, Error> {
    let mut ledger = Ledger::load(root)?;
    // From here on both contents count as ours.
    for change in changes {
        match ledger.files.get_mut(&change.path) {
            Some(entry) if is_before(entry, &change.current) => {}
            Some(entry) => {
                entry.after = change.current.digest().unwrap_or_default();
                entry.replaced = change.new.digest();
            }
            // The run had put it back and forgotten it; or this is done already.
            None if read(root, &change.path)? == change.new => {
                let entry = Entry {
                    before: Saved::of(root, &change.new)?,
                    after: change.current.digest().unwrap_or_default(),
                    replaced: None,
                    wiring: super::names_the_shim(&change.current),
                    rewritten: None,
                };
                ledger.files.insert(change.path.clone(), entry);
            }
            None => {}
        }
    }
    ledger.save(root)?;
    let mut undone = Undone::default();
    for change in changes.iter().rev() {
        let Some(entry) = ledger.files.get(&change.path) else {
            continue;
        };
        if is_before(entry, &change.current) {
            match put_back(root, &change.path, entry)? {
                Back::Restored => undone.restored.push(change.path.clone()),
                Back::Already => {}
                Back::Edited => {
                    undone.left.push(change.path.clone());
                    continue;
                }
            }
            ledger.files.remove(&change.path);
            continue;
        }
        let current = read(root, &change.path)?;
        if current == change.current {
            continue;
        }
        if current == change.new {
            put(root, &change.path, &change.current)?;
            undone.restored.push(change.path.clone());
        } else {
            undone.left.push(change.path.clone());
        }
    }
    ledger.save(root)?;
    Ok(undone)
}
