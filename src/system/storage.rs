//! What a docket keeps its data in, behind the ports. Which adapters these are is decided by the configuration, once:
//! where a [`Storage`] is opened. Nobody else asks.
//!
//! The order service's store and those of subscribers are opened apart: a process without orders never touches the first.

use std::sync::Arc;
use std::time::Duration;

use actors::checkpoint::Checkpoints;
use actors::event_store::EventStore;
use actors::history::History;
use actors::inbox::Inbox;
use actors::log::Log;
use actors::nodes::Nodes;
use actors::snapshots::Snapshots;
use actors::supervisor::{Child, LedgerStore};
use async_trait::async_trait;

use super::StartError;

/// Where this process has its stores: a folder, or a deployment.
#[async_trait(?Send)]
pub(super) trait Storage: Send + Sync {
    /// Opens the order service's store.
    async fn orders(&self) -> Result<Arc<dyn OrderStore>, StartError>;

    /// The store of the subscriber `name`. A lease in it lasts for so long, where several processes share it.
    async fn inbox(&self, name: &'static str, lease: Duration) -> Result<Arc<dyn Inbox>, StartError>;

    /// Where the ledger of a process is kept whose first part is `part`: with what belongs to that part.
    fn ledger(&self, part: &str) -> Arc<dyn LedgerStore>;

    /// Why nothing can be read or written now, when that is known without asking.
    fn away(&self) -> Option<String>;

    /// What it is, for people, without anything secret; with or without the order service's store.
    fn said(&self, orders: bool) -> String;

    /// Closes what was opened. What was acknowledged is durable already; this only spares the next start some work.
    async fn close(&self);
}

/// The order service's store.
#[async_trait(?Send)]
pub(super) trait OrderStore: Send + Sync {
    /// It, as the ports that it is.
    fn ports(&self) -> Ports;

    /// Where the relay keeps its place. A lease in it lasts for so long, where several processes share it.
    fn checkpoints(&self, lease: Duration) -> Arc<dyn Checkpoints>;

    /// Where the processes are listed that share it, or read its history.
    fn nodes(&self) -> Arc<dyn Nodes>;

    /// What watches over it: essential, for nothing works without.
    fn child(&self) -> Child;

    /// As [`Storage::close`].
    async fn close(&self);
}

/// The ports of the order service.
#[derive(Clone)]
pub(super) struct Ports {
    pub(super) events: Arc<dyn EventStore>,
    pub(super) snapshots: Arc<dyn Snapshots>,
    pub(super) log: Arc<dyn Log>,
    pub(super) history: Arc<dyn History>,
}

impl Ports {
    /// Those of a store that is all of them.
    pub(super) fn of(store: impl EventStore + Snapshots + Log + History + 'static) -> Self {
        let store = Arc::new(store);
        Self { events: store.clone(), snapshots: store.clone(), log: store.clone(), history: store }
    }
}
