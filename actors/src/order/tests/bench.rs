//! A process's orders on one arbiter, over a store whose failures are scripted.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::clock::{Timestamp, TokioClock};
use crate::commit::{Commit, CommitKey, Origin, Part, StoredEvent, StreamEnd};
use crate::event::EventId;
use crate::event_store::{Appended, EventStore, Group, StoreError};
use crate::journal::actor::JournalActor;
use crate::journal::{self, Health};
use crate::order::command::{Create, Item};
use crate::order::directory::{Answer, Layout, Limits, Ports, Request};
use crate::order::import::Import;
use crate::order::stream::Rules;
use crate::order::{Command, CommandError, OrderId, Orders, Version};
use crate::snapshots::{Snapshot, Snapshots};
use crate::supervisor::child::{self, ChildSpec, Handle};
use crate::supervisor::{Importance, Ledger, Node, Policy};

/// Runs on one arbiter with tokio's clock paused.
pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    actix_rt::System::with_tokio_rt(runtime).block_on(test);
}

type Script = Box<dyn Fn() -> Appended + Send>;

/// A store in memory that does as its script says.
pub(super) struct Store {
    commits: Mutex<BTreeMap<CommitKey, Arc<Commit>>>,
    pub(super) snapshots: Mutex<BTreeMap<OrderId, Snapshot>>,
    pub(super) groups: AtomicUsize,
    /// Whether nobody else writes, as far as it says.
    pub(super) sole_writer: AtomicBool,
    /// What the next groups are answered instead; what is unknown because the store is away is written all the same.
    script: Mutex<VecDeque<Script>>,
    held: watch::Sender<bool>,
    /// Most commits that a read gives, however many are asked for.
    pub(super) page_max: AtomicUsize,
    /// Nothing can be read, but that nothing is newer.
    pub(super) unreadable: AtomicBool,
    /// The next read or look for something newer never ends.
    pub(super) hang_next: AtomicBool,
    /// Snapshots that were begun to be saved.
    pub(super) saves: AtomicUsize,
    /// Saving a snapshot takes a while and panics.
    pub(super) panic_on_snapshot: AtomicBool,
    /// Somebody else is always a commit ahead of whoever looks.
    pub(super) outrun: AtomicBool,
}

impl Store {
    fn new() -> Self {
        Self {
            commits: Mutex::default(),
            snapshots: Mutex::default(),
            groups: AtomicUsize::new(0),
            sole_writer: AtomicBool::new(false),
            script: Mutex::default(),
            held: watch::Sender::new(false),
            page_max: AtomicUsize::new(usize::MAX),
            unreadable: AtomicBool::new(false),
            hang_next: AtomicBool::new(false),
            saves: AtomicUsize::new(0),
            panic_on_snapshot: AtomicBool::new(false),
            outrun: AtomicBool::new(false),
        }
    }

    /// Writes wait until [`Store::release`].
    pub(super) fn hold(&self) {
        self.held.send_replace(true);
    }

    pub(super) fn release(&self) {
        self.held.send_replace(false);
    }

    /// The next `groups` groups come to that; 0 ends it.
    pub(super) fn fail_next(&self, groups: usize, outcome: fn() -> Appended) {
        let mut script = self.script.lock().unwrap();
        script.clear();
        script.extend((0..groups).map(|_| Box::new(outcome) as Script));
    }

    /// The next group is not written, and nobody can tell.
    pub(super) fn lose_next(&self) {
        self.fail_next(1, || Appended::Unknown(StoreError::Full("lost on its way".to_owned())));
    }

    /// The next write panics.
    pub(super) fn panic_next(&self) {
        self.script.lock().unwrap().push_back(Box::new(|| panic!("a store with a bug")));
    }

    /// The order's first event cannot be read any more.
    pub(super) fn poison(&self, order: OrderId) {
        let mut commits = self.commits.lock().unwrap();
        let key = StreamEnd::nothing(order).next_key();
        let damaged = stored(&StreamEnd::nothing(order), "order.created", 2, r#"{"personal":7}"#);
        commits.insert(key, damaged);
    }

    /// The order has its first commit again, as it was written.
    pub(super) fn heal(&self, first: Arc<Commit>) {
        self.commits.lock().unwrap().insert(first.key(), first);
    }

    /// A commit lands that continues the order and that nobody waited for.
    pub(super) fn land(&self, order: OrderId) {
        let end = self.stored(order).last().expect("an order").stored_end();
        let line = r#"{"sku":"A-1","quantity":1,"unit_price":100}"#;
        self.commits.lock().unwrap().insert(end.next_key(), stored(&end, "order.item_added", 1, line));
    }

    /// The order gets an event that this docket does not know.
    pub(super) fn write_from_the_future(&self, order: OrderId) {
        let mut commits = self.commits.lock().unwrap();
        let end = commits.values().rfind(|commit| commit.order() == order).expect("an order").stored_end();
        commits.insert(end.next_key(), stored(&end, "order.gift_wrapped", 1, "{}"));
    }

    pub(super) fn stored(&self, order: OrderId) -> Vec<Arc<Commit>> {
        self.commits.lock().unwrap().values().filter(|commit| commit.order() == order).cloned().collect()
    }

    async fn hang(&self) {
        if self.hang_next.swap(false, Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    fn write(&self, commit: &Arc<Commit>) -> Appended {
        let mut commits = self.commits.lock().unwrap();
        match commits.get(&commit.key()) {
            Some(other) if other.id() != commit.id() => Appended::Conflict,
            Some(_) => Appended::Written,
            None => {
                commits.insert(commit.key(), Arc::clone(commit));
                Appended::Written
            }
        }
    }
}

fn stored(end: &StreamEnd, event_type: &str, schema_version: u32, data: &str) -> Arc<Commit> {
    let data = RawValue::from_string(data.to_owned()).unwrap();
    let event = StoredEvent { id: EventId::generate(), event_type: event_type.to_owned(), schema_version, data };
    let part = Part { key: None, origin: Origin::anonymous("c".to_owned(), None), events: vec![event] };
    Arc::new(Commit::new(end, Timestamp::EPOCH, vec![part]).unwrap())
}

#[async_trait]
impl EventStore for Store {
    async fn append(&self, group: Group) -> Vec<Appended> {
        self.groups.fetch_add(1, Ordering::SeqCst);
        let mut held = self.held.subscribe();
        held.wait_for(|held| !held).await.expect("the store is there");
        tokio::time::sleep(Duration::from_millis(1)).await;
        let script = self.script.lock().unwrap().pop_front();
        let scripted = script.map(|outcome| outcome());
        let outcome = |commit: &Arc<Commit>| match &scripted {
            None => self.write(commit),
            Some(Appended::Unknown(StoreError::Away(why))) => {
                self.write(commit);
                Appended::Unknown(StoreError::Away(why.clone()))
            }
            Some(other) => other.clone(),
        };
        group.commits().iter().map(outcome).collect()
    }

    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.hang().await;
        if self.unreadable.load(Ordering::SeqCst) {
            return Err(StoreError::Away("scripted".to_owned()));
        }
        let stored = self.stored(order);
        let first = stored.iter().rposition(|commit| commit.first() <= from).unwrap_or(0);
        let most = limit.min(self.page_max.load(Ordering::SeqCst));
        Ok(stored.into_iter().skip(first).take(most).collect())
    }

    async fn is_newest(&self, end: &StreamEnd) -> Result<bool, StoreError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.hang().await;
        let outrun = self.outrun.load(Ordering::SeqCst);
        Ok(!outrun && !self.commits.lock().unwrap().contains_key(&end.next_key()))
    }

    fn sole_writer(&self) -> bool {
        self.sole_writer.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Snapshots for Store {
    async fn load(&self, order: OrderId) -> Result<Option<Snapshot>, StoreError> {
        Ok(self.snapshots.lock().unwrap().get(&order).cloned())
    }

    async fn save(&self, snapshot: Snapshot) -> Result<(), StoreError> {
        self.saves.fetch_add(1, Ordering::SeqCst);
        self.hang().await;
        if self.panic_on_snapshot.swap(false, Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            panic!("snapshots with a bug");
        }
        self.snapshots.lock().unwrap().insert(snapshot.end.order(), snapshot);
        Ok(())
    }
}

pub(super) struct Bench {
    pub(super) orders: Orders,
    pub(super) store: Arc<Store>,
    pub(super) ledger: Ledger,
    pub(super) health: watch::Receiver<Health>,
    pub(super) shard_handle: Handle,
    shard: Node,
}

/// Orders as they are, with a snapshot every ten events.
pub(super) async fn bench() -> Bench {
    Bench::start(Rules::ORDER, |_| {}).await
}

impl Bench {
    pub(super) async fn start(rules: Rules, change: impl FnOnce(&mut Limits)) -> Self {
        Self::on(Arc::new(Store::new()), rules, change).await
    }

    /// Another process on the same store.
    pub(super) async fn another_node(&self) -> Self {
        Self::on(Arc::clone(&self.store), Rules::ORDER, |_| {}).await
    }

    async fn on(store: Arc<Store>, rules: Rules, change: impl FnOnce(&mut Limits)) -> Self {
        let clock = Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_795_000_000_000)));
        let ledger = Ledger::new("test");
        let root = Node::root("docket", clock.clone(), ledger.clone(), 1);
        let shard = root.child("shard", "shard", Importance::Essential);
        let policy = Arc::new(Policy::default());

        let (journal, health) = JournalActor::new(store.clone(), journal::Limits::default());
        let spec = ChildSpec::isolated(&root, "journal", "journal", Arc::clone(&policy));
        let (journal, _) = child::start(spec, |ctx, _| journal.on(ctx));

        let mut limits = Limits { snapshot_every_events: 10, ..Limits::default() };
        change(&mut limits);
        let ports =
            Ports { store: store.clone(), snapshots: store.clone(), journal: journal.recipient(), clock, rules };
        let layout = Layout::new(ports, limits, Policy::default(), 1);
        let spec = ChildSpec::isolated(&root, "0", "shard", policy);
        let (address, shard_handle) = child::start(spec, |ctx, _| layout.shard(ctx, &shard));
        Self { orders: layout.door(vec![address]), store, ledger, health, shard_handle, shard }
    }

    pub(super) fn request(&self, order: OrderId, command: Command) -> Request {
        let origin = Origin::anonymous("c".to_owned(), None);
        Request { order, command, if_match: None, key: None, origin }
    }

    pub(super) fn creation(&self, customer: &str, key: &str) -> Request {
        let mut command = create("EUR", 100);
        if let Command::Create(create) = &mut command {
            customer.clone_into(&mut create.customer_id);
        }
        self.request(OrderId::of_creation(customer, key), command).key(key)
    }

    pub(super) async fn send(&self, request: Request) -> Result<Answer, CommandError> {
        self.orders.command(request).await
    }

    pub(super) async fn tell(&self, order: OrderId, command: Command) -> Result<Answer, CommandError> {
        self.send(self.request(order, command)).await
    }

    pub(super) async fn place(&self) -> OrderId {
        let id = OrderId::generate();
        self.tell(id, create("EUR", 100)).await.unwrap();
        id
    }

    pub(super) async fn import(&self, line: &str) -> Result<Answer, CommandError> {
        let (order, command) = Import::parse(line).unwrap();
        self.send(Request::import(order, command, Origin::anonymous("c".to_owned(), None))).await
    }

    pub(super) fn live(&self) -> u64 {
        self.shard.view().live.unwrap_or(0)
    }

    pub(super) async fn wait_for_live(&self, most: u64) {
        for _ in 0..1000 {
            if self.live() <= most {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} orders are live, not {most}", self.live());
    }

    /// Lets time pass until no order is live.
    pub(super) async fn let_go(&self) {
        tokio::time::sleep(Duration::from_secs(600)).await;
        self.wait_for_live(0).await;
    }

    /// The order has `events` events, numbered without gap, each once.
    pub(super) async fn check_stored(&self, order: OrderId, events: u32) {
        let stored = self.store.stored(order);
        let versions: Vec<u32> = stored.iter().flat_map(|c| c.envelopes()).map(|event| event.version.0).collect();
        assert_eq!(versions, (1..=events).collect::<Vec<_>>());
    }
}

impl Request {
    pub(super) fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    pub(super) fn if_match(mut self, version: u32) -> Self {
        self.if_match = Some(vec![Version(version)]);
        self
    }
}

pub(super) fn create(currency: &str, unit_price: i64) -> Command {
    let item = Item { sku: "A-1".to_owned(), quantity: 1, unit_price };
    Command::Create(Create {
        customer_id: "c-1".to_owned(),
        email: None,
        reference: None,
        currency: currency.to_owned(),
        items: vec![item],
    })
}

pub(super) fn add_item() -> Command {
    Command::AddItem(Item { sku: "A-1".to_owned(), quantity: 1, unit_price: 100 })
}

pub(super) fn pay(amount: i64) -> Command {
    Command::Pay { amount, reference: "p".to_owned() }
}
