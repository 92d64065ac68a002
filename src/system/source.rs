//! Where the subscribers of a process learn what happened: in the order service's own process from its store, in another
//! one from the order service's `/history`.

use std::sync::Arc;

use actors::history::History;
use actors::log::Log;

use super::StartError;
use super::storage::OrderStore;

/// The log, for subscribers.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) log: Arc<dyn Log>,
    pub(super) history: Arc<dyn History>,
}

impl Source {
    /// That of the process's own order service.
    ///
    /// # Errors
    /// Where it has none.
    pub(super) fn of(orders: Option<&dyn OrderStore>) -> Result<Self, StartError> {
        let ports = orders.ok_or(StartError::WithoutOrders)?.ports();
        Ok(Self { log: ports.log, history: ports.history })
    }
}
