//! Inbox rows as BSON.

use actors::clock::Timestamp;
use actors::event::EventId;
use actors::inbox::{
    Failure, Generation, Hold, HoldState, InboxError, Lane, Row, Totals, Transaction, TransactionId, Work,
};
use actors::order::{OrderId, Version};
use mongodb::bson::{self, DateTime, Document, RawDocumentBuf, doc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::statements::encode;

/// A row. What is said of a lane is absent while it is ready, so that a lane that is ready is in no index.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredRow {
    _id: String,
    generation: u32,
    applied: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    applied_event: Option<bson::Uuid>,
    seen: u32,
    performed: u32,
    effects_waiting: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    applying: Option<StoredHold>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    performing: Option<StoredHold>,
    written_by: bson::Uuid,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredHold {
    state: HoldState,
    attempts: u32,
    next_attempt_at: Option<DateTime>,
    failure: Option<Failure>,
}

/// Whose row it is.
#[derive(Debug, Deserialize)]
pub(super) struct RowId {
    pub(super) _id: String,
}

/// Replaces a row, if it is the one that was read.
#[derive(Serialize)]
struct Replacement {
    q: Fence,
    u: StoredRow,
}

#[derive(Serialize)]
struct Fence {
    _id: String,
    written_by: bson::Uuid,
}

/// The statements that write a transaction's rows: those that are new, and those that are replaced.
pub(super) fn statements(transaction: &Transaction) -> Result<(Vec<RawDocumentBuf>, Vec<RawDocumentBuf>), InboxError> {
    let (mut new, mut replaced) = (Vec::new(), Vec::new());
    for write in &transaction.rows {
        let row = StoredRow::of(transaction.generation, &write.row, transaction.id);
        match write.was_written_by {
            None => new.push(encode(&row)?),
            Some(before) => {
                let q = Fence { _id: row._id.clone(), written_by: stored_uuid(before.0) };
                replaced.push(encode(&Replacement { q, u: row })?);
            }
        }
    }
    Ok((new, replaced))
}

impl StoredRow {
    pub(super) fn of(generation: Generation, row: &Row, written_by: TransactionId) -> Self {
        Self {
            _id: id(generation, row.order),
            generation: generation.0,
            applied: row.applied.0,
            applied_event: row.applied_event.map(|event| stored_uuid(event.0)),
            seen: row.seen.0,
            performed: row.performed.0,
            effects_waiting: row.effects_waiting,
            applying: StoredHold::of(&row.applying),
            performing: StoredHold::of(&row.performing),
            written_by: stored_uuid(written_by.0),
        }
    }

    pub(super) fn read(self) -> Result<Row, InboxError> {
        Ok(Row {
            order: order_of(&self._id)?,
            applied: Version(self.applied),
            applied_event: self.applied_event.map(|event| EventId(uuid(event))),
            seen: Version(self.seen),
            performed: Version(self.performed),
            effects_waiting: self.effects_waiting,
            applying: lane(self.applying),
            performing: lane(self.performing),
            written_by: Some(TransactionId(uuid(self.written_by))),
        })
    }
}

impl StoredHold {
    fn of(lane: &Lane) -> Option<Self> {
        lane.hold().map(|hold| Self {
            state: hold.state,
            attempts: hold.attempts,
            next_attempt_at: hold.next_attempt_at.map(stored_time),
            failure: hold.failure.clone(),
        })
    }
}

fn lane(hold: Option<StoredHold>) -> Lane {
    let Some(hold) = hold else { return Lane::Ready };
    Lane::Held(Box::new(Hold {
        state: hold.state,
        attempts: hold.attempts,
        next_attempt_at: hold.next_attempt_at.map(time),
        failure: hold.failure,
    }))
}

/// A row's lane for that work.
pub(super) fn lane_of(row: &Row, work: Work) -> &Lane {
    match work {
        Work::Applying => &row.applying,
        Work::Performing => &row.performing,
    }
}

/// The rows of these orders.
pub(super) fn of_orders(generation: Generation, orders: &[OrderId]) -> Document {
    let ids: Vec<_> = orders.iter().map(|order| id(generation, *order)).collect();
    doc! { "_id": { "$in": ids } }
}

/// Those first that are to be tried again first.
pub(super) fn by_next_attempt(work: Work) -> Document {
    doc! { next_attempt_at(work): 1 }
}

fn next_attempt_at(work: Work) -> String {
    format!("{}.next_attempt_at", lane_name(work))
}

/// The rows whose lane is held, and is to be tried again at a time like that. A lane that is not tried again by itself
/// has no such time, and no time is like none.
pub(super) fn held_until(generation: Generation, work: Work, comparison: &str, at: Timestamp) -> Document {
    let mut filter = held(generation, work);
    filter.insert(next_attempt_at(work), doc! { comparison: stored_time(at) });
    filter
}

/// The rows whose lane is held: in the words of the index.
pub(super) fn held(generation: Generation, work: Work) -> Document {
    doc! { "generation": i64::from(generation.0), format!("{}.state", lane_name(work)): { "$exists": true } }
}

/// Of the rows of these orders those whose lane for performing is held.
pub(super) fn performing_held(generation: Generation, orders: &[OrderId]) -> Document {
    let mut filter = of_orders(generation, orders);
    filter.insert(format!("{}.state", lane_name(Work::Performing)), doc! { "$exists": true });
    filter
}

/// Which order's row it is, by its `_id`.
pub(super) fn order_of(id: &str) -> Result<OrderId, InboxError> {
    let order = id.split_once('/').and_then(|(_, order)| order.parse().ok());
    order.ok_or_else(|| InboxError::Damaged(format!("the row {id} is of no order")))
}

/// Adds up the rows whose lane is held. Only they are behind.
pub(super) fn totals(generation: Generation) -> [Document; 2] {
    let behind = doc! { "$max": [0, { "$subtract": ["$seen", "$applied"] }] };
    let group = doc! { "_id": null, "behind": { "$sum": behind }, "lanes_held": { "$sum": 1 } };
    [doc! { "$match": held(generation, Work::Applying) }, doc! { "$group": group }]
}

/// What [`totals`] gives.
pub(super) fn read_totals(sums: &Document) -> Totals {
    Totals { behind: counted(sums, "behind"), lanes_held: counted(sums, "lanes_held"), effects_waiting: 0 }
}

/// A sum, of which the server chooses the type; 0 when there was nothing to add up.
pub(super) fn counted(sums: &Document, name: &str) -> u64 {
    let number = sums.get_i64(name).or_else(|_| sums.get_i32(name).map(i64::from));
    number.ok().and_then(|number| u64::try_from(number).ok()).unwrap_or(0)
}

fn lane_name(work: Work) -> &'static str {
    match work {
        Work::Applying => "applying",
        Work::Performing => "performing",
    }
}

fn id(generation: Generation, order: OrderId) -> String {
    format!("{}/{order}", generation.0)
}

pub(super) fn stored_uuid(uuid: Uuid) -> bson::Uuid {
    bson::Uuid::from_bytes(uuid.into_bytes())
}

pub(super) fn uuid(stored: bson::Uuid) -> Uuid {
    Uuid::from_bytes(stored.bytes())
}

pub(super) fn stored_time(at: Timestamp) -> DateTime {
    DateTime::from_millis(at.as_millis())
}

pub(super) fn time(stored: DateTime) -> Timestamp {
    Timestamp::from_millis(stored.timestamp_millis())
}
