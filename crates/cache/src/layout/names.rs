//! What an image in a layout is called.

use policy::Reference;

use super::{Descriptor, IMAGE_NAME, LayoutError, REF_NAME};
use crate::digest::Digest;
use crate::name::Repository;

/// Where an image belongs, and its tag; without one it is known by its digest alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) repository: Repository,
    pub(super) tag: Option<String>,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.tag {
            Some(tag) => write!(f, "{}:{tag}", self.repository),
            None => write!(f, "{}", self.repository),
        }
    }
}

/// Its name by its annotations, or else by what the caller says.
pub(super) fn name_of(image: &Descriptor, given: Option<&str>) -> Result<Name, LayoutError> {
    let annotation = |key: &str| {
        let text = image.annotations.get(key)?.trim();
        (!text.is_empty()).then_some(text)
    };
    let ref_name = annotation(REF_NAME);
    // `1.27` alone would be read as a repository; `team/app`, `app:1` and `app@sha256:…` are whole names.
    let is_whole = |text: &&str| text.contains(['/', ':', '@']);
    let whole = annotation(IMAGE_NAME).or(ref_name.filter(is_whole));
    if let Some(whole) = whole {
        return read(whole, None, &image.digest);
    }
    match given {
        Some(given) => read(given, ref_name, &image.digest),
        None => {
            let tag = ref_name.map(|tag| format!(" (`{tag}`)"));
            let shown = format!("{}{}", image.digest.short(), tag.unwrap_or_default());
            Err(LayoutError::Nameless(policy::text::one_line(&shown, 200)))
        }
    }
}

fn read(name: &str, tag: Option<&str>, digest: &Digest) -> Result<Name, LayoutError> {
    let shown = policy::text::one_line(name, 200);
    let wrong = |why: &dyn std::fmt::Display| LayoutError::Wrong(format!("{shown}: {why}"));
    let reference = Reference::parse(name).map_err(|error| wrong(&error))?;
    if reference
        .digest()
        .is_some_and(|named| named != digest.as_str())
    {
        return Err(wrong(&format!("names another digest than {digest}")));
    }
    let repository = Repository::new(reference.domain(), reference.repository())
        .map_err(|error| wrong(&error))?;
    let tag = match (reference.tag(), tag, reference.digest()) {
        (Some(tag), _, _) | (None, Some(tag), _) => Some(tag.to_owned()),
        (None, None, Some(_)) => None,
        (None, None, None) => Some("latest".to_owned()),
    };
    if let Some(tag) = &tag {
        repository.reference(tag).map_err(|error| wrong(&error))?;
    }
    Ok(Name { repository, tag })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(annotations: &[(&str, &str)], given: Option<&str>) -> Result<String, String> {
        let image = Descriptor {
            media_type: None,
            digest: Digest::of(b"x"),
            size: 1,
            annotations: annotations
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        };
        let name = name_of(&image, given).map_err(|error| error.to_string())?;
        Ok(name.to_string())
    }

    #[test]
    fn by_annotations_else_as_given() {
        let digest = Digest::of(b"x");
        let by_digest = format!("quay.io/a/b@{digest}");
        for (annotations, given, is) in [
            // containerd and BuildKit: the whole name, and the tag.
            (
                vec![(IMAGE_NAME, "quay.io/a/b:1"), (REF_NAME, "1")],
                None,
                "quay.io/a/b:1",
            ),
            // skopeo and podman: the whole name in the OCI annotation.
            (
                vec![(REF_NAME, "docker.io/library/nginx:1.27")],
                None,
                "docker.io/library/nginx:1.27",
            ),
            (vec![(REF_NAME, "app:2")], None, "docker.io/library/app:2"),
            (
                vec![(IMAGE_NAME, "nginx")],
                None,
                "docker.io/library/nginx:latest",
            ),
            (vec![(IMAGE_NAME, by_digest.as_str())], None, "quay.io/a/b"),
            // What is in the file goes first.
            (
                vec![(IMAGE_NAME, "quay.io/a/b:1")],
                Some("other:2"),
                "quay.io/a/b:1",
            ),
            // A bare tag needs its repository.
            (
                vec![(REF_NAME, "1.27")],
                Some("quay.io/a/b"),
                "quay.io/a/b:1.27",
            ),
            (
                vec![(REF_NAME, "1.27")],
                Some("quay.io/a/b:2"),
                "quay.io/a/b:2",
            ),
            (vec![], Some("quay.io/a/b:2"), "quay.io/a/b:2"),
            (vec![], Some("quay.io/a/b"), "quay.io/a/b:latest"),
        ] {
            assert_eq!(
                name(&annotations, given).as_deref(),
                Ok(is),
                "{annotations:?}"
            );
        }
    }

    #[test]
    fn what_has_no_name() {
        let other = format!("a/b@{}", Digest::of(b"y"));
        for (annotations, given) in [
            (vec![], None),
            (vec![(REF_NAME, "1.27")], None),
            (vec![(IMAGE_NAME, "team/CASE")], None),
            (vec![(IMAGE_NAME, other.as_str())], None),
            (vec![(REF_NAME, "no tag")], Some("a/b")),
        ] {
            let error = name(&annotations, given).unwrap_err();
            assert!(!error.is_empty(), "{annotations:?}");
        }
    }
}
