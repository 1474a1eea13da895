//! Times, numbers and digests as people say them.

use std::time::{Duration, SystemTime};

/// `340 µs`, `12 ms`, `1.2 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let pair = |large: u64, unit: &str, small: u64, below: &str| match small {
        0 => format!("{large} {unit}"),
        small => format!("{large} {unit} {small} {below}"),
    };
    if duration.as_micros() < 1000 {
        format!("{} µs", duration.as_micros())
    } else if duration.as_micros() < 999_500 {
        format!("{:.0} ms", duration.as_secs_f64() * 1000.0)
    } else if duration.as_millis() < 9_950 {
        format!("{:.1} s", duration.as_secs_f64())
    } else if seconds < 60 {
        format!("{seconds} s")
    } else if seconds < 3600 {
        pair(seconds / 60, "min", seconds % 60, "s")
    } else if seconds < 24 * 3600 {
        pair(seconds / 3600, "h", seconds % 3600 / 60, "min")
    } else {
        pair(seconds / 86_400, "d", seconds % 86_400 / 3600, "h")
    }
}

/// Microseconds, as reports have them.
pub(crate) fn micros(micros: u64) -> String {
    duration(Duration::from_micros(micros))
}

/// Whole seconds, for what is longer than a blink.
pub(crate) fn seconds(seconds: u64) -> String {
    match seconds {
        0 => "0 s".to_owned(),
        seconds if seconds < 10 => format!("{seconds} s"),
        seconds => duration(Duration::from_secs(seconds)),
    }
}

/// How long ago a report's time is: `3 min ago`. The time as it is, where it can't be read.
pub(crate) fn ago(at: &str, now: SystemTime) -> String {
    let Ok(time) = humantime::parse_rfc3339(at) else {
        return at.to_owned();
    };
    // The clocks of two processes on one machine differ by nothing worth mentioning.
    let passed = now.duration_since(time).unwrap_or_default().as_secs();
    let rounded = match passed {
        0 => return "just now".to_owned(),
        passed if passed < 60 => passed,
        passed if passed < 3600 => passed / 60 * 60,
        passed if passed < 86_400 => passed / 3600 * 3600,
        passed => passed / 86_400 * 86_400,
    };
    format!("{} ago", seconds(rounded))
}

/// A report's time to the second: `2026-11-21 06:37:54Z`.
pub(crate) fn when(at: &str) -> String {
    match humantime::parse_rfc3339(at) {
        Ok(time) => {
            let time = humantime::format_rfc3339_seconds(time);
            time.to_string().replace('T', " ")
        }
        Err(_) => at.to_owned(),
    }
}

/// `sha256:0123456789ab`: enough to compare by eye.
pub(crate) fn digest(digest: &str) -> String {
    match digest.split_once(':') {
        Some((algorithm, hex)) => {
            let short: String = hex.chars().take(12).collect();
            format!("{algorithm}:{short}")
        }
        None => digest.to_owned(),
    }
}

/// `1 image`, `2 images`.
pub(crate) fn count(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (micros, shown) in [
            (0, "0 µs"),
            (340, "340 µs"),
            (1_000, "1 ms"),
            (12_400, "12 ms"),
            (999_600, "1.0 s"),
            (1_240_000, "1.2 s"),
            (42_000_000, "42 s"),
            (60_000_000, "1 min"),
            (185_000_000, "3 min 5 s"),
            (7_800_000_000, "2 h 10 min"),
            (4 * 86_400_000_000, "4 d"),
        ] {
            assert_eq!(super::micros(micros), shown);
        }
    }

    #[test]
    fn times() {
        let now = humantime::parse_rfc3339("2026-11-21T10:00:00Z").unwrap();
        for (at, shown) in [
            ("2026-11-21T09:59:59.500Z", "just now"),
            ("2026-11-21T10:00:05Z", "just now"),
            ("2026-11-21T09:59:57Z", "3 s ago"),
            ("2026-11-21T09:56:10Z", "3 min ago"),
            ("2026-11-21T07:30:00Z", "2 h ago"),
            ("2026-11-18T07:30:00Z", "3 d ago"),
            ("soon", "soon"),
        ] {
            assert_eq!(ago(at, now), shown);
        }
        assert_eq!(when("2026-11-21T09:56:10.123Z"), "2026-11-21 09:56:10Z");
        assert_eq!(digest("sha256:0123456789abcdef"), "sha256:0123456789ab");
    }
}
