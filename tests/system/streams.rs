//! An order's events as server-sent events: each once and in order, from where the reader was, as they happen, also at
//! another docket.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Docket, Folder, Store, TOTAL, an_order, eventually, on_every_store};

on_every_store!(
    an_orders_events_are_streamed_from_where_the_reader_was,
    a_stream_is_refused_where_there_are_too_many_and_ends_with_the_docket,
    a_reader_that_stood_still_gets_everything_in_order,
);

/// Longest wait for something that happens at once.
const WAIT: Duration = Duration::from_secs(60);

/// A reader of a stream.
struct Reader {
    answer: Response,
    text: String,
}

/// What was sent as one event.
#[derive(Debug, PartialEq)]
struct Sent {
    id: String,
    event: String,
    data: Value,
}

impl Reader {
    async fn open(docket: &Docket, path: &str, last: Option<&str>) -> Self {
        let answer = ask(docket, path, last).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        Self { answer, text: String::new() }
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Sent> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                if let Some(sent) = read(&block) {
                    return Some(sent);
                }
            }
            let chunk = tokio::time::timeout(WAIT, self.answer.chunk()).await.expect("a sign of life");
            self.text.push_str(std::str::from_utf8(&chunk.expect("no error")?).expect("UTF-8"));
        }
    }
}

/// None of a comment, or of what tells how to come again.
fn read(block: &str) -> Option<Sent> {
    let field = |name: &str| {
        let values = block.lines().filter_map(|line| line.split_once(": ")).filter(|(field, _)| *field == name);
        let [value] = values.map(|(_, value)| value.to_owned()).collect::<Vec<_>>().try_into().ok()?;
        Some::<String>(value)
    };
    let data = serde_json::from_str(&field("data")?).expect("JSON");
    Some(Sent { id: field("id").expect("an id"), event: field("event").expect("a type"), data })
}

async fn ask(docket: &Docket, path: &str, last: Option<&str>) -> Response {
    let request = Client::new().get(format!("{}{path}", docket.http)).header("Accept", "text/event-stream");
    let request = last.into_iter().fold(request, |request, last| request.header("Last-Event-ID", last));
    request.send().await.expect("an answer")
}

/// What a page has of them.
async fn expected(docket: &Docket, order: &str) -> Vec<Sent> {
    let sent = |event: Value| {
        let text = |name: &str| event[name].as_str().expect("a text").to_owned();
        Sent { id: event["version"].to_string(), event: text("type"), data: event }
    };
    docket.events(order).await.into_iter().map(sent).collect()
}

async fn an_orders_events_are_streamed_from_where_the_reader_was(store: Store) {
    let folder = Folder::new(store);
    let docket = folder.start().await;
    // On MongoDB another docket writes what happens.
    let other = if store == Store::Mongodb { Some(folder.start().await) } else { None };
    let writer = other.as_ref().unwrap_or(&docket);
    let order = writer.place(&an_order("web-1")).expect(StatusCode::CREATED).await.id();
    let path = format!("/orders/{order}/events");
    let mut reader = Reader::open(&docket, &path, None).await;
    let mut sent = vec![reader.next().await.expect("an event")];
    writer.pay(&order, TOTAL).expect(StatusCode::OK).await;
    sent.push(reader.next().await.expect("an event"));
    // Two events of one commit.
    writer.tell(&order, "cancel", &json!({"reason": "x"})).expect(StatusCode::OK).await;
    for _ in 0..2 {
        sent.push(reader.next().await.expect("an event"));
    }
    let all = expected(&docket, &order).await;
    assert_eq!(sent, all);
    assert_eq!(sent[3].event, "order.refunded");

    for (path, last, from) in
        [(format!("{path}?after=1"), None, 1), (path.clone(), Some("2"), 2), (format!("{path}?after=1"), Some("3"), 3)]
    {
        let mut reader = Reader::open(&docket, &path, last).await;
        for event in &all[from..] {
            assert_eq!(reader.next().await.as_ref(), Some(event), "{path} {last:?}");
        }
    }

    let unknown = "/orders/01939c2e-0000-7000-8000-000000000000/events";
    assert_eq!(ask(&docket, unknown, None).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(ask(&docket, &path, Some("x")).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(ask(&docket, &format!("{path}?limit=1"), None).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(ask(&docket, &format!("{path}?after=-1"), None).await.status(), StatusCode::BAD_REQUEST);
    let head = Client::new().head(format!("{}{path}", docket.http)).header("Accept", "text/event-stream");
    assert_eq!(head.send().await.expect("an answer").headers()["content-type"], "text/event-stream");
}

async fn a_stream_is_refused_where_there_are_too_many_and_ends_with_the_docket(store: Store) {
    let folder = Folder::new(store).set("DOCKET__HTTP__STREAMS_MAX", "2");
    let docket = folder.start().await;
    let order = docket.place(&an_order("web-1")).expect(StatusCode::CREATED).await.id();
    let path = format!("/orders/{order}/events");
    let mut first = Reader::open(&docket, &path, None).await;
    let second = Reader::open(&docket, &path, None).await;
    let refused = ask(&docket, &path, None).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    drop(second);
    let mut third = None;
    eventually("the place of one that left is free", async || {
        // Whoever left is noticed when something is sent to it.
        docket
            .tell(&order, "items", &json!({"sku": "B-1", "quantity": 1, "unit_price": 1}))
            .expect(StatusCode::OK)
            .await;
        third = Some(ask(&docket, &path, None).await).filter(|answer| answer.status() == StatusCode::OK);
        third.is_some()
    })
    .await;
    assert_eq!(first.next().await.expect("an event").id, "1");
    assert_eq!(docket.stop().await, Some(0));
    while first.next().await.is_some() {}
}

async fn a_reader_that_stood_still_gets_everything_in_order(store: Store) {
    const EVENTS: usize = 300;
    let folder = Folder::new(store);
    let docket = folder.start().await;
    let order = docket.place(&an_order("web-1")).expect(StatusCode::CREATED).await.id();
    let mut reader = Reader::open(&docket, &format!("/orders/{order}/events"), None).await;
    for n in 1..EVENTS {
        let item = json!({"sku": format!("B-{n}"), "quantity": 1, "unit_price": 1});
        docket.tell(&order, "items", &item).expect(StatusCode::OK).await;
    }
    for event in expected(&docket, &order).await {
        assert_eq!(reader.next().await, Some(event));
    }
}
