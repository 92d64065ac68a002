//! The actor of one subscriber: follows the log, and carries out what its engine says. It decides nothing.
//!
//! Everything that belongs to it (the feed, the lanes, the effects under way) are futures of this actor: when it fails
//! all of them end together, and it begins anew from what is stored, in a new term, so that nothing an earlier life left
//! under way can still be written.

use std::sync::Arc;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, SpawnHandle, Supervised};
use tokio::sync::watch;
use tokio::time::Instant;

use super::batch::Handling;
use super::engine::{Action, EFFECTS_PER_ORDER_MAX, Engine, Input};
use super::registry::Registered;
use super::settings::Settings;
use super::status::{SubscriberState, SubscriberStatus};
use crate::clock::{Clock, Timestamp};
use crate::commit::{Commit, CommitKey};
use crate::event_store::StoreError;
use crate::history::History;
use crate::inbox::{Begun, Inbox, InboxError, RecordedEffect, Row, Which, Work};
use crate::log::{Follow, From, Log, LogError, Position};
use crate::order::OrderId;
use crate::supervisor::{Child, Failure, Handle, Node};

/// Commits that are taken from the log at once.
const COMMITS_AT_ONCE: usize = 256;
/// Effects of an order that are shown.
const EFFECTS_SHOWN_MAX: usize = 1_000;

/// What a subscriber runs on.
#[derive(Clone)]
pub struct Ports {
    /// Its own store, that nobody else writes.
    pub inbox: Arc<dyn Inbox>,
    /// What happened.
    pub log: Arc<dyn Log>,
    /// The same, for what is asked of it besides following: to fill a gap, to try again, to catch up.
    pub history: Arc<dyn History>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// A subscriber as everybody else sees it. Cheap to clone.
#[derive(Clone)]
pub struct SubscriberHandle {
    name: &'static str,
    inbox: Arc<dyn Inbox>,
    address: Addr<SubscriberActor>,
    status: watch::Receiver<SubscriberStatus>,
}

/// The actor. See the module.
pub struct SubscriberActor {
    name: &'static str,
    ports: Ports,
    handling: Handling,
    me: Handle,
    status: watch::Sender<SubscriberStatus>,
    begun_at: (Instant, Timestamp),
    engine: Option<Engine>,
    feed: Feed,
    failures: u32,
    wake: Option<SpawnHandle>,
    /// The last word to rest or to go on: the store may have been read before it was written there.
    told_to_rest: Option<bool>,
}

/// Where it reads.
#[derive(Default)]
struct Feed {
    /// The open log, while nobody waits for its next commits.
    follow: Option<Box<dyn Follow>>,
    position: Option<Position>,
    scan: Option<Scan>,
    /// How many scans were begun.
    scans: u32,
    trouble: Option<String>,
}

struct Scan {
    /// Which one: what an earlier one still brings says nothing about how far this one is.
    number: u32,
    after: Option<CommitKey>,
    under_way: bool,
}

impl Feed {
    fn begin_scan(&mut self, after: Option<CommitKey>) {
        self.scans += 1;
        self.scan = Some(Scan { number: self.scans, after, under_way: false });
    }
}

/// The subscriber as a child of a supervisor, isolated: when it keeps failing it alone is quarantined. Also its handle,
/// which is good from now on.
pub fn child(registered: Registered, ports: Ports, settings: Settings) -> (Child, SubscriberHandle) {
    let name = registered.name();
    let (status, watched) = watch::channel(SubscriberStatus::starting(name));
    let inbox = ports.inbox.clone();
    let (child, address) = Child::actor(name, "subscriber", move |_, handle: &Handle, _: &Node| {
        SubscriberActor::new(&registered, ports, settings, handle.clone(), status)
    });
    (child.isolated(), SubscriberHandle { name, inbox, address, status: watched })
}

impl SubscriberHandle {
    /// Its permanent name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its figures now.
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

    /// Tells it to rest, or to go on. Kept over restarts.
    ///
    /// # Errors
    /// When its store did not take it: nothing is changed.
    pub async fn pause(&self, paused: bool) -> Result<(), InboxError> {
        self.inbox.set_paused(paused).await?;
        // One that is down reads the store when it begins.
        let _ = self.address.send(Pause(paused)).await;
        Ok(())
    }

    /// The effects of an order, with their outcomes.
    ///
    /// # Errors
    /// When its store did not answer.
    pub async fn effects(&self, order: OrderId) -> Result<Vec<RecordedEffect>, InboxError> {
        self.inbox.effects(vec![order], Which::All, EFFECTS_SHOWN_MAX).await
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Pause(bool);

impl Actor for SubscriberActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.begin(Duration::ZERO, ctx);
    }
}

impl Supervised for SubscriberActor {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.engine = None;
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
        me: Handle,
        status: watch::Sender<SubscriberStatus>,
    ) -> Self {
        let handling = Handling {
            subscriber: registered.subscriber().clone(),
            inbox: ports.inbox.clone(),
            generation: crate::inbox::Generation::default(),
            settings: Arc::new(settings),
            path: me.path().clone(),
        };
        let begun_at = (Instant::now(), ports.clock.now());
        Self {
            name: registered.name(),
            ports,
            handling,
            me,
            status,
            begun_at,
            engine: None,
            feed: Feed::default(),
            failures: 0,
            wake: None,
            told_to_rest: None,
        }
    }

    // Its life.

    fn begin(&mut self, after: Duration, ctx: &mut Context<Self>) {
        self.publish();
        let inbox = self.ports.inbox.clone();
        self.spawn(
            async move {
                tokio::time::sleep(after).await;
                inbox.begin().await
            },
            |act, begun, ctx| match begun {
                Ok(begun) => act.begun(begun, ctx),
                Err(error) => {
                    tracing::warn!(subscriber = act.name, %error, "the subscriber cannot begin");
                    act.feed.trouble = Some(error.to_string());
                    let wait = act.backoff();
                    act.begin(wait, ctx);
                }
            },
            ctx,
        );
    }

    fn begun(&mut self, begun: Begun, ctx: &mut Context<Self>) {
        self.failures = 0;
        self.feed.trouble = None;
        self.begun_at = (Instant::now(), self.ports.clock.now());
        self.handling.generation = begun.generation;
        let progress = begun.progress.clone();
        if let Some(catching_up) = progress.as_ref().and_then(|progress| progress.catching_up) {
            self.feed.begin_scan(catching_up.after);
        }
        self.feed.position = progress.map(|progress| progress.position);
        let seed = begun.term.0 ^ self.begun_at.1.as_millis().unsigned_abs();
        self.engine = Some(Engine::new((*self.handling.settings).clone(), begun, seed));
        self.open(Duration::ZERO, ctx);
        self.take(self.told_to_rest.map_or(Input::Tick, Input::Pause), ctx);
    }

    /// The engine's time: that of the clock when this life began, and from there on it never jumps.
    fn now(&self) -> Timestamp {
        let (instant, moment) = self.begun_at;
        moment.after(instant.elapsed())
    }

    fn take(&mut self, input: Input, ctx: &mut Context<Self>) {
        let now = self.now();
        let Some(engine) = &mut self.engine else { return };
        for action in engine.step(input, now) {
            self.act(action, now, ctx);
        }
        self.read_on(ctx);
        self.publish();
    }

    fn publish(&self) {
        let mut status = match &self.engine {
            Some(engine) => engine.status(self.name),
            None => SubscriberStatus { state: SubscriberState::Starting, ..self.status.borrow().clone() },
        };
        if self.feed.trouble.is_some() && status.state != SubscriberState::Paused {
            status.state = SubscriberState::StoreAway;
            status.trouble = self.feed.trouble.clone();
        }
        self.status.send_if_modified(|before| {
            let modified = *before != status;
            *before = status;
            modified
        });
    }

    fn backoff(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.handling.settings.backoff.ceiling(self.failures)
    }

    fn spawn<T: 'static>(
        &self,
        work: impl Future<Output = T> + 'static,
        then: impl FnOnce(&mut Self, T, &mut Context<Self>) + 'static,
        ctx: &mut Context<Self>,
    ) -> SpawnHandle {
        ctx.spawn(wrap_future::<_, Self>(work).map(move |answer, act, ctx| then(act, answer, ctx)))
    }

    fn ask(&self, work: impl Future<Output = Input> + 'static, ctx: &mut Context<Self>) {
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
            Action::Commit(transaction) => {
                self.ask(async move { Input::Committed(inbox.commit(transaction).await) }, ctx);
            }
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
            Action::Perform(effect) => {
                let (handling, clock) = (self.handling.clone(), self.ports.clock.clone());
                self.ask(async move { Input::Performed(handling.perform(*effect, clock).await) }, ctx);
            }
            Action::WakeAt(at) => self.wake_in(at.since(now), ctx),
            Action::End => {
                self.me
                    .fail(Failure::error("another process, or a later life of this one, began to work on the inbox"));
            }
        }
    }

    fn wake_in(&mut self, wait: Duration, ctx: &mut Context<Self>) {
        if let Some(wake) = self.wake.take() {
            ctx.cancel_future(wake);
        }
        self.wake = Some(self.spawn(tokio::time::sleep(wait), |act, (), ctx| act.take(Input::Tick, ctx), ctx));
    }

    // The feed.

    fn open(&mut self, after: Duration, ctx: &mut Context<Self>) {
        let log = self.ports.log.clone();
        let position = self.feed.position.clone();
        self.spawn(
            async move {
                tokio::time::sleep(after).await;
                open(&*log, position).await
            },
            |act, opened, ctx| match opened {
                Ok((follow, anew)) => act.opened(follow, anew, ctx),
                Err(error) => act.feed_failed(&error, ctx),
            },
            ctx,
        );
    }

    fn opened(&mut self, follow: Box<dyn Follow>, anew: bool, ctx: &mut Context<Self>) {
        self.failures = 0;
        self.feed.trouble = None;
        let position = follow.position();
        self.feed.position = Some(position.clone());
        self.feed.follow = Some(follow);
        if anew {
            self.feed.begin_scan(None);
            self.take(Input::Opened(position), ctx);
        } else {
            self.take(Input::Tick, ctx);
        }
    }

    fn feed_failed(&mut self, error: &LogError, ctx: &mut Context<Self>) {
        tracing::warn!(subscriber = self.name, %error, "the log cannot be followed, and is opened again");
        self.feed.trouble = Some(error.to_string());
        self.publish();
        let wait = self.backoff();
        self.open(wait, ctx);
    }

    fn read_on(&mut self, ctx: &mut Context<Self>) {
        if !self.engine.as_ref().is_some_and(Engine::wants_deliveries) {
            return;
        }
        if let Some(mut follow) = self.feed.follow.take() {
            self.spawn(
                async move {
                    let commits = follow.next(COMMITS_AT_ONCE).await;
                    (follow, commits)
                },
                |act, (follow, commits), ctx| act.followed(follow, commits, ctx),
                ctx,
            );
        }
        if let Some(scan) = self.feed.scan.as_mut().filter(|scan| !scan.under_way) {
            scan.under_way = true;
            let (number, after) = (scan.number, scan.after);
            self.scan(number, after, Duration::ZERO, ctx);
        }
    }

    fn followed(
        &mut self,
        follow: Box<dyn Follow>,
        commits: Result<Vec<Arc<Commit>>, LogError>,
        ctx: &mut Context<Self>,
    ) {
        match commits {
            Ok(commits) => {
                let position = follow.position();
                self.feed.position = Some(position.clone());
                self.feed.follow = Some(follow);
                self.take(Input::Delivered(commits, position), ctx);
            }
            Err(error) => self.feed_failed(&error, ctx),
        }
    }

    fn scan(&mut self, number: u32, after: Option<CommitKey>, wait: Duration, ctx: &mut Context<Self>) {
        let history = self.ports.history.clone();
        self.spawn(
            async move {
                tokio::time::sleep(wait).await;
                history.scan(after, COMMITS_AT_ONCE).await
            },
            move |act, commits, ctx| {
                if act.feed.scan.as_ref().is_some_and(|scan| scan.number == number) {
                    act.scanned(number, after, commits, ctx);
                }
            },
            ctx,
        );
    }

    fn scanned(
        &mut self,
        number: u32,
        after: Option<CommitKey>,
        commits: Result<Vec<Arc<Commit>>, StoreError>,
        ctx: &mut Context<Self>,
    ) {
        match commits {
            Ok(commits) => match commits.last().map(|commit| commit.key()) {
                Some(last) => {
                    self.feed.scan = Some(Scan { number, after: Some(last), under_way: false });
                    self.take(Input::Scanned(commits), ctx);
                }
                None => {
                    self.feed.scan = None;
                    self.take(Input::ScanEnded, ctx);
                }
            },
            Err(error) => {
                tracing::warn!(subscriber = self.name, %error, "the log cannot be scanned, and is tried again");
                let wait = self.backoff();
                self.scan(number, after, wait, ctx);
            }
        }
    }
}

/// The open log, and whether it was opened at its end for want of a position.
async fn open(log: &dyn Log, position: Option<Position>) -> Result<(Box<dyn Follow>, bool), LogError> {
    if let Some(position) = position {
        match log.follow(From::Position(position)).await {
            Ok(follow) => return Ok((follow, false)),
            Err(LogError::NoPosition(why)) => {
                tracing::error!(%why, "the position in the log is lost: the whole log is read again");
            }
            Err(error @ LogError::Store(_)) => return Err(error),
        }
    }
    Ok((log.follow(From::Now).await?, true))
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
