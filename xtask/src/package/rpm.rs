//! The package for Fedora, RHEL, SUSE and their kin.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use rpm::{BuildConfig, CompressionWithLevel, Dependency, FileOptions, PackageBuilder, Scriptlet};

use super::contents::Kind;
use super::place::{Family, placed};
use super::scripts;
use super::{DESCRIPTION, HOMEPAGE, LICENCE, MAINTAINER, NAME, Release, SUMMARY, VERSION};

/// The package's bytes.
pub(super) fn write(release: &Release) -> Result<Vec<u8>> {
    // Compression would bring features of other crates with it, for which the shim and all tests were built once more.
    let config = BuildConfig::v4()
        .compression(CompressionWithLevel::None)
        .source_date(release.date);
    let arch = release.program.arch();
    let mut package = PackageBuilder::new(NAME, VERSION, LICENCE, arch, SUMMARY);
    package
        .using_config(config)
        .release(release.revision.to_string())
        .description(DESCRIPTION)
        .url(HOMEPAGE)
        .packager(MAINTAINER)
        .build_host("localhost")
        .requires(Dependency::any("systemd"))
        .requires(Dependency::any("/bin/sh"));
    let files = placed(&release.contents, Family::RedHat)?;
    let mut folders = BTreeSet::new();
    for (path, file) in files {
        // Folders of ours belong to the package, so that they go with it.
        let mut above = path.as_str();
        while let Some((folder, _)) = above.rsplit_once('/') {
            above = folder;
            if folder.split('/').any(|part| part == NAME) {
                folders.insert(folder.to_owned());
            }
        }
        let mut options =
            FileOptions::new(format!("/{path}")).permissions(u16::try_from(file.mode)?);
        options = match file.kind {
            Kind::Doc | Kind::Page => options.doc(),
            Kind::Licence => options.license(),
            _ => options,
        };
        package
            .with_file_contents(file.bytes, options)
            .with_context(|| format!("packing {path}"))?;
    }
    for folder in folders {
        package
            .with_dir_entry(FileOptions::dir(format!("/{folder}")).permissions(0o755))
            .with_context(|| format!("packing {folder}"))?;
    }
    let scripts = scripts::red_hat()?;
    package
        .pre_install_script(script(scripts.pre))
        .post_install_script(script(scripts.post))
        .pre_uninstall_script(script(scripts.preun))
        .post_uninstall_script(script(scripts.postun));
    let package = package.build().context("writing the rpm")?;
    let mut bytes = Vec::new();
    package.write(&mut bytes).context("writing the rpm")?;
    Ok(bytes)
}

fn script(text: String) -> Scriptlet {
    Scriptlet::new(text).prog(vec!["/bin/sh"])
}
