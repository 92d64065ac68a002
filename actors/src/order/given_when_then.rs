//! A small language for tests of the rules: given what happened, when a command comes, then these events or this refusal.
//! The steps are types, so none can be left out; a failure points at the test's line.

use serde_json::value::RawValue;
use uuid::Uuid;

use super::aggregate::{decide, evolve};
use super::command::{Command, Create, Import, Item};
use super::event::{
    Cancelled, Created, Delivered, ItemRemoved, Line, OrderEvent, Paid, Personal, Refunded, Shipped, ShippedPersonal,
    total_of,
};
use super::{Order, OrderId, Refusal};
use crate::clock::Timestamp;
use crate::money::{Amount, Currency};

/// What happened so far.
pub(crate) struct Given {
    order: Option<Order>,
    events: i64,
}

/// What came of a command.
pub(crate) struct When {
    given: Given,
    outcome: Result<Vec<OrderEvent>, Refusal>,
}

/// The order of every test.
pub(crate) fn order_id() -> OrderId {
    OrderId::from(Uuid::from_u128(0x0193_9c2e_0000_7000_8000_0000_0000_0001))
}

/// The moment at which the `n`th event is recorded.
pub(crate) fn moment(n: i64) -> Timestamp {
    Timestamp::from_millis(1_795_420_800_000 + n * 1_000)
}

#[track_caller]
pub(crate) fn given(events: &[OrderEvent]) -> Given {
    let mut given = Given { order: None, events: 0 };
    given.fold(events);
    given
}

impl Given {
    #[track_caller]
    fn fold(&mut self, events: &[OrderEvent]) {
        for event in events {
            self.events += 1;
            let next = evolve(self.order.take(), order_id(), event, moment(self.events));
            self.order = Some(next.expect("the events follow on one another"));
        }
    }

    #[track_caller]
    pub(crate) fn order(self) -> Order {
        self.order.expect("something happened")
    }

    pub(crate) fn when(self, command: Command) -> When {
        let outcome = decide(self.order.as_ref(), &command);
        When { given: self, outcome }
    }
}

impl When {
    /// Exactly these events come of it; gives the order after them.
    #[track_caller]
    pub(crate) fn then(mut self, events: &[OrderEvent]) -> Order {
        assert_eq!(self.outcome.as_deref(), Ok(events));
        self.given.fold(events);
        self.given.order()
    }

    #[track_caller]
    pub(crate) fn refused(self) -> Refusal {
        self.outcome.expect_err("a refusal")
    }

    #[track_caller]
    pub(crate) fn not_allowed(self, detail: &str, allowed: &[&'static str]) {
        let status = self.given.order.as_ref().expect("an order").status;
        let expected = Refusal::NotAllowed { status, allowed: allowed.to_vec(), detail: detail.to_owned() };
        assert_eq!(self.refused(), expected);
    }

    #[track_caller]
    pub(crate) fn invalid(self, field: &str, reason: &str) {
        let Refusal::Invalid { errors } = self.refused() else { panic!("not refused as invalid") };
        let errors: Vec<_> = errors.iter().map(|error| (error.field.as_str(), error.reason.as_str())).collect();
        assert_eq!(errors, [(field, reason)]);
    }
}

pub(crate) fn amount(minor_units: i64) -> Amount {
    Amount::try_from(minor_units).expect("an amount")
}

pub(crate) fn line(sku: &str, quantity: u32, unit_price: i64) -> Line {
    Line { sku: sku.to_owned(), quantity, unit_price: amount(unit_price) }
}

pub(crate) fn item(sku: &str, quantity: i64, unit_price: i64) -> Item {
    Item { sku: sku.to_owned(), quantity, unit_price }
}

pub(crate) fn create(items: &[Item]) -> Create {
    Create {
        customer_id: "c-1".to_owned(),
        email: Some("ana@example.com".to_owned()),
        reference: Some("web-77".to_owned()),
        currency: "EUR".to_owned(),
        items: items.to_vec(),
    }
}

pub(crate) fn import(json: &str) -> Command {
    Command::Import(Import { data: RawValue::from_string(json.to_owned()).expect("JSON") })
}

pub(crate) fn pay(amount: i64) -> Command {
    Command::Pay { amount, reference: "pay-1".to_owned() }
}

pub(crate) fn ship() -> Command {
    Command::Ship { carrier: "DHL".to_owned(), tracking_number: "JD014600".to_owned() }
}

pub(crate) fn cancel() -> Command {
    Command::Cancel { reason: "changed my mind".to_owned() }
}

pub(crate) fn refund(amount: Option<i64>) -> Command {
    Command::Refund { reason: "broken".to_owned(), amount }
}

pub(crate) fn remove(sku: &str) -> Command {
    Command::RemoveItem { sku: sku.to_owned() }
}

pub(crate) fn created(items: &[Line]) -> OrderEvent {
    OrderEvent::Created(Created {
        personal: Personal { customer_id: "c-1".to_owned(), email: Some("ana@example.com".to_owned()) },
        reference: Some("web-77".to_owned()),
        currency: Currency::EUR,
        items: items.to_vec(),
        total: total_of(items).expect("a total"),
    })
}

pub(crate) fn removed(sku: &str) -> OrderEvent {
    OrderEvent::ItemRemoved(ItemRemoved { sku: sku.to_owned() })
}

pub(crate) fn paid(minor_units: i64) -> OrderEvent {
    OrderEvent::Paid(Paid { amount: amount(minor_units), payment_reference: "pay-1".to_owned() })
}

pub(crate) fn shipped() -> OrderEvent {
    let personal = ShippedPersonal { tracking_number: "JD014600".to_owned() };
    OrderEvent::Shipped(Shipped { personal, carrier: "DHL".to_owned() })
}

pub(crate) fn delivered() -> OrderEvent {
    OrderEvent::Delivered(Delivered {})
}

pub(crate) fn cancelled() -> OrderEvent {
    OrderEvent::Cancelled(Cancelled { reason: "changed my mind".to_owned() })
}

pub(crate) fn refunded(minor_units: i64, reason: &str) -> OrderEvent {
    OrderEvent::Refunded(Refunded { amount: amount(minor_units), reason: reason.to_owned() })
}
