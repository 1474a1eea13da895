//! Which parts were well at which time, and so which calls had to succeed.

use std::time::Duration;

/// Something that a call may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Registry(usize),
    /// containerd.
    Runtime,
    Shim,
    Cache,
    Webhook,
    /// The file system of the cache's store: what was stored may have had to go.
    CacheDisk,
}

/// A time during which a part was disturbed on purpose.
#[derive(Clone, Copy, Debug)]
struct Outage {
    part: Part,
    from: Duration,
    /// `None` while it lasts.
    until: Option<Duration>,
}

/// All outages so far, by times that count from the beginning of the run.
#[derive(Debug, Default)]
pub(crate) struct Health {
    outages: Vec<Outage>,
}

/// What a call needs, to succeed.
#[derive(Clone, Debug)]
pub(crate) struct Need {
    /// All of these.
    pub(crate) all: Vec<Part>,
    /// And one of these registries; nobody where it is `None`.
    pub(crate) source: Option<Vec<usize>>,
}

/// Whether a call had to succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Required,
    /// What it needed was disturbed.
    Excused,
}

impl Part {
    /// For so long after an outage the part does not count as well: it has to be noticed, and the machine that
    /// this runs on may be slow.
    fn margin(self) -> Duration {
        match self {
            Self::Registry(_) | Self::CacheDisk => Duration::from_secs(3),
            Self::Runtime | Self::Shim | Self::Cache | Self::Webhook => Duration::from_secs(4),
        }
    }
}

impl Health {
    /// A disturbance begins. To be called before it is brought about.
    pub(crate) fn disturb(&mut self, part: Part, now: Duration) {
        self.outages.push(Outage {
            part,
            from: now,
            until: None,
        });
    }

    /// The part works again. To be called when that is known.
    pub(crate) fn mend(&mut self, part: Part, now: Duration) {
        for outage in &mut self.outages {
            if outage.part == part && outage.until.is_none() {
                outage.until = Some(now);
            }
        }
    }

    /// Whether a part was well all the time between two moments.
    pub(crate) fn was_well(&self, part: Part, from: Duration, to: Duration) -> bool {
        !self.outages.iter().any(|outage| {
            let ends = outage.until.map(|until| until + part.margin());
            outage.part == part && outage.from <= to && ends.is_none_or(|ends| ends > from)
        })
    }

    /// Whether a call that lasted between two moments had to succeed: one source that was well all the time is
    /// enough, whatever happened to the others.
    pub(crate) fn verdict(&self, need: &Need, from: Duration, to: Duration) -> Verdict {
        let all = need.all.iter().all(|part| self.was_well(*part, from, to));
        let source = need.source.as_ref().is_none_or(|registries| {
            let mut registries = registries.iter();
            registries.any(|registry| self.was_well(Part::Registry(*registry), from, to))
        });
        if all && source {
            Verdict::Required
        } else {
            Verdict::Excused
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn pull() -> Need {
        Need {
            all: vec![Part::Runtime, Part::Shim],
            source: Some(vec![0, 2]),
        }
    }

    #[test]
    fn one_source_that_is_well_is_enough() {
        let mut health = Health::default();
        health.disturb(Part::Registry(0), at(10));
        assert_eq!(health.verdict(&pull(), at(11), at(12)), Verdict::Required);
        health.disturb(Part::Registry(2), at(12));
        assert_eq!(health.verdict(&pull(), at(13), at(14)), Verdict::Excused);
        // Before the second outage one source was well.
        assert_eq!(health.verdict(&pull(), at(11), at(11)), Verdict::Required);
        // A registry that does not have the image is of no use.
        assert!(health.was_well(Part::Registry(1), at(0), at(60)));
    }

    #[test]
    fn what_every_pull_needs_excuses_it() {
        let mut health = Health::default();
        health.disturb(Part::Runtime, at(5));
        health.mend(Part::Runtime, at(6));
        assert_eq!(health.verdict(&pull(), at(3), at(4)), Verdict::Required);
        // It was under way when the outage began.
        assert_eq!(health.verdict(&pull(), at(3), at(5)), Verdict::Excused);
        // Within the margin.
        assert_eq!(health.verdict(&pull(), at(8), at(9)), Verdict::Excused);
        assert_eq!(health.verdict(&pull(), at(10), at(11)), Verdict::Required);
    }

    #[test]
    fn what_needs_no_source_does_not_care_for_registries() {
        let mut health = Health::default();
        for registry in 0..3 {
            health.disturb(Part::Registry(registry), at(1));
        }
        let stored = Need {
            all: vec![Part::Cache],
            source: None,
        };
        assert_eq!(health.verdict(&stored, at(2), at(3)), Verdict::Required);
        health.disturb(Part::Cache, at(3));
        assert_eq!(health.verdict(&stored, at(2), at(3)), Verdict::Excused);
    }

    #[test]
    fn an_outage_ends_once() {
        let mut health = Health::default();
        health.disturb(Part::Cache, at(1));
        health.mend(Part::Cache, at(2));
        health.disturb(Part::Cache, at(20));
        health.mend(Part::Cache, at(30));
        assert!(health.was_well(Part::Cache, at(6), at(19)));
        assert!(!health.was_well(Part::Cache, at(6), at(20)));
        assert!(!health.was_well(Part::Cache, at(33), at(40)));
        assert!(health.was_well(Part::Cache, at(34), at(40)));
    }
}
