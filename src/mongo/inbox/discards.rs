//! What operators decided, as BSON. A discard is stored once and never changed.

use actors::inbox::{Discard, InboxError, Transaction, TransactionId};
use actors::order::OrderId;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use serde::{Deserialize, Serialize};

use super::statements::encode;

/// A discard. Ids of transactions begin with their time: so an order's discards lie in the order of that.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredDiscard {
    _id: String,
    /// As JSON.
    body: String,
}

/// The statements that write a transaction's discards.
pub(super) fn statements(transaction: &Transaction) -> Result<Vec<RawDocumentBuf>, InboxError> {
    let places = transaction.discards.iter().zip(0_u32..);
    places.map(|(discard, place)| encode(&StoredDiscard::of(discard, transaction.id, place)?)).collect()
}

impl StoredDiscard {
    pub(super) fn of(discard: &Discard, written_by: TransactionId, place: u32) -> Result<Self, InboxError> {
        let body = serde_json::to_string(discard)
            .map_err(|error| InboxError::Damaged(format!("a discard cannot be written: {error}")))?;
        Ok(Self { _id: format!("{}/{}/{place:010}", discard.order, written_by.0), body })
    }

    pub(super) fn read(&self) -> Result<Discard, InboxError> {
        serde_json::from_str(&self.body)
            .map_err(|error| InboxError::Damaged(format!("the discard {} cannot be read: {error}", self._id)))
    }
}

/// All discards of an order. Ids begin with the order's, which ends before the `/`.
pub(super) fn of_order(order: OrderId) -> Document {
    doc! { "_id": { "$gt": format!("{order}/"), "$lt": format!("{order}0") } }
}

/// Oldest first.
pub(super) fn oldest_first() -> Document {
    doc! { "_id": 1 }
}
