//! What becomes of events when RabbitMQ is away, or when somebody purges, deletes or fills its queues: no request fails for
//! it, and every event arrives, in order, and counts once.

use std::time::Duration;

use rand::seq::SliceRandom;
use reqwest::StatusCode;
use serde_json::Value;
use servers::{Proxy, RabbitServer, SmtpServer};

use crate::harness::callers::{self, Callers, Told, assert_mailed};
use crate::harness::{Docket, Folder, Setting, Store, TOTAL, an_order, eventually, eventually_within, rounds};

const CALLERS: usize = 8;
/// For as long as a node needs to start again and again: the mail server is slower than docket.
const FEW: usize = 2;
const QUEUE: &str = "orders.notification";
const DEAD_QUEUE: &str = "orders.notification.dead";
/// What is read from the log because a queue cannot be consumed is read a minute late.
const LATE_MAX: Duration = Duration::from_secs(180);

/// With deadlines that a test can wait for.
fn impatient(folder: Folder) -> Folder {
    folder
        .set("DOCKET__RABBITMQ__ANSWER_TIMEOUT_MS", "2000")
        .set("DOCKET__RABBITMQ__HEARTBEAT_S", "2")
        .set("DOCKET__RABBITMQ__RETRY_MAX_MS", "500")
}

/// What the relay says of itself.
async fn relay(docket: &Docket) -> Value {
    docket.ops("/api/relay").await["relay"].take()
}

async fn queue(docket: &Docket) -> Value {
    docket.subscribers().await[0]["queue"].take()
}

/// Waits until the relay says that it is in this state.
#[track_caller]
fn relay_is<'a>(docket: &'a Docket, state: &'a str) -> impl Future<Output = ()> + 'a {
    eventually("the relay says so", async move || relay(docket).await["state"] == state)
}

/// Waits until events travel by the broker: it takes what is published, and brings it.
async fn travels(docket: &Docket, since: &str) {
    let published = relay(docket).await["published"].as_u64().expect("a number");
    eventually(&format!("it is published after {since}"), async || {
        let relay = relay(docket).await;
        relay["state"] == "publishing" && relay["published"].as_u64().expect("a number") > published
    })
    .await;
    eventually(&format!("it is consumed after {since}"), async || queue(docket).await["state"] == "consuming").await;
}

/// Callers notice nothing: nobody was refused, and no outcome was unknown.
fn assert_unnoticed(told: &Told) {
    assert_eq!((told.refused.len(), told.unknown, told.given_up), (0, 0, 0), "refused, unknown, given up");
}

/// No docket was killed: each mail has come once.
fn assert_mailed_once(folder: &Folder) {
    let mails = callers::mails(folder);
    let twice: Vec<_> = mails.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

/// Each thing that can become of a RabbitMQ, under load. It serves again at the end.
async fn trouble(server: &mut RabbitServer, proxy: &Proxy, callers: &Callers<'_>, docket: &Docket) {
    travels(docket, "the start").await;
    server.write_down_queues().await;
    for _ in 0..rounds(1, 20) {
        server.kill();
        relay_is(docket, "broker_away").await;
        callers.go_on(100).await;
        assert!(docket.is_ready().await, "RabbitMQ is no reason to be given no requests");
        server.restart().await;
        travels(docket, "the restart").await;

        server.alarm().await;
        relay_is(docket, "blocked").await;
        callers.go_on(100).await;
        assert!(docket.is_ready().await);
        server.calm().await;
        travels(docket, "the alarm").await;

        server.freeze();
        relay_is(docket, "broker_away").await;
        callers.go_on(100).await;
        server.thaw();
        travels(docket, "the thaw").await;

        // The connections stay, and nobody is told that they are dead.
        proxy.forget_connections();
        callers.go_on(100).await;
        travels(docket, "connections were forgotten").await;

        proxy.drop_connections();
        relay_is(docket, "broker_away").await;
        callers.go_on(100).await;
        proxy.pass();
        travels(docket, "connections were broken").await;
    }
    callers.stop();
}

#[tokio::test]
async fn rabbitmq_killed_without_memory_standing_still_or_cut_off_under_load_is_noticed_by_no_caller() {
    let mut server = RabbitServer::start().await;
    let proxy = Proxy::raw_before(server.address());
    let vhost = server.vhost();
    let through = vhost.uri_at(proxy.address());
    let folder = Folder::new(Store::Sqlite).carried_by(vhost).mailed_by(SmtpServer::start_now());
    let folder = impatient(folder).set("RABBITMQ_URL", &through);
    let dockets = vec![folder.start().await];
    let callers = Callers::new(&dockets);
    tokio::join!(callers.write(FEW), trouble(&mut server, &proxy, &callers, &dockets[0]));
    let told = callers.into_told();
    assert_unnoticed(&told);
    told.assert_true(&folder, dockets).await;
    assert_mailed_once(&folder);
}

/// Moves each of these orders on, by a docket that only publishes.
async fn pay(folder: &Folder, orders: &[String]) -> Docket {
    let docket = folder.start_only("orders").await;
    for order in orders {
        docket.pay(order, TOTAL).expect(StatusCode::OK).await;
    }
    let paid = orders.len();
    eventually("it is published", async || relay(&docket).await["published"].as_u64() >= Some(paid as u64)).await;
    docket
}

/// Places orders and has them all handled; none of their events is in a queue any more.
async fn placed(folder: &Folder, orders: usize) -> Vec<String> {
    let docket = folder.start().await;
    eventually("it is consumed", async || queue(&docket).await["state"] == "consuming").await;
    let mut placed = Vec::new();
    for n in 0..orders {
        placed.push(docket.place(&an_order(&format!("web-{n}"))).expect(StatusCode::CREATED).await.id());
    }
    docket.settled(folder).await;
    assert_eq!(docket.stop().await, Some(0));
    eventually("the queue is empty", async || folder.rabbitmq().waiting(QUEUE).await == Some(0)).await;
    placed
}

/// Has the rest handled, by a docket that does everything; nothing is missing, nothing came twice.
async fn assert_handled(folder: &Folder) -> Docket {
    let docket = folder.start().await;
    docket.settled(folder).await;
    assert_mailed(folder, folder).await;
    assert_mailed_once(folder);
    docket
}

fn with_servers(store: Store) -> Folder {
    impatient(Folder::new(Setting { store, servers: true }))
}

#[tokio::test]
async fn what_was_purged_arrives_though_nothing_comes_after_it() {
    for store in [Store::Sqlite, Store::Mongodb] {
        let folder = with_servers(store);
        let orders = placed(&folder, 20).await;
        let docket = pay(&folder, &orders).await;
        eventually("it waits", async || folder.rabbitmq().waiting(QUEUE).await == Some(20)).await;
        assert_eq!(folder.rabbitmq().purge(QUEUE).await, 20);
        assert_eq!(docket.stop().await, Some(0));
        let docket = assert_handled(&folder).await;
        assert_eq!(docket.subscribers().await[0]["missed"], 20);
    }
}

#[tokio::test]
async fn a_queue_that_somebody_deletes_is_there_again_and_nothing_is_missing() {
    let folder = with_servers(Store::Sqlite);
    let orders = placed(&folder, 20).await;
    let rabbitmq = folder.rabbitmq();
    rabbitmq.delete(QUEUE).await;
    // Half of them have no queue, half one that is deleted with them in it.
    let (some, others) = orders.split_at(10);
    assert_eq!(pay(&folder, some).await.stop().await, Some(0));
    let docket = folder.start().await;
    eventually("it is there again", async || rabbitmq.waiting(QUEUE).await.is_some()).await;
    assert_eq!(docket.stop().await, Some(0));
    let docket = pay(&folder, others).await;
    rabbitmq.delete(QUEUE).await;
    assert_eq!(docket.stop().await, Some(0));

    let docket = assert_handled(&folder).await;
    // Also under the hands of whoever consumes it.
    rabbitmq.delete(QUEUE).await;
    for order in &orders {
        docket.ship(order).expect(StatusCode::OK).await;
    }
    eventually("it is there again", async || rabbitmq.waiting(QUEUE).await.is_some()).await;
    docket.settled(&folder).await;
    assert_mailed(&folder, &folder).await;
    assert_mailed_once(&folder);
}

#[tokio::test]
async fn a_queue_of_somebody_else_is_said_and_left_alone_and_events_are_handled_all_the_same() {
    let folder = with_servers(Store::Sqlite);
    let rabbitmq = folder.rabbitmq();
    rabbitmq.declare(QUEUE, &[]).await;
    let docket = folder.start().await;
    eventually("it is said", async || queue(&docket).await["state"] == "mismatch").await;
    let trouble = queue(&docket).await["trouble"].to_string();
    assert!(trouble.contains(QUEUE) && trouble.contains("rabbitmqctl delete_queue"), "{trouble}");
    let subscribers = folder.command(&["subscribers", "--url", &docket.ops]).output().expect("the built docket");
    let subscribers = String::from_utf8(subscribers.stdout).expect("UTF-8");
    assert!(subscribers.contains("delete_queue"), "{subscribers}");

    for n in 0..5 {
        docket.place(&an_order(&format!("web-{n}"))).expect(StatusCode::CREATED).await;
    }
    assert!(docket.is_ready().await);
    eventually_within(LATE_MAX, "they are handled", async || folder.mails().len() == 5).await;
    let restarts = docket.ops("/api/restarts").await;
    assert_eq!(restarts["restarts"].as_array().map(Vec::len), Some(0), "{restarts}");

    rabbitmq.delete(QUEUE).await;
    eventually_within(LATE_MAX, "it is declared", async || queue(&docket).await["state"] == "consuming").await;
    docket.place(&an_order("web-last")).expect(StatusCode::CREATED).await;
    docket.settled(&folder).await;
    assert_mailed(&folder, &folder).await;
    assert_mailed_once(&folder);
}

/// Bodies that are no event of ours, or none that can be read.
fn garbage(event: &[u8]) -> Vec<Vec<u8>> {
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut event: Value = serde_json::from_slice(event).expect("an envelope");
        change(&mut event);
        event.to_string().into_bytes()
    };
    vec![
        Vec::new(),
        vec![0xff; 4096],
        b"null".to_vec(),
        b"{}".to_vec(),
        event[..event.len() / 2].to_vec(),
        changed(&|event| event["orderversion"] = Value::from(-1)),
        changed(&|event| event["subject"] = Value::from("nobody's")),
    ]
}

#[tokio::test]
async fn what_is_not_ours_is_set_aside_and_what_comes_a_thousand_times_in_any_order_counts_once() {
    let folder = with_servers(Store::Sqlite);
    let orders = placed(&folder, 20).await;
    let rabbitmq = folder.rabbitmq();
    rabbitmq.declare("spy", &[]).await;
    rabbitmq.bind("spy", "orders", "order.#").await;
    let docket = pay(&folder, &orders).await;
    for order in &orders {
        docket.ship(order).expect(StatusCode::OK).await;
        docket.deliver(order).expect(StatusCode::OK).await;
    }
    eventually("it waits", async || rabbitmq.waiting(QUEUE).await == Some(60)).await;
    assert_eq!(docket.stop().await, Some(0));

    let events: Vec<Vec<u8>> = rabbitmq.peek("spy", 60).await.into_iter().map(|(_, body)| body).collect();
    assert_eq!(rabbitmq.purge(QUEUE).await, 60);
    let garbage = garbage(&events[0]);
    let unreadable = u32::try_from(garbage.len()).expect("a few");
    let mut bodies = [events.clone(), events.clone(), vec![events[7].clone(); 1_000], garbage].concat();
    bodies.shuffle(&mut rand::rng());
    rabbitmq.publish("orders", "order.anything", &bodies).await;

    let docket = assert_handled(&folder).await;
    eventually("it is set aside", async || rabbitmq.waiting(DEAD_QUEUE).await == Some(unreadable)).await;
    for (properties, _) in rabbitmq.peek(DEAD_QUEUE, usize::MAX).await {
        let headers = properties.headers().as_ref().expect("headers");
        assert!(headers.contains_key("x-docket-reason"), "{headers:?}");
    }
    let figures = docket.subscribers().await[0].take();
    assert_eq!(figures["queue"]["unreadable"], unreadable);
    assert!(figures["duplicates"].as_u64() >= Some(1_000), "{figures}");
}

/// Which of them says that it is in that state.
async fn which(dockets: &[Docket], is: impl AsyncFn(&Docket) -> bool) -> usize {
    let mut found = None;
    eventually("one of them is", async || {
        for (index, docket) in dockets.iter().enumerate() {
            if is(docket).await {
                found = Some(index);
            }
        }
        found.is_some()
    })
    .await;
    found.expect("one of them")
}

async fn relays(docket: &Docket) -> bool {
    relay(docket).await["state"] == "publishing"
}

async fn consumes(docket: &Docket) -> bool {
    let subscriber = docket.subscribers().await[0].take();
    subscriber["state"] == "running" && subscriber["queue"]["state"] == "consuming"
}

/// Freezes one under load until another has taken its work over, and thaws it: for a moment there are two.
async fn freeze_and_thaw(
    callers: &Callers<'_>,
    dockets: &[Docket],
    frozen: usize,
    is_at_work: impl AsyncFn(&Docket) -> bool,
) {
    callers.go_on(50).await;
    dockets[frozen].freeze();
    let others: Vec<&Docket> = dockets.iter().enumerate().filter(|(n, _)| *n != frozen).map(|(_, it)| it).collect();
    eventually("another has taken over", async || is_at_work(others[0]).await || is_at_work(others[1]).await).await;
    callers.go_on(50).await;
    dockets[frozen].thaw();
    callers.go_on(100).await;
}

#[tokio::test]
async fn whoever_publishes_or_consumes_is_frozen_past_its_lease_and_goes_on_and_nothing_counts_twice() {
    let folder = with_servers(Store::Mongodb)
        .set("DOCKET__NODE__HEARTBEAT_MS", "400")
        .set("DOCKET__MONGODB__ANSWER_TIMEOUT_MS", "2000")
        .set("DOCKET__SUBSCRIBER__LEASE_MS", "4000")
        .set("DOCKET__RABBITMQ__LEASE_MS", "4000")
        // So that whoever is frozen has its hands full, and the queue as well.
        .set("DOCKET__RABBITMQ__PREFETCH", "16")
        .set("DOCKET__SUBSCRIBER__BATCH_EVENTS_MAX", "4");
    let dockets = vec![folder.start().await, folder.start().await, folder.start().await];
    let callers = Callers::new(&dockets).patient_for(Duration::from_millis(500));
    let trouble = async {
        for _ in 0..rounds(1, 20) {
            let publisher = which(&dockets, relays).await;
            freeze_and_thaw(&callers, &dockets, publisher, relays).await;
            let consumer = which(&dockets, consumes).await;
            freeze_and_thaw(&callers, &dockets, consumer, consumes).await;
        }
        callers.stop();
    };
    tokio::join!(callers.write(CALLERS), trouble);
    callers.into_told().assert_true(&folder, dockets).await;
}
