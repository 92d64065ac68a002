//! What operators see of subscribers, and tell them: one that runs here, over a store in memory.

use std::sync::Arc;
use std::time::Duration;

use actors::clock::{Clock, SystemClock, Timestamp};
use actors::event::EventId;
use actors::event_store::EventStore;
use actors::inbox::{Attempt, Discard, Failure, HeadOfLane, Hold, HoldState, Inbox, Lane, Row, RowWrite, Transaction};
use actors::nodes::{Heartbeat, Nodes, NodesInMemory, Process, Roll};
use actors::order::{OrderId, Version};
use actors::subscriber::actor::{self, Ports, Source, SubscriberHandle};
use actors::subscriber::{
    Cause, Documents, Event, Outcome, OutcomeKind, Registered, Settings, Subscriber, SubscriberState,
};
use actors::supervisor::{Ledger, Node, Policy, Root, Strategy, Supervisor};
use actors::testing::commits::{first, group};
use actors::testing::faulty::{Fate, Faults, Faulty};
use actors::testing::inbox::MemoryInbox;
use actors::testing::memory::Memory;
use serde_json::{Value, json};

use super::{Answer, Docket, process, send};

/// Asks for one effect an event.
struct Diary;

#[async_trait::async_trait]
impl Subscriber for Diary {
    const NAME: &'static str = "diary";

    type Effect = u32;

    async fn handle(&self, event: &Event<'_>, _: &mut Documents<'_>) -> Result<Vec<u32>, Failure> {
        Ok(vec![event.version().0])
    }

    async fn perform(&self, effect: &u32, _: &Cause) -> Result<Outcome, Failure> {
        Ok(Outcome { kind: OutcomeKind::Performed, detail: format!("number {effect}") })
    }
}

/// A docket with that subscriber, at work.
struct World {
    docket: Docket,
    memory: Memory,
    inbox: MemoryInbox,
    fate: Arc<Fate>,
    handle: SubscriberHandle,
    _root: Root,
}

impl World {
    async fn start() -> Self {
        Self::on(MemoryInbox::default(), Roll::new(process())).await
    }

    async fn on(inbox: MemoryInbox, nodes: Roll) -> Self {
        let memory = Memory::new();
        let fate = Fate::new(1, Faults::default());
        let ports = Ports {
            inbox: Arc::new(Faulty::new(Arc::new(inbox.clone()), fate.clone())),
            source: Source::Log(Arc::new(memory.clone())),
            history: Arc::new(memory.clone()),
            clock: Arc::new(SystemClock),
        };
        let (child, handle) = actor::child(Registered::new(Diary), ports, Settings::default());
        let node = Node::root("docket", Arc::new(SystemClock), Ledger::new("test"), 1);
        let root = Supervisor::new(Strategy::OneForOne, Policy::default()).child(child).start(&node);
        let docket = Docket::with_subscribers(|_| {}, true, vec![handle.clone()], nodes);
        let world = Self { docket, memory, inbox, fate, handle, _root: root };
        world.until("it is at work", |world| world.handle.status().state == SubscriberState::Running).await;
        world
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..1_000 {
            if holds(self) {
                return;
            }
            actix_web::rt::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("waited in vain until {what}: {:?}", self.handle.status());
    }

    async fn ask(&self, method: &str, path: &str) -> Answer {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        send(self.docket.client.request(method, format!("http://{}{path}", self.docket.ops))).await
    }

    async fn tell(&self, word: &str) -> Value {
        let answer = self.ask("POST", &format!("/api/subscribers/diary/{word}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    async fn figures(&self) -> Value {
        let answer = self.ask("GET", "/api/subscribers").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["subscribers"][0].clone()
    }

    async fn store(&self, orders: usize) -> OrderId {
        let commits: Vec<_> = (0..orders).map(|_| first(2)).collect();
        let order = commits.last().expect("one").order();
        self.memory.append(group(commits)).await;
        order
    }
}

#[actix_web::test]
async fn one_is_told_to_rest_and_to_go_on_as_often_as_somebody_likes() {
    let world = World::start().await;
    for _ in 0..2 {
        let told = world.tell("pause").await;
        assert_eq!((&told["name"], &told["state"], &told["paused"]), (&json!("diary"), &json!("paused"), &json!(true)));
    }
    assert!(world.inbox.present().await.expect("an answer").paused, "it is stored, and survives a restart");
    world.store(10).await;
    world.until("they are seen", |world| world.handle.status().behind == Some(20)).await;
    let figures = world.figures().await;
    assert_eq!((&figures["lag_events"], &figures["lag_is_approximate"]), (&json!(20), &json!(false)));
    assert!(figures["applied"] == 0 && figures["lag_ms"].is_u64(), "{figures}");
    assert_eq!(figures["applying"]["gap"], 10, "each of them waits in its lane: {figures}");
    for _ in 0..2 {
        let told = world.tell("resume").await;
        assert_eq!((&told["paused"], &told["state"] == "paused"), (&json!(false), false));
    }
    let done = |world: &World| world.handle.status().applied == 20 && world.handle.status().effects_waiting == Some(0);
    world.until("they are handled", done).await;
    let figures = world.figures().await;
    let nothing = (&json!(0), &json!(0), &json!(0));
    assert_eq!((&figures["lag_events"], &figures["lag_ms"], &figures["dead_letters"]), nothing, "{figures}");
}

#[actix_web::test]
async fn one_that_does_not_run_here_is_named_with_where_it_does() {
    let nodes = Arc::new(NodesInMemory::default());
    let other = Process {
        instance: "host:2/b".to_owned(),
        name: "host:2".to_owned(),
        ops: "127.0.0.1:9092".to_owned(),
        roles: vec!["billing".to_owned()],
        ..process()
    };
    nodes.beat(&other).await.expect("listed");
    let roll = Roll::new(process());
    let heartbeat = Heartbeat::new(nodes, process(), Vec::new, roll.clone());
    let beating = actix_web::rt::spawn(async move { heartbeat.beat().await });
    let world = World::on(MemoryInbox::default(), roll.clone()).await;
    world.until("both are listed", |_| roll.list().len() == 2).await;
    for word in ["pause", "resume"] {
        let problem = world.ask("POST", &format!("/api/subscribers/billing/{word}")).await.is(503, "not-here");
        let detail = problem["detail"].as_str().expect("words");
        assert!(detail.contains("host:2 (127.0.0.1:9092)"), "{detail}");
        let problem = world.ask("POST", &format!("/api/subscribers/nobody/{word}")).await.is(404, "not-found");
        let detail = problem["detail"].as_str().expect("words");
        assert!(detail.contains("nobody") && detail.contains("diary"), "{detail}");
        let answer = world.ask("GET", &format!("/api/subscribers/diary/{word}")).await;
        assert_eq!(answer.header("allow"), Some("POST"));
        answer.is(405, "method-not-allowed");
    }
    beating.abort();
}

#[actix_web::test]
async fn while_its_store_is_away_nothing_is_promised() {
    let world = World::start().await;
    world.fate.set(Faults { error: 1.0, ..Faults::default() });
    for (method, path) in [
        ("POST", "/api/subscribers/diary/pause".to_owned()),
        ("GET", format!("/api/orders/{}/subscribers", OrderId::generate())),
    ] {
        let answer = world.ask(method, &path).await;
        assert!(answer.header("retry-after").is_some());
        answer.is(503, "store-away");
    }
    assert_eq!(world.figures().await["name"], "diary");
    world.fate.set(Faults::default());
    assert_eq!(world.tell("pause").await["state"], "paused");
}

#[actix_web::test]
async fn when_nobody_knows_whether_it_was_told_that_is_said() {
    let world = World::start().await;
    world.fate.set(Faults { unknown: 1.0, ..Faults::default() });
    for word in ["pause", "resume", "pause"] {
        let problem = world.ask("POST", &format!("/api/subscribers/diary/{word}")).await.is(504, "outcome-unknown");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("twice")), "{problem}");
    }
    world.fate.set(Faults::default());
    assert_eq!(world.tell("pause").await["paused"], true);
}

#[actix_web::test]
async fn an_order_shows_how_far_each_subscriber_is_what_it_set_off_and_what_was_discarded() {
    let inbox = MemoryInbox::default();
    let now = SystemClock.now();
    let dead = OrderId::generate();
    let event = EventId::generate();
    hold(&inbox, dead, event, now).await;
    let world = World::on(inbox, Roll::new(process())).await;
    let order = world.store(1).await;
    let done = |world: &World| world.handle.status().applied == 2 && world.handle.status().effects_waiting == Some(0);
    world.until("it is handled", done).await;

    let answer = world.ask("GET", &format!("/api/orders/{order}/subscribers")).await.json();
    let diary = &answer["subscribers"][0];
    assert_eq!((&diary["name"], &diary["applied"], &diary["performed"]), (&json!("diary"), &json!(2), &json!(2)));
    assert_eq!((&diary["applying"], &diary["performing"]), (&json!({"state": "ready"}), &json!({"state": "ready"})));
    let effects: Vec<_> = diary["effects"].as_array().expect("effects").iter().map(|it| &it["detail"]).collect();
    assert_eq!(effects, [&json!("number 1"), &json!("number 2")]);
    assert_eq!(diary["discards"], json!([]));

    let answer = world.ask("GET", &format!("/api/orders/{dead}/subscribers")).await.json();
    let diary = &answer["subscribers"][0];
    assert_eq!((&diary["applied"], &diary["seen"]), (&json!(1), &json!(3)));
    let applying = &diary["applying"];
    assert_eq!(
        (&applying["state"], &applying["attempts"], &applying["error"]),
        (&json!("dead"), &json!(5), &json!("no"))
    );
    assert_eq!((&applying["error_kind"], &applying["next_attempt_at"]), (&json!("transient"), &Value::Null));
    let discard = &diary["discards"][0];
    assert_eq!((&discard["version"], &discard["event_id"]), (&json!(1), &json!(event)));
    assert_eq!(
        (&discard["reason"], &discard["by"], &discard["error"]),
        (&json!("a test"), &json!("ana"), &json!("no"))
    );
    let figures = world.figures().await;
    assert_eq!((&figures["dead_letters"], &figures["lag_events"]), (&json!(1), &json!(2)), "{figures}");
    assert_eq!((&figures["lag_ms"], &figures["state"]), (&json!(0), &json!("running")), "it holds its order alone");

    let stranger = world.ask("GET", &format!("/api/orders/{}/subscribers", OrderId::generate())).await.json();
    assert_eq!(stranger["subscribers"][0]["seen"], 0);
    world.ask("GET", "/api/orders/none/subscribers").await.is(404, "not-found");
}

/// As if the order's first event had been discarded, and its second one given up.
async fn hold(inbox: &MemoryInbox, order: OrderId, event: EventId, now: Timestamp) {
    let mut hold = Hold::new(HoldState::Dead, now, None);
    hold.attempts = 5;
    hold.head = Some(HeadOfLane { version: Version(2), event, event_type: "order.paid".to_owned(), effect: None });
    hold.keep(Attempt { at: now, failure: Failure::transient("no") });
    let discard = Discard {
        order,
        version: Version(1),
        event: Some(event),
        event_type: Some("order.created".to_owned()),
        effect: None,
        reason: "a test".to_owned(),
        by: "ana".to_owned(),
        at: now,
        hold: hold.clone(),
    };
    let row = Row {
        applied: Version(1),
        applied_event: Some(event),
        seen: Version(3),
        performed: Version(1),
        applying: Lane::Held(Box::new(hold)),
        ..Row::new(order)
    };
    let mut transaction = Transaction::of_operator(&inbox.present().await.expect("an answer"));
    transaction.rows.push(RowWrite { was_written_by: None, row });
    transaction.discards.push(discard);
    inbox.commit_now(&transaction).expect("written");
}

/// One that stands by shows what the store has.
#[actix_web::test]
async fn one_that_stands_by_shows_the_figures_of_the_store_and_where_it_is_active() {
    let inbox = MemoryInbox::default();
    hold(&inbox, OrderId::generate(), EventId::generate(), SystemClock.now()).await;
    inbox.of_process("elsewhere", Duration::from_secs(600)).begin().await.expect("a term");
    let memory = Memory::new();
    let ports = Ports {
        inbox: Arc::new(inbox.of_process("here", Duration::from_secs(600))),
        source: Source::Log(Arc::new(memory.clone())),
        history: Arc::new(memory),
        clock: Arc::new(SystemClock),
    };
    let (child, handle) = actor::child(Registered::new(Diary), ports, Settings::default());
    let node = Node::root("docket", Arc::new(SystemClock), Ledger::new("test"), 1);
    let _root = Supervisor::new(Strategy::OneForOne, Policy::default()).child(child).start(&node);
    let mut status = handle.clone().status();
    while status.state != SubscriberState::Standby {
        actix_web::rt::time::sleep(Duration::from_millis(20)).await;
        status = handle.status();
    }
    let docket = Docket::with_subscribers(|_| {}, false, vec![handle], Roll::new(process()));
    let ask = async |method: &str, path: &str| {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        send(docket.client.request(method, format!("http://{}{path}", docket.ops))).await.json()
    };
    let figures = ask("GET", "/api/subscribers").await["subscribers"][0].clone();
    assert_eq!((&figures["state"], &figures["active_in"]), (&json!("standby"), &json!("elsewhere")));
    assert_eq!((&figures["dead_letters"], &figures["lag_events"]), (&json!(1), &json!(2)));
    assert_eq!((&figures["lag_is_approximate"], &figures["paused"]), (&json!(true), &json!(false)));
    let told = ask("POST", "/api/subscribers/diary/pause").await;
    assert_eq!((&told["state"], &told["paused"]), (&json!("standby"), &json!(true)));
    assert!(inbox.present().await.expect("an answer").paused);
}
