//! Where the subscribers of a process learn what happened: in the order service's own process from its store, in another
//! one from the order service's `/history`.

use std::sync::Arc;

use actors::history::History;
use actors::log::Log;
use actors::nodes::Nodes;

use super::StartError;
use super::storage::OrderStore;
use crate::config;
use crate::history::Client;

/// The order service as the subscribers of a process see it.
#[derive(Clone)]
pub(super) struct Source {
    /// Everything that happened.
    pub(super) log: Arc<dyn Log>,
    /// The same, without the events when it is followed.
    pub(super) history: Arc<dyn History>,
    /// Which processes there are.
    pub(super) nodes: Arc<dyn Nodes>,
}

impl Source {
    /// That of the process's own order service.
    pub(super) fn own(store: &dyn OrderStore) -> Self {
        let ports = store.ports();
        Self { log: ports.log, history: ports.history, nodes: store.nodes() }
    }

    /// That of an order service in another process. Nothing is asked yet: one that is away is waited for by whoever asks.
    ///
    /// # Errors
    /// Where the configuration does not say where it is.
    pub(super) fn remote(config: &config::History) -> Result<Self, StartError> {
        if config.url.is_empty() {
            return Err(StartError::WithoutHistory);
        }
        let client = Client::new(&config.url, config.key.expose()).map_err(StartError::History)?;
        Ok(Self { log: Arc::new(client.log()), history: Arc::new(client.history()), nodes: Arc::new(client.nodes()) })
    }
}
