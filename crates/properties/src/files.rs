//! Files that people and programs write.

use policy::config::{ConfigMap, RawConfig, Settings, merge, render, rewrite};
use policy::docker_config::DockerConfig;
use policy::{Endpoint, manifest};

use crate::{CANARY, keeps_the_secret};

/// Longest message that is shown of a mistake, in bytes.
const LONGEST_MESSAGE: usize = 2000;

/// Whatever a config says: no finding repeats a password, and what is written down means what was read.
pub(crate) fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let with_secret = format!("auth: 'user:{CANARY}'\n{text}");
    for file in [text.as_ref(), &with_secret] {
        let (_settings, findings) = Settings::read(file, &|_| None);
        for finding in &findings {
            let shown = finding.in_file("a.yaml").to_string();
            keeps_the_secret(&shown);
            assert!(shown.len() < LONGEST_MESSAGE, "{shown}");
        }
        if findings.iter().any(|finding| finding.is_error()) {
            continue;
        }
        let (raw, _) = RawConfig::read(file);
        let once = render(&raw);
        let (again, findings) = RawConfig::read(&once);
        assert!(
            findings.iter().all(|finding| !finding.is_error()),
            "{once}\n{findings:?}"
        );
        assert_eq!(render(&again), once);
    }
}

/// A merge that is made again changes nothing. The two texts stand on both sides of a NUL.
pub(crate) fn configmap(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (local, theirs) = text.split_once('\0').unwrap_or(("", &text));
    let (raw, findings) = RawConfig::read(local);
    let Ok((configmap, _)) = ConfigMap::read(theirs) else {
        return;
    };
    if findings.iter().any(|finding| finding.is_error()) {
        return;
    }
    let merged = merge(&raw, &configmap);
    let written = match rewrite(local, &merged.config, &merged.changed) {
        Ok(written) => written,
        Err(_refused) => return,
    };
    let (again, findings) = RawConfig::read(&written);
    assert!(
        findings.iter().all(|finding| !finding.is_error()),
        "{written}\n{findings:?}"
    );
    let second = merge(&again, &configmap);
    assert!(
        second.changed.is_empty(),
        "{:?} again\n{written}",
        second.changed
    );
}

/// Any text is read or refused, and neither what was read nor a refusal shows a password.
pub(crate) fn docker_config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let hosts = ["docker.io", "a.io", "a.io:5000/team/app", "localhost:5000"];
    // The name of a helper is no secret: where there are some, no secret is put in.
    let names_helpers = text.contains("credsStore") || text.contains("credHelpers");
    let secret = if names_helpers { "SECRET" } else { CANARY };
    let with_secret = text.replace("SECRET", secret);
    match DockerConfig::parse(&with_secret) {
        Err(error) => keeps_the_secret(&error.to_string()),
        Ok(config) => {
            keeps_the_secret(&format!("{config:?}"));
            for host in hosts {
                let (endpoint, _) = Endpoint::parse(host).expect("an address");
                match config.lookup(&endpoint) {
                    Ok(found) => keeps_the_secret(&format!("{found:?}")),
                    Err(error) => keeps_the_secret(&error.to_string()),
                }
            }
        }
    }
    match policy::docker_config::from_helper(&with_secret) {
        Ok(credentials) => keeps_the_secret(&format!("{credentials:?}")),
        Err(error) => keeps_the_secret(&error.to_string()),
    }
}

/// Images that are found are names on one line, and a mistake is said in one short line.
pub(crate) fn manifest_finder(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let found = manifest::images(&text);
    let again = manifest::images(&text);
    assert_eq!(format!("{found:?}"), format!("{again:?}"));
    for problem in found.problems.iter().chain(&found.broken) {
        assert!(
            problem.message.len() < LONGEST_MESSAGE,
            "{}",
            problem.message
        );
        assert!(!problem.message.contains('\n'), "{}", problem.message);
    }
}
