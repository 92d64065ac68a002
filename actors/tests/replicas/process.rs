//! The processes, what they share, and what is asked of them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use actors::bridge::{consumer, relay};
use actors::broker::{Broker, Subscription};
use actors::clock::{Clock, Timestamp, TokioClock};
use actors::commit::Origin;
use actors::event_store::EventStore;
use actors::inbox::{DocumentKey, Inbox};
use actors::journal::{self, Health, actor::JournalActor};
use actors::log::Log;
use actors::order::command::{Create, Item};
use actors::order::directory::{Answer, Layout, Limits, Ports, Request};
use actors::order::error::At;
use actors::order::stream::Rules;
use actors::order::{Command, CommandError, Order, OrderId, Orders, ReadError, Version};
use actors::snapshots::Snapshots;
use actors::subscriber::actor::{self as subscriber, SubscriberHandle};
use actors::subscriber::{
    Cause, Documents, Event, Failure, Outcome, OutcomeKind, Registered, Settings, Subscriber, SubscriberState,
};
use actors::supervisor::{Child, Ledger, Node, Policy, Root, Strategy, Supervisor};
use actors::testing::broker::MemoryBroker;
use actors::testing::checkpoints::MemoryCheckpoints;
use actors::testing::faulty::{Fate, Faults, Faulty};
use actors::testing::inbox::MemoryInbox;
use actors::testing::memory::Memory;
use actors::testing::replica_set::{Client, ReplicaSet};
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet};

/// How long a subscriber's lease is.
pub(crate) const LEASE: Duration = Duration::from_secs(5);

/// What the processes share.
pub(crate) struct World {
    pub(crate) memory: Memory,
    pub(crate) set: ReplicaSet,
    pub(crate) inbox: MemoryInbox,
    pub(crate) diary: Arc<Diary>,
    /// Events travel through it, when there is one.
    pub(crate) broker: Option<MemoryBroker>,
    checkpoints: MemoryCheckpoints,
    clock: Arc<dyn Clock>,
    seed: u64,
}

/// One of them.
pub(crate) struct Process {
    pub(crate) name: &'static str,
    pub(crate) orders: Orders,
    pub(crate) tally: SubscriberHandle,
    pub(crate) client: Client,
    pub(crate) fate: Arc<Fate>,
    pub(crate) node: Node,
    pub(crate) journal: watch::Receiver<Health>,
    ice: Rc<Ice>,
    root: RefCell<Option<Root>>,
    running: JoinHandle<()>,
}

/// What is performed, by whom, and whether that one may.
#[derive(Default)]
pub(crate) struct Diary {
    pub(crate) performed: Mutex<Vec<(&'static str, OrderId, Version)>>,
    pub(crate) without_lease: Mutex<Vec<(&'static str, OrderId, Version)>>,
}

/// Counts over all orders, in one document that all of them share.
struct Tally {
    process: &'static str,
    inbox: MemoryInbox,
    diary: Arc<Diary>,
}

#[async_trait::async_trait]
impl Subscriber for Tally {
    const NAME: &'static str = "tally";

    type Effect = u32;

    fn reads(&self, event: &Event<'_>) -> Vec<DocumentKey> {
        let key = |collection: &'static str, id| DocumentKey { collection: collection.into(), id };
        vec![key("counts", "all".to_owned()), key("orders", event.order().to_string())]
    }

    async fn handle(&self, event: &Event<'_>, documents: &mut Documents<'_>) -> Result<Vec<u32>, Failure> {
        let mut counts: BTreeMap<String, u32> = documents.get("counts", "all").await?.unwrap_or_default();
        *counts.entry(event.envelope.event_type.clone()).or_default() += 1;
        documents.put("counts", "all", &counts)?;
        let mut versions: Vec<u32> = documents.get("orders", event.order()).await?.unwrap_or_default();
        versions.push(event.version().0);
        documents.put("orders", event.order(), &versions)?;
        Ok(vec![event.version().0])
    }

    async fn perform(&self, _: &u32, cause: &Cause) -> Result<Outcome, Failure> {
        let did = (self.process, cause.order, cause.version);
        if self.inbox.holder().as_deref() != Some(self.process) {
            self.diary.without_lease.lock().unwrap().push(did);
        }
        self.diary.performed.lock().unwrap().push(did);
        tokio::time::sleep(Duration::from_millis(2)).await;
        Ok(Outcome { kind: OutcomeKind::Performed, detail: self.process.to_owned() })
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let memory = Memory::new();
        Self {
            set: ReplicaSet::new(memory.clone(), seed),
            memory,
            inbox: MemoryInbox::default(),
            diary: Arc::default(),
            broker: None,
            checkpoints: MemoryCheckpoints::default(),
            clock: Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_795_000_000_000))),
            seed,
        }
    }

    /// A world with three processes in it.
    pub(crate) fn with_three(seed: u64) -> (Self, [Process; 3]) {
        let world = Self::new(seed);
        let processes = ["a", "b", "c"].map(|name| world.start(name));
        (world, processes)
    }

    /// As [`World::with_three`], with a broker.
    pub(crate) fn with_three_and_a_broker(seed: u64) -> (Self, [Process; 3]) {
        let world = Self { broker: Some(MemoryBroker::new(seed)), ..Self::new(seed) };
        let processes = ["a", "b", "c"].map(|name| world.start(name));
        (world, processes)
    }

    /// What is between the log and the subscriber in one process.
    fn bridge(&self, name: &str, log: Arc<dyn Log>, subscriber: &SubscriberHandle) -> Option<Child> {
        let broker: Arc<dyn Broker> = Arc::new(self.broker.clone()?);
        let checkpoints = Arc::new(self.checkpoints.of_process(name, LEASE));
        let ports = relay::Ports { log, checkpoints, broker: Arc::clone(&broker), clock: Arc::clone(&self.clock) };
        let (relay, _) = relay::child(ports, relay::Settings::default());
        let subscription = Subscription { subscriber: Tally::NAME, partitions: 1, prefetch: 32 };
        let consumer = consumer::child(broker, subscription, subscriber, consumer::Settings::default());
        let consumers = Supervisor::new(Strategy::OneForOne, Policy::default()).child(consumer);
        let bridge = Supervisor::new(Strategy::OneForOne, Policy::default()).child(relay);
        Some(Child::supervisor("bridge", bridge.child(Child::supervisor("consumer", consumers))))
    }

    pub(crate) fn start(&self, name: &'static str) -> Process {
        let seed = self.seed * 1_000 + u64::from(name.as_bytes()[0]);
        let fate = Fate::new(seed, Faults { delay_max: Duration::from_millis(3), ..Faults::default() });
        let client = self.set.client();
        let store = Arc::new(Faulty::new(Arc::new(client.clone()), Arc::clone(&fate)));
        let node = Node::root("docket", Arc::clone(&self.clock), Ledger::new(name), seed);

        let event_store: Arc<dyn EventStore> = store.clone();
        let snapshots: Arc<dyn Snapshots> = store.clone();
        let (journal, health) = JournalActor::new(Arc::clone(&event_store), journal::Limits::default());
        let (journal, address) = Child::actor("journal", "journal", move |ctx, _, _| journal.on(ctx));
        let limits = Limits { snapshot_every_events: 5, ..Limits::default() };
        let (journal_port, clock) = (address.recipient(), Arc::clone(&self.clock));
        let ports = Ports { store: event_store, snapshots, journal: journal_port, clock, rules: Rules::ORDER };
        let layout = Layout::new(ports, limits, Policy::default(), 1);
        let making = layout.clone();
        let (shard, address) = Child::actor("0", "shard", move |ctx, _, node| making.shard(ctx, node));

        let own = self.inbox.of_process(name, LEASE);
        let tally = Tally { process: name, inbox: own.clone(), diary: Arc::clone(&self.diary) };
        let inbox: Arc<dyn Inbox> = Arc::new(Faulty::new(Arc::new(own), Arc::clone(&fate)));
        let log: Arc<dyn Log> = store.clone();
        let source = match &self.broker {
            Some(_) => subscriber::Source::Broker,
            None => subscriber::Source::Log(Arc::clone(&log)),
        };
        let ports = subscriber::Ports { inbox, source, history: store, clock: Arc::clone(&self.clock) };
        let (child, tally) = subscriber::child(Registered::new(tally), ports, Settings::default());

        let supervise = |child| Supervisor::new(Strategy::OneForOne, Policy::default()).child(child);
        let mut root = Supervisor::new(Strategy::OneForOne, Policy::default())
            .child(journal)
            .child(Child::supervisor("orders", supervise(shard)))
            .child(Child::supervisor("subscribers", supervise(child)));
        if let Some(bridge) = self.bridge(name, log, &tally) {
            root = root.child(bridge);
        }
        let (set, ice) = (LocalSet::new(), Rc::<Ice>::default());
        let root = {
            let _inside = set.enter();
            root.start(&node)
        };
        let running = tokio::task::spawn_local(Running { set, ice: Rc::clone(&ice) });
        let orders = layout.door(vec![address]);
        let root = RefCell::new(Some(root));
        Process { name, orders, tally, client, fate, node, journal: health, ice, root, running }
    }

    /// The state that following everything in the log makes.
    fn fold(&self) -> (BTreeMap<String, u32>, BTreeMap<OrderId, Vec<u32>>) {
        let (mut counts, mut orders) = (BTreeMap::<String, u32>::new(), BTreeMap::<OrderId, Vec<u32>>::new());
        for commit in self.memory.commits() {
            for event in commit.envelopes() {
                *counts.entry(event.event_type.clone()).or_default() += 1;
                orders.entry(event.order).or_default().push(event.version.0);
            }
        }
        (counts, orders)
    }

    fn document<T: serde::de::DeserializeOwned + Default>(&self, collection: &'static str, id: String) -> T {
        let body = self.inbox.documents_now(&[DocumentKey { collection: collection.into(), id }]).remove(0);
        body.map(|body| serde_json::from_str(&body).unwrap()).unwrap_or_default()
    }

    /// Waits until whoever is active has handled and performed everything.
    pub(crate) async fn settle(&self, processes: &[Process]) {
        let last = self.memory.commits().last().map(|commit| commit.id());
        super::until("everything is handled and performed", || {
            processes.iter().any(|process| {
                let status = process.tally.status();
                status.position.as_ref().is_some_and(|position| position.commit == last)
                    && status.state == SubscriberState::Running
                    && (status.behind, status.lanes_held, status.effects_waiting) == (Some(0), Some(0), Some(0))
            })
        })
        .await;
    }

    /// The shared document and those of the orders are the fold of the log, each effect was performed, first in order, and
    /// none by a process that did not hold the lease.
    #[track_caller]
    pub(crate) fn check(&self) {
        let (counts, orders) = self.fold();
        assert_eq!(self.document::<BTreeMap<String, u32>>("counts", "all".to_owned()), counts);
        let performed = self.diary.performed.lock().unwrap();
        for (order, versions) in &orders {
            assert_eq!(*versions, (1..=u32::try_from(versions.len()).unwrap()).collect::<Vec<_>>(), "{order}: the log");
            assert_eq!(self.document::<Vec<u32>>("orders", order.to_string()), *versions, "{order}");
            let mut firsts: Vec<u32> = Vec::new();
            for (_, _, version) in performed.iter().filter(|(_, other, _)| other == order) {
                if !firsts.contains(&version.0) {
                    firsts.push(version.0);
                }
            }
            assert_eq!(firsts, *versions, "{order}: effects");
        }
        let without_lease = self.diary.without_lease.lock().unwrap();
        assert!(without_lease.is_empty(), "performed without the lease: {without_lease:?}");
    }

    /// The process at work, as the store has it.
    pub(crate) fn active<'a>(&self, processes: &'a [Process]) -> Option<&'a Process> {
        let holder = self.inbox.holder()?;
        processes.iter().find(|process| process.name == &*holder)
    }
}

impl Process {
    /// Nothing of it runs any more, until it is thawed. What it had asked of servers goes on there.
    pub(crate) fn freeze(&self) {
        self.ice.frozen.set(true);
    }

    pub(crate) fn thaw(&self) {
        self.ice.frozen.set(false);
        if let Some(waker) = self.ice.waker.take() {
            waker.wake();
        }
    }

    /// It ends as when it is asked to.
    pub(crate) async fn stop(&self) {
        let Some(root) = self.root.take() else { return };
        root.handle().end();
        root.await;
    }

    /// It is gone from one moment to the next.
    pub(crate) async fn kill(self) {
        self.running.abort();
        drop(self.running.await);
    }

    pub(crate) async fn command(&self, request: Request) -> Result<Answer, CommandError> {
        self.orders.command(request).await
    }

    /// As a patient caller: again, with the key, until the answer is final.
    pub(crate) async fn tell(&self, order: OrderId, key: &str, command: Command) -> Result<Answer, CommandError> {
        loop {
            match self.command(request(order, key, command.clone())).await {
                Err(CommandError::NotDone { .. } | CommandError::OutcomeUnknown | CommandError::KeyInProgress) => {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
                answer => return answer,
            }
        }
    }

    /// As a patient caller: again, until there is an answer.
    pub(crate) async fn get(&self, order: OrderId) -> Result<Arc<Order>, ReadError> {
        loop {
            match self.orders.get(order, At::Now).await {
                Err(ReadError::NotDone { .. }) => tokio::time::sleep(Duration::from_millis(300)).await,
                answer => return answer,
            }
        }
    }

    pub(crate) fn state(&self) -> SubscriberState {
        self.tally.status().state
    }
}

/// What keeps a process from running.
#[derive(Default)]
struct Ice {
    frozen: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

struct Running {
    set: LocalSet,
    ice: Rc<Ice>,
}

impl Future for Running {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.ice.frozen.get() {
            self.ice.waker.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        Pin::new(&mut self.set).poll(cx)
    }
}

pub(crate) fn request(order: OrderId, key: &str, command: Command) -> Request {
    let origin = Origin::anonymous(key.to_owned(), None);
    Request { order, command, if_match: None, key: Some(key.to_owned()), origin }
}

pub(crate) fn create() -> Command {
    let items = vec![Item { sku: "A-1".to_owned(), quantity: 2, unit_price: 4995 }];
    let (email, reference) = (None, None);
    Command::Create(Create { customer_id: "c-1".to_owned(), email, reference, currency: "EUR".to_owned(), items })
}

pub(crate) fn add_item(sku: String) -> Command {
    Command::AddItem(Item { sku, quantity: 1, unit_price: 100 })
}

/// An order's life.
pub(crate) fn life() -> [Command; 4] {
    [
        create(),
        Command::Pay { amount: 9990, reference: "p".to_owned() },
        Command::Ship { carrier: "DHL".to_owned(), tracking_number: "T-1".to_owned() },
        Command::Deliver,
    ]
}
