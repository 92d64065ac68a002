//! A subscriber's inbox in a file of its own, `data/NAME.db`: rows, documents, effects and position, one transaction a
//! batch, on one connection that has a thread to itself.
//!
//! `synchronous=NORMAL`: a killed process loses nothing; at the loss of power the newest transactions may be undone, all
//! of them from some point on. Rows, documents and position go back together, so the log brings the same events again.
//! Effects that had been performed in that time are performed again, under the same id: at least once.

mod discards;
pub mod export;
mod migration;
mod rows;
mod schema;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use actors::clock::Timestamp;
use actors::event_store::StoreError;
use actors::inbox::{
    Begun, Body, CatchingUp, Committed, Discard, DocumentKey, Generation, HoldState, Inbox, InboxError, Present,
    Progress, RecordedEffect, Renewed, Row, Term, Totals, Transaction, Which, Work,
};
use actors::order::OrderId;
use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use tokio::sync::{mpsc, oneshot};

use super::directory::DataDirectory;
use super::{Checkpoint, Durability, checkpoint, open_writer, spoils_connection, store_error};

/// Most calls that wait for the thread; further ones wait for their turn.
const JOBS_MAX: usize = 64;

/// A subscriber's file.
pub struct SqliteInbox {
    jobs: mpsc::Sender<Job>,
    /// Keeps others out of the folder.
    _directory: DataDirectory,
}

type Job = Box<dyn FnOnce(&mut File) + Send>;

struct File {
    path: PathBuf,
    name: String,
    connection: Option<Connection>,
}

/// Why something was not done.
enum Failed {
    /// It was not done, and nothing was changed.
    Certainly(InboxError),
    /// It may have been done.
    Perhaps(InboxError),
}

impl SqliteInbox {
    /// Opens the file of the subscriber `name`, which is created when it is absent.
    ///
    /// # Errors
    /// When it cannot be opened, or belongs to a subscriber with another name.
    pub fn open(directory: &DataDirectory, name: &str) -> Result<Self, InboxError> {
        let mut file = File { path: directory.file(&format!("{name}.db")), name: name.to_owned(), connection: None };
        file.connected()?;
        let (jobs, mut queue) = mpsc::channel::<Job>(JOBS_MAX);
        std::thread::Builder::new()
            .name(format!("inbox-{name}"))
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    // Whoever asked learns of it: its answer is dropped.
                    if catch_unwind(AssertUnwindSafe(|| job(&mut file))).is_err() {
                        file.connection = None;
                    }
                }
            })
            .map_err(|error| InboxError::Away(error.to_string()))?;
        Ok(Self { jobs, _directory: directory.clone() })
    }

    /// Empties the write-ahead log into the file and closes it, so that the next start has nothing to recover. A call
    /// after this one opens it again.
    pub async fn close(&self) {
        let closed = self.call(|file| {
            if let Some(connection) = file.connection.take()
                && let Err(error) = checkpoint(&connection, Checkpoint::Truncate)
            {
                tracing::warn!(%error, path = %file.path.display(), "the write-ahead log was not emptied at the end");
            }
            Ok(())
        });
        // Nobody is there to close it: then it is closed.
        drop(closed.await);
    }

    async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut File) -> Result<T, InboxError> + Send + 'static,
    ) -> Result<T, InboxError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |file| drop(answer.send(job(file))));
        let gone = || InboxError::Away("the thread that writes it is gone".to_owned());
        self.jobs.send(job).await.map_err(|_| gone())?;
        answered.await.map_err(|_| InboxError::Unknown("the thread that writes it did not answer".to_owned()))?
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, InboxError> {
        self.call(move |file| file.read(read)).await
    }
}

#[async_trait]
impl Inbox for SqliteInbox {
    async fn begin(&self) -> Result<Begun, InboxError> {
        self.call(|file| file.write(begin)).await
    }

    async fn renew(&self, term: Term) -> Result<Renewed, InboxError> {
        self.call(move |file| {
            file.write(|connection| {
                let standing = standing(connection)?;
                if standing.term != term {
                    return Ok(Change::Undo(Renewed::Superseded));
                }
                let renewed = Renewed::Held { lease: None, present: standing.present };
                if !standing.clean {
                    return Ok(Change::Undo(renewed));
                }
                set_clean(connection, false)?;
                Ok(Change::Keep(renewed))
            })
        })
        .await
    }

    /// The folder's lock is the lease.
    async fn release(&self, term: Term) -> Result<(), InboxError> {
        self.call(move |file| {
            file.write(|connection| {
                if standing(connection)?.term == term {
                    set_clean(connection, true)?;
                }
                Ok(Change::Keep(()))
            })
        })
        .await
    }

    async fn present(&self) -> Result<Present, InboxError> {
        self.read(|connection| standing(connection).map(|standing| standing.present)).await
    }

    async fn totals(&self, generation: Generation) -> Result<Totals, InboxError> {
        self.read(move |connection| rows::totals(connection, generation)).await
    }

    async fn rows(&self, generation: Generation, orders: Vec<OrderId>) -> Result<Vec<Row>, InboxError> {
        self.read(move |connection| rows::of_orders(connection, generation, &orders)).await
    }

    async fn due(
        &self,
        generation: Generation,
        work: Work,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Row>, InboxError> {
        self.read(move |connection| rows::due(connection, generation, work, until, limit)).await
    }

    async fn next_due(
        &self,
        generation: Generation,
        work: Work,
        after: Timestamp,
    ) -> Result<Option<Timestamp>, InboxError> {
        self.read(move |connection| rows::next_due(connection, generation, work, after)).await
    }

    async fn held(
        &self,
        generation: Generation,
        work: Work,
        states: &[HoldState],
        after: Option<OrderId>,
        limit: usize,
    ) -> Result<Vec<Row>, InboxError> {
        let states = states.to_vec();
        self.read(move |connection| rows::held(connection, generation, (work, &states), after, limit)).await
    }

    async fn documents(&self, generation: Generation, keys: Vec<DocumentKey>) -> Result<Vec<Option<Body>>, InboxError> {
        self.read(move |connection| {
            let mut select = connection
                .prepare_cached("SELECT body FROM documents WHERE generation = ?1 AND collection = ?2 AND id = ?3")?;
            keys.iter()
                .map(|key| {
                    let body = select.query_row(params![generation.0, key.collection, key.id], |row| {
                        row.get_ref(0)?.as_str().map(Body::from).map_err(rusqlite::Error::from)
                    });
                    body.optional()
                })
                .collect()
        })
        .await
    }

    async fn commit(&self, transaction: Arc<Transaction>) -> Result<Committed, InboxError> {
        self.call(move |file| file.write(|connection| write(connection, &transaction))).await
    }

    async fn waiting(&self, after: Option<OrderId>, limit: usize) -> Result<Vec<OrderId>, InboxError> {
        self.read(move |connection| rows::waiting(connection, after, limit)).await
    }

    async fn effects(
        &self,
        orders: Vec<OrderId>,
        which: Which,
        limit: usize,
    ) -> Result<Vec<RecordedEffect>, InboxError> {
        self.read(move |connection| rows::effects(connection, &orders, which, limit)).await
    }

    async fn discards(&self, order: OrderId) -> Result<Vec<Discard>, InboxError> {
        self.read(move |connection| discards::of_order(connection, order)).await
    }

    async fn set_paused(&self, paused: bool) -> Result<(), InboxError> {
        self.call(move |file| {
            file.write(|connection| {
                connection.execute("UPDATE subscriber SET paused = ?1", [paused])?;
                Ok(Change::Keep(()))
            })
        })
        .await
    }
}

/// How a transaction ends.
enum Change<T> {
    Keep(T),
    Undo(T),
}

impl File {
    fn connected(&mut self) -> Result<&mut Connection, InboxError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let connection = open_writer(&self.path, Durability::Prefix).map_err(|error| certainly(&error))?;
                schema::prepare(&connection, &self.name)?;
                connection
            }
        };
        Ok(self.connection.insert(connection))
    }

    fn read<T>(&mut self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, InboxError> {
        let answer = read(self.connected()?);
        answer.map_err(|error| {
            self.drop_spoilt(&error);
            certainly(&error)
        })
    }

    /// One transaction.
    fn write<T>(&mut self, write: impl FnOnce(&Connection) -> rusqlite::Result<Change<T>>) -> Result<T, InboxError> {
        let path = self.path.clone();
        let (error, failed) = match transact(self.connected()?, write) {
            Ok(answer) => return Ok(answer),
            Err((error, failed)) => (error, failed),
        };
        tracing::warn!(%error, path = %path.display(), "a transaction of a subscriber did not come to its end");
        self.drop_spoilt(&error);
        match failed {
            Failed::Certainly(error) => Err(error),
            Failed::Perhaps(error) => {
                self.connection = None;
                Err(error)
            }
        }
    }

    fn drop_spoilt(&mut self, error: &rusqlite::Error) {
        if spoils_connection(error) {
            self.connection = None;
        }
    }
}

fn transact<T>(
    connection: &Connection,
    write: impl FnOnce(&Connection) -> rusqlite::Result<Change<T>>,
) -> Result<T, (rusqlite::Error, Failed)> {
    let begun = connection.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([]));
    let answer = begun.and_then(|_| write(connection));
    match answer {
        Ok(Change::Keep(answer)) => commit(connection).map(|()| answer),
        Ok(Change::Undo(answer)) => match connection.execute_batch("ROLLBACK") {
            Ok(()) => Ok(answer),
            Err(error) => Err(rolled_back(connection, error)),
        },
        Err(error) => Err(rolled_back(connection, error)),
    }
}

fn commit(connection: &Connection) -> Result<(), (rusqlite::Error, Failed)> {
    match connection.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([])) {
        Ok(_) => Ok(()),
        // The write-ahead log had no room for the record that makes the transaction count: it never does.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => Err(rolled_back(connection, error)),
        Err(error) => Err(perhaps(error)),
    }
}

fn rolled_back(connection: &Connection, error: rusqlite::Error) -> (rusqlite::Error, Failed) {
    // After some errors SQLite has rolled back by itself.
    if connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok() {
        let why = certainly(&error);
        (error, Failed::Certainly(why))
    } else {
        perhaps(error)
    }
}

fn perhaps(error: rusqlite::Error) -> (rusqlite::Error, Failed) {
    let text = error.to_string();
    (error, Failed::Perhaps(InboxError::Unknown(text)))
}

fn certainly(error: &rusqlite::Error) -> InboxError {
    match store_error(error) {
        StoreError::Away(text) => InboxError::Away(text),
        StoreError::Full(text) => InboxError::Full(text),
        StoreError::Damaged(text) => InboxError::Damaged(text),
    }
}

/// What a file says about its subscriber in every transaction.
struct Standing {
    term: Term,
    clean: bool,
    present: Present,
}

fn standing(connection: &Connection) -> rusqlite::Result<Standing> {
    let mut select = connection.prepare_cached("SELECT term, clean, generation, paused, revision FROM subscriber")?;
    select.query_row([], |row| {
        let present =
            Present { generation: Generation(row.get(2)?), paused: row.get(3)?, revision: rows::counted(row, 4)? };
        Ok(Standing { term: Term(rows::counted(row, 0)?), clean: row.get(1)?, present })
    })
}

/// Whether the last term has not ended in order.
fn is_unclean(term: Term, clean: bool) -> bool {
    term != Term::default() && !clean
}

fn set_clean(connection: &Connection, clean: bool) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE subscriber SET clean = ?1")?.execute([clean]).map(drop)
}

fn begin(connection: &Connection) -> rusqlite::Result<Change<Begun>> {
    let before = standing(connection)?;
    connection.execute("UPDATE subscriber SET term = term + 1, clean = 0", [])?;
    let progress = connection.query_row("SELECT position, scanning, scan_after FROM subscriber", [], progress)?;
    Ok(Change::Keep(Begun {
        term: Term(before.term.0 + 1),
        lease: None,
        held_after: std::time::Duration::ZERO,
        present: before.present,
        unclean: is_unclean(before.term, before.clean),
        progress,
        totals: rows::totals(connection, before.present.generation)?,
    }))
}

fn progress(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<Progress>> {
    let Some(position) = row.get::<_, Option<String>>(0)? else { return Ok(None) };
    let position = serde_json::from_str(&position).map_err(|error| rows::unreadable(0, error))?;
    let after = row.get::<_, Option<String>>(2)?;
    let after = after.map(|key| key.parse()).transpose().map_err(|error| rows::unreadable(2, error))?;
    let catching_up = row.get::<_, bool>(1)?.then_some(CatchingUp { after });
    Ok(Some(Progress { position, catching_up }))
}

fn write(connection: &Connection, transaction: &Transaction) -> rusqlite::Result<Change<Committed>> {
    let standing = standing(connection)?;
    let is_present = transaction.term.is_none_or(|term| term == standing.term);
    if !is_present || transaction.generation != standing.present.generation {
        return Ok(Change::Undo(Committed::Superseded));
    }
    let fenced = rows::write(connection, transaction)?;
    if !fenced.is_empty() {
        return Ok(Change::Undo(Committed::Fenced(fenced)));
    }
    write_documents(connection, transaction)?;
    rows::write_effects(connection, transaction)?;
    discards::write(connection, transaction)?;
    if let Some(progress) = &transaction.progress {
        write_progress(connection, progress)?;
    }
    match transaction.term {
        None => count_revision(connection)?,
        // A term that goes on has not ended.
        Some(_) if standing.clean => set_clean(connection, false)?,
        Some(_) => {}
    }
    Ok(Change::Keep(Committed::Written))
}

fn write_documents(connection: &Connection, transaction: &Transaction) -> rusqlite::Result<()> {
    let generation = transaction.generation.0;
    for write in &transaction.documents {
        let key = &write.key;
        match &write.body {
            Some(body) => connection
                .prepare_cached(
                    "INSERT INTO documents (generation, collection, id, body) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (generation, collection, id) DO UPDATE SET body = excluded.body",
                )?
                .execute(params![generation, key.collection, key.id, &**body])?,
            None => connection
                .prepare_cached("DELETE FROM documents WHERE generation = ?1 AND collection = ?2 AND id = ?3")?
                .execute(params![generation, key.collection, key.id])?,
        };
    }
    Ok(())
}

fn write_progress(connection: &Connection, progress: &Progress) -> rusqlite::Result<()> {
    let position = rows::json(&progress.position)?;
    let after = progress.catching_up.and_then(|catching_up| catching_up.after).map(|key| key.to_string());
    connection
        .prepare_cached("UPDATE subscriber SET position = ?1, scanning = ?2, scan_after = ?3")?
        .execute(params![position, progress.catching_up.is_some(), after])?;
    Ok(())
}

fn count_revision(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE subscriber SET revision = revision + 1")?.execute([]).map(drop)
}
