//! What operators decided, as SQL. A discard is stored once and never changed.

use actors::inbox::{Discard, Transaction, TransactionId};
use actors::order::OrderId;
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::export::DiscardPlace;
use super::rows::{behind, blob, count, json, order, unreadable};

pub(super) const SELECT: &str = "SELECT order_id, written_by, place, body FROM discards
    WHERE order_id = ?1 ORDER BY written_by, place";
pub(super) const SELECT_PAGE: &str = "SELECT order_id, written_by, place, body FROM discards
    WHERE (order_id, written_by, place) > (?1, ?2, ?3) ORDER BY order_id, written_by, place LIMIT ?4";

pub(super) fn write(connection: &Connection, transaction: &Transaction) -> rusqlite::Result<()> {
    let written_by = blob(transaction.id.0);
    for (discard, place) in transaction.discards.iter().zip(0_u32..) {
        connection
            .prepare_cached("INSERT INTO discards (order_id, written_by, place, body) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![blob(discard.order.as_uuid()), written_by, place, json(discard)?])?;
    }
    Ok(())
}

/// Those of an order, oldest first.
pub(super) fn of_order(connection: &Connection, order: OrderId) -> rusqlite::Result<Vec<Discard>> {
    let mut select = connection.prepare_cached(SELECT)?;
    select.query_map([blob(order.as_uuid())], |row| discard(row).map(|(_, discard)| discard))?.collect()
}

/// Those behind that one, oldest first for each order.
pub(super) fn page(
    connection: &Connection,
    after: Option<DiscardPlace>,
    limit: usize,
) -> rusqlite::Result<Vec<(DiscardPlace, Discard)>> {
    let mut select = connection.prepare_cached(SELECT_PAGE)?;
    let order = behind(after.map(|after| after.order));
    let (written_by, place) = after.map_or((Uuid::nil(), 0), |after| (after.written_by.0, after.place));
    select.query_map(params![order, blob(written_by), place, count(limit)], discard)?.collect()
}

fn discard(row: &rusqlite::Row<'_>) -> rusqlite::Result<(DiscardPlace, Discard)> {
    let written_by = TransactionId(Uuid::from_bytes(row.get(1)?));
    let place = DiscardPlace { order: order(row, 0)?, written_by, place: row.get(2)? };
    let discard = serde_json::from_str(row.get_ref(3)?.as_str()?).map_err(|error| unreadable(3, error))?;
    Ok((place, discard))
}
