//! Many at once: the same key from everywhere, and many commands on one order.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::json;

use crate::harness::{Answer, Docket, Folder, Request, Setting, TOTAL, an_order, in_every_setting};

fn replayed(answer: &Answer) -> bool {
    answer.header("idempotent-replayed") == Some("true")
}

/// Sends them all at once and gives their answers.
async fn at_once(requests: impl Iterator<Item = Request>) -> Vec<Answer> {
    join_all(requests.map(Request::send)).await.into_iter().map(|answer| answer.expect("an answer")).collect()
}

/// All answers are the same but for who was first.
fn assert_one_and_its_replays(answers: &[Answer], status: StatusCode) {
    for answer in answers {
        assert_eq!(answer.status, status, "{}", answer.body);
        assert_eq!(answer.body, answers[0].body);
        assert_eq!(answer.header("etag"), answers[0].header("etag"));
        assert_eq!(answer.header("location"), answers[0].header("location"));
    }
    assert_eq!(answers.iter().filter(|answer| !replayed(answer)).count(), 1);
}

in_every_setting!(
    the_same_key_from_fifty_connections_takes_effect_once,
    the_same_key_of_another_customer_is_another_creation,
    two_hundred_commands_at_once_each_get_a_version_of_their_own,
    of_two_hundred_commands_that_expect_the_same_version_one_wins,
);

async fn the_same_key_from_fifty_connections_takes_effect_once(setting: Setting) {
    let folder = Folder::new(setting);
    let docket = folder.start().await;

    let created = at_once((0..50).map(|_| docket.place(&an_order("web-1")).key("create-1"))).await;
    assert_one_and_its_replays(&created, StatusCode::CREATED);
    let id = created[0].id();

    let paid = at_once((0..50).map(|_| docket.pay(&id, TOTAL).key("pay-1").if_version(1))).await;
    assert_one_and_its_replays(&paid, StatusCode::OK);
    assert_eq!(docket.events(&id).await.len(), 2);

    // As the first time also after a restart and beyond later changes.
    docket.ship(&id).expect(StatusCode::OK).await;
    docket.kill();
    let docket = folder.start().await;
    let again = docket.place(&an_order("web-1")).key("create-1").expect(StatusCode::CREATED).await;
    assert!(replayed(&again));
    assert_eq!(again.body, created[0].body);
    let again = docket.pay(&id, TOTAL).key("pay-1").if_version(1).expect(StatusCode::OK).await;
    assert!(replayed(&again));
    assert_eq!(again.body, paid[0].body);

    let other = docket.pay(&id, TOTAL - 1).key("pay-1").expect(StatusCode::UNPROCESSABLE_ENTITY).await;
    assert_eq!(other.problem(), "key-reused");
    assert_eq!(docket.events(&id).await.len(), 3);
}

async fn the_same_key_of_another_customer_is_another_creation(setting: Setting) {
    let docket = Folder::new(setting).start().await;
    let mine = docket.place(&an_order("web-1")).key("k").expect(StatusCode::CREATED).await;
    let mut order = an_order("web-1");
    order["customer_id"] = json!("c-2");
    let theirs = docket.place(&order).key("k").expect(StatusCode::CREATED).await;
    assert!(!replayed(&theirs));
    assert_ne!(mine.id(), theirs.id());
}

fn add_item(docket: &Docket, id: &str) -> Request {
    docket.tell(id, "items", &json!({"sku": "B-1", "quantity": 1, "unit_price": 100}))
}

async fn two_hundred_commands_at_once_each_get_a_version_of_their_own(setting: Setting) {
    let docket = Folder::new(setting).start().await;
    let id = docket.place(&an_order("busy")).expect(StatusCode::CREATED).await.id();

    let answers = at_once((0..200).map(|_| add_item(&docket, &id))).await;
    let versions: BTreeSet<i64> = answers
        .iter()
        .inspect(|answer| assert_eq!(answer.status, StatusCode::OK, "{}", answer.body))
        .map(Answer::version)
        .collect();
    assert_eq!(versions, (2..=201).collect());
    let events: Vec<i64> = docket.events(&id).await.iter().filter_map(|event| event["version"].as_i64()).collect();
    assert_eq!(events, (1..=201).collect::<Vec<_>>());
    assert_eq!(docket.order(&id).await["total"], TOTAL + 200 * 100);
}

async fn of_two_hundred_commands_that_expect_the_same_version_one_wins(setting: Setting) {
    let docket = Folder::new(setting).start().await;
    let id = docket.place(&an_order("wanted")).expect(StatusCode::CREATED).await.id();

    let answers = at_once((0..200).map(|_| add_item(&docket, &id).if_version(1))).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == StatusCode::OK);
    assert_eq!(won.len(), 1);
    for answer in lost {
        assert_eq!((answer.status, answer.problem()), (StatusCode::PRECONDITION_FAILED, "version-mismatch"));
    }
    assert_eq!(docket.events(&id).await.len(), 2);
}
