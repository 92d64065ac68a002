//! The way out of one machine: brings what is in a data folder to MongoDB. Commits go as they are stored, under the same
//! keys and with the same ids; rows, documents and effects of every subscriber likewise.
//!
//! Not brought: positions and terms (the new store has a log of its own: each subscriber reads it once from its beginning
//! and finds that it knows everything), snapshots (made again), and the ledger (the history of this machine).
//!
//! It can be cut off anywhere and run again. Until all of it was read back and compared, no docket opens the target.

mod commits;
mod compare;
mod patience;

use std::path::PathBuf;

use actors::commit::CommitId;
use actors::event_store::StoreError;
use actors::log::LogId;
use serde::{Deserialize, Serialize};

use crate::mongo::copying::{Found, Mark};
use crate::mongo::server::Failed;
use crate::mongo::{self, Server, Unfit};
use crate::sqlite::store::FILE_NAME;
use crate::sqlite::{self, DataDirectory, DirectoryError};

pub use compare::Sum;
pub use patience::Patience;

/// Why a copy did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// There is no store in the folder.
    #[error("there is nothing to copy: {} is not there (data.directory)", .0.display())]
    Nothing(PathBuf),
    /// The folder cannot be used, or a docket uses it.
    #[error("{0}; stop docket before you copy")]
    Directory(#[from] DirectoryError),
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] sqlite::OpenError),
    /// Something in the folder cannot be read.
    #[error("{what} cannot be read: {why}")]
    Unreadable {
        /// What.
        what: String,
        /// Why.
        why: String,
    },
    /// MongoDB cannot be worked with at all.
    #[error("MongoDB: {0}")]
    Unusable(String),
    /// docket cannot run on it.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// What is there is not what this copy has brought.
    #[error("{0}")]
    NotOurs(String),
    /// The folder was copied before and has changed since.
    #[error("{0}")]
    Changed(String),
    /// Another run has taken over.
    #[error("another `docket copy` into the same database has taken over")]
    TakenOver,
    /// MongoDB was away for too long.
    #[error("MongoDB went away: {0}\nRun it again: it goes on where it stopped.")]
    Away(String),
    /// There is no room on MongoDB's disk.
    #[error("MongoDB has no room: {0}\nMake room and run it again: it goes on where it stopped.")]
    Full(String),
    /// What was read back is something else than what is in the folder.
    #[error("what is in MongoDB is not what is in the folder: {0}")]
    Differs(String),
}

/// What a copy came to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The database of orders.
    pub database: String,
    /// An earlier run had brought everything: nothing was changed.
    pub copied_before: bool,
    /// When it was complete, by MongoDB's clock.
    pub copied_at: Option<String>,
    /// The commits, as they were read back.
    pub commits: Sum,
    /// Files of the folder that belong to no subscriber and were left out.
    pub left_out: Vec<String>,
}

/// What is under way, for those who watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Something begins; about so many are to be done, and so many are done already.
    Begins {
        /// What: `commits`, `commits, read back`, …
        what: &'a str,
        /// How many there are, about.
        of: u64,
        /// How many are done.
        done: u64,
    },
    /// So many more are done.
    Done(u64),
}

/// A folder to be copied, which nobody else can use meanwhile.
pub struct Source {
    directory: DataDirectory,
    store: sqlite::Store,
}

/// Where to.
pub struct Target {
    /// The deployment.
    pub server: Server,
    /// The database of orders; that of a subscriber has its name behind it.
    pub database: String,
    /// How long to wait for it when it goes away.
    pub patience: Patience,
}

/// How far a copy is, as the mark has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Progress {
    /// The end of the folder's log when these commits were read.
    end: (i64, Option<CommitId>),
    /// Everything up to this key is there.
    after: Option<String>,
    /// How many those are.
    commits: u64,
    /// All are.
    all: bool,
    /// When it is complete: what was read back.
    sum: Option<Sum>,
}

impl Source {
    /// Takes a folder.
    ///
    /// # Errors
    /// When there is no store in it, a docket uses it, or it cannot be read.
    pub fn open(path: &std::path::Path) -> Result<Self, CopyError> {
        let file = path.join(FILE_NAME);
        if !file.is_file() {
            return Err(CopyError::Nothing(file));
        }
        let directory = DataDirectory::lock(path)?;
        let store = sqlite::Store::open(&directory)?;
        Ok(Self { directory, store })
    }

    /// Which log is in it.
    pub fn log_id(&self) -> LogId {
        self.store.log_id()
    }
}

/// Copies everything and compares it.
///
/// # Errors
/// Whatever keeps it from the end. What was brought stays, and no docket opens it before another run has brought the
/// rest.
pub async fn run(source: &Source, target: &Target, watch: &mut dyn FnMut(Step<'_>)) -> Result<Report, CopyError> {
    let hello = target.server.hello().await.map_err(|error| CopyError::Unusable(error.to_string()))?;
    hello.unfit().map_or(Ok(()), Err)?;
    let mark = Mark::new(&target.server, &target.database, source.log_id());
    let progress = match look(&mark, source, target).await? {
        Begun::Now(progress) => progress,
        Begun::Before(report) => return Ok(report),
    };
    let mut copying = Copying { source, target, mark, progress };
    let store = mongo::Store::open_incomplete(&target.server, &target.database).await;
    let store = store.map_err(|error| CopyError::Unusable(error.to_string()))?;
    commits::copy(&mut copying, &store, watch).await?;
    let sum = commits::compare(&copying, &store, watch).await?;
    copying.complete(sum).await
}

/// A copy under way.
struct Copying<'a> {
    source: &'a Source,
    target: &'a Target,
    mark: Mark,
    progress: Progress,
}

enum Begun {
    /// It goes on from here.
    Now(Progress),
    /// An earlier run did everything.
    Before(Report),
}

/// Whether the target is empty or this copy's own, and takes it.
async fn look(mark: &Mark, source: &Source, target: &Target) -> Result<Begun, CopyError> {
    let unusable = |failed: Failed| CopyError::Unusable(failed.into_error().to_string());
    let database = &target.database;
    let (took, progress) = match mark.look().await.map_err(unusable)? {
        Found::Nothing => (mark.set().await, Progress { end: source.store.end(), ..Progress::default() }),
        Found::InUse => return Err(in_use(database)),
        Found::Copying(copy) | Found::Copied(copy) if copy.source != source.log_id() => {
            return Err(CopyError::NotOurs(format!(
                "the database {database} holds a copy of another folder (its log is {}, this one's is {}); copy into \
                 another one (--database)",
                copy.source.0,
                source.log_id().0
            )));
        }
        Found::Copying(copy) => (mark.take_over().await, Progress::read(&copy.progress, source)),
        Found::Copied(copy) => {
            return Progress::read(&copy.progress, source).report(copy, source, target).map(Begun::Before);
        }
    };
    if took.map_err(unusable)? { Ok(Begun::Now(progress)) } else { Err(in_use(database)) }
}

fn in_use(database: &str) -> CopyError {
    CopyError::NotOurs(format!(
        "the database {database} is in use: a docket has opened it, or something else is in it. Nothing was written; copy \
         into another one (--database)"
    ))
}

impl Progress {
    /// What an earlier run has left. Where the folder has grown since, what is new may lie anywhere: all is gone through
    /// again, and what is there already is recognised.
    fn read(text: &str, source: &Source) -> Self {
        let end = source.store.end();
        match serde_json::from_str::<Self>(text) {
            Ok(progress) if progress.end == end => progress,
            Ok(_) | Err(_) => Self { end, ..Self::default() },
        }
    }

    fn report(self, copy: mongo::copying::Copy, source: &Source, target: &Target) -> Result<Report, CopyError> {
        let at = copy.at.and_then(|at| at.try_to_rfc3339_string().ok());
        let Some(commits) = self.sum else {
            return Err(CopyError::Changed(format!(
                "{} was copied to the database {} at {}, and has changed since: orders were placed or moved on in both. \
                 Nothing was written. What is new in the folder cannot be brought there any more",
                source.directory.path().display(),
                target.database,
                at.as_deref().unwrap_or("an unknown time"),
            )));
        };
        let database = target.database.clone();
        Ok(Report { database, copied_before: true, copied_at: at, commits, left_out: Vec::new() })
    }
}

impl Copying<'_> {
    async fn save(&self) -> Result<(), CopyError> {
        let progress = self.progress()?;
        let saved = self.target.patience.done(async || self.mark.save(&progress).await.map_err(Failed::into_error));
        if saved.await? { Ok(()) } else { Err(CopyError::TakenOver) }
    }

    async fn complete(mut self, commits: Sum) -> Result<Report, CopyError> {
        self.progress.sum = Some(commits.clone());
        let progress = self.progress()?;
        let patience = self.target.patience;
        if !patience.done(async || self.mark.clear(&progress).await.map_err(Failed::into_error)).await? {
            return Err(CopyError::TakenOver);
        }
        let database = self.target.database.clone();
        Ok(Report { database, copied_before: false, copied_at: None, commits, left_out: Vec::new() })
    }

    fn progress(&self) -> Result<String, CopyError> {
        serde_json::to_string(&self.progress).map_err(|error| CopyError::Unusable(error.to_string()))
    }
}

fn unreadable(what: &str) -> impl FnOnce(StoreError) -> CopyError {
    move |error| CopyError::Unreadable { what: what.to_owned(), why: error.to_string() }
}
