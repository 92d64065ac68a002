//! A MongoDB that is away, in every way in which one can be: callers hear of it soon, nothing that was acknowledged is
//! lost, and everything goes on by itself when it is there again.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use servers::{MongoServer, Proxy, Request};

use crate::harness::{Answer, Docket, Folder, TOTAL, an_order, eventually};

/// The longest that a caller waits while nobody answers docket.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// An answer that says that MongoDB is away, and what that means for the command.
async fn refused(docket: &Docket, key: &str) -> Answer {
    let asked = Instant::now();
    let answer = docket.place(&an_order(key)).key(key).send().await.expect("an answer");
    assert!(asked.elapsed() < ANSWER_MAX, "after {:?}: {}", asked.elapsed(), answer.body);
    match answer.status {
        StatusCode::SERVICE_UNAVAILABLE => assert!(answer.header("retry-after").is_some(), "{}", answer.body),
        StatusCode::GATEWAY_TIMEOUT => assert_eq!(answer.problem(), "outcome-unknown"),
        status => panic!("{status}: {}", answer.body),
    }
    answer
}

/// What was refused can be repeated, what was accepted is there, and each order has its mail, once.
async fn assert_whole(docket: &Docket, folder: &Folder, accepted: &Answer, refused_key: &str) {
    let mut repeated = None;
    eventually("orders are accepted", async || {
        let answer = docket.place(&an_order(refused_key)).key(refused_key).send().await.expect("an answer");
        if answer.status == StatusCode::CREATED {
            repeated = Some(answer);
        }
        repeated.is_some()
    })
    .await;
    assert_eq!(docket.order(&accepted.id()).await, accepted.body);
    docket.pay(&accepted.id(), TOTAL).key("pay").expect(StatusCode::OK).await;
    assert_eq!(docket.events(&accepted.id()).await.len(), 2);
    assert_eq!(docket.events(&repeated.expect("an order").id()).await.len(), 1);
    docket.settled(folder).await;
    assert_eq!(folder.commits().await.len(), 3);
    assert_eq!(folder.mails().len(), 3);
}

#[tokio::test]
async fn a_killed_server_is_missed_at_once_and_found_again() {
    let mut server = MongoServer::start().await;
    let folder = Folder::on(&server);
    let docket = folder.start().await;
    let accepted = docket.place(&an_order("first")).expect(StatusCode::CREATED).await;
    server.kill();
    refused(&docket, "second").await;
    // Later ones are not even tried for long.
    let asked = Instant::now();
    assert_eq!(refused(&docket, "third").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    docket.get("/healthz").expect(StatusCode::OK).await;
    server.restart().await;
    assert_whole(&docket, &folder, &accepted, "second").await;
}

#[tokio::test]
async fn a_server_that_stands_still_keeps_nobody_waiting_for_long() {
    let server = MongoServer::start().await;
    let folder = Folder::on(&server);
    let docket = folder.start().await;
    let accepted = docket.place(&an_order("first")).expect(StatusCode::CREATED).await;
    server.freeze();
    refused(&docket, "second").await;
    server.thaw();
    assert_whole(&docket, &folder, &accepted, "second").await;
}

/// A network that goes from passing everything to whatever `fault` makes of it, and back.
async fn cut_off(fault: impl FnOnce(&Proxy)) {
    let server = MongoServer::start().await;
    let proxy = Proxy::before(server.address());
    let folder = Folder::on(&server).through(&proxy);
    let docket = folder.start().await;
    let accepted = docket.place(&an_order("first")).expect(StatusCode::CREATED).await;
    fault(&proxy);
    refused(&docket, "second").await;
    proxy.pass();
    assert_whole(&docket, &folder, &accepted, "second").await;
}

#[tokio::test]
async fn a_network_that_goes_silent_keeps_nobody_waiting_for_long() {
    cut_off(Proxy::stall).await;
}

#[tokio::test]
async fn a_network_that_breaks_is_found_again() {
    cut_off(Proxy::drop_connections).await;
}

fn writes_commits(request: &Request) -> bool {
    request.command == "insert" && request.collection == "commits"
}

#[tokio::test]
async fn a_write_that_lands_after_its_time_has_its_effect_once() {
    cut_off(|proxy| proxy.hold_requests(writes_commits)).await;
}

#[tokio::test]
async fn a_write_whose_answer_does_not_come_has_its_effect_once() {
    cut_off(|proxy| proxy.hold_answers(writes_commits)).await;
}

#[tokio::test]
async fn a_write_that_was_cut_off_in_the_middle_is_written_again() {
    let server = MongoServer::start().await;
    let proxy = Proxy::before(server.address());
    let folder = Folder::on(&server).through(&proxy);
    let docket = folder.start().await;
    proxy.cut(100, writes_commits);
    let placed = docket.place(&an_order("first")).key("first").expect(StatusCode::CREATED).await;
    assert_eq!(docket.events(&placed.id()).await.len(), 1);
    assert_eq!(folder.commits().await.len(), 1);
}
