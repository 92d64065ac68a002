//! One change stream, from a place to the end of the log and on. It gives everything or breaks; it never goes on by
//! itself.
//!
//! A server may overtake a cursor with the pruning of its oplog and say nothing (a real MongoDB says 286, the test server
//! does not). So a page is believed only when the cursor cannot have been overtaken: the page before it reached the end
//! of the log, and only a moment ago. Otherwise the server is asked whether it still knows the place before the page,
//! which it says honestly: what is pruned is always the oldest, so if that place is there everything behind it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::event_store::StoreError;
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use uuid::Uuid;

use super::event;
use super::place::{Entry, Inserted, Place};
use super::source::{Broken, Counted, PAGE_EVENTS_MAX, Source};

/// A cursor that was not asked for so long may have been overtaken. An oplog holds more than this.
const STALLED: Duration = Duration::from_secs(4);
/// Pages that reach the end of the log without the mark that was written before them.
const PAGES_WITHOUT_MARK_MAX: u32 = 3;

/// An open change stream.
pub(super) struct Tail {
    source: Arc<Source>,
    cursor: RawBatchCursor,
    /// Behind the last event. `None` when there was no event yet and nobody has asked for what is before it.
    place: Option<Place>,
    mark: Mark,
    last: Last,
    _counted: Counted,
}

/// An opening that was written when the stream was open, so it must come.
enum Mark {
    Awaited { id: Uuid, missed: u32 },
    Seen,
}

/// The page before.
struct Last {
    asked: Instant,
    /// Whether it reached the end of the log.
    ended: bool,
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
        let mark = Mark::Awaited { id: source.write_opening().await?, missed: 0 };
        // The first page came with the cursor, in one answer.
        let last = Last { asked, ended: true };
        let counted = source.counted();
        Ok(Self { source: Arc::clone(source), cursor, place: behind, mark, last, _counted: counted })
    }

    /// Whether everything is behind it that was acknowledged before it was opened.
    pub(super) fn has_seen_mark(&self) -> bool {
        matches!(self.mark, Mark::Seen)
    }

    /// Whether the last page reached the end of the log.
    pub(super) fn is_at_end(&self) -> bool {
        self.last.ended
    }

    /// The next events, none when there is none for a while. Not to be called again after an error.
    pub(super) async fn page(&mut self) -> Result<Vec<Entry>, Broken> {
        let before = std::mem::replace(&mut self.last.asked, Instant::now());
        let batch = self.source.page(&mut self.cursor).await?;
        let entries = read(&batch)?;
        let ended = entries.len() < PAGE_EVENTS_MAX as usize;
        if !self.last.ended || before.elapsed() > STALLED {
            check(&self.source, self.place.as_ref()).await?;
        }
        self.last.ended = ended;
        self.look_for_mark(&entries)?;
        if let Some(last) = entries.last() {
            self.place = Some(last.place());
        }
        Ok(entries)
    }

    /// A place beyond the end of the log is no error to the server: it gives nothing until the log has come so far.
    fn look_for_mark(&mut self, entries: &[Entry]) -> Result<(), Broken> {
        let Mark::Awaited { id, missed } = &mut self.mark else { return Ok(()) };
        let is_mark = |entry: &Entry| matches!(entry.inserted, Inserted::Opening(opening) if opening == *id);
        if entries.iter().any(is_mark) {
            self.mark = Mark::Seen;
            return Ok(());
        }
        *missed += u32::from(self.last.ended);
        if *missed > PAGES_WITHOUT_MARK_MAX {
            return Err(Broken::Lost("what is written now does not come behind it: it is not of this log".to_owned()));
        }
        Ok(())
    }
}

/// Whether nothing between a place and the page that was read behind it was left out.
async fn check(source: &Source, before: Option<&Place>) -> Result<(), Broken> {
    match before {
        Some(place) => source.knows(place).await,
        None => Ok(()),
    }
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
