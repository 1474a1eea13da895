//! What this process takes: memory, time, open files.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::param::{clock_ticks_per_second, page_size};
use telemetry::live::ProcessLive;

use super::logging;

/// What is so now; zero for what can't be read. `started` is when the process began.
pub(crate) fn live(started: SystemTime) -> ProcessLive {
    let since = started.duration_since(UNIX_EPOCH).unwrap_or_default();
    ProcessLive {
        start_time_seconds: since.as_secs_f64(),
        resident_bytes: resident_pages().unwrap_or(0) * page_size() as u64,
        cpu_seconds: cpu_ticks().unwrap_or(0) as f64 / clock_ticks_per_second() as f64,
        // One of them is the directory that is read here.
        open_fds: fs::read_dir("/proc/self/fd")
            .map_or(0, |entries| (entries.count() as u64).saturating_sub(1)),
        log_lines_lost: logging::lost_lines(),
    }
}

/// The second number of `statm` (proc(5)).
fn resident_pages() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Fields 14 and 15 of `stat` (proc(5)): user and system time. The second field is the program's name
/// in parentheses, which may hold anything.
fn cpu_ticks() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says() {
        let live = live(SystemTime::now());
        assert!(live.resident_bytes > 100_000, "{live:?}");
        assert!(live.open_fds >= 3, "{live:?}");
        assert!(live.start_time_seconds > 1.7e9, "{live:?}");
        assert!(cpu_ticks().is_some());
    }
}
