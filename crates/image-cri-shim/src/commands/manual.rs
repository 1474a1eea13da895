//! Shell completions and man pages, made from the command line itself; for packages.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

const PROGRAM: &str = "image-cri-shim";

/// Commands, and how they end.
const EXIT_STATUS: [(&str, &str); 9] = [
    (
        "serve, webhook, cache, node-installer",
        "0 after a stop that was asked for; 1 where it could not start or serve.",
    ),
    (
        "config check",
        "0 where the config can be used, also with warnings; 1 where it can't.",
    ),
    ("config show, handover, uninstall", "0; 1 where it failed."),
    (
        "config diff",
        "0 where the ConfigMap changes nothing; 1 where it would change something; 2 where that can't be told.",
    ),
    (
        "resolve",
        "0 where every image can be pulled; 1 where one can't; 2 where the config or a manifest is wrong or the shim failed; 130 after Ctrl-C.",
    ),
    ("status, history", "0; 1 where no shim answers."),
    (
        "doctor",
        "0 where all is well; 1 with warnings; 2 where something is bad.",
    ),
    (
        "install",
        "0; 1 where it failed; 3 where --check finds something to do.",
    ),
    (
        "cache COMMAND",
        "0; 1 where something could not be done or is damaged; 2 where the config is wrong or the cache failed; 130 after Ctrl-C.",
    ),
];

const ENVIRONMENT: [(&str, &str); 8] = [
    (
        "KUBECONFIG",
        "Where the API server is, and who asks; one file or a list. It comes before /etc/kubernetes/admin.conf, /etc/rancher/k3s/k3s.yaml and $HOME/.kube/config, and after a Pod's service account.",
    ),
    (
        "HTTPS_PROXY, HTTP_PROXY, NO_PROXY",
        "The way to registries, and to the API server that a kubeconfig names.",
    ),
    (
        "NAME",
        "Any variable that credentials in the config name as ${NAME}.",
    ),
    (
        "IMAGE_CRI_SHIM_RUNTIME",
        "The runtime's socket where the config has no cri. Written by install.",
    ),
    (
        "IMAGE_CRI_SHIM_CACHE_SOCKET",
        "Where the running cache answers commands; --socket comes before it.",
    ),
    (
        "POD_NAMESPACE",
        "The namespace of the webhook and of the node installer.",
    ),
    ("NO_COLOR, TERM=dumb", "No colours."),
    (
        "COLUMNS",
        "The width of what is printed; else the terminal's, and 160 where there is none.",
    ),
];

const FILES: [(&str, &str); 10] = [
    (
        "/etc/image-cri-shim.yaml",
        "The config. --file names another one.",
    ),
    (
        "/etc/default/image-cri-shim",
        "Variables for the units of the shim and the cache.",
    ),
    (
        "/run/image-cri-shim.sock",
        "What kubelet dials: the shim's socket, or under systemd a link to it.",
    ),
    (
        "/run/image-cri-shim/shim.sock, /run/image-cri-shim/bypass.sock",
        "Where that link leads: to the shim while it is ready, else past it to the runtime.",
    ),
    (
        "/var/lib/image-cri-shim",
        "State: what images were pulled as, and the last good config. The config's image names another directory.",
    ),
    (
        "/var/lib/image-cri-shim/install",
        "What install has changed, for uninstall.",
    ),
    ("/var/lib/image-cri-shim/cache", "The store of the cache."),
    (
        "/run/image-cri-shim-cache.sock",
        "Where the running cache answers commands.",
    ),
    (
        "/etc/containerd/certs.d, /etc/docker/certs.d",
        "The runtime's own settings for certificates of registries; they are read, too.",
    ),
    (
        "/usr/share/doc/image-cri-shim",
        "The documents, where a package has brought the program.",
    ),
];

const SIGNALS: [(&str, &str); 3] = [
    (
        "SIGTERM",
        "Calls that are running may finish, for at most 20 seconds; then the shim ends.",
    ),
    (
        "SIGHUP",
        "The config is read again, and every open circuit is closed.",
    ),
    ("SIGUSR1", "Debug lines are switched on or off."),
];

/// Where more can be read: beside the program in the tarball, else where packages have it.
const DOCUMENTS: &str = "In /usr/share/doc/image-cri-shim, or the folder of the tarball: docs/config.md has every field of the config, docs/rules.md the rules, docs/install.md and docs/failure.md what concerns a node, examples/ configs to start from.";

/// Prints completions for `shell`.
///
/// # Errors
/// Standard output can't be written to.
pub(crate) fn completions(mut command: Command, shell: Shell) -> anyhow::Result<()> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    print(&script)
}

/// Prints the page about the program itself; with a `directory`, writes that and a page for each command
/// there.
///
/// # Errors
/// The pages can't be written.
pub(crate) fn pages(command: Command, directory: Option<&Path>) -> anyhow::Result<()> {
    let Some(directory) = directory else {
        return print(&page(&command)?);
    };
    let mut command = command.disable_help_subcommand(true);
    command.build();
    each(&command, directory)
}

fn each(command: &Command, directory: &Path) -> anyhow::Result<()> {
    for inner in command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set())
    {
        each(inner, directory)?;
    }
    let file = directory.join(Man::new(command.clone()).get_filename());
    std::fs::write(&file, page(command)?)
        .with_context(|| format!("cannot write the man page {}", file.display()))
}

/// What clap knows, and after that what it doesn't.
fn page(command: &Command) -> anyhow::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    let name = command.get_display_name().unwrap_or(command.get_name());
    let mut more = Roff::new();
    if name == PROGRAM {
        described(&mut more, "EXIT STATUS", &EXIT_STATUS);
        more.control("PP", []);
        more.text([roman(
            "A command line that is wrong ends every command with 2. What a command says beside its answer goes to standard error.",
        )]);
        described(&mut more, "ENVIRONMENT", &ENVIRONMENT);
        described(&mut more, "FILES", &FILES);
        described(&mut more, "SIGNALS", &SIGNALS);
    } else if let Some((_, statuses)) = EXIT_STATUS.iter().find(|(of, _)| is_about(of, name)) {
        more.control("SH", ["EXIT STATUS"]);
        more.text([roman(*statuses)]);
    }
    more.control("SH", ["SEE ALSO"]);
    let pages = match name == PROGRAM {
        true => "kubelet(1), containerd(8), crio(8), systemctl(1)",
        false => "image-cri-shim(1), for files, variables of the environment and signals",
    };
    more.text([roman(pages)]);
    more.control("PP", []);
    more.text([roman(DOCUMENTS)]);
    page.extend(more.to_roff().into_bytes());
    Ok(page)
}

/// Whether an entry of the exit statuses is about the command of the page `name`.
fn is_about(entry: &str, name: &str) -> bool {
    let command = name.strip_prefix(PROGRAM).unwrap_or(name);
    let command = command.trim_start_matches('-');
    let is_command = |part: &str| part == command || command.replacen('-', " ", 1) == part;
    entry.split(", ").any(is_command)
        // What is said of `cache` holds for its commands.
        || (entry.starts_with("cache ") && command.starts_with("cache-"))
}

/// A section of names, each with what it is.
fn described(roff: &mut Roff, heading: &str, entries: &[(&str, &str)]) {
    roff.control("SH", [heading]);
    for (name, meaning) in entries {
        roff.control("TP", []);
        roff.text([bold(*name)]);
        roff.text([roman(*meaning)]);
    }
}

fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        // Who reads only the beginning has what they wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}
