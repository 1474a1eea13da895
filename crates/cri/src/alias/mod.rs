//! What a name was last pulled as, so that the runtime can be asked for it by one call, after a
//! restart and after the registry it came from has left the config.
//!
//! [`Aliases`] is the map; `journal` is the small file behind it. The file is a help, not a truth:
//! without it a name is still looked for as every candidate of its plan.

mod journal;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use journal::MAX_ALIASES;
use journal::{Journal, Record};
use parking_lot::Mutex;
use policy::Reference;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::runtime_name::stored_name;

/// From a canonical name to what the runtime knows the image as. Cheap to clone; clones share all.
#[derive(Clone, Debug, Default)]
pub struct Aliases {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    map: Mutex<Map>,
    /// The file, and the records that still have to get there, in order.
    journal: Mutex<Option<Journal>>,
    pending: Mutex<Vec<Record>>,
    /// The process that has the file now, while this one's last calls end.
    successor: Mutex<Option<UnboundedSender<Learned>>>,
}

/// What a call has taught about one name, on its way to the process that has the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// The name, canonical.
    pub name: String,
    /// What it was pulled as; `None` is: as it was written.
    pub image: Option<String>,
}

#[derive(Debug, Default)]
struct Map {
    images: HashMap<String, Entry>,
    /// The other way round, by the name that the runtime keeps the image under: each answer that names images is looked
    /// up in it.
    names: HashMap<String, Vec<String>>,
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    image: String,
    /// When it was last written, in calls: the oldest goes first when the map is full.
    written: u64,
}

/// What opening the file has shown; for the log.
#[derive(Debug)]
pub enum Opened {
    /// So many aliases were read.
    Read(usize),
    /// So many were read, and so many lines could not be.
    Damaged {
        /// Aliases that were read.
        read: usize,
        /// Lines that were left out.
        lost: usize,
    },
    /// The file can't be used; aliases live as long as the process.
    Unusable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl Aliases {
    /// Reads the file in `dir`, making both where they are missing. Whatever is wrong with them,
    /// the map works; [`Opened`] says what to tell the operator.
    pub fn open(dir: &Path) -> (Self, Opened) {
        let aliases = Self::default();
        let opened = aliases.open_later(dir);
        (aliases, opened)
    }

    /// Reads the file in `dir` into a map that has none yet, as [`Self::open`] does.
    pub fn open_later(&self, dir: &Path) -> Opened {
        match self.read(dir) {
            Ok((read, 0)) => Opened::Read(read),
            Ok((read, lost)) => Opened::Damaged { read, lost },
            Err((path, error)) => Opened::Unusable { path, error },
        }
    }

    /// Writes what is pending and lets go of the file, since another process takes it over. What is learnt from now on
    /// comes out of the receiver, for that process. Blocks on the disk.
    pub fn give_up(&self) -> UnboundedReceiver<Learned> {
        let (sender, receiver) = unbounded_channel();
        *self.inner.successor.lock() = Some(sender);
        // What can't be written is lost, as it would be at a restart: names are still found as candidates.
        let _ = self.save();
        *self.inner.journal.lock() = None;
        receiver
    }

    /// Lets the receiver of [`Self::give_up`] end: nothing more will be learnt.
    pub fn forget_successor(&self) {
        *self.inner.successor.lock() = None;
    }

    /// Takes the file in `dir` back, since the other process has not taken it over. It is written whole. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// The file can't be used; aliases live as long as the process.
    pub fn take_back(&self, dir: &Path) -> Result<(), (PathBuf, io::Error)> {
        let mut opened = self.inner.journal.lock();
        let (mut journal, ..) = Journal::open(dir)?;
        *self.inner.successor.lock() = None;
        self.inner.pending.lock().clear();
        journal
            .rewrite(&self.live())
            .map_err(|error| (dir.to_owned(), error))?;
        *opened = Some(journal);
        Ok(())
    }

    /// Notes what the process before this one has still learnt. True when that is news, and [`Self::save`] is due.
    pub fn learn(&self, learned: &Learned) -> bool {
        match &learned.image {
            Some(image) => self.set(&learned.name, image),
            None => self.remove(&learned.name),
        }
    }

    /// How many aliases the file had, and how many of its lines could not be read. It is left without
    /// history, which would otherwise grow from start to start.
    fn read(&self, dir: &Path) -> Result<(usize, usize), (PathBuf, io::Error)> {
        let (mut journal, records, lost) = Journal::open(dir)?;
        for record in records {
            self.apply(record);
        }
        let live = self.live();
        journal.compact(&live)?;
        *self.inner.journal.lock() = Some(journal);
        Ok((live.len(), lost))
    }

    /// What `name` (canonical) was last pulled as.
    pub fn get(&self, name: &str) -> Option<String> {
        self.inner
            .map
            .lock()
            .images
            .get(name)
            .map(|entry| entry.image.clone())
    }

    /// The names that were pulled as what the runtime keeps under `stored`; oldest first.
    pub fn names_of(&self, stored: &str) -> Vec<String> {
        let map = self.inner.map.lock();
        map.names.get(stored).cloned().unwrap_or_default()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.inner.map.lock().images.is_empty()
    }

    /// Remembers that `name` was pulled as `image`. True when that is news, and [`Self::save`] is due.
    pub fn set(&self, name: &str, image: &str) -> bool {
        if self.get(name).as_deref() == Some(image) {
            return false;
        }
        self.record(Record {
            name: name.to_owned(),
            image: Some(image.to_owned()),
        });
        true
    }

    /// Forgets `name`. True when it was known, and [`Self::save`] is due.
    pub fn remove(&self, name: &str) -> bool {
        if self.get(name).is_none() {
            return false;
        }
        self.record(Record {
            name: name.to_owned(),
            image: None,
        });
        true
    }

    /// Writes what is pending. Blocks on the disk: for a thread that may.
    ///
    /// # Errors
    /// When the file can't be written; the records stay pending for the next call.
    pub fn save(&self) -> io::Result<()> {
        let mut journal = self.inner.journal.lock();
        let Some(journal) = journal.as_mut() else {
            self.inner.pending.lock().clear();
            return Ok(());
        };
        let records = std::mem::take(&mut *self.inner.pending.lock());
        if records.is_empty() {
            return Ok(());
        }
        let written = if journal.wants_rewrite(records.len()) {
            journal.rewrite(&self.live())
        } else {
            journal.append(&records)
        };
        if written.is_err() {
            self.inner.pending.lock().splice(0..0, records);
        }
        written
    }

    fn record(&self, record: Record) {
        self.apply(record.clone());
        // Held to the end: nothing may become pending after the file was given up.
        let successor = self.inner.successor.lock();
        if let Some(successor) = &*successor {
            // It is gone where this fails, and the file with it.
            let _ = successor.send(Learned {
                name: record.name,
                image: record.image,
            });
            return;
        }
        let mut pending = self.inner.pending.lock();
        // A disk that stays full must not fill the memory too; the next rewrite has it all anyway.
        if pending.len() < MAX_ALIASES {
            pending.push(record);
        }
    }

    fn apply(&self, record: Record) {
        let mut map = self.inner.map.lock();
        map.forget(&record.name);
        let Some(image) = record.image else {
            return;
        };
        map.clock += 1;
        let written = map.clock;
        map.note(&record.name, &image);
        map.images.insert(record.name, Entry { image, written });
        if map.images.len() > MAX_ALIASES {
            // A tenth at once, so that the search for the oldest is rare.
            let mut ages: Vec<u64> = map.images.values().map(|entry| entry.written).collect();
            ages.sort_unstable();
            let limit = ages.get(MAX_ALIASES / 10).copied().unwrap_or(0);
            let old = map
                .images
                .iter()
                .filter(|(_, entry)| entry.written <= limit);
            let old: Vec<String> = old.map(|(name, _)| name.clone()).collect();
            for name in old {
                map.forget(&name);
            }
        }
    }

    /// Everything, oldest first.
    fn live(&self) -> Vec<Record> {
        let map = self.inner.map.lock();
        let mut live: Vec<_> = map.images.iter().collect();
        live.sort_by_key(|(_, entry)| entry.written);
        live.into_iter()
            .map(|(name, entry)| Record {
                name: name.clone(),
                image: Some(entry.image.clone()),
            })
            .collect()
    }
}

impl Map {
    /// Notes the way back, where the runtime's name for `image` can be told.
    fn note(&mut self, name: &str, image: &str) {
        if let Ok(image) = Reference::parse(image) {
            let names = self.names.entry(stored_name(&image)).or_default();
            names.push(name.to_owned());
        }
    }

    fn forget(&mut self, name: &str) {
        let Some(entry) = self.images.remove(name) else {
            return;
        };
        let Ok(image) = Reference::parse(&entry.image) else {
            return;
        };
        let stored = stored_name(&image);
        if let Some(names) = self.names.get_mut(&stored) {
            names.retain(|known| known != name);
            if names.is_empty() {
                self.names.remove(&stored);
            }
        }
    }
}

#[cfg(test)]
mod tests;
