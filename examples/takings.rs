//! A subscriber in a crate of its own: in each currency, how many orders stand where, and what they come to.
//!
//! `main` is all that such a crate needs beside its subscriber. The program is docket, with every command, and one
//! subscriber more. Unlike those of mails, its documents are shared by all orders of a currency; nothing in here thinks
//! about that, nor about retries, duplicates or processes.

use std::collections::BTreeMap;
use std::process::ExitCode;

use actors::inbox::DocumentKey;
use actors::money::{Amount, Currency};
use actors::order::OrderEvent;
use actors::order::event::{Line, total_of};
use actors::subscriber::{Cause, Documents, Event, Failure, NoEffect, Outcome, Registered, Subscriber, registry};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

fn main() -> ExitCode {
    docket::run(|parts| {
        let mut subscribers = registry::all(parts);
        subscribers.push(Registered::new(Takings));
        subscribers
    })
}

struct Takings;

/// A document an order: what its next event is counted with.
const ORDERS: &str = "orders";
/// A document a currency: a [`Sum`] for each status.
const CURRENCIES: &str = "currencies";

#[derive(Clone, Serialize, Deserialize)]
struct Order {
    currency: Currency,
    status: Status,
    lines: Vec<Line>,
    total: Amount,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Placed,
    Paid,
    Shipped,
    Delivered,
    Cancelled,
    Refunded,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Sum {
    orders: u64,
    total: Amount,
}

#[async_trait]
impl Subscriber for Takings {
    const NAME: &'static str = "takings";

    type Effect = NoEffect;

    fn reads(&self, event: &Event<'_>) -> Vec<DocumentKey> {
        vec![DocumentKey { collection: ORDERS.into(), id: event.order().to_string() }]
    }

    async fn handle(&self, event: &Event<'_>, documents: &mut Documents<'_>) -> Result<Vec<NoEffect>, Failure> {
        let before: Option<Order> = documents.get(ORDERS, event.order()).await?;
        let after = next(before.clone(), event.event)?;
        let currency = after.currency.code();
        let mut sums: BTreeMap<Status, Sum> = documents.get(CURRENCIES, currency).await?.unwrap_or_default();
        if let Some(before) = before {
            sums.entry(before.status).or_default().take_out(before.total)?;
        }
        sums.entry(after.status).or_default().put_in(after.total)?;
        documents.put(CURRENCIES, currency, &sums)?;
        documents.put(ORDERS, event.order(), &after)?;
        Ok(Vec::new())
    }

    async fn perform(&self, effect: &NoEffect, _: &Cause) -> Result<Outcome, Failure> {
        match *effect {}
    }
}

/// The order after that event.
fn next(before: Option<Order>, event: &OrderEvent) -> Result<Order, Failure> {
    if let OrderEvent::Created(created) = event {
        let (currency, lines, total) = (created.currency, created.items.clone(), created.total);
        return Ok(Order { currency, status: Status::Placed, lines, total });
    }
    let mut order = before.ok_or_else(|| Failure::permanent("nothing is known of the order"))?;
    match event {
        OrderEvent::Created(_) => {}
        OrderEvent::ItemAdded(line) => order.lines.push(line.clone()),
        OrderEvent::ItemRemoved(removed) => order.lines.retain(|line| line.sku != removed.sku),
        OrderEvent::Paid(_) => order.status = Status::Paid,
        OrderEvent::Shipped(_) => order.status = Status::Shipped,
        OrderEvent::Delivered(_) => order.status = Status::Delivered,
        OrderEvent::Cancelled(_) => order.status = Status::Cancelled,
        OrderEvent::Refunded(_) => order.status = Status::Refunded,
    }
    order.total = total_of(&order.lines).ok_or_else(uncountable)?;
    Ok(order)
}

impl Sum {
    fn put_in(&mut self, total: Amount) -> Result<(), Failure> {
        self.orders += 1;
        self.total = self.total.checked_add(total).ok_or_else(uncountable)?;
        Ok(())
    }

    fn take_out(&mut self, total: Amount) -> Result<(), Failure> {
        self.orders = self.orders.checked_sub(1).ok_or_else(uncountable)?;
        self.total = self.total.checked_sub(total).ok_or_else(uncountable)?;
        Ok(())
    }
}

fn uncountable() -> Failure {
    Failure::permanent("these amounts cannot be counted")
}
