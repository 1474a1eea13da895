//! A config that `install` has brought, and that the shim itself writes anew: with the ConfigMap merged into it.

use std::path::Path;

use crate::Error;
use crate::file;
use crate::ledger::{Ledger, Rewritten};
use crate::root::Root;

/// To be told before the shim replaces `old` in its config at `path` by `new`. Where `old` is what an install has put there,
/// or what the shim has made of that, `new` is ours, too: a later install may replace it, and [`super::uninstall`]
/// removes it. What somebody has edited stays his.
///
/// # Errors
/// When the record can't be read, or the note can't be written: the new file then counts as edited.
pub fn note_rewrite(root: &Root, path: &Path, old: &[u8], new: &[u8]) -> Result<(), Error> {
    let path = root
        .canonical(path)
        .map_err(|e| Error::at("follow the links of", path, e))?;
    let ledger = Ledger::load(root)?;
    let Some(entry) = ledger.files.get(&path) else {
        return Ok(());
    };
    let before = file::digest(old);
    let made_of = match &entry.rewritten {
        Some(last) if last.is(&before) => last.made_of.clone(),
        _ if entry.has_put(&before) => before.clone(),
        _ => return Ok(()),
    };
    let after = file::digest(new);
    Rewritten {
        path,
        made_of,
        before,
        after,
    }
    .save(root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::{Content, Wanted, changes, install, revert, uninstall};
    use crate::trees::Tree;

    const CONFIG: &str = "/etc/image-cri-shim.yaml";

    fn config(text: &str) -> [Wanted; 1] {
        [Wanted {
            path: CONFIG.into(),
            content: Content::File {
                bytes: text.into(),
                mode: 0o600,
            },
            wiring: false,
            keep_existing: true,
            shared: false,
        }]
    }

    /// As the shim does it.
    fn rewrite(tree: &Tree, new: &str) {
        let old = tree.text(CONFIG);
        note_rewrite(
            &tree.root(),
            Path::new(CONFIG),
            old.as_bytes(),
            new.as_bytes(),
        )
        .unwrap();
        tree.write(CONFIG, new);
    }

    fn tree() -> Tree {
        let tree = Tree::new(&[]);
        std::fs::create_dir(tree.place("/etc")).unwrap();
        tree
    }

    #[test]
    fn what_the_shim_made_of_our_config_is_ours() {
        let tree = tree();
        let before = tree.snapshot();
        install(&tree.root(), &config("one")).unwrap();
        for text in ["one, merged", "one, merged again"] {
            rewrite(&tree, text);
            // Nothing to do as long as the same is wanted.
            assert_eq!(install(&tree.root(), &config("one")).unwrap(), [], "{text}");
            assert_eq!(tree.text(CONFIG), text);
        }
        install(&tree.root(), &config("two")).unwrap();
        assert_eq!(tree.text(CONFIG), "two");
        rewrite(&tree, "two, merged");
        assert_eq!(changes(&tree.root(), &config("two")).unwrap(), []);
        uninstall(&tree.root()).unwrap();
        assert_eq!(tree.snapshot(), before);
    }

    #[test]
    fn a_shim_that_was_killed_before_it_wrote() {
        let tree = tree();
        let before = tree.snapshot();
        install(&tree.root(), &config("one")).unwrap();
        rewrite(&tree, "one, merged");
        let note = |old: &[u8], new: &[u8]| {
            note_rewrite(&tree.root(), Path::new(CONFIG), old, new).unwrap();
        };
        note(b"one, merged", b"never written");
        assert_eq!(changes(&tree.root(), &config("one")).unwrap(), []);
        // It looks again, and finds what stands there.
        note(b"one, merged", b"one, otherwise");
        tree.write(CONFIG, "one, otherwise");
        assert_eq!(changes(&tree.root(), &config("one")).unwrap(), []);
        uninstall(&tree.root()).unwrap();
        assert_eq!(tree.snapshot(), before);
    }

    #[test]
    fn what_somebody_has_edited_stays_his_whatever_is_merged_into_it() {
        let tree = tree();
        install(&tree.root(), &config("one")).unwrap();
        rewrite(&tree, "one, merged");
        tree.write(CONFIG, "mine");
        rewrite(&tree, "mine, merged");
        assert_eq!(install(&tree.root(), &config("two")).unwrap(), []);
        let undone = uninstall(&tree.root()).unwrap();
        assert_eq!(undone.left, [Path::new(CONFIG)]);
        assert_eq!(tree.text(CONFIG), "mine, merged");
        // Nothing is noted where nothing is installed.
        rewrite(&tree, "more");
        assert!(!tree.root().exists(crate::ledger::FOLDER));
    }

    #[test]
    fn an_upgrade_that_is_taken_back() {
        let tree = tree();
        let before = tree.snapshot();
        install(&tree.root(), &config("one")).unwrap();
        rewrite(&tree, "one, merged");
        let upgrade = install(&tree.root(), &config("two")).unwrap();
        rewrite(&tree, "two, merged");
        tree.write(CONFIG, "two");
        revert(&tree.root(), &upgrade).unwrap();
        assert_eq!(tree.text(CONFIG), "one, merged");
        rewrite(&tree, "one, merged again");
        uninstall(&tree.root()).unwrap();
        assert_eq!(tree.snapshot(), before);
    }
}
