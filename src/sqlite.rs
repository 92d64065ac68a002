//! The embedded adapters: one SQLite file a service in `data.directory`, nothing to install.
//!
//! Each file has one writing connection on a thread of its own, and readers beside it (WAL). Two processes never share
//! a folder: a [`DataDirectory`] is its lock. This module has what all of the files share: how they are opened and
//! what SQLite's errors mean to a port. It never decides what is stored.

mod checkpoint;
mod checkpointer;
pub mod directory;
mod event_store;
mod gate;
pub mod inbox;
pub mod ledger;
mod log;
mod readers;
mod ring;
mod snapshots;
pub mod store;
mod writer;

use std::path::Path;
use std::time::Duration;

use actors::event_store::StoreError;
use rusqlite::{Connection, ErrorCode};

pub use directory::{DataDirectory, DirectoryError};
pub use inbox::SqliteInbox;
pub use store::{OpenError, Store};

/// How long a connection waits for another one's lock before it says that the file is busy.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// To how many bytes a write-ahead log file is cut when it begins anew.
const WAL_BYTES_KEPT: i64 = 64 << 20;
/// Statements that a connection keeps compiled.
const STATEMENTS_KEPT: usize = 64;

/// What survives the loss of power. A killed process loses nothing in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Every transaction whose commit returned (`synchronous = FULL`).
    EveryCommit,
    /// A prefix of the transactions (`synchronous = NORMAL`): for what can be made again from the log.
    Prefix,
}

/// Opens the writing connection of a file, which is created when it is absent. Nothing is checkpointed by itself: see
/// [`checkpoint()`].
///
/// # Errors
/// When the file cannot be opened or is no database.
pub fn open_writer(path: &Path, durability: Durability) -> rusqlite::Result<Connection> {
    let connection = open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", durability.pragma())?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    Ok(connection)
}

/// Opens a connection that can only read, beside a writing one.
///
/// # Errors
/// When the file cannot be opened or is no database.
pub fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = open(path)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(connection)
}

impl Durability {
    fn pragma(self) -> &'static str {
        match self {
            Self::EveryCommit => "FULL",
            Self::Prefix => "NORMAL",
        }
    }
}

/// How a checkpoint treats those who use the file meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// Copies nothing: only says how long the log is.
    Look,
    /// Copies what it can without waiting for anybody.
    Passive,
    /// Waits for writers and readers, copies everything and empties the write-ahead log. What is in the file then is
    /// durable, also what a killed process wrote without having synced it.
    Truncate,
}

/// How long the write-ahead log is, in pages, and how many of them are copied to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wal {
    /// Whether somebody was in the way, so that not everything was copied.
    pub busy: bool,
    /// Pages in the log.
    pub pages: i64,
    /// Pages that are in the file, too.
    pub copied: i64,
}

/// Copies the write-ahead log to the file.
///
/// # Errors
/// When it cannot be read or written. What is committed stays in the write-ahead log.
pub fn checkpoint(connection: &Connection, checkpoint: Checkpoint) -> rusqlite::Result<Wal> {
    let sql = match checkpoint {
        Checkpoint::Look => "PRAGMA wal_checkpoint(NOOP)",
        Checkpoint::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
        Checkpoint::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
    };
    connection.query_row(sql, [], |row| Ok(Wal { busy: row.get(0)?, pages: row.get(1)?, copied: row.get(2)? }))
}

/// What an error means to those who use a port.
pub fn store_error(error: &rusqlite::Error) -> StoreError {
    let text = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full(text),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged(text),
        Some(_) => StoreError::Away(text),
        // Without a code of SQLite's: a column has not the type that was written.
        None => StoreError::Damaged(text),
    }
}

/// Whether a connection is to be closed after that error: what it believes about the file may be wrong.
pub fn spoils_connection(error: &rusqlite::Error) -> bool {
    !matches!(
        error.sqlite_error_code(),
        None | Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::ConstraintViolation)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_cannot_write() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        let writer = open_writer(&path, Durability::EveryCommit).expect("a writer");
        writer.execute_batch("CREATE TABLE t (a) STRICT").expect_err("STRICT wants a type");
        writer.execute_batch("CREATE TABLE t (a INTEGER) STRICT").expect("a table");
        let reader = open_reader(&path).expect("a reader");
        let refused = reader.execute("INSERT INTO t VALUES (1)", []).expect_err("only reads");
        assert_eq!(refused.sqlite_error_code(), Some(ErrorCode::ReadOnly));
    }

    #[test]
    fn a_full_file_is_full_and_not_spoilt() {
        let folder = tempfile::tempdir().expect("a folder");
        let writer = open_writer(&folder.path().join("a.db"), Durability::EveryCommit).expect("a writer");
        writer.execute_batch("CREATE TABLE t (a BLOB) STRICT; PRAGMA max_page_count = 3").expect("a small file");
        let full = writer.execute("INSERT INTO t VALUES (zeroblob(100000))", []).expect_err("no room");
        assert!(matches!(store_error(&full), StoreError::Full(_)), "{full}");
        assert!(!spoils_connection(&full));
        writer.execute("INSERT INTO t VALUES (zeroblob(10))", []).expect("there is room for this");
    }

    #[test]
    fn something_else_is_damaged() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        std::fs::write(&path, [7; 5000]).expect("a file");
        let error = open_writer(&path, Durability::EveryCommit).expect_err("no database");
        assert!(matches!(store_error(&error), StoreError::Damaged(_)), "{error}");
    }
}
