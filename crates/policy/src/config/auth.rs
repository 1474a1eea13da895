//! Credentials of an entry: what is written beside it, `${NAME}` expanded, or where else they stand.

use std::path::PathBuf;

use secrecy::ExposeSecret;

use super::diagnostic::Diagnostic;
use super::fields::Located;
use super::raw::{RawAuth, RawConfig, is_variable};
use super::reader::Reader;
use super::webhook;
use crate::yaml::Position;
use crate::{CredentialSource, Credentials};

/// Kubelet's two settings for credential-provider plugins, under the names of its flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialPlugins {
    /// `imageCredentialProviderConfig`: a `CredentialProviderConfig` file, or a folder of them.
    pub config: PathBuf,
    /// `imageCredentialProviderBinDir`: where the plugins' programs are.
    pub bin_dir: PathBuf,
}

impl Reader<'_> {
    pub(super) fn credentials(
        &mut self,
        raw: Option<&Located<RawAuth>>,
        field: &str,
    ) -> Option<Credentials> {
        let raw = raw?;
        let expanded = match &raw.value {
            RawAuth::Pair(pair) => self.expand(pair.expose_secret()).map(|pair| {
                if !pair.is_empty() && !pair.contains(':') {
                    // Not quoted: it may be the password.
                    let message = "there is no `:` in it, so it is a user name without a password; write `user:password`";
                    self.findings
                        .push(Diagnostic::warning(raw.position, field, message));
                }
                Credentials::from_pair(&pair)
            }),
            RawAuth::Split { username, password } => self
                .expand(username.expose_secret())
                .and_then(|u| Ok((u, self.expand(password.expose_secret())?)))
                .map(|(username, password)| Some(Credentials::new(username, password))),
        };
        match expanded {
            Ok(credentials) => credentials,
            Err(name) => {
                let message = format!(
                    "`${{{name}}}` is not set in the environment; the registry is asked without credentials"
                );
                self.findings
                    .push(Diagnostic::warning(raw.position, field, message));
                None
            }
        }
    }

    /// Where an entry's credentials stand. What is written beside the address goes before a Secret,
    /// a Secret before a file.
    pub(super) fn source(
        &mut self,
        written: bool,
        file: &Option<Located<String>>,
        secret: &Option<Located<String>>,
        field: &str,
    ) -> Option<CredentialSource> {
        let unused = match (written, file, secret) {
            (true, Some(unused), _) | (true, None, Some(unused)) => Some((unused, "auth")),
            (false, Some(unused), Some(_)) => Some((unused, "authSecret")),
            _ => None,
        };
        if let Some((unused, used)) = unused {
            let message = format!("`{used}` of this entry is used instead; write one of them");
            self.findings
                .push(Diagnostic::warning(unused.position, field, message));
        }
        if written {
            return None;
        }
        match (secret, file) {
            (Some(name), _) if !webhook::is_dns_subdomain(name.value.trim()) => {
                let message = webhook::NO_SECRET_NAME;
                let field = format!("{field}Secret");
                self.findings
                    .push(Diagnostic::error(name.position, field, message));
                None
            }
            (Some(name), _) => Some(CredentialSource::Secret(name.value.trim().to_owned())),
            (None, Some(file)) => Some(CredentialSource::File(PathBuf::from(file.value.trim()))),
            (None, None) => None,
        }
    }

    pub(super) fn credential_plugins(&mut self, raw: &RawConfig) -> Option<CredentialPlugins> {
        match (
            &raw.credential_provider_config,
            &raw.credential_provider_bin_dir,
        ) {
            (Some(config), Some(bin_dir)) => Some(CredentialPlugins {
                config: PathBuf::from(config.value.trim()),
                bin_dir: PathBuf::from(bin_dir.value.trim()),
            }),
            (None, None) => None,
            (Some(written), None) => self.one_without_the_other(
                written.position,
                "imageCredentialProviderConfig",
                "imageCredentialProviderBinDir",
            ),
            (None, Some(written)) => self.one_without_the_other(
                written.position,
                "imageCredentialProviderBinDir",
                "imageCredentialProviderConfig",
            ),
        }
    }

    fn one_without_the_other(
        &mut self,
        position: Position,
        field: &str,
        other: &str,
    ) -> Option<CredentialPlugins> {
        let message = format!("does nothing without `{other}`; write both, as for kubelet");
        self.findings
            .push(Diagnostic::warning(position, field, message));
        None
    }

    /// Replaces every `${NAME}`; the error is the name that is not set.
    pub(super) fn expand(&self, text: &str) -> Result<String, String> {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            expanded.push_str(before);
            match after.split_once('}').filter(|(name, _)| is_variable(name)) {
                Some((name, tail)) => {
                    expanded.push_str(&(self.environment)(name).ok_or_else(|| name.to_owned())?);
                    rest = tail;
                }
                None => {
                    expanded.push_str("${");
                    rest = after;
                }
            }
        }
        expanded.push_str(rest);
        Ok(expanded)
    }
}
