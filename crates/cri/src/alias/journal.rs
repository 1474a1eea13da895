//! The file behind the aliases: a line per change, rewritten whole when most of it is history.
//!
//! A line is `name TAB image TAB checksum`, without image where the name was forgotten. A line that
//! doesn't check out (a torn write, somebody's editor) is left out and costs that alias only.

use std::fs::{self, File, OpenOptions};
use std::hash::Hasher;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use policy::Reference;

/// Most aliases kept. A node holds some hundred images; this bounds what a hostile or broken
/// workload can make of it.
pub const MAX_ALIASES: usize = 100_000;
/// Longest file that is read: more than [`MAX_ALIASES`] twice over.
const MAX_FILE: u64 = 128 * 1024 * 1024;
const FILE: &str = "aliases";
const HEADER: &str = "# image-cri-shim aliases v1: what names were pulled as; safe to delete\n";

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: String,
    /// `None`: the name was forgotten.
    pub(super) image: Option<String>,
}

#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    lines: usize,
    live: usize,
    /// It can be appended to.
    is_clean: bool,
}

impl Journal {
    /// Opens or makes the file in `dir`: the records in their order, and how many lines were lost.
    pub(super) fn open(dir: &Path) -> Result<(Self, Vec<Record>, usize), (PathBuf, io::Error)> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| (dir.to_owned(), error))?;
        let path = dir.join(FILE);
        let fail = |error| (path.clone(), error);
        let bytes = match File::open(&path) {
            Ok(file) => {
                let mut bytes = Vec::new();
                BufReader::new(file)
                    .take(MAX_FILE)
                    .read_to_end(&mut bytes)
                    .map_err(fail)?;
                bytes
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(fail(error)),
        };
        let (records, lost) = read(&bytes);
        let journal = Self {
            file: open_for_append(&path).map_err(fail)?,
            path: path.clone(),
            lines: records.len() + lost,
            live: records.len(),
            is_clean: bytes.starts_with(HEADER.as_bytes()) && bytes.ends_with(b"\n") && lost == 0,
        };
        Ok((journal, records, lost))
    }

    /// Leaves only `live` in the file, where there is more: history of earlier starts, or what can't be read.
    /// Also gives a new file its header, and cuts off a torn last line before anything is appended to it.
    ///
    /// # Errors
    /// The file is not fit to be appended to. History that can't be removed is none.
    pub(super) fn compact(&mut self, live: &[Record]) -> Result<(), (PathBuf, io::Error)> {
        if self.is_clean && self.lines == live.len() {
            return Ok(());
        }
        match self.rewrite(live) {
            Err(error) if !self.is_clean => Err((self.path.clone(), error)),
            _ => Ok(()),
        }
    }

    /// Whether, with `more` lines, most of the file would be history.
    pub(super) fn wants_rewrite(&self, more: usize) -> bool {
        self.lines + more > 2 * self.live + 1000
    }

    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let mut text = String::new();
        for record in records {
            record.write_to(&mut text);
        }
        self.file.write_all(text.as_bytes())?;
        self.lines += records.len();
        Ok(())
    }

    /// Replaces the file: written beside it, synced, renamed. Whoever dies in between leaves the old one.
    pub(super) fn rewrite(&mut self, live: &[Record]) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut text = HEADER.to_owned();
        for record in live {
            record.write_to(&mut text);
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        self.file = open_for_append(&self.path)?;
        self.lines = live.len();
        self.live = live.len();
        self.is_clean = true;
        Ok(())
    }
}

impl Record {
    fn write_to(&self, text: &mut String) {
        let image = self.image.as_deref().unwrap_or_default();
        let sum = checksum(&self.name, image);
        text.push_str(&format!("{}\t{image}\t{sum:016x}\n", self.name));
    }

    fn read(line: &str) -> Option<Self> {
        let mut parts = line.split('\t');
        let (name, image, sum) = (parts.next()?, parts.next()?, parts.next()?);
        let sum = u64::from_str_radix(sum, 16).ok()?;
        let whole = parts.next().is_none() && sum == checksum(name, image);
        // What is read here is sent to the runtime as a name, so it must be one.
        let names =
            Reference::parse(name).is_ok() && (image.is_empty() || Reference::parse(image).is_ok());
        (whole && names).then(|| Self {
            name: name.to_owned(),
            image: (!image.is_empty()).then(|| image.to_owned()),
        })
    }
}

fn read(bytes: &[u8]) -> (Vec<Record>, usize) {
    let mut records = Vec::new();
    let mut lost = 0;
    for line in bytes.split(|byte| *byte == b'\n') {
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        match std::str::from_utf8(line).ok().and_then(Record::read) {
            Some(record) => records.push(record),
            None => lost += 1,
        }
    }
    (records, lost)
}

fn open_for_append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// FNV-1a: finds torn and edited lines. Not against anybody who can write the file as root.
fn checksum(name: &str, image: &str) -> u64 {
    struct Fnv(u64);
    impl Hasher for Fnv {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
    }
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    hasher.write(name.as_bytes());
    hasher.write(b"\t");
    hasher.write(image.as_bytes());
    hasher.finish()
}
