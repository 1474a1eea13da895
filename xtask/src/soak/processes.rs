//! Memory, descriptors and threads of the program's processes, and whether they grow.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use anyhow::Result;

/// A process that lived for less is not judged: what it holds has not settled.
const SHORTEST_LIFE: Duration = Duration::from_secs(6 * 60);
/// The first part of a life, in percent, is warm-up: memories, connections and threads of pools fill.
const WARM_UP_PERCENT: u32 = 30;
/// Growth of resident memory that is not a leak, in KiB: allocators keep what they once had, in pieces.
const RSS_SLACK_KIB: u64 = 4 * 1024;
/// And in percent of what it was after the warm-up.
const RSS_SLACK_PERCENT: u64 = 10;
/// Growth of descriptors and of threads, by their lowest numbers. Load and faults move these all the time; a
/// leak lifts the lowest.
const COUNT_SLACK: u64 = 3;
/// The cache's threads that wait for the disk, and those that run its tasks, have this name. As many stay as were
/// ever needed at once, so that their number says nothing but whether it is bounded.
const POOL: &str = "cache";
/// 64 that wait for the disk, and two that run tasks.
const POOL_SIZE: u64 = 66;

/// What a process used at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Counted from the beginning of the run.
    pub(crate) at: Duration,
    pub(crate) rss_kib: u64,
    /// Without connections that clients hold open.
    pub(crate) fds: u64,
    /// Without those of the pool.
    pub(crate) threads: u64,
    /// Threads of the pool.
    pub(crate) pool: u64,
}

/// One process from its start to its end.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    /// `shim`, `cache` or `webhook`.
    pub(crate) name: &'static str,
    pub(crate) pid: u32,
    pub(crate) samples: Vec<Sample>,
}

/// How a quantity went during a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Course {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) highest: u64,
    /// After the warm-up, and at the end: medians of memory, lowest of counts. `None` for a life that was too
    /// short to judge.
    pub(crate) settled: Option<(u64, u64)>,
    pub(crate) grows: bool,
}

/// Reads what a process uses.
pub(crate) fn sample(pid: u32, at: Duration) -> Result<Sample> {
    let (mut threads, mut pool) = (0, 0);
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // One that has ended meanwhile has no name any more.
        let name = fs::read_to_string(thread?.path().join("comm")).unwrap_or_default();
        let is_pool = name.trim_end() == POOL;
        *if is_pool { &mut pool } else { &mut threads } += 1;
    }
    Ok(Sample {
        at,
        rss_kib: testkit::shim::rss_kib(pid)?,
        fds: own_descriptors(pid)?,
        threads,
        pool,
    })
}

/// Descriptors but for TCP connections that clients hold open: containerd keeps those of its last pulls, dozens or
/// hundreds of them, and closes them when it likes. A leak of the process's own would not be seen among these.
fn own_descriptors(pid: u32) -> Result<u64> {
    let accepted: HashSet<String> = accepted(pid)?;
    let mut own = 0;
    for descriptor in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let target = fs::read_link(descriptor?.path()).unwrap_or_default();
        let target = target.to_string_lossy();
        let inode = target
            .strip_prefix("socket:[")
            .and_then(|rest| rest.strip_suffix(']'));
        own += u64::from(inode.is_none_or(|inode| !accepted.contains(inode)));
    }
    Ok(own)
}

/// The inodes of the TCP connections whose local port is one that is listened on (proc_net(5): `tcp`).
fn accepted(pid: u32) -> Result<HashSet<String>> {
    const LISTEN: &str = "0A";
    let mut sockets = Vec::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}"))?;
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, state, .., _] = fields[..] else {
                continue;
            };
            let port = local.rsplit(':').next().unwrap_or_default().to_owned();
            let inode = fields.get(9).copied().unwrap_or_default().to_owned();
            sockets.push((port, state == LISTEN, inode));
        }
    }
    let listening: HashSet<String> = sockets
        .iter()
        .filter(|(_, listens, _)| *listens)
        .map(|(port, _, _)| port.clone())
        .collect();
    let accepted = sockets.into_iter().filter_map(|(port, listens, inode)| {
        (!listens && listening.contains(&port)).then_some(inode)
    });
    Ok(accepted.collect())
}

impl Life {
    /// Adds a sample to the life that it belongs to, or begins another one.
    pub(crate) fn add(lives: &mut Vec<Self>, name: &'static str, pid: u32, sample: Sample) {
        let known = lives
            .iter_mut()
            .find(|life| life.pid == pid && life.name == name);
        match known {
            Some(life) => life.samples.push(sample),
            None => lives.push(Self {
                name,
                pid,
                samples: vec![sample],
            }),
        }
    }

    /// How long it was looked at.
    pub(crate) fn length(&self) -> Duration {
        match (self.samples.first(), self.samples.last()) {
            (Some(first), Some(last)) => last.at.saturating_sub(first.at),
            _ => Duration::ZERO,
        }
    }

    /// Resident memory, in KiB.
    pub(crate) fn memory(&self) -> Course {
        let course = self.course(|sample| sample.rss_kib, median);
        course.judged(|settled| RSS_SLACK_KIB + settled * RSS_SLACK_PERCENT / 100)
    }

    pub(crate) fn descriptors(&self) -> Course {
        let course = self.course(|sample| sample.fds, lowest);
        course.judged(|_| COUNT_SLACK)
    }

    pub(crate) fn threads(&self) -> Course {
        let course = self.course(|sample| sample.threads, lowest);
        course.judged(|_| COUNT_SLACK)
    }

    /// Threads of the pool: as many as were needed at once, and no more than it may have.
    pub(crate) fn pool(&self) -> Course {
        let mut course = self.course(|sample| sample.pool, lowest);
        course.grows = course.highest > POOL_SIZE;
        course
    }

    fn course(&self, of: impl Fn(&Sample) -> u64, typical: impl Fn(&[u64]) -> u64) -> Course {
        let all: Vec<u64> = self.samples.iter().map(of).collect();
        let warm = all.len() * WARM_UP_PERCENT as usize / 100;
        let settled = &all[warm.min(all.len())..];
        let quarter = settled.len() / 4;
        let long_enough = self.length() >= SHORTEST_LIFE && quarter > 0;
        Course {
            first: all.first().copied().unwrap_or(0),
            last: all.last().copied().unwrap_or(0),
            highest: all.iter().copied().max().unwrap_or(0),
            settled: long_enough.then(|| {
                let end = settled.len() - quarter;
                (typical(&settled[..quarter]), typical(&settled[end..]))
            }),
            grows: false,
        }
    }
}

impl Course {
    fn judged(mut self, slack: impl Fn(u64) -> u64) -> Self {
        self.grows = self
            .settled
            .is_some_and(|(settled, end)| end > settled + slack(settled));
        self
    }
}

fn median(numbers: &[u64]) -> u64 {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied().unwrap_or(0)
}

fn lowest(numbers: &[u64]) -> u64 {
    numbers.iter().copied().min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::random::Random;

    /// A life of so many minutes with a sample every two seconds, whose numbers are noisy.
    fn life(minutes: u64, rss_kib: impl Fn(u64) -> u64, fds: impl Fn(u64) -> u64) -> Life {
        let mut random = Random::new(9, 9);
        let samples = (0..minutes * 30).map(|index| {
            let seconds = index * 2;
            let noise = random.below(2048) as u64;
            Sample {
                at: Duration::from_secs(seconds),
                rss_kib: rss_kib(seconds) + noise,
                fds: fds(seconds) + noise % 40,
                threads: 12,
                pool: 2 + seconds / 60,
            }
        });
        Life {
            name: "shim",
            pid: 7,
            samples: samples.collect(),
        }
    }

    #[test]
    fn a_leak_of_a_megabyte_a_minute_is_seen_and_noise_is_none() {
        let leaking = life(18, |seconds| 30_000 + seconds * 1024 / 60, |_| 20);
        assert!(leaking.memory().grows, "{:?}", leaking.memory());
        let flat = life(18, |_| 30_000, |_| 20);
        assert!(!flat.memory().grows, "{:?}", flat.memory());
        // What fills up in the beginning and stays is no leak.
        let warm = life(18, |seconds| 30_000 + seconds.min(240) * 100, |_| 20);
        assert!(!warm.memory().grows, "{:?}", warm.memory());
        assert!(!warm.threads().grows);
    }

    #[test]
    fn a_descriptor_that_is_lost_each_minute_is_seen_under_a_load_that_moves() {
        let leaking = life(18, |_| 30_000, |seconds| 20 + seconds / 60);
        assert!(leaking.descriptors().grows, "{:?}", leaking.descriptors());
        let moving = life(18, |_| 30_000, |seconds| 20 + seconds % 90);
        assert!(!moving.descriptors().grows, "{:?}", moving.descriptors());
    }

    #[test]
    fn a_connection_that_a_client_has_made_is_not_ours_to_close() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (served, _) = listener.accept().unwrap();
        let accepted = accepted(std::process::id()).unwrap();
        let is_accepted = |socket: &dyn std::os::fd::AsRawFd| {
            let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
            let link = link.to_str().unwrap();
            accepted.contains(link.trim_start_matches("socket:[").trim_end_matches(']'))
        };
        assert!(is_accepted(&served));
        assert!(!is_accepted(&client));
        assert!(!is_accepted(&listener));
    }

    #[test]
    fn a_pool_may_fill_and_has_an_end() {
        let within = life(60, |_| 30_000, |_| 20);
        assert!(!within.pool().grows, "{:?}", within.pool());
        let beyond = life(70, |_| 30_000, |_| 20);
        assert!(beyond.pool().grows, "{:?}", beyond.pool());
    }

    #[test]
    fn a_short_life_is_not_judged() {
        let short = life(3, |seconds| 30_000 + seconds * 1024, |_| 20);
        assert_eq!(short.memory().settled, None);
        assert!(!short.memory().grows);
    }

    #[test]
    fn another_process_is_another_life() {
        let mut lives = Vec::new();
        for pid in [1, 1, 2] {
            Life::add(&mut lives, "cache", pid, Sample::default());
        }
        let counts: Vec<usize> = lives.iter().map(|life| life.samples.len()).collect();
        assert_eq!(counts, [2, 1]);
    }
}
