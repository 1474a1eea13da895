//! Whose turn it is. Pure: what stands in the Lease, and whether its holder is silent, is all that counts.

use crate::progress::Waiting;
use crate::record::{Record, mark};
use crate::task::Task;

/// What a node may do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Take the Lease.
    Take,
    /// Take the Lease from `node`, which has fallen silent at another task. That other task counts as failed.
    TakeFrom {
        /// Who has it.
        node: String,
        /// What it was doing, by its id.
        task: String,
    },
    /// Wait.
    Wait(Waiting),
}

/// Whether `node` may do `task` now. A holder `is_silent` when it has not renewed for longer than a Lease lasts.
///
/// Who has begun and is silent may have been broken by the change itself, so nobody else begins the same
/// change. Another change is somebody's decision to go on.
pub(crate) fn turn(record: &Record, node: &str, task: &Task, is_silent: bool) -> Turn {
    if let Some(what) = record.failure_of(task) {
        return Turn::Wait(Waiting::Failed {
            mark: mark(task.id()),
            what: what.to_owned(),
        });
    }
    let Some(holder) = record.holder() else {
        return Turn::Take;
    };
    // Ours from before a restart: what was begun is gone on with.
    if holder == node {
        return Turn::Take;
    }
    let holder = holder.to_owned();
    match record.held_for() {
        Some(held_for) if is_silent && held_for != task.id() => Turn::TakeFrom {
            node: holder,
            task: held_for.to_owned(),
        },
        _ if is_silent => Turn::Wait(Waiting::Silent { node: holder }),
        _ => Turn::Wait(Waiting::Busy { node: holder }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn task(words: &str) -> Task {
        Task::new(words, &[])
    }

    fn held_by(node: &str, by: &Task) -> Record {
        let mut record = Record::of(None, "lease", "namespace");
        record.take(node, by, Duration::from_secs(60));
        record
    }

    #[test]
    fn every_case() {
        let (old, new) = (task("install 0.1.0"), task("install 0.2.0"));
        let free = Record::of(None, "lease", "namespace");
        assert_eq!(turn(&free, "node-1", &new, false), Turn::Take);
        // Of another node: never the same change.
        let held = held_by("node-2", &new);
        let node = "node-2".to_owned();
        assert_eq!(
            turn(&held, "node-1", &new, false),
            Turn::Wait(Waiting::Busy { node: node.clone() })
        );
        assert_eq!(
            turn(&held, "node-1", &new, true),
            Turn::Wait(Waiting::Silent { node: node.clone() })
        );
        // Another change, once the holder is silent.
        let held = held_by("node-2", &old);
        assert_eq!(
            turn(&held, "node-1", &new, false),
            Turn::Wait(Waiting::Busy { node: node.clone() })
        );
        let from = Turn::TakeFrom {
            node,
            task: old.id().to_owned(),
        };
        assert_eq!(turn(&held, "node-1", &new, true), from);
        // Its own, whatever it was at.
        for is_silent in [false, true] {
            for task in [&old, &new] {
                assert_eq!(turn(&held, "node-2", task, is_silent), Turn::Take);
            }
        }
    }

    #[test]
    fn what_has_failed_is_begun_by_nobody_and_holds_up_nothing_else() {
        let (failed, other) = (task("install 0.1.0"), task("install 0.2.0"));
        let mut record = held_by("node-2", &failed);
        record.note_failure(failed.id(), "node-2", "no");
        record.give_back();
        for node in ["node-1", "node-2"] {
            let Turn::Wait(Waiting::Failed { mark, what }) = turn(&record, node, &failed, false)
            else {
                panic!("{node} begins");
            };
            assert_eq!(mark, format!("image-cri-shim/failed-{}", failed.id()));
            assert!(what.ends_with("node node-2: no"), "{what}");
            assert_eq!(turn(&record, node, &other, false), Turn::Take);
        }
    }
}
