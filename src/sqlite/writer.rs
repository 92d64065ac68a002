//! The thread with the only connection that writes. A group is a transaction; snapshots are written when nothing else
//! is to do. It never answers that something is stored before SQLite's commit has returned, and never that something is
//! not stored when it cannot know.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use actors::commit::{Commit, CommitId};
use actors::event_store::{Appended, Group, StoreError};
use actors::snapshots::Snapshot;
use rusqlite::{Connection, ErrorCode, params};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::oneshot;

use super::directory::DataDirectory;
use super::snapshots::{self, Waiting};
use super::store::{Head, Shared};
use super::{Checkpoint, Durability, checkpoint, spoils_connection, store_error};

/// Most jobs that wait for the thread; those who bring more wait themselves.
pub(super) const JOBS_MAX: usize = 64;
/// Most snapshots that wait until there is nothing better to do; then the oldest is given up.
const SNAPSHOTS_MAX: usize = 256;
/// Snapshots that are written at once, so that a group which arrives meanwhile does not wait long.
const SNAPSHOTS_AT_ONCE: usize = 16;
/// How long a snapshot waits for a quiet moment.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(1);
/// After how many bytes the checkpointer is to look at the write-ahead log, and what a group writes beside its commits.
const NUDGE_BYTES: usize = 1 << 20;
const PAGES_OF_A_GROUP_BYTES: usize = 16 << 10;
/// From how many bytes of the write-ahead log on the writer no longer leaves it to the checkpointer, which has readers
/// wait from 64 MiB on.
const LOG_BYTES_MAX: u64 = 96 << 20;

/// What the thread is asked for.
pub(super) enum Job {
    /// Write a group.
    Append(Group, oneshot::Sender<Vec<Appended>>),
    /// Write something else.
    Work(Work),
    /// Keep a snapshot.
    Save(Snapshot, oneshot::Sender<Result<(), StoreError>>),
    /// End.
    Close(oneshot::Sender<()>),
    /// Die, for a test.
    #[cfg(test)]
    Panic,
}

/// What is done with the connection, or with the reason why there is none. It says whether the connection can be used on.
pub(super) type Work = Box<dyn FnOnce(rusqlite::Result<&Connection>) -> bool + Send>;

/// Starts the thread. Without a connection it opens one when it needs it.
pub(super) fn start(
    shared: Arc<Shared>,
    directory: DataDirectory,
    connection: Option<Connection>,
) -> std::io::Result<()> {
    let mut writer = Writer { shared, connection, waiting: VecDeque::new(), unlooked_bytes: 0 };
    std::thread::Builder::new().name("writer".to_owned()).spawn(move || {
        let end = catch_unwind(AssertUnwindSafe(|| writer.run()));
        let shared = Arc::clone(&writer.shared);
        // The file is closed before others can know that the thread is gone, and the folder is free after that.
        drop(writer);
        drop(directory);
        match end {
            Ok(Some(closed)) => drop(closed.send(())),
            Ok(None) => {}
            Err(panic) => {
                let said = panic_text(panic.as_ref());
                tracing::error!(panic = %said, path = %shared.path.display(), "the writing thread died");
                shared.deaths.send_modify(|deaths| deaths.add(said));
            }
        }
    })?;
    Ok(())
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it did not say why".to_owned())
}

struct Writer {
    shared: Arc<Shared>,
    connection: Option<Connection>,
    waiting: VecDeque<Waiting>,
    /// Written since the checkpointer was last told to look, about.
    unlooked_bytes: usize,
}

/// A transaction that did not come to its end.
enum Failure {
    /// It had not been told to commit, or SQLite says for certain that it did not.
    RolledBack(rusqlite::Error),
    /// It may have committed.
    Unclear(rusqlite::Error),
}

/// A transaction that committed.
struct Written {
    outcomes: Vec<Appended>,
    /// The new rows.
    rows: Vec<(i64, Arc<Commit>)>,
}

impl Writer {
    /// Until it is told to close (whoever told it is returned), or nobody is there to tell it anything.
    fn run(&mut self) -> Option<oneshot::Sender<()>> {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut closing = None;
        loop {
            let next = match queue.try_recv() {
                Ok(job) => Some(job),
                Err(TryRecvError::Empty) if !self.waiting.is_empty() => {
                    self.save(SNAPSHOTS_AT_ONCE);
                    continue;
                }
                Err(TryRecvError::Empty) => queue.blocking_recv(),
                Err(TryRecvError::Disconnected) => None,
            };
            let Some(job) = next else {
                self.save(SNAPSHOTS_MAX);
                self.leave_nothing_to_recover();
                return closing;
            };
            match job {
                Job::Append(group, answer) => {
                    // Whoever does not wait for the outcomes takes them to be unknown.
                    let _ = answer.send(self.append(&group));
                    self.nudge(group.bytes());
                }
                Job::Work(work) => self.work(work),
                Job::Save(snapshot, answer) => self.keep(Waiting { snapshot, answer, since: Instant::now() }),
                Job::Close(closed) => {
                    queue.close();
                    closing = Some(closed);
                }
                #[cfg(test)]
                Job::Panic => panic!("told to"),
            }
            if self.waiting.front().is_some_and(|oldest| oldest.since.elapsed() > SNAPSHOT_PATIENCE) {
                self.save(SNAPSHOTS_AT_ONCE);
            }
        }
    }

    fn append(&mut self, group: &Group) -> Vec<Appended> {
        match self.write(group) {
            Ok(written) => {
                publish(&self.shared, written.rows);
                written.outcomes
            }
            Err(failure) => self.failed(failure, group.len()),
        }
    }

    fn work(&mut self, work: Work) {
        let shared = Arc::clone(&self.shared);
        let is_good = match self.connected() {
            Ok(connection) => {
                let _inside = shared.gate.enter();
                work(Ok(connection))
            }
            Err(error) => work(Err(error)),
        };
        if !is_good {
            // It may still be one whose commits are not synced ([`unsynced`]).
            self.connection = None;
        }
        self.nudge(0);
    }

    /// Lets the checkpointer look at the write-ahead log from time to time.
    fn nudge(&mut self, bytes: usize) {
        self.unlooked_bytes += bytes + PAGES_OF_A_GROUP_BYTES;
        if self.unlooked_bytes >= NUDGE_BYTES {
            self.unlooked_bytes = 0;
            // A full channel holds a nudge already.
            let _ = self.shared.nudge.try_send(());
            self.bound_log();
        }
    }

    /// Copies the write-ahead log itself when the checkpointer, starved or resting after an error, does not keep up: a
    /// group that waits is better than a log without bound.
    fn bound_log(&self) {
        if self.log_bytes() < LOG_BYTES_MAX {
            return;
        }
        let _turn = self.shared.gate.turn();
        let Some(connection) = self.connection.as_ref().filter(|_| self.log_bytes() >= LOG_BYTES_MAX) else { return };
        let _alone = self.shared.gate.close();
        if let Err(error) = checkpoint(connection, Checkpoint::Truncate) {
            tracing::warn!(%error, path = %self.shared.path.display(), "the write-ahead log could not be copied");
        }
    }

    fn log_bytes(&self) -> u64 {
        let mut log = self.shared.path.clone().into_os_string();
        log.push("-wal");
        std::fs::metadata(log).map_or(0, |log| log.len())
    }

    fn write(&mut self, group: &Group) -> Result<Written, Failure> {
        let shared = Arc::clone(&self.shared);
        let connection = self.connected().map_err(Failure::RolledBack)?;
        let _inside = shared.gate.enter();
        transact(connection, group)
    }

    fn failed(&mut self, failure: Failure, count: usize) -> Vec<Appended> {
        let path = self.shared.path.display();
        match failure {
            Failure::RolledBack(error) => {
                tracing::warn!(%error, %path, "a group was not written");
                if spoils_connection(&error) {
                    self.connection = None;
                }
                vec![Appended::NotDone(store_error(&error)); count]
            }
            Failure::Unclear(error) => {
                tracing::error!(%error, %path, "nobody knows whether a group was written");
                self.connection = None;
                vec![Appended::Unknown(store_error(&error)); count]
            }
        }
    }

    fn connected(&mut self) -> rusqlite::Result<&mut Connection> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.shared.reopen()?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Queues a snapshot in the place of an older one of its order.
    fn keep(&mut self, waiting: Waiting) {
        self.waiting.retain(|other| other.snapshot.end.order() != waiting.snapshot.end.order());
        if self.waiting.len() == SNAPSHOTS_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(waiting);
    }

    fn save(&mut self, at_once: usize) {
        let some: Vec<Waiting> = self.waiting.drain(..self.waiting.len().min(at_once)).collect();
        if some.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let saved = self.connected().and_then(|connection| {
            let _inside = shared.gate.enter();
            snapshots::save(connection, &some)
        });
        if saved.is_err() {
            // It may still be one whose commits are not synced ([`unsynced`]).
            self.connection = None;
        }
        for waiting in some {
            // Whoever does not wait for it does not want to know.
            let _ = waiting.answer.send(saved.as_ref().map_err(store_error).copied());
        }
    }

    fn leave_nothing_to_recover(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let _turn = self.shared.gate.turn();
        let _alone = self.shared.gate.close();
        if let Err(error) = checkpoint(&connection, Checkpoint::Truncate) {
            tracing::warn!(%error, "the write-ahead log was not emptied at the end: the next start does it");
        }
    }
}

fn transact(connection: &mut Connection, group: &Group) -> Result<Written, Failure> {
    match insert(connection, group) {
        Ok(written) => commit(connection).map(|()| written),
        Err(error) => Err(rolled_back(connection, error)),
    }
}

fn insert(connection: &Connection, group: &Group) -> rusqlite::Result<Written> {
    // The keyword keeps a reader's lock from having to be raised half-way, which cannot be waited for.
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let mut insert = connection
        .prepare_cached("INSERT INTO commits (key, id, body) VALUES (?1, ?2, ?3) ON CONFLICT (key) DO NOTHING")?;
    let mut written = Written { outcomes: Vec::with_capacity(group.len()), rows: Vec::with_capacity(group.len()) };
    for commit in group.commits() {
        let key = commit.key().to_string();
        if insert.execute(params![key, commit.id().0.as_bytes(), commit.encoded()])? == 1 {
            written.rows.push((connection.last_insert_rowid(), Arc::clone(commit)));
            written.outcomes.push(Appended::Written);
        } else {
            let ours = is_stored(connection, &key, commit.id())?;
            written.outcomes.push(if ours { Appended::Written } else { Appended::Conflict });
        }
    }
    Ok(written)
}

fn commit(connection: &Connection) -> Result<(), Failure> {
    let committed = connection.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]));
    match committed {
        Ok(_) => Ok(()),
        // The write-ahead log had no room for the record that makes the transaction count: it never does.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => Err(rolled_back(connection, error)),
        Err(error) => Err(Failure::Unclear(error)),
    }
}

fn rolled_back(connection: &Connection, error: rusqlite::Error) -> Failure {
    // After some errors SQLite has rolled back by itself.
    if connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok() {
        Failure::RolledBack(error)
    } else {
        Failure::Unclear(error)
    }
}

/// Whether the commit under that key is this one.
fn is_stored(connection: &Connection, key: &str, id: CommitId) -> rusqlite::Result<bool> {
    let mut select = connection.prepare_cached("SELECT id = ?2 FROM commits WHERE key = ?1")?;
    select.query_row(params![key, id.0.as_bytes()], |row| row.get(0))
}

/// Shows durable rows to those who follow.
fn publish(shared: &Shared, rows: Vec<(i64, Arc<Commit>)>) {
    let Some((position, last)) = rows.last() else { return };
    let head = Head { position: *position, commit: Some(last.id()) };
    let mut ring = shared.ring();
    for (position, commit) in rows {
        ring.push(position, commit);
    }
    drop(ring);
    shared.head.send_replace(head);
}

/// Runs `work` without a sync of its own: the next group's covers it. After an error the connection is to be closed.
pub(super) fn unsynced<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.pragma_update(None, "synchronous", Durability::Prefix.pragma())?;
    let result = work(connection);
    connection.pragma_update(None, "synchronous", Durability::EveryCommit.pragma())?;
    result
}
