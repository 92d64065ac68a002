//! What is written down when something fails: an entry in the ledger, and the same on the node it happened to.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::ledger::{Cause, Decided, Entry, Message};
use super::policy::{Policy, Record};
use super::tree::{Node, Status, millis};

/// What is new in an entry of the ledger.
pub(super) struct Written {
    pub(super) cause: Cause,
    pub(super) message: Option<Message>,
    pub(super) decided: Decided,
    pub(super) after: Option<Duration>,
}

/// Writes a failure and what follows into the ledger and onto the node.
pub(super) fn write_down(node: &Node, policy: &Policy, record: &Record, new: Written) -> Arc<Entry> {
    let at = node.now();
    let next_try_at = new.after.map(|after| at.after(after));
    let limit = policy.intensity.limit();
    let attempt = match (&new.cause, new.decided, limit) {
        (Cause::Operator, _, _) => 0,
        (_, Decided::Restart, Some(_)) => record.borne(policy, Instant::now()),
        (_, Decided::Quarantine | Decided::Escalate | Decided::End, Some(limit)) => limit,
        (_, _, None) => record.in_a_row(),
    };
    let entry = node.ledger().record(Entry {
        seq: 0,
        at,
        node: Arc::clone(node.ledger().node()),
        path: Arc::clone(node.path()),
        kind: node.kind().into(),
        cause: new.cause,
        message: new.message,
        attempt,
        attempts_max: limit,
        within_ms: millis(policy.intensity.within),
        decision: new.decided,
        next_try_at,
    });
    node.failed(Arc::clone(&entry), record.clone());
    node.set_status(match (new.decided, next_try_at) {
        (Decided::Restart, Some(until)) => Status::BackingOff { until },
        (Decided::Quarantine, Some(until)) => Status::Quarantined { until },
        (Decided::Restart | Decided::Quarantine | Decided::Escalate | Decided::End, _) => Status::Failed,
    });
    entry
}
