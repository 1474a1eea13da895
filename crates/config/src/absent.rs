//! Files that the config names and that can't be read here: what needs them goes without, or fails when it is used.

use std::path::Path;

use policy::config::Settings;
use policy::rules::EntryKind;
use policy::{CredentialSource, TlsOptions};

/// A sentence for each file of entries of the config that can't be read on this machine.
pub fn files(settings: &Settings) -> Vec<String> {
    let mut absent = Vec::new();
    for registry in &settings.rules.registries {
        let entry = match registry.kind {
            EntryKind::Listed(number) => format!("registries[{number}]."),
            // Its fields stand at the top.
            _ => String::new(),
        };
        absent.extend(of_entry(&entry, &registry.tls, registry.source.as_ref()));
    }
    for redirect in &settings.rules.redirects {
        let entry = format!("imageRedirMapping[{}].", redirect.number);
        absent.extend(of_entry(&entry, &redirect.tls, redirect.source.as_ref()));
    }
    absent
}

fn of_entry(
    entry: &str,
    tls: &TlsOptions,
    source: Option<&CredentialSource>,
) -> impl Iterator<Item = String> {
    let authority = tls.ca_file.as_deref().and_then(|file| {
        let without = "certificates are verified without it";
        problem(&format!("{entry}caFile"), file, without)
    });
    let credentials = match source {
        Some(CredentialSource::File(file)) => {
            let without = "the registry is asked without credentials";
            problem(&format!("{entry}authFile"), file, without)
        }
        _ => None,
    };
    authority.into_iter().chain(credentials)
}

fn problem(field: &str, file: &Path, without: &str) -> Option<String> {
    // Opened, not read: the mode may be what is wrong. A pipe is not waited for.
    let metadata = std::fs::metadata(file);
    let opened = metadata.and_then(|there| match there.is_file() {
        true => std::fs::File::open(file).map(|_| ()),
        false => Err(std::io::Error::other("it is no regular file")),
    });
    let error = opened.err()?;
    let file = file.display();
    Some(format!(
        "{field}: cannot read {file}: {error}; until it is there, {without}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_that_is_not_there_is_named_by_its_field() {
        let dir = tempfile::tempdir().unwrap();
        let (there, gone) = (dir.path().join("there"), dir.path().join("gone"));
        std::fs::write(&there, "").unwrap();
        let text = format!(
            "address: a.io\nauthFile: {gone}\nregistries:\n- {{address: b.io, caFile: {there}, authFile: {there}}}\n\
             - {{address: c.io, caFile: {gone}}}\nimageRedirMapping: [{{src: d.io, to: e.io, caFile: {dir}}}]\n",
            gone = gone.display(),
            there = there.display(),
            dir = dir.path().display(),
        );
        let (settings, findings) = Settings::read(&text, &|_| None);
        assert_eq!(findings, []);
        let told = files(&settings);
        assert_eq!(told.len(), 3, "{told:?}");
        for (told, part) in told.iter().zip([
            "authFile: cannot read",
            "registries[2].caFile: cannot read",
            "imageRedirMapping[1].caFile: cannot read",
        ]) {
            assert!(told.starts_with(part), "{told:?}");
        }
    }
}
