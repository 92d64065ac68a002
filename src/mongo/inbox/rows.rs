//! Inbox rows as BSON.

use actors::clock::Timestamp;
use actors::event::EventId;
use actors::inbox::{
    Attempt, Failure, Generation, Hold, HoldState, InboxError, Lane, LaneCounts, Row, Transaction, TransactionId, Work,
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

/// Why a lane is not ready: what rows are looked up by, and all of it as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct StoredHold {
    state: HoldState,
    attempts: u32,
    next_attempt_at: Option<DateTime>,
    /// Absent where an earlier docket has written the row.
    #[serde(default)]
    hold: Option<String>,
    /// What an earlier docket kept of it beside `state`, `attempts` and `next_attempt_at`.
    #[serde(default, skip_serializing)]
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
        let row = StoredRow::of(transaction.generation, &write.row, transaction.id)?;
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
    pub(super) fn of(generation: Generation, row: &Row, written_by: TransactionId) -> Result<Self, InboxError> {
        Ok(Self {
            _id: id(generation, row.order),
            generation: generation.0,
            applied: row.applied.0,
            applied_event: row.applied_event.map(|event| stored_uuid(event.0)),
            seen: row.seen.0,
            performed: row.performed.0,
            effects_waiting: row.effects_waiting,
            applying: StoredHold::of(&row.applying)?,
            performing: StoredHold::of(&row.performing)?,
            written_by: stored_uuid(written_by.0),
        })
    }

    pub(super) fn read(self) -> Result<Row, InboxError> {
        let written_by = TransactionId(uuid(self.written_by));
        Ok(Row {
            order: order_of(&self._id)?,
            applied: Version(self.applied),
            applied_event: self.applied_event.map(|event| EventId(uuid(event))),
            seen: Version(self.seen),
            performed: Version(self.performed),
            effects_waiting: self.effects_waiting,
            applying: lane(self.applying, written_by)?,
            performing: lane(self.performing, written_by)?,
            written_by: Some(written_by),
        })
    }
}

impl StoredHold {
    fn of(lane: &Lane) -> Result<Option<Self>, InboxError> {
        let Some(hold) = lane.hold() else { return Ok(None) };
        let encoded = serde_json::to_string(hold)
            .map_err(|error| InboxError::Damaged(format!("a lane cannot be written: {error}")))?;
        Ok(Some(Self {
            state: hold.state,
            attempts: hold.attempts,
            next_attempt_at: hold.next_attempt_at.map(stored_time),
            hold: Some(encoded),
            failure: None,
        }))
    }

    /// As an earlier docket has left it: since when it is held and when it failed was not kept, but not later than the
    /// row was written.
    fn read_earlier(self, written_by: TransactionId) -> Hold {
        let written_at = written_by.made_at();
        let mut hold = Hold::new(self.state, written_at, self.next_attempt_at.map(time));
        hold.attempts = self.attempts;
        if let Some(failure) = self.failure {
            hold.keep(Attempt { at: written_at, failure });
        }
        hold
    }
}

fn lane(stored: Option<StoredHold>, written_by: TransactionId) -> Result<Lane, InboxError> {
    let Some(stored) = stored else { return Ok(Lane::Ready) };
    let hold = match &stored.hold {
        None => stored.read_earlier(written_by),
        Some(hold) => serde_json::from_str(hold)
            .map_err(|error| InboxError::Damaged(format!("why a lane is held cannot be read: {error}")))?,
    };
    Ok(Lane::Held(Box::new(hold)))
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

/// The rows behind that of `after` whose lane is in that state.
pub(super) fn held_after(generation: Generation, work: Work, state: HoldState, after: Option<OrderId>) -> Document {
    let mut filter = doc! { "generation": i64::from(generation.0), format!("{}.state", lane_name(work)): state.name() };
    // No row's id is shorter than this.
    let after = after.map_or_else(|| format!("{}/", generation.0), |order| id(generation, order));
    filter.insert("_id", doc! { "$gt": after });
    filter
}

/// In the order of their orders: an id is that of its order behind what all have.
pub(super) fn by_id() -> Document {
    doc! { "_id": 1 }
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

/// Counts the rows whose lane is held by its state, and what they are behind. Others are not behind.
pub(super) fn count_held(generation: Generation, work: Work) -> [Document; 2] {
    let behind = doc! { "$max": [0, { "$subtract": ["$seen", "$applied"] }] };
    let state = format!("${}.state", lane_name(work));
    let group = doc! { "_id": state, "lanes": { "$sum": 1 }, "behind": { "$sum": behind } };
    [doc! { "$match": held(generation, work) }, doc! { "$group": group }]
}

/// What [`count_held`] gives: the lanes, and how many events they are behind.
pub(super) fn read_counts(groups: &[Document]) -> Result<(LaneCounts, u64), InboxError> {
    let (mut lanes, mut behind) = (LaneCounts::default(), 0);
    for group in groups {
        let state = group.get_str("_id").ok().and_then(HoldState::from_name);
        let state = state.ok_or_else(|| InboxError::Damaged(format!("lanes are in an unknown state: {group}")))?;
        *lanes.of_mut(state) += counted(group, "lanes");
        behind += counted(group, "behind");
    }
    Ok((lanes, behind))
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
