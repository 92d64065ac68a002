//! Where change streams come from: opening one behind a place, asking whether a place is still known, and writing the
//! small documents (*openings*) by which the end of the log is found.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actors::event_store::StoreError;
use actors::log::{LogError, LogId};
use futures_util::StreamExt;
use mongodb::bson::{Document, doc, serialize_to_bson};
use mongodb::error::{Error, ErrorKind};
use mongodb::options::{IndexOptions, ReadConcern};
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use mongodb::{Collection, Database, IndexModel};
use uuid::Uuid;

use super::super::error::store_error;
use super::super::lookup::Lookup;
use super::super::server::{Failed, Server};
use super::event;
use super::place::{Place, Time, Witness};

/// Most events of a page. A server may give so many of any size at once.
pub(super) const PAGE_EVENTS_MAX: u32 = 256;
/// How long the server waits for an event before it says that there is none. It is alive as long as it says that.
pub(super) const AWAIT: Duration = Duration::from_secs(1);
/// Each document written by somebody who follows from now on, or after a long silence.
pub(super) const OPENINGS: &str = "openings";
/// An opening is needed while it is the newest event that a saved position knows: until there are others, which come
/// every few minutes as long as docket runs.
const OPENING_KEPT: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// The server's words for: the place cannot be found (any more).
const POSITION_LOST: [i32; 4] = [260, 280, 286, 40_647];

/// The order service's database, as the log needs it.
#[derive(Debug)]
pub(in crate::mongo) struct Source {
    pub(super) log: LogId,
    server: Server,
    database: Database,
    lookup: Arc<Lookup>,
    openings: Collection<Document>,
    streams: AtomicUsize,
}

/// Why a change stream ended.
#[derive(Clone, Debug)]
pub(super) enum Broken {
    /// The place cannot be found.
    Lost(String),
    /// These are not the collections any more in which the place was.
    Replaced(String),
    /// The server cannot be asked, or not now.
    Store(StoreError),
}

impl From<Failed> for Broken {
    fn from(failed: Failed) -> Self {
        Self::Store(failed.into_error())
    }
}

impl From<Broken> for LogError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Lost(why) | Broken::Replaced(why) => Self::NoPosition(why),
            Broken::Store(error) => Self::Store(error),
        }
    }
}

impl Broken {
    fn of(error: &Error) -> Self {
        if let ErrorKind::Command(said) = &*error.kind
            && POSITION_LOST.contains(&said.code)
        {
            return Self::Lost(format!("MongoDB says: {} ({} {})", said.message, said.code, said.code_name));
        }
        Self::Store(store_error(error))
    }
}

/// An opening that was written.
pub(super) struct Written {
    pub(super) id: Uuid,
    /// A time at which it was in the server's log. A server that is no member of a replica set says none.
    pub(super) by: Option<Time>,
}

/// A command that writes says inside of its answer that it did not.
fn refusal(said: &Document) -> Result<(), Broken> {
    let refused = ["writeErrors", "writeConcernError"].into_iter().find_map(|name| said.get(name));
    match refused {
        Some(why) => Err(Broken::Store(StoreError::Away(format!("MongoDB did not write an opening: {why}")))),
        None => Ok(()),
    }
}

/// Counts a change stream while it is open.
#[derive(Debug)]
pub(super) struct Counted(Arc<Source>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Source {
    pub(in crate::mongo) fn new(server: Server, database: Database, lookup: Arc<Lookup>, log: LogId) -> Self {
        let openings = database.collection(OPENINGS);
        Self { log, server, database, lookup, openings, streams: AtomicUsize::new(0) }
    }

    /// How many change streams are open.
    pub(super) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    pub(super) fn counted(self: &Arc<Self>) -> Counted {
        self.streams.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(self))
    }

    /// A change stream behind a place, or from some moment between the call and its answer. It does not resume by
    /// itself, as the driver's own would: from a time, as long as it has seen no event.
    pub(super) async fn watch(&self, behind: Option<&Place>, page: u32) -> Result<RawBatchCursor, Broken> {
        let watched = behind.map_or_else(Document::new, |place| doc! { "resumeAfter": place.token.document() });
        let stages = [doc! { "$changeStream": watched }, doc! { "$match": event::told() }];
        let aggregate = self.database.aggregate(stages).batch_size(page).max_await_time(AWAIT);
        // The server's own words matter here, which a port's error does not have.
        let answered = self.server.answer(async { Ok(aggregate.batch().await) }).await?;
        answered.map_err(|error| Broken::of(&error))
    }

    /// The next page of a change stream. The server may take [`AWAIT`] of its own accord.
    pub(super) async fn page(&self, cursor: &mut RawBatchCursor) -> Result<RawBatch, Broken> {
        let within = self.server.answer_within() + AWAIT;
        let away = |why: String| Broken::Store(StoreError::Away(why));
        match tokio::time::timeout(within, cursor.next()).await {
            Ok(Some(page)) => page.map_err(|error| Broken::of(&error)),
            Ok(None) => Err(away("MongoDB closed the change stream".to_owned())),
            Err(_) => Err(away(format!("MongoDB did not answer within {} ms", within.as_millis()))),
        }
    }

    /// How long an operation may take.
    pub(super) fn answer_within(&self) -> Duration {
        self.server.answer_within()
    }

    /// How long there may be no event.
    pub(super) fn quiet_max(&self) -> Duration {
        self.server.quiet_max()
    }

    /// Whether the server knows a place, and with it everything behind it.
    pub(super) async fn knows(&self, place: &Place) -> Result<(), Broken> {
        self.watch(Some(place), 1).await.map(drop)
    }

    /// Whether the store has what was inserted at a place. Linearizable: else a member that was primary until a moment
    /// ago could miss what is there. An opening that is absent may just have been deleted for its age; nobody deletes
    /// commits.
    pub(super) async fn has(&self, witness: &Witness) -> Result<(), Broken> {
        let absent = || format!("the store does not have {witness}");
        match witness {
            Witness::Commit(key, id) => {
                let there = self.lookup.commit_at(*key).await.map_err(Broken::Store)? == Some(*id);
                there.then_some(()).ok_or_else(|| Broken::Replaced(absent()))
            }
            Witness::Opening(id) => {
                let found = self.openings.find_one(doc! { "_id": id.to_string() });
                let found = found.read_concern(ReadConcern::linearizable()).max_time(self.server.answer_within());
                let there = self.server.answer(found).await?.is_some();
                there.then_some(()).ok_or_else(|| Broken::Lost(absent()))
            }
        }
    }

    /// Writes an opening. Its event comes behind the events of everything that was acknowledged before the call. The
    /// time is the server's, which also deletes by it: a process whose clock is wrong would lose its openings at once.
    pub(super) async fn write_opening(&self) -> Result<Written, Broken> {
        let id = Uuid::now_v7();
        let dated = doc! { "$currentDate": { "at": true } };
        let upsert = doc! { "q": { "_id": id.to_string() }, "u": dated, "upsert": true };
        // As a command: its answer says the time.
        let concern = serialize_to_bson(&self.server.durable()).map_err(|error| Broken::of(&error.into()))?;
        let write = doc! { "update": OPENINGS, "updates": [upsert], "writeConcern": concern };
        let said = self.server.answer(self.database.run_command(write)).await?;
        refusal(&said)?;
        Ok(Written { id, by: said.get_timestamp("operationTime").ok().map(Time::from) })
    }

    /// Lets the server delete openings that nobody needs any more.
    pub(super) async fn make_index(&self) -> Result<(), Broken> {
        let options = IndexOptions::builder().expire_after(OPENING_KEPT).build();
        let index = IndexModel::builder().keys(doc! { "at": 1 }).options(options).build();
        self.server.answer(self.openings.create_index(index)).await?;
        Ok(())
    }
}
