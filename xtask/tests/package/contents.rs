//! What stands in the packages, read by the tools of their kind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command;

use flate2::read::GzDecoder;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::world::{VERSION, package, packages, printed, second_packages};

/// Every path in a tar archive, with its mode, owner, date and content.
fn unpacked(archive: impl Read) -> BTreeMap<String, (u32, u64, u64, Vec<u8>)> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let header = entry.header();
            let about = (
                header.mode().unwrap(),
                header.uid().unwrap() + header.gid().unwrap(),
                header.mtime().unwrap(),
            );
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (path, (about.0, about.1, about.2, content))
        })
        .collect()
}

fn sha256(path: &Path) -> String {
    let sum = Sha256::digest(fs::read(path).unwrap());
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_checksums_are_those_of_all_packages() {
    let folder = packages();
    let sums = printed(
        Command::new("sha256sum")
            .args(["--check", "--strict", "SHA256SUMS"])
            .current_dir(folder),
    );
    assert_eq!(sums.lines().count(), 4, "{sums}");
    assert_eq!(fs::read_dir(folder).unwrap().count(), 5);
}

#[test]
fn packed_again_they_are_the_same() {
    // These two know nothing of how often a version was packaged.
    for end in [".tar.gz", ".oci.tar"] {
        let (first, again) = (package(packages(), end), package(second_packages(), end));
        assert_eq!(sha256(&first), sha256(&again), "{end}");
    }
}

#[test]
fn the_deb_has_what_a_node_needs() {
    let deb = package(packages(), ".deb");
    let fields = printed(Command::new("dpkg-deb").arg("--field").arg(&deb));
    for line in [
        "Package: image-cri-shim".to_owned(),
        format!("Version: {VERSION}-1"),
        "Depends: systemd, libc6, libgcc-s1".to_owned(),
    ] {
        assert!(fields.lines().any(|field| field == line), "{fields}");
    }
    // No file that an upgrade would ask about: nobody is there to answer.
    let control = printed(Command::new("dpkg-deb").arg("--ctrl-tarfile").arg(&deb));
    let control = unpacked(control.as_bytes());
    let names: Vec<_> = control.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "control", "md5sums", "postinst", "postrm", "preinst", "prerm"
        ]
    );
    for script in ["postinst", "postrm", "preinst", "prerm"] {
        let (mode, owner, _, content) = &control[script];
        assert_eq!((*mode, *owner), (0o755, 0), "{script}");
        shell_reads(script, content);
    }
    let data = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(&deb)
        .output()
        .unwrap()
        .stdout;
    let data = unpacked(data.as_slice());
    for (path, mode) in [
        ("usr/bin/image-cri-shim", 0o755),
        ("usr/lib/image-cri-shim/link", 0o755),
        ("usr/lib/systemd/system/image-cri-shim.service", 0o644),
        ("usr/lib/systemd/system/image-cri-shim-bypass.socket", 0o644),
        (
            "usr/lib/systemd/system/image-cri-shim-bypass.service",
            0o644,
        ),
        ("usr/lib/systemd/system/image-cri-shim-link.service", 0o644),
        ("usr/lib/systemd/system/image-cri-shim-cache.service", 0o644),
        ("usr/lib/tmpfiles.d/image-cri-shim.conf", 0o644),
        ("usr/lib/sysusers.d/image-cri-shim-cache.conf", 0o644),
        (
            "usr/share/bash-completion/completions/image-cri-shim",
            0o644,
        ),
        ("usr/share/zsh/vendor-completions/_image-cri-shim", 0o644),
        (
            "usr/share/fish/vendor_completions.d/image-cri-shim.fish",
            0o644,
        ),
        ("usr/share/man/man1/image-cri-shim.1.gz", 0o644),
        ("usr/share/man/man1/image-cri-shim-install.1.gz", 0o644),
        ("usr/share/doc/image-cri-shim/copyright", 0o644),
        ("usr/share/doc/image-cri-shim/THIRD-PARTY-LICENSES", 0o644),
        ("usr/share/doc/image-cri-shim/README.md", 0o644),
        ("usr/share/doc/image-cri-shim/docs/install.md", 0o644),
        (
            "usr/share/doc/image-cri-shim/examples/company-harbor.yaml",
            0o644,
        ),
    ] {
        let found = data.get(path);
        let (found, ..) = found.unwrap_or_else(|| panic!("no {path}"));
        assert_eq!(*found, mode, "{path}");
    }
    let mut sums = BTreeSet::new();
    for (path, (mode, owner, _, _)) in &data {
        assert_eq!(*owner, 0, "{path}");
        if path.ends_with('/') {
            assert_eq!(*mode, 0o755, "{path}");
        } else {
            sums.insert(path.clone());
        }
        // Only what the package brings, in places that belong to packages: nothing of a node's own.
        assert!(path.starts_with("usr/"), "{path}");
    }
    let listed = String::from_utf8(control["md5sums"].3.clone()).unwrap();
    let listed: BTreeSet<_> = listed
        .lines()
        .map(|line| line.split_once("  ").unwrap().1.to_owned())
        .collect();
    assert_eq!(listed, sums);
}

/// Places that the links of a document lead to, by their paths below the document's root.
fn links(document: &str, text: &str) -> Vec<String> {
    let folder = Path::new(document).parent().unwrap();
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let files = targets.map(|target| target.split('#').next().unwrap());
    let inside = files.filter(|file| !file.is_empty() && !file.contains(':'));
    let mut found = Vec::new();
    for file in inside {
        let mut path = folder.to_owned();
        for part in Path::new(file).components() {
            match part {
                std::path::Component::ParentDir => assert!(path.pop(), "{document}: {file}"),
                part => path.push(part),
            }
        }
        found.push(path.display().to_string());
    }
    found
}

#[test]
fn no_link_of_the_documents_leads_out_of_a_package() {
    let path = package(packages(), ".tar.gz");
    let files = unpacked(GzDecoder::new(File::open(&path).unwrap()));
    let (folder, _) = files.keys().next().unwrap().split_once('/').unwrap();
    let mut followed = 0;
    for (path, (.., content)) in files.iter().filter(|(path, _)| path.ends_with(".md")) {
        let document = path.strip_prefix(&format!("{folder}/")).unwrap();
        for link in links(document, std::str::from_utf8(content).unwrap()) {
            let there = files.contains_key(&format!("{folder}/{link}"));
            assert!(there, "{document}: {link}");
            followed += 1;
        }
    }
    assert!(followed > 50, "{followed}");
}

/// `sh` itself can read a script.
fn shell_reads(name: &str, script: &[u8]) {
    let script = String::from_utf8(script.to_vec()).unwrap();
    printed(Command::new("sh").args(["-n", "-c", &script]));
    assert!(script.starts_with("#!/bin/sh\nset -eu\n"), "{name}");
}

#[test]
fn the_tarball_is_one_folder() {
    let path = package(packages(), ".tar.gz");
    let files = unpacked(GzDecoder::new(File::open(&path).unwrap()));
    let name = path.file_name().unwrap().to_str().unwrap();
    let folder = name.strip_suffix(".tar.gz").unwrap();
    let dates: BTreeSet<_> = files.values().map(|(.., date, _)| *date).collect();
    assert_eq!(dates.len(), 1);
    for (path, mode) in [
        ("image-cri-shim", 0o755),
        ("packaging/lib/link", 0o755),
        ("packaging/systemd/image-cri-shim-cache.service", 0o644),
        ("completions/image-cri-shim.bash", 0o644),
        ("man/image-cri-shim.1", 0o644),
        ("docs/install.md", 0o644),
        ("examples/README.md", 0o644),
        ("LICENSE", 0o644),
        ("THIRD-PARTY-LICENSES", 0o644),
    ] {
        assert_eq!(files[&format!("{folder}/{path}")].0, mode, "{path}");
    }
    assert!(
        files
            .keys()
            .all(|path| path.starts_with(&format!("{folder}/")))
    );
    // Those who wrote what is linked in are named, and what they ask for is handed on.
    let licences = &files[&format!("{folder}/THIRD-PARTY-LICENSES")].3;
    let licences = String::from_utf8(licences.clone()).unwrap();
    for part in [
        "\ntokio 1.",
        "\nrustls 0.",
        "Permission is hereby granted",
        "LGPL-2.1",
    ] {
        assert!(licences.contains(part), "{part}");
    }
    // Only what is linked in: neither tests nor macros' builders.
    for part in ["\ninsta ", "\nproptest ", "\nrpm "] {
        assert!(!licences.contains(part), "{part}");
    }
    // The program runs where it was unpacked.
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("image-cri-shim");
    fs::write(&program, &files[&format!("{folder}/image-cri-shim")].3).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&program, mode).unwrap();
    let version = printed(Command::new(&program).arg("--version"));
    assert_eq!(version, format!("image-cri-shim {VERSION}\n"));
}

#[test]
fn the_image_is_a_layout_whose_digests_hold() {
    let path = package(packages(), ".oci.tar");
    let files = unpacked(File::open(&path).unwrap());
    for (path, (.., content)) in &files {
        if let Some(digest) = path.strip_prefix("blobs/sha256/")
            && !digest.is_empty()
        {
            let sum = Sha256::digest(content);
            let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(sum, digest);
        }
    }
    let read = |path: &str| -> Value { serde_json::from_slice(&files[path].3).unwrap() };
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        let path = format!("blobs/{}", digest.replace(':', "/"));
        assert_eq!(descriptor["size"], files[&path].3.len(), "{path}");
        path
    };
    assert_eq!(read("oci-layout")["imageLayoutVersion"], "1.0.0");
    let index = read("index.json");
    let manifest = read(&blob(&index["manifests"][0]));
    let config = read(&blob(&manifest["config"]));
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1);
    let layer = &files[&blob(&layers[0])].3;
    let mut plain = Vec::new();
    GzDecoder::new(layer.as_slice())
        .read_to_end(&mut plain)
        .unwrap();
    let sum = Sha256::digest(&plain);
    let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{sum}"));
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["config"]["Entrypoint"][0], "/image-cri-shim");
    let layer = unpacked(plain.as_slice());
    assert_eq!(layer["image-cri-shim"].0, 0o755);
    assert_eq!(layer["etc/ssl/certs/ca-certificates.crt"].0, 0o644);
    assert!(layer.contains_key("usr/share/licenses/image-cri-shim/LICENSE"));
}
