//! The ledger in the collection `ledger` of a service's database: the last thousand entries of all nodes that write
//! there, a document each. The end may be lost with a primary.

use std::sync::Arc;

use actors::event_store::StoreError;
use actors::supervisor::ledger::{ENTRIES_MAX, Entry, LedgerStore};
use async_trait::async_trait;
use mongodb::Collection;
use mongodb::bson::doc;
use mongodb::options::FindOptions;
use serde::{Deserialize, Serialize};

use super::error::were_there;
use super::server::{Failed, Server};
use super::store::may_be_lost;

const COLLECTION: &str = "ledger";

/// A service's ledger. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MongoLedger {
    server: Server,
    entries: Collection<Stored>,
}

impl MongoLedger {
    /// The ledger in that database. Nothing is asked of the server yet.
    pub fn new(server: &Server, database: &str) -> Self {
        let entries = server.database(database).collection_with_options(COLLECTION, may_be_lost());
        Self { server: server.clone(), entries }
    }
}

/// As it is stored. An entry's number is at least its time in milliseconds, so the order of the numbers is the order in
/// which things happened on all nodes together, as far as their clocks agree.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    /// Number and node: the number in twenty digits, so that the order of the texts is that of the numbers.
    #[serde(rename = "_id")]
    id: String,
    /// As JSON.
    entry: String,
}

#[async_trait]
impl LedgerStore for MongoLedger {
    async fn append(&self, entries: &[Arc<Entry>]) -> Result<(), StoreError> {
        let stored: Vec<Stored> = entries.iter().map(|entry| stored(entry)).collect::<Result<_, _>>()?;
        if stored.is_empty() {
            return Ok(());
        }
        let insert = self.entries.insert_many(&stored).ordered(false);
        let insert = async {
            match insert.await {
                Err(error) if were_there(&error) => Ok(()),
                inserted => inserted.map(drop),
            }
        };
        self.server.answer(insert).await.map_err(Failed::into_error)?;
        self.forget_the_oldest().await
    }

    async fn load(&self) -> Result<Vec<Entry>, StoreError> {
        let newest = self.newest(ENTRIES_MAX, 0).await?;
        // An entry that a later docket wrote, and this one cannot read, is left out: it is history, not state.
        Ok(newest.iter().rev().filter_map(|stored| serde_json::from_str(&stored.entry).ok()).collect())
    }
}

impl MongoLedger {
    async fn forget_the_oldest(&self) -> Result<(), StoreError> {
        let Some(surplus) = self.newest(1, ENTRIES_MAX).await?.pop() else { return Ok(()) };
        let delete = self.entries.delete_many(doc! { "_id": { "$lte": surplus.id } });
        self.server.answer(delete).await.map(drop).map_err(Failed::into_error)
    }

    /// The newest entries behind the first `skipped`, the newest first.
    async fn newest(&self, count: usize, skipped: usize) -> Result<Vec<Stored>, StoreError> {
        let (limit, skip) = (i64::try_from(count).ok(), u64::try_from(skipped).ok());
        let options = FindOptions::builder().sort(doc! { "_id": -1 }).limit(limit).skip(skip).build();
        let find = self.entries.find(doc! {}).with_options(options);
        let found = async {
            let mut cursor = find.await?;
            let mut found = Vec::new();
            while cursor.advance().await? {
                found.push(cursor.deserialize_current()?);
            }
            Ok(found)
        };
        self.server.answer(found).await.map_err(Failed::into_error)
    }
}

fn stored(entry: &Entry) -> Result<Stored, StoreError> {
    let text = serde_json::to_string(entry).map_err(|error| StoreError::Damaged(error.to_string()))?;
    Ok(Stored { id: format!("{:020}:{}", entry.seq, entry.node), entry: text })
}
