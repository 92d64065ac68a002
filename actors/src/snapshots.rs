//! The snapshot port. A snapshot spares the reading of old events and is never needed: whatever is wrong with one, it is
//! ignored.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::commit::StreamEnd;
use crate::event_store::StoreError;
use crate::order::OrderId;

/// An order's state at the end of a commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// The end it was taken at. When the commit it names is not stored there, the snapshot is ignored.
    pub end: StreamEnd,
    /// The shape of the state; another one than the reader's is ignored.
    pub schema: u32,
    /// The state, and the keys of every command so far.
    pub state: String,
}

/// Where snapshots are kept, at most one an order. Adapters: `sqlite/snapshots.rs`, `mongo/snapshots.rs`.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// The order's snapshot, when there is one.
    async fn load(&self, order: OrderId) -> Result<Option<Snapshot>, StoreError>;

    /// Keeps a snapshot in the place of an older one. It may be lost in a crash, never half written.
    async fn save(&self, snapshot: Snapshot) -> Result<(), StoreError>;
}
