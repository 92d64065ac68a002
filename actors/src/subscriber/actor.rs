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

mod feed;
mod intake;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, Running, SpawnHandle,
    Supervised,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::batch::Handling;
use super::engine::{Action, EFFECTS_PER_ORDER_MAX, Engine, Input, Receipt};
use super::lease::Lease;
use super::registry::Registered;
use super::settings::Settings;
use super::status::{SubscriberState, SubscriberStatus};
use crate::clock::{Clock, Timestamp};
use crate::history::History;
use crate::inbox::{Begun, Committed, Inbox, InboxError, RecordedEffect, Renewed, Row, Term, Transaction, Which, Work};
use crate::log::{Log, Position};
use crate::order::OrderId;
use crate::supervisor::{Child, Handle, Node};

use feed::Feed;
use intake::Queue;
pub(crate) use intake::{Activity, Deliver, Intake, Observed};

/// Effects of an order that are shown.
const EFFECTS_SHOWN_MAX: usize = 1_000;
/// Whoever stands by asks for the lease at least that often, and a little later at random: it may have been released.
const STANDBY_MAX: Duration = Duration::from_secs(1);
/// And not more often than that: the lease may be about to end.
const STANDBY_MIN: Duration = Duration::from_millis(50);
/// Longest wait before the subscriber's store or the log is asked again after it did not answer.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How long what is under way may go on when the process ends; then it is left to whoever begins next.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);
/// How long giving the lease back may take. When it does not succeed the lease ends by itself.
const RELEASE_WITHIN: Duration = Duration::from_secs(1);

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

/// A subscriber as everybody else sees it. Cheap to clone.
#[derive(Clone)]
pub struct SubscriberHandle {
    name: &'static str,
    inbox: Arc<dyn Inbox>,
    address: Addr<SubscriberActor>,
    status: watch::Receiver<SubscriberStatus>,
    activity: watch::Receiver<Activity>,
    acknowledged: watch::Receiver<Option<Receipt>>,
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
    /// The last word to rest or to go on since the store was asked: its answer may be older.
    told_to_rest: Option<bool>,
    /// The store was asked for a term and has not answered.
    asking: bool,
    leaving: bool,
    left: bool,
}

/// What it says to everybody.
struct Said {
    status: watch::Sender<SubscriberStatus>,
    activity: watch::Sender<Activity>,
    acknowledged: watch::Sender<Option<Receipt>>,
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
    let (child, address) = Child::actor(name, "subscriber", move |_, handle: &Handle, node: &Node| {
        SubscriberActor::new(&registered, ports, settings, (handle, node), said)
    });
    let handle = SubscriberHandle { name, inbox, address, status: watched, activity: active, acknowledged: receipts };
    (child.isolated(), handle)
}

impl SubscriberHandle {
    /// Its permanent name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its figures now, in this process.
    pub fn status(&self) -> SubscriberStatus {
        self.status.borrow().clone()
    }

    /// Waits until everything that was committed before `position` is applied and performed. For ever, when it never
    /// is: the caller says how long it has.
    pub async fn settled(&self, position: &Position) {
        let mut status = self.status.clone();
        let settled = status.wait_for(|status| status.is_settled_at(position)).await.is_ok();
        if !settled {
            // The actor is gone for good and will never be there.
            std::future::pending::<()>().await;
        }
    }

    /// Tells it to rest, or to go on, in whichever process it is active: there it is known at the next renewal of the
    /// lease. Kept over restarts.
    ///
    /// # Errors
    /// When its store did not take it: nothing is changed.
    pub async fn pause(&self, paused: bool) -> Result<(), InboxError> {
        self.inbox.set_paused(paused).await?;
        // One that is down reads the store when it begins.
        let _ = self.address.send(Pause(paused)).await;
        Ok(())
    }

    /// The effects of an order, with their outcomes, whichever process performs them.
    ///
    /// # Errors
    /// When its store did not answer.
    pub async fn effects(&self, order: OrderId) -> Result<Vec<RecordedEffect>, InboxError> {
        self.inbox.effects(vec![order], Which::All, EFFECTS_SHOWN_MAX).await
    }

    /// What its consumer needs.
    pub(crate) fn intake(&self) -> Intake {
        Intake::new(self.address.clone(), self.activity.clone(), self.acknowledged.clone())
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Pause(bool);

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
        self.failures = 0;
        self.publish();
    }
}

impl Handler<Pause> for SubscriberActor {
    type Result = ();

    fn handle(&mut self, Pause(paused): Pause, ctx: &mut Self::Context) {
        self.told_to_rest = Some(paused);
        self.take(Input::Pause(paused), ctx);
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
            told_to_rest: None,
            asking: false,
            leaving: false,
            left: false,
        }
    }

    // Its life.

    fn begin(&mut self, ctx: &mut Context<Self>) {
        self.publish();
        self.asking = true;
        let inbox = self.ports.inbox.clone();
        self.told_to_rest = None;
        let asked_at = Instant::now();
        let begin = async move { inbox.begin().await };
        self.spawn(begin, move |act, begun, ctx| act.answered_begin(asked_at, begun, ctx), ctx);
    }

    fn begin_in(&mut self, wait: Duration, ctx: &mut Context<Self>) {
        self.publish();
        self.spawn(sleep(wait), |act, (), ctx| act.begin(ctx), ctx);
    }

    fn answered_begin(&mut self, asked_at: Instant, begun: Result<Begun, InboxError>, ctx: &mut Context<Self>) {
        self.asking = false;
        match begun {
            Ok(begun) if self.leaving => self.release(begun.term, begun.lease.is_some(), ctx),
            Ok(begun) => self.begun(asked_at, begun, ctx),
            Err(_) if self.leaving => self.end(ctx),
            Err(InboxError::Held { by, ends_in }) => self.stand_by(by, ends_in, ctx),
            Err(
                error @ (InboxError::Away(_) | InboxError::Full(_) | InboxError::Unknown(_) | InboxError::Damaged(_)),
            ) => {
                tracing::warn!(subscriber = self.name, %error, "the subscriber cannot begin");
                self.feed.trouble = Some(error.to_string());
                self.life = Life::Beginning;
                let wait = self.retry_after();
                self.begin_in(wait, ctx);
            }
        }
    }

    fn begun(&mut self, asked_at: Instant, begun: Begun, ctx: &mut Context<Self>) {
        if let Life::Standby { active_in } = &self.life {
            let term = begun.term.0;
            tracing::info!(
                subscriber = self.name,
                term,
                was_active_in = active_in,
                "the subscriber is active here now"
            );
        }
        self.failures = 0;
        self.feed = Feed::default();
        self.begun_at = (Instant::now(), self.ports.clock.now());
        self.handling.generation = begun.present.generation;
        let progress = begun.progress.clone();
        if let Some(catching_up) = progress.as_ref().and_then(|progress| progress.catching_up) {
            self.feed.begin_scan(catching_up.after);
        }
        self.feed.position = progress.map(|progress| progress.position);
        let seed = begun.term.0 ^ self.begun_at.1.as_millis().unsigned_abs();
        self.lives += 1;
        self.life = Life::Active(Box::new(Active {
            number: self.lives,
            term: begun.term,
            lease: Lease::new(begun.lease, asked_at + begun.held_after),
            said_over: false,
            before: self.said.status.borrow().at_rest(SubscriberState::Starting),
            engine: Engine::new((*self.handling.settings).clone(), begun, seed),
        }));
        self.renew_later(ctx);
        self.open(Duration::ZERO, ctx);
        self.take(self.told_to_rest.map_or(Input::Tick, Input::Pause), ctx);
    }

    fn stand_by(&mut self, active_in: String, ends_in: Duration, ctx: &mut Context<Self>) {
        let news = match &self.life {
            Life::Standby { active_in: before } => *before != active_in,
            Life::Beginning | Life::Active(_) => true,
        };
        if news {
            tracing::info!(subscriber = self.name, active_in, "the subscriber is active elsewhere and stands by here");
        }
        self.failures = 0;
        self.feed = Feed::default();
        self.life = Life::Standby { active_in };
        // Somewhat later than the others who stand by, or somewhat sooner.
        let spread = STANDBY_MAX.mul_f64(self.node.chance() / 4.0);
        self.begin_in(ends_in.clamp(STANDBY_MIN, STANDBY_MAX) + spread, ctx);
    }

    /// Another process began a later term (or something that an earlier life of this one had left under way did): nothing
    /// that is known here holds any more, and nothing that is under way here may go on.
    fn deposed(&mut self, ctx: &mut Context<Self>) {
        let Life::Active(active) = &self.life else { return };
        let term = active.term.0;
        tracing::info!(
            subscriber = self.name,
            term,
            "a later term of the subscriber has begun: what is here is dropped"
        );
        active.lease.lose();
        self.drop_everything(ctx);
        if self.leaving {
            return self.end(ctx);
        }
        // Not at once: should two who cannot see each other take the term from one another, they do not spin.
        let wait = STANDBY_MAX.mul_f64(self.node.chance() / 4.0);
        self.begin_in(wait, ctx);
    }

    fn drop_everything(&mut self, ctx: &mut Context<Self>) {
        self.life = Life::Beginning;
        self.feed = Feed::default();
        self.wake = None;
        for (_, handle) in self.under_way.drain() {
            ctx.cancel_future(handle);
        }
    }

    // Its lease.

    fn renew_later(&mut self, ctx: &mut Context<Self>) {
        let Life::Active(active) = &self.life else { return };
        let Some(wait) = active.lease.renew_every() else { return };
        self.spawn(sleep(wait), |act, (), ctx| act.renew(ctx), ctx);
    }

    fn renew(&mut self, ctx: &mut Context<Self>) {
        let Life::Active(active) = &self.life else { return };
        let (inbox, term, patience) = (self.ports.inbox.clone(), active.term, active.lease.patience());
        self.told_to_rest = None;
        let asked_at = Instant::now();
        let renewal = async move {
            let late = |_| Err(InboxError::Away("no answer in time".to_owned()));
            timeout(patience, inbox.renew(term)).await.unwrap_or_else(late)
        };
        self.spawn(renewal, move |act, renewed, ctx| act.renewed(asked_at, renewed, ctx), ctx);
    }

    fn renewed(&mut self, asked_at: Instant, renewed: Result<Renewed, InboxError>, ctx: &mut Context<Self>) {
        let Life::Active(active) = &mut self.life else { return };
        match renewed {
            Ok(Renewed::Held { lease, present }) => {
                active.lease.renewed(lease, asked_at);
                if std::mem::take(&mut active.said_over) {
                    tracing::info!(subscriber = self.name, "the lease is held again");
                }
                let paused = self.told_to_rest.is_none().then_some(present.paused);
                self.take(Input::Renewed(paused), ctx);
            }
            Ok(Renewed::Superseded) => return self.deposed(ctx),
            Err(error) => {
                if active.lease.is_over() && !std::mem::replace(&mut active.said_over, true) {
                    tracing::warn!(subscriber = self.name, %error, "the lease is over: no effect begins until it is held");
                }
                self.publish();
            }
        }
        self.renew_later(ctx);
    }

    fn committed(&mut self, asked_at: Instant, committed: Result<Committed, InboxError>, ctx: &mut Context<Self>) {
        if let (Life::Active(active), Ok(Committed::Written)) = (&self.life, &committed) {
            active.lease.written(asked_at);
        }
        self.take(Input::Committed(committed), ctx);
    }

    // Its end.

    /// Finishes what is under way, and gives the lease back, so that another process takes over at once.
    fn leave(&mut self, ctx: &mut Context<Self>) {
        match &self.life {
            // A term may be given any moment, that nobody would use: the answer is waited for.
            Life::Beginning | Life::Standby { .. } if self.asking => {}
            Life::Beginning | Life::Standby { .. } => self.end(ctx),
            Life::Active(_) => self.take(Input::Leave, ctx),
        }
        self.spawn(sleep(LEAVE_WITHIN), |act, (), ctx| act.give_up(ctx), ctx);
    }

    fn give_up(&mut self, ctx: &mut Context<Self>) {
        match &self.life {
            Life::Beginning | Life::Standby { .. } => self.end(ctx),
            Life::Active(active) => {
                let (term, leased) = (active.term, active.lease.renew_every().is_some());
                self.release(term, leased, ctx);
            }
        }
    }

    fn release(&mut self, term: Term, leased: bool, ctx: &mut Context<Self>) {
        self.drop_everything(ctx);
        self.publish();
        if !leased {
            return self.end(ctx);
        }
        let inbox = self.ports.inbox.clone();
        let release = async move { timeout(RELEASE_WITHIN, inbox.release(term)).await };
        self.spawn(
            release,
            |act, released, ctx| {
                match released {
                    Ok(Ok(())) => tracing::info!(subscriber = act.name, "the lease is given back"),
                    Ok(Err(_)) | Err(_) => tracing::info!(subscriber = act.name, "the lease ends by itself"),
                }
                act.end(ctx);
            },
            ctx,
        );
    }

    fn end(&mut self, ctx: &mut Context<Self>) {
        self.left = true;
        ctx.stop();
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

    fn publish(&mut self) {
        self.say_activity();
        let mut status = match &self.life {
            Life::Beginning => self.said.status.borrow().at_rest(SubscriberState::Starting),
            Life::Standby { active_in } => SubscriberStatus {
                active_in: Some(active_in.clone()),
                ..self.said.status.borrow().at_rest(SubscriberState::Standby)
            },
            Life::Active(active) => active.engine.status(self.name).counted_on(&active.before),
        };
        if let Some(trouble) = self.lease_trouble().or_else(|| self.feed.trouble.clone())
            && status.state != SubscriberState::Paused
        {
            // What the broker brings is handled although the log cannot be followed.
            if self.lease_trouble().is_some() || !self.queue.as_ref().is_some_and(Queue::is_consumed) {
                status.state = SubscriberState::StoreAway;
            }
            status.trouble = Some(trouble);
        }
        status.queue = self.queue.as_ref().map(Queue::status);
        let queue_trouble = || status.queue.as_ref().and_then(|queue| queue.trouble.clone());
        status.trouble = status.trouble.or_else(queue_trouble);
        self.said.status.send_if_modified(|before| {
            let modified = *before != status;
            *before = status;
            modified
        });
    }

    fn lease_trouble(&self) -> Option<String> {
        let lease_over = matches!(&self.life, Life::Active(active) if active.lease.is_over());
        lease_over.then(|| "the lease is over, and the store does not renew it".to_owned())
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

    // What the engine says.

    fn act(&mut self, action: Action, now: Timestamp, ctx: &mut Context<Self>) {
        let inbox = self.ports.inbox.clone();
        let generation = self.handling.generation;
        match action {
            Action::Load(orders) => {
                self.ask(async move { Input::Loaded(inbox.rows(generation, orders).await) }, ctx);
            }
            Action::Handle(events) => {
                let handling = self.handling.clone();
                self.ask(async move { Input::Handled(handling.handle(events).await) }, ctx);
            }
            Action::Commit(transaction) => self.commit(transaction, ctx),
            Action::LoadDue { work, until, limit } => {
                let handling = self.handling.clone();
                self.ask(async move { Input::Due(work, due(&handling, work, until, limit).await) }, ctx);
            }
            Action::ReadHistory { order, from, limit } => {
                let history = self.ports.history.clone();
                self.ask(async move { Input::History(order, history.read(order, from, limit).await) }, ctx);
            }
            Action::LoadWaiting { after, limit } => {
                self.ask(async move { Input::Waiting(inbox.waiting(after, limit).await, limit) }, ctx);
            }
            Action::LoadEffects(orders) => {
                let load = async move { inbox.effects(orders, Which::Waiting, EFFECTS_PER_ORDER_MAX).await };
                self.ask(async move { Input::EffectsLoaded(load.await) }, ctx);
            }
            Action::Perform(effect) => self.perform(*effect, ctx),
            Action::Acknowledge(receipt) => drop(self.said.acknowledged.send_replace(Some(receipt))),
            Action::WakeAt(at) => self.wake_in(at.since(now), ctx),
            Action::End => self.deposed(ctx),
        }
    }

    fn commit(&mut self, transaction: Arc<Transaction>, ctx: &mut Context<Self>) {
        let inbox = self.ports.inbox.clone();
        let asked_at = Instant::now();
        let commit = async move { inbox.commit(transaction).await };
        self.spawn(commit, move |act, committed, ctx| act.committed(asked_at, committed, ctx), ctx);
    }

    /// No store can refuse an effect: it begins only while the lease is certainly this process's own. One that is under
    /// way when the process is frozen goes on afterwards, and may then be performed twice.
    fn perform(&mut self, effect: RecordedEffect, ctx: &mut Context<Self>) {
        let Life::Active(active) = &self.life else { return };
        let (held, handling, clock) = (active.lease.held(), self.handling.clone(), self.ports.clock.clone());
        let perform = async move {
            held.now().await;
            Input::Performed(handling.perform(effect, clock).await)
        };
        self.ask(perform, ctx);
    }

    fn wake_in(&mut self, wait: Duration, ctx: &mut Context<Self>) {
        if let Some(wake) = self.wake.take().and_then(|wake| self.under_way.remove(&wake)) {
            ctx.cancel_future(wake);
        }
        self.wake = Some(self.spawn(sleep(wait), |act, (), ctx| act.take(Input::Tick, ctx), ctx));
    }
}

async fn due(
    handling: &Handling,
    work: Work,
    until: Timestamp,
    limit: usize,
) -> Result<(Vec<Row>, Option<Timestamp>), InboxError> {
    let rows = handling.inbox.due(handling.generation, work, until, limit).await?;
    if rows.len() >= limit {
        return Ok((rows, Some(until)));
    }
    let next = handling.inbox.next_due(handling.generation, work, until).await?;
    Ok((rows, next))
}
