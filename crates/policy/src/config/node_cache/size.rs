//! Sizes: Kubernetes quantities (`50Gi`, `1.5G`, `1e9`, plain bytes) and percentages.

use std::fmt;

/// A size, or a share of something whose size is only known where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Bytes.
    Bytes(u64),
    /// Hundredths of a percent, at most 10,000.
    Share(u16),
}

impl Size {
    /// `percent` of the whole.
    pub(super) const fn percent(percent: u8) -> Self {
        Self::Share(percent as u16 * 100)
    }

    /// What it is of a whole of `total` bytes.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Share(share) => {
                let part = u128::from(total) * u128::from(share) / 10_000;
                u64::try_from(part).unwrap_or(u64::MAX)
            }
        }
    }

    pub(super) fn is_zero(self) -> bool {
        matches!(self, Self::Bytes(0) | Self::Share(0))
    }

    /// At least `bytes`, at most `percent`.
    pub(super) fn clamped(self, bytes: u64, percent: u16) -> Self {
        match self {
            Self::Bytes(size) => Self::Bytes(size.max(bytes)),
            Self::Share(share) => Self::Share(share.min(percent.saturating_mul(100))),
        }
    }

    /// Reads a quantity or a percentage.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some(percent) = text.strip_suffix('%') {
            let (millionths, exact) = decimal(percent.trim())?;
            let share = u16::try_from(millionths / 10_000).ok()?;
            return (exact && share <= 10_000).then_some(Self::Share(share));
        }
        let end = text
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (millionths, _) = decimal(number)?;
        let scale = scale(suffix)?;
        let bytes = match scale {
            Scale::Times(factor) => millionths.checked_mul(factor)?,
            Scale::Thousandth => millionths.div_ceil(1_000),
        };
        // Kubernetes rounds up to a whole number, and keeps it in a signed one.
        let bytes = u64::try_from(bytes.div_ceil(1_000_000)).ok()?;
        i64::try_from(bytes).is_ok().then_some(Self::Bytes(bytes))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Bytes(bytes) => write!(f, "{bytes}"),
            Self::Share(share) if share % 100 == 0 => write!(f, "{}%", share / 100),
            Self::Share(share) => write!(f, "{}.{:02}%", share / 100, share % 100),
        }
    }
}

enum Scale {
    Times(u128),
    Thousandth,
}

/// A number in millionths, and whether nothing of it was cut off.
fn decimal(text: &str) -> Option<(u128, bool)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let kept: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let exact = fraction.chars().skip(6).all(|c| c == '0');
    let millionths = u128::from(whole) * 1_000_000 + kept.parse::<u128>().ok()?;
    Some((millionths, exact))
}

/// What a suffix of a quantity stands for (`apimachinery/pkg/api/resource`).
fn scale(suffix: &str) -> Option<Scale> {
    let binary = |power: u32| Scale::Times(1024_u128.pow(power));
    let decimal = |power: u32| Scale::Times(1000_u128.pow(power));
    Some(match suffix {
        "" => Scale::Times(1),
        "m" => Scale::Thousandth,
        "k" => decimal(1),
        "M" => decimal(2),
        "G" => decimal(3),
        "T" => decimal(4),
        "P" => decimal(5),
        "E" => decimal(6),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let power = suffix.strip_prefix(['e', 'E'])?;
            let power = power.strip_prefix('+').unwrap_or(power);
            let power: u32 = power.parse().ok().filter(|power| *power <= 18)?;
            Scale::Times(10_u128.pow(power))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_kubernetes_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("50Gi", 50 << 30),
            ("1.5Gi", 3 << 29),
            (".5Ki", 512),
            ("10G", 10_000_000_000),
            ("1e9", 1_000_000_000),
            ("1E+3", 1_000),
            ("1E", 1_000_000_000_000_000_000),
            ("1500m", 2),
            ("0.1", 1),
        ] {
            assert_eq!(Size::parse(text), Some(Size::Bytes(bytes)), "{text}");
        }
        for text in [
            "", "Gi", "5 Gi", "5gi", "5GB", "-1", "1e99", "99Ei", "1..5", "0x10", "1e-3",
        ] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_percentage_is_a_share_of_what_is_there() {
        assert_eq!(Size::parse("10%"), Some(Size::percent(10)));
        assert_eq!(Size::parse("12.5 %"), Some(Size::Share(1_250)));
        assert_eq!(Size::parse("100%"), Some(Size::Share(10_000)));
        for text in ["101%", "%", "-1%", "a%"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
        assert_eq!(Size::percent(10).of(1_000), 100);
        assert_eq!(Size::percent(100).of(u64::MAX), u64::MAX);
        assert_eq!(Size::Bytes(5).of(1_000), 5);
        for text in ["5", "10%", "12.50%"] {
            assert_eq!(Size::parse(text).unwrap().to_string(), text);
        }
    }
}
