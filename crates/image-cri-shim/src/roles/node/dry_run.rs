//! `--dry-run`: is the config right, and does the runtime answer?

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use cri::upstream::Upstream;
use policy::config::Settings;

use super::folder;
use crate::process::systemd;
use crate::roles::runtime::{files, socket};
use crate::stdout;

/// How long the runtime may take to accept a connection.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Prints what was found; fails where `serve` would.
///
/// # Errors
/// The config can't be used, or the runtime does not answer.
pub(crate) fn run(file: &Path) -> anyhow::Result<()> {
    let loaded = config::file::load(file)?;
    for warning in &loaded.warnings {
        stdout::line(warning)?;
    }
    stdout::line(format_args!("config    {}: good", file.display()))?;
    show_rules(&loaded.settings)?;
    for warning in files::of(&loaded.settings).warnings(&loaded.settings.rules) {
        stdout::line(format_args!("warning   {warning}"))?;
    }
    for warning in config::absent::files(&loaded.settings) {
        stdout::line(format_args!("warning   {warning}"))?;
    }
    // Where kubelet dials the packages' link, their unit has a socket of its own, and makes its folder.
    if !Path::new(installer::LINK).is_symlink() {
        let (socket, state) = (&loaded.settings.shim_socket, &loaded.settings.state_dir);
        if let Some(warning) = folder::warning(socket, state) {
            stdout::line(format_args!("warning   {warning}"))?;
        }
    }
    let socket = socket::of(&loaded.settings)?;
    let shown = socket.display();
    if !socket::is_there(&socket) {
        if loaded.settings.force || systemd::runs_us() {
            stdout::line(format_args!(
                "runtime   {shown}: not there yet; serving would start all the same"
            ))?;
            return Ok(());
        }
        bail!(
            "runtime   {shown}: there is no socket; start the runtime, set `cri:`, or set `force: true`"
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start an async runtime")?;
    let version = runtime.block_on(async {
        let upstream = Upstream::new(&socket);
        tokio::time::timeout(ANSWER_TIMEOUT, cri::runtime_version(&upstream)).await
    });
    match version {
        Ok(Ok(version)) => stdout::line(format_args!("runtime   {shown}: {version} answers"))?,
        Ok(Err(error)) => bail!("runtime   {shown}: {error}"),
        Err(_) => bail!("runtime   {shown}: no answer within {ANSWER_TIMEOUT:?}; is it stuck?"),
    }
    Ok(())
}

fn show_rules(settings: &Settings) -> anyhow::Result<()> {
    stdout::line(format_args!("listen    {}", settings.shim_socket.display()))?;
    for registry in &settings.rules.registries {
        let credentials = match registry.credentials {
            Some(_) => "with credentials",
            None => "anonymous",
        };
        stdout::line(format_args!(
            "registry  {}: {}, {credentials}",
            registry.endpoint,
            registry.reason()
        ))?;
    }
    for redirect in &settings.rules.redirects {
        stdout::line(format_args!(
            "redirect  {}/{} to {}",
            redirect.src_domain, redirect.src_path, redirect.to
        ))?;
    }
    if !settings.rules.fallback_to_origin {
        stdout::line(format_args!(
            "origin    never asked (fallbackToOrigin: false)"
        ))?;
    }
    Ok(())
}
