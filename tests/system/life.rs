//! An order's whole life, and what becomes of it outside.

use reqwest::StatusCode;
use serde_json::json;

use crate::harness::{Folder, Setting, Store, TOTAL, an_order, callers, eventually, in_every_setting};

in_every_setting!(an_order_lives_from_placed_to_refunded_and_its_customer_hears_of_it);

async fn an_order_lives_from_placed_to_refunded_and_its_customer_hears_of_it(setting: Setting) {
    let folder = Folder::new(setting);
    let docket = folder.start().await;

    let placed =
        docket.place(&an_order("web-77")).header("X-Correlation-Id", "corr-1").expect(StatusCode::CREATED).await;
    let id = placed.id();
    assert_eq!(placed.header("location"), Some(format!("/orders/{id}").as_str()));
    assert_eq!(placed.header("etag"), Some("\"1\""));
    assert_eq!(placed.header("x-correlation-id"), Some("corr-1"));
    assert_eq!(placed.body["status"], "placed");
    assert_eq!(placed.body["total"], TOTAL);

    docket.pay(&id, TOTAL).if_version(1).expect(StatusCode::OK).await;
    docket.ship(&id).expect(StatusCode::OK).await;
    docket.deliver(&id).expect(StatusCode::OK).await;
    let part = json!({"reason": "one was broken", "amount": 4995});
    let refunded = docket.tell(&id, "refund", &part).expect(StatusCode::OK).await;
    assert_eq!(
        (refunded.body["status"].as_str(), refunded.body["refunded_total"].as_i64()),
        (Some("delivered"), Some(4995))
    );
    let rest = docket.tell(&id, "refund", &json!({"reason": "so was the other"})).expect(StatusCode::OK).await;
    assert_eq!((rest.body["status"].as_str(), rest.body["refunded_total"].as_i64()), (Some("refunded"), Some(TOTAL)));

    let types: Vec<String> = docket.events(&id).await.iter().map(|event| event["type"].to_string()).collect();
    let expected = ["created", "paid", "shipped", "delivered", "refunded", "refunded"];
    assert_eq!(types, expected.map(|name| format!("\"order.{name}\"")));
    let paid = docket.get(&format!("/orders/{id}?version=2")).expect(StatusCode::OK).await;
    assert_eq!((paid.body["status"].as_str(), paid.header("etag")), (Some("paid"), Some("\"2\"")));

    eventually("each event has its mail", async || folder.mails().len() == 6).await;
    let mails = folder.mails();
    assert!(mails.iter().all(|mail| mail.contains("To: ana@example.com")), "{mails:?}");
    assert_eq!(mails.iter().filter(|mail| mail.contains("X-Correlation-Id: corr-1")).count(), 1);
    assert_eq!(callers::mails(&folder).len(), 6, "{mails:?}");

    let (code, said) = docket.stop_and_tell().await;
    assert_eq!(code, Some(0));
    assert!(!said.contains("WARN") && !said.contains("ERROR"), "an ordinary life and stop alarm nobody:\n{said}");
    // On MongoDB there are no such files.
    for log in ["orders.db-wal", "notification.db-wal"] {
        let left = std::fs::metadata(folder.data(log)).map_or(0, |log| log.len());
        assert_eq!(left, 0, "{log}: a stop leaves nothing to recover");
    }
}

#[tokio::test]
async fn a_second_docket_on_the_same_folder_is_refused_and_told_who_has_it() {
    let folder = Folder::new(Store::Sqlite);
    let first = folder.start().await;
    let Err(said) = folder.try_start().await else { panic!("a second docket serves the same folder") };
    assert!(said.contains(&first.pid().to_string()), "does not name process {}:\n{said}", first.pid());
    first.place(&an_order("still-here")).expect(StatusCode::CREATED).await;

    // A killed one leaves its lock to whoever comes next.
    first.kill();
    folder.start().await;
}
