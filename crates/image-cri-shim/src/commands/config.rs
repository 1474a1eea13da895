//! `image-cri-shim config`: checking a file, and showing what is in force and why.
//!
//! Credentials are masked in everything that is printed.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use cluster::{ClientProvider, KubeconfigCandidates, read_config_map};
use config::start::Start;
use policy::config::{
    CONFIG_MAP_KEY, CONFIG_MAP_NAME, CONFIG_MAP_NAMESPACE, ConfigMap, Diagnostic, Key, RawConfig,
    Settings, masked, merge,
};

use crate::commands::terminal;
use crate::roles::runtime::files as runtime_files;
use crate::stdout;
use crate::told::told;

/// How long the API server may take to answer a person.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What standard input is called.
const STDIN: &str = "standard input";

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a config: prints errors and warnings with their lines; exits 1 when there is an error
    Check {
        /// The file to check, `-` for standard input; without it, the one that `--file` names
        path: Option<PathBuf>,
        /// It is a ConfigMap's manifest, or the text of its `registries.yaml`, not a local file
        #[arg(long)]
        configmap: bool,
    },
    /// Show the config in force, and where each value comes from: default, file or ConfigMap
    Show {
        /// Don't ask the API server for the ConfigMap
        #[arg(long)]
        local: bool,
    },
    /// Show what the ConfigMap would change in the local file; exits 1 when there is a difference and
    /// 2 when that can't be told
    Diff,
}

pub(crate) fn run(file: &Path, command: &ConfigCommand) -> ExitCode {
    let (outcome, trouble) = match command {
        ConfigCommand::Check { path, configmap } => {
            (check(path.as_deref().unwrap_or(file), *configmap), 1)
        }
        ConfigCommand::Show { local } => (show(file, *local), 1),
        ConfigCommand::Diff => (diff(file), 2),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            terminal::say(&told(&error));
            ExitCode::from(trouble)
        }
    }
}

fn check(path: &Path, is_configmap: bool) -> anyhow::Result<ExitCode> {
    let (mut name, text) = match path == Path::new("-") {
        true => {
            let text = config::file::read_all(io::stdin(), Path::new(STDIN))?;
            (STDIN.to_owned(), text)
        }
        false => (path.display().to_string(), config::file::read_any(path)?),
    };
    let manifest = cluster::in_manifest(&text);
    let is_configmap = is_configmap || manifest.is_some();
    let text = match manifest.map(|manifest| manifest.text) {
        Some(Some(inner)) => {
            // Lines are counted from its own beginning.
            name.push_str(&format!(": {CONFIG_MAP_KEY}"));
            inner
        }
        Some(None) => {
            bail!("{name}: the ConfigMap has no key {CONFIG_MAP_KEY}, so it changes nothing")
        }
        None => text,
    };
    let variable = |name: &str| std::env::var(name).ok();
    let mut others = Vec::new();
    let findings = if is_configmap {
        match ConfigMap::read(&text) {
            Ok((map, mut findings)) => {
                findings.extend(Settings::from_raw(map.as_written(), &variable).1);
                findings.sort_by_key(|finding| finding.position);
                findings
            }
            Err(error) => vec![error],
        }
    } else {
        let (settings, findings) = Settings::read(&text, &variable);
        if !findings.iter().any(Diagnostic::is_error) {
            others = runtime_files::of(&settings).warnings(&settings.rules);
            others.extend(config::absent::files(&settings));
        }
        findings
    };
    for finding in &findings {
        stdout::line(format_args!("{}", finding.in_file(&name)))?;
    }
    for warning in &others {
        stdout::line(format_args!("{name}: warning: {warning}"))?;
    }
    let errors = findings.iter().filter(|f| f.is_error()).count();
    let warnings = findings.len() - errors + others.len();
    let verdict = match (errors, warnings) {
        (0, 0) => "good".to_owned(),
        (0, warnings) => format!("good, with {}", count(warnings, "warning")),
        (errors, 0) => format!("can't be used: {}", count(errors, "error")),
        (errors, warnings) => format!(
            "can't be used: {}, {}",
            count(errors, "error"),
            count(warnings, "warning")
        ),
    };
    stdout::line(format_args!("{name}: {verdict}"))?;
    Ok(ExitCode::from(u8::from(errors > 0)))
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

fn show(file: &Path, local_only: bool) -> anyhow::Result<ExitCode> {
    let local = local(file).with_context(|| in_place(file))?;
    stdout::line(format_args!("# file: {}", file.display()))?;
    let configmap = if local_only {
        stdout::line(format_args!("# configmap: not asked for"))?;
        None
    } else {
        let (configmap, how) = match read()? {
            Remote::Found(configmap, _) => (Some(configmap), "merged".to_owned()),
            Remote::Absent => (None, "there is none".to_owned()),
            Remote::Broken(problem) => (None, format!("can't be used: {problem}")),
            Remote::Unreachable(failure) => (None, format!("can't be read: {failure}")),
        };
        stdout::line(format_args!(
            "# configmap: {CONFIG_MAP_NAMESPACE}/{CONFIG_MAP_NAME}: {how}"
        ))?;
        configmap
    };
    let merged = configmap
        .as_ref()
        .map(|configmap| merge(&local, configmap).config);
    let (settings, _) = Settings::from_raw(merged.as_ref().unwrap_or(&local), &|_| None);
    let runtime = runtime_files::socket(&settings);
    stdout::print(&config::show::annotated(
        &local,
        configmap.as_deref(),
        runtime.as_deref(),
    ))
    .context("cannot write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

fn diff(file: &Path) -> anyhow::Result<ExitCode> {
    let local = local(file)?;
    let name = format!("configmap {CONFIG_MAP_NAMESPACE}/{CONFIG_MAP_NAME}");
    let configmap = match read()? {
        Remote::Found(configmap, warnings) => {
            for warning in warnings {
                beside(warning.in_file(&name));
            }
            configmap
        }
        Remote::Absent => {
            stdout::line(format_args!("{name}: there is none, so nothing changes"))?;
            return Ok(ExitCode::SUCCESS);
        }
        Remote::Broken(problem) => bail!("{name} can't be used: {problem}"),
        Remote::Unreachable(failure) => bail!("{name} can't be read: {failure}"),
    };
    let merged = merge(&local, &configmap);
    if merged.changed.is_empty() {
        stdout::line(format_args!(
            "{name}: {} says the same already",
            file.display()
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    stdout::line(format_args!("--- {}\n+++ {name}", file.display()))?;
    for key in &merged.changed {
        for line in masked(&local, *key).lines() {
            stdout::line(format_args!("-{line}"))?;
        }
        for line in masked(&merged.config, *key).lines() {
            stdout::line(format_args!(
                "+{line}{}",
                if *key == Key::Auth { " (another)" } else { "" }
            ))?;
        }
    }
    for lost in &merged.lost {
        beside(format_args!("warning: {lost}"));
    }
    Ok(ExitCode::from(1))
}

/// Says something that is not the result. Who can't be told can't be told that either.
fn beside(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The local file as it is written; an error where the shim wouldn't start with it.
fn local(file: &Path) -> anyhow::Result<RawConfig> {
    let loaded = config::file::load(file)?;
    Ok(RawConfig::read(&loaded.text).0)
}

/// What a shim does that systemd starts while the file can't be used.
fn in_place(file: &Path) -> String {
    let what = match config::start::load(file, true) {
        Ok(Start {
            broken_file: Some(broken_file),
            ..
        }) => broken_file.used_in_place(),
        // It was mended meanwhile.
        Ok(_) => "the file is used".to_owned(),
        Err(_) => "it refuses to start".to_owned(),
    };
    format!("when systemd starts the shim now, {what}")
}

/// What the API server says.
enum Remote {
    Found(Box<ConfigMap>, Vec<Diagnostic>),
    Absent,
    Broken(String),
    Unreachable(String),
}

fn read() -> anyhow::Result<Remote> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start an async runtime")?;
    let link = ClientProvider::new(KubeconfigCandidates::from_environment());
    let asked = runtime
        .block_on(async { tokio::time::timeout(ANSWER_TIMEOUT, read_config_map(&link)).await });
    // A kubeconfig's program that hangs must not keep us.
    runtime.shutdown_background();
    Ok(match asked {
        Err(_) => Remote::Unreachable(format!("no answer within {ANSWER_TIMEOUT:?}")),
        Ok(Err(failure)) => Remote::Unreachable(failure.to_string()),
        Ok(Ok(None)) => Remote::Absent,
        Ok(Ok(Some(found))) => match found.text.as_deref().map(ConfigMap::read) {
            Some(Ok((configmap, warnings))) => Remote::Found(Box::new(configmap), warnings),
            Some(Err(error)) => Remote::Broken(error.in_file(CONFIG_MAP_KEY).to_string()),
            None => Remote::Broken(format!("it has no key {CONFIG_MAP_KEY}")),
        },
    })
}
