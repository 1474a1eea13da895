//! Looks, all the while, whether what must hold does: secrets, processes, and what is stored.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use testkit::admission;
use tokio::process::Command;
use tokio::time::timeout;

use super::health::Part;
use super::ledger::Invariant;
use super::processes::{Life, sample};
use super::schedule::registry_name;
use super::site::{BYSTANDER, OFFLINE, ORIGIN};
use super::world::World;

const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);
const COLLECT_INTERVAL: Duration = Duration::from_secs(5);
const COMMANDS_INTERVAL: Duration = Duration::from_secs(45);
/// A command that takes longer hangs.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// The texts that may be in no output.
pub(crate) struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    /// All that are planted, as they are and as they travel.
    pub(crate) fn new(world: &World) -> Result<Self> {
        let mut all = vec![("the API server's token", world.api.token().to_owned())];
        for (name, (user, password)) in [
            ("the offline registry's password", OFFLINE),
            ("the origin's password", ORIGIN),
            ("the pull secret", BYSTANDER),
        ] {
            all.push((name, password.to_owned()));
            all.push((name, STANDARD.encode(format!("{user}:{password}"))));
            all.push((name, STANDARD.encode(password)));
        }
        let key = world.webhook_key()?;
        // Base64 without the first line, which is the same in every key.
        let key = key.lines().nth(1).unwrap_or(&key).to_owned();
        all.push(("the webhook's private key", key));
        Ok(Self(all))
    }

    /// Which secrets are in a text.
    fn found_in(&self, text: &str) -> Vec<&'static str> {
        let found = self.0.iter().filter(|(_, secret)| text.contains(secret));
        found.map(|(name, _)| *name).collect()
    }
}

/// Watches until it is dropped.
pub(crate) struct Watch<'a> {
    world: &'a World,
    secrets: Secrets,
    logs: &'a Path,
    /// How much of a log was read, by its name.
    read: std::cell::RefCell<HashMap<&'static str, usize>>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(world: &'a World, logs: &'a Path) -> Result<Self> {
        Ok(Self {
            world,
            secrets: Secrets::new(world)?,
            logs,
            read: std::cell::RefCell::default(),
        })
    }

    /// Looks at all of it in turn, for ever.
    pub(crate) async fn run(&self) -> Result<()> {
        let (samples, collects, commands) = tokio::join!(
            every(SAMPLE_INTERVAL, async || self.sample()),
            every(COLLECT_INTERVAL, async || self.collect().await),
            every(COMMANDS_INTERVAL, async || self.commands().await),
        );
        samples.and(collects).and(commands)
    }

    /// What can be seen at the end, when all calls are answered and all parts are well.
    pub(crate) async fn at_the_end(&self) -> Result<()> {
        self.commands().await?;
        self.collect().await
    }

    fn sample(&self) -> Result<()> {
        let world = self.world;
        let mut pids = Vec::new();
        // A part that is being restarted has no process to look at.
        if let Ok(shim) = world.shim.try_lock() {
            pids.push(("shim", shim.pid().ok()));
        }
        if let Ok(cache) = world.cache.try_lock() {
            pids.push(("cache", cache.pid()));
        }
        if let Ok(webhook) = world.webhook.try_lock() {
            pids.push(("webhook", Some(webhook.pid())));
        }
        let now = world.now();
        let mut ledger = world.ledger();
        for (name, pid) in pids {
            ledger.check(Invariant::Alive);
            let taken = pid.map(|pid| (pid, sample(pid, now)));
            match taken {
                Some((pid, Ok(sample))) => Life::add(&mut ledger.lives, name, pid, sample),
                _ => ledger.breaks(Invariant::Alive, now, format!("the {name} is gone")),
            }
        }
        Ok(())
    }

    /// Takes the new lines of all logs, keeps them in files and looks for secrets; and looks at what the
    /// registries were sent.
    async fn collect(&self) -> Result<()> {
        let world = self.world;
        let shim = world.shim.lock().await.take_log().join("\n");
        self.keep("shim", &shim)?;
        let cache = world.cache.lock().await.log();
        self.keep_new("cache", &cache)?;
        let webhook = world.webhook.lock().await.log();
        self.keep_new("webhook", &webhook)?;
        for (index, registry) in world.registries.iter().enumerate() {
            let registry = registry.lock().await;
            let recording = registry.recording();
            let misled = [
                ("bystander's", BYSTANDER, 9),
                ("offline", OFFLINE, 0),
                ("origin", ORIGIN, 2),
            ];
            for (name, (user, password), its_own) in misled {
                let count = match its_own == index {
                    true => 0,
                    false => recording.count(|request| request.has_basic(user, password)),
                };
                let mut ledger = world.ledger();
                ledger.check(Invariant::Secret);
                if count > 0 {
                    let text = format!(
                        "{} was sent the {name} credentials {count} times",
                        registry_name(index)
                    );
                    ledger.breaks(Invariant::Secret, world.now(), text);
                }
            }
            recording.clear();
        }
        world.ledger().flush();
        Ok(())
    }

    /// Keeps what of a log was not seen yet; it begins anew with each process of the webhook.
    fn keep_new(&self, name: &'static str, log: &str) -> Result<()> {
        let from = {
            let mut read = self.read.borrow_mut();
            let from = read.entry(name).or_default();
            let before = if *from > log.len() { 0 } else { *from };
            *from = log.len();
            before
        };
        self.keep(name, log.get(from..).unwrap_or(log))
    }

    fn keep(&self, name: &str, text: &str) -> Result<()> {
        self.no_secret_in(&format!("the {name}'s log"), text);
        if text.is_empty() {
            return Ok(());
        }
        let path: PathBuf = self.logs.join(format!("{name}.log"));
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(file, "{}", text.trim_end())?;
        Ok(())
    }

    fn no_secret_in(&self, place: &str, text: &str) {
        let now = self.world.now();
        let mut ledger = self.world.ledger();
        ledger.check(Invariant::Secret);
        for secret in self.secrets.found_in(text) {
            ledger.breaks(Invariant::Secret, now, format!("{secret} is in {place}"));
        }
    }

    /// Runs what people run, asks what Prometheus and browsers ask, and reads everything that is stored.
    async fn commands(&self) -> Result<()> {
        let world = self.world;
        // No restart while the commands run: without a shim or a cache they say something else.
        {
            let shim = world.shim.lock().await;
            let file = shim.config_file();
            for args in [
                &["status"][..],
                &["status", "--json"],
                &["history", "-n", "1000"],
                &["history", "-n", "1000", "--json"],
                &["config", "show"],
                &["config", "check"],
            ] {
                let (_, text) = self.command(args, &file, None).await?;
                self.no_secret_in(&args.join(" "), &text);
            }
        }
        let addresses = &world.addresses;
        for url in [
            format!("http://{}/", addresses.shim_metrics),
            format!("http://{}/metrics", addresses.shim_metrics),
            format!("http://{}/api/status", addresses.shim_metrics),
            format!("http://{}/api/history", addresses.shim_metrics),
            format!("http://{}/metrics", addresses.cache_metrics),
        ] {
            if let Ok(text) = get(&url).await {
                self.no_secret_in(&url, &text);
            }
        }
        let metrics = world.webhook.lock().await.health("/metrics").await;
        if let Some((_, text)) = metrics {
            self.no_secret_in("the webhook's metrics", &text);
        }
        let cache = world.cache.lock().await;
        let (file, socket) = (cache.config_file(), cache.command_socket());
        let (_, text) = self
            .command(&["cache", "ls", "--json"], &file, Some(&socket))
            .await?;
        self.no_secret_in("cache ls", &text);
        let from = world.now();
        let (success, text) = self
            .command(&["cache", "verify"], &file, Some(&socket))
            .await?;
        self.no_secret_in("cache verify", &text);
        let to = world.now();
        let can_be_judged = world.health().was_well(Part::Cache, from, to)
            && world.health().was_well(Part::CacheDisk, from, to);
        if can_be_judged || success {
            let mut ledger = world.ledger();
            ledger.check(Invariant::Right);
            ledger.note(to, &format!("cache verify: {}", text.trim()));
            if !success {
                ledger.breaks(
                    Invariant::Right,
                    to,
                    format!("cache verify: {}", text.trim()),
                );
            }
        }
        Ok(())
    }

    /// Runs a command of the program; whether it succeeded, and all that it printed.
    async fn command(
        &self,
        args: &[&str],
        file: &Path,
        socket: Option<&Path>,
    ) -> Result<(bool, String)> {
        let mut command = Command::new(&self.world.binary);
        command.args(args).arg("--file").arg(file);
        if let Some(socket) = socket {
            command.arg("--socket").arg(socket);
        }
        command
            .env_clear()
            .env("KUBECONFIG", self.world.kubeconfig())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        let output = match timeout(COMMAND_TIMEOUT, command.output()).await {
            Ok(output) => output?,
            Err(_) => {
                let mut ledger = self.world.ledger();
                let text = format!("{} does not end within {COMMAND_TIMEOUT:?}", args.join(" "));
                ledger.breaks(Invariant::Alive, self.world.now(), text);
                return Ok((false, String::new()));
            }
        };
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok((output.status.success(), text))
    }
}

/// Does something again and again, with a pause after each time; ends by an error only.
async fn every(pause: Duration, mut act: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    loop {
        tokio::time::sleep(pause).await;
        act().await?;
    }
}

async fn get(url: &str) -> Result<String> {
    let any = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    let client = admission::client_with(any, &[], &[])?;
    let response = timeout(COMMAND_TIMEOUT, client.get(url).send()).await??;
    Ok(response.text().await?)
}

/// Judges the lives of all processes.
pub(crate) fn judge_lives(world: &World) {
    let mut ledger = world.ledger();
    let now = world.now();
    let lives = ledger.lives.clone();
    for life in lives {
        for (what, course) in [
            ("memory (KiB)", life.memory()),
            ("descriptors", life.descriptors()),
            ("threads", life.threads()),
            ("threads of the pool", life.pool()),
        ] {
            if course.settled.is_some() {
                ledger.check(Invariant::Flat);
            }
            if course.grows {
                let text = format!(
                    "{} of the {} (pid {}): {course:?}",
                    what, life.name, life.pid
                );
                ledger.breaks(Invariant::Flat, now, text);
            }
        }
    }
}
