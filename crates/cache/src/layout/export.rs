//! From the store into a tar.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Read, Write};

use super::{
    Descriptor, IMAGE_NAME, INDEX, Index, LayoutError, MARK, Mark, Progress, REF_NAME, VERSION,
};
use crate::digest::{Digest, Hasher};
use crate::manifest::OCI_INDEX;
use crate::storage::{Storage, StorageError};

/// Written at a time.
const CHUNK: usize = 1024 * 1024;

/// What is to be exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `host/repository:tag` or `host/repository@digest`; None where only a digest was given.
    pub name: Option<String>,
    /// Its manifest or index.
    pub digest: Digest,
}

/// An image that is in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// What it is called there, or its digest.
    pub name: String,
    /// Bytes of all that it consists of.
    pub bytes: u64,
    /// The platforms that are whole in the cache, where it is an index.
    pub platforms: Vec<String>,
}

/// Writes images as an image layout. Of an index, those platforms are written that are whole in the cache.
///
/// # Errors
/// [`LayoutError`]; what has been written is of no use then.
pub fn export(
    storage: &Storage,
    wanted: &[Wanted],
    to: impl Write,
    progress: &mut Progress<'_>,
) -> Result<Vec<Exported>, LayoutError> {
    let mut held = storage.holding_nothing();
    let (mut exported, mut manifests) = (Vec::new(), Vec::new());
    let mut blobs: BTreeMap<Digest, u64> = BTreeMap::new();
    for wanted in wanted {
        held.add(&wanted.digest);
        let image = storage.index().whole(&wanted.digest)?;
        let name = wanted.name.clone();
        let name = name.unwrap_or_else(|| wanted.digest.to_string());
        if let Some(digest) = image.missing {
            return Err(LayoutError::Missing {
                image: name,
                digest,
            });
        }
        let object = storage.index().object(&wanted.digest)?;
        manifests.push(Descriptor {
            media_type: object.as_ref().and_then(|object| object.media_type.clone()),
            digest: wanted.digest.clone(),
            size: object.map_or(0, |object| object.size),
            annotations: annotations(wanted.name.as_deref()),
        });
        exported.push(Exported {
            name,
            bytes: image.blobs.values().sum(),
            platforms: image.platforms,
        });
        blobs.extend(image.blobs);
    }
    write(storage, manifests, &blobs, to, progress)?;
    Ok(exported)
}

fn annotations(name: Option<&str>) -> BTreeMap<String, String> {
    let Some(name) = name else {
        return BTreeMap::new();
    };
    let mut annotations = BTreeMap::from([(IMAGE_NAME.to_owned(), name.to_owned())]);
    let tag = name.rsplit_once(':').filter(|_| !name.contains('@'));
    if let Some((_, tag)) = tag {
        annotations.insert(REF_NAME.to_owned(), tag.to_owned());
    }
    annotations
}

fn write(
    storage: &Storage,
    manifests: Vec<Descriptor>,
    blobs: &BTreeMap<Digest, u64>,
    to: impl Write,
    progress: &mut Progress<'_>,
) -> Result<(), LayoutError> {
    let mut archive = tar::Builder::new(BufWriter::with_capacity(CHUNK, to));
    let mark = Mark {
        image_layout_version: VERSION.to_owned(),
    };
    small(&mut archive, MARK, &mark)?;
    let index = Index {
        schema_version: 2,
        media_type: Some(OCI_INDEX.to_owned()),
        manifests,
    };
    small(&mut archive, INDEX, &index)?;
    let mut done = 0;
    for (digest, size) in blobs {
        let opened = storage.disk().open_blob(digest);
        let opened = opened.map_err(StorageError::from)?;
        let Some((file, length)) = opened.filter(|(_, length)| length == size) else {
            return Err(LayoutError::DamagedHere(digest.clone()));
        };
        let mut blob = Verified {
            from: file,
            hasher: digest.hasher(),
            done,
            total: blobs.values().sum(),
            progress,
            broken: None,
        };
        let path = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        let appended = archive.append_data(&mut header(length), path, &mut blob);
        if let Some(broken) = blob.broken {
            return Err(broken);
        }
        appended.map_err(LayoutError::Write)?;
        if blob.hasher.finish() != *digest {
            return Err(LayoutError::DamagedHere(digest.clone()));
        }
        done += length;
    }
    let mut written = archive.into_inner().map_err(LayoutError::Write)?;
    written.flush().map_err(LayoutError::Write)
}

fn small(
    archive: &mut tar::Builder<impl Write>,
    name: &str,
    content: &impl serde::Serialize,
) -> Result<(), LayoutError> {
    let text = serde_json::to_vec(content).map_err(|error| LayoutError::Write(error.into()))?;
    archive
        .append_data(&mut header(text.len() as u64), name, text.as_slice())
        .map_err(LayoutError::Write)
}

/// The same images make the same archive: no times, no owners.
fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

/// A blob that is verified while it is written: tells its own errors from those of the archive.
struct Verified<'a, 'b, R> {
    from: R,
    hasher: Hasher,
    done: u64,
    total: u64,
    progress: &'a mut Progress<'b>,
    broken: Option<LayoutError>,
}

impl<R: Read> Read for Verified<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self.from.read(buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                self.broken = Some(StorageError::from(error).into());
                return Err(io::Error::other("the store can't be read"));
            }
        };
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        self.done += read as u64;
        if !(self.progress)(self.done, Some(self.total)) {
            self.broken = Some(LayoutError::BrokenOff);
            return Err(io::Error::other("broken off"));
        }
        Ok(read)
    }
}
