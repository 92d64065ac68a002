//! The way out of one machine: brings what is in a data folder to MongoDB. Commits go as they are stored, under the same
//! keys and with the same ids; rows, documents, effects and discards of every subscriber likewise.
//!
//! Not brought: positions and terms (the new store has a log of its own: each subscriber reads it once from its beginning
//! and finds that it knows everything), snapshots (made again), and the ledger (the history of this machine).
//!
//! It can be cut off anywhere and run again. Until all of it was read back and compared, no docket opens the target.

mod commits;
mod compare;
mod patience;
mod state;

use std::path::{Path, PathBuf};

use actors::event_store::StoreError;
use actors::log::LogId;
use serde::{Deserialize, Serialize};

use crate::mongo::copying::{Copy, Found, Mark};
use crate::mongo::server::Failed;
use crate::mongo::{self, Server, Unfit};
use crate::sqlite::store::FILE_NAME;
use crate::sqlite::{self, DataDirectory, DirectoryError};

use state::{Brought, Subscriber};

pub use compare::Sum;
pub use patience::Patience;
pub use state::Total;

/// Why a copy did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// There is no store in the folder.
    #[error("there is nothing to copy: {} is not there (data.directory)", .0.display())]
    Nothing(PathBuf),
    /// The folder cannot be used, or a docket uses it.
    #[error("{}", unusable(.0))]
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
    #[error(
        "what is in MongoDB is not what is in the folder: {0}\nDrop the databases of this copy and run it again, or copy \
         into another one (--database)."
    )]
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
    /// What the subscribers have, likewise.
    pub subscribers: Vec<Total>,
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
    subscribers: Vec<Subscriber>,
    left_out: Vec<String>,
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Progress {
    commits: commits::Brought,
    /// In the order of their names.
    subscribers: Vec<Brought>,
}

impl Source {
    /// Takes a folder. Nothing in it is changed.
    ///
    /// # Errors
    /// When there is no store in it, a docket uses it, or it cannot be read.
    pub async fn open(path: &Path) -> Result<Self, CopyError> {
        let file = path.join(FILE_NAME);
        if !file.is_file() {
            return Err(CopyError::Nothing(file));
        }
        let directory = DataDirectory::lock(path)?;
        let store = sqlite::Store::open(&directory)?;
        let mut source = Self { directory, store, subscribers: Vec::new(), left_out: Vec::new() };
        let (names, others) = state::subscribers(&source)?;
        for name in names {
            let subscriber = Subscriber::open(&source, &name).await?;
            source.subscribers.push(subscriber);
        }
        source.left_out = others.into_iter().filter(|file| !OUR_FILES.contains(&file.as_str())).collect();
        Ok(source)
    }

    /// Lets others have it, with nothing left in write-ahead logs.
    pub async fn close(self) {
        for subscriber in &self.subscribers {
            subscriber.close().await;
        }
        self.store.close().await;
    }

    /// Which log is in it.
    pub fn log_id(&self) -> LogId {
        self.store.log_id()
    }
}

/// Files without a subscriber: the store is copied, the ledger stays.
const OUR_FILES: [&str; 2] = [FILE_NAME, sqlite::ledger::FILE_NAME];

/// Copies everything and compares it.
///
/// # Errors
/// Whatever keeps it from the end. What was brought stays, and no docket opens it before another run has brought the
/// rest.
pub async fn run(source: &Source, target: &Target, watch: &mut dyn FnMut(Step<'_>)) -> Result<Report, CopyError> {
    let hello = target.server.hello().await.map_err(|error| CopyError::Unusable(error.to_string()))?;
    hello.unfit().map_or(Ok(()), Err)?;
    let mark = Mark::new(&target.server, &target.database, source.log_id());
    let progress = match begin(&mark, source, target).await? {
        Begun::Now(progress) => progress,
        Begun::Before(report) => return Ok(report),
    };
    let mut copying = Copying { source, target, mark, progress };
    let store = mongo::Store::open_incomplete(&target.server, &target.database).await;
    let store = store.map_err(|error| CopyError::Unusable(error.to_string()))?;
    commits::copy(&mut copying, &store, watch).await?;
    for index in 0..source.subscribers.len() {
        state::copy(&mut copying, index, watch).await?;
    }
    copying.progress.commits.total = Some(commits::compare(&copying, &store, watch).await?);
    for (index, subscriber) in source.subscribers.iter().enumerate() {
        copying.progress.subscribers[index].total = Some(state::compare(subscriber, target, watch).await?);
    }
    for subscriber in &source.subscribers {
        state::hand_over(subscriber, target).await?;
    }
    copying.complete().await
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

/// Whether the target is empty or this copy's own; then it is taken.
async fn begin(mark: &Mark, source: &Source, target: &Target) -> Result<Begun, CopyError> {
    let unusable = |error: StoreError| CopyError::Unusable(error.to_string());
    let found = mark.look().await.map_err(|failed| unusable(failed.into_error()))?;
    let (took, progress) = match found {
        Found::Nothing => {
            if let Some(occupied) = state::occupied(source, target).await.map_err(unusable)? {
                return Err(in_use(&occupied));
            }
            (mark.set().await, Progress::nothing(source))
        }
        Found::InUse => return Err(in_use(&target.database)),
        Found::Copying(copy) | Found::Copied(copy) if copy.source != source.log_id() => {
            return Err(another_source(&copy, source, target));
        }
        Found::Copying(copy) => (mark.take_over().await, Progress::left(&copy.progress, source)?),
        Found::Copied(copy) => return before(&copy, source, target).map(Begun::Before),
    };
    if took.map_err(|failed| unusable(failed.into_error()))? {
        Ok(Begun::Now(progress))
    } else {
        Err(in_use(&target.database))
    }
}

fn in_use(database: &str) -> CopyError {
    CopyError::NotOurs(format!(
        "the database {database} is in use: a docket has opened it, or something else is in it. Nothing was written; copy \
         into another one (--database)"
    ))
}

fn another_source(copy: &Copy, source: &Source, target: &Target) -> CopyError {
    CopyError::NotOurs(format!(
        "the database {} holds a copy of another folder (its log is {}, that of this folder {}). Nothing was written; copy \
         into another one (--database)",
        target.database,
        copy.source.0,
        source.log_id().0
    ))
}

/// What an earlier run has brought, if that is still what is in the folder.
fn before(copy: &Copy, source: &Source, target: &Target) -> Result<Report, CopyError> {
    let at = copy.at.and_then(|at| at.try_to_rfc3339_string().ok());
    let progress: Option<Progress> = serde_json::from_str(&copy.progress).ok();
    match progress.filter(|progress| progress.is_of(source)).and_then(|progress| progress.report(source, target)) {
        Some(report) => Ok(Report { copied_before: true, copied_at: at, ..report }),
        None => Err(CopyError::Changed(format!(
            "{} was copied to the database {} before ({}), and docket has run on it since: the two have gone different \
             ways. Nothing was written",
            source.directory.path().display(),
            target.database,
            at.as_deref().unwrap_or("nobody knows when")
        ))),
    }
}

impl Progress {
    fn nothing(source: &Source) -> Self {
        let subscribers = source.subscribers.iter().map(Brought::nothing).collect();
        Self { commits: commits::Brought::nothing(source), subscribers }
    }

    /// What an earlier run has left. What was brought of a file that has changed since is brought again: commits that
    /// are there already are recognised, a subscriber's state is made anew.
    fn left(text: &str, source: &Source) -> Result<Self, CopyError> {
        let mut progress = Self::nothing(source);
        let Ok(left) = serde_json::from_str::<Self>(text) else { return Ok(progress) };
        if left.commits.end == progress.commits.end {
            progress.commits = left.commits;
        }
        for brought in left.subscribers {
            match progress.subscribers.iter_mut().find(|subscriber| subscriber.name == brought.name) {
                Some(subscriber) if subscriber.term == brought.term => *subscriber = brought,
                Some(_) => {}
                None => {
                    let name = brought.name;
                    return Err(CopyError::Changed(format!(
                        "{name}.db was in the folder when the copy began, and is gone"
                    )));
                }
            }
        }
        Ok(progress)
    }

    /// Whether the folder has not changed since.
    fn is_of(&self, source: &Source) -> bool {
        let now = Self::nothing(source);
        let terms = |progress: &Self| -> Vec<_> {
            progress.subscribers.iter().map(|brought| (brought.name.clone(), brought.term)).collect()
        };
        self.commits.end == now.commits.end && terms(self) == terms(&now)
    }

    /// When everything was compared.
    fn report(self, source: &Source, target: &Target) -> Option<Report> {
        Some(Report {
            database: target.database.clone(),
            copied_before: false,
            copied_at: None,
            commits: self.commits.total?,
            subscribers: self.subscribers.into_iter().map(|brought| brought.total).collect::<Option<_>>()?,
            left_out: source.left_out.clone(),
        })
    }
}

impl Copying<'_> {
    async fn save(&self) -> Result<(), CopyError> {
        let progress = self.encoded()?;
        let saved = self.target.patience.done(async || self.mark.save(&progress).await.map_err(Failed::into_error));
        if saved.await? { Ok(()) } else { Err(CopyError::TakenOver) }
    }

    async fn complete(self) -> Result<Report, CopyError> {
        let progress = self.encoded()?;
        let cleared = self.target.patience.done(async || self.mark.clear(&progress).await.map_err(Failed::into_error));
        if !cleared.await? {
            return Err(CopyError::TakenOver);
        }
        let report = self.progress.report(self.source, self.target);
        report.ok_or_else(|| CopyError::Differs("not everything was compared".to_owned()))
    }

    fn encoded(&self) -> Result<String, CopyError> {
        serde_json::to_string(&self.progress).map_err(|error| CopyError::Unusable(error.to_string()))
    }
}

fn unusable(folder: &DirectoryError) -> String {
    match folder {
        DirectoryError::InUse { .. } => format!("{folder}: stop it before you copy"),
        DirectoryError::Io { .. } => folder.to_string(),
    }
}

fn unreadable(what: &str) -> impl FnOnce(StoreError) -> CopyError {
    move |error| CopyError::Unreadable { what: what.to_owned(), why: error.to_string() }
}
