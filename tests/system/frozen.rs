//! The process in which a subscriber is active is frozen in the middle of its work, with documents in its hands that many
//! orders share. Another takes over and changes the same documents; then the first goes on where it was. Nothing is
//! counted twice or lost.

use std::time::Duration;

use futures_util::StreamExt;
use mongodb::Collection;
use mongodb::bson::{Document, doc};
use reqwest::StatusCode;
use servers::{MongoServer, Proxy, Request};

use crate::harness::callers::{Callers, assert_kept, assert_mailed};
use crate::harness::{Docket, Folder, an_order, eventually, rounds, takings};

const CALLERS: usize = 8;
/// How long a caller waits for a frozen docket.
const PATIENCE: Duration = Duration::from_millis(500);
/// Orders that there are before the subscriber is. It reads them by and by, while it follows what is new.
const BEFORE: usize = 600;
const EXAMPLE: &str = "takings";

/// A docket that counts takings: its way to MongoDB, and its place among the dockets.
struct Replica {
    proxy: Proxy,
    place: usize,
}

async fn place_orders(docket: &Docket) -> Vec<String> {
    let placing = (0..BEFORE).map(|n| async move {
        let mut order = an_order(&format!("before-{n}"));
        order["currency"] = if n % 3 == 0 { "USD" } else { "EUR" }.into();
        docket.place(&order).key(&format!("before-{n}")).expect(StatusCode::CREATED).await.id()
    });
    futures_util::stream::iter(placing).buffer_unordered(32).collect().await
}

/// The document that says who is at work on takings, and how far it is.
async fn subscriber(subscribers: &Collection<Document>) -> Document {
    subscribers.find_one(doc! {}).await.expect("an answer").expect("a subscriber")
}

/// What the subscriber does in that docket.
async fn state(docket: &Docket) -> String {
    let subscribers = docket.subscribers().await;
    let takings = subscribers.iter().find(|one| one["name"] == EXAMPLE).expect("it counts takings");
    takings["state"].as_str().expect("a state").to_owned()
}

/// Which of the two has the subscriber.
async fn active(dockets: &[Docket], replicas: &[Replica; 2]) -> usize {
    let mut active = None;
    eventually("one is at work", async || {
        for (index, replica) in replicas.iter().enumerate() {
            if ["catching_up", "running"].contains(&state(&dockets[replica.place]).await.as_str()) {
                active = Some(index);
            }
        }
        active.is_some()
    })
    .await;
    active.expect("one of them")
}

/// Freezes the active one when it has read documents and not yet written them; thaws it when another has changed them.
/// Of the new term it hears only after it could have written: what it sends to hold on to its lease comes late.
async fn freeze_and_thaw(folder: &Folder, callers: &Callers<'_>, dockets: &[Docket], active: &Replica) {
    let (frozen, proxy) = (&dockets[active.place], &active.proxy);
    let subscribers = folder.database(Some(EXAMPLE)).await.collection::<Document>("subscriber");
    // Between two pages of what is old it handles what is new. The one that takes over begins with what is old.
    let page = subscriber(&subscribers).await.get("scan_after").cloned();
    eventually("it has read a page", async || {
        let now = subscriber(&subscribers).await;
        now.get("scan_after").cloned() != page || now.get_bool("scanning").is_ok_and(|scanning| !scanning)
    })
    .await;
    let (held, term) = (proxy.passed().held, subscriber(&subscribers).await.get("term").cloned());
    proxy.hold_answers(|request: &Request| request.command == "find" && request.collection == "documents");
    eventually("it reads documents", async || proxy.passed().held > held).await;
    frozen.freeze();
    proxy.pass();
    proxy.hold_requests(|request: &Request| request.command == "findAndModify");

    eventually("another takes over", async || subscriber(&subscribers).await.get("term").cloned() != term).await;
    let before = takings::stored(folder).await;
    eventually("it has counted something", async || takings::stored(folder).await != before).await;
    frozen.thaw();
    callers.go_on(50).await;
    proxy.pass();
    eventually("the first stands by", async || state(frozen).await == "standby").await;
}

async fn two_are_frozen_one_after_the_other() {
    let server = MongoServer::start().await;
    let mut folder = Folder::on(&server)
        .set("DOCKET__MONGODB__ANSWER_TIMEOUT_MS", "1500")
        .set("DOCKET__SUBSCRIBER__LEASE_MS", "3000");
    // It has the mails, and does not count takings.
    let mut dockets = vec![folder.start().await];
    let mut orders = place_orders(&dockets[0]).await;
    // Small steps: so there are many in which to be frozen.
    folder = folder
        .set("DOCKET__SUBSCRIBERS__TAKINGS__BATCH_EVENTS_MAX", "4")
        .set("DOCKET__SUBSCRIBERS__TAKINGS__QUEUE_EVENTS_MAX", "1");
    let replicas = [1, 2].map(|place| Replica { proxy: Proxy::before(server.address()), place });
    for replica in &replicas {
        folder = folder.through(&replica.proxy);
        dockets.push(folder.start_example(EXAMPLE).await);
    }

    let callers = Callers::new(&dockets).patient_for(PATIENCE);
    let trouble = async {
        let first = active(&dockets, &replicas).await;
        for active in [&replicas[first], &replicas[1 - first]] {
            freeze_and_thaw(&folder, &callers, &dockets, active).await;
        }
        callers.go_on(50).await;
        callers.stop();
    };
    tokio::join!(callers.write(CALLERS), trouble);

    let told = callers.into_told();
    assert_kept(&dockets[0], &told.acknowledged).await;
    folder.settled(&dockets.iter().collect::<Vec<_>>()).await;
    orders.extend(told.events().into_keys());
    let counted = takings::stored(&folder).await;
    assert_eq!(counted, takings::told(&dockets[0], orders).await);
    for docket in dockets {
        assert_eq!(docket.stop().await, Some(0));
    }
    assert_mailed(&folder, &folder).await;
}

#[tokio::test]
async fn frozen_with_shared_documents_in_its_hands_it_counts_nothing_twice_and_loses_nothing() {
    for _ in 0..rounds(1, 40) {
        two_are_frozen_one_after_the_other().await;
    }
}
