//! What would happen to an image, and why: the plan and its probes, as the shim would decide now.
//!
//! The running shim and the command that works without one share this, so they can't disagree.

use std::sync::Arc;

use policy::config::Settings;
use policy::rules::MirrorOf;
use policy::{CandidateKind, Plan, PullOrder, Reference, Step, Verdict};
use telemetry::metrics::ORIGIN;
use telemetry::report::{
    Choice, Explanation, Knowledge, LeftOut, OriginReport, Place, RedirectReport, candidates,
    micros,
};

use crate::clock;
use crate::depth::Depth;
use crate::resolver::Resolver;

/// Explains `image`. Without `probe` nobody is asked: the plan is all there is.
///
/// With it, everybody in the plan is asked, as `resolver` would ask now; and the origin is, where
/// nobody in the plan has the image and the config lets it be pulled from there.
pub async fn explain(
    settings: &Settings,
    resolver: &Resolver,
    image: &str,
    probe: bool,
    knowledge: Knowledge,
) -> Explanation {
    let began = clock::now();
    let reference = match Reference::parse(image) {
        Ok(reference) => reference,
        Err(error) => return untouched(image, error.to_string(), knowledge),
    };
    let plan = Arc::new(Plan::new(&settings.rules, &reference));
    if let Some(why) = &plan.untouched {
        return untouched(image, why.clone(), knowledge);
    }
    let mut explanation = Explanation {
        image: image.to_owned(),
        canonical: Some(plan.key.clone()),
        untouched: None,
        redirect: redirect(settings, &plan),
        candidates: candidates(&plan),
        left_out: left_out(settings, &plan),
        origin: Some(OriginReport {
            image: reference.as_written().to_owned(),
            allowed: plan.fallback_to_origin,
            probe: None,
        }),
        order: Vec::new(),
        available: None,
        elapsed_us: 0,
        knowledge,
    };
    let (verdicts, open_circuits) = if probe {
        let resolution = resolver.resolve(&plan, None, Depth::All).await;
        explanation.candidates = resolution.report();
        let mut available = resolution.chosen().is_some();
        if !available && plan.fallback_to_origin {
            let answer = resolver.ask_origin(&plan.meaning).await;
            available = answer.verdict == Verdict::Found;
            if let Some(origin) = &mut explanation.origin {
                origin.probe = Some(answer.report());
            }
        }
        explanation.available = Some(available);
        (resolution.verdicts(), resolution.open_circuits())
    } else {
        // As if everybody had it: the order of the plan.
        (
            vec![Some(Verdict::Found); plan.candidates.len()],
            Vec::new(),
        )
    };
    explanation.order = order(&plan, &verdicts, &open_circuits);
    explanation.elapsed_us = micros(clock::now().saturating_duration_since(began));
    explanation
}

/// What no rule applies to: the runtime is asked for it as it is.
fn untouched(image: &str, why: String, knowledge: Knowledge) -> Explanation {
    Explanation {
        image: image.to_owned(),
        canonical: None,
        untouched: Some(why),
        redirect: None,
        candidates: Vec::new(),
        left_out: Vec::new(),
        origin: None,
        order: vec![Choice {
            image: image.to_owned(),
            registry: ORIGIN.to_owned(),
            place: Place::Origin,
        }],
        available: None,
        elapsed_us: 0,
        knowledge,
    }
}

/// Registries that may not answer for the image's host (rule 5), and places whose name for it can't be used.
fn left_out(settings: &Settings, plan: &Plan) -> Vec<LeftOut> {
    let registries = settings.rules.registries.iter();
    let left_out = registries.filter_map(|registry| match &registry.mirror_of {
        MirrorOf::Hosts(hosts) if !registry.serves(&plan.meaning) => Some(LeftOut {
            registry: registry.endpoint.to_string(),
            why: format!(
                "serves images of {} only, by `mirrorOf` or because it is a public registry",
                hosts.join(", ")
            ),
        }),
        _ => None,
    });
    let unusable = plan.left_out.iter().map(|place| LeftOut {
        registry: place.registry.clone(),
        why: place.why.clone(),
    });
    left_out.chain(unusable).collect()
}

fn redirect(settings: &Settings, plan: &Plan) -> Option<RedirectReport> {
    plan.candidates.iter().find_map(|candidate| {
        let CandidateKind::Redirect(number) = candidate.kind else {
            return None;
        };
        let mut rules = settings.rules.redirects.iter();
        let rule = rules.find(|rule| rule.number == number)?;
        Some(RedirectReport {
            rule: number,
            src: format!("{}/{}", rule.src_domain, rule.src_path),
            to: rule.to.to_string(),
            image: candidate.image.clone(),
        })
    })
}

/// What would be pulled, in this order, if every pull failed.
fn order(plan: &Plan, verdicts: &[Option<Verdict>], open_circuits: &[bool]) -> Vec<Choice> {
    let mut order = PullOrder::new(plan);
    let mut choices = Vec::new();
    loop {
        match order.next(plan, verdicts, open_circuits) {
            Step::Candidate(at) => {
                choices.extend(plan.candidates.get(at).map(|candidate| Choice {
                    image: candidate.image.clone(),
                    registry: candidate.endpoint.to_string(),
                    place: candidate.kind.into(),
                }));
            }
            Step::Original => choices.push(Choice {
                image: plan.reference.as_written().to_owned(),
                registry: ORIGIN.to_owned(),
                place: Place::Origin,
            }),
            // Everybody was asked to the end, so there is nobody left to ask.
            Step::ProbeRest | Step::Exhausted => return choices,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order_of(config: &str, image: &str, verdicts: &[Option<Verdict>]) -> Vec<String> {
        let (settings, _) = Settings::read(config, &|_| None);
        let plan = Plan::new(&settings.rules, &Reference::parse(image).unwrap());
        let choices = order(&plan, verdicts, &[]);
        choices.into_iter().map(|choice| choice.image).collect()
    }

    #[test]
    fn the_order_is_the_one_that_a_pull_follows() {
        let config = "registries: [{address: a.corp, priority: 900}, {address: b.corp}]";
        let (found, silent) = (Some(Verdict::Found), Some(Verdict::Unavailable));
        assert_eq!(
            order_of(config, "ghcr.io/x:1", &[silent, found]),
            ["b.corp/x:1", "ghcr.io/x:1", "a.corp/x:1"]
        );
        assert_eq!(
            order_of(config, "ghcr.io/x:1", &[Some(Verdict::NotFound); 2]),
            ["ghcr.io/x:1"]
        );
    }

    #[test]
    fn who_may_not_answer_is_named() {
        let config = "registries: [{address: quay.io}, {address: a.corp}]";
        let (settings, _) = Settings::read(config, &|_| None);
        let of = |image: &str| {
            let reference = Reference::parse(image).unwrap();
            left_out(&settings, &Plan::new(&settings.rules, &reference))
        };
        assert!(of("quay.io/x:1").is_empty());
        let named = of("ghcr.io/x:1");
        assert_eq!(named.len(), 1);
        assert_eq!(named[0].registry, "https://quay.io");
        assert!(named[0].why.starts_with("serves images of quay.io only"));
    }
}
