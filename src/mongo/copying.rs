//! The mark of a copy into a database: which log is being brought there, by which run, and how far it is.
//!
//! It stands in the document that says which log the database holds, and whoever opens a database makes that
//! document first. So an empty database is taken by a copy or by a docket, never by both, and while the mark is there
//! no docket opens it. Of two runs the later one is in charge: the earlier one learns it when it saves how far it is.

use actors::log::LogId;
use mongodb::Collection;
use mongodb::bson::{DateTime, Document, doc};
use mongodb::options::ReadConcern;
use uuid::Uuid;

use super::error::is_duplicate_key;
use super::server::{Failed, Server};
use super::store::{COMMITS, COPYING, LOG, STORE};

/// The mark of one run of a copy.
pub struct Mark {
    server: Server,
    store: Collection<Document>,
    commits: Collection<Document>,
    source: LogId,
    run: Uuid,
}

/// What a database says of itself to those who want to copy into it.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Nothing is there.
    Nothing,
    /// A docket has opened it, or somebody else has written into it.
    InUse,
    /// A copy into it is not complete.
    Copying(Copy),
    /// A copy into it came to its end.
    Copied(Copy),
}

/// A copy into a database.
#[derive(Clone, Debug, PartialEq)]
pub struct Copy {
    /// Which log is brought there.
    pub source: LogId,
    /// The run that was last in charge.
    pub run: Uuid,
    /// How far it is, in the words of who copies; empty before they said.
    pub progress: String,
    /// When it came to its end.
    pub at: Option<DateTime>,
}

/// The field that says which copy came to its end.
const COPIED: &str = "copied";

impl Mark {
    /// For a new run that brings the log `source` into `database`. Nothing is written yet.
    pub fn new(server: &Server, database: &str, source: LogId) -> Self {
        let database = server.database(database);
        let (store, commits) = (database.collection(STORE), database.collection(COMMITS));
        Self { server: server.clone(), store, commits, source, run: Uuid::now_v7() }
    }

    /// Which run.
    pub fn run(&self) -> Uuid {
        self.run
    }

    /// What the database says of itself.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn look(&self) -> Result<Found, Failed> {
        // What was written just now is seen, also before a majority has it.
        let find = self.store.find_one(doc! { "_id": LOG }).read_concern(ReadConcern::linearizable());
        let Some(log) = self.server.answer(find.max_time(self.server.answer_within())).await? else {
            let commit = self.server.answer(self.commits.find_one(doc! {}).projection(doc! { "_id": 1 })).await?;
            return Ok(if commit.is_none() { Found::Nothing } else { Found::InUse });
        };
        let copying = log.get_document(COPYING).ok().and_then(read).map(Found::Copying);
        let copied = || log.get_document(COPIED).ok().and_then(read).map(Found::Copied);
        Ok(copying.or_else(copied).unwrap_or(Found::InUse))
    }

    /// Takes an empty database: it gets an id for its new log, and the mark. False when somebody else has it. When
    /// nobody knows whether it was done, it can be done again.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn set(&self) -> Result<bool, Failed> {
        let made = doc! {
            "_id": LOG,
            "id": Uuid::now_v7().to_string(),
            COPYING: { "source": self.source.0.to_string(), "run": self.run.to_string(), "progress": "" },
        };
        let made = self.server.answer(async {
            match self.store.insert_one(made).await {
                Ok(_) => Ok(true),
                Err(error) if is_duplicate_key(&error) => Ok(false),
                Err(error) => Err(error),
            }
        });
        if made.await? {
            return Ok(true);
        }
        Ok(matches!(self.look().await?, Found::Copying(copy) if copy.run == self.run))
    }

    /// Takes charge of a copy of the same log that was cut off. False when there is none.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn take_over(&self) -> Result<bool, Failed> {
        let cut_off = doc! { "_id": LOG, format!("{COPYING}.source"): self.source.0.to_string() };
        self.update(cut_off, doc! { "$set": { format!("{COPYING}.run"): self.run.to_string() } }).await
    }

    /// Says how far it is. False when another run is in charge.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn save(&self, progress: &str) -> Result<bool, Failed> {
        self.update(self.own(), doc! { "$set": { format!("{COPYING}.progress"): progress } }).await
    }

    /// Says that everything is there: from now on the database can be opened. False when another run is in charge. When
    /// nobody knows whether it was done, it can be done again.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn clear(&self, progress: &str) -> Result<bool, Failed> {
        // Field by field: the server does not set a document and a date in it at once.
        let copied = |field: &str| format!("{COPIED}.{field}");
        let cleared = doc! {
            "$set": {
                copied("source"): self.source.0.to_string(),
                copied("run"): self.run.to_string(),
                copied("progress"): progress,
            },
            "$currentDate": { copied("at"): true },
            "$unset": { COPYING: "" },
        };
        if self.update(self.own(), cleared).await? {
            return Ok(true);
        }
        Ok(matches!(self.look().await?, Found::Copied(copy) if copy.run == self.run))
    }

    fn own(&self) -> Document {
        doc! { "_id": LOG, format!("{COPYING}.run"): self.run.to_string() }
    }

    async fn update(&self, which: Document, how: Document) -> Result<bool, Failed> {
        Ok(self.server.answer(self.store.update_one(which, how)).await?.matched_count == 1)
    }
}

fn read(copy: &Document) -> Option<Copy> {
    Some(Copy {
        source: LogId(copy.get_str("source").ok()?.parse().ok()?),
        run: copy.get_str("run").ok()?.parse().ok()?,
        progress: copy.get_str("progress").ok()?.to_owned(),
        at: copy.get_datetime("at").ok().copied(),
    })
}
