//! What a tag means, from what it meant and from what the places of the plan say now. Pure: no clock
//! and no I/O.
//!
//! A tag stays with the place it came from. Another place's different digest replaces it only when that
//! place has a higher priority, or the first place says 404, is no longer in the plan, has been silent
//! for an hour, refuses nobody's credentials, or has refused the config's for `authStale`; so two mirrors
//! that disagree don't make a tag flip, and none that refuses makes it freeze.

use std::time::Duration;

use crate::digest::Digest;
use crate::index::Tag;
use crate::upstream::Failure;

/// How long a tag's place may be silent before another place's digest replaces the tag's, in seconds.
const SILENCE_LIMIT: u64 = 60 * 60;

/// How fresh a tag has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// `tagTTL`: how long a tag is not asked about again.
    pub tag_ttl: Duration,
    /// `maxStale`: how long after its last confirmation a tag is served when nobody answers.
    pub max_stale: Option<Duration>,
    /// `authStale`: the same, when the config's credentials are refused.
    pub auth_stale: Duration,
    /// `serveDeleted`: whether a tag is served that every place says it has not.
    pub serve_deleted: bool,
}

/// A place, as far as it matters here. They come in the plan's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What a tag remembers it by.
    pub name: String,
    /// Its priority.
    pub priority: u32,
    /// Whose credentials it gets.
    pub whose: Whose,
    /// What it said; None where it has not answered yet, or is not asked.
    pub heard: Option<Heard>,
}

/// Whose credentials a place gets: a refusal means something else for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The config's, which may have expired: for a while, what is known goes on.
    Config,
    /// The caller's: a refusal is about him, and not about the tag.
    Caller,
    /// None: what is refused to nobody in particular is private.
    Nobody,
}

/// What a place said about a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It has it, and means this manifest.
    Found(Digest),
    /// It does not help.
    Failed(Failure),
}

/// Why an answer is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// Nobody answered, or not well.
    Unreachable,
    /// Somebody asked us to come later.
    RateLimited,
    /// The config's credentials are refused.
    CredentialsRefused,
    /// Every place has deleted it.
    Deleted,
    /// The place that it came from has not answered, and another says something else.
    Disputed,
}

impl Stale {
    /// For people, in a `Warning`.
    pub fn text(self) -> &'static str {
        match self {
            Self::Unreachable => "no registry answered; this is what the tag meant before",
            Self::RateLimited => "the registry limits requests; this is what the tag meant before",
            Self::CredentialsRefused => {
                "the registry refuses the configured credentials; this is what the tag meant before"
            }
            Self::Deleted => "no registry has this tag any more; this is what it meant before",
            Self::Disputed => {
                "the registry that this tag came from does not answer; this is what it meant before"
            }
        }
    }
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// This is what it means, by the word of the place with this number.
    Fresh {
        /// The place.
        place: usize,
        /// What is to be remembered.
        tag: Tag,
    },
    /// What it meant before is served.
    Stale {
        /// Why.
        why: Stale,
        /// What is to be remembered.
        tag: Tag,
    },
    /// Who wants it has to prove a right: a place that gave it to everybody refuses it now.
    Private {
        /// The place that refuses.
        place: usize,
    },
    /// There is nothing to serve.
    Nothing,
}

/// Whether a tag need not be asked about.
pub fn is_fresh(tag: &Tag, rules: &Freshness, now: u64) -> bool {
    tag.imported || now.saturating_sub(tag.validated_at) < rules.tag_ttl.as_secs()
}

/// Whether the place that a tag came from refuses it to nobody in particular now: what it gave of the
/// repository is private, whoever else has the tag.
pub fn is_taken_back(tag: &Tag, asked: &[Asked]) -> bool {
    asked.iter().any(|place| {
        place.name == tag.place
            && place.whose == Whose::Nobody
            && matches!(place.heard, Some(Heard::Failed(Failure::Refused(_))))
    })
}

/// Decides. `asked` are the places in the plan's order; `tag` is what was known before.
pub fn decide(tag: Option<&Tag>, asked: &[Asked], rules: &Freshness, now: u64) -> Decision {
    let own = tag.and_then(|tag| asked.iter().position(|place| place.name == tag.place));
    let own_heard = own
        .and_then(|own| asked.get(own))
        .and_then(|own| own.heard.as_ref());
    let own_failure = match own_heard {
        Some(Heard::Failed(failure)) => Some(failure),
        _ => None,
    };
    let is_own_silent = own_failure.is_some_and(is_no_word);
    let silent_since = tag.and_then(|tag| match is_own_silent {
        true => Some(tag.silent_since.unwrap_or(now)),
        false => None,
    });
    let age = tag.map_or(0, |tag| now.saturating_sub(tag.validated_at));
    let own_whose = own.and_then(|own| asked.get(own)).map(|own| own.whose);
    // Whether another place's different digest may replace the tag's.
    let is_free = match (tag, own) {
        (None, _) | (_, None) => true,
        (Some(_), Some(_)) => match own_failure {
            Some(Failure::NotFound | Failure::Circle) => true,
            Some(failure) if is_no_word(failure) => {
                silent_since.is_some_and(|since| now.saturating_sub(since) >= SILENCE_LIMIT)
            }
            Some(Failure::Refused(_)) => match own_whose {
                Some(Whose::Config) => age >= rules.auth_stale.as_secs(),
                Some(Whose::Nobody) => true,
                Some(Whose::Caller) | None => false,
            },
            _ => false,
        },
    };
    let own_priority = own.and_then(|own| asked.get(own)).map(|own| own.priority);
    let mut disputed = false;
    for (number, place) in asked.iter().enumerate() {
        let Some(Heard::Found(digest)) = &place.heard else {
            continue;
        };
        let confirms = tag.is_some_and(|tag| tag.digest == *digest);
        let is_higher = own_priority.is_some_and(|own| place.priority > own);
        if own == Some(number) || is_higher || is_free || confirms {
            let stays = confirms && !is_higher && !is_free;
            let keeps = tag.filter(|_| stays).map(|tag| tag.place.clone());
            return Decision::Fresh {
                place: number,
                tag: Tag {
                    digest: digest.clone(),
                    place: keeps.unwrap_or_else(|| place.name.clone()),
                    validated_at: now,
                    silent_since: silent_since.filter(|_| stays),
                    imported: false,
                },
            };
        }
        disputed = true;
    }
    let failures = || {
        let asked = asked.iter().enumerate();
        asked.filter_map(|(number, place)| match &place.heard {
            Some(Heard::Failed(failure)) => Some((number, place, failure)),
            _ => None,
        })
    };
    let Some(tag) = tag else {
        return Decision::Nothing;
    };
    let remembered = Tag {
        silent_since,
        ..tag.clone()
    };
    let stale = |why: Stale, limit: Option<Duration>| match limit {
        Some(limit) if age >= limit.as_secs() => Decision::Nothing,
        _ => Decision::Stale {
            why,
            tag: remembered.clone(),
        },
    };
    // Imported from a file: no registry has to have it.
    if tag.imported {
        return stale(Stale::Unreachable, None);
    }
    // What its own place says now comes before what others say.
    let is_own_refusal = matches!(own_failure, Some(Failure::Refused(_)));
    if disputed && !is_own_refusal {
        return stale(Stale::Disputed, rules.max_stale);
    }
    let is_deleted = failures().any(|(_, _, failure)| *failure == Failure::NotFound)
        && failures().all(|(_, _, f)| matches!(f, Failure::NotFound | Failure::Circle));
    if is_deleted {
        return match rules.serve_deleted {
            true => stale(Stale::Deleted, rules.max_stale),
            false => Decision::Nothing,
        };
    }
    // Only the place that gave it, or anybody where that place is no longer asked, can take it back.
    let refused = failures().find(|(_, place, failure)| {
        matches!(failure, Failure::Refused(_)) && (own.is_none() || place.name == tag.place)
    });
    match refused {
        Some((_, place, _)) if place.whose == Whose::Config => {
            return stale(Stale::CredentialsRefused, Some(rules.auth_stale));
        }
        Some((place, _, _)) => return Decision::Private { place },
        None => {}
    }
    // Everybody has answered, and one that might have it wants other credentials of the config.
    let is_refused = failures().any(|(_, place, failure)| {
        matches!(failure, Failure::Refused(_)) && place.whose == Whose::Config
    });
    if is_refused && !failures().any(|(_, _, failure)| is_no_word(failure)) {
        return stale(Stale::CredentialsRefused, Some(rules.auth_stale));
    }
    let is_limited = failures().any(|(_, _, f)| matches!(f, Failure::RateLimited(_)));
    let why = match is_limited {
        true => Stale::RateLimited,
        false => Stale::Unreachable,
    };
    stale(why, rules.max_stale)
}

/// Whether a failure says nothing about the tag.
fn is_no_word(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Silent(_) | Failure::RateLimited(_) | Failure::Wrong(_)
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_000_000;

    fn rules() -> Freshness {
        Freshness {
            tag_ttl: Duration::ZERO,
            max_stale: None,
            auth_stale: Duration::from_secs(24 * 3600),
            serve_deleted: false,
        }
    }

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn tag(of: &str, place: &str) -> Tag {
        Tag {
            digest: digest(of),
            place: place.into(),
            validated_at: NOW - 100,
            silent_since: None,
            imported: false,
        }
    }

    fn found(name: &str) -> Heard {
        Heard::Found(digest(name))
    }

    fn silent() -> Heard {
        Heard::Failed(Failure::Silent("x".into()))
    }

    fn missing() -> Heard {
        Heard::Failed(Failure::NotFound)
    }

    fn refused() -> Heard {
        Heard::Failed(Failure::Refused("x".into()))
    }

    /// Places `a` (the highest), `b` and `c`.
    fn heard(all: [Heard; 3]) -> Vec<Asked> {
        let names = ["a", "b", "c"];
        names
            .into_iter()
            .zip(all)
            .enumerate()
            .map(|(at, (name, heard))| Asked {
                name: name.into(),
                priority: 10 - at as u32,
                whose: match name {
                    "b" => Whose::Config,
                    _ => Whose::Nobody,
                },
                heard: Some(heard),
            })
            .collect()
    }

    /// `digest@place`, or why not.
    fn shown(decision: Decision) -> String {
        match decision {
            Decision::Fresh { place, tag } => {
                let name = ["x", "y", "z"]
                    .into_iter()
                    .find(|n| digest(n) == tag.digest);
                format!("{}@{} by {place}", name.unwrap(), tag.place)
            }
            Decision::Stale { why, .. } => format!("{why:?}"),
            Decision::Private { place } => format!("Private by {place}"),
            Decision::Nothing => "Nothing".to_owned(),
        }
    }

    #[test]
    fn what_a_tag_means() {
        for (known, all, expected) in [
            // Nothing known: the best that has it.
            (None, [missing(), found("x"), found("y")], "x@b by 1"),
            (None, [silent(), found("x"), found("y")], "x@b by 1"),
            (None, [missing(), silent(), missing()], "Nothing"),
            // Its own place is believed.
            (Some("x@b"), [missing(), found("y"), found("z")], "y@b by 1"),
            // A higher one, too, and the tag moves there.
            (Some("x@b"), [found("y"), found("x"), missing()], "y@a by 0"),
            (Some("x@b"), [found("x"), found("x"), missing()], "x@a by 0"),
            // A lower one is not while its own place is silent, unless it says the same.
            (Some("x@b"), [missing(), silent(), found("y")], "Disputed"),
            (Some("x@b"), [missing(), silent(), found("x")], "x@b by 2"),
            (Some("x@b"), [missing(), missing(), found("y")], "y@c by 2"),
            (
                Some("x@gone"),
                [missing(), missing(), found("y")],
                "y@c by 2",
            ),
            // 404 only when all say so.
            (Some("x@b"), [missing(), missing(), missing()], "Nothing"),
            (Some("x@b"), [missing(), missing(), silent()], "Unreachable"),
            (Some("x@b"), [silent(), silent(), silent()], "Unreachable"),
            // The place that gave it takes it back.
            (
                Some("x@b"),
                [missing(), refused(), missing()],
                "CredentialsRefused",
            ),
            (
                Some("x@c"),
                [missing(), missing(), refused()],
                "Private by 2",
            ),
            (Some("x@b"), [missing(), silent(), refused()], "Unreachable"),
            // Until then the config's word is awaited, whatever a lower one says now.
            (
                Some("x@b"),
                [missing(), refused(), found("y")],
                "CredentialsRefused",
            ),
            (Some("x@b"), [missing(), refused(), found("x")], "x@b by 2"),
            // The same where another one than its own refuses, and nobody is silent.
            (
                Some("x@c"),
                [missing(), refused(), missing()],
                "CredentialsRefused",
            ),
            (Some("x@c"), [silent(), refused(), missing()], "Unreachable"),
            // What is refused to nobody in particular is private there; it may be public elsewhere.
            (Some("x@a"), [refused(), found("y"), missing()], "y@b by 1"),
            (Some("x@a"), [refused(), found("x"), missing()], "x@b by 1"),
            (
                Some("x@a"),
                [refused(), missing(), missing()],
                "Private by 0",
            ),
            (
                Some("x@gone"),
                [missing(), missing(), refused()],
                "Private by 2",
            ),
        ] {
            let known = known.map(|known: &str| {
                let (of, place) = known.split_once('@').unwrap();
                tag(of, place)
            });
            let decision = decide(known.as_ref(), &heard(all.clone()), &rules(), NOW);
            assert_eq!(shown(decision), expected, "{known:?} {all:?}");
        }
    }

    #[test]
    fn after_an_hour_of_silence_another_place_is_believed() {
        let all = || heard([missing(), silent(), found("y")]);
        let mut known = tag("x", "b");
        let Decision::Stale { tag: kept, .. } = decide(Some(&known), &all(), &rules(), NOW) else {
            panic!("not stale");
        };
        assert_eq!(kept.silent_since, Some(NOW));
        known = kept;
        let before = decide(Some(&known), &all(), &rules(), NOW + 3599);
        assert_eq!(shown(before), "Disputed");
        let after = decide(Some(&known), &all(), &rules(), NOW + 3600);
        assert_eq!(shown(after), "y@c by 2");
        // Had it answered in between, the hour would begin anew.
        let Decision::Fresh { tag, .. } = decide(
            Some(&known),
            &heard([missing(), found("x"), missing()]),
            &rules(),
            NOW + 10,
        ) else {
            panic!("not fresh");
        };
        assert_eq!(tag.silent_since, None);
    }

    #[test]
    fn times() {
        let all = heard([silent(), silent(), silent()]);
        let limited = Freshness {
            max_stale: Some(Duration::from_secs(100)),
            ..rules()
        };
        let known = tag("x", "b");
        assert_eq!(shown(decide(Some(&known), &all, &limited, NOW)), "Nothing");
        assert_eq!(
            shown(decide(Some(&known), &all, &limited, NOW - 1)),
            "Unreachable"
        );
        let all = heard([missing(), refused(), missing()]);
        let day = NOW - 100 + 24 * 3600;
        assert_eq!(shown(decide(Some(&known), &all, &rules(), day)), "Nothing");
        let elsewhere = tag("x", "c");
        let ended = decide(Some(&elsewhere), &all, &rules(), day);
        assert_eq!(shown(ended), "Nothing");
        let all = heard([missing(), refused(), found("y")]);
        let before = decide(Some(&known), &all, &rules(), day - 1);
        assert_eq!(shown(before), "CredentialsRefused");
        let after = decide(Some(&known), &all, &rules(), day);
        assert_eq!(shown(after), "y@c by 2");
        let deleted = Freshness {
            serve_deleted: true,
            ..rules()
        };
        let all = heard([missing(), missing(), missing()]);
        assert_eq!(shown(decide(Some(&known), &all, &deleted, NOW)), "Deleted");
        let minute = Freshness {
            tag_ttl: Duration::from_secs(60),
            ..rules()
        };
        assert!(!is_fresh(&known, &minute, NOW));
        assert!(is_fresh(&known, &minute, NOW - 41));
        assert!(!is_fresh(&known, &rules(), NOW - 100));
    }

    #[test]
    fn a_caller_who_is_refused_moves_no_tag() {
        let mut all = heard([refused(), missing(), found("y")]);
        for place in &mut all {
            place.whose = Whose::Caller;
        }
        let decision = decide(Some(&tag("x", "a")), &all, &rules(), NOW);
        assert_eq!(shown(decision), "Private by 0");
    }

    fn any_heard() -> impl Strategy<Value = Heard> {
        prop_oneof![
            Just(found("x")),
            Just(found("y")),
            Just(silent()),
            Just(missing()),
            Just(refused()),
            Just(Heard::Failed(Failure::RateLimited(None))),
            Just(Heard::Failed(Failure::Wrong("w".into()))),
            Just(Heard::Failed(Failure::Circle)),
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_made_up(
            all in [any_heard(), any_heard(), any_heard()],
            known in prop::option::of(prop::sample::select(vec!["x@a", "x@b", "x@c", "x@gone"])),
        ) {
            let known = known.map(|known| {
                let (of, place) = known.split_once('@').unwrap();
                tag(of, place)
            });
            let asked = heard(all.clone());
            match decide(known.as_ref(), &asked, &rules(), NOW) {
                Decision::Fresh { place, tag } => {
                    prop_assert_eq!(&all[place], &Heard::Found(tag.digest.clone()));
                    prop_assert_eq!(tag.validated_at, NOW);
                    // Never from a lower place while the own one has not let go of it.
                    if let Some(known) = &known
                        && tag.digest != known.digest
                        && let Some(own) = asked.iter().position(|a| a.name == known.place)
                        && place > own
                    {
                        let is_let_go = match &all[own] {
                            Heard::Failed(Failure::NotFound | Failure::Circle) => true,
                            Heard::Failed(Failure::Refused(_)) => {
                                asked[own].whose == Whose::Nobody
                            }
                            _ => false,
                        };
                        prop_assert!(is_let_go);
                    }
                }
                Decision::Stale { tag, .. } => {
                    let known = known.unwrap();
                    prop_assert_eq!(tag.digest, known.digest);
                    prop_assert_eq!(tag.validated_at, known.validated_at);
                }
                Decision::Private { place } => prop_assert_eq!(&all[place], &refused()),
                Decision::Nothing => prop_assert!(
                    known.is_none() || all.iter().all(|h| matches!(
                        h, Heard::Failed(Failure::NotFound | Failure::Circle)
                    )) || all.iter().all(|h| *h == Heard::Failed(Failure::Circle))
                ),
            }
        }
    }
}
