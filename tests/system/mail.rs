//! Mails by SMTP through the whole program, at a real mail server: who is told what, once and in order, whatever becomes
//! of the server meanwhile.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use reqwest::StatusCode;
use serde_json::{Value, json};
use servers::{Behaviour, Mail, SmtpOptions, SmtpServer, Tls};

use crate::harness::{Docket, Folder, Store, TOTAL, an_order, eventually, on_every_store};

on_every_store!(
    mails_leave_by_smtp_and_nothing_is_written_beside_the_data,
    while_the_mail_server_is_away_nothing_is_lost_and_then_all_goes_in_order,
    one_refused_address_among_many_is_an_outcome_and_holds_up_nobody,
    a_mail_server_that_wants_a_password_and_encryption_is_checked_and_used,
);

const READERS: usize = 1_000;
/// The address of one of them that the mail server does not know.
const WRONG: &str = "reader500@example.com";

fn folder(store: Store, server: &SmtpServer) -> Folder {
    Folder::new(store)
        .set("DOCKET__NOTIFICATION__SMTP_URL", &server.url())
        .set("DOCKET__NOTIFICATION__FROM", "Shop <orders@shop.example>")
        .set("DOCKET__SUBSCRIBER__BACKOFF_FIRST_MS", "50")
        .set("DOCKET__SUBSCRIBER__BACKOFF_MAX_MS", "200")
}

/// Places an order for that reader; its id.
async fn place(docket: &Docket, email: &str) -> String {
    let mut order = an_order("web-77");
    order["email"] = json!(email);
    docket.place(&order).expect(StatusCode::CREATED).await.id()
}

/// The ids of the mails for that reader, in the order in which they came.
fn mails_for(server: &SmtpServer, reader: &str) -> Vec<String> {
    let mails = server.mails().into_iter().filter(|mail| mail.recipients == [reader]);
    mails.map(|mail| mail.message_id()).collect()
}

/// The ids of all mails, in the order in which they came to each reader.
fn mails_by_reader(server: &SmtpServer) -> BTreeMap<String, Vec<String>> {
    let mut mails: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for mail in server.mails() {
        mails.entry(mail.recipients.concat()).or_default().push(mail.message_id());
    }
    mails
}

/// The ids of the events of which a reader is told, in their order. A mail's `Message-ID` begins with its event's.
async fn events(docket: &Docket, order: &str) -> Vec<String> {
    let events = docket.events(order).await;
    events.iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect()
}

async fn notification(docket: &Docket) -> Value {
    let subscribers = docket.subscribers().await;
    subscribers.into_iter().find(|one| one["name"] == "notification").expect("notification")
}

#[track_caller]
fn assert_told(mails: &[String], events: &[String]) {
    assert_eq!(mails.len(), events.len(), "{mails:?}, {events:?}");
    for (mail, event) in mails.iter().zip(events) {
        assert!(
            mail.starts_with(&format!("<{event}.")) && mail.ends_with("@shop.example>"),
            "{mail} is not of {event}"
        );
    }
}

async fn mails_leave_by_smtp_and_nothing_is_written_beside_the_data(store: Store) {
    let server = SmtpServer::start().await;
    let folder = folder(store, &server);
    let docket = folder.start().await;
    let order = place(&docket, "ana@example.com").await;
    docket.pay(&order, TOTAL).expect(StatusCode::OK).await;
    eventually("both mails are there", async || server.mails().len() == 2).await;
    assert_told(&mails_for(&server, "ana@example.com"), &events(&docket, &order).await);
    let [created, _] = &server.mails()[..] else { panic!("two mails") };
    assert_eq!(created.from, "orders@shop.example");
    assert!(!folder.data("mail").exists(), "a folder for mails that nobody writes");
    let (code, said) = docket.stop_and_tell().await;
    assert_eq!(code, Some(0));
    let port = server.address().port();
    assert!(said.contains(&format!("mails: by smtp://localhost:{port}, from Shop <orders@shop.example>")), "{said}");
}

async fn while_the_mail_server_is_away_nothing_is_lost_and_then_all_goes_in_order(store: Store) {
    let mut server = SmtpServer::start().await;
    let folder = folder(store, &server);
    let docket = folder.start().await;
    place(&docket, "first@example.com").await;
    eventually("the first mail is there", async || server.mails().len() == 1).await;

    server.kill();
    let mut orders = Vec::new();
    for number in 0..10 {
        let reader = format!("reader{number}@example.com");
        let order = place(&docket, &reader).await;
        docket.pay(&order, TOTAL).expect(StatusCode::OK).await;
        docket.ship(&order).expect(StatusCode::OK).await;
        orders.push((reader, order));
    }
    eventually("it says so", async || notification(&docket).await["state"] == "dependency_down").await;
    let trouble = notification(&docket).await["trouble"].to_string();
    assert!(trouble.contains("smtp://localhost") && trouble.contains("connecting"), "{trouble}");
    let shown = folder.command(&["subscribers", "--url", &docket.ops]).output().expect("the built docket");
    let shown = String::from_utf8(shown.stdout).expect("UTF-8");
    assert!(shown.contains("dependency") && shown.contains("down"), "{shown}");

    server.restart().await;
    eventually("all mails are there", async || server.mails().len() >= 31).await;
    folder.settled(&[&docket]).await;
    for (reader, order) in &orders {
        assert_told(&mails_for(&server, reader), &events(&docket, order).await);
    }
    assert_eq!(server.mails().len(), 31);
    assert_eq!(notification(&docket).await["state"], "running");
}

async fn one_refused_address_among_many_is_an_outcome_and_holds_up_nobody(store: Store) {
    let server = SmtpServer::start().await;
    server.behave(&Behaviour::RefuseRecipients(WRONG.to_owned(), 550));
    let folder = folder(store, &server);
    let docket = folder.start().await;
    let readers: Vec<String> = (0..READERS).map(|n| format!("reader{n}@example.com")).collect();
    let placing = readers.iter().map(|reader| place(&docket, reader));
    let orders: Vec<String> = futures_util::stream::iter(placing).buffered(32).collect().await;
    let wrong = orders[READERS / 2].clone();
    for order in [&orders[0], &wrong] {
        docket.pay(order, TOTAL).expect(StatusCode::OK).await;
    }
    folder.settled(&[&docket]).await;
    let mails = mails_by_reader(&server);
    for (reader, order) in readers.iter().zip(&orders).filter(|(_, order)| **order != wrong) {
        assert_told(&mails[reader], &events(&docket, order).await);
    }
    assert_eq!(mails.len(), READERS - 1);
    let recorded = folder.recorded().await;
    let undeliverable = recorded.iter().filter(|mail| mail.outcome.as_deref() == Some("undeliverable"));
    let undeliverable: Vec<_> = undeliverable.map(|mail| (mail.order.as_str(), mail.version)).collect();
    assert_eq!(undeliverable, [(wrong.as_str(), 1), (wrong.as_str(), 2)]);
    assert_eq!(recorded.iter().filter(|mail| mail.outcome.as_deref() == Some("performed")).count(), READERS);
    let effects = docket.ops(&format!("/api/subscribers/notification/effects/{wrong}")).await;
    for effect in effects["effects"].as_array().expect("effects") {
        assert_eq!(effect["outcome"], "undeliverable", "{effect}");
        assert!(effect["detail"].as_str().is_some_and(|detail| detail.contains("550")), "{effect}");
    }
    let letters = docket.ops("/api/dead-letters").await;
    assert_eq!(letters["dead_letters"], json!([]), "nobody has to decide about an answer");

    // What comes later for that order is tried as well.
    server.behave(&Behaviour::Accept);
    docket.ship(&wrong).expect(StatusCode::OK).await;
    eventually("its later mail is there", async || mails_for(&server, WRONG).len() == 1).await;
    assert_told(&mails_for(&server, WRONG), &events(&docket, &wrong).await[2..]);
}

async fn a_mail_server_that_wants_a_password_and_encryption_is_checked_and_used(store: Store) {
    let login = Some(("docket".to_owned(), "s3cret".to_owned()));
    let server = SmtpServer::start_with(SmtpOptions { login, tls: Tls::StartTls }).await;
    let trusting = folder(store, &server).set("SSL_CERT_FILE", &server.certificate().display().to_string());
    let check = |password: &str| {
        let url = format!("{}?tls=required", server.url().replace("s3cret", password));
        let mut command = trusting.command(&["check"]);
        let checked = command.env("DOCKET__NOTIFICATION__SMTP_URL", url).output().expect("the built docket");
        let said = String::from_utf8(checked.stdout).expect("UTF-8");
        let line = said.lines().find(|line| line.contains("notification.smtp_url")).unwrap_or_else(|| panic!("{said}"));
        assert!(!said.contains(password), "{said}");
        line.to_owned()
    };
    let right = check("s3cret");
    assert!(
        right.starts_with("ok ") && right.contains("docket:***@localhost") && right.contains("encrypted"),
        "{right}"
    );
    let wrong = check("wr0ng");
    assert!(wrong.starts_with("WRONG") && wrong.contains("535"), "{wrong}");
    assert_eq!(server.mails().len(), 0);

    let docket = trusting.start().await;
    place(&docket, "ana@example.com").await;
    eventually("the mail is there", async || server.mails().len() == 1).await;
    let [Mail { user, encrypted, .. }] = &server.mails()[..] else { panic!("one mail") };
    assert_eq!((user.as_deref(), encrypted), (Some("docket"), &true));
    let (_, said) = docket.stop_and_tell().await;
    assert!(!said.contains("s3cret"), "{said}");
}
