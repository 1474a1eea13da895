//! A user name and password that can't be printed by accident.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

/// What a registry is given to know who asks. Masked in [`fmt::Debug`], wiped from memory on drop.
#[derive(Clone)]
pub struct Credentials {
    username: String,
    password: SecretString,
}

impl Credentials {
    /// Credentials from their two parts.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            username: username.into(),
            password: SecretString::from(password.into()),
        }
    }

    /// Reads `user:password`. Only the first `:` splits, because passwords may contain it; text
    /// without `:` is a user name with an empty password. Empty text is no credentials.
    pub fn from_pair(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let (username, password) = text.split_once(':').unwrap_or((text, ""));
        Some(Self::new(username, password))
    }

    /// The user name, for the wire only: not for logs.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The password, for the wire only: not for logs.
    pub fn expose_password(&self) -> &str {
        self.password.expose_secret()
    }
}

/// Where credentials stand that are not written in the config. Looking there is I/O, and somebody
/// else's business; see [`crate::config::Settings::with_credentials`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CredentialSource {
    /// A docker or podman `config.json`.
    File(PathBuf),
    /// A Kubernetes Secret of this name, in the ConfigMap's namespace.
    Secret(String),
    /// One of kubelet's credential-provider plugins. Nothing in an entry asks for it: it is what gave
    /// credentials to an entry that has none of its own.
    Plugin,
}

/// Where configured credentials stand, for people; `None` is in the config itself.
pub fn place(source: Option<&CredentialSource>) -> String {
    source.map_or_else(|| "auth in the config".to_owned(), ToString::to_string)
}

impl fmt::Display for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "authFile {}", path.display()),
            Self::Secret(name) => write!(f, "authSecret {name}"),
            Self::Plugin => f.write_str("a credential-provider plugin"),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(***)")
    }
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        self.username == other.username && self.expose_password() == other.expose_password()
    }
}

impl Eq for Credentials {}

impl Hash for Credentials {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.username.hash(state);
        self.expose_password().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_colon_splits() {
        let credentials = Credentials::from_pair("user:pa:ss:").unwrap();
        assert_eq!(credentials.username(), "user");
        assert_eq!(credentials.expose_password(), "pa:ss:");
        assert_eq!(
            Credentials::from_pair("user").unwrap().expose_password(),
            ""
        );
        assert!(Credentials::from_pair("").is_none());
    }

    #[test]
    fn debug_shows_neither_part() {
        let shown = format!("{:?}", Credentials::new("admin", "passw0rd"));
        assert!(
            !shown.contains("admin") && !shown.contains("passw0rd"),
            "{shown}"
        );
    }
}
