//! The relay's checkpoint, in the collection `relay` of the order service's database: one document, which carries the
//! lease, too. One process relays at a time, by the server's clock; what it stores is refused once another has begun.

use std::time::Duration;

use actors::checkpoint::{Begun, Checkpoint, CheckpointError, Checkpoints};
use actors::event_store::StoreError;
use actors::inbox::Term;
use async_trait::async_trait;
use mongodb::Collection;
use mongodb::bson::{DateTime, Document, doc};

use super::error;
use super::lease::{Acquired, Held, Lease, Seen};
use super::server::{Failed, Server};

const COLLECTION: &str = "relay";
const ONLY: &str = "relay";

/// Where the relay keeps its place.
pub struct MongoCheckpoints {
    server: Server,
    documents: Collection<Document>,
    lease: Lease,
}

impl MongoCheckpoints {
    /// In that database, which is the order service's. `holder` is a name that no other process has; `lease` is how long a
    /// term is its own. Nothing is asked of the server yet.
    pub fn new(server: &Server, database: &str, holder: &str, lease: Duration) -> Self {
        let documents: Collection<Document> = server.database(database).collection(COLLECTION);
        let lease = Lease::new(server, documents.clone(), ONLY, holder, lease);
        Self { server: server.clone(), documents, lease }
    }

    /// Takes the lease when it can be had.
    async fn acquire(&self) -> Result<Document, CheckpointError> {
        for _ in 0..3 {
            let free = match self.lease.look().await.map_err(failed)? {
                Seen::Free(free) => free,
                Seen::Held(held) => return Err(held_by(held)),
                Seen::Absent => {
                    self.make().await.map_err(failed)?;
                    continue;
                }
            };
            match self.lease.acquire(&free, Document::new()).await.map_err(failed)? {
                Acquired::Now(document) => return Ok(document),
                Acquired::Held(held) => return Err(held_by(held)),
                // Nothing but single writes touch the document: whoever was in the way is done in a moment.
                Acquired::Blocked | Acquired::Absent => {}
            }
        }
        Err(StoreError::Away("the relay's document is written again and again by somebody else".to_owned()).into())
    }

    /// Of several who make it at once one does.
    async fn make(&self) -> Result<(), Failed> {
        let new = doc! { "term": 0_i64, "holder": null, "until": DateTime::from_millis(0), "checkpoint": null };
        let made = self.documents.update_one(doc! { "_id": ONLY }, doc! { "$setOnInsert": new }).upsert(true);
        let made = self.server.answer(async {
            match made.await {
                Err(error) if error::is_duplicate_key(&error) => Ok(()),
                made => made.map(drop),
            }
        });
        made.await
    }
}

#[async_trait]
impl Checkpoints for MongoCheckpoints {
    async fn begin(&self) -> Result<Begun, CheckpointError> {
        let document = self.acquire().await?;
        let term = document.get_i64("term").ok().and_then(|term| u64::try_from(term).ok());
        let term = term.ok_or_else(|| StoreError::Damaged("the relay's document has no term".to_owned()))?;
        let checkpoint = document.get_str("checkpoint").ok().and_then(read);
        Ok(Begun { term: Term(term), lease: Some(self.lease.lasts()), checkpoint })
    }

    async fn save(&self, term: Term, checkpoint: Option<Checkpoint>) -> Result<bool, CheckpointError> {
        let mut fields = self.lease.kept();
        if let Some(checkpoint) = checkpoint {
            let text = serde_json::to_string(&checkpoint).map_err(|error| StoreError::Damaged(error.to_string()))?;
            fields.insert("checkpoint", doc! { "$literal": text });
        }
        let save = self.documents.update_one(self.lease.held_in(stored(term)), vec![doc! { "$set": fields }]);
        let saved = self.server.answer(save).await.map_err(failed)?;
        Ok(saved.matched_count == 1)
    }

    async fn release(&self, term: Term) -> Result<(), CheckpointError> {
        self.lease.release(stored(term)).await.map_err(failed)
    }
}

/// What nobody can read is as good as none.
fn read(text: &str) -> Option<Checkpoint> {
    let unreadable = |error: &serde_json::Error| {
        tracing::error!(%error, "the relay's checkpoint cannot be read: it begins at the end of the log");
    };
    serde_json::from_str(text).inspect_err(unreadable).ok()
}

/// No term is beyond what a document holds: then none is this one.
fn stored(term: Term) -> i64 {
    i64::try_from(term.0).unwrap_or(i64::MAX)
}

fn held_by(Held { by, ends_in }: Held) -> CheckpointError {
    CheckpointError::Held { by, ends_in }
}

fn failed(failed: Failed) -> CheckpointError {
    failed.into_error().into()
}
