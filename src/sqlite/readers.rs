//! Connections that read, a bounded number of them, on tokio's threads for blocking work. Each read is short: one
//! statement, at most [`ROWS_MAX`] rows, [`BYTES_MAX`] bytes and [`TIME_MAX`], since a checkpoint cannot pass a reader.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actors::commit::Commit;
use actors::event_store::StoreError;
use rusqlite::{Connection, Params, Row};
use tokio::sync::Semaphore;

use super::gate::Gate;
use super::{open_reader, spoils_connection, store_error};

/// Most rows of one reading transaction.
pub(super) const ROWS_MAX: usize = 1_000;
/// Most bytes of the commits of one reading transaction; one commit may be larger.
const BYTES_MAX: usize = 4 << 20;
/// Longest reading transaction.
const TIME_MAX: Duration = Duration::from_millis(50);
/// Connections that read at the same time.
const CONNECTIONS_MAX: usize = 4;

/// The reading connections of a file.
#[derive(Debug)]
pub(super) struct Readers(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    path: PathBuf,
    gate: Arc<Gate>,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("{0}")]
    Damaged(String),
}

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Sqlite(error) => store_error(&error),
            ReadError::Damaged(text) => Self::Damaged(text),
        }
    }
}

impl Readers {
    pub(super) fn new(path: PathBuf, gate: Arc<Gate>) -> Self {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self(Arc::new(Pool { path, gate, idle: Mutex::default(), permits }))
    }

    /// Does `work` on a connection. Once begun it runs to its end, also when the future is dropped.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let pool = Arc::clone(&self.0);
        let away = |error: &dyn std::fmt::Display| StoreError::Away(format!("reading was broken off: {error}"));
        let permit = Arc::clone(&pool.permits).acquire_owned().await.map_err(|error| away(&error))?;
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            pool.read(work)
        });
        Ok(reading.await.map_err(|error| away(&error))??)
    }
}

impl Pool {
    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let _inside = self.gate.enter();
        let idle = self.idle().pop();
        let connection = idle.map_or_else(|| open_reader(&self.path), Ok)?;
        let result = work(&connection);
        match &result {
            Err(ReadError::Sqlite(error)) if spoils_connection(error) => {}
            Ok(_) | Err(_) => self.idle().push(connection),
        }
        result
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A commit and the number of its row.
pub(super) type Stored = (i64, Arc<Commit>);

/// The rows that `sql` selects as `position, key, id, body`, until the page is full. A row that cannot be read ends the
/// page, and is an error when it is the first.
pub(super) fn page(connection: &Connection, sql: &str, params: impl Params) -> Result<Vec<Stored>, ReadError> {
    let begun = Instant::now();
    let mut bytes = 0;
    let mut commits = Vec::new();
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    while let Some(row) = rows.next()? {
        match stored(row) {
            Ok((position, commit)) => {
                bytes += commit.encoded().len();
                commits.push((position, Arc::new(commit)));
            }
            Err(error) if commits.is_empty() => return Err(error),
            Err(_) => break,
        }
        if bytes >= BYTES_MAX || begun.elapsed() >= TIME_MAX {
            break;
        }
    }
    Ok(commits)
}

/// The commit of a row, which must be the one that the row says it is.
fn stored(row: &Row<'_>) -> Result<(i64, Commit), ReadError> {
    let position: i64 = row.get(0)?;
    let key = row.get_ref(1)?.as_str().unwrap_or("?");
    let damaged = |why: &dyn std::fmt::Display| ReadError::Damaged(format!("commit {key} at {position}: {why}"));
    let body = row.get_ref(3)?.as_str().map_err(|error| damaged(&error))?;
    let commit = Commit::decode(body).map_err(|error| damaged(&error))?;
    if commit.key().to_string() != key {
        return Err(damaged(&"it holds a commit of another key"));
    }
    if row.get_ref(2)?.as_blob().ok() != Some(commit.id().0.as_bytes().as_slice()) {
        return Err(damaged(&"it holds a commit of another id"));
    }
    Ok((position, commit))
}
