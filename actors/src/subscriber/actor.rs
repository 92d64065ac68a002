//! The actor of one subscriber: follows the log, takes in what the broker brings, and carries out what its engine says. It
//! decides nothing.
//!
//! Everything that belongs to it (the feed, the lanes, the effects under way) are futures of this actor: when it fails
//! all of them end together, and it begins anew from what is stored, in a new term, so that nothing an earlier life left
//! under way can still be written. What the broker had brought to an earlier life it brings again to the next.
//!
//! Where several processes share the subscriber's store, only the one that holds the lease is at work; the others stand
//! by: they ask for it about once a second, and have nothing else. Whoever loses it (another process began a term, because
//! this one was frozen or cut off) drops everything and stands by, too. That is no failure.

mod actions;
mod feed;
mod handle;
mod intake;
mod leaving;
pub(super) mod present;
mod said;
mod term;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Running, SpawnHandle, Supervised};
use tokio::sync::watch;
use tokio::time::Instant;

use super::batch::Handling;
use super::engine::{Engine, Input, Run};
use super::lease::Lease;
use super::letters::Letters;
use super::registry::Registered;
use super::settings::Settings;
use super::status::SubscriberStatus;
use crate::clock::{Clock, Timestamp};
use crate::history::History;
use crate::inbox::{Inbox, Term};
use crate::log::Log;
use crate::supervisor::{Child, Handle, Node};

use feed::Feed;
pub use handle::{OfOrder, SubscriberHandle};
use intake::Queue;
pub(crate) use intake::{Activity, Deliver, Intake, Observed};
use present::Look;
use said::Said;

/// Longest wait before the subscriber's store or the log is asked again after it did not answer.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What a subscriber runs on.
#[derive(Clone)]
pub struct Ports {
    /// Its own store, that nobody else writes.
    pub inbox: Arc<dyn Inbox>,
    /// From where events come.
    pub source: Source,
    /// What happened, for what is asked besides: to fill a gap, to try again, to catch up, and to see what a broker did not
    /// bring.
    pub history: Arc<dyn History>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// From where a subscriber's events come.
#[derive(Clone)]
pub enum Source {
    /// It follows the log itself.
    Log(Arc<dyn Log>),
    /// A broker brings them, by way of a consumer ([`crate::bridge::consumer`]). Of the log it follows only heads, to find
    /// what is missing.
    Broker,
}

impl Source {
    /// Of which nothing is known yet.
    fn queue(&self) -> Option<Queue> {
        match self {
            Self::Log(_) => None,
            Self::Broker => Some(Queue::default()),
        }
    }
}

/// The actor. See the module.
pub struct SubscriberActor {
    name: &'static str,
    ports: Ports,
    handling: Handling,
    node: Node,
    said: Said,
    begun_at: (Instant, Timestamp),
    life: Life,
    /// How many terms were begun here.
    lives: u64,
    /// The queue at the broker, when there is one.
    queue: Option<Queue>,
    feed: Feed,
    failures: u32,
    /// What is under way, by a number that is never used again.
    under_way: HashMap<u64, SpawnHandle>,
    numbered: u64,
    wake: Option<u64>,
    /// The numbers of what is handled aside.
    asides: HashMap<Run, u64>,
    look: Look,
    /// The store was asked for a term and has not answered.
    asking: bool,
    leaving: bool,
    left: bool,
}

/// Where the actor stands.
enum Life {
    /// It asks for a term.
    Beginning,
    /// Another process holds the lease.
    Standby { active_in: String },
    /// It holds a term.
    Active(Box<Active>),
}

struct Active {
    /// Which life: no other one in this process has the same number.
    number: u64,
    engine: Engine,
    term: Term,
    lease: Lease,
    /// It was said in the log that the lease is over.
    said_over: bool,
    /// What earlier lives counted.
    before: SubscriberStatus,
}

/// The subscriber as a child of a supervisor, isolated: when it keeps failing it alone is quarantined. Also its handle,
/// which is good from now on.
pub fn child(registered: Registered, ports: Ports, settings: Settings) -> (Child, SubscriberHandle) {
    let name = registered.name();
    let queue = ports.source.queue();
    let starting = SubscriberStatus { queue: queue.as_ref().map(Queue::status), ..SubscriberStatus::starting(name) };
    let (status, watched) = watch::channel(starting);
    let (activity, active) = watch::channel(Activity::default());
    let (acknowledged, receipts) = watch::channel(None);
    let said = Said { status, activity, acknowledged };
    let inbox = ports.inbox.clone();
    let log = match &ports.source {
        Source::Log(log) => Some(Arc::clone(log)),
        Source::Broker => None,
    };
    let (history, clock) = (Arc::clone(&ports.history), Arc::clone(&ports.clock));
    let handling = Handling {
        subscriber: registered.subscriber().clone(),
        inbox: Arc::clone(&inbox),
        generation: crate::inbox::Generation::default(),
        settings: Arc::new(settings.clone()),
        path: format!("a dry run of {name}").into(),
    };
    let (child, address) = Child::actor(name, "subscriber", move |_, handle: &Handle, node: &Node| {
        SubscriberActor::new(&registered, ports, settings, (handle, node), said)
    });
    let letters = Letters::new(name, history, clock, handling, address.clone().recipient());
    let handle = SubscriberHandle {
        name,
        inbox,
        log,
        totals: Arc::default(),
        address,
        status: watched,
        activity: active,
        acknowledged: receipts,
        letters,
    };
    (child.isolated(), handle)
}

impl Actor for SubscriberActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.begin(ctx);
    }

    fn stopping(&mut self, ctx: &mut Self::Context) -> Running {
        if self.left {
            return Running::Stop;
        }
        if !self.leaving {
            self.leaving = true;
            self.leave(ctx);
        }
        if self.left { Running::Stop } else { Running::Continue }
    }
}

impl Supervised for SubscriberActor {
    fn restarting(&mut self, _: &mut Self::Context) {
        // Its futures are dropped already.
        self.under_way.clear();
        self.asking = false;
        self.life = Life::Beginning;
        self.feed = Feed::default();
        self.wake = None;
        self.asides.clear();
        self.failures = 0;
        self.publish();
    }
}

impl SubscriberActor {
    fn new(
        registered: &Registered,
        ports: Ports,
        settings: Settings,
        (me, node): (&Handle, &Node),
        said: Said,
    ) -> Self {
        let handling = Handling {
            subscriber: registered.subscriber().clone(),
            inbox: ports.inbox.clone(),
            generation: crate::inbox::Generation::default(),
            settings: Arc::new(settings),
            path: me.path().clone(),
        };
        let begun_at = (Instant::now(), ports.clock.now());
        let queue = ports.source.queue();
        Self {
            name: registered.name(),
            ports,
            handling,
            node: node.clone(),
            said,
            begun_at,
            life: Life::Beginning,
            lives: 0,
            queue,
            feed: Feed::default(),
            failures: 0,
            under_way: HashMap::new(),
            numbered: 0,
            wake: None,
            asides: HashMap::new(),
            look: Look::default(),
            asking: false,
            leaving: false,
            left: false,
        }
    }

    /// The engine's time: that of the clock when this life began, and from there on it never jumps.
    fn now(&self) -> Timestamp {
        let (instant, moment) = self.begun_at;
        moment.after(instant.elapsed())
    }

    fn take(&mut self, input: Input, ctx: &mut Context<Self>) {
        let now = self.now();
        let Life::Active(active) = &mut self.life else { return };
        for action in active.engine.step(input, now) {
            self.act(action, now, ctx);
        }
        if !matches!(self.life, Life::Active(_)) {
            return;
        }
        self.read_on(ctx);
        self.publish();
        if let Life::Active(active) = &self.life
            && active.engine.has_left()
        {
            self.give_up(ctx);
        }
    }

    fn retry_after(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.handling.settings.backoff.ceiling(self.failures).min(RETRY_MAX)
    }

    /// Work of this life: `then` is called unless everything was dropped before.
    fn spawn<T: 'static>(
        &mut self,
        work: impl Future<Output = T> + 'static,
        then: impl FnOnce(&mut Self, T, &mut Context<Self>) + 'static,
        ctx: &mut Context<Self>,
    ) -> u64 {
        self.numbered += 1;
        let number = self.numbered;
        let work = wrap_future::<_, Self>(work).map(move |answer, act, ctx| {
            // What was cancelled may be polled once more.
            if act.under_way.remove(&number).is_some() {
                then(act, answer, ctx);
            }
        });
        self.under_way.insert(number, ctx.spawn(work));
        number
    }

    fn ask(&mut self, work: impl Future<Output = Input> + 'static, ctx: &mut Context<Self>) {
        self.spawn(work, Self::take, ctx);
    }
}
