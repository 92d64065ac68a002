//! The node registry port: which processes belong together, and when each was last heard of.
//!
//! It only informs. Nothing rests on it: not who is active (leases say that), nor what is stored.

mod heartbeat;
mod memory;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::event_store::StoreError;

pub use heartbeat::{FORGOTTEN_AFTER, Heartbeat, Roll};
pub use memory::NodesInMemory;

/// A process is not trusted to be there when it has missed so many beats.
pub const BEATS_MISSED_MAX: u32 = 3;

/// Where processes that belong together say that they are there. Adapters: `mongo/nodes.rs` for those who share a store,
/// `history/nodes.rs` for those who run without the order service's; a process that has that for itself keeps the list in
/// memory ([`NodesInMemory`]).
#[async_trait]
pub trait Nodes: Send + Sync {
    /// Says that this process is there. It stays in the list until it leaves or is forgotten.
    async fn beat(&self, me: &Process) -> Result<(), StoreError>;

    /// All that are in the list, each with the time since its last beat, by the store's clock: processes need not agree
    /// about the time. In the order of their names, then of their starts.
    async fn list(&self) -> Result<Vec<Seen>, StoreError>;

    /// Takes a process out of the list. One that is not in it stays out.
    async fn leave(&self, instance: &str) -> Result<(), StoreError>;

    /// Takes out all that have been silent for so long. One that speaks again is in the list again.
    async fn forget(&self, silent_for: Duration) -> Result<(), StoreError>;
}

/// One process, from its start to its end, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// What nobody else is called, nor this one after its next start. Leases are held in this name.
    pub instance: String,
    /// How people call it.
    pub name: String,
    /// Where callers reach it.
    pub http: String,
    /// Where operators reach it.
    pub ops: String,
    /// Of the program.
    pub version: String,
    /// `orders`, and the subscribers that it runs.
    pub roles: Vec<String>,
    /// Of those subscribers the ones that are at work in it, and not in another process.
    #[serde(default)]
    pub active: Vec<String>,
    /// By its own clock.
    pub started_at: Timestamp,
    /// How often it says that it is there.
    pub heartbeat_ms: u64,
}

/// A process in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it said of itself.
    pub process: Process,
    /// How long ago, when the list was made.
    pub silent_for: Duration,
}

impl Seen {
    /// Whether it is as good as there: it has not missed more beats than a busy process may.
    pub fn is_alive(&self) -> bool {
        self.silent_for <= Duration::from_millis(self.process.heartbeat_ms) * BEATS_MISSED_MAX
    }
}
