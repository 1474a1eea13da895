//! The tables of the database, and what is read from and written to them within one transaction.

use redb::{
    Database, MultimapTableDefinition, ReadableDatabase, ReadableTable, TableDefinition,
    WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::records::{Link, Object};
use super::{IndexError, NewObject, Result};
use crate::digest::Digest;
use crate::manifest::Kind;
use crate::name::Repository;

/// Digest to [`Object`].
pub(super) const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
/// Digest to the second in which it was used last.
pub(super) const USED: TableDefinition<'_, &str, u64> = TableDefinition::new("used");
/// Digest to the manifests that name it.
pub(super) const PARENTS: MultimapTableDefinition<'_, &str, &str> =
    MultimapTableDefinition::new("parents");
/// Digest to the manifests that are about it.
pub(super) const SUBJECTS: MultimapTableDefinition<'_, &str, &str> =
    MultimapTableDefinition::new("subjects");
/// `host/repository:tag` to [`super::Tag`].
pub(super) const TAGS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tags");
/// `host/repository@digest` to [`Link`]: what belongs to a repository. Outlives the blobs.
pub(super) const LINKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("links");
/// What was pinned, as written, to [`super::Pin`].
pub(super) const PINS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("pins");
/// Names to numbers: the version of all this.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

pub(super) const VERSION: u64 = 1;

/// Makes the tables that are missing.
pub(super) fn prepare(database: &Database) -> Result<()> {
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

pub(super) fn put(txn: &WriteTransaction, new: &NewObject<'_>) -> Result<()> {
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

pub(super) fn remove(txn: &WriteTransaction, digest: &Digest) -> Result<Option<Object>> {
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

/// Notes that an object belongs to a repository, beside what is known of that already.
pub(super) fn put_link(
    txn: &WriteTransaction,
    repository: &Repository,
    digest: &Digest,
    link: &Link,
) -> Result<()> {
    let mut links = txn.open_table(LINKS)?;
    let key = link_key(repository, digest);
    let after = match get::<Link>(&links, &key)? {
        Some(known) => known.and_now(link),
        None => Some(link.clone()),
    };
    match after {
        Some(after) => set(&mut links, &key, &after),
        None => Ok(()),
    }
}

pub(super) fn link_key(repository: &Repository, digest: &Digest) -> String {
    format!("{}{digest}", link_prefix(repository))
}

/// How the keys of all that belongs to a repository begin.
pub(super) fn link_prefix(repository: &Repository) -> String {
    format!("{repository}@")
}

pub(super) fn get<T: DeserializeOwned>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &str,
) -> Result<Option<T>> {
    let value = table.get(key)?;
    let parsed = value.map(|value| serde_json::from_slice(value.value()));
    Ok(parsed.transpose()?)
}

pub(super) fn set<T: Serialize>(
    table: &mut redb::Table<'_, &'static str, &'static [u8]>,
    key: &str,
    value: &T,
) -> Result<()> {
    table.insert(key, serde_json::to_vec(value)?.as_slice())?;
    Ok(())
}

pub(super) fn collect(values: redb::MultimapValue<'_, &'static str>) -> Result<Vec<Digest>> {
    let mut found = Vec::new();
    for value in values {
        if let Ok(digest) = value?.value().parse() {
            found.push(digest);
        }
    }
    Ok(found)
}
