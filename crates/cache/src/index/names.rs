//! What the store's objects are called: tags, what belongs to a repository and whether everybody may have
//! it, pins.

use redb::{Durability, ReadableTable};

use super::records::{Link, Pin, Tag, TagName};
use super::tables::{LINKS, PINS, TAGS, get, link_key, link_prefix, put_link, set};
use super::{Index, Result};
use crate::digest::Digest;
use crate::name::Repository;

impl Index {
    /// What a tag meant when it was looked up last.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn tag(&self, name: &TagName) -> Result<Option<Tag>> {
        self.read(|txn| get(&txn.open_table(TAGS)?, &name.key()))
    }

    /// Notes what a tag means. `durable` where the digest is new; a mere revalidation may be lost.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn set_tag(&self, name: &TagName, tag: &Tag, durable: bool) -> Result<()> {
        let durability = if durable {
            Durability::Immediate
        } else {
            Durability::None
        };
        self.write(durability, |txn| {
            set(&mut txn.open_table(TAGS)?, &name.key(), tag)
        })
    }

    /// Forgets tags.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn remove_tags(&self, names: &[TagName]) -> Result<()> {
        self.write(Durability::Immediate, |txn| {
            let mut tags = txn.open_table(TAGS)?;
            for name in names {
                tags.remove(name.key().as_str())?;
            }
            Ok(())
        })
    }

    /// All tags of one repository.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn tags_of(&self, repository: &Repository) -> Result<Vec<(String, Tag)>> {
        let start = format!("{repository}:");
        self.read(|txn| {
            let mut found = Vec::new();
            for entry in txn.open_table(TAGS)?.range(start.as_str()..)? {
                let (key, tag) = entry?;
                match key.value().strip_prefix(&start) {
                    Some(tag_name) if !tag_name.contains('/') => {
                        found.push((tag_name.to_owned(), serde_json::from_slice(tag.value())?))
                    }
                    // `host:port/…` begins in the same way as a tag of a repository called `host`.
                    Some(_) => {}
                    None => break,
                }
            }
            Ok(found)
        })
    }

    /// Every tag, by its whole name.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn all_tags(&self) -> Result<Vec<(TagName, Tag)>> {
        self.read(|txn| {
            let mut found = Vec::new();
            for entry in txn.open_table(TAGS)?.iter()? {
                let (key, tag) = entry?;
                if let Some(name) = TagName::from_key(key.value()) {
                    found.push((name, serde_json::from_slice(tag.value())?));
                }
            }
            Ok(found)
        })
    }

    // ---- links ----

    /// Notes that an object belongs to a repository, beside what is known of that already. Durable when
    /// it returns.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn link(&self, repository: &Repository, digest: &Digest, link: &Link) -> Result<()> {
        let known = self.linked(repository, digest)?;
        if known.is_some_and(|known| known.and_now(link).is_none()) {
            return Ok(());
        }
        self.write(Durability::Immediate, |txn| {
            put_link(txn, repository, digest, link)
        })
    }

    /// Whether an object belongs to a repository.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn linked(&self, repository: &Repository, digest: &Digest) -> Result<Option<Link>> {
        self.read(|txn| get(&txn.open_table(LINKS)?, &link_key(repository, digest)))
    }

    /// Whether a manifest of this repository that is in the store names an object: whoever pulls that one
    /// there needs this one, too.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn is_part(&self, repository: &Repository, digest: &Digest) -> Result<bool> {
        Ok(!self.manifests_in(repository, digest)?.is_empty())
    }

    /// Forgets what belongs to a repository, or one object of it.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn unlink(&self, repository: &Repository, digest: Option<&Digest>) -> Result<()> {
        self.write(Durability::Immediate, |txn| {
            let mut links = txn.open_table(LINKS)?;
            if let Some(digest) = digest {
                links.remove(link_key(repository, digest).as_str())?;
                return Ok(());
            }
            let start = link_prefix(repository);
            links.retain(|key, _| !key.starts_with(&start))?;
            Ok(())
        })
    }

    /// Every link: repository as text, digest, link.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn all_links(&self) -> Result<Vec<(String, Digest, Link)>> {
        self.read(|txn| {
            let mut found = Vec::new();
            for entry in txn.open_table(LINKS)?.iter()? {
                let (key, link) = entry?;
                if let Some((repository, digest)) = key.value().split_once('@')
                    && let Ok(digest) = digest.parse()
                {
                    let link = serde_json::from_slice(link.value())?;
                    found.push((repository.to_owned(), digest, link));
                }
            }
            Ok(found)
        })
    }

    /// Whether a place has given something of a repository to everybody, and has not taken it back.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn is_open_at(&self, repository: &Repository, place: &str) -> Result<bool> {
        Ok(!self.open_at(repository, place)?.is_empty())
    }

    /// A place has taken back what it gave of a repository to everybody. What other places gave, and what
    /// was imported, stays everybody's. Durable when it returns.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn close(&self, repository: &Repository, place: &str) -> Result<()> {
        let open = self.open_at(repository, place)?;
        if open.is_empty() {
            return Ok(());
        }
        self.write(Durability::Immediate, |txn| {
            let mut links = txn.open_table(LINKS)?;
            for key in open {
                if let Some(link) = get::<Link>(&links, &key)?.filter(|link| link.place == place) {
                    let closed = Link {
                        open: false,
                        ..link
                    };
                    set(&mut links, &key, &closed)?;
                }
            }
            Ok(())
        })
    }

    /// The keys of what a place has given of a repository to everybody.
    fn open_at(&self, repository: &Repository, place: &str) -> Result<Vec<String>> {
        let start = link_prefix(repository);
        self.read(|txn| {
            let mut found = Vec::new();
            for entry in txn.open_table(LINKS)?.range(start.as_str()..)? {
                let (key, link) = entry?;
                if !key.value().starts_with(&start) {
                    break;
                }
                let link: Link = serde_json::from_slice(link.value())?;
                if link.open && link.place == place {
                    found.push(key.value().to_owned());
                }
            }
            Ok(found)
        })
    }

    /// Pins an image by its name, or takes the pin away. True where that changed something.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn set_pin(&self, name: &str, pin: Option<&Pin>) -> Result<bool> {
        self.write(Durability::Immediate, |txn| {
            let mut pins = txn.open_table(PINS)?;
            let before = match pin {
                Some(pin) => pins
                    .insert(name, serde_json::to_vec(pin)?.as_slice())?
                    .map(|before| before.value().to_vec()),
                None => pins.remove(name)?.map(|before| before.value().to_vec()),
            };
            let after = pin.map(serde_json::to_vec).transpose()?;
            Ok(before != after)
        })
    }

    /// All pins.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn pins(&self) -> Result<Vec<(String, Pin)>> {
        self.read(|txn| {
            let mut found = Vec::new();
            for entry in txn.open_table(PINS)?.iter()? {
                let (name, pin) = entry?;
                found.push((
                    name.value().to_owned(),
                    serde_json::from_slice(pin.value())?,
                ));
            }
            Ok(found)
        })
    }
}
