//! Credentials in docker's and podman's formats: `config.json`, and the Kubernetes Secrets made of it.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use thiserror::Error;

use crate::host::canonical_host;
use crate::host_pattern::matches_host;
use crate::{Credentials, Endpoint};

/// A docker `config.json`, as far as it is about credentials. Debug output counts its entries and shows none.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct DockerConfig {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    #[serde(rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

// A key may be an address with a password in it.
impl fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerConfig")
            .field("auths", &self.auths.as_ref().map(BTreeMap::len))
            .field("helpers", &self.helpers.as_ref().map(BTreeMap::len))
            .field("has_store", &self.store.is_some())
            .finish()
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<SecretString>,
    username: Option<SecretString>,
    password: Option<SecretString>,
    #[serde(rename = "identitytoken")]
    identity_token: Option<SecretString>,
    #[serde(rename = "registrytoken")]
    registry_token: Option<SecretString>,
}

/// What a config knows about one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// These.
    Credentials(Credentials),
    /// The program `docker-credential-NAME` knows, when asked for this server.
    Helper {
        /// The NAME.
        name: String,
        /// What it is asked for.
        server: String,
    },
    /// Nothing.
    Unknown,
}

/// Why credentials can't be read. The text never repeats what was read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DockerConfigError {
    /// Not JSON, or not of this form.
    #[error("it is not a docker config.json (line {line}, column {column})")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// An `auth` that is not base64 of `user:password`.
    #[error("its entry for the host is not base64 of `user:password`")]
    Entry,
    /// A helper's name with anything but letters, digits, `.`, `_` and `-`.
    #[error("it names a credential helper that is no plain program name")]
    HelperName,
    /// A Secret of another type.
    #[error(
        "it is of type `{0}`; `kubernetes.io/dockerconfigjson` and `kubernetes.io/basic-auth` hold credentials"
    )]
    SecretType(String),
    /// A Secret without the key that its type has.
    #[error("it has no `{0}`")]
    MissingKey(&'static str),
}

impl DockerConfig {
    /// Reads the file's text: the form of today (`auths`), or docker's first one, which kubelet still
    /// reads (`.dockercfg`: the entries themselves).
    ///
    /// # Errors
    /// [`DockerConfigError::Syntax`].
    pub fn parse(text: &str) -> Result<Self, DockerConfigError> {
        let text = text.trim_start_matches('\u{feff}');
        let config: Self = serde_json::from_str(text).map_err(|error| syntax(&error))?;
        let says_nothing =
            config.auths.is_none() && config.helpers.is_none() && config.store.is_none();
        if says_nothing && let Ok(old) = Self::parse_old(text) {
            return Ok(old);
        }
        Ok(config)
    }

    fn parse_old(text: &str) -> Result<Self, DockerConfigError> {
        let text = text.trim_start_matches('\u{feff}');
        let entries = serde_json::from_str(text).map_err(|error| syntax(&error))?;
        Ok(Self {
            auths: Some(entries),
            ..Self::default()
        })
    }

    /// What it knows about `endpoint`: a helper for it, else an entry, else the store that is asked for
    /// everything. Keys are matched as kubelet matches them.
    ///
    /// # Errors
    /// There is an entry, and it can't be used.
    pub fn lookup(&self, endpoint: &Endpoint) -> Result<Lookup, DockerConfigError> {
        if let Some(name) = self.helpers.as_ref().and_then(|all| best(all, endpoint)) {
            return helper(name, endpoint);
        }
        if let Some(credentials) = self.entry(endpoint)? {
            return Ok(Lookup::Credentials(credentials));
        }
        match self.store.as_deref() {
            Some(store) if !store.is_empty() => helper(store, endpoint),
            _ => Ok(Lookup::Unknown),
        }
    }

    /// The entry for `endpoint`. A key is a host with or without scheme, port, path, and `/v1/` or `/v2/`
    /// behind the host; its host may hold wildcards. A host that is written out goes before a pattern,
    /// and a longer path before a shorter one; `docker.io` goes before Docker Hub's other names. A path is
    /// matched by whole segments. If nothing matches
    /// a registry without a path that way, and there is one entry of its host, with whatever path, that
    /// one is taken, as docker takes it.
    ///
    /// # Errors
    /// There is an entry, and it can't be used.
    fn entry(&self, endpoint: &Endpoint) -> Result<Option<Credentials>, DockerConfigError> {
        let entries = self.auths.as_ref();
        let entry = entries.and_then(|all| best(all, endpoint).or_else(|| only(all, endpoint)));
        match entry {
            Some(Some(entry)) => entry.credentials(),
            Some(None) | None => Ok(None),
        }
    }
}

impl Entry {
    /// A token goes before the user name beside it, which is only there to be shown.
    fn credentials(&self) -> Result<Option<Credentials>, DockerConfigError> {
        let full = |text: &Option<SecretString>| {
            let text = text.as_ref().map(|text| text.expose_secret().to_owned());
            text.filter(|text| !text.is_empty())
        };
        if let Some(token) = full(&self.identity_token) {
            return Ok(Some(Credentials::identity_token(token)));
        }
        if let Some(token) = full(&self.registry_token) {
            return Ok(Some(Credentials::registry_token(token)));
        }
        if let Some(auth) = full(&self.auth) {
            let pair = decode_auth(&auth).ok_or(DockerConfigError::Entry)?;
            // docker itself pads with zero bytes.
            let pair = pair.trim_end_matches('\0');
            if !pair.contains(':') {
                return Err(DockerConfigError::Entry);
            }
            return Ok(Credentials::from_pair(pair));
        }
        Ok(match (full(&self.username), full(&self.password)) {
            (None, None) => None,
            (username, password) => Some(Credentials::new(
                username.unwrap_or_default(),
                password.unwrap_or_default(),
            )),
        })
    }
}

/// Credentials for `endpoint` in a Secret of Kubernetes. Helpers that a Secret names are not run: who
/// may write Secrets may not therefore run programs on nodes.
///
/// # Errors
/// It is of a type that holds none, or not of that type's form.
pub fn from_secret<'a>(
    kind: &str,
    value: &dyn Fn(&str) -> Option<&'a str>,
    endpoint: &Endpoint,
) -> Result<Option<Credentials>, DockerConfigError> {
    let key = |name: &'static str| value(name).ok_or(DockerConfigError::MissingKey(name));
    let config = match kind {
        "kubernetes.io/basic-auth" => {
            let username = value("username").unwrap_or_default();
            return Ok(Some(Credentials::new(username, key("password")?)));
        }
        "kubernetes.io/dockerconfigjson" => DockerConfig::parse(key(".dockerconfigjson")?)?,
        "kubernetes.io/dockercfg" => DockerConfig::parse_old(key(".dockercfg")?)?,
        other => return Err(DockerConfigError::SecretType(other.to_owned())),
    };
    config.entry(endpoint)
}

/// What `docker-credential-NAME get` answers: `{"Username": …, "Secret": …}`.
///
/// # Errors
/// It isn't that.
pub fn from_helper(answer: &str) -> Result<Credentials, DockerConfigError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct HelperOutput {
        username: SecretString,
        secret: SecretString,
    }
    let answer: HelperOutput = serde_json::from_str(answer).map_err(|error| syntax(&error))?;
    if answer.username.expose_secret() == "<token>" {
        return Ok(Credentials::identity_token(answer.secret.expose_secret()));
    }
    Ok(Credentials::new(
        answer.username.expose_secret(),
        answer.secret.expose_secret(),
    ))
}

/// A key of a config: `host[:port]`, and a path without slashes at its ends.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    domain: String,
    path: String,
    /// The host was written as references have it, and not as another name of Docker Hub.
    is_canonical: bool,
}

impl Key {
    fn parse(text: &str) -> Self {
        let text = text.trim();
        let text = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"))
            .unwrap_or(text);
        let (domain, path) = text.split_once('/').unwrap_or((text, ""));
        let path = match path.split_once('/').unwrap_or((path, "")) {
            // The version of the API, which old clients wrote behind the host.
            ("v1" | "v2", rest) => rest,
            _ => path,
        };
        let domain = domain.to_ascii_lowercase();
        let canonical = canonical_host(&domain).to_owned();
        Self {
            is_canonical: canonical == domain,
            domain: canonical,
            path: path.trim_matches('/').to_owned(),
        }
    }

    fn is_of_host(&self, endpoint: &Endpoint) -> bool {
        let with_port = format!("{}:{}", endpoint.host(), endpoint.effective_port());
        matches_host(&self.domain, &endpoint.domain())
            || (endpoint.effective_port() == 443 && matches_host(&self.domain, endpoint.host()))
            || matches_host(&self.domain, &with_port)
    }

    fn holds(&self, endpoint: &Endpoint) -> bool {
        let rest = endpoint.path().strip_prefix(self.path.as_str());
        let whole = rest
            .is_some_and(|rest| self.path.is_empty() || rest.is_empty() || rest.starts_with('/'));
        whole && self.is_of_host(endpoint)
    }

    fn is_pattern(&self) -> bool {
        self.domain.contains(['*', '?'])
    }
}

/// The entry that is most about `endpoint`.
fn best<'a, T>(entries: &'a BTreeMap<String, T>, endpoint: &Endpoint) -> Option<&'a T> {
    entries
        .iter()
        .map(|(key, value)| (Key::parse(key), value))
        .filter(|(key, _)| key.holds(endpoint))
        .max_by_key(|(key, _)| {
            let (path, domain) = (key.path.len(), key.domain.len());
            (!key.is_pattern(), path, domain, key.is_canonical)
        })
        .map(|(_, value)| value)
}

/// The entry of that host for a registry as a whole, where there is just one.
fn only<'a, T>(entries: &'a BTreeMap<String, T>, endpoint: &Endpoint) -> Option<&'a T> {
    if !endpoint.path().is_empty() {
        return None;
    }
    let mut of_host = entries.iter().filter(|(key, _)| {
        let key = Key::parse(key);
        !key.is_pattern() && key.is_of_host(endpoint)
    });
    match (of_host.next(), of_host.next()) {
        (Some((_, value)), None) => Some(value),
        _ => None,
    }
}

fn helper(name: &str, endpoint: &Endpoint) -> Result<Lookup, DockerConfigError> {
    let plain = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !plain {
        return Err(DockerConfigError::HelperName);
    }
    let server = match endpoint.domain().as_str() {
        // The one name that docker has kept from its first days.
        "docker.io" => "https://index.docker.io/v1/".to_owned(),
        domain => domain.to_owned(),
    };
    Ok(Lookup::Helper {
        name: name.to_owned(),
        server,
    })
}

/// The parser's own text may quote what it read.
fn syntax(error: &serde_json::Error) -> DockerConfigError {
    DockerConfigError::Syntax {
        line: error.line(),
        column: error.column(),
    }
}

/// The text of an `auth`, `user:password`. It is decoded as kubelet and containerd do, whose decoder passes line
/// ends over; padding may be missing. None where it is no base64 of UTF-8.
pub fn decode_auth(text: &str) -> Option<String> {
    use base64::Engine as _;
    use base64::alphabet::STANDARD;
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let one_line: String = text
        .trim()
        .chars()
        .filter(|c| !matches!(c, '\r' | '\n'))
        .collect();
    String::from_utf8(ENGINE.decode(one_line).ok()?).ok()
}

#[cfg(test)]
mod tests;
