//! One change stream, from a place to the end of the log and on. It gives everything or breaks; it never goes on by
//! itself.
//!
//! A server may overtake a cursor with the pruning of its oplog and say nothing (a real MongoDB says 286, the test server
//! does not). So a page is believed only when the cursor cannot have been overtaken: the page before it came close to the
//! end of the log, and only a moment ago. Otherwise the server is asked whether it still knows the place before the page,
//! which it says honestly: what is pruned is always the oldest, so if that place is there everything behind it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::event_store::StoreError;
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use uuid::Uuid;

use super::event;
use super::place::{Entry, Place};
use super::source::{Broken, Counted, PAGE_EVENTS_MAX, Source};

/// A cursor that was not asked for so long may have been overtaken. An oplog holds more than twice this.
const STALLED: Duration = Duration::from_secs(4);

/// An open change stream.
pub(super) struct Tail {
    source: Arc<Source>,
    cursor: RawBatchCursor,
    /// Behind the last event. `None` when there was no event yet and nobody has asked for what is before it.
    place: Option<Place>,
    mark: Mark,
    /// Whether the next page came with the cursor, in one answer.
    first: bool,
    has_given: bool,
    last: Last,
    _counted: Counted,
}

/// An opening that was written when the stream was open, so it must come.
struct Mark {
    id: Uuid,
    seen: bool,
}

/// The page before.
struct Last {
    asked: Instant,
    /// Whether it came close to the end of the log.
    close: bool,
}

impl Tail {
    /// Opens it behind a place, or now.
    pub(super) async fn open(source: &Arc<Source>, behind: Option<Place>) -> Result<Self, Broken> {
        let asked = Instant::now();
        let cursor = source.watch(behind.as_ref(), PAGE_EVENTS_MAX).await?;
        // Only now: if the store is replaced behind this answer, the stream sees it or breaks.
        if let Some(place) = &behind {
            source.has(&place.witness).await?;
        }
        let written = source.write_opening().await?;
        if let Some(place) = &behind
            && written.by.is_some_and(|by| by < place.time)
        {
            return Err(Broken::Lost(format!("it is beyond the end of the log: {} is later than now", place.time)));
        }
        let mark = Mark { id: written.id, seen: false };
        let last = Last { asked, close: true };
        let counted = source.counted();
        Ok(Self {
            source: Arc::clone(source),
            cursor,
            place: behind,
            mark,
            first: true,
            has_given: false,
            last,
            _counted: counted,
        })
    }

    /// Whether everything is behind it that was acknowledged before it was opened.
    pub(super) fn has_seen_mark(&self) -> bool {
        self.mark.seen
    }

    /// Whether it has given something, which it does only behind a place of this log.
    pub(super) fn has_given(&self) -> bool {
        self.has_given
    }

    /// The next events, none when there is none for a while. Not to be called again after an error.
    pub(super) async fn page(&mut self) -> Result<Vec<Entry>, Broken> {
        let first = std::mem::replace(&mut self.first, false);
        let before = self.last.asked;
        if !first {
            self.last.asked = Instant::now();
        }
        let batch = self.source.page(&mut self.cursor).await?;
        let entries = read(&batch).map_err(|broken| self.before_now(broken))?;
        // A place beyond the end of the log was no error when the stream was opened; it is one when the log is there.
        let unconfirmed = !self.has_given && !entries.is_empty();
        if !first && (!self.last.close || before.elapsed() > STALLED || unconfirmed) {
            check(&self.source, self.place.as_ref()).await?;
        }
        self.has_given |= !entries.is_empty();
        self.last.close = is_close(&batch, entries.len());
        self.mark.seen |= entries.iter().any(|entry| entry.is_opening(self.mark.id));
        if let Some(last) = entries.last() {
            self.place = Some(last.place());
        }
        Ok(entries)
    }

    /// A server may begin at what is visible, which is in the past while somebody's transaction is open. What became of
    /// the collections then is nothing to a stream that begins now.
    fn before_now(&self, broken: Broken) -> Broken {
        match broken {
            Broken::Replaced(why) if self.place.is_none() && !self.mark.seen => Broken::Store(StoreError::Away(why)),
            Broken::Replaced(_) | Broken::Lost(_) | Broken::Store(_) => broken,
        }
    }
}

/// Whether nothing between a place and the page that was read behind it was left out.
async fn check(source: &Source, before: Option<&Place>) -> Result<(), Broken> {
    match before {
        Some(place) => source.knows(place).await,
        None => Ok(()),
    }
}

/// Whether a page came close to the end of the log: it is empty, or not full and what it ends with is new. Both times are
/// the server's.
fn is_close(batch: &RawBatch, events: usize) -> bool {
    let reply = batch.as_raw_document();
    let last = batch.doc_slices().ok().and_then(|events| events.into_iter().last());
    let Some(last) = last else { return true };
    let told = last.ok().and_then(|last| last.as_document()?.get_timestamp("clusterTime").ok());
    let now = reply.get_timestamp("operationTime").ok();
    let age = now.zip(told).map(|(now, told)| Duration::from_secs(now.time.saturating_sub(told.time).into()));
    events < PAGE_EVENTS_MAX as usize && age.is_some_and(|age| age < STALLED)
}

fn read(batch: &RawBatch) -> Result<Vec<Entry>, Broken> {
    let unreadable = |error: &dyn std::fmt::Display| {
        Broken::Store(StoreError::Damaged(format!("a page of the change stream: {error}")))
    };
    let mut entries = Vec::new();
    for event in batch.doc_slices().map_err(|error| unreadable(&error))? {
        let event = event.map_err(|error| unreadable(&error))?;
        let event = event.as_document().ok_or_else(|| unreadable(&"an event is no document"))?;
        entries.push(event::entry(event)?);
    }
    Ok(entries)
}
