//! The bodies that callers send. Their constraints here are for the OpenAPI document; `Command::validate` keeps them.

use actors::order::Command;
use actors::order::command::{Create, Item};
use serde::Deserialize;
use utoipa::ToSchema;

use super::super::body::Object;

/// A new order.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schema(example = json!(super::super::openapi::example_new_order()))]
pub(crate) struct NewOrder {
    /// Whose order it is.
    #[schema(min_length = 1, max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$")]
    pub(super) customer_id: String,
    /// Where mails go.
    #[schema(max_length = 254, format = "email")]
    email: Option<String>,
    /// The customer's own name for the order.
    #[schema(min_length = 1, max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$")]
    reference: Option<String>,
    /// ISO 4217.
    #[schema(pattern = "^[A-Z]{3}$")]
    currency: String,
    /// The lines, each sku once; together at most 2^53−1 minor units.
    #[schema(value_type = Vec<NewItem>, min_items = 1, max_items = 1000)]
    items: Vec<Object<NewItem>>,
}

/// A line.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schema(as = Item, example = json!({"sku": "A-1", "quantity": 2, "unit_price": 4995}))]
pub(crate) struct NewItem {
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._~-]+$")]
    sku: String,
    #[schema(minimum = 1, maximum = 1_000_000)]
    quantity: i64,
    /// Of one, in minor units.
    #[schema(minimum = 0, maximum = 9007199254740991i64)]
    unit_price: i64,
}

/// A payment of the whole total.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schema(example = json!({"amount": 9990, "reference": "pay-1"}))]
pub(crate) struct Pay {
    /// The order's total, in minor units.
    #[schema(minimum = 0, maximum = 9007199254740991i64)]
    amount: i64,
    #[schema(min_length = 1, max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$")]
    reference: String,
}

/// Who carries it, and under which number.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schema(example = json!({"carrier": "DHL", "tracking_number": "JD0001"}))]
pub(crate) struct Ship {
    #[schema(min_length = 1, max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$")]
    carrier: String,
    #[schema(min_length = 1, max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$")]
    tracking_number: String,
}

/// Nothing to say; the body may also be left out.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(crate) struct Deliver {}

/// Why it is called off.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schema(example = json!({"reason": "changed their mind"}))]
pub(crate) struct Cancel {
    #[schema(min_length = 1, max_length = 500, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$")]
    reason: String,
}

/// Why and how much is given back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schema(example = json!({"reason": "broken", "amount": 4995}))]
pub(crate) struct Refund {
    #[schema(min_length = 1, max_length = 500, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$")]
    reason: String,
    /// In minor units; everything that is left when absent.
    #[schema(minimum = 1, maximum = 9007199254740991i64)]
    amount: Option<i64>,
}

impl From<NewOrder> for Command {
    fn from(body: NewOrder) -> Self {
        Self::Create(Create {
            customer_id: body.customer_id,
            email: body.email,
            reference: body.reference,
            currency: body.currency,
            items: body.items.into_iter().map(|Object(item)| item.into()).collect(),
        })
    }
}

impl From<NewItem> for Item {
    fn from(body: NewItem) -> Self {
        Self { sku: body.sku, quantity: body.quantity, unit_price: body.unit_price }
    }
}

impl From<NewItem> for Command {
    fn from(body: NewItem) -> Self {
        Self::AddItem(body.into())
    }
}

impl From<Pay> for Command {
    fn from(body: Pay) -> Self {
        Self::Pay { amount: body.amount, reference: body.reference }
    }
}

impl From<Ship> for Command {
    fn from(body: Ship) -> Self {
        Self::Ship { carrier: body.carrier, tracking_number: body.tracking_number }
    }
}

impl From<Deliver> for Command {
    fn from(Deliver {}: Deliver) -> Self {
        Self::Deliver
    }
}

impl From<Cancel> for Command {
    fn from(body: Cancel) -> Self {
        Self::Cancel { reason: body.reason }
    }
}

impl From<Refund> for Command {
    fn from(body: Refund) -> Self {
        Self::Refund { reason: body.reason, amount: body.amount }
    }
}
