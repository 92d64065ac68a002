//! The ledger in `node.db`: the last thousand entries, a row each. Opened when it is first needed, and again after an
//! error that may have spoilt the connection. A crash of the machine may lose the last entries.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use actors::event_store::StoreError;
use actors::supervisor::ledger::{ENTRIES_MAX, Entry, LedgerStore};
use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::directory::DataDirectory;
use super::{Durability, open_writer, spoils_connection, store_error};

/// The name of the file in the data folder.
pub const FILE_NAME: &str = "node.db";
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS ledger (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    node TEXT NOT NULL,
    seq INTEGER NOT NULL,
    entry TEXT NOT NULL,
    UNIQUE (node, seq)
) STRICT";

/// Pages after which the write-ahead log is copied to the file: nobody waits for this file.
const CHECKPOINT_PAGES: u32 = 256;

/// The ledger's file.
#[derive(Clone, Debug)]
pub struct LedgerFile(Arc<File>);

#[derive(Debug)]
struct File {
    path: PathBuf,
    connection: Mutex<Option<Connection>>,
    /// Held by the locked folder's owner: no other process writes here.
    _directory: DataDirectory,
}

impl LedgerFile {
    /// In that folder. Nothing is opened yet.
    pub fn new(directory: &DataDirectory) -> Self {
        let (path, connection) = (directory.file(FILE_NAME), Mutex::new(None));
        Self(Arc::new(File { path, connection, _directory: directory.clone() }))
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let file = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || file.run(job)).await;
        done.unwrap_or_else(|error| Err(StoreError::Away(error.to_string())))
    }
}

impl File {
    fn run<T>(&self, job: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let mut slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => open(&self.path).map_err(|error| store_error(&error))?,
        };
        let result = job(&mut connection);
        if !result.as_ref().is_err_and(spoils_connection) {
            *slot = Some(connection);
        }
        result.map_err(|error| store_error(&error))
    }
}

#[async_trait]
impl LedgerStore for LedgerFile {
    async fn append(&self, entries: &[Arc<Entry>]) -> Result<(), StoreError> {
        let entries = entries.to_vec();
        self.run(move |connection| append(connection, &entries)).await
    }

    async fn load(&self) -> Result<Vec<Entry>, StoreError> {
        self.run(|connection| load(connection)).await
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = open_writer(path, Durability::Prefix)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

fn append(connection: &mut Connection, entries: &[Arc<Entry>]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let mut insert =
        transaction.prepare_cached("INSERT OR IGNORE INTO ledger (node, seq, entry) VALUES (?1, ?2, ?3)")?;
    for entry in entries {
        let text =
            serde_json::to_string(entry).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        insert.execute(params![&*entry.node, i64::try_from(entry.seq).unwrap_or(i64::MAX), text])?;
    }
    drop(insert);
    transaction.execute(
        "DELETE FROM ledger WHERE position <= (SELECT max(position) FROM ledger) - ?1",
        [i64::try_from(ENTRIES_MAX).unwrap_or(i64::MAX)],
    )?;
    transaction.commit()
}

fn load(connection: &Connection) -> rusqlite::Result<Vec<Entry>> {
    let mut select = connection.prepare_cached("SELECT entry FROM ledger ORDER BY position")?;
    let rows = select.query_map([], |row| row.get::<_, String>(0))?;
    // An entry that a later docket wrote, and this one cannot read, is left out: it is history, not state.
    let readable = |text: String| serde_json::from_str(&text).ok();
    Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().filter_map(readable).collect())
}

#[cfg(test)]
mod tests {
    use actors::clock::Timestamp;
    use actors::supervisor::ledger::{Cause, Decided};

    use super::*;

    fn entry(seq: u64) -> Arc<Entry> {
        Arc::new(Entry {
            seq,
            at: Timestamp::from_millis(1),
            node: "host-1".into(),
            path: "docket/journal".into(),
            kind: "journal".into(),
            cause: Cause::Stop,
            message: None,
            attempt: 1,
            attempts_max: Some(5),
            within_ms: 60_000,
            decision: Decided::Restart,
            next_try_at: None,
        })
    }

    #[tokio::test]
    async fn the_last_thousand_are_there_after_reopening_each_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = DataDirectory::lock(folder.path()).expect("ours");
        let ledger = LedgerFile::new(&directory);
        let entries: Vec<_> = (1..=1_500).map(entry).collect();
        for batch in entries.chunks(100) {
            ledger.append(batch).await.expect("written");
        }
        // The same batch again, as after an unclear answer.
        ledger.append(&entries[1_400..]).await.expect("written");
        drop(ledger);
        let loaded = LedgerFile::new(&directory).load().await.expect("read");
        assert_eq!(loaded, entries[500..].iter().map(|entry| Entry::clone(entry)).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_row_that_cannot_be_read_hides_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = DataDirectory::lock(folder.path()).expect("ours");
        let ledger = LedgerFile::new(&directory);
        ledger.append(&[entry(1), entry(2)]).await.expect("written");
        let spoil = |connection: &mut Connection| connection.execute("UPDATE ledger SET entry = '{' WHERE seq = 1", []);
        assert_eq!(ledger.run(spoil).await.expect("spoilt"), 1);
        assert_eq!(ledger.load().await.expect("read"), [Entry::clone(&entry(2))]);
    }
}
