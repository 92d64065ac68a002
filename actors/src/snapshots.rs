//! The snapshot port. A snapshot spares the reading of old events and is never needed: whatever is wrong with one, it is
//! ignored.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::commit::{Commit, StreamEnd};
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

impl Snapshot {
    /// Whether it was taken at the end of that commit. The commit to ask about is the first that a read from the
    /// version of [`Snapshot::end`] gives; those behind it are what the snapshot lacks.
    pub fn is_at_end_of(&self, commit: &Commit) -> bool {
        self.end == commit.stored_end()
    }
}

/// Where snapshots are kept, at most one an order. Adapters: `sqlite/snapshots.rs`,
/// `mongo/snapshots.rs`.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// The order's snapshot, when there is one that can be read. Whether its commit is stored is for the caller to see
    /// ([`Snapshot::is_at_end_of`]).
    async fn load(&self, order: OrderId) -> Result<Option<Snapshot>, StoreError>;

    /// Keeps a snapshot in the place of the order's last. It can be loaded once this returned, but it may be lost in a
    /// crash, or be given up for want of time; it is never half written. The future may take long on a busy store, and
    /// may be dropped.
    async fn save(&self, snapshot: Snapshot) -> Result<(), StoreError>;
}
