//! What a registry is given to know who asks, in a form that can't be printed by accident.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

/// What a registry is given to know who asks: a user name and password, or a token in their place.
/// Masked in [`fmt::Debug`], wiped from memory on drop.
#[derive(Clone)]
pub struct Credentials {
    kind: Kind,
    username: String,
    secret: SecretString,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Password,
    IdentityToken,
    RegistryToken,
}

/// What credentials prove who asks with; for the wire only, not for logs.
pub enum Proof<'a> {
    /// A user name and password.
    Password {
        /// The user.
        username: &'a str,
        /// The password; may be empty.
        password: &'a str,
    },
    /// A token that the registry's token service takes in exchange for others (OAuth 2 refresh token;
    /// `az acr login` and `docker login` of some registries leave one behind).
    IdentityToken(&'a str),
    /// A token that is sent to the registry as it is.
    RegistryToken(&'a str),
}

impl Credentials {
    /// A user name and password.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            kind: Kind::Password,
            username: username.into(),
            secret: SecretString::from(password.into()),
        }
    }

    /// A token for the registry's token service.
    pub fn identity_token(token: impl Into<String>) -> Self {
        Self {
            kind: Kind::IdentityToken,
            username: String::new(),
            secret: SecretString::from(token.into()),
        }
    }

    /// A token for the registry itself.
    pub fn registry_token(token: impl Into<String>) -> Self {
        Self {
            kind: Kind::RegistryToken,
            ..Self::identity_token(token)
        }
    }

    /// What to prove who asks with.
    pub fn proof(&self) -> Proof<'_> {
        let secret = self.secret.expose_secret();
        match self.kind {
            Kind::Password => Proof::Password {
                username: &self.username,
                password: secret,
            },
            Kind::IdentityToken => Proof::IdentityToken(secret),
            Kind::RegistryToken => Proof::RegistryToken(secret),
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

    /// The user name, for the wire only: not for logs. Empty for a token.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The password, for the wire only: not for logs. Empty for a token.
    pub fn expose_password(&self) -> &str {
        match self.proof() {
            Proof::Password { password, .. } => password,
            Proof::IdentityToken(_) | Proof::RegistryToken(_) => "",
        }
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
        self.kind == other.kind
            && self.username == other.username
            && self.secret.expose_secret() == other.secret.expose_secret()
    }
}

impl Eq for Credentials {}

impl Hash for Credentials {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind.hash(state);
        self.username.hash(state);
        self.secret.expose_secret().hash(state);
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
    fn a_token_is_no_password() {
        let token = Credentials::identity_token("hunter2");
        assert_eq!((token.username(), token.expose_password()), ("", ""));
        assert!(matches!(token.proof(), Proof::IdentityToken("hunter2")));
        assert_ne!(token, Credentials::new("", "hunter2"));
        assert_ne!(token, Credentials::registry_token("hunter2"));
        assert!(!format!("{token:?}").contains("hunter2"));
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
