//! What happened to an order, in the newest schema of each event type.

use serde::{Deserialize, Serialize};

use crate::money::{Amount, Currency};

/// An event as `evolve` knows it. Older schemas become this by upcasting (`event::upcaster`), before anybody sees them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// `order.shipped`.
    Shipped(Shipped),
    /// `order.delivered`.
    Delivered(Delivered),
    /// `order.cancelled`.
    Cancelled(Cancelled),
    /// `order.refunded`.
    Refunded(Refunded),
}

/// The order was placed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Created {
    /// What identifies a person, apart from everything else.
    pub personal: Personal,
    /// The customer's own name for the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The currency of every amount of the order.
    pub currency: Currency,
    /// The lines, each sku once.
    pub items: Vec<Line>,
    /// The sum of the lines.
    pub total: Amount,
}

/// The fields that identify a person, in one place so that they can be encrypted per customer later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Personal {
    /// Whose order it is.
    pub customer_id: String,
    /// Where mails go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

/// A line of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The article.
    pub sku: String,
    /// How many.
    pub quantity: u32,
    /// Price of one.
    pub unit_price: Amount,
}

/// A whole line was taken away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemRemoved {
    /// Which line.
    pub sku: String,
}

/// The whole total was paid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paid {
    /// What was paid.
    pub amount: Amount,
    /// The payment's reference.
    pub payment_reference: String,
}

/// The order was handed to the carrier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shipped {
    /// Who carries it.
    pub carrier: String,
    /// Under which number.
    pub tracking_number: String,
}

/// The order has arrived.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivered {}

/// The order was called off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Why.
    pub reason: String,
}

/// Money was given back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refunded {
    /// How much this time.
    pub amount: Amount,
    /// Why.
    pub reason: String,
}

impl OrderEvent {
    /// Its name on the wire.
    pub fn event_type(&self) -> &'static str {
        match self {
            Self::Created(_) => "order.created",
            Self::ItemAdded(_) => "order.item_added",
            Self::ItemRemoved(_) => "order.item_removed",
            Self::Paid(_) => "order.paid",
            Self::Shipped(_) => "order.shipped",
            Self::Delivered(_) => "order.delivered",
            Self::Cancelled(_) => "order.cancelled",
            Self::Refunded(_) => "order.refunded",
        }
    }

    /// The newest schema version of its type: the one this enum has.
    pub fn schema_version(&self) -> u32 {
        match self {
            Self::Created(_) => 2,
            Self::ItemAdded(_)
            | Self::ItemRemoved(_)
            | Self::Paid(_)
            | Self::Shipped(_)
            | Self::Delivered(_)
            | Self::Cancelled(_)
            | Self::Refunded(_) => 1,
        }
    }
}
