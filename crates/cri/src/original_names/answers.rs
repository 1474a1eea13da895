//! Adding the original names to answers that list images, for runtimes that can't keep them.

use policy::Reference;

use crate::alias::Aliases;
use crate::runtime_name::{by_digest, stored_name};
use crate::wire::{self, WireError};

/// `images` of ListImagesResponse and StreamImagesResponse, `image` of ImageStatusResponse.
const IMAGE: u32 = 1;
/// `Image.repo_tags`.
const TAGS: u32 = 2;
/// `Image.repo_digests`.
const DIGESTS: u32 = 3;

/// The names that were asked for, by what the runtime knows their images as.
pub(crate) struct OriginalNames<'a>(&'a Aliases);

impl<'a> OriginalNames<'a> {
    /// Those that are remembered.
    pub(crate) fn of(aliases: &'a Aliases) -> Self {
        Self(aliases)
    }

    /// An answer's message with the names added; everything else as it was.
    ///
    /// # Errors
    /// Any [`WireError`]: it can't be read with certainty.
    pub(crate) fn added_to(&self, message: &[u8]) -> Result<Vec<u8>, WireError> {
        wire::map_messages(message, IMAGE, |image| self.added_to_image(image))
    }

    fn added_to_image(&self, image: &[u8]) -> Result<Vec<u8>, WireError> {
        let tags = wire::texts(image, TAGS)?;
        let digests = wire::texts(image, DIGESTS)?;
        let mut out = image.to_vec();
        let mut added: Vec<String> = Vec::new();
        let mut add = |field, name: String| {
            let is_known = tags.contains(&name.as_str()) || digests.contains(&name.as_str());
            if !is_known && !added.contains(&name) {
                wire::put_field(field, name.as_bytes(), &mut out);
                added.push(name);
            }
        };
        for name in tags.iter().chain(&digests) {
            let originals = self.0.names_of(name);
            for original in originals.iter().flat_map(|name| Reference::parse(name)) {
                if original.digest().is_some() {
                    add(DIGESTS, stored_name(&original));
                    continue;
                }
                add(TAGS, stored_name(&original));
                let repository = name.rsplit_once(':').map_or(*name, |(start, _)| start);
                for (at, digest) in digests.iter().filter_map(|name| name.rsplit_once('@')) {
                    if at != repository {
                        continue;
                    }
                    add(DIGESTS, by_digest(&original, digest));
                }
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use testkit::cri_api::{Image, ListImagesResponse};

    use super::*;

    fn digest(letter: char) -> String {
        format!("sha256:{}", letter.to_string().repeat(64))
    }

    #[test]
    fn names_are_added_once_and_all_else_stays() {
        let aliases = Aliases::default();
        let (a, b) = (digest('a'), digest('b'));
        aliases.set("docker.io/library/app:1", "mirror:5000/library/app:1");
        aliases.set("quay.io/app:1", "mirror:5000/library/app:1");
        let pinned = format!("docker.io/library/app:1@{b}");
        aliases.set(&pinned, &format!("mirror:5000/library/app:1@{b}"));
        let image = |id: &str, tags: &[&str], digests: &[String]| Image {
            id: id.to_owned(),
            repo_tags: tags.iter().map(ToString::to_string).collect(),
            repo_digests: digests.to_vec(),
            size: 7,
            ..Image::default()
        };
        let before = vec![
            image(
                "1",
                &["mirror:5000/library/app:1"],
                &[
                    format!("mirror:5000/library/app@{a}"),
                    format!("else.io/app@{b}"),
                ],
            ),
            image("2", &[], &[format!("mirror:5000/library/app@{b}")]),
            image("3", &["quay.io/other:1"], &[]),
        ];
        let list = ListImagesResponse {
            images: before.clone(),
        };
        let mut message = list.encode_to_vec();
        message.extend([0xa2, 0x06, 1, b'u']); // field 100, not known
        let names = OriginalNames::of(&aliases);
        let edited = names.added_to(&message).unwrap();
        assert!(edited.ends_with(&[0xa2, 0x06, 1, b'u']));
        let after = ListImagesResponse::decode(&edited[..]).unwrap().images;
        let mut tags = after[0].repo_tags.clone();
        tags.sort();
        assert_eq!(
            tags,
            [
                "docker.io/library/app:1",
                "mirror:5000/library/app:1",
                "quay.io/app:1"
            ]
        );
        for name in [
            format!("docker.io/library/app@{a}"),
            format!("quay.io/app@{a}"),
        ] {
            assert!(after[0].repo_digests.contains(&name), "{name}");
        }
        assert_eq!(
            after[0].repo_digests.len(),
            4,
            "nothing of the other repository"
        );
        assert_eq!(
            after[1].repo_digests,
            [
                format!("mirror:5000/library/app@{b}"),
                format!("docker.io/library/app@{b}"),
            ]
        );
        assert_eq!(after[2], before[2]);
        // Twice is once.
        assert_eq!(names.added_to(&edited).unwrap(), edited);
        assert!(names.added_to(&[0x0a, 5, 1]).is_err());
    }
}
