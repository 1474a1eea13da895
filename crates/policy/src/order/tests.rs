//! Pull order under every mixture of verdicts.

use super::Verdict::{
    Found, ImageFailed, NotFound, PullFailed, RateLimited, Unauthorized, Unavailable,
};
use super::*;
use crate::Reference;
use crate::config::Settings;
use proptest::prelude::*;

fn plan(extra: &str) -> Plan {
    let text = format!(
        "registries: [{{address: a.io, priority: 3}}, {{address: b.io, priority: 2}}, {{address: c.io, priority: 1}}]\n\
         imageRedirMapping: [{{src: docker.io, to: t.io}}]\n{extra}"
    );
    let (settings, _) = Settings::read(&text, &|_| None);
    Plan::new(&settings.rules, &Reference::parse("x:1").unwrap())
}

fn steps(plan: &Plan, verdicts: &[Option<Verdict>]) -> Vec<Step> {
    steps_with(plan, verdicts, &[])
}

fn steps_with(plan: &Plan, verdicts: &[Option<Verdict>], open: &[bool]) -> Vec<Step> {
    let mut order = PullOrder::new(plan);
    let mut steps = Vec::new();
    loop {
        let step = order.next(plan, verdicts, open);
        steps.push(step);
        if matches!(step, Step::Exhausted | Step::ProbeRest) {
            return steps;
        }
    }
}

#[test]
fn settled_when_nothing_above_the_best_is_open() {
    assert!(is_settled(&[Some(NotFound), Some(Found), None]));
    assert!(is_settled(&[Some(Unavailable), Some(Found), None]));
    assert!(!is_settled(&[None, Some(Found)]));
    assert!(!is_settled(&[Some(NotFound), None]));
    assert!(is_settled(&[Some(NotFound), Some(RateLimited)]));
    assert!(is_settled(&[]));
}

#[test]
fn found_then_target_then_original_then_unanswered() {
    let plan = plan("");
    assert_eq!(
        steps(
            &plan,
            &[
                Some(Unavailable),
                Some(Found),
                Some(Found),
                Some(Unavailable)
            ]
        ),
        [
            Step::Candidate(1),
            Step::Candidate(2),
            Step::Candidate(3),
            Step::Original,
            Step::Candidate(0),
            Step::Exhausted,
        ]
    );
}

#[test]
fn of_those_that_never_answered_open_circuits_come_last() {
    let plan = plan("");
    let verdicts = [
        Some(Unavailable),
        Some(RateLimited),
        Some(ImageFailed),
        Some(NotFound),
    ];
    assert_eq!(
        steps_with(&plan, &verdicts, &[true, true, false, false]),
        [
            Step::Original,
            Step::Candidate(2),
            Step::Candidate(0),
            Step::Candidate(1),
            Step::Exhausted,
        ]
    );
}

#[test]
fn the_original_is_not_pulled_again_as_a_candidate_that_never_answered() {
    let file = "registries: [{address: a.io, priority: 600}, {address: docker.io}]";
    let (settings, _) = Settings::read(file, &|_| None);
    let plan = Plan::new(&settings.rules, &Reference::parse("x:1").unwrap());
    assert_eq!(
        steps(&plan, &[Some(NotFound), Some(RateLimited)]),
        [Step::Original, Step::Exhausted]
    );
    // With credentials of its own it is another try.
    let file = file.replace("docker.io}", "docker.io, auth: 'u:p'}");
    let (settings, _) = Settings::read(&file, &|_| None);
    let plan = Plan::new(&settings.rules, &Reference::parse("x:1").unwrap());
    assert_eq!(
        steps(&plan, &[Some(NotFound), Some(RateLimited)]),
        [Step::Original, Step::Candidate(1), Step::Exhausted]
    );
}

#[test]
fn only_a_404_rules_the_target_out() {
    let plan = plan("");
    let with = |target| {
        steps(
            &plan,
            &[Some(NotFound), Some(NotFound), Some(NotFound), Some(target)],
        )
    };
    assert_eq!(with(NotFound), [Step::Original, Step::Exhausted]);
    for stands in [Unauthorized, RateLimited, ImageFailed, Unavailable, Found] {
        assert_eq!(
            with(stands),
            [Step::Candidate(3), Step::Original, Step::Exhausted],
            "{stands:?}"
        );
    }
}

#[test]
fn candidates_cut_short_are_still_in_the_running() {
    let plan = plan("");
    assert_eq!(
        steps(&plan, &[Some(Found), None, None, None]),
        [Step::Candidate(0), Step::ProbeRest]
    );
}

#[test]
fn without_fallback_the_original_is_never_pulled() {
    let plan = plan("fallbackToOrigin: false");
    assert_eq!(
        steps(
            &plan,
            &[
                Some(NotFound),
                Some(PullFailed),
                Some(Unauthorized),
                Some(NotFound)
            ]
        ),
        [Step::Candidate(1), Step::Exhausted]
    );
}

#[test]
fn where_a_pull_has_failed_a_while_ago_it_is_tried_last_of_all() {
    let plan = plan("");
    let verdicts = [
        Some(PullFailed),
        Some(PullFailed),
        Some(Unavailable),
        Some(PullFailed),
    ];
    assert_eq!(
        steps_with(&plan, &verdicts, &[true, false, true, false]),
        [
            Step::Original,
            Step::Candidate(2),
            Step::Candidate(1),
            Step::Candidate(3),
            Step::Candidate(0),
            Step::Exhausted,
        ]
    );
}

#[test]
fn a_candidate_that_is_the_original_is_pulled_once() {
    let (settings, _) = Settings::read("registries: [{address: docker.io}]", &|_| None);
    let plan = Plan::new(&settings.rules, &Reference::parse("x:1").unwrap());
    assert_eq!(
        steps(&plan, &[Some(Found)]),
        [Step::Candidate(0), Step::Exhausted]
    );
    assert_eq!(
        steps(&plan, &[Some(NotFound)]),
        [Step::Original, Step::Exhausted]
    );
}

/// The steps of a pull whose every try fails: `known` at first, and what each asking of the rest has answered.
fn steps_of_a_pull(
    plan: &Plan,
    mut known: Vec<Option<Verdict>>,
    mut answers: impl FnMut() -> Vec<Option<Verdict>>,
) -> Vec<Step> {
    let mut order = PullOrder::new(plan);
    let mut steps = Vec::new();
    // No pull has more: each candidate, the original and the end, and the rest asked before each.
    let most = 2 * (plan.candidates.len() + 2);
    while steps.len() < most {
        let step = order.next(plan, &known, &[]);
        steps.push(step);
        match step {
            Step::Candidate(at) => known[at] = Some(PullFailed),
            Step::ProbeRest => order.learn(&mut known, &answers()),
            Step::Original => {}
            Step::Exhausted => break,
        }
    }
    steps
}

#[test]
fn a_registry_that_is_back_when_the_rest_is_asked_is_used_before_the_origin() {
    let plan = plan("");
    let known = vec![Some(Unavailable), Some(Found), None, None];
    // The one below it does not answer, and need not.
    let answers = || vec![Some(Found), Some(PullFailed), None, Some(NotFound)];
    assert_eq!(
        steps_of_a_pull(&plan, known, answers),
        [
            Step::Candidate(1),
            Step::ProbeRest,
            Step::Candidate(0),
            Step::ProbeRest,
            Step::Original,
            Step::Candidate(2),
            Step::Exhausted,
        ]
    );
}

fn verdicts() -> impl Strategy<Value = Vec<Option<Verdict>>> {
    prop::collection::vec(prop::option::of(prop::sample::select(&Verdict::ALL[..])), 4)
}

proptest! {
    /// Whatever registries say when they are asked again, a pull comes to its end.
    #[test]
    fn every_pull_ends_whatever_changes_meanwhile(
        known in verdicts(),
        answers in prop::collection::vec(verdicts(), 1..8),
    ) {
        let mut answers = answers.into_iter().cycle();
        let steps = steps_of_a_pull(&plan(""), known, || answers.next().unwrap());
        prop_assert_eq!(steps.last(), Some(&Step::Exhausted));
        prop_assert!(steps.contains(&Step::Original));
        let mut pulls: Vec<_> = steps.iter().filter(|step| **step != Step::ProbeRest).collect();
        let all = pulls.len();
        pulls.sort_unstable_by_key(|step| format!("{step:?}"));
        pulls.dedup();
        prop_assert_eq!(pulls.len(), all, "no step twice");
        prop_assert!(!steps.windows(2).any(|two| two == [Step::ProbeRest; 2]));
    }

    /// No step twice, always an end, and the original always among the steps.
    #[test]
    fn every_order_ends_and_includes_the_original(
        codes in prop::collection::vec(0usize..Verdict::ALL.len(), 4),
        open in prop::collection::vec(any::<bool>(), 4),
    ) {
        let verdicts: Vec<_> = codes.iter().map(|&code| Some(Verdict::ALL[code])).collect();
        let steps = steps_with(&plan(""), &verdicts, &open);
        let mut unique = steps.clone();
        unique.dedup();
        prop_assert_eq!(unique.len(), steps.len());
        prop_assert!(steps.contains(&Step::Original));
        prop_assert_eq!(steps.last(), Some(&Step::Exhausted));
    }
}
