//! A whole docket on one arbiter with tokio's clock paused: store, journal, orders, a subscriber and their supervisors,
//! with faults on purpose, and with a broker between the log and the subscriber or without one. A day of passivation and
//! backoff takes a moment.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actors::bridge::{consumer, relay};
use actors::broker::{Broker, Subscription};
use actors::clock::{Clock, Timestamp, TokioClock};
use actors::commit::Origin;
use actors::event_store::EventStore;
use actors::journal::{self, actor::JournalActor};
use actors::mailer::Mailer;
use actors::order::command::{Create, Item};
use actors::order::directory::{Answer, Layout, Limits, Ports, Request};
use actors::order::error::{At, NotDone};
use actors::order::stream::Rules;
use actors::order::{Command, CommandError, OrderId, Orders, ReadError, Version};
use actors::snapshots::Snapshots;
use actors::subscriber::actor::{self as subscriber, SubscriberHandle};
use actors::subscriber::registry::{self, Parts};
use actors::subscriber::settings::Settings;
use actors::supervisor::{Child, Ledger, Node, Policy, Root, Strategy, Supervisor};
use actors::testing::broker::{Faults as BrokerFaults, MemoryBroker};
use actors::testing::checkpoints::MemoryCheckpoints;
use actors::testing::faulty::{Fate, Faults, Faulty};
use actors::testing::inbox::MemoryInbox;
use actors::testing::mailer::MemoryMailer;
use actors::testing::memory::Memory;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const HOUR: Duration = Duration::from_secs(3_600);

/// What goes wrong while it goes wrong.
const FAULTS: Faults =
    Faults { error: 0.05, unknown: 0.05, delay_max: Duration::from_millis(20), late_max: Duration::from_secs(3) };

/// What goes wrong with the broker while it goes wrong.
const BROKER_FAULTS: BrokerFaults = BrokerFaults {
    broken: 0.02,
    silent: 0.01,
    lost: 0.1,
    duplicated: 0.2,
    reordered: 0.2,
    delayed: 0.2,
    late_max: Duration::from_secs(900),
    delay_max: Duration::from_millis(20),
};

const NOTIFICATION: &str = "notification";

/// How events come to the subscriber.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Log,
    Broker,
}

struct Docket {
    orders: Orders,
    notification: SubscriberHandle,
    memory: Memory,
    inbox: MemoryInbox,
    mailer: MemoryMailer,
    way: Way,
    broker: MemoryBroker,
    fate: Arc<Fate>,
    node: Node,
    root: Root,
}

impl Docket {
    fn start(seed: u64, way: Way) -> Self {
        let (memory, inbox, mailer) = (Memory::new(), MemoryInbox::default(), MemoryMailer::default());
        let fate = Fate::new(seed, Faults::default());
        let store = Arc::new(Faulty::new(Arc::new(memory.clone()), Arc::clone(&fate)));
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_795_000_000_000)));
        let clock: Arc<dyn Clock> = Arc::new(Faulty::new(clock, Arc::clone(&fate)));
        let node = Node::root("docket", Arc::clone(&clock), Ledger::new("test"), seed);

        let event_store: Arc<dyn EventStore> = store.clone();
        let snapshots: Arc<dyn Snapshots> = store.clone();
        let (journal, _) = JournalActor::new(Arc::clone(&event_store), journal::Limits::default());
        let (journal, address) = Child::actor("journal", "journal", move |ctx, _, _| journal.on(ctx));

        let limits = Limits { live_max: 20, snapshot_every_events: 5, ..Limits::default() };
        let journal_port = address.recipient();
        let rules = Rules::ORDER;
        let ports = Ports { store: event_store, snapshots, journal: journal_port, clock: Arc::clone(&clock), rules };
        let layout = Layout::new(ports, limits, Policy::default(), 1);
        let making = layout.clone();
        let (shard, address) = Child::actor("0", "shard", move |ctx, _, node| making.shard(ctx, node));

        let sending: Arc<dyn Mailer> = Arc::new(Faulty::new(Arc::new(mailer.clone()), Arc::clone(&fate)));
        let registered = registry::all(&Parts { mailer: sending }).remove(0);
        let faulty_inbox = Arc::new(Faulty::new(Arc::new(inbox.clone()), Arc::clone(&fate)));
        let source = match way {
            Way::Log => subscriber::Source::Log(store.clone()),
            Way::Broker => subscriber::Source::Broker,
        };
        let history = store.clone();
        let ports = subscriber::Ports { inbox: faulty_inbox, source, history, clock: Arc::clone(&clock) };
        let (subscribing, notification) = subscriber::child(registered, ports, Settings::default());

        let broker = MemoryBroker::new(seed);
        let publishing: Arc<dyn Broker> = Arc::new(broker.clone());
        let checkpoints = Arc::new(MemoryCheckpoints::default());
        let ports = relay::Ports { log: store, checkpoints, broker: Arc::clone(&publishing), clock };
        let (relay, _) = relay::child(ports, relay::Settings::default());
        let subscription = Subscription { subscriber: NOTIFICATION, partitions: 2, prefetch: 16 };
        let consuming = consumer::child(publishing, subscription, &notification, consumer::Settings::default());

        let supervise = |child| Supervisor::new(Strategy::OneForOne, Policy::default()).child(child);
        let mut root = Supervisor::new(Strategy::OneForOne, Policy::default())
            .child(journal)
            .child(Child::supervisor("orders", supervise(shard)))
            .child(Child::supervisor("subscribers", supervise(subscribing)));
        if way == Way::Broker {
            let consumers = Child::supervisor("consumer", supervise(consuming));
            let bridge = Supervisor::new(Strategy::OneForOne, Policy::default()).child(relay).child(consumers);
            root = root.child(Child::supervisor("bridge", bridge));
        }
        let (root, orders) = (root.start(&node), layout.door(vec![address]));
        Self { orders, notification, memory, inbox, mailer, way, broker, fate, node, root }
    }

    /// A command as a patient caller sends it: again, with its key, until the answer is final.
    async fn tell(&self, order: OrderId, key: &str, command: Command) -> Answer {
        loop {
            let origin = Origin::anonymous(key.to_owned(), None);
            let request =
                Request { order, command: command.clone(), if_match: None, key: Some(key.to_owned()), origin };
            match self.orders.command(request).await {
                Ok(answer) => return answer,
                Err(CommandError::NotDone { .. } | CommandError::OutcomeUnknown | CommandError::KeyInProgress) => {
                    tokio::time::sleep(Duration::from_millis(700)).await;
                }
                Err(error) => panic!("{key}: {error:?}"),
            }
        }
    }

    async fn version(&self, order: OrderId) -> Version {
        loop {
            match self.orders.get(order, At::Now).await {
                Ok(order) => return order.version,
                Err(ReadError::NotDone { .. }) => tokio::time::sleep(Duration::from_millis(700)).await,
                Err(error) => panic!("{order}: {error:?}"),
            }
        }
    }

    /// Waits until the subscriber has handled everything and done what follows from it.
    async fn settle(&self) {
        let last = self.memory.commits().last().map(|commit| commit.id());
        let mut waited = 0;
        while {
            let status = self.notification.status();
            let there = status.position.as_ref().and_then(|position| position.commit) == last;
            !there || (status.behind, status.effects_waiting) != (Some(0), Some(0))
        } {
            waited += 1;
            assert!(waited < 24 * 60, "not settled within a day: {:?}", self.notification.status());
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    }

    /// Nothing is left anywhere between the log and the subscriber.
    async fn settle_broker(&self) {
        let mut waited = 0;
        while self.broker.waiting(NOTIFICATION) + self.broker.unacknowledged(NOTIFICATION) > 0 {
            waited += 1;
            assert!(waited < 3_600, "not acknowledged within an hour: {:?}", self.notification.status());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn restart(&self, path: &str) {
        if let Some(child) = self.node.find(path).and_then(|node| node.handle()) {
            child.restart();
        }
    }

    /// Something happens between the log and the subscriber.
    async fn mishap(&self, rng: &mut StdRng) {
        match rng.random_range(0..10) {
            0 => self.broker.purge(NOTIFICATION),
            1 => self.broker.delete(NOTIFICATION),
            2 => self.broker.disconnect(),
            3 => self.broker.disconnect_consumers(),
            4 => {
                self.broker.set_away(true);
                tokio::time::sleep(Duration::from_secs(rng.random_range(1..1_800))).await;
                self.broker.set_away(false);
            }
            5 => {
                self.broker.set_foreign(NOTIFICATION, true);
                self.broker.disconnect_consumers();
                tokio::time::sleep(Duration::from_secs(rng.random_range(1..300))).await;
                self.broker.set_foreign(NOTIFICATION, false);
            }
            6 => self.restart("docket/bridge/consumer/notification"),
            7 => self.restart("docket/subscribers/notification"),
            8 => self.restart("docket/bridge/relay"),
            _ => {
                let mut again = self.broker.taken();
                again.truncate(20);
                for _ in 0..1_000.min(again.len() * 50) {
                    let message = &again[rng.random_range(0..again.len())];
                    self.broker.put(NOTIFICATION, message.body.clone());
                    if rng.random_bool(0.1) {
                        let cut = rng.random_range(0..message.body.len());
                        self.broker.put(NOTIFICATION, &message.body[..cut]);
                    }
                }
            }
        }
    }

    fn live(&self) -> u64 {
        self.node.find("docket/orders/0").unwrap().view().live.unwrap_or_default()
    }
}

fn create() -> Command {
    Command::Create(Create {
        customer_id: "c-1".to_owned(),
        email: Some("ana@example.com".to_owned()),
        reference: None,
        currency: "EUR".to_owned(),
        items: vec![Item { sku: "A-1".to_owned(), quantity: 2, unit_price: 4995 }],
    })
}

/// The rest of an order's life.
fn life() -> [Command; 3] {
    [
        Command::Pay { amount: 9990, reference: "p".to_owned() },
        Command::Ship { carrier: "DHL".to_owned(), tracking_number: "T-1".to_owned() },
        Command::Deliver,
    ]
}

/// A day in which orders are placed and moved on hour by hour, things go wrong for three hours and heal for one, and
/// a night without a caller at the end. Gives what there is to say of it.
async fn a_day(seed: u64, way: Way) -> String {
    let docket = Docket::start(seed, way);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut placed: Vec<(OrderId, u32)> = Vec::new();
    for hour in 0..16 {
        let healthy = hour % 4 == 3;
        docket.fate.set(if healthy { Faults::default() } else { FAULTS });
        docket.broker.set(if healthy { BrokerFaults::default() } else { BROKER_FAULTS });
        for n in 0..5 {
            let key = format!("{hour}-{n}");
            let answer = docket.tell(OrderId::of_creation("c-1", &key), &key, create()).await;
            placed.push((answer.order.id, 1));
        }
        for _ in 0..10 {
            let (id, version) = placed[rng.random_range(0..placed.len())];
            let Some(command) = life().into_iter().nth(version as usize - 1) else { continue };
            let answer = docket.tell(id, &format!("{id}-{version}"), command).await;
            assert_eq!(answer.order.version, Version(version + 1));
            placed.iter_mut().find(|(other, _)| *other == id).unwrap().1 += 1;
            if docket.way == Way::Broker && !healthy && rng.random_bool(0.2) {
                docket.mishap(&mut rng).await;
            }
        }
        tokio::time::sleep(HOUR).await;
        if healthy {
            assert_eq!(docket.live(), 0, "nobody asked for an hour");
        }
    }
    docket.fate.set(Faults::default());
    docket.broker.set(BrokerFaults::default());
    tokio::time::sleep(8 * HOUR).await;
    docket.settle().await;
    docket.settle_broker().await;
    check(&docket, &placed).await;

    let (commits, mails) = (docket.memory.commits().len(), docket.mailer.sent().len());
    let summary = format!("{commits} commits, {mails} mails, {:?}", docket.notification.status());
    docket.root.handle().end();
    docket.root.await;
    summary
}

/// Every command took effect once, in order, and every event has been mailed, in order, at least once.
async fn check(docket: &Docket, placed: &[(OrderId, u32)]) {
    let mut stored: BTreeMap<OrderId, Vec<u32>> = BTreeMap::new();
    for commit in docket.memory.commits() {
        stored.entry(commit.order()).or_default().extend(commit.envelopes().map(|event| event.version.0));
    }
    assert_eq!(stored.len(), placed.len());
    for (id, version) in placed {
        assert_eq!(stored[id], (1..=*version).collect::<Vec<_>>());
        assert_eq!(docket.version(*id).await, Version(*version));
        let row = docket.inbox.all_rows().into_iter().find(|row| row.order == *id).unwrap();
        assert_eq!((row.applied, row.seen), (Version(*version), Version(*version)));
    }
    let events: usize = stored.values().map(Vec::len).sum();
    let effects = docket.inbox.all_effects();
    assert_eq!(effects.len(), events, "one mail is recorded for each event");
    assert!(effects.iter().all(|effect| effect.outcome.is_some()));
    let mails = docket.mailer.sent();
    for (id, _) in placed {
        let own = effects.iter().filter(|effect| effect.effect.order == *id);
        let first_sent = own.map(|effect| {
            let event = effect.effect.id.event.to_string();
            mails.iter().position(|mail| mail.message_id.starts_with(&event)).unwrap()
        });
        assert!(first_sent.is_sorted(), "an order's mails were sent out of order");
    }
}

/// Runs on one arbiter with tokio's clock paused.
fn run<T>(day: impl Future<Output = T>) -> T {
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    actix_rt::System::with_tokio_rt(runtime).block_on(day)
}

#[test]
fn a_day_full_of_faults_passes_in_a_moment_and_loses_nothing() {
    let days = if std::env::var_os("DOCKET_TEST_LONG").is_some() { 200 } else { 5 };
    for seed in 0..days {
        println!("seed {seed}: {}", run(a_day(seed, Way::Log)));
    }
}

#[test]
fn a_day_full_of_faults_passes_with_a_broker_that_keeps_no_promise() {
    let days = if std::env::var_os("DOCKET_TEST_LONG").is_some() { 200 } else { 3 };
    for seed in 0..days {
        println!("seed {seed}: {}", run(a_day(seed, Way::Broker)));
    }
}

#[test]
fn while_the_store_is_away_nothing_is_accepted_and_afterwards_everything_goes_on() {
    run(async {
        let docket = Docket::start(1, Way::Log);
        let id = OrderId::of_creation("c-1", "k");
        docket.tell(id, "k", create()).await;
        docket.fate.set(Faults { error: 1.0, ..Faults::default() });
        for n in 0..20 {
            let origin = Origin::anonymous("c".to_owned(), None);
            let [pay, ..] = life();
            let request = Request { order: id, command: pay, if_match: None, key: Some(format!("{n}")), origin };
            let refused = docket.orders.command(request).await.unwrap_err();
            assert!(matches!(refused, CommandError::NotDone { why: NotDone::StoreAway, .. }), "{refused:?}");
        }
        tokio::time::sleep(6 * HOUR).await;
        docket.fate.set(Faults::default());
        let [pay, ..] = life();
        assert_eq!(docket.tell(id, "p", pay).await.order.version, Version(2));
        docket.settle().await;
        assert_eq!(docket.mailer.sent().len(), 2);
        docket.root.handle().end();
        docket.root.await;
    });
}
