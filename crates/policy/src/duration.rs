//! Durations in Go's syntax (`time.ParseDuration`): `1h30m`, `500ms`, `15m0s`, `1.5h`.

use std::time::Duration;

use thiserror::Error;

/// Go keeps durations in a signed 64-bit count of nanoseconds; what doesn't fit there is refused.
const MAX_NANOS: u128 = i64::MAX as u128;

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DurationError {
    /// Not a sequence of numbers with units.
    #[error("not a duration; write a number with a unit, such as `500ms`, `15s` or `1h30m`")]
    Syntax,
    /// A number without a unit after it.
    #[error("a unit is missing; write `ns`, `us`, `ms`, `s`, `m` or `h` after every number")]
    NoUnit,
    /// A unit Go doesn't know, such as `d`.
    #[error(
        "unknown unit; Go's durations know `ns`, `us`, `ms`, `s`, `m` and `h` (a day is `24h`)"
    )]
    Unit,
    /// More than about 292 years.
    #[error("the duration is too long; at most about 2562047h fit")]
    TooLong,
    /// Below zero.
    #[error("a negative duration has no meaning here")]
    Negative,
}

/// Parses Go's syntax. `0` needs no unit.
///
/// # Errors
/// [`DurationError`] says what to write instead.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(DurationError::Syntax);
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (number, tail) = split_where(rest, |c| !c.is_ascii_digit() && c != '.');
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(DurationError::Syntax);
        }
        let (unit, tail) = split_where(tail, |c| c.is_ascii_digit() || c == '.');
        let unit = unit_nanos(unit)?;
        let part = whole_nanos(whole, unit)?.saturating_add(fraction_nanos(fraction, unit));
        nanos = nanos.saturating_add(part);
        if nanos > MAX_NANOS {
            return Err(DurationError::TooLong);
        }
        rest = tail;
    }
    if negative && nanos > 0 {
        return Err(DurationError::Negative);
    }
    u64::try_from(nanos)
        .map(Duration::from_nanos)
        .map_err(|_| DurationError::TooLong)
}

/// Prints as Go's `Duration.String` does: `15m0s`, `1.5s`, `500ms`, `0s`.
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let seconds = duration.as_secs();
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(nanos, 1_000_000)),
        _ => {
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let rest = decimal(nanos % 60_000_000_000, 1_000_000_000);
            match (hours, minutes) {
                (0, 0) => format!("{rest}s"),
                (0, _) => format!("{minutes}m{rest}s"),
                _ => format!("{hours}h{minutes}m{rest}s"),
            }
        }
    }
}

fn split_where(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

fn unit_nanos(unit: &str) -> Result<u128, DurationError> {
    match unit {
        "ns" => Ok(1),
        // U+00B5 (micro sign) and U+03BC (Greek mu), both of which Go accepts.
        "us" | "\u{b5}s" | "\u{3bc}s" => Ok(1_000),
        "ms" => Ok(1_000_000),
        "s" => Ok(1_000_000_000),
        "m" => Ok(60_000_000_000),
        "h" => Ok(3_600_000_000_000),
        "" => Err(DurationError::NoUnit),
        _ => Err(DurationError::Unit),
    }
}

fn whole_nanos(digits: &str, unit: u128) -> Result<u128, DurationError> {
    if digits.is_empty() {
        return Ok(0);
    }
    let count: u64 = digits.parse().map_err(|_| DurationError::TooLong)?;
    Ok(u128::from(count).saturating_mul(unit))
}

/// In floating point, as Go does: to cut off each digit by itself would lose nanoseconds of long fractions.
/// Digits that no signed 64-bit number holds are dropped.
fn fraction_nanos(digits: &str, unit: u128) -> u128 {
    let mut fraction: u64 = 0;
    let mut scale = 1.0;
    for digit in digits.bytes() {
        let longer = fraction
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(u64::from(digit.saturating_sub(b'0'))))
            .filter(|longer| *longer <= 1 << 63);
        let Some(longer) = longer else {
            break;
        };
        fraction = longer;
        scale *= 10.0;
    }
    (fraction as f64 * (unit as f64 / scale)) as u128
}

fn decimal(value: u128, unit: u128) -> String {
    let digits = unit.ilog10() as usize;
    let fraction = format!("{:0digits$}", value % unit);
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() {
        (value / unit).to_string()
    } else {
        format!("{}.{fraction}", value / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_go_reads_them() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("-0s", 0),
            ("5s", 5_000_000_000),
            ("+5s", 5_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("15m0s", 900_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("500ms", 500_000_000),
            ("10us", 10_000),
            ("10µs", 10_000),
            ("10μs", 10_000),
            ("1ns", 1),
            ("3m2s1ms", 182_001_000_000),
            ("9223372036854775807ns", 9_223_372_036_854_775_807),
            ("9223372036854775.807us", 9_223_372_036_854_775_807),
            ("9223372036s854ms775us807ns", 9_223_372_036_854_775_807),
            // A third of an hour, as somebody's calculator has it.
            ("0.3333333333333333333h", 1_200_000_000_000),
            // Digits that no 64-bit number holds.
            ("0.100000000000000000000h", 360_000_000_000),
            ("0.830103483285477580700h", 2_988_372_539_827),
            ("1.0040s", 1_004_000_000),
            ("0.9ns", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_go_refuses() {
        for (text, error) in [
            ("", DurationError::Syntax),
            ("-", DurationError::Syntax),
            ("s", DurationError::Syntax),
            (".", DurationError::Syntax),
            (".s", DurationError::Syntax),
            ("1..5s", DurationError::Syntax),
            ("3", DurationError::NoUnit),
            ("1d", DurationError::Unit),
            ("1 s", DurationError::Unit),
            ("9223372036854775808ns", DurationError::TooLong),
            ("99999999999999999999h", DurationError::TooLong),
            ("9223372036854775.808us", DurationError::TooLong),
            ("0.9223372036854775810h5000000h", DurationError::TooLong),
            ("-5s", DurationError::Negative),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn as_go_prints_them() {
        for (text, nanos) in [
            ("0s", 0),
            ("1ns", 1),
            ("1.5µs", 1_500),
            ("500ms", 500_000_000),
            ("1.5s", 1_500_000_000),
            ("15s", 15_000_000_000),
            ("15m0s", 900_000_000_000),
            ("1h0m0s", 3_600_000_000_000),
            ("1h30m0.25s", 5_400_250_000_000),
        ] {
            assert_eq!(format(Duration::from_nanos(nanos)), text);
        }
    }

    proptest! {
        #[test]
        fn printed_reads_back(nanos in 0..=i64::MAX as u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn never_panics(text in "[-+0-9.nuµmshd ]{0,24}") {
            let _ = parse(&text);
        }
    }
}
