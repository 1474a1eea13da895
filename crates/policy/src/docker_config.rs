//! Credentials in docker's and podman's formats: `config.json`, and the Kubernetes Secrets made of it.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use thiserror::Error;

use crate::{Credentials, Endpoint};

/// A docker `config.json`, as far as it is about credentials. Masked in debug output.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DockerConfig {
    auths: BTreeMap<String, Entry>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<SecretString>,
    username: Option<SecretString>,
    password: Option<SecretString>,
    #[serde(rename = "identitytoken")]
    identity_token: Option<SecretString>,
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
    /// An OAuth identity token, which registries' token services take in another way.
    #[error(
        "its entry for the host is an identity token, which is not supported; log in with a user name and password or an access token"
    )]
    IdentityToken,
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
    /// Reads the file's text.
    ///
    /// # Errors
    /// [`DockerConfigError::Syntax`].
    pub fn parse(text: &str) -> Result<Self, DockerConfigError> {
        serde_json::from_str(text).map_err(|error| syntax(&error))
    }

    /// What it knows about `endpoint`: a helper for its host, else the entry with the longest path
    /// that is a prefix, else the store that is asked for everything.
    ///
    /// # Errors
    /// There is an entry, and it can't be used.
    pub fn lookup(&self, endpoint: &Endpoint) -> Result<Lookup, DockerConfigError> {
        if let Some(name) = best(&self.helpers, endpoint) {
            return helper(name, endpoint);
        }
        if let Some(entry) = best(&self.auths, endpoint)
            && let Some(credentials) = entry.credentials()?
        {
            return Ok(Lookup::Credentials(credentials));
        }
        if !self.store.is_empty() {
            return helper(&self.store, endpoint);
        }
        Ok(Lookup::Unknown)
    }
}

impl Entry {
    fn credentials(&self) -> Result<Option<Credentials>, DockerConfigError> {
        let full = |text: &Option<SecretString>| {
            let text = text.as_ref().map(|text| text.expose_secret().to_owned());
            text.filter(|text| !text.is_empty())
        };
        if full(&self.identity_token).is_some() {
            return Err(DockerConfigError::IdentityToken);
        }
        if let Some(auth) = full(&self.auth) {
            let pair = base64(&auth).ok_or(DockerConfigError::Entry)?;
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
        "kubernetes.io/dockercfg" => DockerConfig {
            auths: serde_json::from_str(key(".dockercfg")?).map_err(|error| syntax(&error))?,
            ..DockerConfig::default()
        },
        other => return Err(DockerConfigError::SecretType(other.to_owned())),
    };
    match best(&config.auths, endpoint) {
        Some(entry) => entry.credentials(),
        None => Ok(None),
    }
}

/// What `docker-credential-NAME get` answers: `{"Username": …, "Secret": …}`.
///
/// # Errors
/// It isn't that.
pub fn from_helper(answer: &str) -> Result<Credentials, DockerConfigError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: SecretString,
        secret: SecretString,
    }
    let answer: Answer = serde_json::from_str(answer).map_err(|error| syntax(&error))?;
    if answer.username.expose_secret() == "<token>" {
        return Err(DockerConfigError::IdentityToken);
    }
    Ok(Credentials::new(
        answer.username.expose_secret(),
        answer.secret.expose_secret(),
    ))
}

/// The entry whose key is `endpoint` or the longest part of it, by whole path segments.
fn best<'a, T>(entries: &'a BTreeMap<String, T>, endpoint: &Endpoint) -> Option<&'a T> {
    entries
        .iter()
        .filter_map(|(key, value)| {
            let (place, _) = Endpoint::parse(key).ok()?;
            let rest = endpoint.path().strip_prefix(place.path())?;
            let whole = place.path().is_empty() || rest.is_empty() || rest.starts_with('/');
            (place.domain() == endpoint.domain() && whole).then_some((place.path().len(), value))
        })
        .max_by_key(|(length, _)| *length)
        .map(|(_, value)| value)
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

fn base64(text: &str) -> Option<String> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    String::from_utf8(STANDARD.decode(text.trim()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::parse(text).unwrap().0
    }

    fn config() -> DockerConfig {
        DockerConfig::parse(
            r#"{
            "auths": {
                "https://index.docker.io/v1/": {"auth": "aHViOnBhOnNz"},
                "quay.io": {"username": "q", "password": "p"},
                "quay.io/team": {"auth": "dGVhbTp4"},
                "bad.io": {"auth": "!!!"},
                "token.io": {"auth": "dTpw", "identitytoken": "hunter2"},
                "store.io": {},
                "r.io:5000": {"auth": "cG9ydDp4AAA="}
            },
            "credHelpers": {"123.dkr.ecr.eu-west-1.amazonaws.com": "ecr-login", "evil.io": "../../bin/sh"},
            "credsStore": "desktop", "HttpHeaders": {"x": "y"}}"#,
        )
        .unwrap()
    }

    fn user(at: &str) -> Option<String> {
        match config().lookup(&endpoint(at)).unwrap() {
            Lookup::Credentials(found) => Some(found.username().to_owned()),
            _ => None,
        }
    }

    #[test]
    fn the_longest_part_of_the_place_wins() {
        assert_eq!(user("quay.io").as_deref(), Some("q"));
        assert_eq!(user("quay.io/team").as_deref(), Some("team"));
        assert_eq!(user("quay.io/team/sub").as_deref(), Some("team"));
        assert_eq!(user("quay.io/teamwork").as_deref(), Some("q"));
        assert_eq!(user("docker.io").as_deref(), Some("hub"));
        assert_eq!(user("http://r.io:5000").as_deref(), Some("port"));
        assert_eq!(user("http://r.io:5001"), None);
    }

    #[test]
    fn helpers_and_the_store() {
        let asked = |at: &str| match config().lookup(&endpoint(at)).unwrap() {
            Lookup::Helper { name, server } => (name, server),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            asked("123.dkr.ecr.eu-west-1.amazonaws.com/mirror").0,
            "ecr-login"
        );
        assert_eq!(
            asked("store.io"),
            ("desktop".to_owned(), "store.io".to_owned())
        );
        assert_eq!(
            config().lookup(&endpoint("evil.io")),
            Err(DockerConfigError::HelperName)
        );
        assert_eq!(
            DockerConfig::default().lookup(&endpoint("x.io")),
            Ok(Lookup::Unknown)
        );
    }

    #[test]
    fn what_can_not_be_used_says_why_and_quotes_nothing() {
        let lookup = |at: &str| config().lookup(&endpoint(at)).unwrap_err();
        assert_eq!(lookup("bad.io"), DockerConfigError::Entry);
        assert_eq!(lookup("token.io"), DockerConfigError::IdentityToken);
        let error = DockerConfig::parse("{\"auths\": {\"a\": \"hunter2\"}}").unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(!format!("{:?}", config()).contains("hunter2"));
        assert!(from_helper("{\"Username\": 7, \"Secret\": \"hunter2\"}").is_err());
    }

    #[test]
    fn secrets_of_kubernetes() {
        let at = endpoint("quay.io/team");
        let basic = |name: &str| match name {
            "username" => Some("u"),
            "password" => Some("p:q"),
            _ => None,
        };
        let found = from_secret("kubernetes.io/basic-auth", &basic, &at).unwrap();
        assert_eq!(found, Some(Credentials::new("u", "p:q")));
        let json = |name: &str| {
            (name == ".dockerconfigjson").then_some(
                r#"{"auths": {"quay.io": {"auth": "dTpw"}}, "credHelpers": {"quay.io": "x"}}"#,
            )
        };
        let found = from_secret("kubernetes.io/dockerconfigjson", &json, &at).unwrap();
        assert_eq!(found, Some(Credentials::new("u", "p")));
        let other = from_secret("kubernetes.io/dockerconfigjson", &json, &endpoint("x.io"));
        assert_eq!(other, Ok(None));
        assert!(matches!(
            from_secret("Opaque", &json, &at),
            Err(DockerConfigError::SecretType(_))
        ));
        assert_eq!(
            from_secret("kubernetes.io/basic-auth", &|_| None, &at),
            Err(DockerConfigError::MissingKey("password"))
        );
    }
}
