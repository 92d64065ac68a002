//! The processes, what they share, and what must hold of it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use actors::bridge::relay::{self, Ports, RelayHandle, RelayState, Settings};
use actors::checkpoint::{Begun, Checkpoint, CheckpointError, Checkpoints};
use actors::clock::{Clock, Timestamp, TokioClock};
use actors::commit::{Commit, CommitId, CommitKey, StreamEnd};
use actors::event::EventId;
use actors::event_store::{Appended, EventStore, StoreError};
use actors::inbox::Term;
use actors::log::{Follow, From, Log, LogError, Position};
use actors::order::{OrderId, Version};
use actors::supervisor::ledger::Entry;
use actors::supervisor::{Ledger, Node, Policy, Root, Strategy, Supervisor};
use actors::testing::broker::MemoryBroker;
use actors::testing::checkpoints::MemoryCheckpoints;
use actors::testing::commits::{commit, group};
use actors::testing::faulty::{Fate, Faults, Faulty};
use actors::testing::memory::Memory;
use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet};

/// How long a lease is.
pub(crate) const LEASE: Duration = Duration::from_secs(5);

/// What the processes share.
pub(crate) struct World {
    pub(crate) memory: Memory,
    pub(crate) broker: MemoryBroker,
    pub(crate) checkpoints: MemoryCheckpoints,
    ends: Mutex<BTreeMap<u32, StreamEnd>>,
    /// So many commits need not be published.
    exempt: Arc<Mutex<usize>>,
    /// Checkpoints that lay beyond what was taken.
    ahead: Arc<Mutex<Vec<Checkpoint>>>,
    clock: Arc<dyn Clock>,
    seed: u64,
}

/// One of them.
pub(crate) struct Process {
    pub(crate) name: &'static str,
    pub(crate) relay: RelayHandle,
    pub(crate) fate: Arc<Fate>,
    ledger: Ledger,
    ice: Rc<Ice>,
    root: RefCell<Option<Root>>,
    running: JoinHandle<()>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            memory: Memory::new(),
            broker: MemoryBroker::new(seed),
            checkpoints: MemoryCheckpoints::default(),
            ends: Mutex::default(),
            exempt: Arc::default(),
            ahead: Arc::default(),
            clock: Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_795_000_000_000))),
            seed,
        }
    }

    /// One more commit of that order.
    pub(crate) fn write(&self, order: u32) -> CommitId {
        let mut ends = self.ends.lock().unwrap();
        let end = ends.entry(order).or_insert_with(|| StreamEnd::nothing(OrderId::generate()));
        let next = commit(end, 1);
        let written = self.memory.append(group([Arc::clone(&next)])).now_or_never().unwrap();
        assert!(matches!(written[..], [Appended::Written]));
        *end = next.stored_end();
        next.id()
    }

    /// As if a relay had been there when there was no commit.
    pub(crate) async fn store_the_beginning(&self) {
        let position = self.memory.follow(From::Now).await.unwrap().position();
        self.checkpoints.replace(Some(Checkpoint { position, recorded_at: self.clock.now() }));
    }

    /// So many commits at the beginning of the log need not be published.
    pub(crate) fn unpublished(&self, commits: usize) {
        *self.exempt.lock().unwrap() = commits;
    }

    pub(crate) fn start(&self, name: &'static str) -> Process {
        self.launch(name, Arc::new(self.memory.clone()), usize::MAX)
    }

    pub(crate) fn start_on(&self, name: &'static str, log: Arc<dyn Log>) -> Process {
        self.launch(name, log, usize::MAX)
    }

    /// One that is killed when it has been polled so often.
    pub(crate) fn start_for(&self, name: &'static str, polls: u64) -> Process {
        self.launch(name, Arc::new(self.memory.clone()), usize::try_from(polls).unwrap())
    }

    fn launch(&self, name: &'static str, log: Arc<dyn Log>, polls: usize) -> Process {
        let seed = self.seed * 1_000 + u64::from(name.as_bytes()[0]);
        let fate = Fate::new(seed, Faults::default());
        let watched = Watched {
            inner: self.checkpoints.of_process(name, LEASE),
            memory: self.memory.clone(),
            broker: self.broker.clone(),
            exempt: Arc::clone(&self.exempt),
            ahead: Arc::clone(&self.ahead),
        };
        let ports = Ports {
            log: Arc::new(Faulty::new(log, Arc::clone(&fate))),
            checkpoints: Arc::new(Faulty::new(Arc::new(watched), Arc::clone(&fate))),
            broker: Arc::new(self.broker.clone()),
            clock: Arc::clone(&self.clock),
        };
        let ledger = Ledger::new(name);
        let node = Node::root("docket", Arc::clone(&self.clock), ledger.clone(), seed);
        let (child, relay) = relay::child(ports, Settings { publish_max: 16, ..Settings::default() });
        let root = Supervisor::new(Strategy::OneForOne, Policy::default()).child(child);
        let (set, ice) = (LocalSet::new(), Rc::<Ice>::default());
        let root = {
            let _inside = set.enter();
            root.start(&node)
        };
        let running = tokio::task::spawn_local(Running { set, ice: Rc::clone(&ice), polls });
        Process { name, relay, fate, ledger, ice, root: RefCell::new(Some(root)), running }
    }

    /// How many commits lie before the last checkpoint that was stored.
    pub(crate) fn last_stored(&self) -> usize {
        self.checkpoints.stored().last().map_or(0, |last| last.position.token.parse().unwrap())
    }

    pub(crate) fn last_stored_is_there(&self) -> bool {
        !self.checkpoints.stored().is_empty()
    }

    /// Waits until the broker has taken every event behind the first so many commits.
    pub(crate) async fn all_published_since(&self, first: usize) {
        let events = events(&self.memory.commits()[first..]);
        super::until("everything is published", || {
            let taken: HashSet<EventId> = self.broker.taken().iter().map(|message| message.id).collect();
            events.iter().all(|(event, ..)| taken.contains(event))
        })
        .await;
    }

    /// The events of an order were first handed over in order, none is missing between two, and no checkpoint was ahead.
    #[track_caller]
    pub(crate) fn check(&self) {
        let versions: BTreeMap<Vec<u8>, (OrderId, Version)> = events(&self.memory.commits())
            .into_iter()
            .map(|(event, order, version)| (event.0.as_bytes().to_vec(), (order, version)))
            .collect();
        let mut firsts: BTreeMap<OrderId, Vec<u32>> = BTreeMap::new();
        for message in self.broker.handed() {
            let (order, version) = versions[message.id.0.as_bytes().as_slice()];
            let firsts = firsts.entry(order).or_default();
            if !firsts.contains(&version.0) {
                firsts.push(version.0);
            }
        }
        for (order, firsts) in firsts {
            let in_order: Vec<u32> = (firsts[0]..).take(firsts.len()).collect();
            assert_eq!(firsts, in_order, "seed {}: {order}", self.seed);
        }
        let ahead = self.ahead.lock().unwrap();
        assert!(ahead.is_empty(), "seed {}: stored before they were taken: {ahead:?}", self.seed);
    }
}

fn events(commits: &[Arc<Commit>]) -> Vec<(EventId, OrderId, Version)> {
    let envelopes = commits.iter().flat_map(|commit| commit.envelopes());
    envelopes.map(|envelope| (envelope.id, envelope.order, envelope.version)).collect()
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
        self.thaw();
        let Some(root) = self.root.take() else { return };
        root.handle().end();
        root.await;
    }

    /// It is gone from one moment to the next.
    pub(crate) async fn kill(self) {
        self.running.abort();
        drop(self.running.await);
    }

    /// Waits until it has been killed.
    pub(crate) async fn ended(self) {
        self.running.await.unwrap();
    }

    pub(crate) fn state(&self) -> RelayState {
        self.relay.status().state
    }

    /// How often it failed: the ledger does not keep each repetition of what is tried for ever, but counts it.
    pub(crate) fn failed_times(&self) -> u64 {
        self.ledger.counts().iter().map(|count| count.count).sum()
    }

    pub(crate) fn failures(&self) -> Vec<Arc<Entry>> {
        self.ledger.last(1_000)
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
    polls: usize,
}

impl Future for Running {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.ice.frozen.get() {
            self.ice.waker.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        let Some(polls) = self.polls.checked_sub(1) else { return Poll::Ready(()) };
        self.polls = polls;
        Pin::new(&mut self.set).poll(cx)
    }
}

/// Checkpoints that are compared with what the broker has taken when they are stored.
struct Watched {
    inner: MemoryCheckpoints,
    memory: Memory,
    broker: MemoryBroker,
    exempt: Arc<Mutex<usize>>,
    ahead: Arc<Mutex<Vec<Checkpoint>>>,
}

impl Watched {
    fn look(&self, checkpoint: &Checkpoint) {
        let Ok(before) = checkpoint.position.token.parse::<usize>() else { return };
        let exempt = *self.exempt.lock().unwrap();
        let commits = self.memory.commits();
        let taken: HashSet<EventId> = self.broker.taken().iter().map(|message| message.id).collect();
        let behind = commits.get(exempt..before).unwrap_or_default();
        if !events(behind).iter().all(|(event, ..)| taken.contains(event)) {
            self.ahead.lock().unwrap().push(checkpoint.clone());
        }
    }
}

#[async_trait]
impl Checkpoints for Watched {
    async fn begin(&self) -> Result<Begun, CheckpointError> {
        self.inner.begin().await
    }

    async fn save(&self, term: Term, checkpoint: Option<Checkpoint>) -> Result<bool, CheckpointError> {
        let saved = self.inner.save(term, checkpoint.clone()).await?;
        if let (true, Some(checkpoint)) = (saved, &checkpoint) {
            self.look(checkpoint);
        }
        Ok(saved)
    }

    async fn release(&self, term: Term) -> Result<(), CheckpointError> {
        self.inner.release(term).await
    }
}

/// A log whose place can move without a commit.
pub(crate) struct Moving {
    memory: Memory,
    moved: watch::Sender<bool>,
}

impl Moving {
    pub(crate) fn new(memory: Memory) -> Self {
        Self { memory, moved: watch::Sender::new(false) }
    }

    pub(crate) fn move_on(&self) {
        self.moved.send_replace(true);
    }
}

struct MovingFollow {
    inner: Box<dyn Follow>,
    moved: watch::Receiver<bool>,
    said: bool,
}

#[async_trait]
impl Log for Moving {
    async fn follow(&self, from: From) -> Result<Box<dyn Follow>, LogError> {
        let inner = self.memory.follow(from).await?;
        Ok(Box::new(MovingFollow { inner, moved: self.moved.subscribe(), said: false }))
    }

    async fn scan(&self, after: Option<CommitKey>, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        self.memory.scan(after, limit).await
    }

    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        Log::read(&self.memory, order, from, limit).await
    }
}

#[async_trait]
impl Follow for MovingFollow {
    async fn next(&mut self, max: usize) -> Result<Vec<Arc<Commit>>, LogError> {
        if !self.said {
            self.moved.wait_for(|moved| *moved).await.expect("the log is there");
            self.said = true;
            return Ok(Vec::new());
        }
        self.inner.next(max).await
    }

    fn position(&self) -> Position {
        let position = self.inner.position();
        if self.said { Position { token: "moved".to_owned(), ..position } } else { position }
    }
}
