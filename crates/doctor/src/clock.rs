//! This node's clock, by the `Date` of what registries answer. A clock that is off makes good certificates and
//! tokens bad.

use std::time::{Duration, SystemTime};

use crate::registries::Facts;
use crate::report::{Area, Line};
use crate::words;

/// A difference that tokens and certificates bear.
const BEARABLE: Duration = Duration::from_secs(60);
/// A difference that many do not.
const TOO_MUCH: Duration = Duration::from_secs(300);

/// What one clock says of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Skew {
    registry: String,
    difference: Duration,
    /// Whether this node's clock is behind.
    is_behind: bool,
}

/// How far this node's clock is off, by each registry that has told its time.
pub(crate) fn skews(all: &[Facts]) -> Vec<Skew> {
    let told = all.iter().filter_map(|facts| {
        let seen = facts.seen.as_ref().ok()?;
        Some((facts.name(), seen.date?, seen.answered_at))
    });
    told.map(|(name, date, here)| skew(name, date, here))
        .collect()
}

fn skew(registry: String, date: SystemTime, here: SystemTime) -> Skew {
    let ahead = date.duration_since(here);
    Skew {
        registry,
        is_behind: ahead.is_ok(),
        difference: ahead.unwrap_or_else(|error| error.duration()),
    }
}

/// The line of it; none where no registry has told its time.
pub(crate) fn judge(skews: &[Skew]) -> Option<Line> {
    const CHECK: &str = "clock";
    let worst = skews.iter().max_by_key(|skew| skew.difference)?;
    if worst.difference <= BEARABLE {
        let text = format!(
            "this node's clock agrees with the registries' ({} asked)",
            skews.len()
        );
        return Some(Line::ok(Area::Node, CHECK, text));
    }
    let off = |skew: &&Skew| skew.difference > BEARABLE && skew.is_behind == worst.is_behind;
    let others = skews.iter().filter(off).count();
    let direction = match worst.is_behind {
        true => "behind",
        false => "ahead of",
    };
    let difference = words::seconds(worst.difference);
    let name = &worst.registry;
    // Where most agree with this node, it is theirs that is off.
    if others * 2 < skews.len() {
        let text = format!(
            "the clock of {name} is {difference} off, by this node's and the other registries'"
        );
        return Some(Line::warn(
            Area::Node,
            CHECK,
            text,
            format!("timedatectl set-ntp true   # on the host of {name}"),
        ));
    }
    let text = format!(
        "this node's clock is {difference} {direction} {name}'s: good certificates and tokens are refused"
    );
    let mend = "timedatectl set-ntp true   # or: chronyc makestep";
    Some(match worst.difference > TOO_MUCH {
        true => Line::bad(Area::Node, CHECK, text, mend),
        false => Line::warn(Area::Node, CHECK, text, mend),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;

    fn judged(seconds: &[i64]) -> Option<Line> {
        let here = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let skews: Vec<Skew> = seconds
            .iter()
            .map(|seconds| {
                let by = Duration::from_secs(seconds.unsigned_abs());
                let date = if *seconds > 0 { here + by } else { here - by };
                skew("a.io".to_owned(), date, here)
            })
            .collect();
        judge(&skews)
    }

    #[test]
    fn whose_clock_is_off() {
        assert_eq!(judged(&[]), None);
        for (seconds, verdict, part) in [
            (vec![0, 1, -2], Verdict::Ok, "(3 asked)"),
            (vec![7200], Verdict::Bad, "2h behind a.io's"),
            (vec![-7200, -7200], Verdict::Bad, "2h ahead of"),
            (vec![120], Verdict::Warn, "2m behind"),
            (
                vec![7200, 0, 0],
                Verdict::Warn,
                "the clock of a.io is 2h off",
            ),
        ] {
            let line = judged(&seconds).unwrap();
            assert_eq!(line.verdict, verdict, "{line:?}");
            assert!(line.text.contains(part), "{line:?}");
        }
    }
}
