//! Shell completions and man pages, made from the command line itself; for packages.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

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
    match directory {
        Some(directory) => clap_mangen::generate_to(command, directory)
            .with_context(|| format!("cannot write man pages into {}", directory.display())),
        None => {
            let mut page = Vec::new();
            Man::new(command).render(&mut page)?;
            print(&page)
        }
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
