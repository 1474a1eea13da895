//! The `grpc-timeout` header: at most eight digits and a unit.

use std::time::Duration;

/// Largest number that eight digits hold.
const MAX_VALUE: u128 = 99_999_999;

/// Reads a `grpc-timeout` value such as `120S` or `119999988u`. `None` when it is not one.
pub fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Writes a `grpc-timeout` value in the finest unit that eight digits allow, rounded up, as grpc-go
/// does: a deadline must never get shorter by being written down.
pub fn format_timeout(timeout: Duration) -> String {
    let nanos = timeout.as_nanos();
    for (unit, size) in [
        ('n', 1),
        ('u', 1_000),
        ('m', 1_000_000),
        ('S', 1_000_000_000),
        ('M', 60_000_000_000),
    ] {
        let value = nanos.div_ceil(size);
        if value <= MAX_VALUE {
            return format!("{value}{unit}");
        }
    }
    let hours = nanos.div_ceil(3_600_000_000_000).min(MAX_VALUE);
    format!("{hours}H")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_unit_is_read() {
        for (text, nanos) in [
            ("1n", 1u128),
            ("2u", 2_000),
            ("3m", 3_000_000),
            ("4S", 4_000_000_000),
            ("5M", 300_000_000_000),
            ("6H", 21_600_000_000_000),
            ("00000007S", 7_000_000_000),
            ("99999999H", 99_999_999 * 3_600_000_000_000),
        ] {
            assert_eq!(
                parse_timeout(text.as_bytes()).unwrap().as_nanos(),
                nanos,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_timeout_is_refused() {
        for text in [
            "",
            "S",
            "1",
            "1s",
            "123456789S",
            "-1S",
            "1.5S",
            "1 S",
            "\u{b5}",
        ] {
            assert_eq!(parse_timeout(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn the_finest_unit_that_fits_is_written() {
        for (timeout, text) in [
            (Duration::ZERO, "0n"),
            (Duration::from_secs(120), "120000m"),
            (Duration::from_nanos(19_999_988_123), "19999989u"),
            (Duration::from_secs(99_999), "99999000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(format_timeout(timeout), text);
        }
    }

    proptest! {
        #[test]
        fn written_and_read_again_it_is_never_shorter(nanos in 0u64..) {
            let timeout = Duration::from_nanos(nanos);
            let again = parse_timeout(format_timeout(timeout).as_bytes()).unwrap();
            prop_assert!(again >= timeout);
            prop_assert!(again.as_secs_f64() <= timeout.as_secs_f64() * 1.000_1 + 1e-9);
        }
    }
}
