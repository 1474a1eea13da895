//! What stands in the Lease: who has it and for what, and which tasks have failed.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

use crate::task::Task;

/// What the holder is doing.
const TASK: &str = "image-cri-shim/task";
/// Begins the annotation that marks a task as failed; the task's id follows.
const FAILED: &str = "image-cri-shim/failed-";
/// Marks of this many tasks are kept. Who has so many wants none of the old ones any more.
const MAX_MARKS: usize = 8;
/// The longest text of a mark, in characters.
const MAX_MARK: usize = 500;

/// The Lease, read and changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record {
    lease: Lease,
}

impl Record {
    /// What was read, or a Lease that nobody has written yet.
    pub(crate) fn of(found: Option<Lease>, name: &str, namespace: &str) -> Self {
        let mut lease = found.unwrap_or_default();
        lease.metadata.name = Some(name.to_owned());
        lease.metadata.namespace = Some(namespace.to_owned());
        Self { lease }
    }

    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The version that was read; it changes with every write.
    pub(crate) fn version(&self) -> Option<&str> {
        self.lease.metadata.resource_version.as_deref()
    }

    /// The node that has it.
    pub(crate) fn holder(&self) -> Option<&str> {
        let spec = self.lease.spec.as_ref()?;
        spec.holder_identity
            .as_deref()
            .filter(|holder| !holder.is_empty())
    }

    /// The task that the holder is at, by its id.
    pub(crate) fn held_for(&self) -> Option<&str> {
        let task = self.annotations().get(TASK)?;
        task.rsplit_once('(')?.1.strip_suffix(')')
    }

    /// Which node has failed with `task`, when and why.
    pub(crate) fn failure_of(&self, task: &Task) -> Option<&str> {
        self.annotations().get(&mark(task.id())).map(String::as_str)
    }

    /// Gives it to `node`.
    pub(crate) fn take(&mut self, node: &str, task: &Task, duration: Duration) {
        let now = MicroTime(Timestamp::now());
        let is_new = self.holder() != Some(node);
        let spec = self.lease.spec.get_or_insert_default();
        if is_new {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
        }
        spec.holder_identity = Some(node.to_owned());
        // At least one: an API server takes no zero.
        let seconds = i32::try_from(duration.as_secs()).unwrap_or(i32::MAX);
        spec.lease_duration_seconds = Some(seconds.max(1));
        spec.renew_time = Some(now);
        self.annotations_mut()
            .insert(TASK.to_owned(), task.to_string());
    }

    /// Says that the holder is alive.
    pub(crate) fn renew(&mut self) {
        let spec = self.lease.spec.get_or_insert_default();
        spec.renew_time = Some(MicroTime(Timestamp::now()));
    }

    /// Nobody has it any more.
    pub(crate) fn give_back(&mut self) {
        if let Some(LeaseSpec {
            holder_identity, ..
        }) = &mut self.lease.spec
        {
            *holder_identity = None;
        }
        self.annotations_mut().remove(TASK);
    }

    /// Marks the task with this id as failed.
    pub(crate) fn note_failure(&mut self, task: &str, node: &str, why: &str) {
        let line: String = why.split_whitespace().collect::<Vec<_>>().join(" ");
        let line: String = line.chars().take(MAX_MARK).collect();
        let text = format!("{:.0} node {node}: {line}", Timestamp::now());
        let annotations = self.annotations_mut();
        let mut others: Vec<(String, String)> = annotations
            .iter()
            .filter(|(name, _)| name.starts_with(FAILED) && **name != mark(task))
            .map(|(name, text)| (text.clone(), name.clone()))
            .collect();
        // They begin with the time.
        others.sort();
        let too_many = (others.len() + 1).saturating_sub(MAX_MARKS);
        for (_, name) in others.into_iter().take(too_many) {
            annotations.remove(&name);
        }
        annotations.insert(mark(task), text);
    }

    fn annotations(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.lease.metadata.annotations.as_ref().unwrap_or(&NONE)
    }

    fn annotations_mut(&mut self) -> &mut BTreeMap<String, String> {
        self.lease.metadata.annotations.get_or_insert_default()
    }
}

/// The annotation that marks a task as failed.
pub(crate) fn mark(task: &str) -> String {
    format!("{FAILED}{task}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(words: &str) -> Task {
        Task::new(words, &[])
    }

    #[test]
    fn who_has_it_is_in_the_lease_and_goes_with_it() {
        let mut record = Record::of(None, "lease", "namespace");
        assert_eq!(record.holder(), None);
        let install = task("install 0.1.0");
        record.take("node-1", &install, Duration::from_secs(60));
        assert_eq!(record.holder(), Some("node-1"));
        assert_eq!(record.held_for(), Some(install.id()));
        let spec = record.lease().spec.clone().unwrap();
        assert_eq!(spec.lease_duration_seconds, Some(60));
        assert_eq!(spec.lease_transitions, Some(1));
        // The same node again is no transition.
        record.take("node-1", &install, Duration::ZERO);
        let again = record.lease().spec.clone().unwrap();
        assert_eq!(again.lease_transitions, Some(1));
        assert_eq!(again.lease_duration_seconds, Some(1));
        assert_eq!(again.acquire_time, spec.acquire_time);
        record.give_back();
        assert_eq!((record.holder(), record.held_for()), (None, None));
    }

    #[test]
    fn a_mark_is_one_line_and_there_are_few() {
        let mut record = Record::of(None, "lease", "namespace");
        let failed = task("install 0.1.0");
        record.note_failure(failed.id(), "node-2", "kubelet\nsays:  no");
        let text = record.failure_of(&failed).unwrap();
        assert!(text.ends_with("Z node node-2: kubelet says: no"), "{text}");
        record.note_failure(failed.id(), "node-2", &"x".repeat(10_000));
        assert!(record.failure_of(&failed).unwrap().len() < 600);
        for n in 0..20 {
            record.note_failure(task(&format!("install {n}")).id(), "node-2", "no");
        }
        let annotations = record.lease().metadata.annotations.as_ref().unwrap();
        assert_eq!(annotations.len(), MAX_MARKS);
        assert!(record.failure_of(&task("install 19")).is_some());
    }
}
