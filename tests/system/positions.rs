//! How far a subscriber has followed the log is worth nothing any more: damaged, or forgotten by the server. That is noticed
//! and said, the whole log is read again, and nothing is done twice.

use futures_util::future::join_all;
use mongodb::bson::{Document, doc};
use reqwest::StatusCode;
use serde_json::Value;
use servers::MongoServer;

use crate::harness::callers::assert_mailed;
use crate::harness::{Docket, Folder, Store, TOTAL, an_order, takings};

/// Fewer than are written here, more than a quiet moment does.
const OPLOG_ENTRIES: u32 = 2_000;
const EXAMPLE: &str = "takings";
const SUBSCRIBERS: [&str; 2] = ["notification", EXAMPLE];
/// What is said by each subscriber that reads the whole log again.
const LOST: &str = "the position in the log is lost: the whole log is read again";

async fn place(docket: &Docket, name: &str, orders: usize) -> Vec<String> {
    let placing = (0..orders)
        .map(|n| async move { docket.place(&an_order(&format!("{name}-{n}"))).expect(StatusCode::CREATED).await.id() });
    join_all(placing).await
}

async fn pay(docket: &Docket, orders: &[String]) {
    join_all(orders.iter().map(|order| docket.pay(order, TOTAL).expect(StatusCode::OK))).await;
}

async fn stop(docket: Docket) -> String {
    let (code, said) = docket.stop_and_tell().await;
    assert_eq!(code, Some(0), "{said}");
    said
}

/// Some orders are counted, and some more are placed by a docket that does not count.
async fn counted_and_not(folder: &Folder) -> Vec<String> {
    let docket = folder.start_example(EXAMPLE).await;
    let mut orders = place(&docket, "counted", 20).await;
    pay(&docket, &orders[..10]).await;
    docket.settled(folder).await;
    stop(docket).await;

    let docket = folder.start().await;
    orders.extend(place(&docket, "not-counted", 10).await);
    pay(&docket, &orders[10..25]).await;
    docket.settled(folder).await;
    stop(docket).await;
    orders
}

/// Starts it again: it says of each subscriber that its position is lost, and afterwards everything is as if it were not.
/// What was said.
async fn assert_found_again(folder: &Folder, mut orders: Vec<String>) -> String {
    let docket = folder.start_example(EXAMPLE).await;
    orders.extend(place(&docket, "afterwards", 5).await);
    docket.settled(folder).await;
    assert_eq!(takings::stored(folder).await, takings::told(&docket, orders).await);
    let said = stop(docket).await;
    assert_eq!(said.matches(LOST).count(), SUBSCRIBERS.len(), "{said}");
    assert_mailed(folder, folder).await;

    // Once is enough.
    let docket = folder.start_example(EXAMPLE).await;
    docket.settled(folder).await;
    let again = stop(docket).await;
    assert!(!again.contains(LOST), "{again}");
    said
}

/// Makes the stored position one that no server gave.
async fn damage(folder: &Folder, subscriber: &str) {
    let subscribers = folder.database(Some(subscriber)).await.collection::<Document>("subscriber");
    let stored = subscribers.find_one(doc! {}).await.expect("an answer").expect("a subscriber");
    let mut position: Value = serde_json::from_str(stored.get_str("position").expect("a position")).expect("JSON");
    let (_, witness) = position["token"].as_str().and_then(|token| token.split_once(' ')).expect("a token");
    position["token"] = format!("{} {witness}", "00".repeat(40)).into();
    let written = doc! { "$set": { "position": position.to_string() } };
    assert_eq!(subscribers.update_one(doc! {}, written).await.expect("an answer").modified_count, 1);
}

#[tokio::test]
async fn a_damaged_position_is_noticed_and_the_whole_log_read_again() {
    let folder = Folder::new(Store::Mongodb);
    let orders = counted_and_not(&folder).await;
    for subscriber in SUBSCRIBERS {
        damage(&folder, subscriber).await;
    }
    assert_found_again(&folder, orders).await;
}

#[tokio::test]
async fn what_the_server_has_forgotten_meanwhile_is_noticed_and_the_whole_log_read_again() {
    let server = MongoServer::start_with_oplog_of(OPLOG_ENTRIES).await;
    let folder = Folder::on(&server);
    let orders = counted_and_not(&folder).await;
    let foreign = folder.database(Some("foreign")).await.collection::<Document>("rubbish");
    for _ in 0..3 {
        let rubbish = (0..OPLOG_ENTRIES).map(|n| doc! { "n": n });
        foreign.insert_many(rubbish).await.expect("an answer");
    }
    let said = assert_found_again(&folder, orders).await;
    assert!(said.contains("ChangeStreamHistoryLost"), "{said}");
}
