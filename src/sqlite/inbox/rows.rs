//! Inbox rows and effects as SQL.

use actors::clock::Timestamp;
use actors::event::EventId;
use actors::inbox::{
    Body, EffectId, Failure, FailureKind, Generation, Hold, HoldState, Lane, NewEffect, Outcome, OutcomeKind,
    RecordedEffect, Row, RowWrite, Totals, Transaction, TransactionId, Which, Work,
};
use actors::order::{OrderId, Version};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, ToSql, params};
use serde::Serialize;
use uuid::Uuid;

use super::export::EffectPlace;

macro_rules! columns {
    () => {
        "order_id, applied, applied_event, seen, performed, effects_waiting,
         hold_state, hold_attempts, hold_next_attempt_at, hold_failure_kind, hold_failure,
         performing_state, performing_attempts, performing_next_attempt_at, performing_failure_kind,
         performing_failure, written_by"
    };
}

const SELECT_ONE: &str = concat!("SELECT ", columns!(), " FROM inbox WHERE generation = ?1 AND order_id = ?2");
const SELECT_PAGE: &str =
    concat!("SELECT ", columns!(), " FROM inbox WHERE generation = ?1 AND order_id > ?2 ORDER BY order_id LIMIT ?3");
const SELECT_DUE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM inbox INDEXED BY inbox_held
      WHERE generation = ?1 AND hold_state IS NOT NULL AND hold_next_attempt_at <= ?2
      ORDER BY hold_next_attempt_at LIMIT ?3"
);
const SELECT_DUE_PERFORMING: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM inbox INDEXED BY inbox_performing_held
      WHERE generation = ?1 AND performing_state IS NOT NULL AND performing_next_attempt_at <= ?2
      ORDER BY performing_next_attempt_at LIMIT ?3"
);
const NEXT_DUE: &str = "SELECT MIN(hold_next_attempt_at) FROM inbox INDEXED BY inbox_held
    WHERE generation = ?1 AND hold_state IS NOT NULL AND hold_next_attempt_at > ?2";
const NEXT_DUE_PERFORMING: &str = "SELECT MIN(performing_next_attempt_at) FROM inbox INDEXED BY inbox_performing_held
    WHERE generation = ?1 AND performing_state IS NOT NULL AND performing_next_attempt_at > ?2";
const SELECT_WAITING: &str = "SELECT DISTINCT order_id FROM effects INDEXED BY effects_waiting
    WHERE outcome IS NULL AND order_id > ?1 AND NOT EXISTS (
      SELECT 1 FROM inbox WHERE inbox.order_id = effects.order_id AND performing_state IS NOT NULL
      AND generation = (SELECT generation FROM subscriber))
    ORDER BY order_id LIMIT ?2";
const SELECT_EFFECTS: &str = "SELECT order_id, version, position, event_id, last_of_event, recorded_at, origin, body,
    outcome, outcome_detail, outcome_at FROM effects WHERE order_id = ?1 AND (?2 OR outcome IS NULL)
    ORDER BY version, position LIMIT ?3";
const SELECT_EFFECTS_PAGE: &str = "SELECT order_id, version, position, event_id, last_of_event, recorded_at, origin,
    body, outcome, outcome_detail, outcome_at FROM effects WHERE (order_id, version, position) > (?1, ?2, ?3)
    ORDER BY order_id, version, position LIMIT ?4";
const SET_OUTCOME: &str = "UPDATE effects SET outcome = ?4, outcome_detail = ?5, outcome_at = ?6
    WHERE order_id = ?1 AND event_id = ?2 AND position = ?3 AND outcome IS NULL";
const INSERT: &str = concat!(
    "INSERT INTO inbox (generation, ",
    columns!(),
    ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
      ON CONFLICT (generation, order_id) DO NOTHING"
);
const UPDATE: &str = "UPDATE inbox SET applied = ?3, applied_event = ?4, seen = ?5, performed = ?6,
    effects_waiting = ?7, hold_state = ?8, hold_attempts = ?9, hold_next_attempt_at = ?10, hold_failure_kind = ?11,
    hold_failure = ?12, performing_state = ?13, performing_attempts = ?14, performing_next_attempt_at = ?15,
    performing_failure_kind = ?16, performing_failure = ?17, written_by = ?18
    WHERE generation = ?1 AND order_id = ?2 AND written_by = ?19";

pub(super) fn of_orders(
    connection: &Connection,
    generation: Generation,
    orders: &[OrderId],
) -> rusqlite::Result<Vec<Row>> {
    let mut select = connection.prepare_cached(SELECT_ONE)?;
    let mut rows = Vec::with_capacity(orders.len());
    for order in orders {
        rows.extend(select.query_row(params![generation.0, blob(order.as_uuid())], row).optional()?);
    }
    Ok(rows)
}

/// The rows behind that of `after`, in the order of their orders.
pub(super) fn page(
    connection: &Connection,
    generation: Generation,
    after: Option<OrderId>,
    limit: usize,
) -> rusqlite::Result<Vec<Row>> {
    let mut select = connection.prepare_cached(SELECT_PAGE)?;
    select.query_map(params![generation.0, behind(after), count(limit)], row)?.collect()
}

pub(super) fn due(
    connection: &Connection,
    generation: Generation,
    work: Work,
    until: Timestamp,
    limit: usize,
) -> rusqlite::Result<Vec<Row>> {
    let sql = match work {
        Work::Applying => SELECT_DUE,
        Work::Performing => SELECT_DUE_PERFORMING,
    };
    let mut select = connection.prepare_cached(sql)?;
    select.query_map(params![generation.0, until.as_millis(), count(limit)], row)?.collect()
}

pub(super) fn next_due(
    connection: &Connection,
    generation: Generation,
    work: Work,
    after: Timestamp,
) -> rusqlite::Result<Option<Timestamp>> {
    let sql = match work {
        Work::Applying => NEXT_DUE,
        Work::Performing => NEXT_DUE_PERFORMING,
    };
    let mut select = connection.prepare_cached(sql)?;
    let next: Option<i64> = select.query_row(params![generation.0, after.as_millis()], |row| row.get(0))?;
    Ok(next.map(Timestamp::from_millis))
}

pub(super) fn totals(connection: &Connection, generation: Generation) -> rusqlite::Result<Totals> {
    let (behind, lanes_held) = connection.query_row(
        "SELECT COALESCE(SUM(MAX(seen - applied, 0)), 0), COUNT(*) FROM inbox INDEXED BY inbox_held
         WHERE generation = ?1 AND hold_state IS NOT NULL",
        [generation.0],
        |row| Ok((counted(row, 0)?, counted(row, 1)?)),
    )?;
    let effects_waiting = connection.query_row(
        "SELECT COUNT(*) FROM effects INDEXED BY effects_waiting WHERE outcome IS NULL",
        [],
        |row| counted(row, 0),
    )?;
    Ok(Totals { behind, lanes_held, effects_waiting })
}

/// Writes the rows; the orders whose row is another one than was read.
pub(super) fn write(connection: &Connection, transaction: &Transaction) -> rusqlite::Result<Vec<OrderId>> {
    let mut fenced = Vec::new();
    for write in &transaction.rows {
        let written = match write.was_written_by {
            None => write_row(connection, INSERT, transaction, write, None)?,
            Some(before) => write_row(connection, UPDATE, transaction, write, Some(before))?,
        };
        if written == 0 {
            fenced.push(write.row.order);
        }
    }
    Ok(fenced)
}

fn write_row(
    connection: &Connection,
    sql: &str,
    transaction: &Transaction,
    write: &RowWrite,
    before: Option<TransactionId>,
) -> rusqlite::Result<usize> {
    let row = &write.row;
    let (order, applied_event) = (blob(row.order.as_uuid()), row.applied_event.map(|id| blob(id.0)));
    let (applying, performing) = (HoldColumns::of(&row.applying), HoldColumns::of(&row.performing));
    let (written_by, before) = (blob(transaction.id.0), before.map(|id| blob(id.0)));
    let mut values: Vec<&dyn ToSql> = vec![&transaction.generation.0, &order, &row.applied.0, &applied_event];
    values.extend::<[&dyn ToSql; 3]>([&row.seen.0, &row.performed.0, &row.effects_waiting]);
    values.extend(applying.values());
    values.extend(performing.values());
    values.push(&written_by);
    if before.is_some() {
        values.push(&before);
    }
    connection.prepare_cached(sql)?.execute(&values[..])
}

struct HoldColumns<'a> {
    state: Option<&'static str>,
    attempts: Option<u32>,
    next_attempt_at: Option<i64>,
    failure_kind: Option<&'static str>,
    failure: Option<&'a str>,
}

impl<'a> HoldColumns<'a> {
    fn of(lane: &'a Lane) -> Self {
        let hold = lane.hold();
        let failure = hold.and_then(|hold| hold.failure.as_ref());
        Self {
            state: hold.map(|hold| hold.state.name()),
            attempts: hold.map(|hold| hold.attempts),
            next_attempt_at: hold.and_then(|hold| hold.next_attempt_at).map(Timestamp::as_millis),
            failure_kind: failure.map(|failure| failure.kind.name()),
            failure: failure.map(|failure| &*failure.text),
        }
    }

    fn values(&self) -> [&dyn ToSql; 5] {
        [&self.state, &self.attempts, &self.next_attempt_at, &self.failure_kind, &self.failure]
    }
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        order: order(row, 0)?,
        applied: Version(row.get(1)?),
        applied_event: row.get::<_, Option<[u8; 16]>>(2)?.map(|id| EventId(Uuid::from_bytes(id))),
        seen: Version(row.get(3)?),
        performed: Version(row.get(4)?),
        effects_waiting: row.get(5)?,
        applying: lane(row, 6)?,
        performing: lane(row, 11)?,
        written_by: Some(TransactionId(Uuid::from_bytes(row.get(16)?))),
    })
}

fn lane(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Lane> {
    let Some(state) = row.get::<_, Option<String>>(first)? else { return Ok(Lane::Ready) };
    let state = HoldState::from_name(&state).ok_or_else(|| unreadable(first, format!("unknown state {state}")))?;
    let kind: Option<String> = row.get(first + 3)?;
    let failure = match kind {
        None => None,
        Some(kind) => {
            let kind = FailureKind::from_name(&kind)
                .ok_or_else(|| unreadable(first + 3, format!("unknown kind of failure {kind}")))?;
            Some(Failure { kind, text: row.get::<_, String>(first + 4)?.into() })
        }
    };
    Ok(Lane::Held(Box::new(Hold {
        state,
        attempts: row.get(first + 1)?,
        next_attempt_at: row.get::<_, Option<i64>>(first + 2)?.map(Timestamp::from_millis),
        failure,
    })))
}

pub(super) fn waiting(connection: &Connection, after: Option<OrderId>, limit: usize) -> rusqlite::Result<Vec<OrderId>> {
    let mut select = connection.prepare_cached(SELECT_WAITING)?;
    select.query_map(params![behind(after), count(limit)], |row| order(row, 0))?.collect()
}

/// What every later order's id is greater than.
fn behind(after: Option<OrderId>) -> Vec<u8> {
    // No order's id is shorter than this.
    after.map(|order| blob(order.as_uuid()).to_vec()).unwrap_or_default()
}

pub(super) fn effects(
    connection: &Connection,
    orders: &[OrderId],
    which: Which,
    limit: usize,
) -> rusqlite::Result<Vec<RecordedEffect>> {
    let mut select = connection.prepare_cached(SELECT_EFFECTS)?;
    let mut effects = Vec::new();
    for order in orders {
        let all = which == Which::All;
        for effect in select.query_map(params![blob(order.as_uuid()), all, count(limit)], effect)? {
            effects.push(effect?);
        }
    }
    Ok(effects)
}

/// The effects behind that one, in order for each order, until they are `bytes_max` together.
pub(super) fn effects_page(
    connection: &Connection,
    after: Option<EffectPlace>,
    limit: usize,
    bytes_max: usize,
) -> rusqlite::Result<Vec<RecordedEffect>> {
    let mut select = connection.prepare_cached(SELECT_EFFECTS_PAGE)?;
    let (version, index) = after.map_or((0, 0), |after| (after.version.0, after.index));
    let after = behind(after.map(|after| after.order));
    let mut found = select.query(params![after, version, index, count(limit)])?;
    let (mut effects, mut bytes) = (Vec::new(), 0);
    while bytes < bytes_max
        && let Some(row) = found.next()?
    {
        let effect = effect(row)?;
        bytes += effect.effect.body.len();
        effects.push(effect);
    }
    Ok(effects)
}

fn effect(row: &rusqlite::Row<'_>) -> rusqlite::Result<RecordedEffect> {
    let outcome = match row.get::<_, Option<String>>(8)? {
        None => None,
        Some(kind) => {
            let kind = OutcomeKind::from_name(&kind).ok_or_else(|| unreadable(8, format!("unknown outcome {kind}")))?;
            Some((Outcome { kind, detail: row.get(9)? }, Timestamp::from_millis(row.get(10)?)))
        }
    };
    let origin: String = row.get(6)?;
    Ok(RecordedEffect {
        effect: NewEffect {
            id: EffectId { event: EventId(Uuid::from_bytes(row.get(3)?)), index: row.get(2)? },
            order: order(row, 0)?,
            version: Version(row.get(1)?),
            last_of_event: row.get(4)?,
            recorded_at: Timestamp::from_millis(row.get(5)?),
            origin: serde_json::from_str(&origin).map_err(|error| unreadable(6, error))?,
            body: Body::from(row.get_ref(7)?.as_str()?),
        },
        outcome,
    })
}

pub(super) fn write_effects(connection: &Connection, transaction: &Transaction) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO effects (order_id, version, position, event_id, last_of_event, recorded_at, origin, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for effect in &transaction.effects {
        insert.execute(params![
            blob(effect.order.as_uuid()),
            effect.version.0,
            effect.id.index,
            blob(effect.id.event.0),
            effect.last_of_event,
            effect.recorded_at.as_millis(),
            json(&effect.origin)?,
            &*effect.body,
        ])?;
    }
    let mut update = connection.prepare_cached(SET_OUTCOME)?;
    for outcome in &transaction.outcomes {
        update.execute(params![
            blob(outcome.order.as_uuid()),
            blob(outcome.id.event.0),
            outcome.id.index,
            outcome.outcome.kind.name(),
            outcome.outcome.detail,
            outcome.at.as_millis(),
        ])?;
    }
    Ok(())
}

fn order(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<OrderId> {
    Ok(OrderId::from(Uuid::from_bytes(row.get(column)?)))
}

/// A number that is never negative.
pub(super) fn counted(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

fn blob(uuid: Uuid) -> [u8; 16] {
    uuid.into_bytes()
}

fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn json(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// A column holds something that was not written into it.
pub(super) fn unreadable(column: usize, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How SQLite goes about a statement.
    fn plan(connection: &Connection, sql: &str) -> String {
        let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("a statement");
        let values = vec![1; explain.parameter_count()];
        let steps = explain.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3));
        steps.expect("a plan").map(|step| step.expect("a step")).collect::<Vec<_>>().join("\n")
    }

    /// However many rows and effects there are, each statement goes to those it wants, and sorts nothing.
    #[test]
    fn every_statement_finds_its_rows_by_an_index() {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = Connection::open(folder.path().join("a.db")).expect("a file");
        super::super::schema::prepare(&connection, "test").expect("tables");
        for sql in [
            SELECT_ONE,
            SELECT_PAGE,
            SELECT_DUE,
            SELECT_DUE_PERFORMING,
            NEXT_DUE,
            NEXT_DUE_PERFORMING,
            SELECT_WAITING,
            SELECT_EFFECTS,
            SELECT_EFFECTS_PAGE,
            super::super::export::SELECT_DOCUMENTS_PAGE,
            UPDATE,
            SET_OUTCOME,
        ] {
            let plan = plan(&connection, sql);
            // One row says who the subscriber is.
            let scans = plan.lines().filter(|step| step.contains("SCAN") && !step.contains("SCAN subscriber"));
            assert_eq!(scans.count(), 0, "{sql}\n{plan}");
            assert!(plan.contains("SEARCH") && !plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
        }
    }
}
