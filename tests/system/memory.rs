//! Very many different orders are touched with 1,000 of them live at most: memory stays where it was.

use futures_util::StreamExt;
use reqwest::StatusCode;

use crate::harness::{Docket, Folder, Store, eventually, on_every_store, rounds};

const PARCELS: usize = 10;

/// How many orders. A server apart needs its own share of the machine.
fn orders(store: Store) -> usize {
    match store {
        Store::Sqlite => 200_000,
        Store::Mongodb => rounds(40_000, 200_000),
    }
}

/// Resident memory of a process in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// Takes over that many orders of the older shape, from the `first` on; their ids.
async fn import(docket: &Docket, first: usize, count: usize) -> Vec<String> {
    let line = |n: usize| {
        format!(
            r#"{{"orderId":"o-{n}","userId":"u-{n}","total":99.90,"items":[{{"sku":"A-1","quantity":2,"price":49.95}}]}}"#
        )
    };
    let lines: Vec<String> = (first..first + count).map(line).collect();
    let said = docket.import(lines.join("\n")).await;
    said.iter()
        .map(|line| {
            assert_eq!(line["outcome"], "imported", "{line}");
            line["order"].as_str().expect("an id").to_owned()
        })
        .collect()
}

on_every_store!(memory_stays_flat_while_orders_come_and_go);

async fn memory_stays_flat_while_orders_come_and_go(store: Store) {
    let folder =
        Folder::new(store).set("DOCKET__ORDERS__LIVE_MAX", "1000").set("DOCKET__SUBSCRIBER__ROWS_CACHED_MAX", "1000");
    let docket = folder.start().await;
    let mut sizes = Vec::new();
    let parcel = orders(store) / PARCELS;
    for n in 0..PARCELS {
        let ids = import(&docket, n * parcel, parcel).await;
        // Some of each parcel are read again, long after they were let go.
        let reads = ids.iter().step_by(20).map(|id| read(&docket, id));
        futures_util::stream::iter(reads).buffer_unordered(32).collect::<Vec<()>>().await;
        docket.settled(&folder).await;
        sizes.push(resident(docket.pid()));
    }
    let (early, late) = (sizes[1], *sizes.last().expect("a size"));
    // An order that stayed would be more than a kilobyte.
    let orders_between = ((PARCELS - 2) * parcel) as u64;
    assert!(late < early + orders_between / 2, "resident KiB after each {parcel} orders: {sizes:?}");
    assert!(live(&docket).await <= 1_100);
}

/// Reads an order; again when the store was too busy for it.
async fn read(docket: &Docket, id: &str) {
    eventually("it is read", async || {
        let answer = docket.get(&format!("/orders/{id}")).send().await.expect("an answer");
        assert!([StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE].contains(&answer.status), "{}", answer.body);
        answer.status == StatusCode::OK
    })
    .await;
}

/// How many orders are live.
async fn live(docket: &Docket) -> u64 {
    let tree = docket.ops("/api/tree").await;
    let orders = tree["children"].as_array().expect("children").iter().find(|child| child["name"] == "orders");
    let shards = orders.expect("orders")["children"].as_array().expect("shards").clone();
    shards.iter().map(|shard| shard["live"].as_u64().unwrap_or_default()).sum()
}
