//! The order itself: `decide` says what a command would change, `evolve` what an event did change. Both are plain
//! functions of their arguments: no clock, no randomness, no actor.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Version;
use super::command::Command;
use super::error::Refusal;
use super::event::{Line, OrderEvent};
use crate::clock::Timestamp;
use crate::money::{Amount, Currency};
use crate::order::OrderId;

/// The number of the shape of [`Order`] in snapshots; one with another number is ignored.
pub const STATE_SCHEMA: u32 = 1;

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Waiting for its payment.
    Placed,
    /// Waiting to be shipped.
    Paid,
    /// On its way.
    Shipped,
    /// Arrived.
    Delivered,
    /// Called off.
    Cancelled,
    /// Everything paid was given back.
    Refunded,
}

impl Status {
    /// As the contract writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Paid => "paid",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Cancelled => "cancelled",
            Self::Refunded => "refunded",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An order at one version. Cheap to copy: the lines are shared until one of the copies changes them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Which order.
    pub id: OrderId,
    /// Where it stands.
    pub status: Status,
    /// How many events made it.
    pub version: Version,
    /// Whose it is.
    pub customer_id: String,
    /// Where mails go.
    pub email: Option<String>,
    /// The customer's own name for it.
    pub reference: Option<String>,
    /// Of every amount.
    pub currency: Currency,
    /// The lines, each sku once.
    pub items: Arc<Vec<Line>>,
    /// The sum of the lines.
    pub total: Amount,
    /// When it was placed.
    pub placed_at: Timestamp,
    /// When its last event was recorded.
    pub updated_at: Timestamp,
    /// When and how it was paid.
    pub paid: Option<(Timestamp, String)>,
    /// When, by whom and under which number it was shipped.
    pub shipped: Option<(Timestamp, String, String)>,
    /// When it arrived.
    pub delivered_at: Option<Timestamp>,
    /// When and why it was called off.
    pub cancelled: Option<(Timestamp, String)>,
    /// What was given back so far.
    pub refunded_total: Amount,
}

/// The events that `command` brings about on `order` (`None`: it does not exist yet), at least one; or why not.
pub fn decide(order: Option<&Order>, command: &Command) -> Result<Vec<OrderEvent>, Refusal> {
    let _ = (order, command);
    Err(Refusal::NotFound)
}

/// The order after `event`, which was recorded at `at`.
///
/// # Errors
/// When the event cannot follow on this state: the stream is damaged. Never for what [`decide`] gave.
pub fn evolve(order: Option<Order>, id: OrderId, event: &OrderEvent, at: Timestamp) -> Result<Order, CannotEvolve> {
    let _ = (order, id, at);
    Err(CannotEvolve { event: event.event_type(), status: None })
}

/// An event that cannot follow on the state before it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{event} cannot follow when the order is {}", status.map_or("not there", Status::name))]
pub struct CannotEvolve {
    /// The event's type.
    pub event: &'static str,
    /// The status it met.
    pub status: Option<Status>,
}
