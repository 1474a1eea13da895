//! Parts of a Pod that are read without keeping all of them. A review of a megabyte may hold 100,000
//! containers or annotations, each many times larger in memory than in JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{CONFIG_MIRROR, CONFIG_SOURCE, KUIK_POLICY, OPT_OUT, ORIGINAL_IMAGES, RULES};

/// Containers of a Pod, and image volumes, at most. One with more is left as it is.
pub const MAX_CONTAINERS: usize = 500;

/// Labels and annotations that are kept.
const KEPT: [&str; 6] = [
    ORIGINAL_IMAGES,
    RULES,
    OPT_OUT,
    KUIK_POLICY,
    CONFIG_MIRROR,
    CONFIG_SOURCE,
];

/// The first elements of a list, and how many there are.
#[derive(Clone, Debug)]
pub struct Few<T> {
    kept: Vec<T>,
    count: usize,
}

impl<T> Few<T> {
    /// The first [`MAX_CONTAINERS`] elements.
    pub fn kept(&self) -> &[T] {
        &self.kept
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
            type Value = Few<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Few<T>, A::Error> {
                let mut few = Few {
                    kept: Vec::new(),
                    count: 0,
                };
                while few.kept.len() < MAX_CONTAINERS {
                    let Some(element) = list.next_element()? else {
                        return Ok(few);
                    };
                    few.kept.push(element);
                    few.count += 1;
                }
                while list.next_element::<IgnoredAny>()?.is_some() {
                    few.count += 1;
                }
                Ok(few)
            }
        }
        from.deserialize_seq(List(PhantomData))
    }
}

/// `image` of a volume.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ImageVolume {
    /// The image or artifact.
    pub reference: Option<String>,
    /// `Always`, `IfNotPresent` or `Never`.
    pub pull_policy: Option<String>,
}

/// The volumes of a Pod that are an image's content.
#[derive(Clone, Debug, Default)]
pub struct ImageVolumes {
    volumes: Vec<(usize, String, ImageVolume)>,
    count: usize,
}

impl ImageVolumes {
    /// The first [`MAX_CONTAINERS`]: number in the list of all volumes, name and image.
    pub fn kept(&self) -> &[(usize, String, ImageVolume)] {
        &self.volumes
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }
}

impl<'de> Deserialize<'de> for ImageVolumes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        struct Volume {
            #[serde(default)]
            name: String,
            image: Option<ImageVolume>,
        }
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = ImageVolumes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of volumes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ImageVolumes, A::Error> {
                let mut found = ImageVolumes::default();
                let mut at = 0;
                while let Some(volume) = list.next_element::<Volume>()? {
                    if let Some(image) = volume.image {
                        found.count += 1;
                        if found.volumes.len() < MAX_CONTAINERS {
                            found.volumes.push((at, volume.name, image));
                        }
                    }
                    at += 1;
                }
                Ok(found)
            }
        }
        from.deserialize_seq(List)
    }
}

/// Labels or annotations: those that concern us, and the size of all others.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    kept: BTreeMap<&'static str, String>,
    other_size: usize,
}

impl Notes {
    /// The value of one that concerns us.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.kept.get(name).map(String::as_str)
    }

    /// Bytes of the values that are kept.
    pub(super) fn kept_size(&self) -> usize {
        self.kept.values().map(String::len).sum()
    }

    /// Bytes of all names and values but for those in `without`.
    pub fn size(&self, without: &[&str]) -> usize {
        let kept = self.kept.iter();
        let kept = kept.filter(|(name, _)| !without.contains(name));
        self.other_size
            + kept
                .map(|(name, value)| name.len() + value.len())
                .sum::<usize>()
    }
}

impl<'de> Deserialize<'de> for Notes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Notes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names and values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Notes, A::Error> {
                let mut notes = Notes::default();
                while let Some(Text(name)) = entries.next_key()? {
                    if let Some(kept) = KEPT.iter().find(|kept| **kept == name) {
                        notes.kept.insert(kept, entries.next_value()?);
                    } else {
                        let Text(value) = entries.next_value()?;
                        notes.other_size += name.len() + value.len();
                    }
                }
                Ok(notes)
            }
        }
        from.deserialize_map(Entries)
    }
}

/// A text that is looked at and not kept: without a copy, unless it holds escapes.
struct Text<'t>(Cow<'t, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        from.deserialize_str(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Pod;
    use super::*;

    #[test]
    fn what_is_kept_does_not_grow_with_what_is_written() {
        let many = |one: &str| vec![one; 20_000].join(",");
        let text = format!(
            r#"{{"spec": {{"containers": [{}], "volumes": [{}, {{"name": "last", "image": {{}}}}]}}}}"#,
            many(r#"{"name":"c"}"#),
            many(r#"{"name":"v","emptyDir":{}}"#),
        );
        let spec = serde_json::from_str::<Pod>(&text).unwrap().spec.unwrap();
        let containers = spec.containers.unwrap();
        assert_eq!(containers.kept().len(), MAX_CONTAINERS);
        assert_eq!(containers.count(), 20_000);
        let volumes = spec.volumes.unwrap();
        assert_eq!(volumes.count(), 1);
        let (at, name, _) = &volumes.kept()[0];
        assert_eq!((*at, name.as_str()), (20_000, "last"));
    }

    #[test]
    fn notes_that_do_not_concern_us_are_measured_only() {
        let text = r#"{"a": "12", "\u0062": "3\n", "image-cri-shim/rewrite": "no"}"#;
        let notes: Notes = serde_json::from_str(text).unwrap();
        assert_eq!(notes.get(OPT_OUT), Some("no"));
        assert_eq!(notes.get("a"), None);
        assert_eq!(notes.size(&[OPT_OUT]), 6);
        assert_eq!(notes.size(&[]), 6 + OPT_OUT.len() + 2);
        assert!(serde_json::from_str::<Notes>(r#"{"a": 1}"#).is_err());
        assert!(serde_json::from_str::<Notes>(r#"{"a": null}"#).is_err());
    }
}
