//! The log port on the change stream of the order service's database: every commit, when a majority has it, in the order
//! of the server's own log, also one that was begun before others and became visible behind them. Nothing of ours orders
//! the commits, so there is no table of positions to keep right.
//!
//! The stream is the database's, of two collections: `commits`, and `openings`, small documents that are written only for
//! their event. Who follows from now on writes one: its event lies behind everything that was acknowledged before, also in
//! a log in which nothing was ever committed, and its token can be stored. Openings are no commits, so they are not among
//! them; and a stream of the collection `commits` alone would tell nothing of them. After a silence of some minutes each
//! process writes one, and positions move over them: others fill the server's oplog, too, and a place is lost when the
//! oplog has forgotten what comes behind it.
//!
//! **A position** is a resume token, the time of its event, and its *witness*: the document whose event has this token.
//! Only tokens of events are given away, never those that a server gives between events, and no stream is ever opened at a
//! time: neither could be held against what the store has. A token by itself says nothing about the store either; one that
//! is newer than the store resumes without an error and sees nothing. Two things show that a place is in this log:
//! - The witness is still in the store. It is looked for when the stream is open, by its id, which nobody gives twice.
//! - The server knows the token. It says whether it does when a stream is opened, except of one beyond the end of its log,
//!   of which it gives nothing until it is there. So a position has the time of its event, and whoever opens a stream then
//!   writes a mark: in the log of the position, the mark's time is later. The server is asked again when the first event
//!   comes ([`tail`]).
//!
//! This is enough in every order of events:
//! - *Restored from an older copy, to the same server, data files or dump:* what was written since the copy is gone, and
//!   with it the witness of every newer position, whatever has been written in its place. A position whose witness is in
//!   the copy was given before the copy: with the data files its place in the oplog is there too, and everything behind it.
//!   With a dump the oplog goes on, and tells between the place and the restored commits that the collection was dropped.
//! - *Restored on another server:* the witness may be there, the place in the oplog is not. A MongoDB says so (280, 286),
//!   and of one beyond its end the mark does.
//! - *Dropped, renamed, written anew:* the witness is gone; if the witness is an opening, the stream tells of it.
//! - *Replaced while docket runs:* the connection breaks or the stream tells of it; every reopening begins with the
//!   witness again.
//! - *Pruned:* the server says so when a stream is opened, and is asked where a page might hide it ([`tail`]).
//!
//! What is left is a commit that was written, then lost by a restore, and written once more by a process that lived
//! through all of it, not knowing the outcome: its id is there again, at another place. So docket is stopped for a restore,
//! and one that sees it ends ([`Store::replaced`]).

mod event;
mod follower;
mod hub;
mod place;
mod ring;
mod source;
mod tail;

use std::sync::Arc;

use actors::commit::{Commit, CommitKey};
use actors::event_store::StoreError;
use actors::log::{Follow, From, Log, LogError, Position};
use actors::order::{OrderId, Version};
use async_trait::async_trait;
use mongodb::bson::{Document, doc};
use uuid::Uuid;

use self::follower::Follower;
use self::hub::Attached;
pub(super) use self::hub::Hubs;
use self::place::Place;
pub(super) use self::source::Source;
use super::event_store;
use super::store::Store;

#[async_trait]
impl Log for Store {
    async fn follow(&self, from: From) -> Result<Box<dyn Follow>, LogError> {
        let follower = match from {
            From::Now => self.follow_from_now(self.shared.hubs.open().await?).await?,
            From::Position(position) => {
                let place = self.place(&position)?;
                self.follow_from(place, self.shared.hubs.open().await?).await?
            }
        };
        Ok(Box::new(follower))
    }

    async fn scan(&self, after: Option<CommitKey>, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        let behind = after.map_or_else(Document::new, |key| doc! { "_id": { "$gt": key.to_string() } });
        self.page(behind, limit).await
    }

    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        event_store::read(self, order, from, limit).await
    }
}

impl Store {
    /// Resolves, with words, when the log shows that the store is not the one any more with which this process began: its
    /// collections were dropped or renamed, or it was restored from a copy. What any actor remembers of its order is void
    /// then, and a commit that continues it would number events that are not there: the process has to end.
    ///
    /// Keeps the change stream open, as a follower does.
    pub async fn replaced(&self) -> String {
        self.shared.hubs.replaced().await
    }

    /// How many change streams this process has open: one, and one for each follower that is far behind.
    pub fn change_streams(&self) -> usize {
        self.shared.hubs.source().streams()
    }

    fn place(&self, position: &Position) -> Result<Place, LogError> {
        if position.log != self.shared.log {
            let why = format!("it is of log {}, this is log {}", position.log.0, self.shared.log.0);
            return Err(LogError::NoPosition(why));
        }
        Place::read(position).map_err(LogError::NoPosition)
    }

    /// The ring begins before the opening was written, so the opening's event comes to it.
    async fn follow_from_now(&self, mut attached: Attached) -> Result<Follower, LogError> {
        let end = attached.hub.ring().end();
        let hubs = &self.shared.hubs;
        let opening = hubs.source().write_opening().await?.id;
        let comes = tokio::time::timeout(hubs.source().answer_within(), comes(&mut attached, opening, end));
        match comes.await {
            Ok(come) => come.map(|(number, place)| Follower::in_ring(hubs, attached, number, place)),
            Err(_) => {
                Err(StoreError::Away("what was written does not come out of the change stream".to_owned()).into())
            }
        }
    }

    async fn follow_from(&self, place: Place, attached: Attached) -> Result<Follower, LogError> {
        let in_ring = attached.hub.ring().find(&place.token).map(|(number, entry)| (number, entry.place()));
        match in_ring {
            Some((number, there)) if there == place => {
                Ok(Follower::in_ring(&self.shared.hubs, attached, number, place))
            }
            Some((_, there)) => {
                let why = format!("its event is of {}, not of {}", there.witness, place.witness);
                Err(LogError::NoPosition(why))
            }
            None => Follower::behind(&self.shared.hubs, attached, place).await,
        }
    }
}

/// Waits for an opening's event, which is the one with that number or a later one.
async fn comes(attached: &mut Attached, opening: Uuid, mut number: u64) -> Result<(u64, Place), LogError> {
    loop {
        let condition = attached.state.borrow_and_update().condition.clone();
        match attached.hub.ring().find_opening(opening, number) {
            Ok(found) => return Ok(found),
            Err(end) => number = end,
        }
        condition.passable()?;
        attached.changed().await?;
    }
}
