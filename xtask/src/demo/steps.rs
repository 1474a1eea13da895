//! The steps of the demo, and what has to come of each.

use std::time::Duration;

use anyhow::{Context, Result};
use testkit::cri_client::kubelet_auth;

use super::report;
use super::scene::{PULL_SECRET, Scene};

/// How long after the answer of a pull its log line may come.
const LOG_TIMEOUT: Duration = Duration::from_secs(30);

/// How many steps were taken, and how many did not go as expected.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) steps: usize,
    pub(crate) wrong: usize,
}

/// A pull, and where it has to come from.
struct Pull {
    image: String,
    /// With the pod's pull secret, as kubelet sends it along.
    secret: bool,
    /// The label of the registry; `None` where the pull has to fail.
    expected: Option<&'static str>,
}

impl Outcome {
    /// Counts a step with what is not as it should be.
    pub(super) fn count(&mut self, problems: &[String]) {
        self.steps += 1;
        self.wrong += usize::from(!problems.is_empty());
    }
}

/// Takes all steps and prints each.
pub(crate) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let origin = scene.place("origin")?.registry.host();
    let other_nginx = scene.place("company")?.digest("library/nginx:1.27")?;
    let by_digest = format!("nginx@{other_nginx}");

    report::heading("Pulls through the shim, as kubelet asks for them");
    for (image, secret, expected) in [
        ("nginx:1.27".to_owned(), false, Some("offline")),
        ("quay.io/team/tool:2".to_owned(), false, Some("company")),
        (by_digest, false, Some("company")),
        (format!("{origin}/team/app:1"), true, Some("origin")),
        (format!("{origin}/team/missing:1"), true, None),
    ] {
        let pull = Pull {
            image,
            secret,
            expected,
        };
        outcome.count(&pull.show(scene).await?);
    }

    scene.stop(&["offline"]).await;
    report::heading("Now the offline registry is down");
    let redis = Pull {
        image: "redis:7".to_owned(),
        secret: false,
        expected: Some("company"),
    };
    outcome.count(&redis.show(scene).await?);

    report::heading("What containerd has now");
    report::images(scene, &scene.containerd.client().list().await?);

    scene.stop(&["company", "origin"]).await;
    report::heading("Now every registry is down");
    outcome.count(&present(scene, "nginx:1.27").await?);
    outcome.count(&removed(scene, "nginx:1.27").await?);
    Ok(outcome)
}

impl Pull {
    /// Pulls, prints what came of it, and gives what is not as it should be.
    async fn show(&self, scene: &Scene) -> Result<Vec<String>> {
        for place in &scene.places {
            place.registry.recording().clear();
        }
        scene.shim.clear_log();
        let secret = self
            .secret
            .then(|| kubelet_auth(PULL_SECRET.0, PULL_SECRET.1));
        let pulled = scene.shim.client().pull(&self.image, secret).await;

        report::asked(
            "pull",
            &self.image,
            self.secret.then_some("with the pod's pull secret"),
        );
        let mut problems = Vec::new();
        match &pulled {
            Ok(_) => problems.extend(self.came_from(scene).await?),
            Err(error) => {
                report::error(error.message());
                if self.expected.is_some() {
                    problems.push("the pull failed".to_owned());
                } else if !error.message().contains("image-cri-shim tried") {
                    problems.push("the error does not say what was tried".to_owned());
                }
            }
        }
        report::line("said", &said(scene));
        if self.secret {
            problems.extend(secret_kept(scene)?);
        }
        report::problems(&problems);
        Ok(problems)
    }

    /// Where the shim says it came from, and where it did.
    async fn came_from(&self, scene: &Scene) -> Result<Option<String>> {
        let status = scene.shim.client().status(&self.image).await?;
        let Some(status) = status else {
            return Ok(Some("it was pulled, but is not there".to_owned()));
        };
        let owner = scene.owner(&status.id).unwrap_or("nobody knows");
        let rewrite = "rewrite action=PullImage";
        let rewrite = scene.shim.find_log(rewrite, LOG_TIMEOUT).await;
        let rewrite = rewrite.context("the shim logged no `rewrite` line")?;
        let result = field(&rewrite, "result").unwrap_or("?");
        report::line("from", &format!("{owner}, as {result}"));
        let why = match field(&rewrite, "source") {
            Some("origin") => {
                "no registry has it, so it comes from where its name points".to_owned()
            }
            _ => {
                let matched = scene.shim.find_log("priority match:", LOG_TIMEOUT).await;
                let matched = matched.context("the shim logged no `priority match` line")?;
                let priority = field(&matched, "priority").unwrap_or("?");
                format!("priority {priority} is the highest of those that have it")
            }
        };
        report::line("why", &why);
        Ok(match self.expected {
            Some(expected) if expected == owner => None,
            Some(expected) => Some(format!("it should have come from {expected}")),
            None => Some("the pull should have failed".to_owned()),
        })
    }
}

/// The value of `name=value` in a log line.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let value = line.split_whitespace().find_map(|word| {
        let (key, value) = word.split_once('=')?;
        (key == name).then_some(value)
    });
    value.map(|value| value.trim_matches('"'))
}

/// What each registry said to the shim's question for the manifest.
fn said(scene: &Scene) -> String {
    let answers = scene.places.iter().map(|place| {
        let asked = place
            .registry
            .recording()
            .matching(|request| request.is_manifest() && !request.is_from_containerd());
        let answer = match asked.last() {
            Some(request) => match request.status {
                Some(200) => "has it (200)".to_owned(),
                Some(404) => "hasn't (404)".to_owned(),
                Some(status) => status.to_string(),
                None => "not waited for".to_owned(),
            },
            None => "not reached".to_owned(),
        };
        (place.label, answer)
    });
    // The shim asks the registries of its config; the origin is containerd's to ask.
    let answers: Vec<String> = answers
        .filter(|(label, _)| *label != "origin")
        .map(|(label, answer)| format!("{label} {answer}"))
        .collect();
    answers.join(", ")
}

/// The pod's secret has to reach the host that the pod named, and nobody else.
fn secret_kept(scene: &Scene) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let (user, password) = PULL_SECRET;
    for place in &scene.places {
        let got_it = place
            .registry
            .recording()
            .count(|r| r.has_basic(user, password))
            > 0;
        match (place.label, got_it) {
            ("origin", false) => problems.push("the origin did not get the pull secret".to_owned()),
            ("origin", true) | (_, false) => {}
            (other, true) => problems.push(format!("{other} got the pull secret")),
        }
    }
    if problems.is_empty() {
        report::line("secret", "went to the origin and to nobody else");
    }
    Ok(problems)
}

async fn present(scene: &Scene, image: &str) -> Result<Vec<String>> {
    for place in &scene.places {
        place.registry.recording().clear();
    }
    let status = scene.shim.client().status(image).await?;
    report::asked("status", image, None);
    let mut problems = Vec::new();
    match status {
        Some(status) => report::line("answer", &format!("present, {}", report::short(&status.id))),
        None => problems.push("it is there, but the shim says that it isn't".to_owned()),
    }
    let asked: usize = scene
        .places
        .iter()
        .map(|place| place.registry.requests().len())
        .sum();
    if asked > 0 {
        problems.push("a registry was asked".to_owned());
    }
    report::problems(&problems);
    Ok(problems)
}

async fn removed(scene: &Scene, image: &str) -> Result<Vec<String>> {
    let containerd = scene.containerd.client();
    let before = containerd.list().await?.len();
    scene.shim.client().remove(image).await?;
    let (status, after) = (
        scene.shim.client().status(image).await?,
        containerd.list().await?.len(),
    );
    report::asked("remove", image, None);
    report::line(
        "answer",
        &format!("removed; containerd had {before} images, now {after}"),
    );
    let mut problems = Vec::new();
    if status.is_some() || after + 1 != before {
        problems.push("it is still there".to_owned());
    }
    report::problems(&problems);
    Ok(problems)
}
