//! What happened to an order, in the newest schema of each event type, and how that is written and read again.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use strum::VariantArray;

use crate::event::upcaster;
use crate::money::{Amount, Currency};

/// The schema version of the `order.created` that an import stores.
pub const SCHEMA_OF_IMPORTS: u32 = 1;

/// An event as `evolve` knows it. Older schemas become this by upcasting (`event::upcaster`), before anybody sees them.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum OrderEvent {
    /// `order.created`, schema version 2.
    Created(Created),
    /// `order.item_added`.
    ItemAdded(Line),
    /// `order.item_removed`.
    ItemRemoved(ItemRemoved),
    /// `order.paid`.
    Paid(Paid),
    /// `order.shipped`, schema version 2.
    Shipped(Shipped),
    /// `order.delivered`.
    Delivered(Delivered),
    /// `order.cancelled`.
    Cancelled(Cancelled),
    /// `order.refunded`.
    Refunded(Refunded),
}

/// The order was placed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Created {
    /// What identifies a person, apart from everything else.
    pub personal: Personal,
    /// The customer's own name for the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub reference: Option<String>,
    /// The currency of every amount of the order.
    pub currency: Currency,
    /// The lines, each sku once.
    pub items: Vec<Line>,
    /// The sum of the lines.
    pub total: Amount,
}

/// The fields that identify a person, in one place so that they can be encrypted per customer later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Personal {
    /// Whose order it is.
    pub customer_id: String,
    /// Where mails go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub email: Option<String>,
}

/// A line of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// The article.
    pub sku: String,
    /// How many.
    pub quantity: u32,
    /// Price of one.
    pub unit_price: Amount,
}

impl Line {
    /// What the whole line costs; `None` beyond the largest amount.
    pub fn amount(&self) -> Option<Amount> {
        self.unit_price.checked_mul(self.quantity)
    }
}

/// The sum of the lines; `None` beyond the largest amount.
pub fn total_of(lines: &[Line]) -> Option<Amount> {
    lines.iter().try_fold(Amount::ZERO, |sum, line| sum.checked_add(line.amount()?))
}

/// A whole line was taken away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ItemRemoved {
    /// Which line.
    pub sku: String,
}

/// The whole total was paid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Paid {
    /// What was paid.
    pub amount: Amount,
    /// The payment's reference.
    pub payment_reference: String,
}

/// The order was handed to the carrier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Shipped {
    /// What leads to a person, apart from everything else.
    pub personal: ShippedPersonal,
    /// Who carries it.
    pub carrier: String,
}

/// A carrier tells whoever has the number where the parcel goes: it is as personal as the address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ShippedPersonal {
    /// Under which number.
    pub tracking_number: String,
}

/// The order has arrived.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Delivered {}

/// The order was called off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cancelled {
    /// Why.
    pub reason: String,
}

/// Money was given back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Refunded {
    /// How much this time.
    pub amount: Amount,
    /// Why.
    pub reason: String,
}

/// Which kind of event, without what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, VariantArray)]
pub enum EventKind {
    /// The order was placed.
    Created,
    /// Something was added.
    ItemAdded,
    /// A line was taken away.
    ItemRemoved,
    /// The total was paid.
    Paid,
    /// It went to the carrier.
    Shipped,
    /// It arrived.
    Delivered,
    /// It was called off.
    Cancelled,
    /// Money was given back.
    Refunded,
}

impl EventKind {
    /// Every one there is.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The kind that is called so on the wire, when there is one.
    pub fn of_type(event_type: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.event_type() == event_type)
    }

    /// Its name on the wire.
    pub fn event_type(self) -> &'static str {
        match self {
            Self::Created => "order.created",
            Self::ItemAdded => "order.item_added",
            Self::ItemRemoved => "order.item_removed",
            Self::Paid => "order.paid",
            Self::Shipped => "order.shipped",
            Self::Delivered => "order.delivered",
            Self::Cancelled => "order.cancelled",
            Self::Refunded => "order.refunded",
        }
    }

    /// The newest schema version of its data: the one that [`OrderEvent`] has.
    pub fn newest_schema(self) -> u32 {
        match self {
            Self::Created | Self::Shipped => 2,
            Self::ItemAdded | Self::ItemRemoved | Self::Paid | Self::Delivered | Self::Cancelled | Self::Refunded => 1,
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.event_type())
    }
}

impl OrderEvent {
    /// Which kind it is.
    pub fn kind(&self) -> EventKind {
        match self {
            Self::Created(_) => EventKind::Created,
            Self::ItemAdded(_) => EventKind::ItemAdded,
            Self::ItemRemoved(_) => EventKind::ItemRemoved,
            Self::Paid(_) => EventKind::Paid,
            Self::Shipped(_) => EventKind::Shipped,
            Self::Delivered(_) => EventKind::Delivered,
            Self::Cancelled(_) => EventKind::Cancelled,
            Self::Refunded(_) => EventKind::Refunded,
        }
    }

    /// Its name on the wire.
    pub fn event_type(&self) -> &'static str {
        self.kind().event_type()
    }

    /// Its data in the newest schema.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn encode(&self) -> Result<Box<RawValue>, serde_json::Error> {
        to_raw_value(self)
    }

    /// The event that was written as `data` in any schema version up to the newest: older ones are upcast. Fields that
    /// are not known are left out.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(event_type: &str, schema_version: u32, data: &RawValue) -> Result<Self, DecodeError> {
        let kind = EventKind::of_type(event_type)
            .ok_or_else(|| DecodeError::UnknownType { event_type: event_type.to_owned() })?;
        let newest = kind.newest_schema();
        if schema_version > newest {
            return Err(DecodeError::FromTheFuture { kind, schema_version, newest });
        }
        let unreadable = |reason| DecodeError::Unreadable { kind, schema_version, reason };
        let data = upcaster::upcast(kind, schema_version, data).map_err(unreadable)?;
        Self::read(kind, data.get()).map_err(|error| unreadable(error.to_string()))
    }

    fn read(kind: EventKind, data: &str) -> Result<Self, serde_json::Error> {
        Ok(match kind {
            EventKind::Created => Self::Created(serde_json::from_str(data)?),
            EventKind::ItemAdded => Self::ItemAdded(serde_json::from_str(data)?),
            EventKind::ItemRemoved => Self::ItemRemoved(serde_json::from_str(data)?),
            EventKind::Paid => Self::Paid(serde_json::from_str(data)?),
            EventKind::Shipped => Self::Shipped(serde_json::from_str(data)?),
            EventKind::Delivered => Self::Delivered(serde_json::from_str(data)?),
            EventKind::Cancelled => Self::Cancelled(serde_json::from_str(data)?),
            EventKind::Refunded => Self::Refunded(serde_json::from_str(data)?),
        })
    }
}

/// Why stored data is no event to this docket.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// No event type of this docket; a newer one may have it.
    #[error("{event_type} is no event type that this docket knows")]
    UnknownType {
        /// The type.
        event_type: String,
    },
    /// A newer docket wrote it, in a schema that this one has not learnt.
    #[error("{kind} has schema version {schema_version}, this docket reads up to {newest}")]
    FromTheFuture {
        /// Which kind of event.
        kind: EventKind,
        /// Its schema version.
        schema_version: u32,
        /// The newest that can be read here.
        newest: u32,
    },
    /// The data is not what its type and schema version promise.
    #[error("{kind} of schema version {schema_version} cannot be read: {reason}")]
    Unreadable {
        /// Which kind of event.
        kind: EventKind,
        /// Its schema version.
        schema_version: u32,
        /// What is wrong with it.
        reason: String,
    },
}

impl DecodeError {
    /// Whether a newer docket may be able to read it: nothing is wrong with the event, this process is behind.
    pub fn is_ahead(&self) -> bool {
        match self {
            Self::UnknownType { .. } | Self::FromTheFuture { .. } => true,
            Self::Unreadable { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(event_type: &str, schema_version: u32, data: &str) -> Result<OrderEvent, DecodeError> {
        OrderEvent::decode(event_type, schema_version, serde_json::from_str(data).expect("JSON"))
    }

    #[test]
    fn a_type_that_is_not_known_is_ahead_of_this_docket() {
        let error = decode("order.gift_wrapped", 1, "{}").expect_err("unknown");
        assert_eq!(error, DecodeError::UnknownType { event_type: "order.gift_wrapped".to_owned() });
        assert!(error.is_ahead());
    }

    #[test]
    fn a_schema_from_the_future_is_ahead_of_this_docket() {
        for kind in EventKind::ALL.iter().copied() {
            let newest = kind.newest_schema();
            let schema_version = newest + 1;
            let error = decode(kind.event_type(), schema_version, "{}").expect_err("from the future");
            assert_eq!(error, DecodeError::FromTheFuture { kind, schema_version, newest });
            assert!(error.is_ahead());
        }
    }

    #[test]
    fn data_that_breaks_its_promise_is_unreadable_and_says_why() {
        for (event_type, schema_version, data, reason) in [
            ("order.paid", 1, r#"{"amount":-1,"payment_reference":"p"}"#, "an amount is a whole number"),
            ("order.paid", 1, r#"{"amount":9007199254740992,"payment_reference":"p"}"#, "an amount is a whole number"),
            ("order.paid", 1, r#"{"amount":1.5,"payment_reference":"p"}"#, "invalid type"),
            ("order.paid", 1, r#"{"amount":1}"#, "missing field `payment_reference`"),
            ("order.paid", 0, r#"{"amount":1,"payment_reference":"p"}"#, "there is no such schema version"),
            ("order.item_added", 1, r#"{"sku":"A","quantity":-1,"unit_price":1}"#, "invalid value"),
            ("order.delivered", 1, "7", "invalid type"),
            ("order.created", 1, r#"{"orderId":"o","userId":"u"}"#, "missing field `total`"),
        ] {
            let error = decode(event_type, schema_version, data).expect_err(data);
            assert!(!error.is_ahead(), "{error}");
            assert!(error.to_string().contains(reason), "{error}");
            assert!(error.to_string().starts_with(event_type), "{error}");
        }
    }

    #[test]
    fn fields_that_are_not_known_are_left_out() {
        let event = decode("order.cancelled", 1, r#"{"by":"ana","reason":"x"}"#);
        assert_eq!(event, Ok(OrderEvent::Cancelled(Cancelled { reason: "x".to_owned() })));
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        for kind in EventKind::ALL.iter().copied() {
            assert_eq!(EventKind::of_type(kind.event_type()), Some(kind));
        }
    }
}
