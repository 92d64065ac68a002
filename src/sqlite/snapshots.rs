//! Snapshots in `orders.db`: one row an order, written by the writing thread when it has nothing better to do.

use std::time::Instant;

use actors::event_store::StoreError;
use actors::order::OrderId;
use actors::snapshots::{Snapshot, Snapshots};
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;

use super::readers::ReadError;
use super::store::Store;
use super::writer::{Job, unsynced};

/// A snapshot that waits for its moment.
pub(super) struct Waiting {
    pub(super) snapshot: Snapshot,
    pub(super) answer: oneshot::Sender<Result<(), StoreError>>,
    pub(super) since: Instant,
}

#[async_trait]
impl Snapshots for Store {
    async fn load(&self, order: OrderId) -> Result<Option<Snapshot>, StoreError> {
        self.shared.readers.run(move |connection| load(connection, order)).await
    }

    async fn save(&self, snapshot: Snapshot) -> Result<(), StoreError> {
        let given_up = || StoreError::Away("too busy to keep snapshots".to_owned());
        let (answer, answered) = oneshot::channel();
        self.jobs.try_send(Job::Save(snapshot, answer)).map_err(|_| given_up())?;
        answered.await.unwrap_or_else(|_| Err(given_up()))
    }
}

/// Writes some, all or none.
pub(super) fn save(connection: &Connection, some: &[Waiting]) -> rusqlite::Result<()> {
    unsynced(connection, |connection| {
        let transaction = connection.unchecked_transaction()?;
        let mut upsert = transaction.prepare_cached(
            "INSERT INTO snapshots (order_id, stream_end, schema, state) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (order_id) DO UPDATE
             SET stream_end = excluded.stream_end, schema = excluded.schema, state = excluded.state",
        )?;
        for Waiting { snapshot, .. } in some {
            let end = serde_json::to_string(&snapshot.end)
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
            upsert.execute(params![snapshot.end.order().to_string(), end, snapshot.schema, snapshot.state])?;
        }
        drop(upsert);
        transaction.commit()
    })
}

fn load(connection: &Connection, order: OrderId) -> Result<Option<Snapshot>, ReadError> {
    let mut select =
        connection.prepare_cached("SELECT stream_end, schema, state FROM snapshots WHERE order_id = ?1")?;
    let row = select
        .query_row([order.to_string()], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?, row.get::<_, String>(2)?))
        })
        .optional()?;
    let Some((end, schema, state)) = row else { return Ok(None) };
    // What cannot be read is ignored: the events say it all.
    Ok(serde_json::from_str(&end).ok().map(|end| Snapshot { end, schema, state }))
}
