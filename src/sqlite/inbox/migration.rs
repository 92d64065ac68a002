//! Brings a file of an earlier shape up to date, in place. After a crash in the middle of it the file is as it was before.

use actors::clock::Timestamp;
use actors::inbox::{Attempt, Failure, FailureKind, Hold, HoldState, TransactionId};
use rusqlite::{Connection, Row, params};
use uuid::Uuid;

use super::rows::{json, unreadable};
use super::schema::{DISCARDS, INBOX, INBOX_INDEXES, SCHEMA};

/// In the first shape what was known of a lane that was not ready stood in columns of its own, only the last failure
/// was kept, and nobody wrote down whether the last term had ended in order: it may not have.
const SECOND_SHAPE: &str = "
DROP INDEX inbox_held;
DROP INDEX inbox_performing_held;
ALTER TABLE inbox RENAME TO inbox_before;
ALTER TABLE subscriber ADD COLUMN clean INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriber ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
";
const COPY_ROWS: &str = "INSERT INTO inbox
    SELECT generation, order_id, applied, applied_event, seen, performed, effects_waiting,
      hold_state, hold_next_attempt_at, NULL, performing_state, performing_next_attempt_at, NULL, written_by
    FROM inbox_before";
const HELD_BEFORE: &str = "SELECT generation, order_id, hold_state, hold_attempts, hold_next_attempt_at,
      hold_failure_kind, hold_failure, performing_state, performing_attempts, performing_next_attempt_at,
      performing_failure_kind, performing_failure, written_by
    FROM inbox_before WHERE hold_state IS NOT NULL OR performing_state IS NOT NULL";
const SET_HOLDS: &str = "UPDATE inbox SET applying = ?3, performing = ?4 WHERE generation = ?1 AND order_id = ?2";

/// Does nothing to a file that is up to date, or of a shape that this docket does not know.
pub(super) fn bring_up_to_date(connection: &Connection) -> rusqlite::Result<()> {
    let schema: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if schema != 1 {
        return Ok(());
    }
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(SECOND_SHAPE)?;
    transaction.execute_batch(INBOX)?;
    transaction.execute(COPY_ROWS, [])?;
    copy_holds(&transaction)?;
    transaction.execute_batch("DROP TABLE inbox_before")?;
    transaction.execute_batch(INBOX_INDEXES)?;
    transaction.execute_batch(DISCARDS)?;
    transaction.pragma_update(None, "user_version", SCHEMA)?;
    transaction.commit()
}

fn copy_holds(connection: &Connection) -> rusqlite::Result<()> {
    let mut select = connection.prepare(HELD_BEFORE)?;
    let mut update = connection.prepare(SET_HOLDS)?;
    let mut held = select.query([])?;
    while let Some(row) = held.next()? {
        let (generation, order): (u32, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let written_at = TransactionId(Uuid::from_bytes(row.get(12)?)).made_at();
        let holds = [hold(row, 2, written_at)?, hold(row, 7, written_at)?];
        let [applying, performing] = holds.map(|hold| hold.as_ref().map(json).transpose());
        update.execute(params![generation, order, applying?, performing?])?;
    }
    Ok(())
}

/// Since when it is held and when it failed was not kept: not later than the row was written.
fn hold(row: &Row<'_>, first: usize, written_at: Timestamp) -> rusqlite::Result<Option<Hold>> {
    let Some(state) = row.get::<_, Option<String>>(first)? else { return Ok(None) };
    let state = HoldState::from_name(&state).ok_or_else(|| unreadable(first, format!("unknown state {state}")))?;
    let next_attempt_at = row.get::<_, Option<i64>>(first + 2)?.map(Timestamp::from_millis);
    let mut hold = Hold::new(state, written_at, next_attempt_at);
    hold.attempts = row.get(first + 1)?;
    if let Some(kind) = row.get::<_, Option<String>>(first + 3)? {
        let kind = FailureKind::from_name(&kind)
            .ok_or_else(|| unreadable(first + 3, format!("unknown kind of failure {kind}")))?;
        let text = row.get::<_, Option<String>>(first + 4)?.unwrap_or_default().into();
        hold.keep(Attempt { at: written_at, failure: Failure { kind, text, place: None } });
    }
    Ok(Some(hold))
}
