//! The config: whether the file can be used, and whether it is what is in force.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::config::credentials::CredentialSources;
use cluster::ClientProvider;
use policy::config::{Diagnostic, Settings};
use telemetry::report::Status;

use crate::environment::Environment;
use crate::host::Host;
use crate::patience::Timely;
use crate::report::{Area, Line};

/// More findings are counted, not listed.
const MAX_FINDINGS: usize = 20;

/// What the file says. No `Debug`: it holds credentials.
pub(crate) struct Facts {
    /// Its name, as the node sees it.
    pub(crate) file: PathBuf,
    /// Its text, or why there is none.
    pub(crate) text: Result<String, String>,
    /// What it means; where it has errors, what can be understood of it.
    pub(crate) settings: Settings,
    pub(crate) findings: Vec<Diagnostic>,
    /// What a shim would start with, where the file can't be used; why it would not start.
    in_place: Option<Result<InPlace, String>>,
}

/// What a shim uses in place of a file that can't be used.
struct InPlace {
    /// One sentence.
    what: String,
    settings: Settings,
}

impl Facts {
    /// What a shim that starts goes by; none where none starts.
    pub(crate) fn effective(&self) -> Option<&Settings> {
        match &self.in_place {
            None => Some(&self.settings),
            Some(Ok(in_place)) => Some(&in_place.settings),
            Some(Err(_)) => None,
        }
    }

    /// Whether a shim that starts takes the file.
    pub(crate) fn is_usable(&self) -> bool {
        self.text.is_ok() && !self.findings.iter().any(Diagnostic::is_error)
    }
}

/// Reads the file. On the thread that calls.
pub(crate) fn gather(host: &Host, file: &Path, environment: &Environment) -> Facts {
    let place = host.place(file).unwrap_or_else(|_| file.to_owned());
    let text = config::file::read(&place).map_err(|error| error.to_string());
    let written = text.as_deref().unwrap_or_default();
    let (settings, findings) = Settings::read(written, &|name| environment.get(name));
    let mut facts = Facts {
        file: file.to_owned(),
        text,
        settings,
        findings,
        in_place: None,
    };
    if !facts.is_usable() {
        let start = config::start::load(&place, true);
        let start = start.map(|start| InPlace {
            what: start
                .broken_file
                .map_or_else(String::new, |broken| broken.used_in_place()),
            settings: start.loaded.settings,
        });
        facts.in_place =
            Some(start.map_err(|error| {
                policy::text::one_line(&error.to_string().replace('\n', "; "), 300)
            }));
    }
    facts
}

/// The lines of the file, and of what the running shim has made of it.
pub(crate) fn judge(facts: &Timely<Facts>, status: Option<&Status>) -> Vec<Line> {
    const CHECK: &str = "config";
    let facts = match facts {
        Ok(facts) => facts,
        Err(late) => {
            return vec![Line::bad(
                Area::Config,
                CHECK,
                format!("the config file can't be read: {late}"),
                "findmnt -T /etc/image-cri-shim.yaml   # mend the file system that hangs",
            )];
        }
    };
    let file = facts.file.display();
    let mut lines = Vec::new();
    match &facts.text {
        Err(why) => lines.push(Line::bad(
            Area::Config,
            CHECK,
            policy::text::one_line(why, 300),
            "image-cri-shim install   # writes one where there is none",
        )),
        Ok(_) if facts.findings.is_empty() => lines.push(Line::ok(
            Area::Config,
            CHECK,
            format!("{file} is good: {}", summary(&facts.settings)),
        )),
        Ok(_) => lines.extend(findings(facts)),
    }
    if let Some(in_place) = &facts.in_place {
        lines.push(match in_place {
            Ok(in_place) => Line::warn(
                Area::Config,
                "config.start",
                format!(
                    "as long as {file} is like this, a shim that starts does without it: {}",
                    in_place.what
                ),
                "image-cri-shim config check",
            ),
            Err(why) => Line::bad(
                Area::Config,
                "config.start",
                format!("as long as {file} is like this, no shim starts: {why}"),
                "image-cri-shim config check",
            ),
        });
    }
    lines.extend(status.and_then(|status| in_force(facts, status)));
    lines
}

fn summary(settings: &Settings) -> String {
    let rules = &settings.rules;
    let (registries, redirects) = (rules.registries.len(), rules.redirects.len());
    let origin = match rules.fallback_to_origin {
        true => "",
        false => "; the origin is never asked",
    };
    format!("registries: {registries}, redirects: {redirects}{origin}")
}

/// Each finding by file, line and field, errors first.
fn findings(facts: &Facts) -> Vec<Line> {
    let file = facts.file.display().to_string();
    let mut found: Vec<&Diagnostic> = facts.findings.iter().collect();
    found.sort_by_key(|finding| !finding.is_error());
    let shown = found.iter().take(MAX_FINDINGS).map(|finding| {
        let text = finding.in_file(&file).to_string();
        let text = policy::text::one_line(&text, 400);
        let line = finding.position.map(|position| position.line);
        let mend = match line {
            Some(line) => format!("vi +{line} {file}   # then: image-cri-shim config check"),
            None => format!("vi {file}   # then: image-cri-shim config check"),
        };
        match finding.is_error() {
            true => Line::bad(Area::Config, "config", text, mend),
            false => Line::warn(Area::Config, "config", text, mend),
        }
    });
    let mut lines: Vec<Line> = shown.collect();
    if found.len() > MAX_FINDINGS {
        let rest = found.len() - MAX_FINDINGS;
        lines.push(Line::warn(
            Area::Config,
            "config",
            format!("{rest} more findings"),
            "image-cri-shim config check",
        ));
    }
    lines
}

/// What the running shim says.
fn in_force(facts: &Facts, status: &Status) -> Option<Line> {
    const CHECK: &str = "config.in_force";
    let config = &status.config;
    let Some(error) = &config.error else {
        let text = format!(
            "generation {} is in force, since {}",
            config.generation, config.loaded_at
        );
        return Some(Line::ok(Area::Config, CHECK, text));
    };
    let what = match config.forwards_everything {
        true => {
            "no config is in force: every call is forwarded as it comes, and every pull goes to its origin"
        }
        false => "the last good config is in force, not the newest",
    };
    let why = error.message.lines().next().unwrap_or_default();
    let text = format!(
        "{what}, since {}: {}",
        error.at,
        policy::text::one_line(why, 300)
    );
    let mend = match facts.is_usable() {
        // It is good by now, and will be taken; or the ConfigMap is what is wrong.
        true => "image-cri-shim config check && systemctl kill -s HUP image-cri-shim",
        false => {
            "image-cri-shim config check   # a mended file is taken at once, without a restart"
        }
    };
    Some(Line::bad(Area::Config, CHECK, text, mend))
}

/// The config with its credentials from elsewhere, as far as they are there within `limit`.
pub(crate) async fn filled(
    settings: &Settings,
    link: Arc<ClientProvider>,
    limit: Duration,
) -> Settings {
    let interval = Arc::new(|| Duration::from_secs(3600));
    let mut sources = CredentialSources::new(link, interval);
    sources.look_once(settings, limit).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;

    fn lines(text: &str) -> Vec<Line> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let state = dir.path().join("state");
        let text = format!("{text}image: {}\n", state.display());
        std::fs::write(dir.path().join("etc/image-cri-shim.yaml"), text).unwrap();
        let host = Host::new(dir.path(), false);
        let file = Path::new("/etc/image-cri-shim.yaml");
        let facts = gather(&host, file, &Environment::default());
        judge(&Ok(facts), None)
    }

    #[test]
    fn each_mistake_is_named_by_its_line() {
        let good = lines("address: http://a.io\n");
        assert_eq!(good[0].verdict, Verdict::Ok, "{good:?}");
        assert!(
            good[0].text.contains("registries: 1, redirects: 0"),
            "{good:?}"
        );
        let broken = lines("registrys: []\naddress: http://a.io\ntimeout: soon\n");
        assert_eq!(broken[0].verdict, Verdict::Bad, "{broken:?}");
        assert!(
            broken[0].text.starts_with("/etc/image-cri-shim.yaml:3:"),
            "{broken:?}"
        );
        assert!(
            broken[0].mend.as_ref().unwrap().starts_with("vi +3 "),
            "{broken:?}"
        );
        assert_eq!(broken[1].verdict, Verdict::Warn, "{broken:?}");
        let start = broken.last().unwrap();
        assert!(start.text.contains("every call is forwarded"), "{broken:?}");
        let closed = lines("fallbackToOrigin: false\ntimeout: soon\n");
        assert_eq!(closed.last().unwrap().verdict, Verdict::Bad, "{closed:?}");
    }

    #[test]
    fn no_file() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path(), false);
        let facts = gather(&host, Path::new("/etc/x.yaml"), &Environment::default());
        let lines = judge(&Ok(facts), None);
        assert!(
            lines[0].text.contains("cannot read the config file"),
            "{lines:?}"
        );
    }
}
