//! `docket order ID`: an order, now or earlier; of the present one also how far each subscriber is with it, and what
//! operators discarded.

mod subscribers;

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use actors::money::{Amount, Currency};

use super::client::{Server, block_on};
use super::{CommandError, Done, print, print_json, table, text};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The order's id.
    id: Uuid,
    /// The state after that event.
    #[arg(long, value_name = "N", conflicts_with = "at", value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,
    /// The state at that moment, RFC 3339, such as 2026-11-23T08:00:00Z.
    #[arg(long, value_name = "TIME")]
    at: Option<actors::clock::Timestamp>,
    #[command(flatten)]
    server: Server,
}

#[derive(Deserialize)]
struct Order {
    currency: Currency,
    items: Vec<Item>,
    total: Amount,
}

#[derive(Deserialize)]
struct Item {
    sku: String,
    quantity: u32,
    unit_price: Amount,
}

pub(super) fn run(args: Args) -> Done {
    let id = args.id;
    let docket = args.server.docket()?;
    let path = match (args.version, args.at) {
        (Some(version), _) => format!("api/orders/{id}?version={version}"),
        (None, Some(at)) => format!("api/orders/{id}?at={at}"),
        (None, None) => format!("api/orders/{id}"),
    };
    let mut order: Value = block_on(docket.get(&path))?;
    // Subscribers have no past.
    let with_subscribers = args.version.is_none() && args.at.is_none();
    let subscribers = if with_subscribers { subscribers::of(&docket, id).map(Some) } else { Ok(None) };
    if args.server.json {
        if let (Some(order), Ok(Some(subscribers))) = (order.as_object_mut(), &subscribers) {
            order.insert("subscribers".to_owned(), subscribers.clone());
        }
        print_json(&order)?;
    } else {
        show(&order)?;
        if let Ok(Some(subscribers)) = &subscribers {
            subscribers::show(subscribers)?;
        }
    }
    // The order is shown all the same.
    subscribers.map(|_| ExitCode::SUCCESS)
}

/// What is asked first of an order; its times and what belongs to them follow.
const FIRST: &[&str] = &["id", "status", "version", "customer_id", "email", "reference", "currency"];

/// Every member as a line, except the lines of the order: those are a table with amounts as a person writes them.
fn show(order: &Value) -> Result<(), CommandError> {
    let mut fields = table(&[]);
    let mut members: Vec<_> = order.as_object().into_iter().flatten().collect();
    members.sort_by_key(|(name, _)| FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()));
    for (name, value) in members {
        match (name.as_str(), value) {
            ("items" | "total" | "refunded_total", _) => {}
            (_, Value::Object(inner)) => {
                for (inner_name, value) in inner {
                    fields.add_row([format!("{name}.{inner_name}"), plain(value)]);
                }
            }
            (_, value) => {
                fields.add_row([name.clone(), plain(value)]);
            }
        }
    }
    print(text(fields))?;
    let Ok(Order { currency, items, total }) = Order::deserialize(order) else { return Ok(()) };
    let mut lines = table(&["sku", "quantity", "unit price", "amount"]);
    for Item { sku, quantity, unit_price } in items {
        let amount = unit_price.checked_mul(quantity).unwrap_or_default();
        lines.add_row([
            sku,
            quantity.to_string(),
            unit_price.display(currency).to_string(),
            amount.display(currency).to_string(),
        ]);
    }
    lines.add_row(["total", "", "", total.display(currency).to_string().as_str()]);
    if let Some(refunded) = order.get("refunded_total").and_then(|value| Amount::deserialize(value).ok()) {
        lines.add_row(["refunded", "", "", refunded.display(currency).to_string().as_str()]);
    }
    print(format_args!("\n{}", text(lines)))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
