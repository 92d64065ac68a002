//! Snapshots in the collection `snapshots`: a document an order, replaced as a whole. They may be lost with a primary, so
//! nobody waits for a majority; what cannot be read is ignored.

use actors::commit::StreamEnd;
use actors::event_store::StoreError;
use actors::order::OrderId;
use actors::snapshots::{Snapshot, Snapshots};
use async_trait::async_trait;
use mongodb::bson::doc;
use serde::{Deserialize, Serialize};

use super::server::Failed;
use super::store::Store;

/// As it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stored {
    /// Which order.
    #[serde(rename = "_id")]
    order: String,
    /// The end it was taken at, as JSON.
    end: String,
    schema: u32,
    state: String,
}

#[async_trait]
impl Snapshots for Store {
    async fn load(&self, order: OrderId) -> Result<Option<Snapshot>, StoreError> {
        let find = self.shared.snapshots.find_one(doc! { "_id": order.to_string() });
        let found = self.shared.server.answer_in_turn(find).await.map_err(Failed::into_error)?;
        Ok(found.and_then(|Stored { end, schema, state, .. }| {
            let end: StreamEnd = serde_json::from_str(&end).ok()?;
            Some(Snapshot { end, schema, state })
        }))
    }

    async fn save(&self, snapshot: Snapshot) -> Result<(), StoreError> {
        let Snapshot { end, schema, state } = snapshot;
        let order = end.order().to_string();
        let end = serde_json::to_string(&end).map_err(|error| StoreError::Damaged(error.to_string()))?;
        let which = doc! { "_id": &order };
        let replace = self.shared.snapshots.replace_one(which, Stored { order, end, schema, state }).upsert(true);
        self.shared.server.answer_in_turn(replace).await.map(drop).map_err(Failed::into_error)
    }
}
