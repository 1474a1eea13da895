//! The `Range` header (RFC 9110, section 14). Pure.

/// More ranges in one request are not answered as ranges.
const MAX_RANGES: usize = 32;

/// What a `Range` header asks for, of a blob of a known length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: no header, one that can't be read, or one that is not worth answering in parts.
    All,
    /// Parts, each from its first byte to its end (not included); at least one.
    Parts(Vec<(u64, u64)>),
    /// Nothing that is there.
    Unsatisfiable,
}

/// Reads a header for a content of `length` bytes.
pub(super) fn parse(header: &str, length: u64) -> Wanted {
    let Some(specs) = header.trim().strip_prefix("bytes=") else {
        return Wanted::All;
    };
    if length == 0 {
        // Some clients send a range with every request. There is nothing of which to refuse a part.
        return Wanted::All;
    }
    let mut parts = Vec::new();
    let mut bytes: u64 = 0;
    for (number, spec) in specs.split(',').enumerate() {
        if number == MAX_RANGES {
            return Wanted::All;
        }
        let Some(range) = one(spec.trim(), length) else {
            return Wanted::All;
        };
        if let Some((start, end)) = range {
            bytes = bytes.saturating_add(end - start);
            parts.push((start, end));
        }
    }
    // Overlapping parts that come to more than all of it are somebody's attempt to make us work.
    if bytes > length {
        return Wanted::All;
    }
    match parts.is_empty() {
        true => Wanted::Unsatisfiable,
        false => Wanted::Parts(parts),
    }
}

/// One range: None where it can't be read, `Some(None)` where nothing of it is there.
fn one(spec: &str, length: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = spec.split_once('-')?;
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    if first.is_empty() {
        let suffix = number(last)?;
        let start = length.saturating_sub(suffix);
        return Some((start < length).then_some((start, length)));
    }
    let start = number(first)?;
    let end = match last.is_empty() {
        true => length,
        false => {
            let last = number(last)?;
            // RFC 9110 lets a server refuse a range that ends before it begins; the conformance suite
            // wants that.
            if last < start {
                return Some(None);
            }
            last.saturating_add(1).min(length)
        }
    };
    Some((start < end).then_some((start, end)))
}

/// The parts that are given; None where there are none.
pub(crate) fn parts(header: &str, length: u64) -> Option<Vec<(u64, u64)>> {
    match parse(header, length) {
        Wanted::Parts(parts) => Some(parts),
        Wanted::All | Wanted::Unsatisfiable => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers() {
        let parts = |all: &[(u64, u64)]| Wanted::Parts(all.to_vec());
        for (header, expected) in [
            ("bytes=0-", parts(&[(0, 100)])),
            ("bytes=10-19", parts(&[(10, 20)])),
            ("bytes=10-1000", parts(&[(10, 100)])),
            ("bytes=-30", parts(&[(70, 100)])),
            ("bytes=-300", parts(&[(0, 100)])),
            ("bytes=0-0, 99-99", parts(&[(0, 1), (99, 100)])),
            ("bytes=0-9,200-300", parts(&[(0, 10)])),
            ("bytes=100-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=20-10", Wanted::Unsatisfiable),
            ("bytes=a-b", Wanted::All),
            ("bytes=", Wanted::All),
            ("items=0-1", Wanted::All),
            ("bytes=0-99,0-99", Wanted::All),
            ("bytes=+1-2", Wanted::All),
        ] {
            assert_eq!(parse(header, 100), expected, "{header}");
        }
        let many = format!("bytes={}", vec!["0-0"; 40].join(","));
        assert_eq!(parse(&many, 100), Wanted::All);
        for header in ["bytes=0-", "bytes=5-", "bytes=-5"] {
            assert_eq!(parse(header, 0), Wanted::All, "{header}");
        }
    }

    proptest! {
        #[test]
        fn what_is_given_is_there(header in "(bytes=)?[0-9,\\- ]{0,24}", length in 0u64..200) {
            if let Wanted::Parts(parts) = parse(&header, length) {
                prop_assert!(!parts.is_empty());
                prop_assert!(parts.iter().all(|&(start, end)| start < end && end <= length));
            }
        }
    }
}
