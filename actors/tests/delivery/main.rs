//! One subscriber on virtual time: its actor and its batches, over ports that fail on purpose, and its consumer over a
//! broker that does. Handlers panic and hang, positions get lost, the log goes away, lives end in the middle; the state is
//! the fold of the log in the end.

#![expect(clippy::unwrap_used, reason = "tests")]

mod aside;
mod broker;
mod effects;
mod ending;
mod large;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actors::clock::{Clock, Timestamp, TokioClock};
use actors::commit::{Commit, CommitKey, StreamEnd};
use actors::event_store::EventStore;
use actors::inbox::{
    BODY_BYTES_MAX, CatchingUp, Committed, DocumentKey, HoldState, Inbox, Progress, Row, RowWrite, Transaction,
};
use actors::log::{From, Log, LogId, Position};
use actors::order::{OrderId, Version};
use actors::subscriber::actor::{self, Ports, Source, SubscriberHandle};
use actors::subscriber::{
    Cause, Documents, Event, Failure, Outcome, OutcomeKind, Registered, Settings, Subscriber, SubscriberState,
};
use actors::supervisor::{Child, Ledger, Node, Policy, Root, Strategy, Supervisor};
use actors::testing::commits::{commit, first, group};
use actors::testing::faulty::{Fate, Faults, Faulty};
use actors::testing::inbox::MemoryInbox;
use actors::testing::memory::Memory;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How a handler or an effect goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    Panics,
    Hangs,
    Fails,
    Away,
}

impl Wrong {
    async fn happen(self) -> Failure {
        match self {
            Self::Panics => panic!("the handler said no"),
            Self::Hangs => std::future::pending().await,
            Self::Fails => Failure::transient("not now"),
            Self::Away => Failure::dependency_down("away"),
        }
    }
}

/// What is too large to be stored.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Large {
    Document,
    Effect,
}

type Key = (OrderId, Version);

/// Until somebody mends it.
const FOR_EVER: u32 = u32::MAX;

/// Writes down every version in the order's document, and asks for an effect for each.
#[derive(Default)]
struct Diary {
    handling: Mutex<HashMap<Key, (u32, Wrong)>>,
    performing: Mutex<HashMap<Key, (u32, Wrong)>>,
    performed: Mutex<Vec<Key>>,
    /// How often a handler is to take how long before it goes on.
    dawdling: Mutex<HashMap<Key, (u32, Duration)>>,
    /// What a handler makes too large to be stored.
    swelling: Mutex<HashMap<Key, (u32, Large)>>,
    /// Every event is counted in a document that all orders share.
    counting: AtomicBool,
}

fn take<T: Copy>(script: &Mutex<HashMap<Key, (u32, T)>>, key: Key) -> Option<T> {
    let mut script = script.lock().unwrap();
    let (times, what) = script.get_mut(&key).filter(|(times, _)| *times > 0)?;
    *times -= 1;
    Some(*what)
}

struct Shared(Arc<Diary>);

#[async_trait::async_trait]
impl Subscriber for Shared {
    const NAME: &'static str = "diary";

    type Effect = String;

    async fn handle(&self, event: &Event<'_>, documents: &mut Documents<'_>) -> Result<Vec<String>, Failure> {
        let mut versions: Vec<u32> = documents.get("orders", event.order()).await?.unwrap_or_default();
        versions.push(event.version().0);
        documents.put("orders", event.order(), &versions)?;
        let counting = self.0.counting.load(Ordering::Relaxed);
        let counted: Option<u32> = if counting { documents.get("all", "counted").await? } else { None };
        if let Some(time) = take(&self.0.dawdling, (event.order(), event.version())) {
            tokio::time::sleep(time).await;
        }
        if counting {
            documents.put("all", "counted", &(counted.unwrap_or_default() + 1))?;
        }
        // What was put before it went wrong must not be kept.
        if let Some(wrong) = take(&self.0.handling, (event.order(), event.version())) {
            return Err(wrong.happen().await);
        }
        let large = || "x".repeat(BODY_BYTES_MAX);
        match take(&self.0.swelling, (event.order(), event.version())) {
            Some(Large::Document) => documents.put("large", event.order(), &large())?,
            Some(Large::Effect) => return Ok(vec![String::new(), large()]),
            None => {}
        }
        Ok(vec![event.version().to_string()])
    }

    async fn perform(&self, _: &String, cause: &Cause) -> Result<Outcome, Failure> {
        let key = (cause.order, cause.version);
        if let Some(wrong) = take(&self.0.performing, key) {
            return Err(wrong.happen().await);
        }
        self.0.performed.lock().unwrap().push(key);
        Ok(Outcome { kind: OutcomeKind::Performed, detail: String::new() })
    }
}

struct World {
    memory: Memory,
    inbox: MemoryInbox,
    diary: Arc<Diary>,
    fate: Arc<Fate>,
    /// Of the history, where it is not that of everything.
    history_fate: Option<Arc<Fate>>,
    ends: BTreeMap<OrderId, StreamEnd>,
}

struct Running {
    handle: SubscriberHandle,
    node: Node,
    root: Root,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            memory: Memory::new(),
            inbox: MemoryInbox::default(),
            diary: Arc::default(),
            fate: Fate::new(seed, Faults::default()),
            history_fate: None,
            ends: BTreeMap::new(),
        }
    }

    fn start(&self, settings: Settings) -> Running {
        let log = Arc::new(Faulty::new(Arc::new(self.memory.clone()), self.fate.clone()));
        self.start_from(Source::Log(log), settings, |_| None)
    }

    /// Started with whatever brings it its events.
    fn start_from(
        &self,
        source: Source,
        settings: Settings,
        beside: impl FnOnce(&SubscriberHandle) -> Option<Child>,
    ) -> Running {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_795_000_000_000)));
        let node = Node::root("docket", clock.clone(), Ledger::new("test"), 1);
        let inbox: Arc<dyn Inbox> = Arc::new(Faulty::new(Arc::new(self.inbox.clone()), self.fate.clone()));
        let history_fate = self.history_fate.as_ref().unwrap_or(&self.fate).clone();
        let history = Arc::new(Faulty::new(Arc::new(self.memory.clone()), history_fate));
        let ports = Ports { inbox, source, history, clock };
        let (child, handle) = actor::child(Registered::new(Shared(self.diary.clone())), ports, settings);
        let mut supervisor = Supervisor::new(Strategy::OneForOne, Policy::default());
        // As in the program it is stopped after the subscriber.
        if let Some(beside) = beside(&handle) {
            let consumers = Supervisor::new(Strategy::OneForOne, Policy::default()).child(beside);
            supervisor = supervisor.child(Child::supervisor("consumer", consumers));
        }
        let root = supervisor.child(child).start(&node);
        Running { handle, node, root }
    }

    /// Stores another commit of the order, or the first one of a new order.
    async fn store(&mut self, order: Option<OrderId>, events: usize) -> OrderId {
        let commit = match order.and_then(|order| self.ends.get(&order)) {
            Some(end) => commit(end, events),
            None => first(events),
        };
        self.append(commit).await
    }

    async fn append(&mut self, commit: Arc<Commit>) -> OrderId {
        self.ends.insert(commit.order(), commit.stored_end());
        self.memory.append(group([commit.clone()])).await;
        commit.order()
    }

    fn document(&self, order: OrderId) -> Vec<u32> {
        let key = DocumentKey { collection: "orders".into(), id: order.to_string() };
        let body = self.inbox.documents_now(&[key]).remove(0);
        body.map(|body| serde_json::from_str(&body).unwrap()).unwrap_or_default()
    }

    /// How many events are counted in the document that all orders share.
    fn counted(&self) -> u32 {
        let key = DocumentKey { collection: "all".into(), id: "counted".to_owned() };
        let body = self.inbox.documents_now(&[key]).remove(0);
        body.map(|body| serde_json::from_str(&body).unwrap()).unwrap_or_default()
    }

    /// How many events there are.
    fn events(&self) -> u32 {
        self.ends.values().map(|end| end.version().0).sum()
    }

    fn is_applied(&self, order: OrderId) -> bool {
        let row = self.inbox.rows_now(&[order]).pop();
        row.is_some_and(|row| row.applied == self.ends[&order].version())
    }

    /// As an operator writes it.
    async fn operate(&self, order: OrderId, change: impl FnOnce(&mut Row, &mut Transaction)) {
        let present = self.inbox.present().await.unwrap();
        let mut row = self.inbox.rows_now(&[order]).remove(0);
        let mut transaction = Transaction::of_operator(&present);
        let was_written_by = row.written_by.replace(transaction.id);
        change(&mut row, &mut transaction);
        transaction.rows.push(RowWrite { was_written_by, row });
        assert_eq!(self.inbox.commit_now(&transaction), Ok(Committed::Written));
    }

    fn everything_is_applied(&self) -> bool {
        self.ends.iter().all(|(order, end)| {
            self.inbox
                .rows_now(&[*order])
                .pop()
                .is_some_and(|row| row.seen == end.version() && row.applied == end.version())
        })
    }

    async fn settle(&self, running: &Running) {
        let last = self.memory.commits().last().map(|commit| commit.id());
        until("everything is handled and performed", || {
            let status = running.handle.status();
            status.position.as_ref().is_some_and(|position| position.commit == last)
                && status.state == SubscriberState::Running
                && (status.behind, status.lanes_held, status.effects_waiting) == (Some(0), Some(0), Some(0))
        })
        .await;
    }

    /// Every order's document holds each version once, in order; every effect was performed, first in order.
    #[track_caller]
    fn check(&self) {
        let performed = self.diary.performed.lock().unwrap();
        for (order, end) in &self.ends {
            let all: Vec<_> = (1..=end.version().0).collect();
            assert_eq!(self.document(*order), all, "{order}");
            let mut firsts = Vec::new();
            for (_, version) in performed.iter().filter(|(other, _)| other == order) {
                if !firsts.contains(&version.0) {
                    firsts.push(version.0);
                }
            }
            assert_eq!(firsts, all, "{order}: effects");
        }
    }
}

impl Running {
    async fn stop(self) {
        self.root.handle().end();
        self.root.await;
    }

    fn restart(&self) {
        self.restart_at("docket/diary");
    }

    fn restart_at(&self, path: &str) {
        // It may not have been started yet.
        if let Some(child) = self.node.find(path).and_then(|node| node.handle()) {
            child.restart();
        }
    }
}

/// Waits for up to a day of virtual time.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..24 * 3_600 * 50 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("waited a day and in vain until {what}");
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    actix_rt::System::with_tokio_rt(runtime).block_on(test)
}

#[test]
fn a_handler_that_panics_or_hangs_holds_its_order_alone_and_keeps_nothing_of_what_it_did() {
    for wrong in [Wrong::Panics, Wrong::Hangs, Wrong::Fails] {
        run(async {
            let mut world = World::new(1);
            let bad = world.store(None, 3).await;
            let good = world.store(None, 3).await;
            // That it takes long is found out within a batch, and counts only aside.
            let times = if wrong == Wrong::Hangs { 4 } else { 3 };
            world.diary.handling.lock().unwrap().insert((bad, Version(2)), (times, wrong));
            let running = world.start(Settings::default());
            let failed = |row: Row| row.applying.hold().is_some_and(|hold| hold.failure().is_some());
            until("its order is held", || world.inbox.rows_now(&[bad]).pop().is_some_and(failed)).await;
            assert_eq!(running.handle.status().lanes_held, Some(1));
            assert_eq!((world.document(bad), world.document(good)), (vec![1], vec![1, 2, 3]), "{wrong:?}");
            let row = world.inbox.rows_now(&[bad]).remove(0);
            let hold = row.applying.hold().unwrap();
            assert_eq!((hold.state, row.seen), (HoldState::Retrying, Version(3)));
            let said = hold.failure().unwrap().to_string();
            let says = match wrong {
                Wrong::Panics => "the handler said no",
                Wrong::Hangs => "longer than 30000 ms",
                Wrong::Fails | Wrong::Away => "not now",
            };
            assert!(said.contains(says), "{said}");
            // What comes meanwhile waits behind it.
            world.store(Some(bad), 2).await;
            world.settle(&running).await;
            world.check();
            assert_eq!(running.handle.status().retries, 3, "{wrong:?}");
            assert_eq!(running.node.find("docket/diary").unwrap().view().restarts_total, 0);
            running.stop().await;
        });
    }
}

#[test]
fn an_effect_that_panics_or_hangs_is_performed_again_before_the_next_of_its_order() {
    for wrong in [Wrong::Panics, Wrong::Hangs, Wrong::Fails, Wrong::Away] {
        run(async {
            let mut world = World::new(1);
            let bad = world.store(None, 3).await;
            world.store(None, 3).await;
            world.diary.performing.lock().unwrap().insert((bad, Version(2)), (3, wrong));
            let running = world.start(Settings::default());
            world.settle(&running).await;
            world.check();
            assert_eq!(world.diary.performed.lock().unwrap().len(), 6, "{wrong:?}");
            running.stop().await;
        });
    }
}

/// What is logged on this thread, as JSON lines.
#[derive(Clone, Default)]
struct LogLines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl LogLines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn about(&self, order: OrderId) -> Vec<serde_json::Value> {
        let text = self.text();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.filter(|line| line["order.id"] == order.to_string()).collect()
    }
}

#[test]
fn a_failure_is_logged_with_its_order_its_event_and_what_set_it_off() {
    let lines = LogLines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(log);
    run(async {
        let mut world = World::new(1);
        let handled = world.store(None, 2).await;
        let performed = world.store(None, 2).await;
        world.diary.handling.lock().unwrap().insert((handled, Version(1)), (1, Wrong::Panics));
        world.diary.performing.lock().unwrap().insert((performed, Version(2)), (1, Wrong::Fails));
        let running = world.start(Settings::default());
        world.settle(&running).await;
        for (order, version, says) in [(handled, 0, "the handler said no"), (performed, 1, "not now")] {
            let event =
                world.memory.commits().iter().find(|commit| commit.order() == order).unwrap().envelopes().nth(version);
            let event = event.unwrap();
            let about = lines.about(order);
            assert_eq!(about.len(), 1, "once, where it is handled: {about:#?}");
            assert_eq!(about[0]["event.id"], event.id.to_string());
            assert_eq!(about[0]["correlation.id"], event.origin.correlation_id);
            assert!(about[0]["error"].as_str().unwrap().contains(says), "{about:#?}");
        }
        running.stop().await;
    });
}

#[test]
fn a_first_start_catches_up_while_new_events_arrive() {
    run(async {
        let mut world = World::new(1);
        for _ in 0..700 {
            world.store(None, 2).await;
        }
        world.fate.set(Faults { delay_max: Duration::from_millis(50), ..Faults::default() });
        let running = world.start(Settings { queue_events_max: 64, ..Settings::default() });
        let mut rng = StdRng::seed_from_u64(1);
        let orders: Vec<_> = world.ends.keys().copied().collect();
        for n in 0..400 {
            let order = orders[rng.random_range(0..orders.len())];
            world.store((n % 3 > 0).then_some(order), 1).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world.settle(&running).await;
        world.check();
        assert_eq!(world.inbox.progress().unwrap().catching_up, None);
        running.stop().await;
    });
}

/// An inbox that has followed another log and was in the middle of scanning it.
async fn scanned_in_another_log(world: &World, after: Option<CommitKey>) {
    let begun = world.inbox.begin_now();
    let position = Position { log: LogId(uuid::Uuid::from_u128(7)), token: "9".to_owned(), commit: None };
    let progress = Some(Progress { position, catching_up: Some(CatchingUp { after }) });
    let transaction = Transaction { progress, ..Transaction::empty(&begun) };
    world.inbox.commit_now(&transaction).unwrap();
}

#[test]
fn a_scan_of_another_log_does_not_stand_for_the_scan_of_this_one() {
    for seed in 0..40 {
        run(async {
            let mut world = World::new(seed);
            for _ in 0..600 {
                world.store(None, 1).await;
            }
            // Nearly through, in the other log: the rest is nothing in this one.
            let last = world.memory.commits().iter().map(|commit| commit.key()).max();
            scanned_in_another_log(&world, last).await;
            world.fate.set(Faults { delay_max: Duration::from_millis(200), ..Faults::default() });
            let running = world.start(Settings::default());
            let log = world.memory.follow(From::Now).await.unwrap().position().log;
            until("it says that it has caught up", || {
                let progress = world.inbox.progress().unwrap();
                let caught_up = progress.position.log == log && progress.catching_up.is_none();
                assert!(!caught_up || world.everything_is_applied(), "seed {seed}: it says so and has not");
                caught_up
            })
            .await;
            world.settle(&running).await;
            world.check();
            running.stop().await;
        });
    }
}

#[test]
fn a_lost_position_has_the_whole_log_read_again_and_nothing_handled_twice() {
    run(async {
        let mut world = World::new(1);
        let order = world.store(None, 3).await;
        let running = world.start(Settings::default());
        world.settle(&running).await;
        running.stop().await;

        // Restored on another machine, say, where more has happened since.
        let restored = Memory::new();
        for commit in world.memory.commits() {
            restored.append(group([commit])).await;
        }
        world.memory = restored;
        world.store(Some(order), 1).await;
        world.store(None, 2).await;
        let running = world.start(Settings::default());
        world.settle(&running).await;
        world.check();
        assert_eq!(world.diary.performed.lock().unwrap().len(), 6);
        assert_eq!(running.handle.status().conflicts, 0);
        running.stop().await;
    });
}

#[test]
fn while_log_and_store_are_away_it_says_so_and_afterwards_goes_on() {
    run(async {
        let mut world = World::new(1);
        let order = world.store(None, 1).await;
        let running = world.start(Settings::default());
        world.settle(&running).await;
        world.fate.set(Faults { error: 1.0, ..Faults::default() });
        world.store(Some(order), 2).await;
        until("it says so", || running.handle.status().state == SubscriberState::StoreAway).await;
        assert!(running.handle.status().trouble.is_some());
        tokio::time::sleep(Duration::from_secs(6 * 3_600)).await;
        world.fate.set(Faults::default());
        world.settle(&running).await;
        world.check();
        assert_eq!(running.handle.status().trouble, None);
        running.stop().await;
    });
}

#[test]
fn paused_it_performs_nothing_over_restarts_until_it_is_told_to_go_on() {
    run(async {
        let mut world = World::new(1);
        let running = world.start(Settings::default());
        running.handle.pause(true).await.unwrap();
        let order = world.store(None, 3).await;
        until("it has seen the events", || running.handle.status().behind == Some(3)).await;
        running.stop().await;
        let running = world.start(Settings::default());
        world.store(Some(order), 1).await;
        until("it has seen the others", || running.handle.status().behind == Some(4)).await;
        assert_eq!((world.document(order), running.handle.status().state), (vec![], SubscriberState::Paused));
        running.handle.pause(false).await.unwrap();
        world.settle(&running).await;
        world.check();
        running.stop().await;
    });
}

/// Restarts and stops in the middle of everything, while ports fail, commits land late and handlers go wrong.
#[test]
fn whenever_a_life_ends_the_next_one_goes_on_from_what_is_stored() {
    let seeds = if std::env::var_os("DOCKET_TEST_LONG").is_some() { 500 } else { 20 };
    for seed in 0..seeds {
        println!("seed {seed}");
        run(a_turbulent_life(seed));
    }
}

async fn a_turbulent_life(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::new(seed);
    let settings = Settings {
        batch_events_max: 16,
        queue_events_max: 64,
        effects_loaded_max: 8,
        effects_max: 5,
        ..Settings::default()
    };
    for _ in 0..100 {
        world.store(None, rng.random_range(1..4)).await;
    }
    let mut running = world.start(settings.clone());
    let wrongs = [Wrong::Panics, Wrong::Hangs, Wrong::Fails, Wrong::Away];
    for n in 0..200 {
        let faults =
            Faults { error: 0.1, unknown: 0.1, delay_max: Duration::from_millis(20), late_max: Duration::from_secs(3) };
        world.fate.set(if n % 40 < 25 { faults } else { Faults::default() });
        let orders: Vec<_> = world.ends.keys().copied().collect();
        let order = orders[rng.random_range(0..orders.len())];
        let order = world.store(rng.random_bool(0.7).then_some(order), rng.random_range(1..4)).await;
        let wrong = (rng.random_range(1..3), wrongs[rng.random_range(0..wrongs.len())]);
        let key = (order, world.ends[&order].version());
        match rng.random_range(0..10) {
            0 => drop(world.diary.handling.lock().unwrap().insert(key, wrong)),
            1 => drop(world.diary.performing.lock().unwrap().insert(key, wrong)),
            2 => running.restart(),
            3 if rng.random_bool(0.3) => {
                running.stop().await;
                running = world.start(settings.clone());
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..500))).await;
    }
    world.fate.set(Faults::default());
    world.settle(&running).await;
    world.check();
    running.stop().await;
}
