//! The node registry over HTTP: for processes without the order service's database.

use std::time::Duration;

use actors::event_store::StoreError;
use actors::nodes::{Nodes, Process, Seen};
use async_trait::async_trait;

use super::client::Client;
use super::wire::NodeList;

/// The registry of an order service in another process.
#[derive(Clone, Debug)]
pub struct RemoteNodes {
    client: Client,
}

impl RemoteNodes {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl Nodes for RemoteNodes {
    async fn beat(&self, me: &Process) -> Result<(), StoreError> {
        self.client.page(self.client.post("history/nodes").json(me)).await.map(drop)
    }

    async fn list(&self) -> Result<Vec<Seen>, StoreError> {
        let body = self.client.page(self.client.get("history/nodes", &[])).await?;
        let unreadable = |_| self.client.away("it sent a list of nodes that cannot be read");
        let list: NodeList = serde_json::from_slice(&body).map_err(unreadable)?;
        Ok(list.nodes.into_iter().map(Seen::from).collect())
    }

    async fn leave(&self, instance: &str) -> Result<(), StoreError> {
        // The name has a slash in it, so it is no part of a path.
        let request = self.client.delete("history/nodes", &[("instance", instance)]);
        self.client.page(request).await.map(drop)
    }

    /// The order service does that itself.
    async fn forget(&self, _: Duration) -> Result<(), StoreError> {
        Ok(())
    }
}
