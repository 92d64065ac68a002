//! `kill -9` in the middle of many writers. Whatever was acknowledged is there afterwards, whatever was not can be
//! repeated with its key, nothing happened twice, and nothing is there that nobody asked for. Every event has its mail.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use actors::commit::Commit;
use futures_util::StreamExt;
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Answer, Docket, Folder, TOTAL, an_order, mails, rounds};

const WRITERS: usize = 64;

/// A command and the key under which it can be repeated.
#[derive(Clone, Debug)]
struct Said {
    path: String,
    body: Value,
    key: String,
}

impl Said {
    async fn to(&self, docket: &Docket) -> reqwest::Result<Answer> {
        docket.post(&self.path, &self.body).key(&self.key).send().await
    }
}

/// What writers know when the docket has gone.
#[derive(Default)]
struct Known {
    acknowledged: Vec<(Said, Answer)>,
    unanswered: Vec<Said>,
}

/// Places an order after another and moves each on, until an answer fails to come.
async fn write(docket: &Docket, name: String) -> Known {
    let mut known = Known::default();
    for n in 0.. {
        let mut order = String::new();
        for step in ["create", "pay", "ship", "deliver"] {
            let reference = format!("{name}-{n}");
            let (path, body) = match step {
                "create" => ("/orders".to_owned(), an_order(&reference)),
                "pay" => (format!("/orders/{order}/pay"), json!({"amount": TOTAL, "reference": reference})),
                "ship" => (format!("/orders/{order}/ship"), json!({"carrier": "DHL", "tracking_number": reference})),
                _ => (format!("/orders/{order}/deliver"), json!({})),
            };
            let said = Said { path, body, key: format!("{step}-{reference}") };
            match said.to(docket).await {
                Ok(answer) => {
                    assert!(answer.status.is_success(), "{} {}: {}", said.path, answer.status, answer.body);
                    order = answer.id();
                    known.acknowledged.push((said, answer));
                }
                Err(_) => {
                    known.unanswered.push(said);
                    return known;
                }
            }
        }
    }
    known
}

/// Has [`WRITERS`] write, kills the docket after `delay`, and gives what they know.
async fn write_and_kill(docket: Docket, round: usize, delay: Duration) -> Known {
    let pid = docket.pid();
    let writers = join_all((0..WRITERS).map(|writer| write(&docket, format!("{round}-{writer}"))));
    let killer = async {
        tokio::time::sleep(delay).await;
        std::process::Command::new("sh").args(["-c", &format!("kill -KILL {pid}")]).status().expect("sh");
    };
    let (known, ()) = tokio::join!(writers, killer);
    docket.kill();
    let mut all = Known::default();
    for one in known {
        all.acknowledged.extend(one.acknowledged);
        all.unanswered.extend(one.unanswered);
    }
    all
}

/// Whatever was acknowledged stands as it was acknowledged.
async fn assert_kept(docket: &Docket, acknowledged: &[(Said, Answer)]) {
    let checks = acknowledged.iter().map(|(said, answer)| async move {
        let path = format!("/orders/{}?version={}", answer.id(), answer.version());
        let kept = docket.get(&path).send().await.expect("an answer");
        assert_eq!((kept.status, &kept.body), (StatusCode::OK, &answer.body), "{said:?} was acknowledged");
    });
    futures_util::stream::iter(checks).buffer_unordered(WRITERS).collect::<Vec<()>>().await;
}

/// Each order's events are those of its commands, each once, without a gap.
async fn assert_once(docket: &Docket, orders: &BTreeSet<String>) {
    let checks = orders.iter().map(|order| async move {
        let events = docket.events(order).await;
        let happened: Vec<(i64, &str)> = events
            .iter()
            .map(|event| (event["version"].as_i64().expect("a version"), event["type"].as_str().expect("a type")))
            .collect();
        let all = [(1, "order.created"), (2, "order.paid"), (3, "order.shipped"), (4, "order.delivered")];
        assert_eq!(happened, all[..happened.len().min(4)], "order {order}");
    });
    futures_util::stream::iter(checks).buffer_unordered(WRITERS).collect::<Vec<()>>().await;
}

/// The orders in the store, asked of the file itself.
fn stored_orders(folder: &Folder) -> BTreeSet<String> {
    let store = rusqlite::Connection::open(folder.data("orders.db")).expect("the store");
    let mut keys = store.prepare("SELECT DISTINCT substr(key, 1, 36) FROM commits").expect("its commits");
    keys.query_map([], |row| row.get(0)).expect("keys").map(|key| key.expect("a key")).collect()
}

/// What happened to each order, in order: the types of its events.
fn stored_events(folder: &Folder) -> BTreeMap<String, Vec<String>> {
    let store = rusqlite::Connection::open(folder.data("orders.db")).expect("the store");
    let mut commits = store.prepare("SELECT substr(key, 1, 36), body FROM commits ORDER BY key").expect("its commits");
    let commits = commits.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)));
    let mut events: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (order, body) in commits.expect("commits").map(|commit| commit.expect("a commit")) {
        let commit = Commit::decode(&body).expect("a commit");
        events.entry(order).or_default().extend(commit.envelopes().map(|event| event.event_type.clone()));
    }
    events
}

/// The subscriber has recorded one mail for each event, in order, and each is one file. Each kind of event that these
/// writers cause has a mail.
fn assert_mailed(folder: &Folder) {
    let inbox = rusqlite::Connection::open(folder.data("notification.db")).expect("the inbox");
    let mut effects = inbox
        .prepare("SELECT hex(order_id), version, position, outcome FROM effects ORDER BY order_id, version, position")
        .expect("its effects");
    let effects = effects.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
    let mut recorded: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for effect in effects.expect("effects") {
        let (order, version, position, outcome): (String, i64, i64, Option<String>) = effect.expect("an effect");
        assert_eq!((position, outcome.as_deref()), (0, Some("performed")), "order {order}, version {version}");
        recorded.entry(order.to_lowercase()).or_default().push(version);
    }
    let mut expected = 0;
    let events = stored_events(folder);
    assert_eq!(recorded.len(), events.len(), "orders with mails");
    for (order, events) in &events {
        let versions: Vec<i64> = (1..).take(events.len()).collect();
        assert_eq!(recorded.get(&order.replace('-', "")), Some(&versions), "order {order}: {events:?}");
        expected += events.len();
    }
    assert_eq!(mails(folder).len(), expected, "one file for each mail");
}

#[tokio::test]
async fn kill_9_among_writers_loses_nothing_and_repeats_nothing() {
    let folder = Folder::new();
    let mut orders = BTreeSet::new();
    let mut docket = folder.start().await;
    for round in 0..rounds(4, 100) {
        // Early, while connections are new, or late, while subscribers are behind.
        let delay = Duration::from_millis(rand::random_range(20..600));
        let known = write_and_kill(docket, round, delay).await;
        docket = folder.start().await;

        assert_kept(&docket, &known.acknowledged).await;
        let mut touched: BTreeSet<String> = known.acknowledged.iter().map(|(_, answer)| answer.id()).collect();
        for said in &known.unanswered {
            let answer = said.to(&docket).await.expect("an answer");
            assert!(answer.status.is_success(), "{said:?} repeated: {} {}", answer.status, answer.body);
            touched.insert(answer.id());
        }
        assert_once(&docket, &touched).await;
        orders.append(&mut touched);
    }

    assert_once(&docket, &orders).await;
    docket.settled(&folder).await;
    assert_eq!(docket.stop().await, Some(0));
    assert_eq!(stored_orders(&folder), orders, "an order that nobody knows, or too few");
    assert_mailed(&folder);
}
