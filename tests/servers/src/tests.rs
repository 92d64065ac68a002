//! That the servers and the proxy do what tests rely on.

mod rabbitmq;
mod smtp;

use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use mongodb::options::{ClientOptions, WriteConcern};
use mongodb::{Client, Collection};
use tokio::time::{sleep, timeout};

use super::{MongoDatabase, MongoServer, Proxy, Request};

/// Long enough for whatever happens at all.
const MAX: Duration = Duration::from_secs(60);
/// Long enough to say that something does not happen.
const MOMENT: Duration = Duration::from_millis(300);

async fn collection(uri: &str) -> Collection<Document> {
    let mut options = ClientOptions::parse(uri).await.expect("an address");
    options.server_selection_timeout = Some(Duration::from_secs(1));
    options.heartbeat_freq = Some(Duration::from_millis(500));
    options.retry_writes = Some(false);
    options.write_concern = Some(WriteConcern::majority());
    Client::with_options(options).expect("a client").database("test").collection("things")
}

async fn insert(things: &Collection<Document>, id: i32) -> mongodb::error::Result<()> {
    things.insert_one(doc! { "_id": id }).await.map(drop)
}

async fn ids(things: &Collection<Document>) -> Vec<i32> {
    let mut found = things.find(doc! {}).sort(doc! { "_id": 1 }).await.expect("an answer");
    let mut ids = Vec::new();
    while found.advance().await.expect("an answer") {
        ids.push(found.current().get_i32("_id").expect("a number"));
    }
    ids
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + MAX;
    while !holds().await {
        assert!(Instant::now() < until, "in vain until {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

fn is_insert(request: &Request) -> bool {
    request.command == "insert" && request.collection == "things"
}

/// A server, the proxy before it, and a client of each. The one through the proxy has a connection.
async fn all() -> (MongoServer, Proxy, Collection<Document>, Collection<Document>) {
    let server = MongoServer::start().await;
    let proxy = Proxy::before(server.address());
    let (direct, through) = (collection(&server.uri()).await, collection(&proxy.uri()).await);
    insert(&through, 0).await.expect("inserted");
    (server, proxy, direct, through)
}

#[tokio::test]
async fn what_was_held_back_arrives_after_its_sender_has_given_up() {
    let (_server, proxy, direct, through) = all().await;
    proxy.hold_requests(is_insert);
    assert!(timeout(MOMENT, insert(&through, 1)).await.is_err(), "it was answered");
    eventually("it is held", async || proxy.passed().held == 1).await;
    // Everything else passes.
    assert_eq!(ids(&through).await, [0]);
    drop(through);
    proxy.pass();
    eventually("it has arrived", async || ids(&direct).await == [0, 1]).await;
}

#[tokio::test]
async fn an_answer_is_held_back_from_who_asked() {
    let (_server, proxy, direct, through) = all().await;
    proxy.hold_answers(is_insert);
    let mut inserting = std::pin::pin!(insert(&through, 1));
    assert!(timeout(MOMENT, &mut inserting).await.is_err(), "it was answered");
    eventually("it has arrived", async || ids(&direct).await == [0, 1]).await;
    proxy.pass();
    timeout(MAX, inserting).await.expect("an answer").expect("inserted");
}

#[tokio::test]
async fn a_request_that_was_cut_is_not_done_and_the_next_one_is() {
    let (_server, proxy, direct, through) = all().await;
    proxy.cut(40, is_insert);
    insert(&through, 1).await.expect_err("it was cut");
    eventually("the next one passes", async || insert(&through, 2).await.is_ok()).await;
    assert_eq!(ids(&direct).await, [0, 2]);
}

#[tokio::test]
async fn a_request_whose_answer_was_cut_is_done_though_its_sender_has_no_answer() {
    let (_server, proxy, direct, through) = all().await;
    proxy.cut_answer(20, is_insert);
    insert(&through, 1).await.expect_err("the answer was cut");
    eventually("it has arrived", async || ids(&direct).await == [0, 1]).await;
    eventually("the next one passes", async || insert(&through, 2).await.is_ok()).await;
}

#[tokio::test]
async fn silence_keeps_connections_and_loses_nothing() {
    let (_server, proxy, _direct, through) = all().await;
    proxy.stall();
    let mut inserting = std::pin::pin!(insert(&through, 1));
    let mut reading = std::pin::pin!(ids(&through));
    assert!(timeout(MOMENT, &mut inserting).await.is_err(), "it was answered");
    // On a connection of its own, which is accepted.
    assert!(timeout(MOMENT, &mut reading).await.is_err(), "it was answered");
    proxy.pass();
    timeout(MAX, inserting).await.expect("an answer").expect("inserted");
    timeout(MAX, reading).await.expect("an answer");
}

#[tokio::test]
async fn broken_connections_are_errors_at_once_until_it_passes_again() {
    let (_server, proxy, _direct, through) = all().await;
    proxy.drop_connections();
    timeout(MAX, insert(&through, 1)).await.expect("an answer").expect_err("it is broken");
    proxy.pass();
    eventually("it is there again", async || insert(&through, 2).await.is_ok()).await;
}

#[tokio::test]
async fn a_delay_holds_both_ways() {
    let (_server, proxy, _direct, through) = all().await;
    let before = proxy.passed();
    proxy.delay(MOMENT);
    let asked = Instant::now();
    insert(&through, 1).await.expect("inserted");
    assert!(asked.elapsed() >= 2 * MOMENT, "{:?}", asked.elapsed());
    let after = proxy.passed();
    assert!(after.requests > before.requests && after.answers > before.answers, "{before:?} {after:?}");
}

#[tokio::test]
async fn a_killed_server_is_again_where_it_was_with_what_it_had() {
    let mut server = MongoServer::start().await;
    let things = collection(&server.uri()).await;
    insert(&things, 1).await.expect("inserted");
    server.back_up().await;
    eventually("it is there again", async || insert(&things, 2).await.is_ok()).await;
    server.kill();
    insert(&things, 3).await.expect_err("nobody is there");
    server.restart().await;
    eventually("it is there again", async || insert(&things, 4).await.is_ok()).await;
    assert_eq!(ids(&things).await, [1, 2, 4]);
    server.restore().await;
    eventually("it is there again", async || insert(&things, 5).await.is_ok()).await;
    assert_eq!(ids(&things).await, [1, 5]);
}

#[tokio::test]
async fn a_frozen_server_answers_nobody_until_it_thaws() {
    let server = MongoServer::start_with_oplog_of(1_000).await;
    let things = collection(&server.uri()).await;
    insert(&things, 1).await.expect("inserted");
    server.freeze();
    assert!(timeout(MOMENT, insert(&things, 2)).await.is_err(), "it was answered");
    server.thaw();
    // What it was asked meanwhile it may do, or not.
    eventually("it goes on", async || insert(&things, 3).await.is_ok()).await;
}

#[tokio::test]
async fn a_standalone_server_says_that_it_is_one() {
    let server = MongoServer::start_standalone().await;
    let things = collection(&server.uri()).await;
    insert(&things, 1).await.expect("inserted");
    let hello = things.client().database("admin").run_command(doc! { "hello": 1 }).await.expect("an answer");
    assert!(!hello.contains_key("setName"), "{hello}");
}

#[tokio::test]
async fn a_database_goes_with_its_name_and_those_beside_it_do_too() {
    let database = MongoDatabase::new();
    let client = Client::with_uri_str(database.uri()).await.expect("an address");
    let names = [database.name().to_owned(), format!("{}_notification", database.name())];
    let other = MongoDatabase::new();
    for name in names.iter().map(String::as_str).chain([other.name()]) {
        client.database(name).collection("things").insert_one(doc! { "_id": 1 }).await.expect("inserted");
    }
    drop(database);
    let left = client.list_database_names().await.expect("an answer");
    assert!(names.iter().all(|name| !left.contains(name)), "{left:?}");
    assert!(left.iter().any(|name| name == other.name()), "{left:?}");
}
