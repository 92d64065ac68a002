//! Dead letters over HTTP: every route and every no, of a subscriber that is not at work here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actors::broker::BrokerError;
use actors::clock::{SystemClock, Timestamp};
use actors::event::Envelope;
use actors::event_store::EventStore;
use actors::inbox::{
    Attempt, EffectId, Failure, HeadOfLane, Hold, HoldState, Inbox, Lane, NewEffect, Row, RowWrite, Transaction,
};
use actors::nodes::Roll;
use actors::order::{OrderId, Version};
use actors::subscriber::actor::{self, Ports, Source};
use actors::subscriber::letters::{SetAside, Unreadable};
use actors::subscriber::{Cause, Documents, Event, Outcome, OutcomeKind, Registered, Settings, Subscriber};
use actors::testing::commits::{first, group};
use actors::testing::inbox::{Fault, MemoryInbox};
use actors::testing::memory::Memory;
use docket::auth::{KeyHash, Secret};
use docket::config::Config;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Answer, Docket, process, send};

/// Writes down what it handled, unless it is told to fail.
struct Diary(Arc<AtomicBool>);

#[async_trait::async_trait]
impl Subscriber for Diary {
    const NAME: &'static str = "diary";

    type Effect = Value;

    async fn handle(&self, event: &Event<'_>, documents: &mut Documents<'_>) -> Result<Vec<Value>, Failure> {
        documents.put("orders", event.order(), &event.version())?;
        if self.0.load(Ordering::SeqCst) {
            return Err(Failure::permanent("it fails"));
        }
        Ok(vec![json!({"to": "ana"})])
    }

    async fn perform(&self, _: &Value, _: &Cause) -> Result<Outcome, Failure> {
        Ok(Outcome { kind: OutcomeKind::Performed, detail: String::new() })
    }
}

/// One message that nobody can read; or no answer.
struct OneMessage(AtomicBool);

#[async_trait::async_trait]
impl SetAside for OneMessage {
    async fn unreadable(&self, _: &str, _: usize) -> Result<Vec<Unreadable>, BrokerError> {
        if self.0.load(Ordering::SeqCst) {
            return Err(BrokerError::Away("told to".to_owned()));
        }
        Ok(vec![Unreadable::new(b"not <JSON>", Some("m-1".to_owned()), "no JSON".to_owned(), Some(at(50)))])
    }
}

struct World {
    docket: Docket,
    inbox: MemoryInbox,
    memory: Memory,
    fails: Arc<AtomicBool>,
    broker_away: Arc<OneMessage>,
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_795_000_000_000 + millis)
}

fn failure() -> Failure {
    Failure::permanent("no <such> thing")
}

impl World {
    fn start() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let (inbox, memory, fails) = (MemoryInbox::default(), Memory::new(), Arc::new(AtomicBool::new(false)));
        let ports = Ports {
            inbox: Arc::new(inbox.clone()),
            source: Source::Log(Arc::new(memory.clone())),
            history: Arc::new(memory.clone()),
            clock: Arc::new(SystemClock),
        };
        // Its child is never started, as one in quarantine is not.
        let (_, handle) = actor::child(Registered::new(Diary(Arc::clone(&fails))), ports, Settings::default());
        let broker_away = Arc::new(OneMessage(AtomicBool::new(false)));
        let set_aside: Arc<dyn SetAside> = broker_away.clone();
        let docket = Docket::with_parts(change, false, vec![handle], Roll::new(process()), Some(set_aside));
        Self { docket, inbox, memory, fails, broker_away }
    }

    async fn order(&self) -> Vec<Envelope> {
        let commit = first(4);
        self.memory.append(group([Arc::clone(&commit)])).await;
        commit.envelopes().collect()
    }

    /// An order whose second event is dead, with two behind it; its letter.
    async fn dead(&self) -> String {
        let events = self.order().await;
        let mut hold = hold(&events[1], None);
        hold.attempts = 5;
        let row = Row {
            applied: Version(1),
            applied_event: Some(events[0].id),
            seen: Version(4),
            performed: Version(1),
            applying: Lane::Held(Box::new(hold)),
            ..Row::new(events[0].order)
        };
        self.put(row, Vec::new()).await;
        format!("{}.2", events[0].order)
    }

    /// An order at whose second event an attempt began that nobody saw end; its letter.
    async fn attempting(&self) -> String {
        let letter = self.dead().await;
        let mut row = self.row(&letter);
        let Lane::Held(hold) = &mut row.applying else { panic!("it is held") };
        (hold.state, hold.attempts) = (HoldState::Attempting, 1);
        let began = Failure::transient("this attempt began, and nobody knows how it ended");
        hold.tried = vec![Attempt { at: at(2), failure: began }];
        self.rewrite(row).await;
        letter
    }

    /// Somebody else writes the row like that.
    async fn rewrite(&self, row: Row) {
        let mut transaction = Transaction::of_operator(&self.inbox.present().await.expect("an answer"));
        let was_written_by = row.written_by;
        transaction.rows.push(RowWrite { was_written_by, row: Row { written_by: Some(transaction.id), ..row } });
        self.inbox.commit_now(&transaction).expect("written");
    }

    /// An order whose first effect is dead, and one more waits; its letter.
    async fn dead_effect(&self) -> String {
        let events = self.order().await;
        let row = Row {
            applied: Version(4),
            applied_event: Some(events[3].id),
            seen: Version(4),
            performed: Version(1),
            effects_waiting: 2,
            performing: Lane::Held(Box::new(hold(&events[2], Some(0)))),
            ..Row::new(events[0].order)
        };
        self.put(row, events[2..].iter().map(effect).collect()).await;
        format!("{}.3.0", events[0].order)
    }

    async fn put(&self, row: Row, effects: Vec<NewEffect>) {
        let mut transaction = Transaction::of_operator(&self.inbox.present().await.expect("an answer"));
        let row = Row { written_by: Some(transaction.id), ..row };
        transaction.rows.push(RowWrite { was_written_by: None, row });
        transaction.effects = effects;
        self.inbox.commit_now(&transaction).expect("written");
    }

    async fn get(&self, path: &str) -> Answer {
        send(self.docket.client.get(format!("http://{}/api/dead-letters{path}", self.docket.ops))).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        let url = format!("http://{}/api/dead-letters{path}", self.docket.ops);
        send(self.docket.client.post(url).json(&body)).await
    }

    fn row(&self, letter: &str) -> Row {
        let order: OrderId = letter.split('.').next().expect("an order").parse().expect("an order");
        self.inbox.rows_now(&[order]).remove(0)
    }
}

/// As the engine writes it down: with an effect the type of its event is not known.
fn hold(event: &Envelope, effect: Option<u32>) -> Hold {
    let mut hold = Hold::new(HoldState::Dead, at(0), None);
    let event_type = if effect.is_some() { String::new() } else { event.event_type.clone() };
    hold.head = Some(HeadOfLane { version: event.version, event: event.id, event_type, effect });
    hold.keep(Attempt { at: at(1), failure: failure() });
    hold
}

fn effect(event: &Envelope) -> NewEffect {
    NewEffect {
        id: EffectId { event: event.id, index: 0 },
        order: event.order,
        version: event.version,
        last_of_event: true,
        recorded_at: event.recorded_at,
        origin: event.origin.clone(),
        body: r#"{"to":"ana"}"#.into(),
    }
}

#[actix_web::test]
async fn what_is_held_is_listed_with_what_went_wrong_and_what_can_be_done() {
    let world = World::start();
    let empty = world.get("?state=dead").await.json();
    assert_eq!((&empty["count"], &empty["dead_letters"], &empty["next_cursor"]), (&json!(0), &json!([]), &Value::Null));
    let (event, effect) = (world.dead().await, world.dead_effect().await);
    let listed = world.get("").await.json();
    assert_eq!(
        (&listed["count"], &listed["retryable"], &listed["subscribers"]),
        (&json!(3), &json!(2), &json!(["diary"]))
    );
    let letters = listed["dead_letters"].as_array().expect("letters");
    let letter = letters.iter().find(|letter| letter["id"] == event).expect("the event");
    assert_eq!(
        (&letter["state"], &letter["attempts"], &letter["waiting_behind"]),
        (&json!("dead"), &json!(5), &json!(2))
    );
    assert_eq!((&letter["error"], &letter["kind"]), (&json!("no <such> thing"), &json!("permanent")));
    assert_eq!((&letter["version"], &letter["event_type"]), (&json!(2), &json!("order.item_added")));
    assert!(letter["place"].as_str().is_some_and(|place| place.starts_with("tests/http/dead_letters.rs:")));
    assert_eq!(letter["actions"], json!(["retry", "dry_run", "discard"]));
    assert!(letter["next"].as_str().is_some_and(|next| next.contains("not tried again by itself")));
    let letter = letters.iter().find(|letter| letter["id"] == effect).expect("the effect");
    assert_eq!((&letter["effect"], &letter["waiting_behind"]), (&json!(0), &json!(1)));
    assert_eq!(letter["event_type"], "order.item_added", "the log says what asked for it");
    assert_eq!(world.get("?type=order.item_added").await.json()["count"], 2);
    let letter = letters.iter().find(|letter| letter["state"] == "unreadable").expect("the message");
    assert_eq!((&letter["error"], &letter["actions"], &letter["order"]), (&json!("no JSON"), &json!([]), &Value::Null));
    let group = listed["groups"].as_array().expect("groups").first().expect("one").clone();
    assert_eq!(
        (&group["count"], &group["kind"], &group["example"]),
        (&json!(2), &json!("permanent"), &json!("no <such> thing"))
    );
    let of_group = world.get(&format!("?group={}&limit=1", group["group"].as_str().expect("a group"))).await.json();
    assert_eq!((&of_group["count"], of_group["dead_letters"].as_array().map(Vec::len)), (&json!(2), Some(1)));
    let cursor = of_group["next_cursor"].as_str().expect("another page");
    let rest =
        world.get(&format!("?group={}&limit=1&cursor={cursor}", group["group"].as_str().expect("a group"))).await;
    let rest = rest.json();
    assert_ne!(rest["dead_letters"][0]["id"], of_group["dead_letters"][0]["id"]);
    assert_eq!((&rest["next_cursor"], &rest["count"]), (&Value::Null, &json!(2)));
    world.broker_away.0.store(true, Ordering::SeqCst);
    let listed = world.get("").await.json();
    assert_eq!((&listed["count"], &listed["trouble"]), (&json!(2), &json!("the broker is away: told to")));
}

#[actix_web::test]
async fn what_may_end_the_process_is_offered_to_be_let_go_and_never_run_only_to_see() {
    let world = World::start();
    let letter = world.attempting().await;
    let path = format!("/diary/{letter}");
    let listed = world.get("?state=attempting").await.json();
    assert_eq!((&listed["count"], &listed["retryable"]), (&json!(1), &json!(0)));
    assert_eq!(listed["dead_letters"][0]["actions"], json!(["discard"]));
    assert_eq!(world.get(&path).await.json()["actions"], json!(["discard"]));
    for body in [json!({"dry_run": true}), json!({})] {
        world.post(&format!("{path}/retry"), body).await.is(409, "letter-busy");
    }
    // It was followed, and failed in another way since.
    let mut row = world.row(&letter);
    let Lane::Held(hold) = &mut row.applying else { panic!("it is held") };
    hold.state = HoldState::Dead;
    hold.keep(Attempt { at: at(3), failure: failure() });
    world.rewrite(row).await;
    assert_eq!(world.get(&path).await.json()["actions"], json!(["retry", "discard"]));
    let dry = world.post(&format!("{path}/retry"), json!({"dry_run": true})).await.json();
    assert_eq!(dry["outcome"], "ends_processes", "{dry}");
    let discarded = world.post(&format!("{path}/discard"), json!({"reason": "it ends processes"})).await.json();
    assert_eq!(discarded["discarded"], true, "{discarded}");
}

#[actix_web::test]
async fn a_filter_that_cannot_be_right_is_refused_and_says_what_would_be() {
    let world = World::start();
    for (query, says) in [
        ("?state=broken", "dead"),
        ("?state=", "dead"),
        ("?group=xyz", "twelve hexadecimal digits"),
        ("?from=yesterday", "from"),
        ("?to=2026-11-23T08:00:00+01:00", "%2B"),
        ("?limit=0", "1 to 1000"),
        ("?limit=1001", "1 to 1000"),
        ("?cursor=x", "next_cursor"),
        ("?order=1", "subscriber"),
    ] {
        let problem = world.get(query).await.is(400, "malformed");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(says)), "{query}: {problem}");
    }
    let problem = world.get("?subscriber=nobody").await.is(404, "not-found");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("diary")), "{problem}");
    assert_eq!(world.get("?from=2026-11-23T08:00:00%2B01:00").await.status, 200);
}

#[actix_web::test]
async fn one_is_shown_with_its_event_its_attempts_and_what_waits() {
    let world = World::start();
    let (event, effect) = (world.dead().await, world.dead_effect().await);
    let shown = world.get(&format!("/diary/{event}")).await.json();
    assert_eq!((&shown["id"], &shown["event"]["stored"]["orderversion"]), (&json!(event), &json!(2)));
    assert_eq!(shown["event"]["upcast"]["schema_version"], 1);
    assert_eq!(shown["event"]["upcast"]["data"]["sku"], "A-1");
    assert_eq!(shown["tried"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&shown["tried"][0]["kind"], &shown["tried"][0]["error"]),
        (&json!("permanent"), &json!("no <such> thing"))
    );
    let behind: Vec<_> = shown["behind"].as_array().expect("behind").iter().map(|it| it["version"].clone()).collect();
    assert_eq!((behind, &shown["behind_more"]), (vec![json!(3), json!(4)], &json!(0)));
    let shown = world.get(&format!("/diary/{effect}")).await.json();
    assert_eq!((&shown["to_do"], &shown["behind"][0]["version"]), (&json!({"to": "ana"}), &json!(4)));
    let listed = world.get("?state=unreadable").await.json();
    let message = listed["dead_letters"][0]["id"].as_str().expect("an id").to_owned();
    let shown = world.get(&format!("/diary/{message}")).await.json();
    assert_eq!(shown["message"], json!({"message_id": "m-1", "bytes": 10, "excerpt": "not <JSON>"}));
    for wrong in ["/diary/nothing", "/nobody/x", "/diary/message-none", &format!("/diary/{}.1", OrderId::generate())] {
        world.get(wrong).await.is(404, "not-found");
    }
    let other = event.replace(".2", ".3");
    assert_eq!(world.get(&format!("/diary/{other}")).await.is(409, "letter-changed")["expected"], event);
    for path in [format!("/diary/{message}/retry"), format!("/diary/{message}/discard")] {
        world
            .post(&path, if path.ends_with("retry") { json!({}) } else { json!({"reason": "x"}) })
            .await
            .is(409, "not-retryable");
    }
}

#[actix_web::test]
async fn one_is_tried_again_or_dry_and_only_what_was_named() {
    let world = World::start();
    let (event, effect) = (world.dead().await, world.dead_effect().await);
    let path = format!("/diary/{event}/retry");
    let dry = world.post(&path, json!({"dry_run": true})).await.json();
    assert_eq!((&dry["dry_run"], &dry["outcome"]), (&json!(true), &json!("would_apply")));
    let document = &dry["documents"][0];
    assert_eq!(
        (&document["change"], &document["before"], &document["after"]),
        (&json!("created"), &Value::Null, &json!(2))
    );
    assert_eq!(dry["effects"], json!([{"to": "ana"}]));
    world.fails.store(true, Ordering::SeqCst);
    let dry = world.post(&path, json!({"dry_run": true})).await.json();
    assert_eq!((&dry["outcome"], &dry["failure"]["error"]), (&json!("would_fail"), &json!("it fails")));
    let dry = world.post(&format!("/diary/{effect}/retry"), json!({"dry_run": true})).await.json();
    assert_eq!((&dry["outcome"], &dry["effects"]), (&json!("would_perform"), &json!([{"to": "ana"}])));
    for letter in [&event, &effect] {
        let lane = |row: &Row| if letter == &event { row.applying.clone() } else { row.performing.clone() };
        assert_eq!(lane(&world.row(letter)).hold().expect("held").state, HoldState::Dead, "a dry run writes nothing");
        let answer = world.post(&format!("/diary/{letter}/retry"), json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!((&answer.json()["state"], &answer.json()["attempts"]), (&json!("retrying"), &json!(0)));
        assert_eq!(lane(&world.row(letter)).hold().expect("held").state, HoldState::Retrying);
    }
    // Without a body it is the same, and again.
    let url = format!("http://{}/api/dead-letters{path}", world.docket.ops);
    assert_eq!(send(world.docket.client.post(&url)).await.status, 200);
    world.post(&path, json!({"dry": true})).await.is(400, "malformed");
    world.post(&format!("{path}?dry_run=true"), json!({})).await.is(400, "malformed");
    let other = world.post(&path.replace(".2/", ".4/"), json!({})).await;
    assert_eq!(other.is(409, "letter-changed")["expected"], event);
    let foreign = world.docket.client.post(&url).header("Origin", "https://evil.example").json(&json!({}));
    send(foreign).await.is(403, "foreign-origin");
}

#[actix_web::test]
async fn one_is_discarded_with_a_reason_that_is_kept() {
    let world = World::start();
    let (event, effect) = (world.dead().await, world.dead_effect().await);
    let path = format!("/diary/{event}/discard");
    for wrong in ["", "  ", "a\nb", &"r".repeat(501)] {
        let problem = world.post(&path, json!({"reason": wrong})).await.is(422, "invalid");
        assert_eq!(problem["errors"][0]["field"], "reason");
    }
    world.post(&path, json!({})).await.is(400, "malformed");
    assert_eq!(world.row(&event).applied, Version(1));
    let answer = world.post(&path, json!({"reason": " sent by hand "})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let kept = answer.json();
    assert_eq!(
        (&kept["reason"], &kept["by"], &kept["version"]),
        (&json!("sent by hand"), &json!("anonymous"), &json!(2))
    );
    assert_eq!(world.row(&event).applied, Version(2));
    let discards = world.inbox.discards(world.row(&event).order).await.expect("an answer");
    assert_eq!((discards.len(), discards[0].reason.as_str()), (1, "sent by hand"));
    // The lane goes on behind it, and something else is at its head.
    assert_eq!(
        world.post(&path, json!({"reason": "again"})).await.is(409, "letter-changed")["expected"],
        event.replace(".2", ".3")
    );
    let answer = world.post(&format!("/diary/{effect}/discard"), json!({"reason": "no such reader"})).await;
    assert_eq!((answer.status, &answer.json()["effect"]), (200, &json!(0)));
    assert!(world.row(&effect).performing.is_ready());
    world.post(&format!("/diary/{effect}/discard"), json!({"reason": "again"})).await.is(409, "letter-changed");
}

#[actix_web::test]
async fn many_are_retried_when_they_are_as_many_as_was_said() {
    let world = World::start();
    let mut letters = vec![world.dead_effect().await];
    for _ in 0..5 {
        letters.push(world.dead().await);
    }
    let problem = world.post("/retry", json!({"count": 5})).await.is(409, "count-differs");
    assert_eq!(problem["expected"], 6);
    world.post("/retry", json!({})).await.is(400, "malformed");
    world.post("/retry", json!({"count": 6, "sate": "dead"})).await.is(400, "malformed");
    world.post("/retry", json!({"count": 6, "state": "broken"})).await.is(400, "malformed");
    for wrong in [json!({"count": 6, "per_second": 0}), json!({"count": 100_001, "per_second": 10_000})] {
        world.post("/retry", wrong).await.is(422, "invalid");
    }
    let dry = world.post("/retry", json!({"count": 6, "dry_run": true})).await.json();
    let sums = (&dry["tried"], &dry["would_apply"], &dry["would_perform"], &dry["would_fail"], &dry["left"]);
    assert_eq!(sums, (&json!(6), &json!(5), &json!(1), &json!(0), &json!(0)));
    world.fails.store(true, Ordering::SeqCst);
    let dry = world.post("/retry", json!({"count": 6, "dry_run": true})).await.json();
    assert_eq!((&dry["would_fail"], &dry["groups"][0]["count"]), (&json!(5), &json!(5)));
    let of_type = json!({"count": 5, "type": "order.item_added", "subscriber": "diary", "per_second": 50});
    world.post("/retry", of_type).await.is(409, "count-differs");
    let answer = world.post("/retry", json!({"count": 6, "per_second": 50})).await.json();
    assert_eq!((&answer["retried"], &answer["changed"], &answer["left"]), (&json!(6), &json!(0), &json!(0)));
    assert_eq!(world.get("?state=dead").await.json()["count"], 0);
    assert_eq!(world.get("?state=retrying").await.json()["count"], 6);
    world.post("/retry", json!({"count": 6})).await.is(409, "count-differs");
}

#[actix_web::test]
async fn a_store_that_is_away_or_does_not_say_is_no_success() {
    let world = World::start();
    let event = world.dead().await;
    world.inbox.fail([Fault::Away]);
    let answer = world.post(&format!("/diary/{event}/retry"), json!({})).await;
    assert!(answer.header("retry-after").is_some());
    answer.is(503, "store-away");
    world.inbox.fail([Fault::UnknownLost; 5]);
    world.post(&format!("/diary/{event}/retry"), json!({})).await.is(504, "outcome-unknown");
    assert_eq!(world.row(&event).applying.hold().expect("held").state, HoldState::Dead);
}

#[actix_web::test]
async fn whoever_may_only_look_may_try_dry_and_nothing_else_and_a_discard_has_the_keys_name() {
    let (reads, writes) = (Secret::new_key().expect("a key"), Secret::new_key().expect("a key"));
    let world = World::with(|config| {
        let line =
            |name: &str, key: &Secret, scopes: &str| format!("{name} {} {scopes}", KeyHash::of(key.expose()).written());
        let lines = [line("looks", &reads, "ops:read"), line("acts", &writes, "ops:read ops:write")].join("\n");
        let environment = [("DOCKET__AUTH__KEYS".to_owned(), lines)];
        config.auth.keys = Config::load(None, environment).expect("keys").auth.keys;
    });
    let event = world.dead().await;
    let ask = async |key: &Secret, path: &str, body: Value| {
        let url = format!("http://{}/api/dead-letters{path}", world.docket.ops);
        send(world.docket.client.request(Method::POST, url).bearer_auth(key.expose()).json(&body)).await
    };
    let one = format!("/diary/{event}/retry");
    for (path, body) in [(&one, json!({"dry_run": true})), (&"/retry".to_owned(), json!({"count": 1, "dry_run": true}))]
    {
        assert_eq!(ask(&reads, path, body).await.status, 200, "{path}");
    }
    let discard = format!("/diary/{event}/discard");
    for (path, body) in
        [(&one, json!({})), (&"/retry".to_owned(), json!({"count": 1})), (&discard, json!({"reason": "x"}))]
    {
        let problem = ask(&reads, path, body).await.is(403, "forbidden");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("ops:write")), "{problem}");
    }
    assert_eq!(world.row(&event).applying.hold().expect("held").state, HoldState::Dead);
    assert_eq!(ask(&writes, &one, json!({})).await.status, 200);
    assert_eq!(ask(&writes, &discard, json!({"reason": "x"})).await.json()["by"], "acts");
}
