//! Effects as BSON.

use std::collections::HashMap;

use actors::clock::Timestamp;
use actors::event::EventId;
use actors::inbox::{
    Body, EffectId, EffectOutcome, InboxError, NewEffect, Outcome, OutcomeKind, RecordedEffect, Transaction,
};
use actors::order::{OrderId, Version};
use mongodb::bson::{self, DateTime, Document, RawDocumentBuf, doc};
use serde::{Deserialize, Serialize};

use super::rows::{stored_time, stored_uuid, time, uuid};
use super::statements::encode;

/// An effect. `waiting` is there as long as it has no outcome: so what has one is in no index.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredEffect {
    _id: String,
    order: String,
    version: u32,
    index: u32,
    event: bson::Uuid,
    last_of_event: bool,
    recorded_at: DateTime,
    /// As JSON.
    origin: String,
    body: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    waiting: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outcome: Option<StoredOutcome>,
}

/// Of which order an effect is.
#[derive(Debug, Deserialize)]
pub(super) struct OfOrder {
    pub(super) order: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredOutcome {
    kind: OutcomeKind,
    detail: String,
    at: DateTime,
}

#[derive(Serialize)]
struct Put<'a> {
    q: Id<'a>,
    u: &'a StoredEffect,
    upsert: bool,
}

#[derive(Serialize)]
struct Id<'a> {
    _id: &'a str,
}

/// The statements that write a transaction's effects: those that are to be performed, and the outcomes.
pub(super) fn statements(transaction: &Transaction) -> Result<(Vec<RawDocumentBuf>, Vec<RawDocumentBuf>), InboxError> {
    let asked_for = transaction.effects.iter().map(put_statement).collect::<Result<_, _>>()?;
    let outcomes = transaction.outcomes.iter().map(outcome_statement).collect::<Result<_, _>>()?;
    Ok((asked_for, outcomes))
}

/// One that is there was asked for by the same event, which an operator has taken as not applied: it is performed again.
/// The rows are what keeps a transaction from being written twice.
fn put_statement(effect: &NewEffect) -> Result<RawDocumentBuf, InboxError> {
    let stored = StoredEffect::of(effect)?;
    encode(&Put { q: Id { _id: &stored._id }, u: &stored, upsert: true })
}

/// The first outcome stays.
fn outcome_statement(outcome: &EffectOutcome) -> Result<RawDocumentBuf, InboxError> {
    let EffectOutcome { order, id, outcome: Outcome { kind, detail }, at } = outcome;
    let stored = doc! { "kind": kind.name(), "detail": detail, "at": stored_time(*at) };
    encode(&doc! {
        "q": { "_id": self::id(*order, *id), "waiting": true },
        "u": { "$set": { "outcome": stored }, "$unset": { "waiting": "" } },
    })
}

impl StoredEffect {
    fn of(effect: &NewEffect) -> Result<Self, InboxError> {
        let origin = serde_json::to_string(&effect.origin);
        Ok(Self {
            _id: id(effect.order, effect.id),
            order: effect.order.to_string(),
            version: effect.version.0,
            index: effect.id.index,
            event: stored_uuid(effect.id.event.0),
            last_of_event: effect.last_of_event,
            recorded_at: stored_time(effect.recorded_at),
            origin: origin.map_err(|error| InboxError::Damaged(format!("an effect cannot be written: {error}")))?,
            body: effect.body.as_ref().to_owned(),
            waiting: Some(true),
            outcome: None,
        })
    }

    /// With what has become of it.
    pub(super) fn recorded(effect: &RecordedEffect) -> Result<Self, InboxError> {
        let outcome = effect.outcome.as_ref().map(|(outcome, at)| StoredOutcome::of(outcome, *at));
        Ok(Self { waiting: outcome.is_none().then_some(true), outcome, ..Self::of(&effect.effect)? })
    }

    pub(super) fn read(self) -> Result<RecordedEffect, InboxError> {
        let unreadable = |what: &str| InboxError::Damaged(format!("the effect {} has no readable {what}", self._id));
        Ok(RecordedEffect {
            effect: NewEffect {
                id: EffectId { event: EventId(uuid(self.event)), index: self.index },
                order: self.order.parse().map_err(|_| unreadable("order"))?,
                version: Version(self.version),
                last_of_event: self.last_of_event,
                recorded_at: time(self.recorded_at),
                origin: serde_json::from_str(&self.origin).map_err(|_| unreadable("origin"))?,
                body: Body::from(self.body),
            },
            outcome: self.outcome.map(StoredOutcome::read),
        })
    }
}

impl StoredOutcome {
    fn of(outcome: &Outcome, at: Timestamp) -> Self {
        Self { kind: outcome.kind, detail: outcome.detail.clone(), at: stored_time(at) }
    }

    fn read(self) -> (Outcome, Timestamp) {
        (Outcome { kind: self.kind, detail: self.detail }, time(self.at))
    }
}

impl OfOrder {
    pub(super) fn read(&self) -> Result<OrderId, InboxError> {
        self.order.parse().map_err(|_| InboxError::Damaged(format!("an effect is of the order {}", self.order)))
    }
}

/// At most `limit` of each order, order by order, in the order in which they are to be performed.
pub(super) fn first_of_each(orders: &[OrderId], effects: Vec<RecordedEffect>, limit: usize) -> Vec<RecordedEffect> {
    let mut of_order: HashMap<OrderId, Vec<RecordedEffect>> = HashMap::new();
    for effect in effects {
        of_order.entry(effect.effect.order).or_default().push(effect);
    }
    let mut first = Vec::new();
    for order in orders {
        let mut effects = of_order.remove(order).unwrap_or_default();
        effects.sort_by_key(|effect| (effect.effect.version, effect.effect.id.index));
        effects.truncate(limit);
        first.append(&mut effects);
    }
    first
}

/// All effects of an order. Ids begin with the order's, which ends before the `/`.
pub(super) fn of_order(order: OrderId) -> Document {
    doc! { "_id": { "$gt": format!("{order}/"), "$lt": format!("{order}0") } }
}

/// The effects of these orders that have no outcome: in the words of the index.
pub(super) fn waiting_of(orders: &[OrderId]) -> Document {
    let orders: Vec<_> = orders.iter().map(ToString::to_string).collect();
    doc! { "waiting": true, "order": { "$in": orders } }
}

/// In the order of that index.
pub(super) fn by_order() -> Document {
    doc! { "order": 1 }
}

/// Counts the effects without an outcome.
pub(super) fn count_waiting() -> [Document; 2] {
    let group = doc! { "_id": null, "effects_waiting": { "$sum": 1 } };
    [doc! { "$match": { "waiting": true } }, doc! { "$group": group }]
}

/// The effects without an outcome of the orders behind that one.
pub(super) fn waiting_after(order: Option<OrderId>) -> Document {
    let after = order.map(|order| order.to_string()).unwrap_or_default();
    doc! { "waiting": true, "order": { "$gt": after } }
}

fn id(order: OrderId, effect: EffectId) -> String {
    format!("{order}/{effect}")
}
