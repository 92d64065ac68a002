//! The node registry: a document a process, in the order service's database. All times are the server's, so the age of a
//! beat is right whatever the processes' own clocks say.

use std::time::Duration;

use actors::clock::Timestamp;
use actors::event_store::StoreError;
use actors::nodes::{Nodes, Process, Seen};
use async_trait::async_trait;
use futures_util::TryStreamExt;
use mongodb::Collection;
use mongodb::bson::{DateTime, Document, doc};
use serde::{Deserialize, Serialize};

use super::server::{Failed, Server};
use super::store::may_be_lost;

const COLLECTION: &str = "nodes";

/// The processes that share an order service's database.
#[derive(Clone, Debug)]
pub struct MongoNodes {
    server: Server,
    nodes: Collection<Document>,
}

/// What is stored of a process, beside the server's time of its last beat (`seen_at`).
#[derive(Serialize, Deserialize)]
struct Stored {
    name: String,
    http: String,
    ops: String,
    version: String,
    roles: Vec<String>,
    #[serde(default)]
    active: Vec<String>,
    started_at: DateTime,
    heartbeat_ms: i64,
}

/// As it comes back: with its key, and the server's time when it was read.
#[derive(Deserialize)]
struct Read {
    #[serde(rename = "_id")]
    instance: String,
    #[serde(flatten)]
    stored: Stored,
    seen_at: DateTime,
    now: DateTime,
}

impl MongoNodes {
    /// The registry in that database. Nothing is asked of the server yet.
    pub fn new(server: &Server, database: &str) -> Self {
        let nodes = server.database(database).collection_with_options(COLLECTION, may_be_lost());
        Self { server: server.clone(), nodes }
    }
}

#[async_trait]
impl Nodes for MongoNodes {
    async fn beat(&self, me: &Process) -> Result<(), StoreError> {
        let stored = mongodb::bson::serialize_to_document(&Stored::from(me))
            .map_err(|error| StoreError::Damaged(error.to_string()))?;
        let beat = doc! { "$set": stored, "$currentDate": { "seen_at": true } };
        let beaten = self.nodes.update_one(doc! { "_id": &me.instance }, beat).upsert(true);
        self.server.answer(beaten).await.map_err(Failed::into_error)?;
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Seen>, StoreError> {
        let with_now = [doc! { "$addFields": { "now": "$$NOW" } }];
        let read = async { self.nodes.aggregate(with_now).with_type::<Read>().await?.try_collect::<Vec<_>>().await };
        let mut read: Vec<Seen> =
            self.server.answer(read).await.map_err(Failed::into_error)?.into_iter().map(Seen::from).collect();
        read.sort_by(|a, b| {
            let key = |seen: &Seen| (seen.process.name.clone(), seen.process.started_at);
            key(a).cmp(&key(b))
        });
        Ok(read)
    }

    async fn leave(&self, instance: &str) -> Result<(), StoreError> {
        let left = self.nodes.delete_one(doc! { "_id": instance });
        self.server.answer(left).await.map_err(Failed::into_error)?;
        Ok(())
    }

    async fn forget(&self, silent_for: Duration) -> Result<(), StoreError> {
        let ago = i64::try_from(silent_for.as_millis()).unwrap_or(i64::MAX).saturating_neg();
        let then = doc! { "$dateAdd": { "startDate": "$$NOW", "unit": "millisecond", "amount": ago } };
        let gone = self.nodes.delete_many(doc! { "$expr": { "$lt": ["$seen_at", then] } });
        self.server.answer(gone).await.map_err(Failed::into_error)?;
        Ok(())
    }
}

impl From<&Process> for Stored {
    fn from(process: &Process) -> Self {
        Self {
            name: process.name.clone(),
            http: process.http.clone(),
            ops: process.ops.clone(),
            version: process.version.clone(),
            roles: process.roles.clone(),
            active: process.active.clone(),
            started_at: DateTime::from_millis(process.started_at.as_millis()),
            heartbeat_ms: i64::try_from(process.heartbeat_ms).unwrap_or(i64::MAX),
        }
    }
}

impl From<Read> for Seen {
    fn from(Read { instance, stored, seen_at, now }: Read) -> Self {
        let silent = now.timestamp_millis().saturating_sub(seen_at.timestamp_millis());
        Self {
            process: Process {
                instance,
                name: stored.name,
                http: stored.http,
                ops: stored.ops,
                version: stored.version,
                roles: stored.roles,
                active: stored.active,
                started_at: Timestamp::from_millis(stored.started_at.timestamp_millis()),
                heartbeat_ms: u64::try_from(stored.heartbeat_ms).unwrap_or(0),
            },
            silent_for: Duration::from_millis(u64::try_from(silent).unwrap_or(0)),
        }
    }
}
