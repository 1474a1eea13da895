//! Kubelet's credential-provider plugins, and what they said before.

use std::collections::HashMap;
use std::time::Duration;

use policy::Endpoint;
use policy::config::{CacheKeyType, CredentialPlugins, CredentialProvider, Found, ProviderAnswer};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::Answer;
use crate::program::Program;

/// How long a plugin may take; kubelet gives it the same.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long an answer is used that a plugin gave "for this once": we ask before a pull, not for it.
const ONCE: Duration = Duration::from_secs(60);
/// Answers that are remembered. A node has a handful of registries.
const MAX_ANSWERS: usize = 256;

/// What plugins said that holds for more than the one image that they were asked about.
#[derive(Default)]
pub(crate) struct Plugins {
    /// Also keeps two tasks from running one plugin for one answer.
    answers: Mutex<HashMap<Key, (ProviderAnswer, Instant)>>,
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    provider: String,
    of: String,
}

impl Plugins {
    /// Asks the first plugin that is for `endpoint`. Plugins are asked about images; the place itself
    /// stands for its images here, because one set of credentials goes with it.
    pub(crate) async fn look_up(
        &self,
        plugins: &CredentialPlugins,
        config: &str,
        endpoint: &Endpoint,
    ) -> Answer {
        let mut image = endpoint.domain();
        if !endpoint.path().is_empty() {
            image.push('/');
            image.push_str(endpoint.path());
        }
        let (providers, findings) = CredentialProvider::read(config);
        let Some(provider) = providers.iter().find(|provider| provider.is_for(&image)) else {
            let problem = findings.iter().find(|finding| finding.is_error());
            let Some(problem) = problem else {
                return Answer::good(Found::default(), None);
            };
            let file = plugins.config.display().to_string();
            return Answer::failed(format!("no credentials: {}", problem.in_file(&file)));
        };
        let mut answers = self.answers.lock().await;
        let now = Instant::now();
        answers.retain(|_, (_, until)| *until > now);
        let keys = [
            (CacheKeyType::Image, image.clone()),
            (CacheKeyType::Registry, endpoint.domain()),
            (CacheKeyType::Global, String::new()),
        ];
        let remembered = keys.iter().find_map(|(kind, of)| {
            let key = Key {
                provider: provider.name.clone(),
                of: of.clone(),
            };
            answers
                .get(&key)
                .filter(|(answer, _)| answer.cache_key_type == *kind)
        });
        if let Some((answer, until)) = remembered {
            return found(provider, answer, &image, *until - now);
        }
        let program = plugins.bin_dir.join(&provider.name);
        let run = Program {
            path: &program,
            args: &provider.args,
            env: &provider.env,
            input: &provider.request(&image),
            patience: PATIENCE,
        };
        let said = match run.run().await {
            Ok(said) => ProviderAnswer::read(provider, &said),
            Err(error) => return Answer::failed(format!("no credentials: {error}")),
        };
        let answer = match said {
            Ok(answer) => answer,
            Err(error) => {
                return Answer::failed(format!("no credentials: {}: {error}", provider.name));
            }
        };
        let good_for = match answer.good_for {
            Duration::ZERO => ONCE,
            good_for => good_for,
        };
        let result = found(provider, &answer, &image, good_for);
        let of = keys
            .into_iter()
            .find(|(kind, _)| *kind == answer.cache_key_type);
        if let Some((_, of)) = of
            && answers.len() < MAX_ANSWERS
            && let Some(until) = refresh_at(good_for)
        {
            let key = Key {
                provider: provider.name.clone(),
                of,
            };
            answers.insert(key, (answer, until));
        }
        result
    }
}

/// Remembered a little shorter than it is good, so that who refreshes gets a new one.
fn refresh_at(good_for: Duration) -> Option<Instant> {
    Instant::now().checked_add(good_for.mul_f64(0.7))
}

fn found(
    provider: &CredentialProvider,
    answer: &ProviderAnswer,
    image: &str,
    good_for: Duration,
) -> Answer {
    let credentials = answer.credentials(image);
    let note = credentials
        .is_none()
        .then(|| format!("no credentials: {} knows none for {image}", provider.name));
    Answer::good(Found { credentials, note }, Some(good_for))
}
