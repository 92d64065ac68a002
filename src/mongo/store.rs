//! The order service's database: commits and snapshots, and which log this is. The ports are in files of
//! their own beside this one.

use std::sync::Arc;

use actors::event_store::StoreError;
use actors::log::LogId;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use mongodb::options::{Acknowledgment, CollectionOptions, ReadConcern, WriteConcern};
use mongodb::{Collection, Database};
use uuid::Uuid;

use super::error::{self, NAMESPACE_EXISTS};
use super::log::{Hubs, Source};
use super::lookup::Lookup;
use super::server::{Failed, Server, Unfit};
use super::snapshots;

/// The store of orders. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) server: Server,
    /// Each document a commit, as `commits.rs` has it.
    pub(super) commits: Collection<RawDocumentBuf>,
    pub(super) lookup: Arc<Lookup>,
    pub(super) snapshots: Collection<snapshots::Stored>,
    pub(super) log: LogId,
    pub(super) hubs: Arc<Hubs>,
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It does not answer.
    #[error("mongodb.uri: {0}")]
    Away(StoreError),
    /// docket cannot run on it.
    #[error("mongodb.uri: {0}")]
    Unfit(Unfit),
    /// It holds something that docket has not written.
    #[error("the database {database} is not docket's: {reason}")]
    Foreign {
        /// Which database.
        database: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `docket copy` has not come to its end there.
    #[error(
        "a copy into the database {database} is not complete: run `docket copy` again, it goes on where it stopped"
    )]
    Incomplete {
        /// Which database.
        database: String,
    },
}

impl From<Failed> for OpenError {
    fn from(failed: Failed) -> Self {
        Self::Away(failed.into_error())
    }
}

impl Store {
    /// Opens the database, and makes what is missing in it: the collection of commits, so that a change stream on it
    /// begins before the first one, and an id for the log.
    ///
    /// # Errors
    /// When the server does not answer or will not do, or the database is not docket's, or a copy into it is not complete.
    pub async fn open(server: &Server, database: &str) -> Result<Self, OpenError> {
        Self::open_in(server, database, Copied::Whole).await
    }

    /// Opens the database also while a copy into it is not complete: for the copy itself.
    ///
    /// # Errors
    /// When the server does not answer or will not do, or the database is not docket's.
    pub async fn open_incomplete(server: &Server, database: &str) -> Result<Self, OpenError> {
        Self::open_in(server, database, Copied::InPart).await
    }

    async fn open_in(server: &Server, database: &str, least: Copied) -> Result<Self, OpenError> {
        if let Some(unfit) = server.hello().await.map_err(OpenError::Away)?.unfit() {
            return Err(OpenError::Unfit(unfit));
        }
        let database = server.database(database);
        make_collection(server, &database, COMMITS).await?;
        let log = log_id(server, &database, least).await?;
        let commits = database.collection(COMMITS);
        let lookup = Arc::new(Lookup::new(server, &commits));
        let source = Source::new(server.clone(), database.clone(), Arc::clone(&lookup), log);
        let shared = Shared {
            lookup,
            snapshots: database.collection_with_options(SNAPSHOTS, may_be_lost()),
            server: server.clone(),
            commits,
            log,
            hubs: Arc::new(Hubs::new(Arc::new(source))),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Which log this is.
    pub fn log_id(&self) -> LogId {
        self.shared.log
    }
}

/// How much of a copy must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copied {
    Whole,
    InPart,
}

pub(super) const COMMITS: &str = "commits";
const SNAPSHOTS: &str = "snapshots";
/// Holds what there is one of.
pub(super) const STORE: &str = "store";
/// The document of [`STORE`] that says which log this is. Whoever opens the database first makes it.
pub(super) const LOG: &str = "log";
/// The field of [`LOG`] that is there while a copy into the database is not complete.
pub(super) const COPYING: &str = "copying";

/// For what may be lost with a primary: nobody waits for a majority. What was written is read at once.
pub(super) fn may_be_lost() -> CollectionOptions {
    let write = WriteConcern::builder().w(Acknowledgment::Nodes(1)).build();
    CollectionOptions::builder().read_concern(ReadConcern::local()).write_concern(write).build()
}

async fn make_collection(server: &Server, database: &Database, name: &str) -> Result<(), OpenError> {
    let made = server.answer(async {
        match database.create_collection(name).await {
            Err(error) if error::code(&error) == Some(NAMESPACE_EXISTS) => Ok(()),
            made => made,
        }
    });
    Ok(made.await?)
}

/// The log's id, made by the first who opens the database. Of several at once one makes it, and all read it afterwards.
async fn log_id(server: &Server, database: &Database, least: Copied) -> Result<LogId, OpenError> {
    let store = database.collection::<Document>(STORE);
    let new = doc! { "$setOnInsert": { "id": Uuid::now_v7().to_string() } };
    let made = server.answer(async {
        match store.update_one(doc! { "_id": LOG }, new).upsert(true).await {
            Err(error) if error::is_duplicate_key(&error) => Ok(()),
            made => made.map(drop),
        }
    });
    made.await?;
    // Who lost may be here before a majority has what the winner wrote, and then a read of what a majority has finds none.
    let find = store.find_one(doc! { "_id": LOG }).read_concern(ReadConcern::linearizable());
    let found = server.answer(find.max_time(server.answer_within())).await?;
    if least == Copied::Whole && found.as_ref().is_some_and(|found| found.contains_key(COPYING)) {
        return Err(OpenError::Incomplete { database: database.name().to_owned() });
    }
    let id = found.as_ref().and_then(|found| found.get_str("id").ok()).and_then(|id| id.parse().ok());
    id.map(LogId).ok_or_else(|| OpenError::Foreign {
        database: database.name().to_owned(),
        reason: "its collection store has no readable id of the log".to_owned(),
    })
}
