//! Times and sizes as people say them.

use std::time::Duration;

/// Whole seconds, for people.
pub(crate) fn seconds(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

/// `12 GiB`, `340 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units.iter().find(|(_, shift)| bytes >> shift >= 1);
    match unit {
        Some((name, shift)) => format!("{} {name}", bytes >> shift),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_people_say_them() {
        assert_eq!(seconds(Duration::from_millis(100_900)), "1m 40s");
        for (bytes, said) in [(0, "0 bytes"), (4096, "4 KiB"), (5 << 30, "5 GiB")] {
            assert_eq!(size(bytes), said);
        }
    }
}
