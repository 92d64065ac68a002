//! What an order can be told to do, what makes a command well formed whatever the order's state, and how its events are
//! stored. Says nothing about whether a command is allowed now: that is the aggregate's.

use std::collections::HashSet;
use std::fmt;
use std::ops::RangeInclusive;

use email_address::EmailAddress;
use serde::{Deserialize, Serialize};
use strum::VariantArray;

use super::error::FieldError;
use super::event::{Line, OrderEvent, SCHEMA_OF_IMPORTS};
pub use super::import::Import;
use crate::commit::StoredEvent;
use crate::event::EventId;
use crate::money::{AMOUNT_MAX, Amount, Currency};

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
/// Longest email address.
pub const EMAIL_CHARS_MAX: usize = 254;

/// What is said of a total beyond [`AMOUNT_MAX`].
pub(super) const TOTAL_RULE: &str = "the total must be at most 9007199254740991";

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

/// Which command, without what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, VariantArray)]
pub enum CommandKind {
    /// Place a new order.
    Create,
    /// Add a line, or to a line.
    AddItem,
    /// Take a line away.
    RemoveItem,
    /// Record the payment.
    Pay,
    /// Hand it to the carrier.
    Ship,
    /// It has arrived.
    Deliver,
    /// Call it off.
    Cancel,
    /// Give money back.
    Refund,
    /// Take over an order of the older shape.
    Import,
}

impl CommandKind {
    /// Every one there is.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// Its name in errors and logs: the last part of its route.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::AddItem => "add-item",
            Self::RemoveItem => "remove-item",
            Self::Pay => "pay",
            Self::Ship => "ship",
            Self::Deliver => "deliver",
            Self::Cancel => "cancel",
            Self::Refund => "refund",
            Self::Import => "import",
        }
    }

    /// Whether it brings an order towards its end, and so may use what [`COMMANDS_KEPT_TO_FINISH`] keeps.
    pub fn finishes(self) -> bool {
        match self {
            Self::Pay | Self::Ship | Self::Deliver | Self::Cancel | Self::Refund => true,
            Self::Create | Self::AddItem | Self::RemoveItem | Self::Import => false,
        }
    }
}

impl Command {
    /// Which one it is.
    pub fn kind(&self) -> CommandKind {
        match self {
            Self::Create(_) => CommandKind::Create,
            Self::AddItem(_) => CommandKind::AddItem,
            Self::RemoveItem { .. } => CommandKind::RemoveItem,
            Self::Pay { .. } => CommandKind::Pay,
            Self::Ship { .. } => CommandKind::Ship,
            Self::Deliver => CommandKind::Deliver,
            Self::Cancel { .. } => CommandKind::Cancel,
            Self::Refund { .. } => CommandKind::Refund,
            Self::Import(_) => CommandKind::Import,
        }
    }

    /// Its name in errors and logs.
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// Whether it brings an order towards its end, and so may use what [`COMMANDS_KEPT_TO_FINISH`] keeps.
    pub fn finishes(&self) -> bool {
        self.kind().finishes()
    }

    /// Every field that cannot be right, each with its reason. Empty: well formed.
    ///
    /// A sku to remove is not looked at: one that no line can have is simply not there (404).
    pub fn validate(&self) -> Vec<FieldError> {
        let mut fields = Fields::default();
        match self {
            Self::Create(create) => create.check(&mut fields),
            Self::AddItem(item) => item.check(format_args!(""), &mut fields),
            Self::RemoveItem { .. } | Self::Deliver => {}
            // Whatever the amount is, the order knows the right one (`expected`).
            Self::Pay { amount: _, reference } => fields.text("reference", reference, ID_CHARS_MAX),
            Self::Ship { carrier, tracking_number } => {
                fields.text("carrier", carrier, ID_CHARS_MAX);
                fields.text("tracking_number", tracking_number, ID_CHARS_MAX);
            }
            Self::Cancel { reason } => fields.text("reason", reason, REASON_CHARS_MAX),
            Self::Refund { reason, amount } => {
                fields.text("reason", reason, REASON_CHARS_MAX);
                if let Some(amount) = amount {
                    fields.whole("amount", *amount, 1..=AMOUNT_MAX);
                }
            }
            Self::Import(import) => {
                if let Err(errors) = import.upcast() {
                    return errors;
                }
            }
        }
        fields.errors
    }

    /// How an event that this command brought about is stored: in the newest schema, except that an import keeps its
    /// data as it came, in the schema it came in. Decoding it gives `event` again.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn stored_form(&self, id: EventId, event: &OrderEvent) -> Result<StoredEvent, serde_json::Error> {
        let (schema_version, data) = if let (Self::Import(import), OrderEvent::Created(_)) = (self, event) {
            (SCHEMA_OF_IMPORTS, import.data.clone())
        } else {
            (event.kind().newest_schema(), event.encode()?)
        };
        Ok(StoredEvent { id, event_type: event.event_type().to_owned(), schema_version, data })
    }
}

impl Create {
    /// The lines of the order; `None` when their numbers cannot be right.
    pub(super) fn lines(&self) -> Option<Vec<Line>> {
        self.items.iter().map(Item::line).collect()
    }

    fn check(&self, fields: &mut Fields) {
        fields.text("customer_id", &self.customer_id, ID_CHARS_MAX);
        if let Some(email) = &self.email {
            fields.email("email", email);
        }
        if let Some(reference) = &self.reference {
            fields.text("reference", reference, ID_CHARS_MAX);
        }
        if let Err(error) = Currency::try_from(self.currency.as_str()) {
            fields.wrong("currency", error.to_string());
        }
        if !(1..=LINES_MAX).contains(&self.items.len()) {
            fields.wrong("items", format!("must have 1 to {LINES_MAX} lines"));
            return;
        }
        let total = self.items.iter().fold(0_i128, |sum, item| sum.saturating_add(item.amount()));
        if total > i128::from(AMOUNT_MAX) {
            fields.wrong("items", TOTAL_RULE);
        }
        let mut skus = HashSet::new();
        for (index, item) in self.items.iter().enumerate() {
            item.check(format_args!("items[{index}]."), fields);
            if !skus.insert(item.sku.as_str()) {
                fields.wrong(format_args!("items[{index}].sku"), "must be there only once");
            }
        }
    }
}

impl Item {
    /// As a line of an order; `None` when its numbers cannot be right.
    pub(super) fn line(&self) -> Option<Line> {
        let quantity = u32::try_from(self.quantity).ok()?;
        let unit_price = Amount::try_from(self.unit_price).ok()?;
        Some(Line { sku: self.sku.clone(), quantity, unit_price })
    }

    fn amount(&self) -> i128 {
        i128::from(self.quantity) * i128::from(self.unit_price)
    }

    fn check(&self, path: fmt::Arguments<'_>, fields: &mut Fields) {
        fields.sku(format_args!("{path}sku"), &self.sku);
        fields.whole(format_args!("{path}quantity"), self.quantity, 1..=QUANTITY_MAX);
        fields.whole(format_args!("{path}unit_price"), self.unit_price, 0..=AMOUNT_MAX);
    }
}

/// What is wrong with a command's fields, collected while they are looked at. A field's name is only written out when
/// it is wrong: a thousand good lines cost no text.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) errors: Vec<FieldError>,
}

impl Fields {
    pub(super) fn wrong(&mut self, field: impl fmt::Display, reason: impl Into<String>) {
        self.errors.push(FieldError { field: field.to_string(), reason: reason.into() });
    }

    pub(super) fn text(&mut self, field: &str, text: &str, chars_max: usize) {
        if text.is_empty() || text.chars().count() > chars_max {
            self.wrong(field, format!("must have 1 to {chars_max} characters"));
        }
        self.printable(field, text);
    }

    pub(super) fn sku(&mut self, field: impl fmt::Display, sku: &str) {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || b"._~-".contains(&c);
        if !(1..=SKU_CHARS_MAX).contains(&sku.len()) || !sku.bytes().all(allowed) {
            self.wrong(field, format!("must be 1 to {SKU_CHARS_MAX} characters of A-Z a-z 0-9 . _ ~ -"));
        }
    }

    pub(super) fn whole(&mut self, field: impl fmt::Display, number: i64, range: RangeInclusive<i64>) {
        if !range.contains(&number) {
            self.wrong(field, format!("must be a whole number from {} to {}", range.start(), range.end()));
        }
    }

    fn email(&mut self, field: &str, email: &str) {
        // Exactly what the mailer takes: an address that is accepted here must not fail a mail later.
        let plausible = email.rsplit_once('@').is_some_and(|(user, domain)| {
            EmailAddress::is_valid_local_part(user) && EmailAddress::is_valid_domain(domain)
        });
        if !plausible || email.chars().count() > EMAIL_CHARS_MAX {
            self.wrong(field, format!("must be an email address of at most {EMAIL_CHARS_MAX} characters"));
        }
        self.printable(field, email);
    }

    fn printable(&mut self, field: &str, text: &str) {
        if text.contains(char::is_control) {
            self.wrong(field, "must not have control characters");
        }
    }
}

#[cfg(test)]
mod tests;
