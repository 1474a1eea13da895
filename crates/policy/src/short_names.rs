//! What a short name means (rule 6): a name without a host, such as `app:1`.
//!
//! Kubernetes and containerd read it as Docker Hub's. CRI-O asks its registries.conf, and then the plan
//! must be made for the same image that the runtime would pull.

use std::collections::BTreeMap;

use crate::Reference;

/// What the runtime makes of short names. The default is Docker Hub's, as containerd has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShortNames {
    /// Repository without host and tag, and the whole name that it stands for, without tag.
    pub aliases: BTreeMap<String, String>,
    /// Registries that the runtime looks through. One replaces `docker.io`; with several nobody can say
    /// beforehand which it will be; none leaves `docker.io`.
    pub search: Vec<String>,
}

/// What one name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// This image.
    Image(Reference),
    /// Nobody can say; the reason is for people.
    Unclear(String),
}

impl ShortNames {
    /// What `reference` stands for; itself, where a host was written.
    pub(crate) fn meaning(&self, reference: &Reference) -> Meaning {
        if !reference.is_short() || (self.aliases.is_empty() && self.search.is_empty()) {
            return Meaning::Image(reference.clone());
        }
        let written = reference.as_written();
        let repository = reference.written_repository();
        if let Some(target) = self.aliases.get(repository) {
            let suffix = written.get(repository.len()..).unwrap_or_default();
            return image(target, suffix).unwrap_or_else(|| {
                Meaning::Unclear(format!(
                    "the runtime's registries.conf has an alias for `{repository}` that is no image name, so the name is left to the runtime"
                ))
            });
        }
        match self.search.as_slice() {
            [] => Meaning::Image(reference.clone()),
            [only] => image(only, &format!("/{written}")).unwrap_or_else(|| {
                Meaning::Unclear(
                    "the runtime's registries.conf has an `unqualified-search-registries` entry that is no registry, so the name is left to the runtime"
                        .to_owned(),
                )
            }),
            several => Meaning::Unclear(format!(
                "a short name, and the runtime's registries.conf has {} `unqualified-search-registries`; which of them it means is the runtime's to say",
                several.len()
            )),
        }
    }
}

/// The image that `start` and `rest` make together, if it belongs to the host that `start` names.
fn image(start: &str, rest: &str) -> Option<Meaning> {
    let reference = Reference::parse(&format!("{start}{rest}")).ok()?;
    let host = start.split('/').next().unwrap_or(start);
    let fits = !reference.is_short() && crate::host::canonical_host(host) == reference.domain();
    fits.then_some(Meaning::Image(reference))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(names: &ShortNames, image: &str) -> Result<String, String> {
        match names.meaning(&Reference::parse(image).unwrap()) {
            Meaning::Image(image) => Ok(image.canonical()),
            Meaning::Unclear(why) => Err(why),
        }
    }

    fn search(registries: &[&str]) -> ShortNames {
        ShortNames {
            search: registries.iter().map(ToString::to_string).collect(),
            ..ShortNames::default()
        }
    }

    #[test]
    fn docker_hub_unless_the_runtime_says_otherwise() {
        for names in [ShortNames::default(), search(&[]), search(&["docker.io"])] {
            assert_eq!(meaning(&names, "app:1").unwrap(), "docker.io/library/app:1");
        }
    }

    #[test]
    fn a_single_search_registry_replaces_docker_hub() {
        let names = search(&["harbor.corp:5000/hub"]);
        assert_eq!(
            meaning(&names, "app:1").unwrap(),
            "harbor.corp:5000/hub/app:1"
        );
        assert_eq!(
            meaning(&names, "team/app").unwrap(),
            "harbor.corp:5000/hub/team/app:latest"
        );
        // A name with a host is not short.
        assert_eq!(meaning(&names, "quay.io/a:1").unwrap(), "quay.io/a:1");
        assert_eq!(
            meaning(&names, "docker.io/app:1").unwrap(),
            "docker.io/library/app:1"
        );
    }

    #[test]
    fn an_alias_goes_before_the_search() {
        let mut names = search(&["a.io", "b.io"]);
        names
            .aliases
            .insert("app".to_owned(), "quay.io/team/app".to_owned());
        let digest = format!("@sha256:{}", "a".repeat(64));
        for (image, meant) in [
            ("app:1", "quay.io/team/app:1".to_owned()),
            ("app", "quay.io/team/app:latest".to_owned()),
            (
                &format!("app:1{digest}"),
                format!("quay.io/team/app:1{digest}"),
            ),
        ] {
            assert_eq!(meaning(&names, image).unwrap(), meant);
        }
        assert!(meaning(&names, "library/app:1").is_err());
    }

    #[test]
    fn several_search_registries_are_the_runtimes_to_choose_from() {
        let why = meaning(&search(&["a.io", "b.io"]), "app:1").unwrap_err();
        assert!(
            why.contains("has 2 `unqualified-search-registries`"),
            "{why}"
        );
    }

    #[test]
    fn what_would_be_read_as_another_hosts_image_is_left_to_the_runtime() {
        // `harbor/app` is Docker Hub's.
        assert!(meaning(&search(&["harbor"]), "app:1").is_err());
        let mut names = ShortNames::default();
        names
            .aliases
            .insert("app".to_owned(), "harbor/app".to_owned());
        assert!(meaning(&names, "app:1").is_err());
    }
}
