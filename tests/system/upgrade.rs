//! Builds of different ages on one log: what an older one does with an event that it cannot read yet.

use actors::clock::Timestamp;
use actors::commit::{Commit, Origin, Part, StoredEvent};
use actors::event::EventId;
use reqwest::StatusCode;
use serde_json::value::to_raw_value;
use serde_json::{Value, json};

use crate::harness::command::ask;
use crate::harness::{Docket, Folder, Setting, Store, TOTAL, an_order, eventually, in_every_setting};

in_every_setting!(what_a_newer_build_has_written_holds_its_order_alone_until_a_build_that_knows_it_takes_over);

/// An order that is paid.
pub(crate) async fn a_paid_order(docket: &Docket, reference: &str) -> String {
    let order = docket.place(&an_order(reference)).expect(StatusCode::CREATED).await.id();
    docket.pay(&order, TOTAL).expect(StatusCode::OK).await;
    order
}

/// What another build would store next of that order: one event.
pub(crate) async fn next_commit(
    folder: &Folder,
    order: &str,
    event_type: &str,
    schema_version: u32,
    data: &Value,
) -> Commit {
    let commits = folder.commits().await;
    let last = commits.iter().rfind(|commit| commit.order().to_string() == order).expect("the order");
    let event = StoredEvent {
        id: EventId::generate(),
        event_type: event_type.to_owned(),
        schema_version,
        data: to_raw_value(data).expect("JSON"),
    };
    let part = Part { key: None, origin: Origin::anonymous("upgrade".to_owned(), None), events: vec![event] };
    let later = Timestamp::from_millis(last.recorded_at().as_millis() + 1);
    Commit::new(&last.stored_end(), later, vec![part]).expect("a commit")
}

/// Another build stores it: beside the docket where several may run, else in its place for a while.
async fn appended(folder: &Folder, setting: Setting, docket: Docket, commit: &Commit) -> Docket {
    match setting.store {
        Store::Mongodb => {
            folder.append(commit).await;
            docket
        }
        Store::Sqlite => {
            assert_eq!(docket.stop().await, Some(0));
            folder.append(commit).await;
            folder.start().await
        }
    }
}

/// The schema version of the future.
pub(crate) const AHEAD: u32 = 99;

pub(crate) fn ahead() -> Value {
    json!({"personal": {"tracking_number": "T-99"}, "carrier": "DHL", "parcels": 2})
}

async fn lane(docket: &Docket, order: &str) -> Value {
    let of_order = docket.ops(&format!("/api/orders/{order}/subscribers")).await;
    of_order["subscribers"].as_array().expect("subscribers")[0].clone()
}

/// The events of an order that were made into mails.
async fn mails_of(folder: &Folder, order: &str) -> Vec<i64> {
    let recorded = folder.recorded().await;
    recorded.into_iter().filter(|mail| mail.order == order).map(|mail| mail.version).collect()
}

async fn what_a_newer_build_has_written_holds_its_order_alone_until_a_build_that_knows_it_takes_over(setting: Setting) {
    let folder = Folder::new(setting).set("DOCKET__SUBSCRIBER__BACKOFF_FIRST_MS", "20");
    let docket = folder.start().await;
    let (order, other) = (a_paid_order(&docket, "ahead").await, a_paid_order(&docket, "other").await);
    docket.settled(&folder).await;
    let commit = next_commit(&folder, &order, "order.shipped", AHEAD, &ahead()).await;
    let docket = appended(&folder, setting, docket, &commit).await;

    // The older build knows that it is not the one to ask, and shows all the same what is there.
    eventually("the lane waits", async || lane(&docket, &order).await.to_string().contains("undecodable")).await;
    for request in [docket.get(&format!("/orders/{order}")), docket.deliver(&order)] {
        let refused = request.expect(StatusCode::SERVICE_UNAVAILABLE).await;
        assert_eq!(refused.problem(), "schema-ahead", "{}", refused.body);
        assert!(refused.header("retry-after").is_some());
    }
    let earlier = docket.get(&format!("/orders/{order}?version=2")).expect(StatusCode::OK).await;
    assert_eq!(earlier.body["status"], "paid");
    let events = docket.events(&order).await;
    assert_eq!((events.len(), &events[2]["schema_version"], &events[2]["data"]), (3, &AHEAD.into(), &ahead()));
    let held = ask(&folder, &docket, &["dead-letters", "list", "--json"]).ended(0).json();
    assert!(held.to_string().contains(&format!("{order}.3")), "{held}");
    let verified = ask(&folder, &docket, &["verify"]).ended(1);
    assert!(verified.out.contains(&format!("order.shipped {AHEAD}: 1 of a newer schema")), "{}", verified.out);
    assert!(verified.out.contains(&format!("{order}.3")), "{}", verified.out);

    // Nobody else notices.
    docket.ship(&other).expect(StatusCode::OK).await;
    eventually("the other order's mail is sent", async || mails_of(&folder, &other).await == [1, 2, 3]).await;
    assert_eq!(mails_of(&folder, &order).await, [1, 2]);

    // No build of the future can be had here: instead, the event becomes one that this build knows. What a build that
    // knows it finds is the same: the lane as it was held, and the event in the log.
    assert_eq!(docket.stop().await, Some(0));
    folder.rewrite(&commit, &format!("\"schema_version\":{AHEAD}"), "\"schema_version\":2").await;
    let docket = folder.start().await;
    assert_eq!(docket.order(&order).await["status"], "shipped");
    docket.deliver(&order).expect(StatusCode::OK).await;
    docket.settled(&folder).await;
    assert_eq!(mails_of(&folder, &order).await, [1, 2, 3, 4]);
    ask(&folder, &docket, &["verify"]).ended(0);
}
