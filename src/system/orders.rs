//! The order part: the order service's store, the journal, the shards, and the door to them.

use std::sync::Arc;

use actix::Addr;
use actix_rt::ArbiterHandle;
use actors::clock::Clock;
use actors::event_store::EventStore;
use actors::journal::actor::JournalActor;
use actors::journal::{self, Health};
use actors::order::Orders;
use actors::order::directory::{self, Layout, Ports, Shard};
use actors::order::stream::Rules;
use actors::supervisor::{Child, Strategy, Supervisor};
use tokio::sync::watch;

use super::policy;
use super::storage::OrderStore;
use super::threads::Threads;
use crate::config::{Config, millis};

/// The order part of a process.
pub(super) struct OrderPart {
    /// Who watches over the store; the journal; the shards. Each needs the one before.
    pub(super) children: [Child; 3],
    /// The door to all orders.
    pub(super) door: Arc<Orders>,
    /// What the journal says of the store.
    pub(super) health: watch::Receiver<Health>,
    /// The journal's, and one a shard.
    pub(super) threads: Threads,
}

impl OrderPart {
    /// On that store. What is configured as 0 is what the machine gives.
    pub(super) fn new(config: &Config, store: &dyn OrderStore, clock: Arc<dyn Clock>) -> Self {
        let ports = store.ports();
        let mut threads = Threads::default();
        let (journal, journal_address, health) = journal_child(config, &ports.events, &threads.start());
        let ports = Ports {
            store: ports.events,
            snapshots: ports.snapshots,
            journal: journal_address.recipient(),
            clock,
            rules: Rules::ORDER,
        };
        let shards = match config.orders.shards {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            shards => shards as usize,
        };
        let shards: Vec<ArbiterHandle> = (0..shards).map(|_| threads.start()).collect();
        let (shards, door) = orders_child(config, ports, &shards);
        Self { children: [store.child(), journal, shards], door: Arc::new(door), health, threads }
    }
}

fn journal_child(
    config: &Config,
    store: &Arc<dyn EventStore>,
    thread: &ArbiterHandle,
) -> (Child, Addr<JournalActor>, watch::Receiver<Health>) {
    let limits = journal::Limits {
        group_commits_max: config.journal.group_commits_max as usize,
        group_bytes_max: usize::try_from(config.journal.group_bytes_max).unwrap_or(usize::MAX),
        waiting_max: config.journal.waiting_commits_max as usize,
        wait_max: millis(config.journal.wait_max_ms),
        write_max: millis(config.journal.write_max_ms),
        away_first: millis(config.journal.retry_first_ms),
        away_max: millis(config.journal.retry_max_ms),
    };
    let (journal, health) = JournalActor::new(Arc::clone(store), limits);
    let (child, address) = Child::actor("journal", "journal", move |ctx, _, node| journal.shown_at(node).on(ctx));
    (child.on(thread.clone()), address, health)
}

/// The shards, one a thread, and the door to them.
fn orders_child(config: &Config, ports: Ports, threads: &[ArbiterHandle]) -> (Child, Orders) {
    let limits = directory::Limits {
        passivate_after: millis(config.orders.passivate_after_ms),
        live_max: config.orders.live_max as usize,
        waiting_max: config.orders.waiting_max as usize,
        waiting_per_order_max: config.orders.waiting_per_order_max as usize,
        conflicts_max: config.orders.conflicts_max,
        snapshot_every_events: config.orders.snapshot_every_events,
        loading_max: config.orders.loading_max as usize,
        stuck_after: millis(config.supervisor.stuck_after_ms),
        answer_within: millis(config.http.answer_timeout_ms),
        mutant: None,
    };
    let layout = Layout::new(ports, limits, policy(config), threads.len());
    let mut shards = Supervisor::new(Strategy::OneForOne, policy(config));
    let mut addresses: Vec<Addr<Shard>> = Vec::new();
    for (number, thread) in threads.iter().enumerate() {
        let layout = layout.clone();
        let (shard, address) = Child::actor(&number.to_string(), "shard", move |ctx, _, node| layout.shard(ctx, node));
        shards = shards.child(shard.on(thread.clone()));
        addresses.push(address);
    }
    (Child::supervisor("orders", shards), layout.door(addresses))
}
