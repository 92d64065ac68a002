//! The relay's checkpoint in `orders.db`: one row, written by the writing thread, without a sync of its own. At the loss of
//! power it may be an earlier one again, and then some events are published twice. There is no lease: the folder is this
//! process's alone.

use actors::checkpoint::{Begun, Checkpoint, CheckpointError, Checkpoints};
use actors::event_store::StoreError;
use actors::inbox::Term;
use async_trait::async_trait;
use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use super::store::Store;
use super::store_error;
use super::writer::{Job, unsynced};

/// Made when it is needed: a file of a docket that had no relay has none.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS relay (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        term INTEGER NOT NULL,
        checkpoint TEXT
    ) STRICT;
    INSERT INTO relay (only, term) VALUES (1, 0) ON CONFLICT DO NOTHING;";

#[async_trait]
impl Checkpoints for Store {
    async fn begin(&self) -> Result<Begun, CheckpointError> {
        let (term, stored) = self.write(begin).await?;
        let checkpoint = stored.as_deref().and_then(read);
        let term = u64::try_from(term).map_err(|_| StoreError::Damaged(format!("the relay is in the term {term}")))?;
        Ok(Begun { term: Term(term), lease: None, checkpoint })
    }

    async fn save(&self, term: Term, checkpoint: Option<Checkpoint>) -> Result<bool, CheckpointError> {
        let text = checkpoint.as_ref().map(serde_json::to_string).transpose();
        let text = text.map_err(|error| StoreError::Damaged(error.to_string()))?;
        // No term is beyond what a column holds: then none is this one.
        let term = i64::try_from(term.0).unwrap_or(i64::MAX);
        Ok(self.write(move |connection| save(connection, term, text.as_deref())).await?)
    }

    async fn release(&self, _: Term) -> Result<(), CheckpointError> {
        Ok(())
    }
}

impl Store {
    /// Does it on the writing thread, between groups, without a sync.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let gone = || StoreError::Away("the writing thread is gone".to_owned());
        let (answer, answered) = oneshot::channel();
        let job = Job::Work(Box::new(move |connection| {
            let done = connection.and_then(|connection| unsynced(connection, work));
            let is_good = done.is_ok();
            // Whoever does not wait for it does not want to know.
            let _ = answer.send(done.map_err(|error| store_error(&error)));
            is_good
        }));
        self.jobs.send(job).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// What nobody can read is as good as none.
fn read(text: &str) -> Option<Checkpoint> {
    let unreadable = |error: &serde_json::Error| {
        tracing::error!(%error, "the relay's checkpoint cannot be read: it begins at the end of the log");
    };
    serde_json::from_str(text).inspect_err(unreadable).ok()
}

fn begin(connection: &Connection) -> rusqlite::Result<(i64, Option<String>)> {
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(TABLE)?;
    let next = "UPDATE relay SET term = term + 1 RETURNING term, checkpoint";
    let begun = transaction.query_row(next, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    transaction.commit()?;
    Ok(begun)
}

fn save(connection: &Connection, term: i64, checkpoint: Option<&str>) -> rusqlite::Result<bool> {
    let sql = "UPDATE relay SET checkpoint = coalesce(?2, checkpoint) WHERE term = ?1";
    Ok(connection.prepare_cached(sql)?.execute(params![term, checkpoint])? == 1)
}
