//! What the cache knows about its blobs: which images they make up, which tag means which digest,
//! what belongs to which repository, and when it was used last.
//!
//! One file, by `redb`: copy-on-write with checksums, so that after a crash at any moment it is as
//! the last commit left it. What a client may have been told is committed durably before it is told;
//! what may be lost for a few seconds (when something was used) goes with the next durable commit.

mod eviction;
mod file;
pub mod records;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use redb::{
    Database, Durability, MultimapTableDefinition, ReadTransaction, ReadableDatabase,
    ReadableTable, TableDefinition, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::eviction::Evicted;
use self::file::Databases;
pub use self::records::{Link, Object, Pin, RepositoryRight, Tag, TagName};
use crate::digest::Digest;
use crate::manifest::{Kind, Parsed};
use crate::name::Repository;

/// Digest to [`Object`].
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
/// Digest to the second in which it was used last.
const USED: TableDefinition<'_, &str, u64> = TableDefinition::new("used");
/// Digest to the manifests that name it.
const PARENTS: MultimapTableDefinition<'_, &str, &str> = MultimapTableDefinition::new("parents");
/// Digest to the manifests that are about it.
const SUBJECTS: MultimapTableDefinition<'_, &str, &str> = MultimapTableDefinition::new("subjects");
/// `host/repository:tag` to [`Tag`].
const TAGS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tags");
/// `host/repository@digest` to [`Link`]: what belongs to a repository. Outlives the blobs.
const LINKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("links");
/// `host/repository` to [`RepositoryRight`].
const RIGHTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("rights");
/// What was pinned, as written, to [`Pin`].
const PINS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("pins");
/// Names to numbers: the version of all this.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

const VERSION: u64 = 1;
/// Memory for pages. The database's own default is a gigabyte.
const PAGE_CACHE: usize = 8 * 1024 * 1024;

/// Why the index can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The database failed.
    #[error("the cache's index: {0}")]
    Database(#[from] redb::Error),
    /// A record that can't be read.
    #[error("the cache's index has a record that can't be read: {0}")]
    Record(#[from] serde_json::Error),
    /// Written by a newer version.
    #[error("the cache's index is of version {0}, and this program knows version {VERSION}")]
    Version(u64),
}

impl IndexError {
    /// Whether what is in the file can't be used.
    fn is_damage(&self) -> bool {
        matches!(self, Self::Database(redb::Error::Corrupted(_)))
            || matches!(self, Self::Database(redb::Error::Io(error))
                if error.kind() == std::io::ErrorKind::InvalidData)
    }

    /// Whether the disk is the trouble, and not what is in the file.
    pub fn is_disk_trouble(&self) -> bool {
        match self {
            Self::Database(redb::Error::Io(error)) => error.raw_os_error().is_some(),
            _ => false,
        }
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for IndexError {
            fn from(error: $error) -> Self {
                Self::Database(error.into())
            }
        }
    )*};
}
from_redb!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::SetDurabilityError
);

type Result<T> = std::result::Result<T, IndexError>;

/// The index of one cache. Cheap to clone. Its calls block; a durable write waits for the disk.
#[derive(Clone)]
pub struct Index {
    databases: Arc<Databases>,
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").finish_non_exhaustive()
    }
}

/// What `put` is to note with a new object.
#[derive(Clone, Debug)]
pub struct NewObject<'a> {
    /// What it is called.
    pub digest: &'a Digest,
    /// Its length.
    pub size: u64,
    /// What was understood of it, where it is a manifest.
    pub manifest: Option<&'a Parsed>,
    /// The second it is now.
    pub now: u64,
}

impl Index {
    /// Opens the index, or makes an empty one.
    ///
    /// # Errors
    /// Where the file can't be used, is damaged, or is of a newer version.
    pub fn open(path: &Path) -> Result<Self> {
        let databases = Arc::new(Databases::open(path)?);
        Ok(Self { databases })
    }

    /// An index in memory, for a directory that can't be written to.
    ///
    /// # Errors
    /// None in practice.
    pub fn in_memory() -> Result<Self> {
        Self::in_memory_copy(&[])
    }

    /// The same, with what a file of an index holds.
    ///
    /// # Errors
    /// Where the content is damaged, or of a newer version.
    pub fn in_memory_copy(content: &[u8]) -> Result<Self> {
        let databases = Arc::new(Databases::in_memory(content)?);
        Ok(Self { databases })
    }

    fn write<T>(
        &self,
        durability: Durability,
        act: impl FnOnce(&WriteTransaction) -> Result<T>,
    ) -> Result<T> {
        self.databases.with(|database| {
            let mut txn = database.begin_write()?;
            txn.set_durability(durability)?;
            let done = act(&txn)?;
            txn.commit()?;
            Ok(done)
        })
    }

    fn read<T>(&self, act: impl FnOnce(&ReadTransaction) -> Result<T>) -> Result<T> {
        self.databases.with(|database| act(&database.begin_read()?))
    }

    // ---- objects ----

    /// Notes a blob that is in the store now. Durable when it returns.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn put(&self, new: &NewObject<'_>) -> Result<()> {
        self.write(Durability::Immediate, |txn| put(txn, new))
    }

    /// Notes a manifest that is in the store now and belongs to a repository, in one step.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn put_linked(
        &self,
        new: &NewObject<'_>,
        repository: &Repository,
        link: &Link,
    ) -> Result<()> {
        self.write(Durability::Immediate, |txn| {
            put(txn, new)?;
            put_link(txn, repository, new.digest, link)
        })
    }

    /// What is known of a blob that should be in the store.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn object(&self, digest: &Digest) -> Result<Option<Object>> {
        self.read(|txn| get(&txn.open_table(OBJECTS)?, digest.as_str()))
    }

    /// Calls `each` with every object and the second of its last use.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn for_each_object(&self, mut each: impl FnMut(Digest, Object, u64)) -> Result<()> {
        self.read(|txn| {
            let used = txn.open_table(USED)?;
            for entry in txn.open_table(OBJECTS)?.iter()? {
                let (digest, object) = entry?;
                let at = used.get(digest.value())?.map_or(0, |at| at.value());
                if let Ok(digest) = digest.value().parse() {
                    each(digest, serde_json::from_slice(object.value())?, at);
                }
            }
            Ok(())
        })
    }

    /// Takes objects out whose blobs are gone, and what hangs on their being there.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn remove(&self, digests: &[Digest]) -> Result<()> {
        self.write(Durability::Immediate, |txn| {
            for digest in digests {
                remove(txn, digest)?;
            }
            Ok(())
        })
    }

    /// Number of objects, and of bytes in them.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn totals(&self) -> Result<(u64, u64)> {
        let (mut objects, mut bytes) = (0, 0);
        self.for_each_object(|_, object, _| {
            objects += 1;
            bytes += object.size;
        })?;
        Ok((objects, bytes))
    }

    /// Number of images: manifests that no other manifest in the store names.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn image_count(&self) -> Result<u64> {
        Ok(self.roots()?.len() as u64)
    }

    /// Manifests that no other manifest in the store names.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn roots(&self) -> Result<Vec<Digest>> {
        self.read(|txn| {
            let parents = txn.open_multimap_table(PARENTS)?;
            let mut roots = Vec::new();
            for entry in txn.open_table(OBJECTS)?.iter()? {
                let (key, object) = entry?;
                let object: Object = serde_json::from_slice(object.value())?;
                if object.kind == Kind::Manifest
                    && parents.get(key.value())?.next().is_none()
                    && let Ok(digest) = key.value().parse()
                {
                    roots.push(digest);
                }
            }
            Ok(roots)
        })
    }

    /// When an object was used last, in seconds since 1970.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn used_at(&self, digest: &Digest) -> Result<u64> {
        self.read(|txn| {
            let at = txn.open_table(USED)?.get(digest.as_str())?;
            Ok(at.map_or(0, |at| at.value()))
        })
    }

    /// The manifests in the store that name this object.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn parents(&self, digest: &Digest) -> Result<Vec<Digest>> {
        self.read(|txn| {
            let parents = txn.open_multimap_table(PARENTS)?;
            collect(parents.get(digest.as_str())?)
        })
    }

    /// The manifests in the store that are about this one.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn referrers(&self, subject: &Digest) -> Result<Vec<Digest>> {
        self.read(|txn| {
            let subjects = txn.open_multimap_table(SUBJECTS)?;
            collect(subjects.get(subject.as_str())?)
        })
    }

    /// The length that a manifest in the store gives for an object that is not there yet.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn expected_size(&self, digest: &Digest) -> Result<Option<u64>> {
        for parent in self.parents(digest)? {
            if let Some(object) = self.object(&parent)?
                && let Some(child) = object.children.iter().find(|c| c.digest == *digest)
            {
                return Ok(Some(child.size));
            }
        }
        Ok(None)
    }

    /// Notes when objects were used. May be lost by a crash until the next durable write.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn used<'a>(&self, uses: impl IntoIterator<Item = (&'a Digest, u64)>) -> Result<()> {
        self.write(Durability::None, |txn| {
            let objects = txn.open_table(OBJECTS)?;
            let parents = txn.open_multimap_table(PARENTS)?;
            let mut used = txn.open_table(USED)?;
            for (digest, at) in uses {
                // A use of a layer is a use of every image that has it.
                for digest in eviction::with_ancestors(&parents, digest)? {
                    if objects.get(digest.as_str())?.is_some() {
                        used.insert(digest.as_str(), at)?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Makes everything durable that was written so far.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn flush(&self) -> Result<()> {
        self.write(Durability::Immediate, |_| Ok(()))
    }

    // ---- tags ----

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

    // ---- links and rights ----

    /// Notes that an object belongs to a repository.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn link(&self, repository: &Repository, digest: &Digest, link: &Link) -> Result<()> {
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
            let start = format!("{repository}@");
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

    /// Who may have what a repository holds.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn right(&self, repository: &Repository) -> Result<Option<RepositoryRight>> {
        self.read(|txn| get(&txn.open_table(RIGHTS)?, &repository.to_string()))
    }

    /// Notes who may have what a repository holds.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn set_right(&self, repository: &Repository, right: &RepositoryRight) -> Result<()> {
        self.write(Durability::Immediate, |txn| {
            set(&mut txn.open_table(RIGHTS)?, &repository.to_string(), right)
        })
    }

    // ---- pins ----

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

/// Makes the tables that are missing.
fn prepare(database: &Database) -> Result<()> {
    if has_tables(database)? {
        return Ok(());
    }
    let txn = database.begin_write()?;
    txn.open_table(OBJECTS)?;
    txn.open_table(USED)?;
    txn.open_multimap_table(PARENTS)?;
    txn.open_multimap_table(SUBJECTS)?;
    txn.open_table(TAGS)?;
    txn.open_table(LINKS)?;
    txn.open_table(RIGHTS)?;
    txn.open_table(PINS)?;
    txn.open_table(META)?.insert("version", VERSION)?;
    txn.commit()?;
    Ok(())
}

fn has_tables(database: &Database) -> Result<bool> {
    let txn = database.begin_read()?;
    let meta = match txn.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    match meta.get("version")?.map(|version| version.value()) {
        Some(known) if known > VERSION => Err(IndexError::Version(known)),
        known => Ok(known.is_some()),
    }
}

fn put(txn: &WriteTransaction, new: &NewObject<'_>) -> Result<()> {
    let digest = new.digest.as_str();
    let mut objects = txn.open_table(OBJECTS)?;
    // What is known to be a manifest stays one when its bytes come as a blob too.
    let known: Option<Object> = get(&objects, digest)?;
    let is_manifest = |object: &Object| object.kind == Kind::Manifest;
    if new.manifest.is_none() && known.as_ref().is_some_and(is_manifest) {
        txn.open_table(USED)?.insert(digest, new.now)?;
        return Ok(());
    }
    set(&mut objects, digest, &Object::new(new.size, new.manifest))?;
    txn.open_table(USED)?.insert(digest, new.now)?;
    if let Some(parsed) = new.manifest {
        let mut parents = txn.open_multimap_table(PARENTS)?;
        for child in &parsed.children {
            parents.insert(child.digest.as_str(), digest)?;
        }
        if let Some(subject) = &parsed.subject {
            txn.open_multimap_table(SUBJECTS)?
                .insert(subject.as_str(), digest)?;
        }
    }
    Ok(())
}

fn remove(txn: &WriteTransaction, digest: &Digest) -> Result<Option<Object>> {
    let key = digest.as_str();
    let mut objects = txn.open_table(OBJECTS)?;
    let Some(object) = get::<Object>(&objects, key)? else {
        return Ok(None);
    };
    objects.remove(key)?;
    txn.open_table(USED)?.remove(key)?;
    let mut parents = txn.open_multimap_table(PARENTS)?;
    for child in &object.children {
        parents.remove(child.digest.as_str(), key)?;
    }
    if let Some(subject) = &object.subject {
        txn.open_multimap_table(SUBJECTS)?
            .remove(subject.as_str(), key)?;
    }
    Ok(Some(object))
}

fn put_link(
    txn: &WriteTransaction,
    repository: &Repository,
    digest: &Digest,
    link: &Link,
) -> Result<()> {
    set(
        &mut txn.open_table(LINKS)?,
        &link_key(repository, digest),
        link,
    )
}

fn link_key(repository: &Repository, digest: &Digest) -> String {
    format!("{repository}@{digest}")
}

fn get<T: DeserializeOwned>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &str,
) -> Result<Option<T>> {
    let value = table.get(key)?;
    let parsed = value.map(|value| serde_json::from_slice(value.value()));
    Ok(parsed.transpose()?)
}

fn set<T: Serialize>(
    table: &mut redb::Table<'_, &'static str, &'static [u8]>,
    key: &str,
    value: &T,
) -> Result<()> {
    table.insert(key, serde_json::to_vec(value)?.as_slice())?;
    Ok(())
}

fn collect(values: redb::MultimapValue<'_, &'static str>) -> Result<Vec<Digest>> {
    let mut found = Vec::new();
    for value in values {
        if let Ok(digest) = value?.value().parse() {
            found.push(digest);
        }
    }
    Ok(found)
}
