use super::*;
use crate::trees::Tree;

fn wanted(path: &str, text: &str, wiring: bool) -> Wanted {
    Wanted {
        path: PathBuf::from(path),
        content: Content::File {
            bytes: text.as_bytes().to_vec(),
            mode: 0o755,
        },
        wiring,
        keep_existing: false,
        shared: false,
    }
}

/// A change of a file, a new file in a new directory, a link, and a config that may be there.
fn some() -> (Tree, Vec<Wanted>) {
    let tree = Tree::new(&[
        ("/etc/default/kubelet", "A=1\n"),
        ("/etc/old.yaml", "mine\n"),
        ("/var/lib/other/file", "x"),
    ]);
    tree.chmod("/etc/default/kubelet", 0o600);
    let mut all = vec![
        wanted("/usr/local/bin/program", "bytes", false),
        wanted("/etc/default/kubelet", "A=2\n", true),
        wanted("/etc/new/deep/file", "y", true),
        wanted("/etc/old.yaml", "ours\n", false),
    ];
    all[3].keep_existing = true;
    all.push(Wanted {
        path: PathBuf::from("/etc/wants/program.service"),
        content: Content::Link(PathBuf::from("/etc/program.service")),
        wiring: false,
        keep_existing: false,
        shared: false,
    });
    (tree, all)
}

#[test]
fn a_crash_at_any_step_can_be_finished_or_undone() {
    let (tree, all) = some();
    let before = tree.snapshot();
    // How many steps there are.
    let mut steps = 0;
    install_by_steps(&tree.root(), &all, &mut |_| {
        steps += 1;
        Ok(())
    })
    .unwrap();
    assert!(steps >= 8, "{steps}");
    let mut undo_steps = 0;
    uninstall_by_steps(&tree.root(), &mut |_| {
        undo_steps += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(tree.snapshot(), before);

    let crash_at = |at: usize| {
        let mut step = 0;
        move |what: &str| {
            step += 1;
            if step > at {
                return Err(Error::Unsupported(format!("crash before: {what}")));
            }
            Ok(())
        }
    };
    for at in 0..steps {
        // Undone after a crash of install.
        let (tree, all) = some();
        let before = tree.snapshot();
        let strip = |tree: &Tree| {
            tree.snapshot()
                .into_iter()
                .map(|(path, seen)| (path.strip_prefix(tree.place("/")).unwrap().to_owned(), seen))
                .collect::<Vec<_>>()
        };
        install_by_steps(&tree.root(), &all, &mut crash_at(at)).unwrap_err();
        let undone = uninstall(&tree.root()).unwrap();
        assert_eq!(undone.left, Vec::<PathBuf>::new(), "crash at {at}");
        assert_eq!(tree.snapshot(), before, "crash at {at}");
        // Finished after a crash of install.
        install_by_steps(&tree.root(), &all, &mut crash_at(at)).unwrap_err();
        install(&tree.root(), &all).unwrap();
        assert_eq!(changes(&tree.root(), &all).unwrap(), []);
        let (whole, all) = some();
        install(&whole.root(), &all).unwrap();
        assert_eq!(strip(&tree), strip(&whole), "crash at {at}");
    }
    for at in 0..undo_steps {
        // Undone after a crash of uninstall, and done again.
        let (tree, all) = some();
        let before = tree.snapshot();
        install(&tree.root(), &all).unwrap();
        uninstall_by_steps(&tree.root(), &mut crash_at(at)).unwrap_err();
        uninstall(&tree.root()).unwrap();
        assert_eq!(tree.snapshot(), before, "crash at {at}");
        install(&tree.root(), &all).unwrap();
        uninstall_by_steps(&tree.root(), &mut crash_at(at)).unwrap_err();
        install(&tree.root(), &all).unwrap();
        assert_eq!(changes(&tree.root(), &all).unwrap(), []);
        uninstall(&tree.root()).unwrap();
        assert_eq!(tree.snapshot(), before, "crash at {at}");
    }
}

#[test]
fn what_was_edited_since_is_left_and_named_and_a_wired_kubelet_keeps_its_socket() {
    let (tree, all) = some();
    install(&tree.root(), &all).unwrap();
    tree.write("/etc/default/kubelet", "A=2 /run/image-cri-shim.sock\n");
    let undone = uninstall(&tree.root()).unwrap();
    assert_eq!(undone.still_wired, [PathBuf::from("/etc/default/kubelet")]);
    assert!(
        tree.root().exists("/usr/local/bin/program"),
        "kubelet would dial nothing"
    );
    assert_eq!(
        tree.text("/etc/default/kubelet"),
        "A=2 /run/image-cri-shim.sock\n"
    );
    // The line is taken out by hand: now it goes on.
    tree.write("/etc/default/kubelet", "A=4\n");
    let undone = uninstall(&tree.root()).unwrap();
    assert_eq!(undone.left, [PathBuf::from("/etc/default/kubelet")]);
    assert_eq!(tree.text("/etc/default/kubelet"), "A=4\n");
    assert!(!tree.root().exists("/usr/local/bin/program"));

    let (tree, all) = some();
    install(&tree.root(), &all).unwrap();
    tree.write("/usr/local/bin/program", "somebody's\n");
    let undone = uninstall(&tree.root()).unwrap();
    assert_eq!(undone.left, [PathBuf::from("/usr/local/bin/program")]);
    assert_eq!(tree.text("/etc/default/kubelet"), "A=1\n");
}

#[test]
fn an_upgrade_keeps_what_stood_there_first() {
    let (tree, all) = some();
    let before = tree.snapshot();
    install(&tree.root(), &all).unwrap();
    let mut newer = all.clone();
    newer[1] = wanted("/etc/default/kubelet", "A=3\n", true);
    // One file is not wanted any more.
    newer.remove(2);
    install(&tree.root(), &newer).unwrap();
    assert_eq!(tree.text("/etc/default/kubelet"), "A=3\n");
    assert!(!tree.root().exists("/etc/new/deep/file"));
    uninstall(&tree.root()).unwrap();
    assert_eq!(tree.snapshot(), before);
}

/// A newer version of everything: other contents, one file more, one less.
fn newer(all: &[Wanted]) -> Vec<Wanted> {
    let mut newer = all.to_vec();
    newer[0] = wanted("/usr/local/bin/program", "newer bytes", false);
    newer[1] = wanted("/etc/default/kubelet", "A=3\n", true);
    newer[2] = wanted("/etc/new/other/file", "z", true);
    newer
}

#[test]
fn a_crash_at_any_step_of_an_upgrade_can_be_finished_or_undone_or_taken_back() {
    let (tree, all) = some();
    install(&tree.root(), &all).unwrap();
    let mut steps = 0;
    install_by_steps(&tree.root(), &newer(&all), &mut |_| {
        steps += 1;
        Ok(())
    })
    .unwrap();
    assert!(steps >= 8, "{steps}");
    for at in 0..steps {
        let crashed = || {
            let (tree, all) = some();
            let before = tree.snapshot();
            install(&tree.root(), &all).unwrap();
            let mut step = 0;
            install_by_steps(&tree.root(), &newer(&all), &mut |what| {
                step += 1;
                if step > at {
                    return Err(Error::Unsupported(format!("crash before: {what}")));
                }
                Ok(())
            })
            .unwrap_err();
            (tree, all, before)
        };
        let (tree, _, before) = crashed();
        let undone = uninstall(&tree.root()).unwrap();
        assert_eq!(undone.left, Vec::<PathBuf>::new(), "crash at {at}");
        assert_eq!(tree.snapshot(), before, "crash at {at}");
        // Finished, or by yet another version: what stood there first is what comes back.
        for next in [newer, |all: &[Wanted]| all.to_vec()] {
            let (tree, all, before) = crashed();
            install(&tree.root(), &next(&all)).unwrap();
            assert_eq!(changes(&tree.root(), &next(&all)).unwrap(), []);
            uninstall(&tree.root()).unwrap();
            assert_eq!(tree.snapshot(), before, "crash at {at}");
        }
    }
}

#[test]
fn an_upgrade_is_taken_back_to_the_version_before_it() {
    let (tree, all) = some();
    let before = tree.snapshot();
    install(&tree.root(), &all).unwrap();
    let installed = tree.snapshot();
    let files = |seen: &std::collections::BTreeMap<PathBuf, _>| {
        let record = tree.place("/var/lib/image-cri-shim");
        let made = tree.place("/etc/new/other");
        let all = seen
            .iter()
            .filter(|(path, _): &(&PathBuf, &(u32, u32, u32, Option<State>))| {
                !path.starts_with(&record) && !path.starts_with(&made)
            })
            .map(|(path, seen)| (path.clone(), seen.clone()));
        all.collect::<Vec<_>>()
    };
    let made = install(&tree.root(), &newer(&all)).unwrap();
    assert_ne!(files(&tree.snapshot()), files(&installed));
    let undone = revert(&tree.root(), &made).unwrap();
    assert_eq!(undone.left, Vec::<PathBuf>::new());
    assert_eq!(files(&tree.snapshot()), files(&installed));
    assert_eq!(changes(&tree.root(), &all).unwrap(), []);
    // Again is no change, and forward works as before.
    assert_eq!(
        revert(&tree.root(), &made).unwrap().restored,
        Vec::<PathBuf>::new()
    );
    let made = install(&tree.root(), &newer(&all)).unwrap();
    tree.write("/etc/default/kubelet", "mine\n");
    let undone = revert(&tree.root(), &made).unwrap();
    assert_eq!(undone.left, [PathBuf::from("/etc/default/kubelet")]);
    tree.write("/etc/default/kubelet", "A=2\n");
    uninstall(&tree.root()).unwrap();
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn a_damaged_record_stops_everything_and_is_named() {
    let (tree, all) = some();
    install(&tree.root(), &all).unwrap();
    tree.write("/var/lib/image-cri-shim/install/ledger.json", "{");
    for error in [
        install(&tree.root(), &all).unwrap_err(),
        uninstall(&tree.root()).unwrap_err(),
    ] {
        assert!(
            error.to_string().contains("ledger.json is damaged"),
            "{error}"
        );
    }
}

#[test]
fn temporary_files_of_killed_runs_are_swept_by_whatever_runs_next() {
    let (tree, all) = some();
    let before = tree.snapshot();
    install(&tree.root(), &all).unwrap();
    let installed = tree.snapshot();
    for left in [
        "/etc/default/.kubelet.image-cri-shim.tmp",
        "/etc/wants/.program.service.image-cri-shim.tmp",
        "/var/lib/image-cri-shim/install/.ledger.json.image-cri-shim.tmp",
        "/var/lib/image-cri-shim/install/0123",
    ] {
        tree.write(left, "half");
        install(&tree.root(), &all).unwrap();
        assert_eq!(tree.snapshot(), installed, "{left}");
    }
    tree.write("/etc/default/.kubelet.image-cri-shim.tmp", "half");
    tree.write("/var/lib/.image-cri-shim.image-cri-shim.tmp/x", "half");
    uninstall(&tree.root()).unwrap();
    assert_eq!(tree.snapshot(), before);
}

const WIRED: &str = "endpoint: unix:///run/image-cri-shim.sock\n";

#[test]
fn an_edit_of_our_own_file_that_install_has_written_over_never_comes_back() {
    let tree = Tree::new(&[("/etc/mine.conf", "mine\n")]);
    let before = tree.snapshot();
    let all = [
        wanted("/etc/rancher/k3s/90.yaml", WIRED, true),
        wanted("/etc/mine.conf", WIRED, true),
        wanted("/etc/systemd/system/unit", "ours\n", false),
    ];
    install(&tree.root(), &all).unwrap();
    for file in &all {
        let path = file.path.to_str().unwrap();
        tree.write(path, &format!("{}# edited\n", tree.text(path)));
    }
    assert_eq!(install(&tree.root(), &all).unwrap().len(), 3);
    assert_eq!(changes(&tree.root(), &all).unwrap(), []);
    let undone = uninstall(&tree.root()).unwrap();
    assert_eq!((undone.left, undone.still_wired), (vec![], vec![]));
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn what_others_add_to_their_file_is_put_back_and_may_lead_to_the_shim() {
    let path = "/etc/default/kubelet";
    let tree = Tree::new(&[(path, "A=1\n")]);
    let mut all = [
        wanted(path, WIRED, true),
        wanted("/usr/local/bin/program", "x", false),
    ];
    all[0].shared = true;
    install(&tree.root(), &all).unwrap();
    let edited = format!("{WIRED}B=2\n");
    tree.write(path, &edited);
    all[0] = Wanted {
        shared: true,
        ..wanted(path, &format!("{WIRED}B=2\nmore\n"), true)
    };
    install(&tree.root(), &all).unwrap();
    // Put back, and then found there: kubelet still dials the shim by it.
    for restored in [vec![PathBuf::from(path)], Vec::new()] {
        let undone = uninstall(&tree.root()).unwrap();
        assert_eq!(undone.restored, restored);
        assert_eq!(undone.still_wired, [PathBuf::from(path)]);
        assert_eq!(tree.text(path), edited);
        assert!(tree.root().exists("/usr/local/bin/program"));
    }
    tree.write(path, "B=2\n");
    let undone = uninstall(&tree.root()).unwrap();
    assert_eq!(undone.left, [PathBuf::from(path)]);
    assert_eq!(tree.text(path), "B=2\n");
    assert!(!tree.root().exists("/usr/local/bin/program"));
}

#[test]
fn where_the_predecessor_comes_back_kubelet_may_dial_the_link() {
    let tree = Tree::new(&[
        ("/etc/default/kubelet", WIRED),
        (
            "/etc/systemd/system/image-cri-shim.service",
            "[Service]\nExecStart=/usr/bin/image-cri-shim\n",
        ),
        ("/usr/bin/image-cri-shim", "the Go program"),
    ]);
    let before = tree.snapshot();
    let all = [
        wanted("/etc/default/kubelet", &format!("{WIRED}both\n"), true),
        wanted(
            "/etc/systemd/system/image-cri-shim.service",
            "[Service]\nExecStart=/usr/local/bin/image-cri-shim serve --listen /run/image-cri-shim/shim.sock\n",
            false,
        ),
    ];
    install(&tree.root(), &all).unwrap();
    let undone = uninstall(&tree.root()).unwrap();
    assert_eq!(undone.still_wired, Vec::<PathBuf>::new());
    assert_eq!(tree.snapshot(), before);
}

/// A link on the way to the record leads inside the tree, and never to the machine that builds an image.
#[test]
fn nothing_is_written_outside_of_the_tree() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("lib");
    // The directory is there on the machine; in the tree it is not, or it is.
    std::fs::create_dir(&target).unwrap();
    for inside in [false, true] {
        let (tree, all) = some();
        std::fs::remove_dir_all(tree.place("/var/lib")).unwrap();
        std::os::unix::fs::symlink(&target, tree.place("/var/lib")).unwrap();
        if inside {
            tree.write(target.join("other").to_str().unwrap(), "x");
        }
        let before = tree.snapshot();
        install(&tree.root(), &all).unwrap();
        assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0);
        assert!(
            tree.root()
                .exists("/var/lib/image-cri-shim/install/ledger.json")
        );
        assert!(is_installed(&tree.root()).unwrap());
        assert_eq!(install(&tree.root(), &all).unwrap(), []);
        uninstall(&tree.root()).unwrap();
        assert_eq!(tree.snapshot(), before, "{inside}");
    }
}
