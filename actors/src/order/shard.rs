//! A shard: the actor that owns the order actors of one arbiter. It starts an order's actor when the order is first asked
//! something, routes to it, and lets it go when it was idle for long enough or too many are live.

use std::cell::RefCell;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use lru::LruCache;
use tokio::time::Instant;

use super::OrderId;
use super::actor::{OrderActor, Retire};
use super::admission::{Admission, RETRY_AFTER};
use super::directory::Limits;
use super::error::NotDone;
use super::load::Loader;
use super::stream::Rules;
use super::work::Work;
use crate::clock::Clock;
use crate::commit::Fingerprint;
use crate::journal::actor::{Append, MAILBOX_MAX};
use crate::supervisor::child::{self, ChildSpec, Event, Quarantine};
use crate::supervisor::policy::Policy;
use crate::supervisor::tree::Node;

/// What the order actors of a shard share.
pub(super) struct ShardContext {
    pub(super) loader: Loader,
    pub(super) journal: Recipient<Append>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) rules: Rules,
    pub(super) limits: Limits,
    /// The shard's place in the tree.
    pub(super) node: Node,
    pub(super) panics: RefCell<Panics>,
    /// Actors of orders that turned out not to exist: to be let go before any other.
    pub(super) useless: RefCell<Vec<OrderId>>,
}

/// How often commands panicked, order by order: bounded, the longest unseen orders are forgotten.
pub(super) struct Panics(LruCache<OrderId, Vec<(Fingerprint, u32)>>);

/// Commands that are remembered of an order.
const PANICS_OF_AN_ORDER_MAX: usize = 16;

impl Panics {
    pub(super) fn new() -> Self {
        const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
        Self(LruCache::new(REMEMBERED))
    }

    /// One more; how often it is now.
    pub(super) fn count(&mut self, order: OrderId, command: Fingerprint) -> u32 {
        let panicked = self.0.get_or_insert_mut(order, Vec::new);
        if let Some((_, times)) = panicked.iter_mut().find(|(known, _)| *known == command) {
            *times = times.saturating_add(1);
            return *times;
        }
        if panicked.len() == PANICS_OF_AN_ORDER_MAX {
            panicked.remove(0);
        }
        panicked.push((command, 1));
        1
    }

    /// How often that command panicked before. The fingerprint is made only when there is something to compare.
    pub(super) fn times(&mut self, order: OrderId, command: impl FnOnce() -> Fingerprint) -> u32 {
        let Some(panicked) = self.0.get(&order) else { return 0 };
        let command = command();
        panicked.iter().find(|(known, _)| *known == command).map_or(0, |(_, times)| *times)
    }
}

/// The shard's actor. Essential: its part of the orders can be reached through it alone.
pub struct Shard {
    context: Rc<ShardContext>,
    node: Node,
    policy: Arc<Policy>,
    live_max: usize,
    live: LruCache<OrderId, Entry>,
    leaving: HashMap<OrderId, Leaving>,
    quarantined: LruCache<OrderId, Quarantine>,
}

struct Entry {
    actor: Addr<OrderActor>,
    used: Instant,
    places: Arc<Admission>,
}

/// An order whose actor was asked to end. What arrives meanwhile is held.
struct Leaving {
    entry: Entry,
    held: Vec<Work>,
}

/// What became of an order's actor.
#[derive(Message)]
#[rtype(result = "()")]
struct News {
    order: OrderId,
    event: Event,
}

impl Shard {
    /// A shard that keeps at most `live_max` order actors, below `node`.
    pub(super) fn new(context: Rc<ShardContext>, node: Node, policy: Arc<Policy>, live_max: usize) -> Self {
        const QUARANTINED_MAX: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
        Self {
            context,
            node,
            policy,
            live_max: live_max.max(1),
            live: LruCache::unbounded(),
            leaving: HashMap::new(),
            quarantined: LruCache::new(QUARANTINED_MAX),
        }
    }

    fn route(&mut self, mut work: Work, ctx: &mut Context<Self>) {
        let order = work.order();
        if let Some(quarantine) = self.quarantined.peek(&order)
            && !quarantine.is_over()
        {
            return work.refuse(NotDone::OrderQuarantined, quarantine.remaining().max(RETRY_AFTER));
        }
        if work.panics_before(&mut self.context.panics.borrow_mut()) > 1 {
            return work.refuse_for_good();
        }
        if let Some(leaving) = self.leaving.get_mut(&order) {
            let Some(place) = leaving.entry.places.enter() else {
                return work.refuse(NotDone::Overloaded, RETRY_AFTER);
            };
            work.hold(place);
            leaving.held.push(work);
            return;
        }
        if !self.live.contains(&order) {
            self.start(order, ctx);
        }
        let Some(entry) = self.live.get_mut(&order) else { return };
        entry.used = Instant::now();
        let Some(place) = entry.places.enter() else { return work.refuse(NotDone::Overloaded, RETRY_AFTER) };
        work.hold(place);
        // The mailbox has room for all that is admitted; what meets a closed one answers by itself.
        drop(entry.actor.try_send(work));
    }

    fn start(&mut self, order: OrderId, ctx: &mut Context<Self>) {
        let shard = ctx.address();
        let mut spec = ChildSpec::isolated(&self.node, &order.to_string(), "order", Arc::clone(&self.policy))
            .limits(child::Limits { stuck_after: Some(self.context.limits.stuck_after), ..child::Limits::default() })
            .ending_in_quarantine()
            .on_event(move |event| drop(shard.try_send(News { order, event })));
        let quarantine = self.quarantined.pop(&order);
        let failed_before = quarantine.is_some();
        if let Some(quarantine) = quarantine {
            spec = spec.after(quarantine);
        }
        let context = Rc::clone(&self.context);
        let (actor, _) = child::start(spec, |ctx, handle| {
            ctx.set_mailbox_capacity(MAILBOX_MAX);
            OrderActor::new(order, context, handle.clone(), failed_before)
        });
        let places = Admission::new(self.context.limits.waiting_per_order_max);
        self.live.put(order, Entry { actor, used: Instant::now(), places });
        self.shed(ctx);
    }

    /// Lets go of those that were idle the longest while too many are live. Who is busy comes back, and is asked again by
    /// the next sweep.
    fn shed(&mut self, ctx: &mut Context<Self>) {
        while self.live.len() > self.live_max
            && let Some((order, entry)) = self.live.pop_lru()
        {
            self.retire(order, entry, ctx);
        }
    }

    fn retire(&mut self, order: OrderId, entry: Entry, ctx: &mut Context<Self>) {
        self.ask_to_end(order, Leaving { entry, held: Vec::new() }, ctx);
    }

    /// Nothing is sent to the order's actor until it has answered.
    fn ask_to_end(&mut self, order: OrderId, leaving: Leaving, ctx: &mut Context<Self>) {
        let asked = leaving.entry.actor.send(Retire);
        self.leaving.insert(order, leaving);
        ctx.spawn(asked.into_actor(self).map(move |ends, shard, _| {
            // Closed: it has ended by itself, and its news are on their way.
            if ends.unwrap_or(true) {
                return;
            }
            if let Some(Leaving { entry, held }) = shard.leaving.remove(&order) {
                shard.live.put(order, entry);
                held.into_iter().for_each(|work| shard.forward(order, work));
            }
        }));
    }

    /// On to the actor, its place taken already.
    fn forward(&mut self, order: OrderId, work: Work) {
        if let Some(entry) = self.live.get(&order) {
            drop(entry.actor.try_send(work));
        }
    }

    /// Lets go of what was idle for long, of what is too many, and of what turned out not to exist.
    fn sweep(&mut self, ctx: &mut Context<Self>) {
        self.shed(ctx);
        let useless = std::mem::take(&mut *self.context.useless.borrow_mut());
        for order in useless {
            if let Some(entry) = self.live.pop(&order) {
                self.retire(order, entry, ctx);
            }
        }
        while self.live.peek_lru().is_some_and(|(_, entry)| entry.used.elapsed() >= self.context.limits.passivate_after)
            && let Some((order, entry)) = self.live.pop_lru()
        {
            self.retire(order, entry, ctx);
        }
    }

    fn gone(&mut self, order: OrderId, ctx: &mut Context<Self>) {
        self.live.pop(&order);
        let held = self.leaving.remove(&order).map(|leaving| leaving.held).unwrap_or_default();
        if held.is_empty() {
            return;
        }
        self.start(order, ctx);
        held.into_iter().for_each(|work| self.forward(order, work));
    }
}

impl Actor for Shard {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let sweep_every = (self.context.limits.passivate_after / 4).clamp(Duration::from_millis(10), SWEEP_MAX);
        ctx.run_interval(sweep_every, |shard, ctx| shard.sweep(ctx));
    }
}

/// What turned out not to exist is let go within this time.
const SWEEP_MAX: Duration = Duration::from_secs(1);

impl Supervised for Shard {
    fn restarting(&mut self, ctx: &mut Self::Context) {
        // A restart drops what waited for the answers of those who leave.
        let leaving: Vec<_> = self.leaving.drain().collect();
        for (order, leaving) in leaving {
            self.ask_to_end(order, leaving, ctx);
        }
    }
}

impl Handler<Work> for Shard {
    type Result = ();

    fn handle(&mut self, work: Work, ctx: &mut Self::Context) {
        self.route(work, ctx);
    }
}

impl Handler<News> for Shard {
    type Result = ();

    fn handle(&mut self, News { order, event }: News, ctx: &mut Self::Context) {
        match event {
            Event::Quarantined(_, quarantine) => {
                if let Some(quarantine) = quarantine {
                    self.quarantined.put(order, quarantine);
                }
                self.live.pop(&order);
                // What was held answers by itself.
                self.leaving.remove(&order);
            }
            Event::Ended(_) => self.gone(order, ctx),
            Event::Restarting(_) | Event::Resumed => {}
        }
    }
}
