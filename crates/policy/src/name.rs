//! Image names that are made from a place and a repository, checked before anybody uses them.

use thiserror::Error;

use crate::Reference;
use crate::reference::ReferenceError;

/// A name that leads to the place it was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// The whole name, as the runtime is asked for it.
    pub(crate) image: String,
    /// Its repository as the runtime understands it: with `library/` on Docker Hub.
    pub(crate) repository: String,
}

/// Why a name is not used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum NameError {
    /// It doesn't parse, for example because it is too long.
    #[error("the name made for it can't be used: {0}")]
    NoName(#[from] ReferenceError),
    /// It parses, but as an image of another host.
    #[error("the name made for it, `{image}`, would be read as an image of `{host}`")]
    OtherHost {
        /// The name.
        image: String,
        /// Whose image it would be.
        host: String,
    },
}

/// The one guard in front of every name that we make. A candidate, a redirect's target and a name in a
/// Pod's patch all come from here: a name that the runtime would read as an image of another host would
/// pull a stranger's image, and hand him credentials.
pub(crate) fn made(domain: &str, repository: &str, suffix: &str) -> Result<Name, NameError> {
    let image = format!("{domain}/{repository}{suffix}");
    let read = Reference::parse(&image)?;
    if read.domain() != domain {
        return Err(NameError::OtherHost {
            host: read.domain().to_owned(),
            image,
        });
    }
    Ok(Name {
        image,
        repository: read.repository().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_another_host_would_get_is_refused() {
        let name = made("harbor:80", "library/app", ":1").unwrap();
        assert_eq!(name.image, "harbor:80/library/app:1");
        assert_eq!(name.repository, "library/app");
        for (domain, host) in [("harbor", "docker.io"), ("index.docker.io", "docker.io")] {
            assert_eq!(
                made(domain, "library/app", ":1"),
                Err(NameError::OtherHost {
                    image: format!("{domain}/library/app:1"),
                    host: host.to_owned(),
                })
            );
        }
        for repository in ["Upper", "", "a//b", &"x".repeat(256)] {
            let refused = made("a.io", repository, ":1");
            assert!(matches!(refused, Err(NameError::NoName(_))), "{refused:?}");
        }
    }

    #[test]
    fn the_repository_is_the_one_that_would_be_pulled() {
        let name = made("docker.io", "app", ":1").unwrap();
        assert_eq!(name.image, "docker.io/app:1");
        assert_eq!(name.repository, "library/app");
    }
}
