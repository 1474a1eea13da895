//! When to look again: a file when it changes, a program before what it said expires, and what failed
//! after a growing pause.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use files::Texts;
use parking_lot::{Mutex, MutexGuard};
use policy::CredentialSource;
use policy::backoff::Backoff;
use policy::config::{CredentialPlugins, Found, Need};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::plugin::{self, Plugins};
use crate::{LookupResult, MAX_FILE, docker};

/// A program that failed is asked again after this, and then ever more rarely.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(5),
    longest: Duration::from_secs(300),
};
/// No program is asked more often than this, whatever it says about how long its answer is good.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Looks up what a config needs, and keeps it fresh. Ends its work when dropped.
pub struct Keeper {
    shared: Arc<Shared>,
    tasks: HashMap<Need, AbortOnDropHandle<()>>,
    plugins: Option<CredentialPlugins>,
    /// How often files are looked at.
    interval: Arc<dyn Fn() -> Duration + Send + Sync>,
    changes: watch::Receiver<u64>,
}

struct Shared {
    found: Mutex<HashMap<Need, Found>>,
    plugins: Plugins,
    changes: watch::Sender<u64>,
}

impl Keeper {
    /// A keeper that needs nothing yet. `interval` is how often files are looked at, asked for each
    /// time.
    pub fn new(interval: Arc<dyn Fn() -> Duration + Send + Sync>) -> Self {
        let (sender, changes) = watch::channel(0);
        Self {
            shared: Arc::new(Shared {
                found: Mutex::default(),
                plugins: Plugins::default(),
                changes: sender,
            }),
            tasks: HashMap::new(),
            plugins: None,
            interval,
            changes,
        }
    }

    /// Takes over what a new config needs: what it needed before goes on, the rest is looked up in
    /// the background of the current runtime, or forgotten. Needs with a Secret are somebody else's.
    pub fn set(&mut self, needs: &[Need], plugins: Option<&CredentialPlugins>) {
        let other_plugins = self.plugins.as_ref() != plugins;
        self.plugins = plugins.cloned();
        let keep = |need: &Need| needs.contains(need) && !(need.source.is_none() && other_plugins);
        self.tasks.retain(|need, _| keep(need));
        self.shared.lock().retain(|need, _| keep(need));
        for need in needs {
            if matches!(need.source, Some(CredentialSource::Secret(_)))
                || self.tasks.contains_key(need)
            {
                continue;
            }
            let task = Task {
                shared: Arc::clone(&self.shared),
                need: need.clone(),
                plugins: self.plugins.clone(),
                interval: Arc::clone(&self.interval),
            };
            let task = AbortOnDropHandle::new(tokio::spawn(task.run()));
            self.tasks.insert(need.clone(), task);
        }
    }

    /// What is known for `need` now. Nothing, while it is being looked up.
    pub fn get(&self, need: &Need) -> Found {
        self.shared.lock().get(need).cloned().unwrap_or_default()
    }

    /// Whether `need` has been looked up, with whatever result.
    pub fn is_known(&self, need: &Need) -> bool {
        self.shared.lock().contains_key(need)
    }

    /// Waits until something that [`Keeper::get`] gives has changed.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<Need, Found>> {
        self.found.lock()
    }

    fn set(&self, need: &Need, found: Found) {
        let before = self.lock().insert(need.clone(), found.clone());
        if before.as_ref() == Some(&found) {
            return;
        }
        if let Some(note) = &found.note
            && before.and_then(|before| before.note).as_ref() != Some(note)
        {
            tracing::warn!("{}: {note}", need.endpoint);
        }
        self.changes.send_modify(|count| *count += 1);
    }
}

/// Keeps one need.
struct Task {
    shared: Arc<Shared>,
    need: Need,
    plugins: Option<CredentialPlugins>,
    interval: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl Task {
    async fn run(self) {
        let mut last_read: Option<Result<Texts, String>> = None;
        let mut due: Option<Instant> = None;
        // Until when the last good answer may be used.
        let mut good_until: Option<Instant> = None;
        let mut failures: u32 = 0;
        loop {
            let texts = self.read().await;
            let now = Instant::now();
            if last_read.as_ref() != Some(&texts) || due.is_some_and(|due| now >= due) {
                let changed = last_read.as_ref() != Some(&texts);
                let answer = match &texts {
                    Ok(texts) => self.look_up(texts).await,
                    Err(problem) => LookupResult::failed(format!("no credentials: {problem}")),
                };
                last_read = Some(texts);
                let now = Instant::now();
                if answer.failed {
                    failures = failures.saturating_add(1);
                    due = now.checked_add(BACKOFF.pause(failures));
                    // What is still good is used on; what a changed file said before is not.
                    if changed || good_until.is_none_or(|until| now >= until) {
                        self.shared.set(&self.need, answer.found);
                        good_until = None;
                    } else if let Some(note) = &answer.found.note {
                        tracing::warn!(
                            "{}: {note}; what was found before is used until it expires",
                            self.need.endpoint
                        );
                    }
                } else {
                    failures = 0;
                    good_until = answer.good_for.and_then(|good| now.checked_add(good));
                    due = answer
                        .good_for
                        .and_then(|good| now.checked_add(good.mul_f64(0.8).max(SHORTEST_INTERVAL)));
                    self.shared.set(&self.need, answer.found);
                }
            }
            let poll = Instant::now() + (self.interval)();
            // An answer that has expired must go, also when no new one can be had.
            let wake = [due, good_until.filter(|_| failures > 0)]
                .into_iter()
                .flatten()
                .fold(poll, Instant::min);
            if good_until.is_some_and(|until| failures > 0 && Instant::now() >= until) {
                due = Some(Instant::now());
                continue;
            }
            tokio::time::sleep_until(wake).await;
        }
    }

    /// What decides: the docker config, or the plugins' config, which may be a folder of them.
    async fn read(&self) -> Result<Texts, String> {
        match (&self.need.source, &self.plugins) {
            (Some(CredentialSource::File(path)), _) => match files::read(path, MAX_FILE).await {
                Ok(text) => Ok(vec![(path.clone(), text)]),
                Err(error) => Err(format!("cannot read {}: {error}", path.display())),
            },
            (None, Some(plugins)) => plugin::read_configs(&plugins.config).await,
            _ => Ok(Texts::new()),
        }
    }

    async fn look_up(&self, texts: &Texts) -> LookupResult {
        match (&self.need.source, &self.plugins) {
            (Some(CredentialSource::File(path)), _) => {
                let text = texts.first().map_or("", |(_, text)| text);
                docker::look_up(path, text, &self.need.endpoint).await
            }
            (None, Some(plugins)) => {
                let known = &self.shared.plugins;
                known.look_up(plugins, texts, &self.need.endpoint).await
            }
            _ => LookupResult::good(Found::default(), None),
        }
    }
}
