//! What a token is to open.

use std::fmt;

/// The scope of one call, in the words of the token specification: a repository, and what is to be
/// done there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope(String);

impl Scope {
    /// Reading from a repository: `repository:<name>:pull`.
    pub fn pull(repository: &str) -> Self {
        Self(format!("repository:{repository}:pull"))
    }

    /// Writing to a repository: `repository:<name>:pull,push`.
    pub fn push(repository: &str) -> Self {
        Self(format!("repository:{repository}:pull,push"))
    }

    /// Nothing but who asks, as `docker login` wants it.
    pub(crate) fn none() -> Self {
        Self(String::new())
    }

    /// Both at once, as a mount of a blob from one repository into another needs it.
    #[must_use]
    pub fn and(self, other: &Self) -> Self {
        Self(format!("{self} {other}"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_written_as_token_services_read_them() {
        assert_eq!(Scope::pull("a/b").as_str(), "repository:a/b:pull");
        let mount = Scope::push("a").and(&Scope::pull("b"));
        assert_eq!(mount.as_str(), "repository:a:pull,push repository:b:pull");
    }
}
