//! Checkpoints in memory. Cloned, they are the same; with a holder's name they are that process's way to those that
//! several processes share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::checkpoint::{Begun, Checkpoint, CheckpointError, Checkpoints};
use crate::inbox::Term;

/// The checkpoints.
#[derive(Clone, Default)]
pub struct MemoryCheckpoints {
    kept: Arc<Mutex<Kept>>,
    /// `None`: no other process uses them.
    process: Option<Process>,
}

#[derive(Clone)]
struct Process {
    holder: Arc<str>,
    lease: Duration,
}

#[derive(Default)]
struct Kept {
    term: Term,
    /// Who holds the lease, until when.
    held: Option<(Arc<str>, Instant)>,
    /// All that were stored, one after another.
    stored: Vec<Checkpoint>,
}

impl MemoryCheckpoints {
    /// The same as the process of that name uses them, where several do.
    #[must_use]
    pub fn of_process(&self, name: &str, lease: Duration) -> Self {
        Self { kept: Arc::clone(&self.kept), process: Some(Process { holder: name.into(), lease }) }
    }

    /// All that were stored, one after another.
    pub fn stored(&self) -> Vec<Checkpoint> {
        self.kept().stored.clone()
    }

    /// Somebody puts that in the place of the last one.
    pub fn replace(&self, checkpoint: Option<Checkpoint>) {
        let mut kept = self.kept();
        kept.stored.clear();
        kept.stored.extend(checkpoint);
    }

    /// Which process holds the lease now.
    pub fn holder(&self) -> Option<Arc<str>> {
        let now = Instant::now();
        self.kept().held.as_ref().filter(|(_, until)| *until > now).map(|(holder, _)| Arc::clone(holder))
    }

    fn hold(&self, kept: &mut Kept) {
        kept.held = self.process.as_ref().map(|own| (Arc::clone(&own.holder), Instant::now() + own.lease));
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Checkpoints for MemoryCheckpoints {
    async fn begin(&self) -> Result<Begun, CheckpointError> {
        let mut kept = self.kept();
        let me = self.process.as_ref().map(|own| &own.holder);
        if let Some((by, until)) = kept.held.as_ref().filter(|(by, _)| me.is_some_and(|me| me != by)) {
            let ends_in = until.saturating_duration_since(Instant::now());
            if !ends_in.is_zero() {
                return Err(CheckpointError::Held { by: by.to_string(), ends_in });
            }
        }
        kept.term = Term(kept.term.0 + 1);
        self.hold(&mut kept);
        let lease = self.process.as_ref().map(|own| own.lease);
        Ok(Begun { term: kept.term, lease, checkpoint: kept.stored.last().cloned() })
    }

    async fn save(&self, term: Term, checkpoint: Option<Checkpoint>) -> Result<bool, CheckpointError> {
        let mut kept = self.kept();
        if kept.term != term {
            return Ok(false);
        }
        self.hold(&mut kept);
        kept.stored.extend(checkpoint);
        Ok(true)
    }

    async fn release(&self, term: Term) -> Result<(), CheckpointError> {
        let mut kept = self.kept();
        if kept.term == term {
            kept.held = None;
        }
        Ok(())
    }
}
