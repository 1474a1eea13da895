//! What is done to the parts, and when. All of it follows from a seed, before anything is started.

use std::fmt;
use std::time::Duration;

use super::random::Random;

/// How many registries there are.
pub(crate) const REGISTRIES: usize = 3;
/// At the end nothing happens for so long, so that all have to be well again.
const CALM_END: Duration = Duration::from_secs(15);
/// The program's own processes are restarted in this part of the run only, in percent. What is left is long
/// enough to see whether their memory grows.
const RESTARTS_PERCENT: u32 = 40;

/// Something that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// When it begins, counted from the beginning of the run.
    pub(crate) at: Duration,
    /// How long it lasts; zero where it is over at once.
    pub(crate) lasting: Duration,
    pub(crate) what: What,
}

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// SIGKILL, and a start with the same content.
    RegistryKilled(usize),
    /// It takes connections and requests and answers nothing; then all connections break.
    RegistrySilent(usize),
    /// SIGSTOP, and SIGCONT: what was asked meanwhile is answered late.
    RegistryFrozen(usize),
    /// 429 to everything, with this `Retry-After` in seconds where there is one.
    RateLimited(usize, Option<u16>),
    /// 503 to everything.
    RegistryFails(usize),
    /// containerd ends by SIGKILL and starts again.
    RuntimeKilled,
    /// containerd ends by SIGTERM and starts again.
    RuntimeRestarted,
    ShimKilled,
    ShimRestarted,
    /// Another process of the same program takes over. That may cost no call.
    HandOver,
    CacheKilled,
    CacheRestarted,
    WebhookRestarted,
    /// Something else fills the file system that the cache's store is on.
    DiskFull,
    /// The wall clock of the program's processes jumps by so many seconds, and back at the end.
    ClockStep(i64),
    /// SIGHUP.
    Signalled(Role),
    /// Its config file is replaced by a variant, by its number.
    FileChanged(Role, usize),
    /// Its config file is cut off, and whole again later.
    FileBroken(Role),
    /// The ConfigMap is replaced by a variant, by its number.
    ConfigMapChanged(usize),
    /// The ConfigMap holds no YAML, and a good text later.
    ConfigMapBroken,
    /// The ConfigMap is deleted, and made anew later.
    ConfigMapDeleted,
    /// The API server answers nothing, and watches break.
    ApiServerSilent,
    /// The API server answers 500, and watches break.
    ApiServerFails,
}

/// A process of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Shim,
    Cache,
    Webhook,
}

/// The schedule of a run, in the order of its events' beginnings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    pub(crate) events: Vec<Event>,
}

/// By how many seconds the clock jumps: an hour, a day back, and as on a board without a battery.
const CLOCK_STEPS: [i64; 3] = [3600, -86_400, 31_536_000];

/// How many variants of a config there are.
pub(crate) const VARIANTS: usize = 4;

impl Schedule {
    /// The schedule of a run of this length. A seed gives the same one each time.
    pub(crate) fn new(seed: u64, length: Duration) -> Self {
        let end = length.saturating_sub(CALM_END);
        let mut events = sources(&mut Random::new(seed, 1), end);
        events.extend(processes(&mut Random::new(seed, 2), length, end));
        events.extend(configs(&mut Random::new(seed, 3), end));
        events.sort_by_key(|event| event.at);
        Self { events }
    }
}

/// Draws everything once before anything comes a second time, so that a run of some minutes has all of it.
struct Bag<T> {
    all: Vec<T>,
    left: Vec<T>,
}

impl<T: Clone> Bag<T> {
    fn new(all: Vec<T>) -> Self {
        let left = Vec::new();
        Self { all, left }
    }

    fn draw(&mut self, random: &mut Random) -> Option<T> {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
            random.shuffle(&mut self.left);
        }
        self.left.pop()
    }
}

/// What happens to the registries: mostly to one at a time, sometimes to two or to all.
fn sources(random: &mut Random, end: Duration) -> Vec<Event> {
    let mut all = Vec::new();
    for registry in 0..REGISTRIES {
        all.extend([
            What::RegistryKilled(registry),
            What::RegistrySilent(registry),
            What::RegistryFrozen(registry),
            What::RateLimited(registry, None),
            What::RateLimited(registry, Some(5)),
            What::RegistryFails(registry),
        ]);
    }
    let mut bag = Bag::new(all);
    let mut events: Vec<Event> = Vec::new();
    let mut at = random.between(4_000, 7_000);
    loop {
        let lasting = random.between(3_000, 10_000);
        if at + lasting > end {
            return events;
        }
        let count = match random.below(10) {
            0 => REGISTRIES,
            1 | 2 => 2,
            _ => 1,
        };
        for _ in 0..count {
            let Some(what) = bag.draw(random) else { break };
            events.push(Event { at, lasting, what });
        }
        at += lasting + random.between(5_000, 11_000);
    }
}

/// What happens to containerd, to the program's processes and to the cache's disk.
fn processes(random: &mut Random, length: Duration, end: Duration) -> Vec<Event> {
    let restarts_end = length * RESTARTS_PERCENT / 100;
    let mut others = vec![What::RuntimeKilled, What::RuntimeRestarted, What::DiskFull];
    others.extend(CLOCK_STEPS.map(What::ClockStep));
    let mut restarts = vec![
        What::ShimKilled,
        What::ShimRestarted,
        What::HandOver,
        What::CacheKilled,
        What::CacheRestarted,
        What::WebhookRestarted,
    ];
    restarts.extend(others.iter().copied());
    let (mut early, mut late) = (Bag::new(restarts), Bag::new(others));
    let mut events = Vec::new();
    let mut at = random.between(6_000, 10_000);
    loop {
        let drawn = if at < restarts_end {
            early.draw(random)
        } else {
            late.draw(random)
        };
        let Some(what) = drawn else { return events };
        let lasting = match what {
            What::HandOver
            | What::ShimRestarted
            | What::CacheRestarted
            | What::WebhookRestarted => Duration::ZERO,
            What::DiskFull | What::ClockStep(_) => random.between(6_000, 15_000),
            _ => random.between(200, 3_000),
        };
        if at + lasting > end {
            return events;
        }
        events.push(Event { at, lasting, what });
        at += lasting + random.between(10_000, 20_000);
    }
}

/// What happens to the config, and where it comes from.
fn configs(random: &mut Random, end: Duration) -> Vec<Event> {
    let mut all = vec![
        What::ConfigMapBroken,
        What::ConfigMapDeleted,
        What::ApiServerSilent,
        What::ApiServerFails,
        What::FileBroken(Role::Shim),
        What::FileBroken(Role::Cache),
    ];
    all.extend([Role::Shim, Role::Cache, Role::Webhook].map(What::Signalled));
    for variant in 0..VARIANTS {
        all.extend([
            What::ConfigMapChanged(variant),
            What::FileChanged(Role::Shim, variant),
            What::FileChanged(Role::Cache, variant),
        ]);
    }
    let mut bag = Bag::new(all);
    let mut events = Vec::new();
    let mut at = random.between(3_000, 6_000);
    loop {
        let Some(what) = bag.draw(random) else {
            return events;
        };
        let lasting = match what {
            What::Signalled(_) | What::FileChanged(..) | What::ConfigMapChanged(_) => {
                Duration::ZERO
            }
            _ => random.between(2_000, 6_000),
        };
        if at + lasting > end {
            return events;
        }
        events.push(Event { at, lasting, what });
        at += lasting + random.between(2_000, 5_000);
    }
}

impl What {
    /// What the report counts it as.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::RegistryKilled(_) => "registry killed",
            Self::RegistrySilent(_) => "registry silent (black hole)",
            Self::RegistryFrozen(_) => "registry frozen (SIGSTOP)",
            Self::RateLimited(_, None) => "registry says 429",
            Self::RateLimited(_, Some(_)) => "registry says 429 with Retry-After",
            Self::RegistryFails(_) => "registry says 503",
            Self::RuntimeKilled => "containerd killed",
            Self::RuntimeRestarted => "containerd restarted",
            Self::ShimKilled => "shim killed",
            Self::ShimRestarted => "shim restarted",
            Self::HandOver => "hand-over of the shim",
            Self::CacheKilled => "cache killed",
            Self::CacheRestarted => "cache restarted",
            Self::WebhookRestarted => "webhook restarted",
            Self::DiskFull => "the cache's disk full",
            Self::ClockStep(_) => "clock step",
            Self::Signalled(_) => "SIGHUP",
            Self::FileChanged(..) => "config file changed",
            Self::FileBroken(_) => "config file broken",
            Self::ConfigMapChanged(_) => "ConfigMap changed",
            Self::ConfigMapBroken => "ConfigMap broken",
            Self::ConfigMapDeleted => "ConfigMap deleted",
            Self::ApiServerSilent => "API server silent",
            Self::ApiServerFails => "API server says 500",
        }
    }
}

/// What a registry is called in what is printed.
pub(crate) fn registry_name(registry: usize) -> &'static str {
    ["offline", "company", "origin"]
        .get(registry)
        .copied()
        .unwrap_or("?")
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shim => "shim",
            Self::Cache => "cache",
            Self::Webhook => "webhook",
        })
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        match self {
            Self::RegistryKilled(registry)
            | Self::RegistrySilent(registry)
            | Self::RegistryFrozen(registry)
            | Self::RateLimited(registry, None)
            | Self::RegistryFails(registry) => write!(f, ": {}", registry_name(*registry)),
            Self::RateLimited(registry, Some(seconds)) => {
                write!(f, ": {}, {seconds} s", registry_name(*registry))
            }
            Self::ClockStep(seconds) => write!(f, ": {seconds:+} s"),
            Self::Signalled(role) | Self::FileBroken(role) => write!(f, ": {role}"),
            Self::FileChanged(role, variant) => write!(f, ": {role}, variant {variant}"),
            Self::ConfigMapChanged(variant) => write!(f, ": variant {variant}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, lasting) = (self.at.as_secs_f64(), self.lasting.as_secs_f64());
        write!(f, "{at:>8.1} s  {}", self.what)?;
        if self.lasting.is_zero() {
            return Ok(());
        }
        write!(f, ", for {lasting:.1} s")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const HALF_AN_HOUR: Duration = Duration::from_secs(30 * 60);

    #[test]
    fn a_seed_gives_the_same_schedule_again() {
        let schedule = Schedule::new(42, HALF_AN_HOUR);
        assert_eq!(schedule, Schedule::new(42, HALF_AN_HOUR));
        assert_ne!(schedule, Schedule::new(43, HALF_AN_HOUR));
    }

    #[test]
    fn ten_minutes_have_every_kind() {
        let kinds = |minutes: u64| {
            let schedule = Schedule::new(1, Duration::from_secs(minutes * 60));
            let events = schedule.events.iter();
            events
                .map(|event| event.what.kind())
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(kinds(10), kinds(600));
        assert_eq!(kinds(10).len(), 24);
    }

    #[test]
    fn events_stay_within_the_run_and_restarts_in_its_first_part() {
        for seed in 0..50 {
            let schedule = Schedule::new(seed, HALF_AN_HOUR);
            assert!(schedule.events.is_sorted_by_key(|event| event.at));
            for event in &schedule.events {
                assert!(
                    event.at + event.lasting <= HALF_AN_HOUR - CALM_END,
                    "{event}"
                );
                if matches!(
                    event.what,
                    What::ShimKilled
                        | What::ShimRestarted
                        | What::HandOver
                        | What::CacheKilled
                        | What::CacheRestarted
                        | What::WebhookRestarted
                ) {
                    assert!(event.at < HALF_AN_HOUR * 2 / 5, "{event}");
                }
            }
        }
    }

    #[test]
    fn some_registry_is_left_alone_for_most_of_the_time() {
        let schedule = Schedule::new(5, HALF_AN_HOUR);
        let source = |what| {
            Some(match what {
                What::RegistryKilled(registry)
                | What::RegistrySilent(registry)
                | What::RegistryFrozen(registry)
                | What::RateLimited(registry, _)
                | What::RegistryFails(registry) => registry,
                _ => return None,
            })
        };
        let all_out = (0..HALF_AN_HOUR.as_secs())
            .map(Duration::from_secs)
            .filter(|now| {
                let out: BTreeSet<usize> = schedule
                    .events
                    .iter()
                    .filter(|event| (event.at..event.at + event.lasting).contains(now))
                    .filter_map(|event| source(event.what))
                    .collect();
                out.len() == REGISTRIES
            });
        let seconds = all_out.count();
        assert!(seconds > 0 && seconds < 180, "{seconds}");
    }

    #[test]
    fn a_run_that_is_too_short_has_no_events() {
        assert!(Schedule::new(1, Duration::from_secs(10)).events.is_empty());
    }
}
