//! What the subscriber of `examples/takings.rs` has counted, and what it is to have counted.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::Value;

use super::{Docket, Folder};

/// Orders that are read at the same time.
const AT_ONCE: usize = 32;

/// For each currency and status, how many orders there are and what they come to.
pub(crate) type Takings = BTreeMap<(String, String), (u64, i64)>;

#[derive(Deserialize)]
struct Sum {
    orders: u64,
    total: i64,
}

/// What is stored.
pub(crate) async fn stored(folder: &Folder) -> Takings {
    let mut takings = Takings::new();
    for (currency, body) in folder.documents("takings", "currencies").await {
        let sums: BTreeMap<String, Sum> = serde_json::from_str(&body).expect("sums");
        takings.extend(sums.into_iter().map(|(status, sum)| ((currency.clone(), status), (sum.orders, sum.total))));
    }
    takings.retain(|_, sum| *sum != (0, 0));
    takings
}

/// What these orders' events come to, as they are told to callers.
pub(crate) async fn told(docket: &Docket, orders: impl IntoIterator<Item = String>) -> Takings {
    let read = orders.into_iter().map(|order| async move { fold(&docket.events(&order).await) });
    let orders: Vec<_> = futures_util::stream::iter(read).buffer_unordered(AT_ONCE).collect().await;
    let mut takings = Takings::new();
    for (currency, status, total) in orders {
        let sum = takings.entry((currency, status)).or_default();
        *sum = (sum.0 + 1, sum.1 + total);
    }
    takings
}

/// An order's currency, where it stands, and what it comes to.
fn fold(events: &[Value]) -> (String, String, i64) {
    let created = &events[0]["data"];
    let currency = created["currency"].as_str().expect("a currency").to_owned();
    let (mut status, mut total) = ("placed", created["total"].as_i64().expect("a total"));
    for event in &events[1..] {
        match event["type"].as_str() {
            Some("order.item_added") => {
                let line = &event["data"];
                let number = |name: &str| line[name].as_i64().expect("a number");
                total += number("quantity") * number("unit_price");
            }
            Some("order.paid") => status = "paid",
            Some("order.shipped") => status = "shipped",
            Some("order.delivered") => status = "delivered",
            other => panic!("nobody here causes {other:?}"),
        }
    }
    (currency, status.to_owned(), total)
}
