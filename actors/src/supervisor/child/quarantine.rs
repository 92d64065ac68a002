//! A child that failed too often and has ended: what its owner keeps instead of it, to try it again later.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::handle::{Handle, Verb};
use crate::clock::Timestamp;
use crate::supervisor::policy::Record;
use crate::supervisor::tree::{Node, Status};

/// A child that has ended in quarantine. Dropping it forgets the child.
pub struct Quarantine {
    record: Record,
    due: Instant,
    until: Timestamp,
    handle: Handle,
    node: Node,
}

impl Quarantine {
    pub(super) fn new(after: Duration, record: Record, handle: Handle, node: Node) -> Self {
        Self { record, due: Instant::now() + after, until: node.now().after(after), handle, node }
    }

    /// Whether it may be tried again: its time is over, or an operator released it.
    pub fn is_over(&self) -> bool {
        self.is_released() || Instant::now() >= self.due
    }

    /// How long it still lasts.
    pub fn remaining(&self) -> Duration {
        if self.is_released() { Duration::ZERO } else { self.due.saturating_duration_since(Instant::now()) }
    }

    /// When it is over.
    pub fn until(&self) -> Timestamp {
        self.until
    }

    /// The path of the child.
    pub fn path(&self) -> &Arc<str> {
        self.handle.path()
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    fn is_released(&self) -> bool {
        self.handle.is_told(|verb| matches!(verb, Verb::Release | Verb::Restart))
    }
}

impl fmt::Debug for Quarantine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quarantine").field("path", self.path()).field("until", &self.until).finish_non_exhaustive()
    }
}

impl Drop for Quarantine {
    fn drop(&mut self) {
        self.node.set_status(Status::Stopped);
    }
}
