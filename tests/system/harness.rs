//! A docket of its own for a test: the built program in a folder of its own on ports of its own, and the words in which
//! its callers speak to it. It ends with the test, whatever happens.

pub(crate) mod callers;
pub(crate) mod command;
mod folder;
pub(crate) mod moody;
mod store;
pub(crate) mod takings;

use std::io::Read;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

pub(crate) use folder::Folder;
pub(crate) use store::{Recorded, Setting, Store, in_every_setting, on_every_store};

/// Longest wait for anything that must come by itself.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(180);

/// How long an idle connection to a docket is kept.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// How often to repeat what depends on chance: `few` times for a commit, `many` for a night (`cargo xtask test --long`).
pub(crate) fn rounds(few: usize, many: usize) -> usize {
    if std::env::var_os("DOCKET_TEST_LONG").is_some() { many } else { few }
}

/// A child that does not outlive its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A docket that serves.
pub(crate) struct Docket {
    process: Process,
    /// `http://ADDRESS:PORT` of its callers.
    pub(crate) http: String,
    /// `http://ADDRESS:PORT` of its operators.
    pub(crate) ops: String,
    client: Client,
    log: NamedTempFile,
    /// Removed only after the process has ended.
    _kept: folder::Kept,
}

impl Docket {
    fn new(process: Process, (http, ops): (String, String), log: NamedTempFile, kept: folder::Kept) -> Self {
        // A connection is not used again when docket is about to close it (`http.keep_alive_ms`).
        let client = Client::builder().pool_idle_timeout(IDLE_MAX).build().expect("a client");
        Self { process, http, ops, client, log, _kept: kept }
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.process.0.kill().expect("killed");
        self.process.0.wait().expect("gone");
    }

    /// `kill -TERM`; waits until it has ended and gives its exit code.
    pub(crate) async fn stop(self) -> Option<i32> {
        self.signal("TERM");
        self.ended().await
    }

    /// As `stop`, with everything it has written.
    pub(crate) async fn stop_and_tell(self) -> (Option<i32>, String) {
        let mut log = self.log.reopen().expect("the log");
        let code = self.stop().await;
        let mut said = String::new();
        log.read_to_string(&mut said).expect("the log");
        (code, said)
    }

    /// As `ended`, with everything it has written.
    pub(crate) async fn ended_and_told(self) -> (Option<i32>, String) {
        let mut log = self.log.reopen().expect("the log");
        let code = self.ended().await;
        let mut said = String::new();
        log.read_to_string(&mut said).expect("the log");
        (code, said)
    }

    /// Waits until it has ended by itself and gives its exit code.
    pub(crate) async fn ended(mut self) -> Option<i32> {
        let mut code = None;
        eventually("docket ends", async || {
            code = self.process.0.try_wait().expect("a child");
            code.is_some()
        })
        .await;
        code.and_then(|status| status.code())
    }

    /// Whether its process has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.0.try_wait().expect("a child").is_some()
    }

    /// Its process stands still (SIGSTOP) until it is thawed.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    /// Its process goes on (SIGCONT).
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    /// Sends its process that signal.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.pid())]).status();
        assert!(sent.is_ok_and(|status| status.success()), "cannot send SIG{name}");
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Whether it says that it can do its work.
    pub(crate) async fn is_ready(&self) -> bool {
        self.get("/readyz").send().await.is_ok_and(|answer| answer.status == StatusCode::OK)
    }

    /// A request to the callers' address.
    pub(crate) fn request(&self, method: Method, path: &str) -> Request {
        Request(self.client.request(method, format!("{}{path}", self.http)))
    }

    /// `POST path` with that body.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Request {
        Request(self.request(Method::POST, path).0.json(body))
    }

    /// `GET path`.
    pub(crate) fn get(&self, path: &str) -> Request {
        self.request(Method::GET, path)
    }

    /// Places an order.
    pub(crate) fn place(&self, order: &Value) -> Request {
        self.post("/orders", order)
    }

    /// Tells an order something: `pay`, `ship`, …
    pub(crate) fn tell(&self, order: &str, command: &str, body: &Value) -> Request {
        self.post(&format!("/orders/{order}/{command}"), body)
    }

    /// Pays for it.
    pub(crate) fn pay(&self, order: &str, amount: i64) -> Request {
        self.tell(order, "pay", &json!({"amount": amount, "reference": format!("p-{order}")}))
    }

    /// Hands it to a carrier.
    pub(crate) fn ship(&self, order: &str) -> Request {
        self.tell(order, "ship", &json!({"carrier": "DHL", "tracking_number": "T-1"}))
    }

    /// Says that it has arrived.
    pub(crate) fn deliver(&self, order: &str) -> Request {
        self.tell(order, "deliver", &json!({}))
    }

    /// What `GET path` of the operators' address answers, when it does.
    pub(crate) async fn ops(&self, path: &str) -> Value {
        self.get_ops(path).expect(StatusCode::OK).await.body
    }

    /// `GET path` of the operators' address.
    pub(crate) fn get_ops(&self, path: &str) -> Request {
        Request(self.client.get(format!("{}{path}", self.ops)))
    }

    /// `POST path` with that body to the operators' address.
    pub(crate) fn post_ops(&self, path: &str, body: &Value) -> Request {
        Request(self.client.post(format!("{}{path}", self.ops)).json(body))
    }

    /// Takes over orders of the older shape; what became of each line.
    pub(crate) async fn import(&self, lines: String) -> Vec<Value> {
        let request =
            self.client.post(format!("{}/api/import", self.ops)).header("content-type", "application/x-ndjson");
        let said = request.body(lines).send().await.expect("an answer").text().await.expect("its lines");
        said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// How far each subscriber is.
    pub(crate) async fn subscribers(&self) -> Vec<Value> {
        self.ops("/api/subscribers").await["subscribers"].as_array().expect("subscribers").clone()
    }

    /// Waits until its subscribers have handled all that is stored in `folder`, and done what follows from it.
    pub(crate) async fn settled(&self, folder: &Folder) {
        folder.settled(&[self]).await;
    }

    /// Reads an order.
    pub(crate) async fn order(&self, order: &str) -> Value {
        self.get(&format!("/orders/{order}")).expect(StatusCode::OK).await.body
    }

    /// All events of an order, from the first.
    pub(crate) async fn events(&self, order: &str) -> Vec<Value> {
        let (mut events, mut after) = (Vec::new(), 0);
        loop {
            let page = self.get(&format!("/orders/{order}/events?after={after}")).expect(StatusCode::OK).await.body;
            events.extend(page["events"].as_array().expect("events").iter().cloned());
            match page["next_after"].as_i64() {
                Some(next) => after = next,
                None => return events,
            }
        }
    }
}

/// A request on its way to be sent.
pub(crate) struct Request(reqwest::RequestBuilder);

impl Request {
    /// With that header.
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.header(name, value))
    }

    /// With that idempotency key.
    pub(crate) fn key(self, key: &str) -> Self {
        self.header("Idempotency-Key", key)
    }

    /// Only if the order is at that version.
    pub(crate) fn if_version(self, version: i64) -> Self {
        self.header("If-Match", &format!("\"{version}\""))
    }

    /// Sends it. An error means that no whole answer came.
    pub(crate) async fn send(self) -> reqwest::Result<Answer> {
        let answer = self.0.send().await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let text = answer.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer { status, headers, body })
    }

    /// Sends it and wants that status.
    #[track_caller]
    pub(crate) fn expect(self, status: StatusCode) -> impl Future<Output = Answer> {
        let at = std::panic::Location::caller();
        async move {
            let answer = self.send().await.unwrap_or_else(|error| panic!("{at}: no answer: {error}"));
            assert_eq!(answer.status, status, "{at}: {}", answer.body);
            answer
        }
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    headers: reqwest::header::HeaderMap,
    /// Its body: JSON, or else a string.
    pub(crate) body: Value,
}

impl Answer {
    /// A header's text, when it has that header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header of text"))
    }

    /// The order's id.
    pub(crate) fn id(&self) -> String {
        self.body["id"].as_str().expect("an order's id").to_owned()
    }

    /// The order's version.
    pub(crate) fn version(&self) -> i64 {
        self.body["version"].as_i64().expect("an order's version")
    }

    /// The problem's name: the last part of its type.
    pub(crate) fn problem(&self) -> &str {
        self.body["type"].as_str().and_then(|name| name.strip_prefix("/problems/")).unwrap_or_default()
    }
}

/// An order such as everybody places.
pub(crate) fn an_order(reference: &str) -> Value {
    json!({
        "customer_id": "c-1",
        "email": "ana@example.com",
        "reference": reference,
        "currency": "EUR",
        "items": [{"sku": "A-1", "quantity": 2, "unit_price": 4995}],
    })
}

/// What [`an_order`] comes to.
pub(crate) const TOTAL: i64 = 9990;

/// Waits until `holds`, and fails when that takes too long.
#[track_caller]
pub(crate) fn eventually(what: &str, holds: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    eventually_within(WAIT_MAX, what, holds)
}

/// The same, of what takes longer by its nature.
#[track_caller]
pub(crate) fn eventually_within(
    limit: Duration,
    what: &str,
    mut holds: impl AsyncFnMut() -> bool,
) -> impl Future<Output = ()> {
    let at = std::panic::Location::caller();
    let until = Instant::now() + limit;
    async move {
        while !holds().await {
            assert!(Instant::now() < until, "{at}: waited {} s and in vain until {what}", limit.as_secs());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
