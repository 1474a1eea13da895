//! The sources of a blob: which is opened next, and which are of no use any more.

use std::sync::Arc;

use futures_util::StreamExt;
use tokio::time::Instant;

use super::wanted::Wanted;
use super::{BACKOFF, Fetch, Open, PROGRESS_TIMEOUT, SHARED};
use crate::upstream::{BlobBody, Failure, Failures};

impl Fetch {
    /// Opens the next source that can go on, waiting where none can at the moment.
    pub(super) async fn reopen(&mut self) -> Result<(), Failures> {
        loop {
            if self.try_all().await {
                return Ok(());
            }
            let is_hopeless = self.ruled_out.iter().all(|out| *out);
            if is_hopeless || !self.arrived || self.last_progress.elapsed() > PROGRESS_TIMEOUT {
                return Err(self.failures.clone());
            }
            self.idle_rounds = self.idle_rounds.saturating_add(1);
            self.fruitless.fill(false);
            tokio::time::sleep(BACKOFF.pause(self.idle_rounds)).await;
        }
    }

    /// Opens the next source that can go on. False where none can at the moment.
    pub(super) async fn try_all(&mut self) -> bool {
        let count = self.ruled_out.len();
        // Those whose circuit is open come last: they may be back.
        for with_silent in [false, true] {
            for step in 0..count {
                let source = (self.preferred + step) % count;
                let is_out = self.ruled_out.get(source).copied().unwrap_or(true);
                let had_its_turn = self.fruitless.get(source).copied().unwrap_or(true);
                if is_out || had_its_turn || self.wanted.is_silent(source) != with_silent {
                    continue;
                }
                match self.try_open(source).await {
                    Ok(open) => {
                        self.open = Some(open);
                        return true;
                    }
                    Err(failure) => self.note(source, failure),
                }
            }
        }
        false
    }

    fn note(&mut self, source: usize, failure: Failure) {
        match &failure {
            // These may pass by themselves.
            Failure::Silent(_) | Failure::RateLimited(_) if self.arrived => {}
            _ => self.rule_out(source),
        }
        if source > 0 {
            self.failures.note(&self.name(source), failure);
        }
    }

    pub(super) fn rule_out(&mut self, source: usize) {
        if let Some(out) = self.ruled_out.get_mut(source) {
            *out = true;
        }
    }

    pub(super) fn name(&self, source: usize) -> String {
        self.wanted
            .place(source)
            .map_or_else(|| SHARED.to_owned(), |place| place.name.clone())
    }

    async fn try_open(&mut self, source: usize) -> Result<Open, Failure> {
        let wanted = Arc::clone(&self.wanted);
        let Some(place) = wanted.place(source) else {
            return self.open_shared(&wanted, source).await;
        };
        let queued = Instant::now();
        let host = place.endpoint.domain();
        let turn = match self.turn.take().filter(|turn| turn.host == host) {
            Some(turn) => Some(turn),
            None if self.is_further => wanted.limits.acquire_further(host).await,
            None => wanted.limits.acquire(host).await,
        };
        // Waiting for a turn is nobody's silence.
        self.last_progress += queued.elapsed();
        self.last_heard += queued.elapsed();
        if wanted.liars.is_one(&place.name, &wanted.digest) {
            let wrong = "sent other bytes than asked for a moment ago".to_owned();
            return Err(Failure::Wrong(wrong));
        }
        let (digest, asker) = (&wanted.digest, &wanted.asker);
        let body = wanted
            .upstream
            .get_blob(place, digest, self.at, self.end, asker)
            .await?;
        if self.parts_only && !body.is_part {
            return Err(Failure::Wrong("gives only the whole blob".to_owned()));
        }
        if body.start > self.at {
            return Err(Failure::Wrong(format!(
                "asked for byte {} on and sent byte {} on",
                self.at, body.start
            )));
        }
        if let (Some(known), Some(total)) = (self.total, body.total)
            && known != total
        {
            return Err(Failure::Wrong(format!(
                "says that the blob has {total} bytes, and another source {known}"
            )));
        }
        if let Some(total) = body.total {
            if total < self.at {
                let says = format!("says that it has {total} bytes");
                return Err(match self.wanted.size {
                    // A page, as of a proxy that wants a login: it says nothing of the blob.
                    Some(known) if known != total => Failure::Wrong(says),
                    _ => Failure::Shorter(says),
                });
            }
            self.total = Some(total);
        }
        if let Some(named) = &body.digest
            && named != digest
        {
            tracing::warn!(
                "{} names {} in its header when asked for {digest}; what counts is the content",
                place.name,
                named.short()
            );
        }
        // A source that has answered has it: where it breaks off, it is worth another try.
        self.arrived = true;
        Ok(Open {
            source,
            skip: self.at - body.start,
            body,
            is_fruitful: false,
            _turn: turn,
        })
    }

    async fn open_shared(&mut self, wanted: &Wanted, source: usize) -> Result<Open, Failure> {
        let Some(shared) = &wanted.shared else {
            return Err(Failure::NotFound);
        };
        let found = shared.read(&wanted.digest, self.at, self.end).await?;
        let found = found.ok_or(Failure::NotFound)?;
        let total = found.total;
        // Not one byte of that is worth fetching. Which of the two is wrong only the content can say: what a
        // manifest says deletes nothing that others wrote.
        let known = self.total.or(wanted.size);
        if known.is_some_and(|known| known != total) {
            return Err(Failure::Wrong(format!("has {total} bytes of it")));
        }
        self.total = Some(total);
        let body = found
            .bytes
            .map(|chunk| chunk.map_err(|error| error.to_string()));
        Ok(Open {
            source,
            skip: 0,
            body: BlobBody {
                start: self.at,
                is_part: true,
                total: Some(total),
                digest: None,
                body: body.boxed(),
            },
            is_fruitful: false,
            _turn: None,
        })
    }
}
