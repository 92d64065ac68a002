//! What `/readyz` says of a process.

use std::sync::Arc;

use actors::journal::Health;
use actors::supervisor::Node;
use actors::supervisor::tree::Status;
use tokio::sync::watch;

use super::children::NODES;
use super::storage::Storage;
use crate::http::{Part, Readiness};

/// The parts of this process.
pub(super) struct ReadyParts {
    pub(super) node: Node,
    /// What the journal says of the store, where there is one.
    pub(super) health: Option<watch::Receiver<Health>>,
    pub(super) storage: Arc<dyn Storage>,
}

impl Readiness for ReadyParts {
    fn parts(&self) -> Vec<Part> {
        let refusing = self.health.as_ref().is_some_and(|health| health.borrow().refusing);
        let detail = match self.storage.away() {
            Some(_) => Some("the store cannot be reached now"),
            None => refusing.then_some("the store does not take writes now"),
        };
        let store = Part { name: "store".into(), ready: detail.is_none(), detail: detail.map(Into::into) };
        let children = self.node.view().children;
        // The store is the journal's to judge, and without the registry everything works.
        let children = children.into_iter().filter(|child| !["store", NODES].contains(&child.name.as_str()));
        let children = children.map(|child| Part {
            ready: matches!(child.status, Status::Running),
            detail: (!matches!(child.status, Status::Running)).then(|| "it is being started".into()),
            name: child.name.into(),
        });
        std::iter::once(store).chain(children).collect()
    }
}
