//! The door to all orders: finds an order's actor or starts it, bounds what may wait, and turns "no answer" into what is
//! known about it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, Context, Recipient};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::admission::{self, Admission, Answered, Place, RETRY_AFTER, not_done, not_read};
use super::error::{At, NotDone, Refusal};
use super::load::Loader;
pub use super::shard::Shard;
use super::shard::{Panics, ShardContext};
use super::stream::{self, Rules, Unreadable};
use super::work::{CommandWork, ReadWork, Work};
use super::{Command, CommandError, Order, OrderId, ReadError, Version};
use crate::clock::Clock;
use crate::commit::{Fingerprint, Key, KeyHash, Origin, StreamEnd};
use crate::event::Envelope;
use crate::event_store::{EventStore, StoreError};
use crate::journal::actor::{Append, MAILBOX_MAX};
use crate::mutant::Mutant;
use crate::snapshots::Snapshots;
use crate::supervisor::{Node, Policy};

/// The bounds of the orders of a process.
#[derive(Clone, Debug)]
pub struct Limits {
    /// An order's actor is let go after this time without work.
    pub passivate_after: Duration,
    /// Most live order actors; over it the longest idle are let go.
    pub live_max: usize,
    /// Most commands and reads that are under way or wait, in all.
    pub waiting_max: usize,
    /// The same for one order.
    pub waiting_per_order_max: usize,
    /// Most conflicts of a command or a read with other writers before its caller is told so.
    pub conflicts_max: u32,
    /// A snapshot is taken when the last one is that many events ago.
    pub snapshot_every_events: u32,
    /// Most orders that are read from the store at a time.
    pub loading_max: usize,
    /// The reading of an order that takes longer is a failure of its actor.
    pub stuck_after: Duration,
    /// A caller is answered within this time.
    pub answer_within: Duration,
    /// For the simulation alone.
    #[doc(hidden)]
    pub mutant: Option<Mutant>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            passivate_after: Duration::from_secs(120),
            live_max: 100_000,
            waiting_max: 10_000,
            waiting_per_order_max: 1_000,
            conflicts_max: 10,
            snapshot_every_events: 100,
            loading_max: 64,
            stuck_after: Duration::from_secs(30),
            answer_within: Duration::from_secs(10),
            mutant: None,
        }
    }
}

/// A command for one order, with what the caller promised and expects.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which order. For [`Command::Create`]: [`OrderId::of_creation`] when there is a key, else a generated one.
    pub order: OrderId,
    /// What to do.
    pub command: Command,
    /// The versions of `If-Match`; `None` without it, empty for `*`.
    pub if_match: Option<Vec<Version>>,
    /// The `Idempotency-Key`.
    pub key: Option<String>,
    /// Who asked, and in the course of what.
    pub origin: Origin,
}

impl Request {
    /// The taking over of an order of the older shape. Repeated with the same data it is answered as replayed; with
    /// other data it is refused as [`CommandError::KeyReused`].
    pub fn import(order: OrderId, command: Command, origin: Origin) -> Self {
        // No caller can send this as a key of its own: keys are visible ASCII.
        let key = Some("\0import".to_owned());
        Self { order, command, if_match: None, key, origin }
    }
}

/// A command's success.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The order as the command left it.
    pub order: Arc<Order>,
    /// Whether this is the answer of an earlier command with the same key.
    pub replayed: bool,
}

/// A page of an order's trail.
#[derive(Clone, Debug)]
pub struct Trail {
    /// The events, as stored.
    pub events: Vec<Envelope>,
    /// Where the next page begins, when there is one.
    pub next_after: Option<Version>,
}

/// What orders run on.
#[derive(Clone)]
pub struct Ports {
    /// The truth about every order.
    pub store: Arc<dyn EventStore>,
    /// Shortens the reading of long orders.
    pub snapshots: Arc<dyn Snapshots>,
    /// Writes their commits.
    pub journal: Recipient<Append>,
    /// Dates their events.
    pub clock: Arc<dyn Clock>,
    /// [`Rules::ORDER`].
    pub rules: Rules,
}

/// How the orders of a process are spread: a number of [`Shard`]s, each an actor of its own, and one door to them.
#[derive(Clone)]
pub struct Layout {
    ports: Ports,
    loader: Loader,
    limits: Limits,
    /// What follows when an order's actor fails.
    policy: Arc<Policy>,
    shards: usize,
}

impl Layout {
    /// Orders on `shards` shards, at least one.
    pub fn new(ports: Ports, limits: Limits, policy: Policy, shards: usize) -> Self {
        let loader = Loader {
            store: Arc::clone(&ports.store),
            snapshots: Arc::clone(&ports.snapshots),
            rules: ports.rules,
            permits: Arc::new(Semaphore::new(limits.loading_max)),
        };
        Self { ports, loader, limits, policy: Arc::new(policy), shards: shards.max(1) }
    }

    /// How many shards there are to start.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// One shard, about to start in `ctx` on its arbiter; its orders stand below `node` in the tree.
    pub fn shard(&self, ctx: &mut Context<Shard>, node: &Node) -> Shard {
        // The bound is the admission's.
        ctx.set_mailbox_capacity(MAILBOX_MAX);
        let context = ShardContext {
            loader: self.loader.clone(),
            journal: self.ports.journal.clone(),
            clock: Arc::clone(&self.ports.clock),
            rules: self.ports.rules,
            limits: self.limits.clone(),
            node: node.clone(),
            panics: RefCell::new(Panics::new()),
            useless: RefCell::default(),
        };
        let live_max = self.limits.live_max.div_ceil(self.shards);
        Shard::new(Rc::new(context), node.clone(), Arc::clone(&self.policy), live_max)
    }

    /// The door, once all shards are started.
    pub fn door(&self, shards: Vec<Addr<Shard>>) -> Orders {
        Orders {
            shards,
            node: Admission::new(self.limits.waiting_max),
            loader: self.loader.clone(),
            answer_within: self.limits.answer_within,
            conflicts_max: self.limits.conflicts_max,
        }
    }
}

/// A handle to the orders of this process. Cheap to clone.
#[derive(Clone)]
pub struct Orders {
    shards: Vec<Addr<Shard>>,
    node: Arc<Admission>,
    loader: Loader,
    answer_within: Duration,
    conflicts_max: u32,
}

impl Orders {
    /// How many commands and reads are under way or wait.
    pub fn under_way(&self) -> usize {
        self.node.taken()
    }

    /// Tells an order to do something. The answer rests on durable state only.
    ///
    /// Dropping the future does not withdraw the command.
    pub async fn command(&self, request: Request) -> Result<Answer, CommandError> {
        // Here already, so that what cannot be right starts no actor.
        let errors = request.command.validate();
        if !errors.is_empty() {
            return Err(Refusal::Invalid { errors }.into());
        }
        let place = self.node.enter().ok_or(not_done(NotDone::Overloaded))?;
        let order = request.order;
        let key = request
            .key
            .as_deref()
            .map(|key| Key { hash: KeyHash::of(key), fingerprint: Fingerprint::of(&request.command) });
        let (reply, answer) = admission::command_reply();
        let work = CommandWork { request, key, reply, places: [Some(place), None], overtaken: 0 };
        self.send(Work::Command(Box::new(work)));
        let answered = async {
            match answer.await {
                Err(_) => Err(CommandError::OutcomeUnknown),
                Ok(Err(error)) => Err(error),
                Ok(Ok(Answered::Done { order, replayed })) => Ok(Answer { order, replayed }),
                Ok(Ok(Answered::ReplayedAt(version))) => self.replayed(order, version).await,
            }
        };
        timeout(self.answer_within, answered).await.unwrap_or(Err(CommandError::OutcomeUnknown))
    }

    /// The order's state, present or earlier.
    pub async fn get(&self, order: OrderId, at: At) -> Result<Arc<Order>, ReadError> {
        let place = self.node.enter().ok_or(not_read(NotDone::Overloaded))?;
        match at {
            At::Now => self.present(order, place).await,
            At::Version(version) => self.at_version(order, version).await,
            At::Time(moment) => self.earlier(order, |event| event.recorded_at <= moment, |_| false).await,
        }
    }

    /// The order's events after `after`, at most `limit`. Readable also while the order is quarantined or ahead of this
    /// docket.
    pub async fn trail(&self, order: OrderId, after: Version, limit: usize) -> Result<Trail, ReadError> {
        let _place = self.node.enter().ok_or(not_read(NotDone::Overloaded))?;
        let mut events: Vec<Envelope> = Vec::new();
        let mut from = after.next();
        let mut looks = 0;
        loop {
            // One more than asked for tells whether there is a next page. A commit has at least one event.
            let page = self.loader.store.read(order, from, PAGE).await.map_err(|error| store_error(order, &error))?;
            let end = page.last().map_or(StreamEnd::nothing(order), |commit| commit.stored_end());
            let wanted = page.iter().flat_map(|commit| commit.envelopes()).filter(|event| event.version >= from);
            events.extend(wanted.take(limit + 1 - events.len()));
            // A page may be short before the end, too.
            if events.len() > limit {
                break;
            }
            if end.version() >= from {
                from = end.version().next();
            } else if self.ends_at(&end, &mut looks).await? {
                if end.version() == Version::NONE {
                    return Err(ReadError::NotFound);
                }
                break;
            }
        }
        let more = events.len() > limit;
        events.truncate(limit);
        let next_after = more.then(|| events.last().map_or(after, |event| event.version));
        Ok(Trail { events, next_after })
    }

    async fn present(&self, order: OrderId, place: Place) -> Result<Arc<Order>, ReadError> {
        let (reply, answer) = admission::read_reply();
        self.send(Work::Read(ReadWork { order, reply, places: [Some(place), None], overtaken: 0 }));
        match timeout(self.answer_within, answer).await {
            Err(_) | Ok(Err(_)) => Err(not_read(NotDone::StoreAway)),
            Ok(Ok(found)) => found,
        }
    }

    /// The answer that the first command with the key had. It has happened, so that it cannot be read now is not to be
    /// taken for "not done".
    async fn replayed(&self, order: OrderId, version: Version) -> Result<Answer, CommandError> {
        match self.at_version(order, version).await {
            Ok(order) => Ok(Answer { order, replayed: true }),
            // What is not found was written all the same: whoever was asked does not know it yet.
            Err(ReadError::NotDone { .. } | ReadError::NotFound) => Err(CommandError::OutcomeUnknown),
            Err(ReadError::Internal) => Err(CommandError::Internal),
        }
    }

    async fn at_version(&self, order: OrderId, version: Version) -> Result<Arc<Order>, ReadError> {
        let reached = |order: &Order| order.version == version;
        let found = self.earlier(order, |event| event.version <= version, reached).await?;
        reached(&found).then_some(found).ok_or(ReadError::NotFound)
    }

    /// Folds the stored events up to the first that is not wanted, or until it is enough.
    async fn earlier(
        &self,
        id: OrderId,
        wanted: impl Fn(&Envelope) -> bool,
        enough: impl Fn(&Order) -> bool,
    ) -> Result<Arc<Order>, ReadError> {
        let mut order: Option<Order> = None;
        let mut end = StreamEnd::nothing(id);
        let mut looks = 0;
        loop {
            let from = end.version().next();
            let page = self.loader.store.read(id, from, PAGE).await.map_err(|error| store_error(id, &error))?;
            for commit in page.iter().filter(|commit| commit.first() >= from) {
                for event in commit.envelopes() {
                    if !wanted(&event) || order.as_ref().is_some_and(&enough) {
                        return order.map(Arc::new).ok_or(ReadError::NotFound);
                    }
                    order =
                        Some(stream::fold(self.loader.rules, order, &event).map_err(|error| unreadable(id, &error))?);
                }
                end = commit.stored_end();
            }
            let through = end.version() < from && self.ends_at(&end, &mut looks).await?;
            if through || order.as_ref().is_some_and(&enough) {
                return order.map(Arc::new).ok_or(ReadError::NotFound);
            }
        }
    }

    /// Whether nothing newer is stored than what was read. What was read may be old where others write too; asked again and
    /// again, it is not read without end.
    async fn ends_at(&self, end: &StreamEnd, looks: &mut u32) -> Result<bool, ReadError> {
        if self.loader.store.sole_writer() {
            return Ok(true);
        }
        let order = end.order();
        let newest = self.loader.store.is_newest(end).await.map_err(|error| store_error(order, &error))?;
        *looks += 1;
        if !newest && *looks > self.conflicts_max { Err(not_read(NotDone::Contended)) } else { Ok(newest) }
    }

    fn send(&self, work: Work) {
        // The last bytes of an id are random or a hash.
        let bytes = work.order().as_uuid().into_bytes();
        let spread = u32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) as usize;
        let shard = &self.shards[spread % self.shards.len()];
        // What a shard cannot take comes back inside the error.
        if let Err(error) = shard.try_send(work) {
            error.into_inner().refuse(NotDone::Overloaded, RETRY_AFTER);
        }
    }
}

impl std::fmt::Debug for Orders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "orders on {} shards, {} under way", self.shards.len(), self.node.taken())
    }
}

/// Commits read at a time.
const PAGE: usize = 256;

fn store_error(order: OrderId, error: &StoreError) -> ReadError {
    match error {
        StoreError::Damaged(what) => {
            tracing::error!(order.id = %order, what, "the order cannot be read");
            not_read(NotDone::OrderQuarantined)
        }
        StoreError::Away(_) | StoreError::Full(_) => not_read(NotDone::StoreAway),
    }
}

fn unreadable(order: OrderId, error: &Unreadable) -> ReadError {
    tracing::warn!(order.id = %order, %error, "the order cannot be read");
    not_read(match error {
        Unreadable::SchemaAhead { .. } => NotDone::SchemaAhead,
        Unreadable::Poisonous { .. } => NotDone::OrderQuarantined,
    })
}
