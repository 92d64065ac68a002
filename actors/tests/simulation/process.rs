//! One process: a whole docket of real actors, over ports that fail, on a line that can be cut.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actors::bridge::{consumer, relay};
use actors::broker::{Broker, Subscription};
use actors::event_store::EventStore;
use actors::history::History;
use actors::inbox::Inbox;
use actors::journal::actor::JournalActor;
use actors::log::Log;
use actors::order::Orders;
use actors::order::directory::{Layout, Ports};
use actors::order::stream::Rules;
use actors::snapshots::Snapshots;
use actors::subscriber::actor::{self as subscriber, SubscriberHandle};
use actors::subscriber::{Registered, Subscriber};
use actors::supervisor::{Child, Ledger, Node, Policy, Root, Strategy, Supervisor};
use actors::testing::faulty::Faulty;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::task::{JoinHandle, LocalSet};

use super::checked::{CheckedBroker, CheckedInbox};
use super::line::{Line, Strike, Way};
use super::stage::Tally;
use super::wired::Wired;
use super::world::{LEASE, World};

/// A process, from its start to its end.
pub(crate) struct Process {
    pub(crate) orders: Orders,
    pub(crate) tally: SubscriberHandle,
    pub(crate) node: Node,
    pub(crate) line: Arc<Line>,
    _root: Root,
    running: JoinHandle<()>,
}

impl Process {
    /// Starts one of that name, which is to be struck at these points.
    pub(crate) fn start(world: &World, name: String, strikes: Vec<(u32, Strike)>) -> Rc<Self> {
        world.book.note(|| format!("{name} starts; {strikes:?} await it"));
        let seed = world.draw(rand::RngExt::random);
        let line = Arc::new(Line::new(name.clone(), world.book.clone(), strikes));
        let replicas = world.plan.processes > 1;
        let node = Node::root("docket", Arc::clone(&world.clock), Ledger::new(&name), seed);

        let store = Faulty::new(Arc::new(world.memory.clone()), Arc::clone(&world.fate));
        let store = Wired::new(Arc::new(store), &line, !replicas);
        let event_store: Arc<dyn EventStore> = store.clone();
        let snapshots: Arc<dyn Snapshots> = store.clone();
        let (journal, _) = JournalActor::new(Arc::clone(&event_store), world.plan.journal.clone());
        let (journal, address) = Child::actor("journal", "journal", move |ctx, _, _| journal.on(ctx));

        let journal_port = address.recipient();
        let clock = Arc::clone(&world.clock);
        let ports = Ports { store: event_store, snapshots, journal: journal_port, clock, rules: Rules::ORDER };
        let layout = Layout::new(ports, world.plan.limits.clone(), Policy::default(), 1);
        let making = layout.clone();
        let (shard, address) = Child::actor("0", "shard", move |ctx, _, node| making.shard(ctx, node));

        let inner = if replicas { world.inbox.of_process(&name, LEASE) } else { world.inbox.clone() };
        let inbox = CheckedInbox::new(inner, Arc::clone(&world.stage), world.mutant);
        let inbox = Faulty::new(Arc::new(inbox), Arc::clone(&world.fate));
        let inbox: Arc<dyn Inbox> = Wired::inbox(Arc::new(inbox), &line, world.mutant);
        let says_reads = world.plan.says_reads;
        let tally = Tally { stage: Arc::clone(&world.stage), line: Arc::clone(&line), says_reads };
        let log: Arc<dyn Log> = store.clone();
        let history: Arc<dyn History> = store;
        let source = match world.plan.broker {
            true => subscriber::Source::Broker,
            false => subscriber::Source::Log(Arc::clone(&log)),
        };
        let ports = subscriber::Ports { inbox, source, history, clock: Arc::clone(&world.clock) };
        let (child, tally) = subscriber::child(Registered::new(tally), ports, world.plan.settings.clone());

        let supervise = |child| Supervisor::new(Strategy::OneForOne, Policy::default()).child(child);
        let mut root = Supervisor::new(Strategy::OneForOne, Policy::default())
            .child(journal)
            .child(Child::supervisor("orders", supervise(shard)))
            .child(Child::supervisor("subscribers", supervise(child)));
        if world.plan.broker {
            root = root.child(bridge(world, &name, &line, log, &tally));
        }
        let set = LocalSet::new();
        let root = {
            let _inside = set.enter();
            root.start(&node)
        };
        let running = tokio::task::spawn_local(Running { set, line: Arc::clone(&line), ice: None });
        let orders = layout.door(vec![address]);
        Rc::new(Self { orders, tally, node, line, _root: root, running })
    }

    /// It is gone: nothing of it runs any more.
    pub(crate) async fn bury(&self) {
        self.line.cut();
        self.running.abort();
        while !self.running.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    /// A part of it begins anew, as when it fails.
    pub(crate) fn restart(&self, path: &str) {
        if let Some(child) = self.node.find(path).and_then(|node| node.handle()) {
            child.restart();
        }
    }
}

/// What is between the log and the subscriber.
fn bridge(world: &World, name: &str, line: &Arc<Line>, log: Arc<dyn Log>, subscriber: &SubscriberHandle) -> Child {
    let broker = CheckedBroker { inner: world.broker.clone(), stage: Arc::clone(&world.stage) };
    let broker: Arc<dyn Broker> = Wired::new(Arc::new(broker), line, true);
    let checkpoints = Faulty::new(Arc::new(world.checkpoints.of_process(name, LEASE)), Arc::clone(&world.fate));
    let checkpoints = Wired::new(Arc::new(checkpoints), line, true);
    let ports = relay::Ports { log, checkpoints, broker: Arc::clone(&broker), clock: Arc::clone(&world.clock) };
    let settings = relay::Settings {
        publish_max: world.plan.publish_max,
        answer_within: Duration::from_millis(500),
        retry_max: Duration::from_millis(300),
    };
    let (relay, _) = relay::child(ports, settings);
    let subscription = Subscription { subscriber: Tally::NAME, partitions: 1, prefetch: world.plan.prefetch };
    let settings = consumer::Settings {
        answer_within: Duration::from_millis(500),
        retry_max: Duration::from_millis(300),
        look_every: Duration::from_millis(400),
        put_back_every: Duration::from_secs(60),
        mismatch_retry: Duration::from_millis(500),
    };
    let consumer = consumer::child(broker, subscription, subscriber, settings);
    let consumers = Supervisor::new(Strategy::OneForOne, Policy::default()).child(consumer);
    let bridge = Supervisor::new(Strategy::OneForOne, Policy::default()).child(relay);
    Child::supervisor("bridge", bridge.child(Child::supervisor("consumer", consumers)))
}

/// A process that runs unless it is frozen or gone.
struct Running {
    set: LocalSet,
    line: Arc<Line>,
    /// Until it may run again.
    ice: Option<LocalBoxFuture<'static, ()>>,
}

impl Future for Running {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(ice) = &mut self.ice {
                ready!(ice.poll_unpin(cx));
                self.ice = None;
            }
            match self.line.way() {
                Way::Open => {
                    ready!(Pin::new(&mut self.set).poll(cx));
                    return Poll::Ready(());
                }
                frozen @ Way::FrozenUntil(until) => {
                    let line = Arc::clone(&self.line);
                    self.ice = Some(
                        async move {
                            tokio::select! {
                                biased;
                                _ = line.changes(frozen) => {}
                                () = tokio::time::sleep_until(until) => line.thaw(frozen),
                            }
                        }
                        .boxed_local(),
                    );
                }
                Way::Cut => return Poll::Pending,
            }
        }
    }
}
