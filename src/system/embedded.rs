//! On SQLite: one process, in a folder that it alone uses, a file for each service.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actors::checkpoint::Checkpoints;
use actors::inbox::Inbox;
use actors::nodes::{Nodes, NodesInMemory};
use actors::supervisor::{Child, Failure, Handle, LedgerStore, Node};
use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::join_all;

use super::StartError;
use super::storage::{OrderStore, Ports, Storage};
use crate::sqlite::ledger::LedgerFile;
use crate::sqlite::store::FILE_NAME;
use crate::sqlite::{DataDirectory, SqliteInbox, Store};

/// A locked folder.
pub(super) struct Embedded {
    directory: DataDirectory,
    inboxes: Mutex<Vec<Arc<SqliteInbox>>>,
}

/// The order service's file in it.
pub(super) struct EmbeddedOrders(Store);

impl Embedded {
    /// That folder. Nothing in it is opened yet.
    pub(super) fn new(directory: &DataDirectory) -> Self {
        Self { directory: directory.clone(), inboxes: Mutex::default() }
    }
}

impl EmbeddedOrders {
    /// Opens the file in that folder.
    pub(super) fn open(directory: &DataDirectory) -> Result<Self, StartError> {
        Ok(Self(Store::open(directory)?))
    }

    /// The file.
    #[cfg(test)]
    pub(super) fn store(&self) -> &Store {
        &self.0
    }
}

#[async_trait(?Send)]
impl Storage for Embedded {
    async fn orders(&self) -> Result<Arc<dyn OrderStore>, StartError> {
        Ok(Arc::new(EmbeddedOrders::open(&self.directory)?))
    }

    async fn inbox(&self, name: &'static str, _: Duration) -> Result<Arc<dyn Inbox>, StartError> {
        let inbox = Arc::new(SqliteInbox::open(&self.directory, name)?);
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).push(inbox.clone());
        Ok(inbox)
    }

    /// In a file of its own, for the folder is this process's alone.
    fn ledger(&self, _: &str) -> Arc<dyn LedgerStore> {
        Arc::new(LedgerFile::new(&self.directory))
    }

    /// A file is there. What a write finds wrong with it the journal says.
    fn away(&self) -> Option<String> {
        None
    }

    fn said(&self, orders: bool) -> String {
        match orders {
            true => format!("SQLite in {}, on disk at each commit", self.directory.file(FILE_NAME).display()),
            false => format!("SQLite in {}, a file for each subscriber", self.directory.path().display()),
        }
    }

    async fn close(&self) {
        let inboxes = self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        join_all(inboxes.iter().map(|inbox| inbox.close())).await;
    }
}

#[async_trait(?Send)]
impl OrderStore for EmbeddedOrders {
    fn ports(&self) -> Ports {
        Ports::of(self.0.clone())
    }

    fn checkpoints(&self, _: Duration) -> Arc<dyn Checkpoints> {
        Arc::new(self.0.clone())
    }

    fn nodes(&self) -> Arc<dyn Nodes> {
        Arc::new(NodesInMemory::default())
    }

    /// Watches over the writing thread, and starts another when it has died.
    fn child(&self) -> Child {
        let store = self.0.clone();
        Child::task("store", "store", move |_: &Node| {
            move |handle: &Handle| {
                let (store, handle) = (store.clone(), handle.clone());
                async move {
                    store.restart_writer().map_err(Failure::error)?;
                    tokio::select! {
                        said = store.writer_died() => Err(Failure::error(said)),
                        () = handle.stop_requested() => Ok(()),
                    }
                }
                .boxed_local()
            }
        })
    }

    async fn close(&self) {
        self.0.close().await;
    }
}
