//! What an order can be told to do, and what makes a command well formed whatever the order's state.

use serde::{Deserialize, Serialize};

use super::error::FieldError;

/// Most commands an order takes: 10,000.
pub const COMMANDS_MAX: u32 = 10_000;
/// The last of them are kept for pay, ship, deliver, cancel and refund, so that no order gets stuck half-way.
pub const COMMANDS_KEPT_TO_FINISH: u32 = 100;
/// Most lines of an order.
pub const LINES_MAX: usize = 1_000;
/// Largest quantity of a line.
pub const QUANTITY_MAX: i64 = 1_000_000;
/// Longest sku.
pub const SKU_CHARS_MAX: usize = 64;
/// Longest id or reference.
pub const ID_CHARS_MAX: usize = 128;
/// Longest reason.
pub const REASON_CHARS_MAX: usize = 500;

/// A command as it came in. [`Command::validate`] says whether its fields can be right; only the order's state says
/// whether it is allowed now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Place a new order.
    Create(Create),
    /// Add a line, or to a line with the same sku and price.
    AddItem(Item),
    /// Take a whole line away.
    RemoveItem {
        /// Which line.
        sku: String,
    },
    /// Record the payment of the whole total.
    Pay {
        /// What was paid, in minor units; must be the order's total.
        amount: i64,
        /// The payment's reference.
        reference: String,
    },
    /// Hand it to the carrier.
    Ship {
        /// Who carries it.
        carrier: String,
        /// Under which number.
        tracking_number: String,
    },
    /// It has arrived.
    Deliver,
    /// Call it off; what was paid is refunded in the same commit.
    Cancel {
        /// Why.
        reason: String,
    },
    /// Give money back.
    Refund {
        /// Why.
        reason: String,
        /// How much, in minor units; everything that is left when absent.
        amount: Option<i64>,
    },
    /// Take over an order of the older shape (`order.created` version 1), as it stands.
    Import(Import),
}

/// The fields of a new order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Create {
    /// Whose order it is.
    pub customer_id: String,
    /// Where mails go.
    pub email: Option<String>,
    /// The customer's own name for the order.
    pub reference: Option<String>,
    /// ISO 4217 code.
    pub currency: String,
    /// The lines.
    pub items: Vec<Item>,
}

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// The article.
    pub sku: String,
    /// How many.
    pub quantity: i64,
    /// Price of one, in minor units.
    pub unit_price: i64,
}

/// An order of the older shape, kept as the text that was imported.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Import {
    /// The JSON object, exactly.
    pub data: Box<serde_json::value::RawValue>,
}

impl PartialEq for Import {
    fn eq(&self, other: &Self) -> bool {
        self.data.get() == other.data.get()
    }
}

impl Command {
    /// Every field that cannot be right, each with its reason. Empty: well formed.
    pub fn validate(&self) -> Vec<FieldError> {
        Vec::new()
    }

    /// Its name in errors and logs: the last part of its route.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::AddItem(_) => "add-item",
            Self::RemoveItem { .. } => "remove-item",
            Self::Pay { .. } => "pay",
            Self::Ship { .. } => "ship",
            Self::Deliver => "deliver",
            Self::Cancel { .. } => "cancel",
            Self::Refund { .. } => "refund",
            Self::Import(_) => "import",
        }
    }

    /// Whether it brings an order towards its end, and so may use what [`COMMANDS_KEPT_TO_FINISH`] keeps.
    pub fn finishes(&self) -> bool {
        match self {
            Self::Pay { .. } | Self::Ship { .. } | Self::Deliver | Self::Cancel { .. } | Self::Refund { .. } => true,
            Self::Create(_) | Self::AddItem(_) | Self::RemoveItem { .. } | Self::Import(_) => false,
        }
    }
}
