//! Floors and ceilings: every accepted value leaves a shim that pulls, and that starts again.
//!
//! A value beyond a bound is used as the bound, with a warning. It is not an error: a ConfigMap that
//! reaches every node must stop none.

use std::time::Duration;

use super::diagnostic::Diagnostic;
use super::fields::Located;
use super::reader::Reader;
use crate::duration;

/// Entries that one list may have.
pub(super) const MAX_ENTRIES: usize = 1_000;
/// Remembered resolutions.
pub(super) const MAX_IMAGES: u64 = 1_000_000;

/// What a duration may be, and what it is where none is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    pub(super) default: Duration,
    floor: Duration,
    ceiling: Duration,
}

impl Time {
    /// From `floor` to `ceiling`, in seconds.
    pub(super) const fn seconds(default: u64, floor: u64, ceiling: u64) -> Self {
        Self {
            default: Duration::from_secs(default),
            floor: Duration::from_secs(floor),
            ceiling: Duration::from_secs(ceiling),
        }
    }
}

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

pub(super) const TIMEOUT: Time = Time::seconds(15 * 60, 5, DAY);
pub(super) const RELOAD_INTERVAL: Time = Time::seconds(15, 1, DAY);
pub(super) const STATS_LOG_INTERVAL: Time = Time::seconds(60, 1, DAY);
pub(super) const IMAGE_CACHE_TTL: Time = Time::seconds(30 * 60, 1, 30 * DAY);
pub(super) const DOMAIN_CACHE_TTL: Time = Time::seconds(10 * 60, 1, 30 * DAY);
pub(super) const NEGATIVE_TTL: Time = Time::seconds(30, 1, DAY);
pub(super) const PROBE_TIMEOUT: Time = Time {
    default: Duration::from_secs(2),
    floor: Duration::from_millis(100),
    ceiling: Duration::from_secs(30),
};

impl Reader<'_> {
    /// The duration that is meant; zero is the default.
    pub(super) fn time(
        &mut self,
        written: Option<&Located<Duration>>,
        field: &str,
        bounds: Time,
    ) -> Duration {
        let Some(written) = written.filter(|written| !written.value.is_zero()) else {
            return bounds.default;
        };
        let used = written.value.clamp(bounds.floor, bounds.ceiling);
        if used != written.value {
            self.bounded(written, field, &duration::format(used));
        }
        used
    }

    /// The number that is meant, from `floor` to `ceiling`.
    pub(super) fn number<T: Copy + Ord + ToString>(
        &mut self,
        written: &Located<T>,
        field: &str,
        floor: T,
        ceiling: T,
    ) -> T {
        let used = written.value.clamp(floor, ceiling);
        if used != written.value {
            self.bounded(written, field, &used.to_string());
        }
        used
    }

    /// As many entries of a list as are used.
    pub(super) fn entries<'r, T>(
        &mut self,
        written: Option<&'r Located<Vec<T>>>,
        field: &str,
    ) -> &'r [T] {
        let Some(list) = written else {
            return &[];
        };
        let used = list.value.get(..MAX_ENTRIES).unwrap_or(&list.value);
        if used.len() < list.value.len() {
            let message = format!(
                "{} entries; the first {MAX_ENTRIES} are used, the others are ignored",
                list.value.len()
            );
            self.findings
                .push(Diagnostic::warning(list.position, field, message));
        }
        used
    }

    pub(super) fn bounded<T>(&mut self, written: &Located<T>, field: &str, used: &str) {
        let message = format!("out of range; {used} is used");
        self.findings
            .push(Diagnostic::warning(written.position, field, message));
    }
}
