//! 200,000 different orders are touched with 1,000 of them live at most: memory stays where it was.

use futures_util::StreamExt;
use reqwest::{Method, StatusCode};

use crate::harness::{Docket, Folder, Store, on_every_store};

const ORDERS: usize = 200_000;
const PARCEL: usize = 20_000;

/// Resident memory of a process in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// Takes over the orders `first..first + PARCEL` of the older shape; their ids.
async fn import(docket: &Docket, first: usize) -> Vec<String> {
    let line = |n: usize| {
        format!(
            r#"{{"orderId":"o-{n}","userId":"u-{n}","total":99.90,"items":[{{"sku":"A-1","quantity":2,"price":49.95}}]}}"#
        )
    };
    let lines: Vec<String> = (first..first + PARCEL).map(line).collect();
    let said = docket.import(lines.join("\n")).await;
    said.iter()
        .map(|line| {
            assert_eq!(line["outcome"], "imported", "{line}");
            line["order"].as_str().expect("an id").to_owned()
        })
        .collect()
}

on_every_store!(memory_stays_flat_while_200_000_orders_are_touched);

async fn memory_stays_flat_while_200_000_orders_are_touched(store: Store) {
    let folder =
        Folder::new(store).set("DOCKET__ORDERS__LIVE_MAX", "1000").set("DOCKET__SUBSCRIBER__ROWS_CACHED_MAX", "1000");
    let docket = folder.start().await;
    let mut sizes = Vec::new();
    for first in (0..ORDERS).step_by(PARCEL) {
        let ids = import(&docket, first).await;
        // Some of each parcel are read again, long after they were let go.
        let reads = ids.iter().step_by(20).map(|id| docket.request(Method::GET, &format!("/orders/{id}")).send());
        let mut reads = futures_util::stream::iter(reads).buffer_unordered(32);
        while let Some(answer) = reads.next().await {
            assert_eq!(answer.expect("an answer").status, StatusCode::OK);
        }
        docket.settled(&folder).await;
        sizes.push(resident(docket.pid()));
    }
    let (early, late) = (sizes[1], *sizes.last().expect("a size"));
    // 160,000 orders later: an order that stayed would be more than a kilobyte.
    assert!(late < early + 48 * 1024, "resident KiB after each {PARCEL} orders: {sizes:?}");
    assert!(live(&docket).await <= 1_100);
}

/// How many orders are live.
async fn live(docket: &Docket) -> u64 {
    let tree = docket.ops("/api/tree").await;
    let orders = tree["children"].as_array().expect("children").iter().find(|child| child["name"] == "orders");
    let shards = orders.expect("orders")["children"].as_array().expect("shards").clone();
    shards.iter().map(|shard| shard["live"].as_u64().unwrap_or_default()).sum()
}
