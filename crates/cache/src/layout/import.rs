//! From a tar into the store: everything verified, and nothing has a name before all of it is there.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::path::{Component, Path};

use super::names::{Name, name_of};
use super::{Descriptor, INDEX, Index, LayoutError, MARK, Mark, Progress};
use crate::digest::{Algorithm, Digest};
use crate::index::ImportedImage;
use crate::manifest::{Kind, MAX_MANIFEST, Parsed, parse};
use crate::storage::{Held, Storage, TakenIn};

/// An image that is in the store now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// `host/repository:tag`, or `host/repository@digest` where it has no tag.
    pub name: String,
    /// Bytes of all that it consists of.
    pub bytes: u64,
    /// Platforms that came with it, where it is an index.
    pub platforms: Vec<String>,
}

/// Brings the images of a layout into the store. `given` is what an image is called that has no name in
/// the layout. What was stored when it fails stays for the next try, and goes first when room is needed.
///
/// # Errors
/// [`LayoutError`]; no image has a name then that it had not before.
pub fn import(
    storage: &Storage,
    from: impl Read,
    given: Option<&str>,
    progress: &mut Progress<'_>,
) -> Result<Vec<Imported>, LayoutError> {
    let mut held = storage.holding_nothing();
    let content = read(storage, from, &mut held, progress)?;
    let Some(index) = content.index else {
        let why = "it is no OCI image layout: it has no index.json (`docker save` writes one since Docker 25)";
        return Err(match content.cut_off {
            Some(bytes) => LayoutError::CutOff(bytes),
            None => LayoutError::Wrong(why.to_owned()),
        });
    };
    let images = images(storage, &content.blobs, &index, given);
    let images = images.map_err(|error| match (error, content.cut_off) {
        (LayoutError::Wrong(why), Some(bytes)) => {
            let why =
                format!("{why}; the archive has no end: it may be cut off after {bytes} bytes; copy it again");
            LayoutError::Wrong(why)
        }
        (error, _) => error,
    })?;
    storage.adopt(
        &images
            .iter()
            .map(|(image, _)| image.clone())
            .collect::<Vec<_>>(),
    )?;
    Ok(images.into_iter().map(|(_, imported)| imported).collect())
}

/// What was in the archive.
#[derive(Default)]
struct Content {
    index: Option<Index>,
    /// Blobs that are in the store now, with their lengths.
    blobs: HashMap<Digest, u64>,
    /// So many bytes came, and no mark of the archive's end. Not every program writes one.
    cut_off: Option<u64>,
}

fn read(
    storage: &Storage,
    mut from: impl Read,
    held: &mut Held<'_>,
    progress: &mut Progress<'_>,
) -> Result<Content, LayoutError> {
    let mut head = Vec::new();
    from.by_ref()
        .take(8)
        .read_to_end(&mut head)
        .map_err(LayoutError::Read)?;
    if let Some(program) = compressed_by(&head) {
        let why = format!("the archive is compressed; decompress it first, with `{program}`");
        return Err(LayoutError::Wrong(why));
    }
    if head.is_empty() {
        return Err(LayoutError::NoArchive("it is empty"));
    }
    let source = Source::default();
    let watched = Watched {
        from: head.as_slice().chain(from),
        progress,
        source: &source,
    };
    let unreadable = |_| source.problem();
    let mut archive = tar::Archive::new(watched);
    let mut content = Content::default();
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        source.is_archive.set(true);
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let size = entry.size();
        let path = entry.path().map_err(unreadable)?.into_owned();
        match part(&path) {
            Some(Part::Mark) => {
                let mark: Mark = json(&mut entry, size, MARK, &source)?;
                if !mark.image_layout_version.starts_with("1.") {
                    let version = policy::text::one_line(&mark.image_layout_version, 40);
                    let why =
                        format!("an image layout of version {version} is not known; 1.0.0 is");
                    return Err(LayoutError::Wrong(why));
                }
            }
            Some(Part::Index) => content.index = Some(json(&mut entry, size, INDEX, &source)?),
            Some(Part::Blob(digest)) => {
                held.add(&digest);
                let mut blob = Blob {
                    from: &mut entry,
                    left: size,
                    is_broken: false,
                };
                let taken = storage.take_in(&digest, size, &mut blob);
                if blob.is_broken {
                    return Err(source.problem());
                }
                match taken? {
                    TakenIn::Stored => content.blobs.insert(digest, size),
                    TakenIn::Damaged => return Err(LayoutError::Damaged(digest)),
                    TakenIn::NoRoom => return Err(LayoutError::NoRoom(digest, size)),
                };
            }
            None => {}
        }
    }
    content.cut_off = source.has_ended.get().then(|| source.bytes.get());
    Ok(content)
}

fn compressed_by(head: &[u8]) -> Option<&'static str> {
    let programs: [(&[u8], &str); 4] = [
        (&[0x1f, 0x8b], "gunzip"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "unzstd"),
        (&[0xfd, b'7', b'z', b'X', b'Z'], "unxz"),
        (b"BZh", "bunzip2"),
    ];
    let known = programs
        .into_iter()
        .find(|(mark, _)| head.starts_with(mark));
    known.map(|(_, program)| program)
}

/// What an entry of the archive is.
enum Part {
    Mark,
    Index,
    Blob(Digest),
}

fn part(path: &Path) -> Option<Part> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str()?),
            Component::CurDir => {}
            _ => return None,
        }
    }
    match names.as_slice() {
        [MARK] => Some(Part::Mark),
        [INDEX] => Some(Part::Index),
        ["blobs", algorithm, hex] => {
            let mut known = Algorithm::ALL.into_iter();
            let algorithm = known.find(|known| known.name() == *algorithm)?;
            Some(Part::Blob(Digest::from_parts(algorithm, hex).ok()?))
        }
        _ => None,
    }
}

fn json<T: serde::de::DeserializeOwned>(
    entry: &mut impl Read,
    size: u64,
    name: &str,
    source: &Source,
) -> Result<T, LayoutError> {
    if size > MAX_MANIFEST as u64 {
        let why = format!("{name} of the layout is larger than {MAX_MANIFEST} bytes");
        return Err(LayoutError::Wrong(why));
    }
    let mut text = Vec::new();
    let read = entry.take(MAX_MANIFEST as u64).read_to_end(&mut text);
    if read.map_err(|_| source.problem())? as u64 != size {
        return Err(source.problem());
    }
    // The parser's own words may quote what stands there.
    serde_json::from_slice(&text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let why = format!(
            "{name} of the layout can't be read: line {line}, column {column} is not as the image specification has it"
        );
        LayoutError::Wrong(why)
    })
}

/// What is known of the archive's bytes. What the tar crate says about bytes that are no tar quotes them, and they may
/// be anybody's secrets.
#[derive(Default)]
struct Source {
    bytes: Cell<u64>,
    has_ended: Cell<bool>,
    /// Why the next byte could not be read.
    broken: Cell<Option<io::Error>>,
    /// Whether nobody waits for it any more.
    is_unwanted: Cell<bool>,
    /// Whether it began as a tar does.
    is_archive: Cell<bool>,
}

impl Source {
    /// Why the archive could not be read on.
    fn problem(&self) -> LayoutError {
        let bytes = self.bytes.get();
        match (self.broken.take(), self.is_archive.get()) {
            _ if self.is_unwanted.get() => LayoutError::BrokenOff,
            (Some(error), _) => LayoutError::Read(error),
            (None, false) => LayoutError::NoArchive("it does not begin as one"),
            (None, true) if self.has_ended.get() => LayoutError::CutOff(bytes),
            (None, true) => LayoutError::Garbled(bytes),
        }
    }
}

/// Counts what is read, and ends where nobody waits for it any more.
struct Watched<'a, 'b, R> {
    from: R,
    progress: &'a mut Progress<'b>,
    source: &'a Source,
}

impl<R: Read> Read for Watched<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let source = self.source;
        let read = match self.from.read(buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                let told = io::Error::from(error.kind());
                source.broken.set(Some(error));
                return Err(told);
            }
        };
        if read == 0 && !buffer.is_empty() {
            source.has_ended.set(true);
        }
        source.bytes.set(source.bytes.get() + read as u64);
        match (self.progress)(source.bytes.get(), None) {
            true => Ok(read),
            false => {
                source.is_unwanted.set(true);
                Err(io::Error::other("broken off"))
            }
        }
    }
}

/// One entry of the archive: tells its own errors from those of the disk that it is written to.
struct Blob<'a, R> {
    from: &'a mut R,
    left: u64,
    is_broken: bool,
}

impl<R: Read> Read for Blob<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.from.read(buffer) {
            Ok(0) if self.left > 0 && !buffer.is_empty() => {
                self.is_broken = true;
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Ok(read) => {
                self.left = self.left.saturating_sub(read as u64);
                Ok(read)
            }
            Err(error) => {
                self.is_broken |= error.kind() != io::ErrorKind::Interrupted;
                Err(error)
            }
        }
    }
}

/// The images that a layout lists, of what came with it.
fn images(
    storage: &Storage,
    blobs: &HashMap<Digest, u64>,
    index: &Index,
    given: Option<&str>,
) -> Result<Vec<(ImportedImage, Imported)>, LayoutError> {
    if index.manifests.is_empty() {
        return Err(LayoutError::Wrong("the layout lists no image".to_owned()));
    }
    let mut named: HashMap<String, Digest> = HashMap::new();
    let mut images = Vec::new();
    for descriptor in &index.manifests {
        let name = name_of(descriptor, given)?;
        let shown = match &name.tag {
            Some(_) => name.to_string(),
            None => format!("{name}@{}", descriptor.digest),
        };
        match named.insert(shown.clone(), descriptor.digest.clone()) {
            Some(other) if other != descriptor.digest => {
                let why = format!(
                    "two images of the layout would be called {shown}: {} and {}",
                    other.short(),
                    descriptor.digest.short()
                );
                return Err(LayoutError::Wrong(why));
            }
            Some(_) => continue,
            None => {}
        }
        images.push(image(storage, blobs, descriptor, name, shown)?);
    }
    Ok(images)
}

fn image(
    storage: &Storage,
    blobs: &HashMap<Digest, u64>,
    descriptor: &Descriptor,
    name: Name,
    shown: String,
) -> Result<(ImportedImage, Imported), LayoutError> {
    let wrong = |why: String| LayoutError::Wrong(format!("{shown}: {why}"));
    let mut image = ImportedImage {
        repository: name.repository,
        tag: name.tag,
        root: descriptor.digest.clone(),
        manifests: Vec::new(),
        blobs: Vec::new(),
    };
    let (mut bytes, mut platforms, mut has_leaf) = (0, Vec::new(), false);
    let mut seen = HashSet::from([descriptor.digest.clone()]);
    let mut open = vec![(
        descriptor.digest.clone(),
        descriptor.size,
        descriptor.media_type.clone(),
    )];
    while let Some((digest, size, media_type)) = open.pop() {
        let Some(length) = blobs.get(&digest) else {
            return Err(wrong(format!("{digest} is not in the layout")));
        };
        same_length(&digest, size, *length).map_err(wrong)?;
        let parsed = manifest(storage, &digest, media_type.as_deref()).map_err(wrong)?;
        bytes += length;
        has_leaf |= !parsed.is_index;
        for child in &parsed.children {
            let there = blobs.get(&child.digest);
            // A layout may have some of the platforms only.
            if parsed.is_index && there.is_none() {
                continue;
            }
            if !seen.insert(child.digest.clone()) {
                continue;
            }
            if child.kind == Kind::Manifest {
                let known = child
                    .platform
                    .iter()
                    .filter(|name| *name != "unknown/unknown");
                platforms.extend(known.cloned());
                open.push((child.digest.clone(), child.size, None));
                continue;
            }
            let Some(length) = there else {
                return Err(wrong(format!("{} is not in the layout", child.digest)));
            };
            same_length(&child.digest, child.size, *length).map_err(wrong)?;
            bytes += length;
            image.blobs.push(child.digest.clone());
        }
        image.manifests.push((digest, *length, parsed));
    }
    if !has_leaf {
        return Err(wrong("none of its platforms is in the layout".to_owned()));
    }
    platforms.sort();
    platforms.dedup();
    let imported = Imported {
        name: shown,
        bytes,
        platforms,
    };
    Ok((image, imported))
}

fn same_length(digest: &Digest, named: u64, is: u64) -> Result<(), String> {
    match named == is {
        true => Ok(()),
        false => Err(format!(
            "{} has {is} bytes, and the manifest that names it says {named}",
            digest.short()
        )),
    }
}

fn manifest(
    storage: &Storage,
    digest: &Digest,
    media_type: Option<&str>,
) -> Result<Parsed, String> {
    let content = storage.disk().read_small(digest, MAX_MANIFEST);
    let content = content
        .map_err(|error| format!("{}: {error}", digest.short()))?
        .ok_or_else(|| format!("{} was deleted in the meantime", digest.short()))?;
    parse(&content, media_type)
        .map_err(|error| format!("{} is no manifest: {error}", digest.short()))
}
