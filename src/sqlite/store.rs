//! The order service's file, `orders.db`: commits, snapshots and the log's id. Opening it, and what its parts share.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actors::commit::CommitId;
use actors::log::LogId;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::directory::DataDirectory;
use super::gate::Gate;
use super::readers::Readers;
use super::ring::Ring;
use super::writer::{self, Job};
use super::{Checkpoint, Durability, checkpoint, checkpointer, open_writer};

/// The name of the file in the data folder.
pub const FILE_NAME: &str = "orders.db";
/// The version of the tables below, in `user_version`.
const SCHEMA: i64 = 1;
const TABLES: &str = "
    CREATE TABLE commits (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL UNIQUE,
        id BLOB NOT NULL,
        body TEXT NOT NULL
    ) STRICT;
    CREATE TABLE snapshots (
        order_id TEXT NOT NULL PRIMARY KEY,
        stream_end TEXT NOT NULL,
        schema INTEGER NOT NULL,
        state TEXT NOT NULL
    ) STRICT;
    CREATE TABLE log (id BLOB NOT NULL) STRICT;";

/// The order service's event store, log and snapshots in one SQLite file. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) shared: Arc<Shared>,
    pub(super) jobs: mpsc::Sender<Job>,
    /// Held so that nobody else can open the folder.
    directory: DataDirectory,
}

/// Why the file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// SQLite could not open it, or it is something else than a store.
    #[error("{} cannot be opened: {source}", path.display())]
    Sqlite {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// A newer docket has changed its tables.
    #[error("{} was written by a newer docket (its tables have version {schema})", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// The version of its tables.
        schema: i64,
    },
    /// A thread could not be started, or the write-ahead log not be written to disk.
    #[error("{} cannot be used: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What the writing thread, the readers and those who follow have in common.
pub(super) struct Shared {
    pub(super) path: PathBuf,
    pub(super) log: LogId,
    pub(super) gate: Arc<Gate>,
    pub(super) readers: Readers,
    pub(super) ring: Mutex<Ring>,
    /// The last durable row.
    pub(super) head: watch::Sender<Head>,
    /// Tells the checkpointer to look at the write-ahead log.
    pub(super) nudge: SyncSender<()>,
    /// The jobs, for whichever thread is the writer.
    pub(super) queue: Mutex<mpsc::Receiver<Job>>,
    /// Of writing threads.
    pub(super) deaths: watch::Sender<Deaths>,
}

/// The deaths of writing threads: counted, so that who waits for one misses none, however soon another is started.
#[derive(Clone, Debug, Default)]
pub(super) struct Deaths {
    times: u64,
    last_words: String,
    /// No thread was started since the last one.
    pub(super) dead: bool,
}

/// The end of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) position: i64,
    pub(super) commit: Option<CommitId>,
}

impl Store {
    /// Opens the store in a folder; an absent one is made. Returns when everything in it is durable, also what a killed
    /// process left unfinished. Blocks.
    ///
    /// # Errors
    /// When the file cannot be opened, is not a store, or is a newer docket's.
    pub fn open(directory: &DataDirectory) -> Result<Self, OpenError> {
        let path = directory.file(FILE_NAME);
        let sqlite = |source| OpenError::Sqlite { path: path.clone(), source };
        let mut connection = open_writer(&path, Durability::EveryCommit).map_err(sqlite)?;
        prepare(&mut connection, &path)?;
        make_durable(&connection, &path)?;
        let head = Head::of(&connection).map_err(sqlite)?;
        let log = log_id(&connection).map_err(sqlite)?;
        let io = |source| OpenError::Io { path: path.clone(), source };
        let gate = Arc::new(Gate::default());
        let nudge = checkpointer::start(path.clone(), Arc::clone(&gate)).map_err(io)?;
        let (jobs, queue) = mpsc::channel(writer::JOBS_MAX);
        let shared = Arc::new(Shared {
            readers: Readers::new(path.clone(), Arc::clone(&gate)),
            path: path.clone(),
            log,
            gate,
            ring: Mutex::new(Ring::behind(head.position)),
            head: watch::Sender::new(head),
            nudge,
            queue: Mutex::new(queue),
            deaths: watch::Sender::default(),
        });
        writer::start(Arc::clone(&shared), directory.clone(), Some(connection)).map_err(io)?;
        Ok(Self { shared, jobs, directory: directory.clone() })
    }

    /// Which log this is.
    pub fn log_id(&self) -> LogId {
        self.shared.log
    }

    /// The end of the log: the number of its last row, which is about how many there are, and the commit in it. Another
    /// one when anything was appended.
    pub fn end(&self) -> (i64, Option<CommitId>) {
        let head = *self.shared.head.borrow();
        (head.position, head.commit)
    }

    /// Waits until the writing thread has died of a panic and says what that said. What it was writing is unknown, what
    /// waits in its queue waits on: the store writes again after [`Store::restart_writer`].
    pub async fn writer_died(&self) -> String {
        let seen = self.shared.deaths.borrow().living();
        self.writer_died_after(&seen).await
    }

    /// As [`Store::writer_died`], when `seen` was read earlier.
    pub(super) async fn writer_died_after(&self, seen: &Deaths) -> String {
        let mut deaths = self.shared.deaths.subscribe();
        let died = deaths.wait_for(|deaths| deaths.times > seen.times).await.map(|deaths| deaths.last_words.clone());
        match died {
            Ok(last_words) => last_words,
            // Cannot be, the sender is in `self`; and if it were, no thread could die any more.
            Err(_) => std::future::pending().await,
        }
    }

    /// Starts a writing thread in the place of one that died.
    ///
    /// # Errors
    /// When the machine gives no thread.
    pub fn restart_writer(&self) -> std::io::Result<()> {
        if !self.shared.deaths.send_if_modified(|deaths| std::mem::take(&mut deaths.dead)) {
            return Ok(());
        }
        let started = writer::start(Arc::clone(&self.shared), self.directory.clone(), None);
        started.inspect_err(|error| self.shared.deaths.send_modify(|deaths| deaths.add(error.to_string())))
    }

    /// The writing thread dies of a panic, when it comes to it.
    #[cfg(test)]
    pub(crate) async fn panic_writer(&self) {
        assert!(self.jobs.send(Job::Panic).await.is_ok());
    }

    /// Writes what is queued and ends the writing thread. Later appends are not done.
    pub async fn close(&self) {
        let (closed, wait) = oneshot::channel();
        if self.jobs.send(Job::Close(closed)).await.is_ok() {
            // An error means the same: the thread is gone.
            let _ = wait.await;
        }
    }
}

impl Deaths {
    pub(super) fn add(&mut self, last_words: String) {
        *self = Self { times: self.times + 1, last_words, dead: true };
    }

    pub(super) fn last_words(&self) -> &str {
        &self.last_words
    }

    /// As it was while the last thread lived.
    fn living(&self) -> Self {
        Self { times: self.times - u64::from(self.dead), ..Self::default() }
    }
}

impl Shared {
    pub(super) fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the writing connection again after an error: what it had committed is then durable, what it had not is gone
    /// for good, and everybody goes on from what is really there.
    pub(super) fn reopen(&self) -> rusqlite::Result<Connection> {
        let _alone = self.gate.close();
        let connection = open_writer(&self.path, Durability::EveryCommit)?;
        let wal = checkpoint(&connection, Checkpoint::Truncate)?;
        if wal.busy {
            return Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                Some("the write-ahead log could not be emptied".to_owned()),
            ));
        }
        let head = Head::of(&connection)?;
        *self.ring() = Ring::behind(head.position);
        self.head.send_replace(head);
        Ok(connection)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("path", &self.path).field("log", &self.log).finish_non_exhaustive()
    }
}

impl Head {
    fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let last = connection
            .query_row("SELECT position, id FROM commits ORDER BY position DESC LIMIT 1", [], |row| {
                Ok(Self { position: row.get(0)?, commit: Some(CommitId(Uuid::from_bytes(row.get(1)?))) })
            })
            .optional()?;
        Ok(last.unwrap_or_default())
    }
}

/// Makes the tables of a new file.
fn prepare(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let sqlite = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let schema: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sqlite)?;
    match schema {
        0 => create(connection).map_err(sqlite),
        SCHEMA => Ok(()),
        schema => Err(OpenError::Newer { path: path.to_owned(), schema }),
    }
}

fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.execute("INSERT INTO log (id) VALUES (?1)", params![Uuid::now_v7().as_bytes()])?;
    transaction.pragma_update(None, "user_version", SCHEMA)?;
    transaction.commit()
}

fn log_id(connection: &Connection) -> rusqlite::Result<LogId> {
    let id = connection.query_row("SELECT id FROM log", [], |row| row.get(0))?;
    Ok(LogId(Uuid::from_bytes(id)))
}

/// A process that was killed between writing and syncing leaves commits that can be read and are not yet durable.
fn make_durable(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    match checkpoint(connection, Checkpoint::Truncate) {
        Ok(wal) if !wal.busy => return Ok(()),
        Ok(_) => {}
        // Without room the log stays as it is, so that orders can at least be read.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
            tracing::warn!(path = %path.display(), "the disk is full: orders can only be read");
        }
        Err(source) => return Err(OpenError::Sqlite { path: path.to_owned(), source }),
    }
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let synced = File::open(&wal).and_then(|wal| wal.sync_all());
    synced.map_err(|source| OpenError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use actors::event_store::{Appended, EventStore, StoreError};
    use actors::log::{From, Log};
    use actors::testing::commits::{first, group};

    use super::*;

    fn folder() -> (tempfile::TempDir, DataDirectory) {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = DataDirectory::lock(folder.path()).expect("free");
        (folder, directory)
    }

    fn all_written(outcomes: &[Appended]) -> bool {
        outcomes.iter().all(|outcome| matches!(outcome, Appended::Written))
    }

    #[tokio::test]
    async fn a_writer_that_dies_is_seen_and_can_be_replaced() {
        let (_folder, directory) = folder();
        let store = Store::open(&directory).expect("a store");
        let mut follow = store.follow(From::Now).await.expect("the end");
        store.panic_writer().await;
        assert_eq!(store.writer_died().await, "told to");
        let refused = store.append(group([first(1)])).await;
        assert!(matches!(refused[..], [Appended::NotDone(StoreError::Away(_))]), "{refused:?}");

        store.restart_writer().expect("a thread");
        let commit = first(1);
        assert!(all_written(&store.append(group([commit.clone()])).await));
        assert_eq!(follow.next(10).await.expect("it")[0].id(), commit.id());
    }

    #[tokio::test]
    async fn a_death_is_seen_also_when_another_writer_is_there_already() {
        let (_folder, directory) = folder();
        let store = Store::open(&directory).expect("a store");
        let mut waiting = std::pin::pin!(store.writer_died());
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        store.panic_writer().await;
        assert_eq!(store.writer_died().await, "told to");
        store.restart_writer().expect("a thread");
        assert_eq!(waiting.await, "told to");
    }

    #[tokio::test]
    async fn what_was_queued_is_written_before_it_closes() {
        let (_folder, directory) = folder();
        let store = Store::open(&directory).expect("a store");
        let appends: Vec<_> = (0..20)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { store.append(group([first(1)])).await })
            })
            .collect();
        tokio::task::yield_now().await;
        store.close().await;
        for append in appends {
            assert!(all_written(&append.await.expect("no panic")));
        }
        let late = store.append(group([first(1)])).await;
        assert!(matches!(late[..], [Appended::NotDone(StoreError::Away(_))]), "{late:?}");
    }

    #[tokio::test]
    async fn a_newer_file_is_refused() {
        let (_folder, directory) = folder();
        Store::open(&directory).expect("a store").close().await;
        let connection = Connection::open(directory.file(FILE_NAME)).expect("the file");
        connection.pragma_update(None, "user_version", SCHEMA + 1).expect("changed");
        let refused = Store::open(&directory).expect_err("too new").to_string();
        assert!(refused.contains("newer docket"), "{refused}");
    }
}
