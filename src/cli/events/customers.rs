//! Whose an order is. Only the first event says that, so where it was not seen it is looked up, once an order: what was
//! learnt is kept of the orders that came last.

use std::num::NonZeroUsize;

use actors::event::Envelope;
use actors::log::Log;
use actors::order::{OrderEvent, OrderId, Version};
use lru::LruCache;

use super::super::CommandError;
use super::super::client::patiently;
use super::waiting;
use crate::history::RemoteLog;

/// Most orders of which it is kept.
const KEPT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);

/// The customers of the orders that came last.
pub(super) struct Customers {
    /// Nobody, where the first event cannot be read here.
    of: LruCache<OrderId, Option<String>>,
}

impl Default for Customers {
    fn default() -> Self {
        Self { of: LruCache::new(KEPT) }
    }
}

impl Customers {
    /// Learns whose an order is, if this is its first event.
    pub(super) fn learn(&mut self, event: &Envelope) {
        if event.version == Version::FIRST {
            self.of.put(event.order, named(event));
        }
    }

    /// Whether the order is that customer's. Of an order whose first event cannot be read here nobody knows it: it is not,
    /// and that is said once.
    pub(super) async fn has(&mut self, customer: &str, order: OrderId, log: &RemoteLog) -> Result<bool, CommandError> {
        if let Some(known) = self.of.get(&order) {
            return Ok(known.as_deref() == Some(customer));
        }
        let first = patiently(async || log.read(order, Version::FIRST, 1).await, waiting).await?;
        let known = first.first().and_then(|commit| commit.envelopes().next()).and_then(|event| named(&event));
        let has = known.as_deref() == Some(customer);
        self.of.put(order, known);
        Ok(has)
    }
}

fn named(first: &Envelope) -> Option<String> {
    match first.decode() {
        Ok(OrderEvent::Created(created)) => Some(created.personal.customer_id),
        Ok(_) | Err(_) => {
            eprintln!("whose {} is cannot be told: its first event cannot be read by this program", first.order);
            None
        }
    }
}
