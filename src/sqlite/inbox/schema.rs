//! The tables of a subscriber's file.

use actors::inbox::InboxError;
use rusqlite::{Connection, OptionalExtension};

use super::{certainly, migration};

/// The shape of these tables; a file of an earlier one is brought up to date, of a later one refused.
pub(super) const SCHEMA: i64 = 2;

/// Whose the file is, its term, how far the log was followed. `clean` says that the last term has ended in order.
const SUBSCRIBER: &str = "
CREATE TABLE subscriber (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  name TEXT NOT NULL,
  term INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  paused INTEGER NOT NULL,
  position TEXT,
  scanning INTEGER NOT NULL,
  scan_after TEXT,
  clean INTEGER NOT NULL,
  revision INTEGER NOT NULL
) STRICT;
";

/// `applying` says why the lane is not ready for handling events, `performing` the same for performing effects, as JSON;
/// what rows are looked up by stands beside it once more. All of them are null while the lane is ready.
pub(super) const INBOX: &str = "
CREATE TABLE inbox (
  generation INTEGER NOT NULL,
  order_id BLOB NOT NULL,
  applied INTEGER NOT NULL,
  applied_event BLOB,
  seen INTEGER NOT NULL,
  performed INTEGER NOT NULL,
  effects_waiting INTEGER NOT NULL,
  applying_state TEXT,
  applying_next_attempt_at INTEGER,
  applying TEXT,
  performing_state TEXT,
  performing_next_attempt_at INTEGER,
  performing TEXT,
  written_by BLOB NOT NULL,
  PRIMARY KEY (generation, order_id)
) STRICT, WITHOUT ROWID;
";

/// For the lanes that are not ready, which are few.
pub(super) const INBOX_INDEXES: &str = "
CREATE INDEX inbox_applying_due ON inbox (generation, applying_next_attempt_at)
  WHERE applying_next_attempt_at IS NOT NULL;
CREATE INDEX inbox_performing_due ON inbox (generation, performing_next_attempt_at)
  WHERE performing_next_attempt_at IS NOT NULL;
";

/// The same, by their state: one that somebody looks for is found among millions that wait in another. A file of this shape
/// may have been made before these.
const INBOX_BY_STATE: &str = "
DROP INDEX IF EXISTS inbox_applying_held;
DROP INDEX IF EXISTS inbox_performing_held;
CREATE INDEX IF NOT EXISTS inbox_applying_by_state ON inbox (generation, applying_state, order_id)
  WHERE applying_state IS NOT NULL;
CREATE INDEX IF NOT EXISTS inbox_performing_by_state ON inbox (generation, performing_state, order_id)
  WHERE performing_state IS NOT NULL;
";

/// What operators decided, as JSON, under the transaction that stored it: ids of transactions begin with their time.
pub(super) const DISCARDS: &str = "
CREATE TABLE discards (
  order_id BLOB NOT NULL,
  written_by BLOB NOT NULL,
  place INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (order_id, written_by, place)
) STRICT, WITHOUT ROWID;
";

const DOCUMENTS_AND_EFFECTS: &str = "
CREATE TABLE documents (
  generation INTEGER NOT NULL,
  collection TEXT NOT NULL,
  id TEXT NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (generation, collection, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE effects (
  order_id BLOB NOT NULL,
  version INTEGER NOT NULL,
  position INTEGER NOT NULL,
  event_id BLOB NOT NULL,
  last_of_event INTEGER NOT NULL,
  recorded_at INTEGER NOT NULL,
  origin TEXT NOT NULL,
  body TEXT NOT NULL,
  outcome TEXT,
  outcome_detail TEXT,
  outcome_at INTEGER,
  PRIMARY KEY (order_id, version, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX effects_waiting ON effects (order_id) WHERE outcome IS NULL;
";

/// Makes the tables when they are absent, and checks whose they are.
pub(super) fn prepare(connection: &Connection, name: &str) -> Result<(), InboxError> {
    // The only connection: what it has written is copied to the file after about this many pages.
    connection.pragma_update(None, "wal_autocheckpoint", 1000).map_err(|error| certainly(&error))?;
    make(connection, name).map_err(|error| certainly(&error))?;
    migration::bring_up_to_date(connection).map_err(|error| certainly(&error))?;
    let schema: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(|error| certainly(&error))?;
    if schema != SCHEMA {
        return Err(InboxError::Damaged(format!("its tables are of shape {schema}, this docket knows {SCHEMA}")));
    }
    connection.execute_batch(INBOX_BY_STATE).map_err(|error| certainly(&error))?;
    let owner: Option<String> = connection
        .query_row("SELECT name FROM subscriber", [], |row| row.get(0))
        .optional()
        .map_err(|error| certainly(&error))?;
    match owner {
        Some(owner) if owner == name => Ok(()),
        Some(owner) => Err(InboxError::Damaged(format!("it belongs to the subscriber {owner}, not to {name}"))),
        None => Err(InboxError::Damaged("it does not say whose it is".to_owned())),
    }
}

fn make(connection: &Connection, name: &str) -> rusqlite::Result<()> {
    let schema: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if schema != 0 {
        return Ok(());
    }
    let transaction = connection.unchecked_transaction()?;
    for tables in [SUBSCRIBER, INBOX, INBOX_INDEXES, DISCARDS, DOCUMENTS_AND_EFFECTS] {
        transaction.execute_batch(tables)?;
    }
    transaction.execute("INSERT INTO subscriber VALUES (1, ?1, 0, 0, 0, NULL, 0, NULL, 1, 0)", [name])?;
    transaction.pragma_update(None, "user_version", SCHEMA)?;
    transaction.commit()
}
