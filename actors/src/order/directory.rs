//! The door to all orders: finds an order's actor or starts it, bounds what may wait, and turns "no answer" into what is
//! known about it.

use std::sync::Arc;

use super::error::At;
use super::{Command, CommandError, Order, OrderId, ReadError, Version};
use crate::commit::Origin;
use crate::event::Envelope;

/// A command for one order, with what the caller promised and expects.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which order. For [`Command::Create`]: [`OrderId::of_creation`] when there is a key, else a generated one.
    pub order: OrderId,
    /// What to do.
    pub command: Command,
    /// The versions of `If-Match`; `None` without it, empty for `*`.
    pub if_match: Option<Vec<Version>>,
    /// The `Idempotency-Key`.
    pub key: Option<String>,
    /// Who asked, and in the course of what.
    pub origin: Origin,
}

/// A command's success.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The order as the command left it.
    pub order: Arc<Order>,
    /// Whether this is the answer of an earlier command with the same key.
    pub replayed: bool,
}

/// A page of an order's trail.
#[derive(Clone, Debug)]
pub struct Trail {
    /// The events, as stored.
    pub events: Vec<Envelope>,
    /// Where the next page begins, when there is one.
    pub next_after: Option<Version>,
}

/// A handle to the orders of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Orders {}

impl Orders {
    /// Tells an order to do something. The answer rests on durable state only.
    ///
    /// Dropping the future does not withdraw the command.
    pub async fn command(&self, request: Request) -> Result<Answer, CommandError> {
        let _ = request;
        Err(CommandError::Internal)
    }

    /// The order's state, present or earlier.
    pub async fn get(&self, order: OrderId, at: At) -> Result<Arc<Order>, ReadError> {
        let _ = (order, at);
        Err(ReadError::Internal)
    }

    /// The order's events after `after`, at most `limit`. Readable also while the order is quarantined or ahead of this
    /// docket.
    pub async fn trail(&self, order: OrderId, after: Version, limit: usize) -> Result<Trail, ReadError> {
        let _ = (order, after, limit);
        Err(ReadError::Internal)
    }
}
