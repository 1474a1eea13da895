//! The last look for secrets. No check quotes one; this is for what nobody has thought of, such as a registry
//! that sends back what it was given.

use policy::config::Settings;
use policy::{Credentials, Proof};

use crate::report::Report;

/// Shorter ones would be found in every other word.
const SHORTEST: usize = 4;
const MASK: &str = "***";

/// What must not be in a report. No `Debug`: it holds secrets.
#[derive(Default)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    /// Those of a config that has its credentials.
    pub(crate) fn of(settings: &Settings) -> Self {
        let configured = settings
            .configured
            .iter()
            .map(|one| one.credentials.as_ref());
        let registries = settings
            .rules
            .registries
            .iter()
            .map(|one| one.credentials.as_ref());
        let redirects = settings
            .rules
            .redirects
            .iter()
            .map(|one| one.credentials.as_ref());
        let all = configured.chain(registries).chain(redirects).flatten();
        let mut secrets: Vec<String> = all
            .map(secret)
            .filter(|secret| secret.len() >= SHORTEST)
            .collect();
        // The longest first: one may be a part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Self(secrets)
    }

    /// Masks them wherever they stand.
    pub(crate) fn scrub(&self, report: &mut Report) {
        for line in &mut report.lines {
            for text in std::iter::once(&mut line.text).chain(line.mend.as_mut()) {
                for secret in &self.0 {
                    if text.contains(secret.as_str()) {
                        *text = text.replace(secret.as_str(), MASK);
                    }
                }
            }
        }
    }
}

fn secret(credentials: &Credentials) -> String {
    let (Proof::Password {
        password: secret, ..
    }
    | Proof::IdentityToken(secret)
    | Proof::RegistryToken(secret)) = credentials.proof();
    secret.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Area, Line, Verdict};

    #[test]
    fn a_secret_that_somebody_sends_back_is_masked() {
        let text = "address: http://a.io\nauth: user:hunter2\nregistries: [{address: b.io, auth: 'x:hunter22'}]\n";
        let (settings, _) = Settings::read(text, &|_| None);
        let mut report = Report {
            version: String::new(),
            node: None,
            verdict: Verdict::Bad,
            elapsed_ms: 0,
            lines: vec![Line::bad(
                Area::Registries,
                "x",
                "hunter2, hunter22",
                "echo hunter2",
            )],
        };
        Secrets::of(&settings).scrub(&mut report);
        assert_eq!(report.lines[0].text, "***, ***");
        assert_eq!(report.lines[0].mend.as_deref(), Some("echo ***"));
    }
}
