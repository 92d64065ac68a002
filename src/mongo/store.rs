//! The order service's database: commits, snapshots and the ledger, and which log this is. The ports are in files of
//! their own beside this one.

use std::sync::Arc;

use actors::event_store::StoreError;
use actors::log::LogId;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use mongodb::options::ReturnDocument;
use mongodb::{Collection, Database};
use uuid::Uuid;

use super::error::{self, NAMESPACE_EXISTS};
use super::server::{Failed, Server};

/// The store of orders. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) server: Server,
    /// Each document a commit: `_id` its key, `id` its id, `body` its encoded text.
    pub(super) commits: Collection<RawDocumentBuf>,
    pub(super) log: LogId,
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It does not answer.
    #[error("mongodb.uri: {0}")]
    Away(StoreError),
    /// It holds something that docket has not written.
    #[error("the database {database} is not docket's: {reason}")]
    Foreign {
        /// Which database.
        database: String,
        /// What is wrong with it.
        reason: String,
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
    /// When the server does not answer, or the database is not docket's.
    pub async fn open(server: &Server, database: &str) -> Result<Self, OpenError> {
        let database = server.database(database);
        make_collection(server, &database, COMMITS).await?;
        let log = log_id(server, &database).await?;
        let shared = Shared { server: server.clone(), commits: database.collection(COMMITS), log };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Which log this is.
    pub fn log_id(&self) -> LogId {
        self.shared.log
    }
}

const COMMITS: &str = "commits";
/// Holds what there is one of.
const STORE: &str = "store";

async fn make_collection(server: &Server, database: &Database, name: &str) -> Result<(), OpenError> {
    let made = server.answer(async {
        match database.create_collection(name).await {
            Err(error) if error::code(&error) == Some(NAMESPACE_EXISTS) => Ok(()),
            made => made,
        }
    });
    Ok(made.await?)
}

/// The log's id, made by the first who opens the database.
async fn log_id(server: &Server, database: &Database) -> Result<LogId, OpenError> {
    let made = doc! { "$setOnInsert": { "id": Uuid::now_v7().to_string() } };
    let store = database.collection::<Document>(STORE);
    let found = store.find_one_and_update(doc! { "_id": "log" }, made);
    let found = server.answer(found.upsert(true).return_document(ReturnDocument::After)).await?;
    let id = found.as_ref().and_then(|found| found.get_str("id").ok()).and_then(|id| id.parse().ok());
    id.map(LogId).ok_or_else(|| OpenError::Foreign {
        database: database.name().to_owned(),
        reason: "its collection store has no readable id of the log".to_owned(),
    })
}
