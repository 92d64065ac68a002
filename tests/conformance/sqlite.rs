//! SQLite: a file in a folder.

mod damaged;
mod disk;
mod killed;
mod write_ahead_log;

use std::path::Path;
use std::sync::{Arc, Mutex};

use actors::commit::Commit;
use actors::testing::conformance::{Adapter, Late, Store};
use async_trait::async_trait;
use docket::sqlite::{self, DataDirectory};
use tempfile::TempDir;

pub(crate) struct Sqlite {
    folder: TempDir,
    copy: TempDir,
    /// What [`Adapter::close`] needs beside the trait object.
    opened: Mutex<Option<sqlite::Store>>,
}

#[async_trait]
impl Adapter for Sqlite {
    async fn new() -> Self {
        Self { folder: folder(), copy: folder(), opened: Mutex::default() }
    }

    async fn open(&self) -> Arc<dyn Store> {
        let store = open(self.folder.path());
        *self.opened.lock().expect("no panic") = Some(store.clone());
        Arc::new(store)
    }

    async fn close(&self, store: Arc<dyn Store>) {
        let opened = self.opened.lock().expect("no panic").take();
        drop(store);
        opened.expect("it is open").close().await;
    }

    async fn back_up(&self) {
        copy(self.folder.path(), self.copy.path());
    }

    async fn restore(&self) {
        copy(self.copy.path(), self.folder.path());
    }

    /// There is one writer: what it writes is visible before the next is begun.
    async fn begin_late(&self, _store: &Arc<dyn Store>, _commit: Arc<Commit>) -> Option<Box<dyn Late>> {
        None
    }
}

impl Sqlite {
    /// What [`Adapter::open`] opened.
    pub(crate) fn opened(&self) -> sqlite::Store {
        self.opened.lock().expect("no panic").clone().expect("it is open")
    }
}

actors::conformance!(Sqlite);

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn open(folder: &Path) -> sqlite::Store {
    let directory = DataDirectory::lock(folder).expect("nobody else uses it");
    sqlite::Store::open(&directory).expect("a store")
}

fn copy(from: &Path, to: &Path) {
    std::fs::copy(from.join("orders.db"), to.join("orders.db")).expect("copied");
}

/// The file, past the store.
fn file(folder: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(folder.join("orders.db")).expect("the file")
}

/// SQLite's own word on whether the file is whole.
fn assert_whole(folder: &Path) {
    let said: String =
        file(folder).pragma_query_value(None, "integrity_check", |row| row.get(0)).expect("it can be checked");
    assert_eq!(said, "ok");
}
