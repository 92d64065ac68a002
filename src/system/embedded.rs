//! On SQLite: one process, in a folder that it alone uses, a file for each service.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actors::inbox::Inbox;
use actors::nodes::{Alone, Nodes, Process};
use actors::supervisor::{Child, Failure, Handle, Node};
use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::join_all;

use super::StartError;
use super::storage::{Ports, Storage};
use crate::sqlite::ledger::LedgerFile;
use crate::sqlite::store::FILE_NAME;
use crate::sqlite::{DataDirectory, SqliteInbox, Store};

/// The files of a locked folder.
pub(super) struct Embedded {
    directory: DataDirectory,
    store: Store,
    inboxes: Mutex<Vec<Arc<SqliteInbox>>>,
}

impl Embedded {
    /// Opens the order service's file in that folder.
    pub(super) fn open(directory: &DataDirectory) -> Result<Self, StartError> {
        let store = Store::open(directory)?;
        Ok(Self { directory: directory.clone(), store, inboxes: Mutex::default() })
    }

    /// The order service's file.
    #[cfg(test)]
    pub(super) fn store(&self) -> &Store {
        &self.store
    }
}

#[async_trait(?Send)]
impl Storage for Embedded {
    fn ports(&self) -> Ports {
        let store = Arc::new(self.store.clone());
        Ports {
            events: store.clone(),
            snapshots: store.clone(),
            log: store.clone(),
            history: store,
            ledger: Arc::new(LedgerFile::new(&self.directory)),
        }
    }

    fn nodes(&self, me: &Process) -> Arc<dyn Nodes> {
        Arc::new(Alone::new(me.clone()))
    }

    async fn inbox(&self, name: &'static str, _: Duration) -> Result<Arc<dyn Inbox>, StartError> {
        let inbox = Arc::new(SqliteInbox::open(&self.directory, name)?);
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).push(inbox.clone());
        Ok(inbox)
    }

    /// A file is there. What a write finds wrong with it the journal says.
    fn away(&self) -> Option<String> {
        None
    }

    /// Watches over the writing thread, and starts another when it has died.
    fn child(&self) -> Child {
        let store = self.store.clone();
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

    fn said(&self) -> String {
        format!("SQLite in {}, on disk at each commit", self.directory.file(FILE_NAME).display())
    }

    async fn close(&self) {
        let inboxes = self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let inboxes = join_all(inboxes.iter().map(|inbox| inbox.close()));
        tokio::join!(inboxes, self.store.close());
    }
}
