//! Inbox rows and effects as SQL.

use actors::clock::Timestamp;
use actors::event::EventId;
use actors::inbox::{
    Body, EffectId, Generation, Hold, HoldState, Lane, LaneCounts, NewEffect, Outcome, OutcomeKind, RecordedEffect,
    Row, RowWrite, Totals, Transaction, TransactionId, Which, Work,
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
         applying_state, applying_next_attempt_at, applying,
         performing_state, performing_next_attempt_at, performing, written_by"
    };
}

const SELECT_ONE: &str = concat!("SELECT ", columns!(), " FROM inbox WHERE generation = ?1 AND order_id = ?2");
const SELECT_PAGE: &str =
    concat!("SELECT ", columns!(), " FROM inbox WHERE generation = ?1 AND order_id > ?2 ORDER BY order_id LIMIT ?3");
const SELECT_HELD: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM inbox INDEXED BY inbox_applying_by_state
      WHERE generation = ?1 AND applying_state = ?2 AND order_id > ?3 ORDER BY order_id LIMIT ?4"
);
const SELECT_HELD_PERFORMING: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM inbox INDEXED BY inbox_performing_by_state
      WHERE generation = ?1 AND performing_state = ?2 AND order_id > ?3 ORDER BY order_id LIMIT ?4"
);
const SELECT_DUE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM inbox INDEXED BY inbox_applying_due
      WHERE generation = ?1 AND applying_next_attempt_at <= ?2 ORDER BY applying_next_attempt_at LIMIT ?3"
);
const SELECT_DUE_PERFORMING: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM inbox INDEXED BY inbox_performing_due
      WHERE generation = ?1 AND performing_next_attempt_at <= ?2 ORDER BY performing_next_attempt_at LIMIT ?3"
);
const NEXT_DUE: &str = "SELECT MIN(applying_next_attempt_at) FROM inbox INDEXED BY inbox_applying_due
    WHERE generation = ?1 AND applying_next_attempt_at > ?2";
const NEXT_DUE_PERFORMING: &str = "SELECT MIN(performing_next_attempt_at) FROM inbox INDEXED BY inbox_performing_due
    WHERE generation = ?1 AND performing_next_attempt_at > ?2";
const COUNT_HELD: &str = "SELECT applying_state, COUNT(*), SUM(MAX(seen - applied, 0))
    FROM inbox INDEXED BY inbox_applying_by_state
    WHERE generation = ?1 AND applying_state IS NOT NULL GROUP BY applying_state";
const COUNT_HELD_PERFORMING: &str = "SELECT performing_state, COUNT(*), 0
    FROM inbox INDEXED BY inbox_performing_by_state
    WHERE generation = ?1 AND performing_state IS NOT NULL GROUP BY performing_state";
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
    ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
      ON CONFLICT (generation, order_id) DO NOTHING"
);
const UPDATE: &str = "UPDATE inbox SET applied = ?3, applied_event = ?4, seen = ?5, performed = ?6,
    effects_waiting = ?7, applying_state = ?8, applying_next_attempt_at = ?9, applying = ?10, performing_state = ?11,
    performing_next_attempt_at = ?12, performing = ?13, written_by = ?14
    WHERE generation = ?1 AND order_id = ?2 AND written_by = ?15";

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

/// The rows behind that of `after` whose lane is in one of these states, in the order of their orders.
pub(super) fn held(
    connection: &Connection,
    generation: Generation,
    (work, states): (Work, &[HoldState]),
    after: Option<OrderId>,
    limit: usize,
) -> rusqlite::Result<Vec<Row>> {
    let sql = match work {
        Work::Applying => SELECT_HELD,
        Work::Performing => SELECT_HELD_PERFORMING,
    };
    let mut select = connection.prepare_cached(sql)?;
    let mut held = Vec::new();
    for state in states {
        for found in select.query_map(params![generation.0, state.name(), behind(after), count(limit)], row)? {
            held.push(found?);
        }
    }
    held.sort_unstable_by_key(|row| row.order);
    held.truncate(limit);
    Ok(held)
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
    let (applying, behind) = count_held(connection, COUNT_HELD, generation)?;
    let (performing, _) = count_held(connection, COUNT_HELD_PERFORMING, generation)?;
    let effects_waiting = connection.query_row(
        "SELECT COUNT(*) FROM effects INDEXED BY effects_waiting WHERE outcome IS NULL",
        [],
        |row| counted(row, 0),
    )?;
    Ok(Totals { behind, applying, performing, effects_waiting })
}

/// How many lanes are held, and how many events those are behind. Others are not behind.
fn count_held(connection: &Connection, sql: &str, generation: Generation) -> rusqlite::Result<(LaneCounts, u64)> {
    let (mut lanes, mut behind) = (LaneCounts::default(), 0);
    let mut select = connection.prepare_cached(sql)?;
    let mut groups = select.query([generation.0])?;
    while let Some(group) = groups.next()? {
        *lanes.of_mut(state(group, 0)?) += counted(group, 1)?;
        behind += counted(group, 2)?;
    }
    Ok((lanes, behind))
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
    let (applying, performing) = (LaneColumns::of(&row.applying)?, LaneColumns::of(&row.performing)?);
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

/// All of them are null while the lane is ready.
#[derive(Default)]
struct LaneColumns {
    state: Option<&'static str>,
    next_attempt_at: Option<i64>,
    hold: Option<String>,
}

impl LaneColumns {
    fn of(lane: &Lane) -> rusqlite::Result<Self> {
        let Some(hold) = lane.hold() else { return Ok(Self::default()) };
        Ok(Self {
            state: Some(hold.state.name()),
            next_attempt_at: hold.next_attempt_at.map(Timestamp::as_millis),
            hold: Some(json(hold)?),
        })
    }

    fn values(&self) -> [&dyn ToSql; 3] {
        [&self.state, &self.next_attempt_at, &self.hold]
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
        applying: lane(row, 8)?,
        performing: lane(row, 11)?,
        written_by: Some(TransactionId(Uuid::from_bytes(row.get(12)?))),
    })
}

fn lane(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Lane> {
    let Some(hold) = row.get_ref(column)?.as_str_or_null().map_err(rusqlite::Error::from)? else {
        return Ok(Lane::Ready);
    };
    let hold: Hold = serde_json::from_str(hold).map_err(|error| unreadable(column, error))?;
    Ok(Lane::Held(Box::new(hold)))
}

fn state(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<HoldState> {
    let name: String = row.get(column)?;
    HoldState::from_name(&name).ok_or_else(|| unreadable(column, format!("unknown state {name}")))
}

pub(super) fn waiting(connection: &Connection, after: Option<OrderId>, limit: usize) -> rusqlite::Result<Vec<OrderId>> {
    let mut select = connection.prepare_cached(SELECT_WAITING)?;
    select.query_map(params![behind(after), count(limit)], |row| order(row, 0))?.collect()
}

/// What every later order's id is greater than.
pub(super) fn behind(after: Option<OrderId>) -> Vec<u8> {
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
    // What is there was asked for by an event that an operator has taken as not applied, be it this one or another: it
    // has been decided about. The rows are what keeps a transaction from being written twice.
    let mut insert = connection.prepare_cached(
        "INSERT INTO effects (order_id, version, position, event_id, last_of_event, recorded_at, origin, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (order_id, version, position) DO UPDATE SET event_id = excluded.event_id,
           last_of_event = excluded.last_of_event, recorded_at = excluded.recorded_at, origin = excluded.origin,
           body = excluded.body, outcome = NULL, outcome_detail = NULL, outcome_at = NULL",
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

pub(super) fn order(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<OrderId> {
    Ok(OrderId::from(Uuid::from_bytes(row.get(column)?)))
}

/// A number that is never negative.
pub(super) fn counted(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

pub(super) fn blob(uuid: Uuid) -> [u8; 16] {
    uuid.into_bytes()
}

pub(super) fn count(limit: usize) -> i64 {
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
            SELECT_HELD,
            SELECT_HELD_PERFORMING,
            COUNT_HELD,
            COUNT_HELD_PERFORMING,
            SELECT_DUE,
            SELECT_DUE_PERFORMING,
            NEXT_DUE,
            NEXT_DUE_PERFORMING,
            SELECT_WAITING,
            SELECT_EFFECTS,
            SELECT_EFFECTS_PAGE,
            super::super::discards::SELECT,
            super::super::discards::SELECT_PAGE,
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
