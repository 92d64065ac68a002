//! The REST contract over a real socket, with orders in memory behind it: every header rule, every problem with its type,
//! every limit. What the orders themselves do is tested with them.

mod access;
mod dead_letters;
mod stub;
mod subscribers;

use std::borrow::Cow;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix_web::web::Data;
use actors::clock::{SystemClock, Timestamp};
use actors::money::Amount;
use actors::nodes::{Process, Roll};
use actors::order::Version;
use actors::order::aggregate::Status;
use actors::order::error::{CommandError, FieldError, NotDone, ReadError, Refusal};
use actors::subscriber::actor::SubscriberHandle;
use actors::subscriber::letters::SetAside;
use actors::supervisor::{Ledger, Node};
use docket::config::Config;
use docket::http::{KINDS, Limits, Listeners, Part, Readiness, Server, Service};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use stub::{Mishap, SOON, Stub};
use tokio::sync::Notify;

const FOREVER: Duration = Duration::from_secs(30);

struct Docket {
    server: Option<Server>,
    http: SocketAddr,
    ops: SocketAddr,
    stub: Arc<Stub>,
    ready: Arc<Ready>,
    client: Client,
}

#[derive(Default)]
struct Ready {
    away: AtomicBool,
}

impl Readiness for Ready {
    fn parts(&self) -> Vec<Part> {
        let away = self.away.load(Ordering::SeqCst);
        let detail = away.then_some(Cow::Borrowed("the disk is full"));
        vec![Part { name: "store".into(), ready: !away, detail }]
    }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {} {}", self.status, self.text))
    }

    /// Everything that holds for every problem.
    #[track_caller]
    fn is(&self, status: u16, name: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let problem = self.json();
        assert_eq!(problem["type"], format!("/problems/{name}"));
        assert_eq!(problem["status"], status);
        assert_eq!(problem["correlation_id"].as_str(), self.header("x-correlation-id"));
        assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()));
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
        problem
    }
}

fn process() -> Process {
    Process {
        instance: "host:1/a".to_owned(),
        name: "host:1".to_owned(),
        http: "127.0.0.1:8080".to_owned(),
        ops: "127.0.0.1:8081".to_owned(),
        version: "0.1.0".to_owned(),
        roles: vec!["orders".to_owned()],
        active: Vec::new(),
        started_at: Timestamp::EPOCH,
        heartbeat_ms: 60_000,
    }
}

impl Docket {
    fn start() -> Self {
        Self::with(|_| {}, true)
    }

    fn with(change: impl FnOnce(&mut Config), orders: bool) -> Self {
        Self::with_subscribers(change, orders, Vec::new(), Roll::new(process()))
    }

    fn with_subscribers(
        change: impl FnOnce(&mut Config),
        orders: bool,
        subscribers: Vec<SubscriberHandle>,
        nodes: Roll,
    ) -> Self {
        Self::with_parts(change, orders, subscribers, nodes, None)
    }

    fn with_parts(
        change: impl FnOnce(&mut Config),
        orders: bool,
        subscribers: Vec<SubscriberHandle>,
        nodes: Roll,
        set_aside: Option<Arc<dyn SetAside>>,
    ) -> Self {
        let mut config = Config::load(None, []).expect("the defaults");
        config.http.bind.set_port(0);
        config.ops.bind.set_port(0);
        config.http.workers = 1;
        change(&mut config);
        let stub = Arc::new(Stub::default());
        let ready = Arc::new(Ready::default());
        let service = Service {
            orders: orders.then(|| Arc::clone(&stub) as _),
            history: None,
            readiness: Arc::clone(&ready) as _,
            nodes,
            tree: Node::root("docket", Arc::new(SystemClock), Ledger::new("test"), 1),
            subscribers,
            set_aside,
            relay: None,
            limits: Limits::of(&config),
        };
        let listeners = Listeners::bind(&config).expect("two free ports");
        let (http, ops) = listeners.addresses().expect("addresses");
        let server = docket::http::serve(&config, &listeners, Data::new(service)).expect("a server");
        let client = Client::builder().no_proxy().timeout(FOREVER).redirect(reqwest::redirect::Policy::none());
        Self { http, ops, server: Some(server), stub, ready, client: client.build().expect("a client") }
    }

    fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        self.client.request(method, format!("http://{}{path}", self.http))
    }

    async fn get(&self, path: &str) -> Answer {
        send(self.request("GET", path)).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        send(self.request("POST", path).json(body)).await
    }

    /// An order, placed; its path.
    async fn placed(&self) -> String {
        let answer = self.post("/orders", &new_order()).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.header("location").expect("a Location").to_owned()
    }

    /// Says `request` word for word, and gives everything that is said back before the other side closes.
    async fn say(&self, request: Vec<u8>) -> String {
        self.say_to(self.http, request).await
    }

    /// The same at one of its addresses.
    async fn say_to(&self, address: SocketAddr, request: Vec<u8>) -> String {
        let said = actix_web::rt::task::spawn_blocking(move || {
            let mut socket = TcpStream::connect(address).expect("a connection");
            socket.set_read_timeout(Some(FOREVER)).expect("a limit");
            socket.write_all(&request).expect("said");
            let mut answer = Vec::new();
            let _ = socket.read_to_end(&mut answer);
            String::from_utf8_lossy(&answer).into_owned()
        });
        said.await.expect("an answer")
    }
}

async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.expect("a body");
    assert!(headers.contains_key("x-correlation-id"), "every answer has a correlation id: {status} {text}");
    Answer { status, headers, text }
}

fn new_order() -> Value {
    json!({"customer_id": "c-1", "email": "ana@example.com", "reference": "web-77", "currency": "EUR",
        "items": [{"sku": "A-1", "quantity": 2, "unit_price": 4995}]})
}

#[actix_web::test]
async fn an_order_is_placed_as_the_contract_shows_it() {
    let docket = Docket::start();
    let answer = docket.post("/orders", &new_order()).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("etag"), Some("\"1\""));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let order = answer.json();
    let id = order["id"].as_str().expect("an id");
    assert_eq!(answer.header("location"), Some(format!("/orders/{id}").as_str()));
    let placed_at = order["placed_at"].as_str().expect("a time");
    let expected = format!(
        r#"{{"id":"{id}","status":"placed","version":1,"customer_id":"c-1","email":"ana@example.com","reference":"web-77","currency":"EUR","items":[{{"sku":"A-1","quantity":2,"unit_price":4995}}],"total":9990,"placed_at":"{placed_at}","updated_at":"{placed_at}"}}"#
    );
    assert_eq!(answer.text, expected);
    assert_eq!(docket.get(&format!("/orders/{id}")).await.text, expected);
}

#[actix_web::test]
async fn an_order_goes_its_whole_way() {
    let docket = Docket::start();
    let order = docket.placed().await;
    let steps = [
        ("items", json!({"sku": "B", "quantity": 1, "unit_price": 10}), 2),
        ("pay", json!({"amount": 10_000, "reference": "p-1"}), 3),
        ("ship", json!({"carrier": "DHL", "tracking_number": "1"}), 4),
        ("deliver", json!({}), 5),
        ("refund", json!({"reason": "broken", "amount": 1}), 6),
        ("refund", json!({"reason": "all of it"}), 7),
    ];
    for (command, body, version) in steps {
        let answer = docket.post(&format!("{order}/{command}"), &body).await;
        assert_eq!(answer.status, 200, "{command}: {}", answer.text);
        assert_eq!(answer.header("etag"), Some(format!("\"{version}\"").as_str()));
        assert_eq!(answer.header("location"), None);
    }
    let last = docket.get(&order).await.json();
    assert_eq!(last["status"], "refunded");
    assert_eq!(last["payment"], json!({"reference": "p-1"}));
    assert_eq!(last["shipment"], json!({"carrier": "DHL", "tracking_number": "1"}));
    assert_eq!(last["refunded_total"], 10_000);
    for time in ["paid_at", "shipped_at", "delivered_at"] {
        assert!(last[time].is_string(), "{time}");
    }
    let cancelled = docket.placed().await;
    let answer = docket.post(&format!("{cancelled}/cancel"), &json!({"reason": "no more"})).await.json();
    assert_eq!((&answer["status"], &answer["cancellation"]), (&json!("cancelled"), &json!({"reason": "no more"})));
    assert!(answer["cancelled_at"].is_string());
}

#[actix_web::test]
async fn deliver_takes_an_empty_object_or_nothing() {
    let docket = Docket::start();
    for empty in [true, false] {
        let order = docket.placed().await;
        docket.post(&format!("{order}/pay"), &json!({"amount": 9_990, "reference": "p"})).await;
        docket.post(&format!("{order}/ship"), &json!({"carrier": "c", "tracking_number": "t"})).await;
        let request = docket.request("POST", &format!("{order}/deliver"));
        let answer = send(if empty { request } else { request.json(&json!({})) }).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let order = docket.placed().await;
    docket.post(&format!("{order}/deliver"), &json!({"to": "me"})).await.is(400, "malformed");
}

#[actix_web::test]
async fn a_line_is_removed_by_its_percent_encoded_sku() {
    let docket = Docket::start();
    let order = docket.placed().await;
    docket.post(&format!("{order}/items"), &json!({"sku": "B~1.x", "quantity": 1, "unit_price": 1})).await;
    let answer = send(docket.request("DELETE", &format!("{order}/items/%42%7E1.x"))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["items"].as_array().map(Vec::len), Some(1));
    send(docket.request("DELETE", &format!("{order}/items/none"))).await.is(404, "not-found");
    send(docket.request("DELETE", &format!("{order}/items/%FF"))).await.is(404, "not-found");
    send(docket.request("DELETE", &format!("{order}/items/A-1"))).await.is(409, "not-allowed");
}

#[actix_web::test]
async fn a_repeated_command_answers_as_the_first_time() {
    let docket = Docket::start();
    let create =
        |key: &'static str| docket.request("POST", "/orders").json(&new_order()).header("Idempotency-Key", key);
    let first = send(create("k-1")).await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, None));
    let order = first.header("location").expect("a Location").to_owned();
    docket.post(&format!("{order}/items"), &json!({"sku": "B", "quantity": 1, "unit_price": 1})).await;
    for key in ["k-1", "\"k-1\""] {
        let again = send(create(key)).await;
        assert_eq!((again.status, again.header("idempotent-replayed")), (201, Some("true")));
        assert_eq!(again.header("location"), Some(order.as_str()));
        assert_eq!(again.header("etag"), Some("\"1\""));
        assert_eq!(again.text, first.text);
    }
    let other =
        json!({"customer_id": "c-1", "currency": "EUR", "items": [{"sku": "Z", "quantity": 1, "unit_price": 1}]});
    let reused = docket.request("POST", "/orders").json(&other).header("Idempotency-Key", "k-1");
    send(reused).await.is(422, "key-reused");
    for wrong in ["", "a b", &"k".repeat(256), "\"open"] {
        let request = docket.request("POST", "/orders").json(&new_order()).header("Idempotency-Key", wrong);
        send(request).await.is(400, "malformed");
    }
}

#[actix_web::test]
async fn if_match_guards_a_command() {
    let docket = Docket::start();
    let order = docket.placed().await;
    let item = json!({"sku": "B", "quantity": 1, "unit_price": 1});
    let add =
        |if_match: &str| docket.request("POST", &format!("{order}/items")).json(&item).header("If-Match", if_match);
    for stale in ["\"7\"", "W/\"1\"", "\"01\"", "\"x\", \"2\""] {
        let answer = send(add(stale)).await;
        assert_eq!(answer.is(412, "version-mismatch")["expected"], 1);
        assert_eq!(answer.header("etag"), Some("\"1\""));
    }
    for garbage in ["1", "\"1", "*, \"1\""] {
        send(add(garbage)).await.is(400, "malformed");
    }
    for (right, version) in [("\"1\"", 2), ("\"1\", \"2\"", 3), ("*", 4)] {
        assert_eq!(send(add(right)).await.json()["version"], version);
    }
    docket.stub.meets(Mishap::Command(CommandError::VersionMismatch { current: Version::NONE }));
    let answer = send(docket.request("POST", "/orders").json(&new_order()).header("If-Match", "*")).await;
    assert_eq!(answer.is(412, "version-mismatch").get("expected"), None);
    assert_eq!(answer.header("etag"), None);
}

#[actix_web::test]
async fn an_order_is_read_now_and_earlier() {
    let docket = Docket::start();
    let order = docket.placed().await;
    let before = docket.get(&order).await.json();
    let item = json!({"sku": "B", "quantity": 1, "unit_price": 1});
    docket.post(&format!("{order}/items"), &item).await;
    let now = docket.get(&order).await;
    assert_eq!((now.status, now.header("etag")), (200, Some("\"2\"")));
    let first = docket.get(&format!("{order}?version=1")).await;
    assert_eq!((first.header("etag"), first.json()), (Some("\"1\""), before));
    let future = docket.get(&format!("{order}?at=2099-01-01T00:00:00%2B01:00")).await;
    assert_eq!(future.json()["version"], 2);
    docket.get(&format!("{order}?at=1999-01-01T00:00:00Z")).await.is(404, "not-found");
    docket.get(&format!("{order}?version=3")).await.is(404, "not-found");
    for wrong in [
        "version=1&at=2026-01-01T00:00:00Z",
        "version=0",
        "version=x",
        "version=%2B1",
        "version=1&version=2",
        "version=",
        "at=yesterday",
        "versoin=1",
        "version=4294967296",
    ] {
        docket.get(&format!("{order}?{wrong}")).await.is(400, "malformed");
    }
    let plus = docket.get(&format!("{order}?at=2099-01-01T00:00:00+01:00")).await.is(400, "malformed");
    assert!(plus["detail"].as_str().is_some_and(|detail| detail.contains("%2B")), "{plus}");
    for none in ["/orders/x", "/orders/01939c2e-0000-7000-8000-000000000000", "/orders/{01939c2e-0000-7000-8000}"] {
        docket.get(none).await.is(404, "not-found");
    }
}

#[actix_web::test]
async fn what_the_caller_has_is_not_sent_again() {
    let docket = Docket::start();
    let order = docket.placed().await;
    let read = |tag: &str| docket.request("GET", &order).header("If-None-Match", tag);
    for held in ["\"1\"", "W/\"1\"", "*", "\"9\", \"1\""] {
        let answer = send(read(held)).await;
        assert_eq!((answer.status, answer.header("etag"), answer.text.as_str()), (304, Some("\"1\""), ""));
        assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
    }
    assert_eq!(send(read("\"2\"")).await.status, 200);
    send(read("1")).await.is(400, "malformed");
}

#[actix_web::test]
async fn the_trail_is_read_in_pages() {
    let docket = Docket::start();
    let order = docket.placed().await;
    for n in 0..3 {
        docket.post(&format!("{order}/items"), &json!({"sku": format!("S{n}"), "quantity": 1, "unit_price": 1})).await;
    }
    let whole = docket.get(&format!("{order}/events")).await.json();
    assert_eq!((whole["events"].as_array().map(Vec::len), &whole["next_after"]), (Some(4), &Value::Null));
    let event = whole["events"][0].as_object().expect("an event");
    let members: Vec<_> = event.keys().map(String::as_str).collect();
    for member in
        ["id", "type", "version", "schema_version", "recorded_at", "correlation_id", "causation_id", "authid", "data"]
    {
        assert!(members.contains(&member), "{member}");
    }
    assert_eq!(
        (&event["type"], &event["version"], &event["authid"]),
        (&json!("order.created"), &json!(1), &json!("anonymous"))
    );
    assert_eq!(event["data"]["personal"]["customer_id"], "c-1");
    let page = docket.get(&format!("{order}/events?after=1&limit=2")).await.json();
    assert_eq!((&page["events"][0]["version"], &page["next_after"]), (&json!(2), &json!(3)));
    for wrong in ["limit=0", "limit=1001", "limit=x", "after=-1", "after=1&after=2", "from=1"] {
        docket.get(&format!("{order}/events?{wrong}")).await.is(400, "malformed");
    }
    docket.get("/orders/01939c2e-0000-7000-8000-000000000000/events").await.is(404, "not-found");
}

#[actix_web::test]
async fn correlation_and_trace_travel_into_the_command() {
    let docket = Docket::start();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let create = |id: &str, trace: &str| {
        docket.request("POST", "/orders").json(&new_order()).header("X-Correlation-Id", id).header("traceparent", trace)
    };
    assert_eq!(send(create("web-1", trace)).await.header("x-correlation-id"), Some("web-1"));
    let origin = docket.stub.last_origin();
    assert_eq!((origin.correlation_id.as_str(), origin.traceparent.as_deref()), ("web-1", Some(trace)));
    assert_eq!((origin.authtype.as_ref(), origin.authid.as_ref()), ("system", "anonymous"));
    let replaced = send(create("not visible", "nonsense")).await;
    let origin = docket.stub.last_origin();
    assert_eq!(replaced.header("x-correlation-id"), Some(origin.correlation_id.as_str()));
    assert_eq!((origin.correlation_id.len(), origin.traceparent), (36, None));
}

#[actix_web::test]
async fn a_body_that_cannot_be_read_is_refused_with_the_place() {
    let docket = Docket::start();
    let post = |body: Vec<u8>| docket.request("POST", "/orders").header("Content-Type", "application/json").body(body);
    let item = |item: &str| format!(r#"{{"customer_id":"c","currency":"EUR","items":[{item}]}}"#).into_bytes();
    let placed = [
        (item(r#"{"sku":"A","quantity":"2","unit_price":1}"#), "items[0].quantity"),
        (item(r#"{"sku":"A","quantity":1.5,"unit_price":1}"#), "items[0].quantity"),
        (item(r#"{"sku":"A","quantity":99999999999999999999,"unit_price":1}"#), "items[0].quantity"),
        (item(r#"{"sku":"A","quantity":1,"unit_price":1,"colour":"red"}"#), "items[0].colour"),
        (item(r#"{"sku":"A","quantity":1}"#), "items[0]"),
        (item(r#"{"sku":"A","sku":"B","quantity":1,"unit_price":1}"#), "items[0].sku"),
        (br#"{"customer_id":1,"currency":"EUR","items":[]}"#.to_vec(), "customer_id"),
        // An array is no object, though it has the values in the right order.
        (item(r#"["A",1,1]"#), "items[0]"),
    ];
    for (body, place) in placed {
        let problem = send(post(body)).await.is(400, "malformed");
        let field = problem["errors"][0]["field"].as_str().unwrap_or_default();
        assert!(field.starts_with(place) || place.starts_with(field), "{problem} does not say {place}");
        assert!(!problem["errors"][0]["reason"].as_str().unwrap_or_default().contains("i64"), "{problem}");
    }
    let deep = "[".repeat(10_000).into_bytes();
    let nul = b"{\"customer_id\":\"\0\"}".to_vec();
    let not_utf8 = b"{\"customer_id\":\"\xff\"}".to_vec();
    let two = b"{} {}".to_vec();
    let deep_inside = format!("{{\"items\":{}", "[".repeat(10_000)).into_bytes();
    let huge = format!("{{\"customer_id\":{}}}", "9".repeat(10_000)).into_bytes();
    for body in
        [deep, nul, not_utf8, two, deep_inside, huge, b"".to_vec(), b"null".to_vec(), b"[]".to_vec(), b"{".to_vec()]
    {
        send(post(body)).await.is(400, "malformed");
    }
    let array = send(post(br#"["c",null,null,"EUR",[{"sku":"A","quantity":1,"unit_price":1}]]"#.to_vec())).await;
    let detail = array.is(400, "malformed")["detail"].to_string();
    assert!(detail.contains("expected an object"), "{detail}");
    assert_eq!(send(post(Vec::new())).await.json()["detail"], "The body is empty.");
}

#[actix_web::test]
async fn fields_that_cannot_be_right_are_listed() {
    let docket = Docket::start();
    let body =
        json!({"customer_id": "", "currency": "XXZ", "items": [{"sku": "a b", "quantity": 0, "unit_price": -1}]});
    let problem = docket.post("/orders", &body).await.is(422, "invalid");
    let fields: Vec<_> = problem["errors"].as_array().expect("errors").iter().map(|e| e["field"].clone()).collect();
    for field in ["customer_id", "currency", "items[0].sku", "items[0].quantity", "items[0].unit_price"] {
        assert!(fields.contains(&json!(field)), "{field} in {fields:?}");
    }
}

#[actix_web::test]
async fn only_json_in_utf8_is_a_body() {
    let docket = Docket::start();
    let body = new_order().to_string();
    let post = |kind: Option<&str>| {
        let request = docket.request("POST", "/orders").body(body.clone());
        match kind {
            Some(kind) => request.header("Content-Type", kind),
            None => request,
        }
    };
    for right in [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON;charset=\"UTF-8\"",
        "application/x+json",
    ] {
        assert_eq!(send(post(Some(right))).await.status, 201, "{right}");
    }
    for wrong in
        [None, Some("text/plain"), Some("application/jsonx"), Some("application/json; charset=latin1"), Some("json")]
    {
        send(post(wrong)).await.is(415, "unsupported-media-type");
    }
    let packed = post(Some("application/json")).header("Content-Encoding", "gzip");
    send(packed).await.is(415, "unsupported-media-type");
}

#[actix_web::test]
async fn a_body_is_at_most_64_kib() {
    let docket = Docket::start();
    let order = docket.placed().await;
    let sized = |bytes: usize| {
        let empty = r#"{"reason":""}"#.len();
        format!(r#"{{"reason":"{}"}}"#, "x".repeat(bytes - empty))
    };
    let cancel = |body: reqwest::Body| {
        docket.request("POST", &format!("{order}/cancel")).header("Content-Type", "application/json").body(body)
    };
    send(cancel(sized(64 * 1024).into())).await.is(422, "invalid");
    send(cancel(sized(64 * 1024 + 1).into())).await.is(413, "body-too-large");
    let chunks = futures_util::stream::iter((0..65).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1024])));
    send(cancel(reqwest::Body::wrap_stream(chunks))).await.is(413, "body-too-large");
}

#[actix_web::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let docket = Docket::with(|config| config.http.body_timeout_ms = 200, true);
    let began = Instant::now();
    let head =
        "POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{";
    let answer = docket.say(head.as_bytes().to_vec()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(
        answer.contains("/problems/body-timeout") && answer.to_lowercase().contains("x-correlation-id"),
        "{answer}"
    );
    assert!(began.elapsed() >= Duration::from_millis(200));
}

#[actix_web::test]
async fn what_is_no_http_is_refused_by_the_status_alone_and_the_connection_closed() {
    let docket = Docket::start();
    let two_lengths = "POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}";
    for broken in ["hello\r\n\r\n", "GET /healthz HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", two_lengths] {
        let answer = docket.say(broken.as_bytes().to_vec()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{broken}: {answer}");
        assert!(answer.contains("connection: close") && answer.ends_with("\r\n\r\n"), "{broken}: {answer}");
    }
}

#[actix_web::test]
async fn a_path_has_its_methods_and_no_others() {
    let docket = Docket::start();
    let document = docket.get("/openapi.json").await.json();
    for (path, item) in document["paths"].as_object().expect("paths") {
        let mut allow: Vec<String> = item.as_object().expect("methods").keys().map(|m| m.to_uppercase()).collect();
        if allow.contains(&"GET".to_owned()) {
            allow.push("HEAD".to_owned());
        }
        let place = path.replace("{id}", "01939c2e-0000-7000-8000-000000000000").replace("{sku}", "A");
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"] {
            let answer = send(docket.request(method, &place)).await;
            if allow.contains(&method.to_owned()) {
                assert_ne!(answer.status, 405, "{method} {path}");
            } else {
                if method != "HEAD" {
                    answer.is(405, "method-not-allowed");
                }
                assert_eq!((answer.status, answer.header("allow")), (405, Some(allow.join(", ").as_str())), "{path}");
            }
        }
    }
    let list = docket.get("/orders?status=paid").await;
    list.is(405, "method-not-allowed");
    assert_eq!(list.header("allow"), Some("POST"));
}

#[actix_web::test]
async fn the_document_lists_every_path_of_the_contract() {
    let docket = Docket::start();
    let document = docket.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut operations: Vec<String> = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        operations.extend(item.as_object().expect("methods").keys().map(|method| format!("{method} {path}")));
    }
    operations.sort();
    assert_eq!(
        operations,
        [
            "delete /orders/{id}/items/{sku}",
            "get /healthz",
            "get /orders/{id}",
            "get /orders/{id}/events",
            "get /readyz",
            "post /orders",
            "post /orders/{id}/cancel",
            "post /orders/{id}/deliver",
            "post /orders/{id}/items",
            "post /orders/{id}/pay",
            "post /orders/{id}/refund",
            "post /orders/{id}/ship",
        ]
    );
    let pay = &document["paths"]["/orders/{id}/pay"]["post"];
    for status in ["200", "400", "403", "404", "408", "409", "412", "413", "415", "422", "500", "503", "504"] {
        let response = &pay["responses"][status];
        assert!(response["headers"]["X-Correlation-Id"].is_object(), "{status}");
    }
    let headers: Vec<_> = pay["parameters"].as_array().expect("parameters").iter().map(|p| p["name"].clone()).collect();
    for header in ["id", "If-Match", "Idempotency-Key", "X-Correlation-Id", "traceparent"] {
        assert!(headers.contains(&json!(header)), "{header}");
    }
}

#[actix_web::test]
async fn the_events_are_described_beside_the_api() {
    let docket = Docket::start();
    let document = docket.get("/asyncapi.json").await.json();
    assert_eq!(document["asyncapi"], "3.0.0");
    assert_eq!(document["channels"]["order.created"]["address"], "order.created");
}

#[actix_web::test]
async fn head_answers_as_get_without_the_body() {
    let docket = Docket::start();
    let order = docket.placed().await;
    for path in [order.as_str(), "/healthz", "/openapi.json", "/asyncapi.json", "/problems/invalid", "/docs/"] {
        let (get, head) = (docket.get(path).await, send(docket.request("HEAD", path)).await);
        assert_eq!((head.status, head.text.as_str()), (200, ""), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"));
        assert_eq!(head.header("etag"), get.header("etag"));
    }
    assert_eq!(send(docket.request("HEAD", "/orders/none")).await.status, 404);
}

#[actix_web::test]
async fn every_error_of_the_orders_is_its_problem() {
    let docket = Docket::start();
    let order = docket.placed().await;
    let not_done = |why| CommandError::NotDone { why, retry_after: SOON };
    let amount = Amount::try_from(7).expect("an amount");
    let sku = || "A".to_owned();
    let errors = vec![
        (Refusal::NotFound.into(), 404, "not-found"),
        (Refusal::UnknownSku { sku: sku() }.into(), 404, "not-found"),
        (Refusal::PriceDiffers { sku: sku(), expected: amount }.into(), 409, "price-differs"),
        (Refusal::AmountDiffers { expected: amount }.into(), 422, "invalid"),
        (
            Refusal::Invalid { errors: vec![FieldError { field: "a".into(), reason: "b".into() }] }.into(),
            422,
            "invalid",
        ),
        (Refusal::OrderFull.into(), 409, "order-full"),
        (CommandError::VersionMismatch { current: Version(3) }, 412, "version-mismatch"),
        (CommandError::KeyReused, 422, "key-reused"),
        (CommandError::KeyInProgress, 409, "key-in-progress"),
        (not_done(NotDone::Overloaded), 503, "overloaded"),
        (not_done(NotDone::StoreAway), 503, "store-away"),
        (not_done(NotDone::Contended), 503, "contended"),
        (not_done(NotDone::OrderQuarantined), 503, "order-quarantined"),
        (not_done(NotDone::SchemaAhead), 503, "schema-ahead"),
        (not_done(NotDone::NotDone), 503, "not-done"),
        (not_done(NotDone::NotHere), 503, "not-here"),
        (CommandError::OutcomeUnknown, 504, "outcome-unknown"),
        (CommandError::Internal, 500, "internal"),
    ];
    for (error, status, name) in errors {
        docket.stub.meets(Mishap::Command(error));
        let answer = docket.post(&format!("{order}/cancel"), &json!({"reason": "r"})).await;
        answer.is(status, name);
        assert_eq!(answer.header("retry-after"), (status == 503).then_some("2"), "{name}");
    }
    docket.stub.meets(Mishap::Command(
        Refusal::NotAllowed { status: Status::Paid, allowed: vec!["ship", "cancel"], detail: "It is paid.".into() }
            .into(),
    ));
    let problem = docket.post(&format!("{order}/cancel"), &json!({"reason": "r"})).await.is(409, "not-allowed");
    assert_eq!((&problem["allowed"], &problem["detail"]), (&json!(["ship", "cancel"]), &json!("It is paid.")));
    let over = Refusal::NotAllowed { status: Status::Refunded, allowed: vec![], detail: "it is refunded".into() };
    docket.stub.meets(Mishap::Command(over.into()));
    let problem = docket.post(&format!("{order}/cancel"), &json!({"reason": "r"})).await.is(409, "not-allowed");
    assert_eq!((&problem["allowed"], &problem["detail"]), (&json!([]), &json!("It is refunded.")));
    docket.stub.meets(Mishap::Command(Refusal::AmountDiffers { expected: amount }.into()));
    assert_eq!(docket.post(&format!("{order}/cancel"), &json!({"reason": "r"})).await.json()["expected"], 7);

    let reads = [
        (ReadError::NotFound, 404, "not-found"),
        (ReadError::NotDone { why: NotDone::StoreAway, retry_after: Duration::ZERO }, 503, "store-away"),
        (ReadError::Internal, 500, "internal"),
    ];
    for (error, status, name) in reads {
        for path in [order.clone(), format!("{order}/events")] {
            docket.stub.meets(Mishap::Read(error.clone()));
            let answer = docket.get(&path).await;
            answer.is(status, name);
            assert_eq!(answer.header("retry-after"), (status == 503).then_some("1"));
        }
    }
}

#[actix_web::test]
async fn a_panic_is_an_answer_and_tells_nothing() {
    let docket = Docket::start();
    let order = docket.placed().await;
    docket.stub.meets(Mishap::Panic);
    let request = docket.request("POST", &format!("{order}/cancel")).json(&json!({"reason": "r"}));
    let answer = send(request.header("X-Correlation-Id", "mine")).await;
    answer.is(500, "internal");
    assert_eq!(answer.header("x-correlation-id"), Some("mine"));
    assert!(!answer.text.contains("secret"));
    docket.stub.meets(Mishap::Panic);
    docket.get(&order).await.is(500, "internal");
    assert_eq!(docket.get(&order).await.status, 200);
}

#[actix_web::test]
async fn an_order_that_does_not_answer_is_not_waited_for() {
    let docket = Docket::with(|config| config.http.answer_timeout_ms = 50, true);
    let order = docket.placed().await;
    docket.stub.meets(Mishap::NoAnswer);
    docket.post(&format!("{order}/cancel"), &json!({"reason": "r"})).await.is(504, "outcome-unknown");
    docket.stub.meets(Mishap::NoAnswer);
    docket.get(&order).await.is(503, "overloaded");
}

#[actix_web::test]
async fn a_process_without_orders_says_so() {
    let docket = Docket::with(|_| {}, false);
    docket.post("/orders", &new_order()).await.is(503, "not-here");
    docket.get("/orders/01939c2e-0000-7000-8000-000000000000").await.is(503, "not-here");
}

#[actix_web::test]
async fn a_foreign_page_changes_nothing() {
    let docket = Docket::with(|config| config.http.hosts = vec!["Shop.example".to_owned()], true);
    let port = docket.http.port();
    let post = |headers: &[(&str, &str)]| {
        let mut request = docket.request("POST", "/orders").json(&new_order());
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            request = request.header(name, HeaderValue::from_str(value).expect("a value"));
        }
        send(request)
    };
    let own = format!("http://localhost:{port}");
    let own_ip = format!("http://127.0.0.1:{port}");
    let neighbour = format!("http://localhost:{}", docket.ops.port());
    for foreign in ["http://evil.example", "null", "", "https://localhost.evil.example", "http://localhost", &neighbour]
    {
        post(&[("Origin", foreign)]).await.is(403, "foreign-origin");
    }
    for foreign in ["evil.example", "evil.example:8080", "localhost.evil.example", "10.0.0.1", "a b"] {
        post(&[("Host", foreign)]).await.is(403, "foreign-origin");
    }
    for ours in [&own, &own_ip] {
        assert_eq!(post(&[("Origin", ours)]).await.status, 201, "{ours}");
    }
    for host in ["localhost", "LOCALHOST:1234", "127.0.0.1", "[::1]:80", "shop.example", "shop.example:443"] {
        assert_eq!(post(&[("Host", host)]).await.status, 201, "{host}");
    }
    assert_eq!(post(&[("Host", "shop.example"), ("Origin", "https://shop.example")]).await.status, 201);
    let read = docket.request("GET", "/healthz").header("Host", "evil.example").header("Origin", "http://evil.example");
    assert_eq!(send(read).await.status, 200);
    let import =
        docket.client.post(format!("http://{}/api/import", docket.ops)).header("Origin", "http://evil.example");
    send(import).await.is(403, "foreign-origin");
}

#[actix_web::test]
async fn every_kind_of_problem_has_its_page() {
    let docket = Docket::start();
    let index = docket.get("/problems").await;
    for kind in KINDS {
        assert!(index.text.contains(&format!("/problems/{}", kind.name)));
        let page = docket.get(&format!("/problems/{}", kind.name)).await;
        assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
        assert!(page.text.contains(kind.title) || page.text.contains("&#39;"), "{}", page.text);
        assert!(page.header("content-security-policy").is_some_and(|policy| policy.starts_with("default-src 'none'")));
    }
    docket.get("/problems/none").await.is(404, "not-found");
    docket.get("/nothing").await.is(404, "not-found");
}

#[actix_web::test]
async fn the_documentation_needs_nobody_else() {
    let docket = Docket::start();
    let entry = docket.get("/docs").await;
    assert_eq!((entry.status, entry.header("location")), (308, Some("/docs/")));
    let page = docket.get("/docs/").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-security-policy").is_some_and(|policy| policy.contains("script-src 'self'")));
    let files =
        page.text.split('"').filter(|part| part.ends_with(".js") || part.ends_with(".css") || part.ends_with(".png"));
    let files: Vec<String> = files.map(|file| file.trim_start_matches("./").to_owned()).collect();
    assert!(files.len() >= 3, "{}", page.text);
    for file in &files {
        assert!(!file.contains("//"), "{file} is elsewhere");
        assert_eq!(send(docket.request("GET", &format!("/docs/{file}"))).await.status, 200, "{file}");
    }
    assert!(!page.text.contains("<script>"), "a script in the page would be blocked");
    let start = docket.get("/docs/swagger-initializer.js").await.text;
    assert!(start.contains("/openapi.json") && !start.contains("http"), "{start}");
    docket.get("/docs/none.js").await.is(404, "not-found");
}

#[actix_web::test]
async fn health_and_readiness_are_on_both_addresses() {
    let docket = Docket::start();
    for address in [docket.http, docket.ops] {
        let ask = |path: &str| send(docket.client.get(format!("http://{address}{path}")));
        assert_eq!(ask("/healthz").await.status, 200);
        docket.ready.away.store(false, Ordering::SeqCst);
        assert_eq!(ask("/readyz").await.json(), json!({"ready": true, "parts": [{"name": "store", "ready": true}]}));
        docket.ready.away.store(true, Ordering::SeqCst);
        let away = ask("/readyz").await;
        assert_eq!((away.status, &away.json()["parts"][0]["detail"]), (503, &json!("the disk is full")));
    }
}

#[actix_web::test]
async fn operators_find_the_tree_the_restarts_and_the_orders() {
    let docket = Docket::start();
    let order = docket.placed().await;
    let ask = |path: &str| send(docket.client.get(format!("http://{}{path}", docket.ops)));
    let tree = ask("/api/tree").await.json();
    let node = &tree["nodes"][0];
    assert_eq!((&tree["name"], &node["name"], &node["alive"]), (&json!("docket"), &json!("host:1"), &json!(true)));
    assert_eq!((&node["roles"], &node["version"]), (&json!(["orders"]), &json!("0.1.0")));
    assert_eq!((&node["http"], &node["ops"]), (&json!("127.0.0.1:8080"), &json!("127.0.0.1:8081")));
    assert_eq!(ask("/api/restarts").await.json()["restarts"], json!([]));
    assert_eq!(ask(&format!("/api{order}")).await.text, docket.get(&order).await.text);
    assert_eq!(ask("/api/subscribers").await.json()["subscribers"], json!([]));
    assert!(ask("/").await.text.contains("/api/tree"));
    ask("/orders").await.is(404, "not-found");
    docket.get("/api/tree").await.is(404, "not-found");
}

#[actix_web::test]
async fn an_import_answers_for_every_line() {
    let docket = Docket::start();
    let line = |id: &str| {
        format!(
            r#"{{"orderId":"{id}","userId":"u","total":"10.00","items":[{{"sku":"A","quantity":1,"price":"10.00"}}]}}"#
        )
    };
    let body = format!("{}\n\n{}\nnot json\n{}", line("o-1"), line("o-2"), line("o-1"));
    let url = format!("http://{}/api/import", docket.ops);
    let import = || send(docket.client.post(url.clone()).body(body.clone()));
    let outcomes = |answer: &Answer| -> Vec<(u64, String)> {
        let lines = answer.text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines
            .map(|o| (o["line"].as_u64().expect("a line"), o["outcome"].as_str().expect("an outcome").to_owned()))
            .collect()
    };
    let said = |first: &str| {
        let all = [(1, first), (3, first), (4, "bad"), (5, "already_there")];
        all.map(|(line, outcome)| (line, outcome.to_owned())).to_vec()
    };
    let first = import().await;
    assert_eq!((first.status, first.header("content-type")), (200, Some("application/x-ndjson")));
    assert_eq!(outcomes(&first), said("imported"));
    assert_eq!(outcomes(&import().await), said("already_there"));
    docket.stub.meets(Mishap::Command(CommandError::NotDone { why: NotDone::StoreAway, retry_after: Duration::ZERO }));
    assert_eq!(outcomes(&import().await), said("already_there"));
    let long = send(docket.client.post(url.clone()).body("x".repeat(3 << 20))).await;
    assert_eq!(outcomes(&long), [(1, "bad".to_owned())]);
}

#[actix_web::test]
async fn stopping_lets_what_is_under_way_finish_and_then_is_over() {
    let mut docket = Docket::start();
    let order = docket.placed().await;
    let go_on = Arc::new(Notify::new());
    docket.stub.meets(Mishap::Wait(Arc::clone(&go_on)));
    let request = docket.request("POST", &format!("{order}/cancel")).json(&json!({"reason": "r"}));
    let under_way = actix_web::rt::spawn(send(request));
    while docket.stub.is_expecting() {
        actix_web::rt::task::yield_now().await;
    }
    let began = Instant::now();
    let server = docket.server.take().expect("a server");
    let stopping = actix_web::rt::spawn(server.stop(Duration::from_secs(20)));
    while TcpStream::connect(docket.http).is_ok() {
        actix_web::rt::task::yield_now().await;
    }
    assert!(!stopping.is_finished(), "it waits for what is under way");
    go_on.notify_one();
    assert_eq!(under_way.await.expect("an answer").status, 200);
    stopping.await.expect("stopped");
    assert!(began.elapsed() < Duration::from_secs(10), "idle connections do not hold it");
}

#[actix_web::test]
async fn a_request_that_never_ends_is_cut_off_at_the_deadline() {
    let mut docket = Docket::start();
    let order = docket.placed().await;
    docket.stub.meets(Mishap::NoAnswer);
    let hanging =
        actix_web::rt::spawn(docket.request("POST", &format!("{order}/cancel")).json(&json!({"reason": "r"})).send());
    while docket.stub.is_expecting() {
        actix_web::rt::task::yield_now().await;
    }
    let began = Instant::now();
    docket.server.take().expect("a server").stop(Duration::from_millis(300)).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(hanging);
}
