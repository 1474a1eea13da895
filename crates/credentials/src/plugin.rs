//! Kubelet's credential-provider plugins, and what they output before.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use files::Texts;
use policy::Endpoint;
use policy::config::{CacheKeyType, CredentialPlugins, CredentialProvider, Found, ProviderAnswer};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::program::Program;
use crate::{LookupResult, MAX_FILE};

/// How long a plugin may take; kubelet gives it the same.
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an answer is used that a plugin gave "for this once": we ask before a pull, not for it.
const ONCE_TTL: Duration = Duration::from_secs(60);
/// An answer that is good for less is one for this once. Plugins that count nanoseconds as seconds say so
/// ("21.6µs" for six hours); taken at their word, they would be run for ever.
const SHORTEST_TTL: Duration = Duration::from_secs(1);
/// Answers of one plugin that are remembered. A node has a handful of registries.
const MAX_ANSWERS: usize = 256;

/// Names of files that kubelet reads in a folder of configs.
const CONFIG_ENDS: [&str; 3] = [".json", ".yaml", ".yml"];

/// What plugins output that holds for more than the one image that they were asked about.
#[derive(Default)]
pub(crate) struct Plugins {
    /// By the plugin's name: one that hangs holds up its own answers, and nobody else's.
    of: parking_lot::Mutex<HashMap<String, Arc<Mutex<Answers>>>>,
}

/// One plugin's answers, by image, by registry, or by nothing, and until when they are used. Its lock
/// also keeps two tasks from running the plugin for one answer.
type Answers = HashMap<String, (ProviderAnswer, Instant)>;

impl Plugins {
    /// Asks the plugins that are for `endpoint`, in their order, until one knows credentials. Plugins are
    /// asked about images; the place itself stands for its images here, because one set of credentials
    /// goes with it.
    pub(crate) async fn look_up(
        &self,
        plugins: &CredentialPlugins,
        configs: &Texts,
        endpoint: &Endpoint,
    ) -> LookupResult {
        let mut image = endpoint.domain();
        if !endpoint.path().is_empty() {
            image.push('/');
            image.push_str(endpoint.path());
        }
        let configs: Vec<(String, &str)> = configs
            .iter()
            .map(|(path, text)| (path.display().to_string(), text.as_str()))
            .collect();
        let configs = configs.iter().map(|(path, text)| (path.as_str(), *text));
        let (providers, problems) = CredentialProvider::read(configs);
        let mut without: Option<LookupResult> = None;
        for provider in providers.iter().filter(|provider| provider.is_for(&image)) {
            let answer = self.ask(plugins, provider, endpoint, &image).await;
            if answer.found.credentials.is_some() {
                return answer;
            }
            // One that failed may know some the next time.
            if !without.as_ref().is_some_and(|before| before.failed) {
                without = Some(answer);
            }
        }
        if let Some(answer) = without {
            return answer;
        }
        match problems.first() {
            Some(problem) => LookupResult::failed(format!("no credentials: {problem}")),
            None => LookupResult::good(Found::default(), None),
        }
    }

    async fn ask(
        &self,
        plugins: &CredentialPlugins,
        provider: &CredentialProvider,
        endpoint: &Endpoint,
        image: &str,
    ) -> LookupResult {
        let answers = self.answers(&provider.name);
        let mut answers = answers.lock().await;
        let now = Instant::now();
        answers.retain(|_, (_, until)| *until > now);
        let keys = [
            (CacheKeyType::Image, image.to_owned()),
            (CacheKeyType::Registry, endpoint.domain()),
            (CacheKeyType::Global, String::new()),
        ];
        let remembered = keys.iter().find_map(|(kind, of)| {
            let known = answers.get(of);
            known.filter(|(answer, _)| answer.cache_key_type == *kind)
        });
        if let Some((answer, until)) = remembered {
            return found(provider, answer, image, *until - now);
        }
        let program = plugins.bin_dir.join(&provider.name);
        let run = Program {
            path: &program,
            args: &provider.args,
            env: &provider.env,
            input: &provider.request(image),
            timeout: PLUGIN_TIMEOUT,
        };
        let output = match run.run().await {
            Ok(output) => ProviderAnswer::read(provider, &output),
            Err(error) => return LookupResult::failed(format!("no credentials: {error}")),
        };
        let answer = match output {
            Ok(answer) => answer,
            Err(error) => {
                return LookupResult::failed(format!("no credentials: {}: {error}", provider.name));
            }
        };
        let good_for = match answer.good_for {
            once if once < SHORTEST_TTL => ONCE_TTL,
            good_for => good_for,
        };
        let result = found(provider, &answer, image, good_for);
        let of = keys
            .into_iter()
            .find(|(kind, _)| *kind == answer.cache_key_type);
        if let Some((_, of)) = of
            && answers.len() < MAX_ANSWERS
            && let Some(until) = refresh_at(good_for)
        {
            answers.insert(of, (answer, until));
        }
        result
    }

    fn answers(&self, plugin: &str) -> Arc<Mutex<Answers>> {
        let mut all = self.of.lock();
        Arc::clone(all.entry(plugin.to_owned()).or_default())
    }
}

/// Reads the plugins' config: a file, or, as for kubelet, a folder whose files are one config together.
///
/// # Errors
/// One of them can't be read, or the folder has none: the line is for people.
pub(crate) async fn read_configs(path: &Path) -> Result<Texts, String> {
    let read = files::read_file_or_folder(path, MAX_FILE, &CONFIG_ENDS).await;
    let configs = read.map_err(|problem| format!("cannot read {problem}"))?;
    if configs.is_empty() {
        return Err(format!(
            "the folder {} has no *.json, *.yaml or *.yml; put a CredentialProviderConfig there, or name a file",
            path.display()
        ));
    }
    Ok(configs)
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
) -> LookupResult {
    let credentials = answer.credentials(image);
    let note = credentials
        .is_none()
        .then(|| format!("no credentials: {} knows none for {image}", provider.name));
    LookupResult::good(Found { credentials, note }, Some(good_for))
}
