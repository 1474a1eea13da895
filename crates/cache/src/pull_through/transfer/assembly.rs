//! The file that a blob grows in: what has been written, and hashed as far as there is no gap.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::task::{JoinError, JoinHandle};

use super::{Broken, Ended, Transfer};
use crate::digest::Hasher;
use crate::pull_through::ranges::Ranges;

/// Written to the disk at a time, and hashed.
pub(super) const WRITE_SIZE: usize = 256 * 1024;

/// How much may arrive before it is made durable and noted.
const SAVE_INTERVAL: u64 = 16 * 1024 * 1024;

/// What has arrived in one attempt.
pub(super) struct Assembly {
    pub(super) file: Arc<File>,
    pub(super) state: Mutex<Assembled>,
    saving: Mutex<Saving>,
}

/// What makes durable, beside the download, what has come so far. At the end little is left to be done then,
/// while clients wait for the last chunk.
#[derive(Default)]
struct Saving {
    running: Option<JoinHandle<io::Result<()>>>,
    /// Why it failed. A later success would not mean that everything before it is on the disk.
    failed: Option<io::Error>,
}

impl Saving {
    fn ended(&mut self, ended: Result<io::Result<()>, JoinError>) {
        let ended = ended.unwrap_or_else(|error| Err(io::Error::other(error)));
        if let Err(error) = ended {
            self.failed.get_or_insert(error);
        }
    }
}

pub(super) struct Assembled {
    pub(super) ranges: Ranges,
    pub(super) hasher: Hasher,
    pub(super) hashed: u64,
    /// Bytes that have come since what is there was saved last.
    since_saved: u64,
}

impl Assembled {
    /// Adds what was written, and hashes on as far as there is no gap.
    fn add(&mut self, file: &File, content: &[u8], offset: u64) -> io::Result<()> {
        let length = content.len() as u64;
        self.ranges.insert(offset, offset + length);
        self.since_saved += length;
        if offset == self.hashed {
            self.hasher.update(content);
            self.hashed += length;
        }
        self.catch_up(file)
    }

    /// Hashes what was written ahead, now that the gap before it is filled.
    fn catch_up(&mut self, file: &File) -> io::Result<()> {
        let end = self.ranges.reach(0);
        if self.hashed >= end {
            return Ok(());
        }
        let mut chunk = vec![0; WRITE_SIZE];
        while self.hashed < end {
            let wanted = usize::try_from(end - self.hashed).unwrap_or(WRITE_SIZE);
            let part = chunk.get_mut(..wanted.min(WRITE_SIZE)).unwrap_or_default();
            file.read_exact_at(part, self.hashed)?;
            self.hasher.update(part);
            self.hashed += part.len() as u64;
        }
        Ok(())
    }
}

impl Transfer {
    /// Opens the file; None where there is no room.
    pub(super) async fn prepare(
        &self,
        hint: Option<u64>,
        resume: bool,
    ) -> io::Result<Option<Assembly>> {
        let (storage, wanted) = (Arc::clone(&self.storage), Arc::clone(&self.wanted));
        let prepared = tokio::task::spawn_blocking(move || {
            let digest = &wanted.digest;
            if !storage.reserve_for(&wanted.repository, digest, hint.unwrap_or(0)) {
                return Ok(None);
            }
            let file = storage.disk().open_partial(digest)?;
            let mut ranges = Ranges::default();
            if resume {
                let length = file.metadata()?.len();
                let noted = storage.disk().noted_ranges(digest);
                let there = noted.iter().map(|&(start, end)| (start, end.min(length)));
                ranges = Ranges::from_pairs(&there.collect::<Vec<_>>());
            } else {
                file.set_len(0)?;
            }
            let mut assembled = Assembled {
                ranges,
                hasher: digest.hasher(),
                hashed: 0,
                since_saved: 0,
            };
            assembled.catch_up(&file)?;
            Ok(Some(Assembly {
                file: Arc::new(file),
                state: Mutex::new(assembled),
                saving: Mutex::default(),
            }))
        });
        prepared.await.map_err(io::Error::other)?
    }

    pub(super) async fn write(
        &self,
        assembly: &Arc<Assembly>,
        buffer: Vec<u8>,
        offset: u64,
    ) -> Result<Vec<u8>, Broken> {
        let storage = Arc::clone(&self.storage);
        let writing = Arc::clone(assembly);
        let written = tokio::task::spawn_blocking(move || {
            storage
                .disk()
                .write_partial(&writing.file, &buffer, offset)?;
            let mut state = writing.state.lock();
            state.add(&writing.file, &buffer, offset)?;
            Ok((buffer, state.ranges.clone(), state.since_saved))
        });
        let written = written
            .await
            .unwrap_or_else(|ended| Err(io::Error::other(ended)));
        let (buffer, ranges, since_saved) = written.map_err(Broken::Disk)?;
        self.progress
            .send_modify(|progress| progress.ranges = ranges);
        if since_saved >= SAVE_INTERVAL {
            self.save(assembly);
        }
        Ok(buffer)
    }

    /// Begins to make durable what is there, unless that is still going on from the last time.
    fn save(&self, assembly: &Assembly) {
        let mut saving = assembly.saving.lock();
        if saving.running.as_ref().is_some_and(|r| !r.is_finished()) {
            return;
        }
        let last = saving.running.take().and_then(FutureExt::now_or_never);
        if let Some(ended) = last {
            saving.ended(ended);
        }
        if saving.failed.is_some() {
            return;
        }
        let ranges = {
            let mut state = assembly.state.lock();
            state.since_saved = 0;
            state.ranges.clone()
        };
        let (storage, digest) = (Arc::clone(&self.storage), self.digest.clone());
        let file = Arc::clone(&assembly.file);
        saving.running = Some(tokio::task::spawn_blocking(move || {
            let disk = storage.disk();
            disk.save_partial(&digest, &file, ranges.pairs())
        }));
    }

    /// Waits until nothing is being saved any more. Why something could not be, where it could not.
    pub(super) async fn settle(&self, assembly: &Assembly) -> Option<io::Error> {
        let running = assembly.saving.lock().running.take();
        let ended = match running {
            Some(running) => Some(running.await),
            None => None,
        };
        let mut saving = assembly.saving.lock();
        if let Some(ended) = ended {
            saving.ended(ended);
        }
        saving.failed.take()
    }

    /// The blob's length, where what is there is the whole blob: a source may break off after the last byte,
    /// and the cache may have been killed before it made a blob of it.
    pub(super) fn whole(&self, assembly: &Assembly) -> Option<u64> {
        let state = assembly.state.lock();
        let is_whole = state.hashed > 0 && state.hasher.clone().finish() == self.digest;
        is_whole.then_some(state.hashed)
    }

    pub(super) async fn note_ranges(&self, assembly: &Arc<Assembly>) {
        let failed = self.settle(assembly).await;
        let (storage, digest) = (Arc::clone(&self.storage), self.digest.clone());
        let ranges = assembly.state.lock().ranges.clone();
        let file = Arc::clone(&assembly.file);
        let noted = tokio::task::spawn_blocking(move || {
            if ranges.pairs().is_empty() || failed.is_some() {
                storage.disk().discard_partial(&digest);
                return Ok(());
            }
            storage.disk().save_partial(&digest, &file, ranges.pairs())
        });
        // Without the note the next download begins anew.
        let _ = noted.await;
    }

    pub(super) async fn finish(
        &self,
        assembly: &Arc<Assembly>,
        total: u64,
        contributors: Vec<usize>,
    ) -> Ended {
        let failed = self.settle(assembly).await;
        let (storage, digest) = (Arc::clone(&self.storage), self.digest.clone());
        let finishing = Arc::clone(assembly);
        let finished = tokio::task::spawn_blocking(move || {
            let mut state = finishing.state.lock();
            state.catch_up(&finishing.file)?;
            if state.hashed != total || state.hasher.clone().finish() != digest {
                return Ok(false);
            }
            finishing.file.set_len(total)?;
            // The content is right, and is served from the open file, even when it can't be kept.
            let is_kept = match failed {
                Some(error) => {
                    storage.report_failure(&error);
                    false
                }
                None => storage.commit(&digest, &finishing.file, total).is_ok(),
            };
            if !is_kept {
                storage.disk().discard_partial(&digest);
            }
            Ok::<_, io::Error>(true)
        });
        match finished.await {
            Ok(Ok(true)) => {
                // Whoever reads along must know where the end is, also where no source has said it.
                self.progress
                    .send_modify(|progress| progress.total = Some(total));
                Ended::Whole
            }
            Ok(Ok(false)) => Ended::Wrong(contributors),
            Ok(Err(error)) => {
                self.storage.report_failure(&error);
                self.storage.disk().discard_partial(&self.digest);
                self.unstored()
            }
            Err(_) => self.unstored(),
        }
    }
}
