//! Several dockets on one database. Whoever is asked knows what any of them has acknowledged, and whatever becomes of one
//! of them, the others go on: nothing is lost, nothing happens twice.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::callers::{Callers, LIFE, Said, Step};
use crate::harness::{Answer, Docket, Folder, Store, TOTAL, WAIT_MAX, an_order, eventually, rounds};

const REPLICAS: usize = 3;
const CALLERS: usize = 24;
/// How long a caller waits for a frozen docket.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a process that was killed keeps others from its work.
const LEASE: Duration = Duration::from_secs(4);

async fn start_all(folder: &Folder) -> Vec<Docket> {
    join_all((0..REPLICAS).map(|_| folder.start())).await
}

fn on_mongodb() -> Folder {
    Folder::new(Store::Mongodb)
        .set("DOCKET__NODE__HEARTBEAT_MS", "400")
        .set("DOCKET__MONGODB__ANSWER_TIMEOUT_MS", &(LEASE / 2).as_millis().to_string())
        .set("DOCKET__SUBSCRIBER__LEASE_MS", &LEASE.as_millis().to_string())
}

/// Moves an order on, each step at another docket than the one before; whoever is asked next knows of it.
async fn a_life_in_turn(dockets: &[Docket], n: usize) {
    let mut turn = dockets.iter().cycle().skip(n % dockets.len());
    let mut next = || turn.next().expect("one of them");
    let (mut order, mut version) = (String::new(), 0);
    let mut said_before: Vec<(Said, Answer)> = Vec::new();
    for step in LIFE {
        let said = Said::new(step, &order, &format!("in-turn-{n}"));
        let answer = (if version == 0 { said.to(next()) } else { said.to(next()).if_version(version) })
            .send()
            .await
            .expect("an answer");
        assert!(answer.status.is_success(), "{said:?}: {} {}", answer.status, answer.body);
        (order, version) = (answer.id(), version + 1);
        assert_eq!(answer.version(), version);

        let path = format!("/orders/{order}");
        let etag = answer.header("etag").expect("an ETag").to_owned();
        let read = next().get(&path).header("If-None-Match", "\"0\"").expect(StatusCode::OK).await;
        assert_eq!((&read.body, read.header("etag")), (&answer.body, Some(etag.as_str())));
        next().get(&path).header("If-None-Match", &etag).expect(StatusCode::NOT_MODIFIED).await;
        assert_eq!(next().events(&order).await.len() as i64, version);
        let late = next().pay(&order, TOTAL).if_version(version - 1).expect(StatusCode::PRECONDITION_FAILED).await;
        assert_eq!(late.problem(), "version-mismatch");

        said_before.push((said, answer));
        for (said, answer) in &said_before {
            let again = said.to(next()).send().await.expect("an answer");
            assert_eq!(again.header("idempotent-replayed"), Some("true"), "{said:?}: {}", again.body);
            for name in ["etag", "location"] {
                assert_eq!(again.header(name), answer.header(name), "{said:?}");
            }
            assert_eq!((again.status, &again.body), (answer.status, &answer.body), "{said:?}");
        }
    }
}

#[tokio::test]
async fn each_step_of_an_order_at_another_docket_is_known_to_the_next_and_replayed_by_any() {
    let folder = on_mongodb();
    let dockets = start_all(&folder).await;
    for round in 0..rounds(2, 20) {
        join_all((0..12).map(|n| a_life_in_turn(&dockets, round * 12 + n))).await;
    }
}

/// Adds to the order at one docket after the other until it is done; the version that it was given.
async fn add_item(dockets: &[Docket], order: &str, n: usize) -> i64 {
    let item = json!({"sku": "B-1", "quantity": 1, "unit_price": 100});
    let began = Instant::now();
    for docket in dockets.iter().cycle().skip(n % dockets.len()) {
        // Without a key: a second time would be seen.
        let answer = docket.tell(order, "items", &item).send().await.expect("an answer");
        if answer.status == StatusCode::OK {
            return answer.version();
        }
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.body);
        assert!(["contended", "overloaded"].contains(&answer.problem()), "{}", answer.body);
        assert!(began.elapsed() < WAIT_MAX, "never done: {}", answer.body);
    }
    unreachable!("it goes round")
}

#[tokio::test]
async fn of_six_hundred_commands_at_once_on_one_order_over_all_dockets_each_gets_a_version_of_its_own() {
    // Slow, on a slow machine, is not away.
    let folder = on_mongodb().set("DOCKET__JOURNAL__WRITE_MAX_MS", "9000").set("DOCKET__JOURNAL__WAIT_MAX_MS", "9000");
    let dockets = start_all(&folder).await;
    for round in 0..rounds(1, 20) {
        let order = dockets[0].place(&an_order(&format!("busy-{round}"))).expect(StatusCode::CREATED).await.id();
        let versions = join_all((0..600).map(|n| add_item(&dockets, &order, n))).await;
        assert_eq!(versions.into_iter().collect::<BTreeSet<i64>>(), (2..=601).collect());
        for docket in &dockets {
            let events = docket.events(&order).await;
            let versions: Vec<i64> = events.iter().filter_map(|event| event["version"].as_i64()).collect();
            assert_eq!(versions, (1..=601).collect::<Vec<_>>());
            assert_eq!(docket.order(&order).await["total"], TOTAL + 600 * 100);
        }
    }
}

/// How many of the three are seen by `docket`, and of those that are silent the addresses.
async fn seen_by(docket: &Docket) -> (usize, Vec<String>) {
    let tree = docket.ops("/api/tree").await;
    let nodes = tree["nodes"].as_array().expect("nodes");
    let silent = nodes.iter().filter(|node| node["alive"] == Value::Bool(false));
    (nodes.len(), silent.map(|node| format!("http://{}", node["ops"].as_str().expect("an address"))).collect())
}

/// Freezes it while the others work, and thaws it: what it is asked then it answers as it is now.
async fn freeze_and_thaw(folder: &Folder, callers: &Callers<'_>, dockets: &[Docket], frozen: usize) {
    let (frozen, other) = (&dockets[frozen], &dockets[(frozen + 1) % REPLICAS]);
    callers.go_on(50).await;
    let before = callers.told().acknowledged.len();
    frozen.freeze();
    eventually("it is seen to be silent", async || seen_by(other).await == (REPLICAS, vec![frozen.ops.clone()])).await;
    eventually("docket tree tells it from the others", async || {
        let tree = folder.command(&["tree", "--url", &other.ops]).output().expect("the built docket");
        let tree = String::from_utf8(tree.stdout).expect("UTF-8");
        (tree.matches("alive").count(), tree.matches("silent").count()) == (REPLICAS - 1, 1)
    })
    .await;
    callers.go_on(100).await;

    let known = callers.told().versions_since(before);
    let asked = join_all(known.iter().take(100).map(|(order, version)| async move {
        let read = frozen.get(&format!("/orders/{order}")).send().await.expect("an answer");
        // It may have lost its connections meanwhile.
        if read.status != StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(read.status, StatusCode::OK, "{}", read.body);
            assert!(read.version() >= *version, "it answers with what was {version} versions ago: {read:?}");
        }
    }));
    let (_, ()) = tokio::join!(asked, async { frozen.thaw() });
    eventually("it is seen again", async || seen_by(other).await == (REPLICAS, Vec::new())).await;
}

#[tokio::test]
async fn while_one_docket_is_frozen_the_others_go_on_and_afterwards_it_answers_nothing_old() {
    let folder = on_mongodb();
    let dockets = start_all(&folder).await;
    let callers = Callers::new(&dockets).patient_for(PATIENCE);
    let busy = callers.say(&Said::new(Step::Create, "", "busy"), false).await.expect("it is repeated").id();
    eventually("all know of each other", async || seen_by(&dockets[0]).await == (REPLICAS, Vec::new())).await;
    let trouble = async {
        for round in 0..rounds(REPLICAS, 60) {
            freeze_and_thaw(&folder, &callers, &dockets, round % REPLICAS).await;
        }
        callers.stop();
    };
    tokio::join!(callers.write(CALLERS), callers.crowd(&busy, 6), trouble);
    callers.into_told().assert_true(&folder, dockets).await;
}

/// Which of them has the subscriber, when one has it.
async fn active(dockets: &[Docket]) -> Option<usize> {
    for (index, docket) in dockets.iter().enumerate() {
        if docket.subscribers().await[0]["state"] == "running" {
            return Some(index);
        }
    }
    None
}

/// Kills the one that has the subscriber, under load; another has it soon.
async fn kill_the_active_one(callers: &Callers<'_>, dockets: &[Docket], killed: usize) {
    callers.go_on(200).await;
    dockets[killed].signal("KILL");
    let since = Instant::now();
    let left = [&dockets[..killed], &dockets[killed + 1..]];
    eventually("another has taken over", async || active(left[0]).await.is_some() || active(left[1]).await.is_some())
        .await;
    assert!(since.elapsed() < LEASE * 5, "{:?} after the end", since.elapsed());
    callers.go_on(200).await;
    callers.stop();
}

#[tokio::test]
async fn a_docket_that_is_killed_with_a_subscriber_at_work_is_followed_by_another_in_time() {
    for _ in 0..rounds(1, 40) {
        let folder = on_mongodb();
        let mut dockets = start_all(&folder).await;
        let mut at_work = None;
        eventually("a subscriber is at work", async || {
            at_work = active(&dockets).await;
            at_work.is_some()
        })
        .await;
        let killed = at_work.expect("one of them");
        let callers = Callers::new(&dockets);
        tokio::join!(callers.write(CALLERS), kill_the_active_one(&callers, &dockets, killed));
        let told = callers.into_told();
        dockets.remove(killed).kill();
        told.assert_true(&folder, dockets).await;
    }
}
