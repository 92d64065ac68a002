//! The port to where the ledger outlives the process, and one that is kept in memory, for tests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;

use super::{ENTRIES_MAX, Entry, lock};
use crate::event_store::StoreError;

/// Where entries outlive the process. Adapters: `sqlite/ledger.rs`, `mongo/ledger.rs`.
#[async_trait]
pub trait LedgerStore: Send + Sync {
    /// Adds entries, and may forget all but the last [`ENTRIES_MAX`]. One that is there already (by node and `seq`) stays
    /// there once. The last entries before a crash may be lost.
    async fn append(&self, entries: &[Arc<Entry>]) -> Result<(), StoreError>;

    /// The last [`ENTRIES_MAX`] entries, of all nodes that write to this store, the oldest first.
    async fn load(&self) -> Result<Vec<Entry>, StoreError>;
}

/// A store in memory, with a switch that makes it fail: for tests.
#[derive(Debug, Default)]
pub struct LedgerInMemory {
    entries: Mutex<Vec<Entry>>,
    away: AtomicBool,
}

impl LedgerInMemory {
    /// From now on it does not answer, or does again.
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
    }

    fn here(&self) -> Result<MutexGuard<'_, Vec<Entry>>, StoreError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(StoreError::Away("switched off".to_owned()));
        }
        Ok(lock(&self.entries))
    }
}

#[async_trait]
impl LedgerStore for LedgerInMemory {
    async fn append(&self, entries: &[Arc<Entry>]) -> Result<(), StoreError> {
        let mut there = self.here()?;
        for entry in entries {
            if !there.iter().any(|other| other.seq == entry.seq && other.node == entry.node) {
                there.push(Entry::clone(entry));
            }
        }
        let surplus = there.len().saturating_sub(ENTRIES_MAX);
        there.drain(..surplus);
        Ok(())
    }

    async fn load(&self) -> Result<Vec<Entry>, StoreError> {
        Ok(self.here()?.clone())
    }
}
