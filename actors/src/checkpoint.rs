//! The checkpoint port: how far the log was published, and who publishes it.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::event_store::StoreError;
use crate::inbox::Term;
use crate::log::Position;

/// Where the relay keeps its place, in the order service's own store. Adapters: `sqlite/checkpoint.rs`,
/// `mongo/checkpoint.rs`.
///
/// A checkpoint that is lost costs messages that come twice or not at all, and nobody rests on either.
#[async_trait]
pub trait Checkpoints: Send + Sync {
    /// Begins a new term; checkpoints of earlier terms are refused from now on.
    ///
    /// Where several processes share the store, a term comes with a lease: [`CheckpointError::Held`] while another
    /// process holds it. This process is never in its own way.
    async fn begin(&self) -> Result<Begun, CheckpointError>;

    /// Holds on to the term for as long as another lease, and stores the checkpoint when there is one. `false`: somebody
    /// began a later term, and nothing was stored.
    async fn save(&self, term: Term, checkpoint: Option<Checkpoint>) -> Result<bool, CheckpointError>;

    /// Gives up the lease, so that another process can begin at once.
    async fn release(&self, term: Term) -> Result<(), CheckpointError>;
}

/// How far the log was published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Everything before this place was taken by the broker.
    pub position: Position,
    /// When the newest of it was recorded: what is left when the position means nothing any more.
    pub recorded_at: Timestamp,
}

/// What [`Checkpoints::begin`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Begun {
    /// The new term.
    pub term: Term,
    /// How long a lease lasts after the call; `None` where no other process can begin one.
    pub lease: Option<Duration>,
    /// The last checkpoint; `None`: nothing was ever published.
    pub checkpoint: Option<Checkpoint>,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Another process holds the lease.
    #[error("it is active in {by}")]
    Held {
        /// Which process.
        by: String,
        /// When the lease ends if it is not renewed.
        ends_in: Duration,
    },
    /// The store did not answer. A checkpoint may or may not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}
