//! The order itself: `decide` says what a command would change, `evolve` what an event did change. Both are plain
//! functions of their arguments: no clock, no randomness, no actor.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use strum::VariantArray;

use super::Version;
use super::command::{Command, CommandKind, Create, Item, LINES_MAX, QUANTITY_MAX, TOTAL_RULE};
use super::error::{FieldError, Refusal};
use super::event::{
    Cancelled, Created, Delivered, EventKind, ItemRemoved, Line, OrderEvent, Paid, Personal, Refunded, Shipped,
    ShippedPersonal, total_of,
};
use crate::clock::Timestamp;
use crate::money::{Amount, Currency};
use crate::order::OrderId;

/// The number of the shape of [`Order`] in snapshots; one with another number is ignored.
pub const STATE_SCHEMA: u32 = 1;

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, VariantArray)]
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
    /// Every one there is.
    pub const ALL: &'static [Self] = Self::VARIANTS;

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
    /// How it was paid; always the whole total.
    pub payment: Option<Payment>,
    /// How it was shipped.
    pub shipment: Option<Shipment>,
    /// When it arrived.
    pub delivered_at: Option<Timestamp>,
    /// How it was called off.
    pub cancellation: Option<Cancellation>,
    /// What was given back so far.
    pub refunded_total: Amount,
}

/// The payment of the whole total.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Payment {
    /// When.
    pub paid_at: Timestamp,
    /// The payment's reference.
    pub reference: String,
}

/// The way to the customer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shipment {
    /// When it was handed over.
    pub shipped_at: Timestamp,
    /// Who carries it.
    pub carrier: String,
    /// Under which number.
    pub tracking_number: String,
}

/// The end of an order that was not to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cancellation {
    /// When.
    pub cancelled_at: Timestamp,
    /// Why.
    pub reason: String,
}

impl Order {
    /// What was paid and not given back.
    pub fn refundable(&self) -> Amount {
        let paid = if self.payment.is_some() { self.total } else { Amount::ZERO };
        paid.checked_sub(self.refunded_total).unwrap_or(Amount::ZERO)
    }

    /// The line of that sku.
    pub fn line(&self, sku: &str) -> Option<&Line> {
        self.items.iter().find(|line| line.sku == sku)
    }

    /// The names of the commands that it takes now.
    pub fn allowed(&self) -> Vec<&'static str> {
        CommandKind::ALL.iter().filter(|kind| self.takes(**kind)).map(|kind| kind.name()).collect()
    }

    fn takes(&self, kind: CommandKind) -> bool {
        let more = match kind {
            CommandKind::RemoveItem => self.items.len() > 1,
            CommandKind::Refund => self.refundable() > Amount::ZERO,
            CommandKind::Create
            | CommandKind::AddItem
            | CommandKind::Pay
            | CommandKind::Ship
            | CommandKind::Deliver
            | CommandKind::Cancel
            | CommandKind::Import => true,
        };
        self.status.takes(kind) && more
    }

    fn refuse(&self, detail: impl Into<String>) -> Refusal {
        Refusal::NotAllowed { status: self.status, allowed: self.allowed(), detail: detail.into() }
    }
}

impl Status {
    /// Whether an order of this status takes such a command, as far as the status says.
    fn takes(self, kind: CommandKind) -> bool {
        match kind {
            CommandKind::Create | CommandKind::Import => false,
            CommandKind::AddItem | CommandKind::RemoveItem | CommandKind::Pay => self == Self::Placed,
            CommandKind::Ship => self == Self::Paid,
            CommandKind::Deliver => self == Self::Shipped,
            CommandKind::Cancel => matches!(self, Self::Placed | Self::Paid),
            CommandKind::Refund => matches!(self, Self::Shipped | Self::Delivered),
        }
    }

    /// The status after such an event; `None` when it cannot happen in this one. Whether a refund was the last is for
    /// the amounts to say.
    fn after(self, kind: EventKind) -> Option<Self> {
        match kind {
            EventKind::Created => None,
            EventKind::ItemAdded | EventKind::ItemRemoved => (self == Self::Placed).then_some(Self::Placed),
            EventKind::Paid => (self == Self::Placed).then_some(Self::Paid),
            EventKind::Shipped => (self == Self::Paid).then_some(Self::Shipped),
            EventKind::Delivered => (self == Self::Shipped).then_some(Self::Delivered),
            EventKind::Cancelled => matches!(self, Self::Placed | Self::Paid).then_some(Self::Cancelled),
            EventKind::Refunded => matches!(self, Self::Shipped | Self::Delivered | Self::Cancelled).then_some(self),
        }
    }
}

/// The events that `command` brings about on `order` (`None`: it does not exist yet), at least one; or why not.
///
/// What it gives can always be evolved, one event after the other. How many commands an order takes is for the caller to
/// count (`order::command::COMMANDS_MAX`).
pub fn decide(order: Option<&Order>, command: &Command) -> Result<Vec<OrderEvent>, Refusal> {
    let errors = command.validate();
    if !errors.is_empty() {
        return Err(Refusal::Invalid { errors });
    }
    let Some(order) = order else { return begin(command).map(|created| vec![OrderEvent::Created(created)]) };
    let kind = command.kind();
    if !order.status.takes(kind) {
        return Err(order.refuse(not_now(order.status, kind)));
    }
    match command {
        Command::Create(_) | Command::Import(_) => Err(order.refuse(not_now(order.status, kind))),
        Command::AddItem(item) => add_item(order, item).map(|line| vec![OrderEvent::ItemAdded(line)]),
        Command::RemoveItem { sku } => remove_item(order, sku).map(|removed| vec![OrderEvent::ItemRemoved(removed)]),
        Command::Pay { amount, reference } => pay(order, *amount, reference).map(|paid| vec![OrderEvent::Paid(paid)]),
        Command::Ship { carrier, tracking_number } => Ok(vec![OrderEvent::Shipped(Shipped {
            personal: ShippedPersonal { tracking_number: tracking_number.clone() },
            carrier: carrier.clone(),
        })]),
        Command::Deliver => Ok(vec![OrderEvent::Delivered(Delivered {})]),
        Command::Cancel { reason } => Ok(cancel(order, reason)),
        Command::Refund { reason, amount } => {
            refund(order, reason, *amount).map(|refunded| vec![OrderEvent::Refunded(refunded)])
        }
    }
}

fn not_now(status: Status, kind: CommandKind) -> String {
    let when: Vec<_> = Status::ALL.iter().filter(|status| status.takes(kind)).map(|status| status.name()).collect();
    if when.is_empty() {
        return "the order is there already".to_owned();
    }
    format!("the order is {status}; {} is possible while it is {}", kind.name(), when.join(" or "))
}

fn begin(command: &Command) -> Result<Created, Refusal> {
    match command {
        Command::Create(create) => created(create),
        Command::Import(import) => import.upcast().map_err(|errors| Refusal::Invalid { errors }),
        Command::AddItem(_)
        | Command::RemoveItem { .. }
        | Command::Pay { .. }
        | Command::Ship { .. }
        | Command::Deliver
        | Command::Cancel { .. }
        | Command::Refund { .. } => Err(Refusal::NotFound),
    }
}

fn created(create: &Create) -> Result<Created, Refusal> {
    let items = create.lines().ok_or_else(|| invalid("items", TOTAL_RULE))?;
    let total = total_of(&items).ok_or_else(|| invalid("items", TOTAL_RULE))?;
    let currency =
        Currency::try_from(create.currency.as_str()).map_err(|error| invalid("currency", error.to_string()))?;
    let personal = Personal { customer_id: create.customer_id.clone(), email: create.email.clone() };
    Ok(Created { personal, reference: create.reference.clone(), currency, items, total })
}

fn add_item(order: &Order, item: &Item) -> Result<Line, Refusal> {
    let added = item.line().ok_or_else(|| invalid("quantity", TOTAL_RULE))?;
    match order.line(&added.sku) {
        Some(line) if line.unit_price != added.unit_price => {
            return Err(Refusal::PriceDiffers { sku: added.sku, expected: line.unit_price });
        }
        Some(line) => {
            let room = QUANTITY_MAX - i64::from(line.quantity);
            if item.quantity > room {
                return Err(invalid("quantity", format!("the line has {}, at most {room} more fit", line.quantity)));
            }
        }
        None if order.items.len() >= LINES_MAX => {
            return Err(invalid("sku", format!("the order has {LINES_MAX} lines, there is no room for another")));
        }
        None => {}
    }
    let total = added.amount().and_then(|amount| order.total.checked_add(amount));
    total.map(|_| added).ok_or_else(|| invalid("quantity", TOTAL_RULE))
}

fn remove_item(order: &Order, sku: &str) -> Result<ItemRemoved, Refusal> {
    if order.line(sku).is_none() {
        return Err(Refusal::UnknownSku { sku: sku.to_owned() });
    }
    if order.items.len() == 1 {
        return Err(order.refuse("the last line cannot be removed; cancel the order instead"));
    }
    Ok(ItemRemoved { sku: sku.to_owned() })
}

fn pay(order: &Order, amount: i64, reference: &str) -> Result<Paid, Refusal> {
    if amount != order.total.minor_units() {
        return Err(Refusal::AmountDiffers { expected: order.total });
    }
    Ok(Paid { amount: order.total, payment_reference: reference.to_owned() })
}

fn cancel(order: &Order, reason: &str) -> Vec<OrderEvent> {
    let mut events = vec![OrderEvent::Cancelled(Cancelled { reason: reason.to_owned() })];
    let amount = order.refundable();
    if amount > Amount::ZERO {
        events.push(OrderEvent::Refunded(Refunded { amount, reason: reason.to_owned() }));
    }
    events
}

fn refund(order: &Order, reason: &str, amount: Option<i64>) -> Result<Refunded, Refusal> {
    let left = order.refundable();
    if left == Amount::ZERO {
        return Err(order.refuse("nothing is left to refund"));
    }
    let amount = match amount {
        None => left,
        Some(amount) => Amount::try_from(amount)
            .ok()
            .filter(|amount| *amount <= left)
            .ok_or_else(|| invalid("amount", format!("must be at most {}, which is left", left.minor_units())))?,
    };
    Ok(Refunded { amount, reason: reason.to_owned() })
}

fn invalid(field: &str, reason: impl Into<String>) -> Refusal {
    Refusal::Invalid { errors: vec![FieldError { field: field.to_owned(), reason: reason.into() }] }
}

/// The order after `event`, which was recorded at `at`.
///
/// # Errors
/// When the event cannot follow on this state: the stream is damaged. Never for what [`decide`] gave.
pub fn evolve(order: Option<Order>, id: OrderId, event: &OrderEvent, at: Timestamp) -> Result<Order, CannotEvolve> {
    let status = order.as_ref().map(|order| order.status);
    let cannot = |reason| CannotEvolve { event: event.kind(), status, reason };
    match order {
        None => placed(id, event, at),
        Some(order) if order.id != id => Err("it is another order's"),
        Some(order) => order.after(event, at),
    }
    .map_err(cannot)
}

fn placed(id: OrderId, event: &OrderEvent, at: Timestamp) -> Result<Order, &'static str> {
    let OrderEvent::Created(created) = event else { return Err("it must begin with its creation") };
    if created.items.is_empty() {
        return Err("it has no line");
    }
    let mut skus = HashSet::new();
    if !created.items.iter().all(|line| skus.insert(line.sku.as_str())) {
        return Err("it has two lines of one sku");
    }
    if total_of(&created.items) != Some(created.total) {
        return Err("the total is not the sum of the lines");
    }
    Ok(Order {
        id,
        status: Status::Placed,
        version: Version::FIRST,
        customer_id: created.personal.customer_id.clone(),
        email: created.personal.email.clone(),
        reference: created.reference.clone(),
        currency: created.currency,
        items: Arc::new(created.items.clone()),
        total: created.total,
        placed_at: at,
        updated_at: at,
        payment: None,
        shipment: None,
        delivered_at: None,
        cancellation: None,
        refunded_total: Amount::ZERO,
    })
}

impl Order {
    fn after(mut self, event: &OrderEvent, at: Timestamp) -> Result<Self, &'static str> {
        self.status = self.status.after(event.kind()).ok_or("the status does not allow it")?;
        self.version = self.version.0.checked_add(1).map(Version).ok_or("there is no version after the last")?;
        self.updated_at = at;
        match event {
            OrderEvent::Created(_) => return Err("it is there already"),
            OrderEvent::ItemAdded(line) => self.add(line)?,
            OrderEvent::ItemRemoved(removed) => self.remove(&removed.sku)?,
            OrderEvent::Paid(paid) => {
                if paid.amount != self.total {
                    return Err("the payment is not the total");
                }
                self.payment = Some(Payment { paid_at: at, reference: paid.payment_reference.clone() });
            }
            OrderEvent::Shipped(shipped) => {
                let Shipped { personal: ShippedPersonal { tracking_number }, carrier } = shipped.clone();
                self.shipment = Some(Shipment { shipped_at: at, carrier, tracking_number });
            }
            OrderEvent::Delivered(Delivered {}) => self.delivered_at = Some(at),
            OrderEvent::Cancelled(cancelled) => {
                self.cancellation = Some(Cancellation { cancelled_at: at, reason: cancelled.reason.clone() });
            }
            OrderEvent::Refunded(refunded) => self.give_back(refunded.amount)?,
        }
        Ok(self)
    }

    fn add(&mut self, added: &Line) -> Result<(), &'static str> {
        let total = added.amount().and_then(|amount| self.total.checked_add(amount));
        self.total = total.ok_or("the total is too large")?;
        let items = Arc::make_mut(&mut self.items);
        match items.iter_mut().find(|line| line.sku == added.sku) {
            Some(line) if line.unit_price != added.unit_price => return Err("the sku is there at another price"),
            Some(line) => {
                line.quantity = line.quantity.checked_add(added.quantity).ok_or("the quantity is too large")?;
            }
            None => items.push(added.clone()),
        }
        Ok(())
    }

    fn remove(&mut self, sku: &str) -> Result<(), &'static str> {
        let index = self.items.iter().position(|line| line.sku == sku).ok_or("there is no such line")?;
        if self.items.len() == 1 {
            return Err("the last line cannot go");
        }
        let removed = Arc::make_mut(&mut self.items).remove(index);
        let total = removed.amount().and_then(|amount| self.total.checked_sub(amount));
        self.total = total.ok_or("the total is less than the line")?;
        Ok(())
    }

    fn give_back(&mut self, amount: Amount) -> Result<(), &'static str> {
        if amount == Amount::ZERO {
            return Err("nothing is given back");
        }
        let left = self.refundable().checked_sub(amount).ok_or("more is given back than is left")?;
        self.refunded_total = self.refunded_total.checked_add(amount).ok_or("more is given back than was paid")?;
        // A cancelled order stays cancelled, whatever was given back.
        if left == Amount::ZERO && self.status != Status::Cancelled {
            self.status = Status::Refunded;
        }
        Ok(())
    }
}

/// An event that cannot follow on the state before it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{event} cannot follow when the order is {}: {reason}", status.map_or("not there", Status::name))]
pub struct CannotEvolve {
    /// Which kind of event.
    pub event: EventKind,
    /// The status it met.
    pub status: Option<Status>,
    /// What is impossible about it.
    pub reason: &'static str,
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
