//! One supervised child: an actor, or a plain async job, polled inside `catch_unwind`.
//!
//! An actor that fails keeps its address, its mailbox and the messages in it; what it was doing is dropped and
//! `Supervised::restarting` is called at once, so nobody waits for what will not come, and `started` after the
//! backoff. A panicked future is never polled again before that. A child decides by itself what follows
//! ([`start`]: thousands of order actors), or its supervisor does (`super::Supervisor`).
//!
//! The code of the child's own `Drop` must not panic: two at once end the process.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as Task, Poll, Waker};
use std::time::Duration;

use actix::dev::ContextFut;
use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Supervised};
use futures_util::future::LocalBoxFuture;
use futures_util::task::AtomicWaker;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::ledger::{Cause, Decided, Entry, Message};
use super::panic::{self, Panic, caught, shortened};
use super::policy::{Decision, Importance, Intensity, Policy, Record};
use super::tree::{Node, Status, millis};
use crate::clock::Timestamp;

/// What a child that decides for itself is started with.
pub struct ChildSpec {
    parent: Node,
    path: Arc<str>,
    kind: &'static str,
    importance: Importance,
    policy: Arc<Policy>,
    limits: Limits,
    listed: bool,
    closes_mailbox: bool,
    on_event: Option<Box<dyn FnMut(Event)>>,
    before: Option<Quarantine>,
    node: Option<Node>,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A message that is handled for longer ([`Handle::handling`]) is a failure. `None`: no limit.
    pub stuck_after: Option<Duration>,
    /// A child that was asked to stop and has not after this long is dropped.
    pub stop_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { stuck_after: None, stop_within: Duration::from_secs(5) }
    }
}

impl ChildSpec {
    /// An isolated child below `parent`, listed in the tree only when it has failed lately: an order.
    pub fn isolated(parent: &Node, name: &str, kind: &'static str, policy: Arc<Policy>) -> Self {
        Self {
            path: parent.path_of(name),
            parent: parent.clone(),
            kind,
            importance: Importance::Isolated,
            policy,
            limits: Limits::default(),
            listed: false,
            closes_mailbox: false,
            on_event: None,
            before: None,
            node: None,
        }
    }

    /// Always listed in the tree: for children that are few and stay.
    #[must_use]
    pub fn listed(mut self) -> Self {
        self.listed = true;
        self
    }

    /// Other limits than the default ones.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What the owner wants to hear. Called on the child's arbiter, while nothing of the child runs or is borrowed. It
    /// must not panic.
    #[must_use]
    pub fn on_event(mut self, on_event: impl FnMut(Event) + 'static) -> Self {
        self.on_event = Some(Box::new(on_event));
        self
    }

    /// When it is quarantined it ends: its mailbox is closed, messages in it are dropped (their callers learn at once),
    /// and the owner gets a [`Quarantine`] to keep instead of the child. Otherwise it keeps its address and messages
    /// wait in the mailbox until it is tried again.
    #[must_use]
    pub fn ending_in_quarantine(mut self) -> Self {
        self.closes_mailbox = true;
        self
    }

    /// It is tried again after that quarantine: its next failure means a longer one.
    #[must_use]
    pub fn after(mut self, quarantine: Quarantine) -> Self {
        self.before = Some(quarantine);
        self
    }

    /// The root of a tree: nobody is left to decide, so its first failure is the end.
    pub(super) fn root(root: &Node) -> Self {
        let policy = Policy { intensity: Intensity::NONE, ..Policy::default() };
        let mut spec = Self::isolated(root, "", root.kind(), Arc::new(policy)).listed();
        spec.path = Arc::clone(root.path());
        spec.importance = Importance::Essential;
        spec.node = Some(root.clone());
        spec
    }
}

/// What became of a child.
#[derive(Debug)]
pub enum Event {
    /// It has failed and is started again at the entry's `next_try_at`.
    Restarting(Arc<Entry>),
    /// It works again.
    Resumed,
    /// It has failed too often. With [`ChildSpec::ending_in_quarantine`] it has ended and this is the last event.
    Quarantined(Arc<Entry>, Option<Quarantine>),
    /// It has ended. The last event.
    Ended(Ending),
}

/// Why a child has ended.
#[derive(Clone, Debug)]
pub enum Ending {
    /// It was asked to, or wanted to ([`Handle::end`]).
    Asked,
    /// Nobody holds its address any more.
    Unreachable,
    /// It failed too often and is essential.
    Failed(Arc<Entry>),
}

/// A child that has ended in quarantine. Dropping it forgets the child.
pub struct Quarantine {
    record: Record,
    due: Instant,
    until: Timestamp,
    handle: Handle,
    node: Node,
}

impl Quarantine {
    /// Whether it may be tried again: its time is over, or an operator released it.
    pub fn is_over(&self) -> bool {
        self.is_released() || Instant::now() >= self.due
    }

    /// How long it still lasts.
    pub fn remaining(&self) -> Duration {
        if self.is_released() { Duration::ZERO } else { self.due.saturating_duration_since(Instant::now()) }
    }

    /// When it is over.
    pub fn until(&self) -> Timestamp {
        self.until
    }

    /// The path of the child.
    pub fn path(&self) -> &Arc<str> {
        self.handle.path()
    }

    fn is_released(&self) -> bool {
        self.handle.lock().verbs.iter().any(|verb| matches!(verb, Verb::Release | Verb::Restart))
    }
}

impl fmt::Debug for Quarantine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quarantine").field("path", self.path()).field("until", &self.until).finish_non_exhaustive()
    }
}

impl Drop for Quarantine {
    fn drop(&mut self) {
        self.node.set_status(Status::Stopped);
    }
}

/// A failure in a child's own words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(Cause);

impl Failure {
    /// From an error. Of its text the first 2,000 bytes are kept.
    pub fn error(error: impl fmt::Display) -> Self {
        Self(Cause::Error { text: shortened(&error.to_string()).to_owned() })
    }

    pub(super) fn because(cause: Cause) -> Self {
        Self(cause)
    }
}

/// A child as seen by itself, by its owner and by operators. Cheap to clone, works from any thread; what is asked for
/// happens soon, on the child's arbiter.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

struct Shared {
    path: Arc<str>,
    waker: AtomicWaker,
    has_verbs: AtomicBool,
    state: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    verbs: Vec<Verb>,
    handling: Vec<Current>,
    handled: u64,
    stopping: bool,
    wakers: Vec<Waker>,
}

#[derive(Debug)]
pub(super) enum Verb {
    Stop,
    Halt,
    Resume { epoch: u64 },
    Restart,
    Release,
    Fail(Cause),
}

struct Current {
    number: u64,
    name: &'static str,
    detail: Option<Box<str>>,
    caller_told: Option<&'static str>,
    since: Instant,
}

impl Handle {
    fn new(path: Arc<str>) -> Self {
        let (waker, has_verbs) = (AtomicWaker::new(), AtomicBool::new(false));
        Self(Arc::new(Shared { path, waker, has_verbs, state: Mutex::default() }))
    }

    /// The child's place in the tree.
    pub fn path(&self) -> &Arc<str> {
        &self.0.path
    }

    /// A message is being handled, until what this returns is dropped: kept in the handler or moved into its future.
    /// It names the message in the ledger, and one that takes longer than `stuck_after` is a failure.
    pub fn handling(&self, message: &'static str) -> Handling {
        let mut told = self.lock();
        told.handled += 1;
        let current =
            Current { number: told.handled, name: message, detail: None, caller_told: None, since: Instant::now() };
        told.handling.push(current);
        Handling { handle: self.clone(), number: told.handled }
    }

    /// The child ends: an actor's `stopping` and `stopped` run, a job is dropped when it does not end by itself in time
    /// ([`Handle::stop_requested`]). It is not started again. What the actor was doing in futures is dropped, unless its
    /// `stopping` says `Running::Continue` until it is done.
    pub fn end(&self) {
        {
            let mut told = self.lock();
            told.stopping = true;
            for waker in told.wakers.drain(..) {
                waker.wake();
            }
        }
        self.say(Verb::Stop);
    }

    /// Whether [`Handle::end`] was called.
    pub fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Waits until [`Handle::end`] is called. To be used within the child.
    pub async fn stop_requested(&self) {
        poll_fn(|cx| {
            let mut told = self.lock();
            if told.stopping {
                return Poll::Ready(());
            }
            if !told.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                told.wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// The child has failed, and is supervised as if it had panicked.
    pub fn fail(&self, failure: Failure) {
        self.say(Verb::Fail(failure.0));
    }

    /// An operator's: it is started again now, whatever it is doing. Does not count as a failure.
    pub fn restart(&self) {
        self.say(Verb::Restart);
    }

    /// An operator's: what was wrong is mended. Its failures are forgotten; from quarantine or a backoff it is started
    /// now.
    pub fn release(&self) {
        self.say(Verb::Release);
    }

    pub(super) fn say(&self, verb: Verb) {
        self.lock().verbs.push(verb);
        self.0.has_verbs.store(true, Ordering::Release);
        self.0.waker.wake();
    }

    fn heard(&self) -> Vec<Verb> {
        if self.0.has_verbs.swap(false, Ordering::Acquire) {
            std::mem::take(&mut self.lock().verbs)
        } else {
            Vec::new()
        }
    }

    fn busy_since(&self) -> Option<Instant> {
        self.lock().handling.first().map(|current| current.since)
    }

    /// What was being handled: a panic is the newest's, a child that is stuck is so with the oldest.
    fn take_message(&self, cause: &Cause) -> Option<Message> {
        let mut handling = std::mem::take(&mut self.lock().handling);
        let oldest = matches!(cause, Cause::Stuck { .. });
        let current = if oldest && !handling.is_empty() { handling.swap_remove(0) } else { handling.pop()? };
        Some(Message {
            name: current.name.to_owned(),
            detail: current.detail.map(Into::into),
            caller_told: current.caller_told.map(str::to_owned),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.0.path).finish()
    }
}

/// A message that is being handled.
#[must_use = "the message counts as handled when this is dropped"]
#[derive(Debug)]
pub struct Handling {
    handle: Handle,
    number: u64,
}

impl Handling {
    /// Which one it is: the command's name and id, the event. The first 2,000 bytes are kept.
    pub fn detail(self, detail: impl AsRef<str>) -> Self {
        self.change(|current| current.detail = Some(shortened(detail.as_ref()).into()));
        self
    }

    /// What the caller is told when the child fails while it handles this.
    pub fn caller_told(self, caller_told: &'static str) -> Self {
        self.change(|current| current.caller_told = Some(caller_told));
        self
    }

    fn change(&self, change: impl FnOnce(&mut Current)) {
        let mut told = self.handle.lock();
        if let Some(current) = told.handling.iter_mut().find(|current| current.number == self.number) {
            change(current);
        }
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        // While the child's own panic unwinds, the ledger still needs to know.
        if std::thread::panicking() && panic::is_running(self.handle.path()) {
            return;
        }
        let mut told = self.handle.lock();
        told.handling.retain(|current| current.number != self.number);
        if told.handling.is_empty() {
            told.handling = Vec::new();
        }
    }
}

/// Starts an actor on this arbiter that decides by itself, by the spec's policy, what follows its failures. `make` gets
/// the actor's own handle; it must not fail: what can belongs into `started`.
pub fn start<A>(spec: ChildSpec, make: impl FnOnce(&mut Context<A>, &Handle) -> A) -> (Addr<A>, Handle)
where
    A: Actor<Context = Context<A>> + Supervised,
{
    start_own(spec, make, false)
}

/// As [`start`], for an actor that does not end when nobody holds its address.
pub(super) fn start_kept<A>(spec: ChildSpec, make: impl FnOnce(&mut Context<A>, &Handle) -> A) -> (Addr<A>, Handle)
where
    A: Actor<Context = Context<A>> + Supervised,
{
    start_own(spec, make, true)
}

fn start_own<A>(spec: ChildSpec, make: impl FnOnce(&mut Context<A>, &Handle) -> A, kept: bool) -> (Addr<A>, Handle)
where
    A: Actor<Context = Context<A>> + Supervised,
{
    let handle = Handle::new(Arc::clone(&spec.path));
    let mut context = Context::new();
    let address = context.address();
    let actor = make(&mut context, &handle);
    let keeps = kept.then(|| address.clone());
    let body = ActorBody { future: context.into_future(actor), keeps };
    run(body, handle.clone(), spec.limits, Judge::Own(Box::new(Own::new(spec, &handle))));
    (address, handle)
}

/// Starts an async job on this arbiter that is begun again after a failure. One that returns `Ok` without having been
/// asked to end has failed too.
pub fn start_task(
    spec: ChildSpec,
    job: impl FnMut(&Handle) -> LocalBoxFuture<'static, Result<(), Failure>> + 'static,
) -> Handle {
    let handle = Handle::new(Arc::clone(&spec.path));
    let body = TaskBody { job: Box::new(job), future: None, handle: handle.clone() };
    run(body, handle.clone(), spec.limits, Judge::Own(Box::new(Own::new(spec, &handle))));
    handle
}

fn run<B: Body>(body: B, handle: Handle, limits: Limits, judge: Judge) {
    let (body, phase) = (Some(body), Phase::Running);
    actix_rt::spawn(Runner { body, handle, limits, judge, phase, fresh: true, tainted: false, stuck: None });
}

/// What a runner runs. All of it is called inside `caught`.
pub(super) trait Body: Unpin + 'static {
    /// Works. `Err`: it has failed and says so.
    fn poll(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Cause>>;

    /// Throws away what it was doing, to begin anew at the next poll. False: nobody could reach it any more.
    fn rebuild(&mut self) -> bool;

    /// Asks it to end; it is polled until it has.
    fn stop(&mut self);

    /// It will be dropped: none of its code but `Drop` may run any more.
    fn abandon(&mut self);
}

pub(super) struct ActorBody<A>
where
    A: Actor<Context = Context<A>> + Supervised,
{
    future: ContextFut<A, Context<A>>,
    /// A supervised service must not end because its last address was dropped.
    keeps: Option<Addr<A>>,
}

impl<A> Body for ActorBody<A>
where
    A: Actor<Context = Context<A>> + Supervised,
{
    fn poll(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Cause>> {
        Pin::new(&mut self.future).poll(cx).map(Ok)
    }

    fn rebuild(&mut self) -> bool {
        self.future.restart()
    }

    fn stop(&mut self) {
        self.future.ctx().stop();
    }

    fn abandon(&mut self) {
        self.keeps = None;
        // Otherwise `ContextFut::drop` polls once more, and runs `stopping` and `stopped` on a half-changed state.
        self.future.ctx().terminate();
    }
}

type Job = Box<dyn FnMut(&Handle) -> LocalBoxFuture<'static, Result<(), Failure>>>;

pub(super) struct TaskBody {
    job: Job,
    future: Option<LocalBoxFuture<'static, Result<(), Failure>>>,
    handle: Handle,
}

impl Body for TaskBody {
    fn poll(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Cause>> {
        let (job, handle) = (&mut self.job, &self.handle);
        let future = self.future.get_or_insert_with(|| job(handle));
        future.as_mut().poll(cx).map_err(|failure| failure.0)
    }

    fn rebuild(&mut self) -> bool {
        self.future = None;
        true
    }

    fn stop(&mut self) {}

    fn abandon(&mut self) {
        self.future = None;
    }
}

/// All that a supervisor gives a child at its start, to be used up on the child's arbiter. Dropped before, the child is
/// reported as gone.
pub(super) struct Launch {
    node: Node,
    handle: Handle,
    limits: Limits,
    reporter: Option<Reporter>,
}

impl Launch {
    pub(super) fn new(node: Node, limits: Limits, reporter: Reporter) -> Self {
        let handle = Handle::new(Arc::clone(node.path()));
        node.set_handle(handle.clone());
        Self { node, handle, limits, reporter: Some(reporter) }
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    pub(super) fn actor<A>(
        self,
        mut context: Context<A>,
        keeps: Addr<A>,
        make: impl FnOnce(&mut Context<A>, &Handle, &Node) -> A,
    ) where
        A: Actor<Context = Context<A>> + Supervised,
    {
        let made = caught(self.node.path(), || make(&mut context, &self.handle, &self.node));
        self.run(made.map(|actor| ActorBody { future: context.into_future(actor), keeps: Some(keeps) }));
    }

    pub(super) fn task<J>(self, make: impl FnOnce(&Node) -> J)
    where
        J: FnMut(&Handle) -> LocalBoxFuture<'static, Result<(), Failure>> + 'static,
    {
        let made = caught(self.node.path(), || make(&self.node));
        let handle = self.handle.clone();
        self.run(made.map(|job| TaskBody { job: Box::new(job), future: None, handle }));
    }

    fn run(mut self, made: Result<impl Body, Panic>) {
        let Some(reporter) = self.reporter.take() else { return };
        match made {
            Ok(body) => run(body, self.handle.clone(), self.limits, Judge::Supervisor(reporter)),
            Err(panic) => reporter.report(What::Gone(Cause::Panic(panic))),
        }
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        if let Some(reporter) = &self.reporter {
            reporter.report(What::Gone(Cause::ArbiterGone));
        }
    }
}

/// Who decides what follows a failure.
pub(super) enum Judge {
    Own(Box<Own>),
    Supervisor(Reporter),
}

/// The way to a supervisor.
pub(super) struct Reporter {
    pub(super) child: usize,
    pub(super) epoch: u64,
    pub(super) reports: UnboundedSender<Report>,
}

/// What a supervisor hears of a child.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) child: usize,
    /// Of the last `Verb::Resume`: what was said before it matters no more.
    pub(super) epoch: u64,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Started,
    Failed(Cause, Option<Message>),
    Halted,
    Ended,
    Gone(Cause),
    Restart,
    Release,
}

impl Reporter {
    fn report(&self, what: What) {
        // A supervisor that is gone has nothing left to decide.
        let _ = self.reports.send(Report { child: self.child, epoch: self.epoch, what });
    }
}

pub(super) struct Own {
    parent: Node,
    node: Option<Node>,
    listed: bool,
    kind: &'static str,
    importance: Importance,
    policy: Arc<Policy>,
    record: Record,
    closes_mailbox: bool,
    started_before: bool,
    on_event: Option<Box<dyn FnMut(Event)>>,
}

impl Own {
    fn new(mut spec: ChildSpec, handle: &Handle) -> Self {
        let before = spec.before.take();
        let record = before.as_ref().map(|quarantine| quarantine.record.clone()).unwrap_or_default();
        let node = before.as_ref().map(|quarantine| quarantine.node.clone()).or(spec.node);
        let mut own = Self {
            parent: spec.parent,
            node,
            listed: spec.listed,
            kind: spec.kind,
            importance: spec.importance,
            policy: spec.policy,
            record,
            closes_mailbox: spec.closes_mailbox,
            started_before: before.is_some(),
            on_event: spec.on_event,
        };
        if own.listed || own.node.is_some() {
            own.node(handle);
        }
        if !own.listed {
            own.parent.count_live(true);
        }
        own
    }

    /// The child's node, made when it is first needed: an order that never fails has none.
    fn node(&mut self, handle: &Handle) -> Node {
        let node = match self.node.take() {
            Some(node) => node,
            None if self.listed => {
                let name = handle.path().rsplit('/').next().unwrap_or_default();
                self.parent.child(name, self.kind, self.importance)
            }
            None => self.parent.member(Arc::clone(handle.path()), self.kind, self.importance),
        };
        node.set_handle(handle.clone());
        node.set_policy(Arc::clone(&self.policy));
        self.node = Some(node.clone());
        node
    }

    fn tell(&mut self, event: Event) {
        if let Some(on_event) = &mut self.on_event {
            on_event(event);
        }
    }

    fn set_status(&self, status: Status) {
        if let Some(node) = &self.node {
            node.set_status(status);
        }
    }

    fn started(&mut self) {
        self.record.resumed(Instant::now());
        match &self.node {
            Some(node) if self.started_before => node.restarted(),
            Some(node) => node.set_status(Status::Running),
            None => {}
        }
        if std::mem::replace(&mut self.started_before, true) {
            self.tell(Event::Resumed);
        }
    }

    fn ended(&mut self, ending: Ending) {
        self.set_status(if matches!(ending, Ending::Failed(_)) { Status::Failed } else { Status::Stopped });
        self.tell(Event::Ended(ending));
    }

    /// A fact for the ledger that needs no decision.
    fn write(&mut self, handle: &Handle, cause: Cause, message: Option<Message>, decided: Decided) {
        let node = self.node(handle);
        let after = (decided == Decided::Restart).then_some(Duration::ZERO);
        write_down(&node, &self.policy, &self.record, Written { cause, message, decided, after });
    }

    /// Decides, and writes it down. Returns the decision and its entry.
    fn judge(&mut self, handle: &Handle, cause: Cause, message: Option<Message>) -> (Decision, Arc<Entry>) {
        let node = self.node(handle);
        if !self.listed {
            self.parent.list(&node);
        }
        let decision = self.record.failed(&self.policy, self.importance, Instant::now(), node.chance());
        let (decided, after) = match decision {
            Decision::Restart { after } => (Decided::Restart, Some(after)),
            Decision::Quarantine { after } => (Decided::Quarantine, Some(after)),
            Decision::Escalate => (Decided::Escalate, None),
        };
        let entry = write_down(&node, &self.policy, &self.record, Written { cause, message, decided, after });
        (decision, entry)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if !self.listed {
            self.parent.count_live(false);
        }
    }
}

/// What is new in an entry of the ledger.
pub(super) struct Written {
    pub(super) cause: Cause,
    pub(super) message: Option<Message>,
    pub(super) decided: Decided,
    pub(super) after: Option<Duration>,
}

/// Writes a failure and what follows into the ledger and onto the node.
pub(super) fn write_down(node: &Node, policy: &Policy, record: &Record, new: Written) -> Arc<Entry> {
    let at = node.now();
    let next_try_at = new.after.map(|after| at.after(after));
    let restarts_max = policy.intensity.restarts_max;
    let attempt = match (&new.cause, new.decided) {
        (Cause::Operator, _) => 0,
        (_, Decided::Restart) => record.borne(policy, Instant::now()),
        (_, Decided::Quarantine | Decided::Escalate | Decided::End) => restarts_max,
    };
    let entry = node.ledger().record(Entry {
        seq: 0,
        at,
        node: Arc::clone(node.ledger().node()),
        path: Arc::clone(node.path()),
        kind: node.kind().into(),
        cause: new.cause,
        message: new.message,
        attempt,
        attempts_max: restarts_max,
        within_ms: millis(policy.intensity.within),
        decision: new.decided,
        next_try_at,
    });
    node.failed(Arc::clone(&entry), record.clone());
    node.set_status(match (new.decided, next_try_at) {
        (Decided::Restart, Some(until)) => Status::BackingOff { until },
        (Decided::Quarantine, Some(until)) => Status::Quarantined { until },
        (Decided::Restart | Decided::Quarantine | Decided::Escalate | Decided::End, _) => Status::Failed,
    });
    entry
}

enum Phase {
    Running,
    /// Failed, and started again when the timer fires.
    Waiting(Pin<Box<Sleep>>),
    /// Waits for its supervisor's word.
    Halted,
    /// Asked to end, until the timer fires.
    Stopping(Pin<Box<Sleep>>),
    Done,
}

enum Step {
    Again,
    Wait,
    Done,
}

struct Runner<B: Body> {
    body: Option<B>,
    handle: Handle,
    limits: Limits,
    judge: Judge,
    phase: Phase,
    /// Nothing was polled yet since the last start.
    fresh: bool,
    /// It has panicked and must be rebuilt before it is polled again.
    tainted: bool,
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<B: Body> Future for Runner<B> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.handle.0.waker.register(cx.waker());
        loop {
            for verb in this.handle.heard() {
                this.obey(verb);
            }
            match this.step(cx) {
                Step::Again => {}
                Step::Wait if this.handle.0.has_verbs.load(Ordering::Acquire) => {}
                Step::Wait => return Poll::Pending,
                Step::Done => return Poll::Ready(()),
            }
        }
    }
}

impl<B: Body> Runner<B> {
    fn step(&mut self, cx: &mut Task<'_>) -> Step {
        match &mut self.phase {
            Phase::Running => self.work(cx),
            Phase::Waiting(timer) => {
                if timer.as_mut().poll(cx).is_pending() {
                    return Step::Wait;
                }
                self.resume();
                Step::Again
            }
            Phase::Halted => Step::Wait,
            Phase::Stopping(timer) => {
                let late = timer.as_mut().poll(cx).is_ready();
                self.wind_up(cx, late)
            }
            Phase::Done => Step::Done,
        }
    }

    fn work(&mut self, cx: &mut Task<'_>) -> Step {
        match self.body(|body| body.poll(cx)) {
            Ok(Poll::Pending) => {
                self.announce();
                self.look_for_stuck(cx)
            }
            Ok(Poll::Ready(outcome)) => {
                self.announce();
                self.returned(outcome);
                Step::Again
            }
            Err(panic) => {
                self.tainted = true;
                self.failed(Cause::Panic(panic));
                Step::Again
            }
        }
    }

    /// The body has ended, which it may only when it was asked to.
    fn returned(&mut self, outcome: Result<(), Cause>) {
        let mut asked = false;
        for verb in self.handle.heard() {
            match verb {
                Verb::Stop => asked = true,
                Verb::Fail(cause) => return self.failed(cause),
                Verb::Halt | Verb::Resume { .. } | Verb::Restart | Verb::Release => self.obey(verb),
            }
        }
        match outcome {
            _ if asked => self.finish(Ending::Asked),
            Ok(()) => self.failed(Cause::Stop),
            Err(cause) => self.failed(cause),
        }
    }

    fn look_for_stuck(&mut self, cx: &mut Task<'_>) -> Step {
        let Some(limit) = self.limits.stuck_after else { return Step::Wait };
        loop {
            let due = self.handle.busy_since().map(|since| since + limit);
            let timer = match (&mut self.stuck, due) {
                (None, None) => return Step::Wait,
                (None, Some(due)) => self.stuck.insert(Box::pin(sleep_until(due))),
                // One timer serves many short messages: it is looked at again only when it fires.
                (Some(timer), _) => timer,
            };
            if timer.as_mut().poll(cx).is_pending() {
                return Step::Wait;
            }
            self.stuck = None;
            if due.is_some_and(|due| due <= Instant::now()) {
                self.failed(Cause::Stuck { after_ms: millis(limit) });
                return Step::Again;
            }
        }
    }

    fn wind_up(&mut self, cx: &mut Task<'_>, late: bool) -> Step {
        match self.body(|body| body.poll(cx)) {
            Ok(Poll::Pending) if !late => return Step::Wait,
            Ok(Poll::Pending) => tracing::warn!(path = &**self.handle.path(), "did not stop in time and was dropped"),
            Ok(Poll::Ready(_)) => {}
            Err(Panic { text, place }) => {
                tracing::error!(path = &**self.handle.path(), place, "panic while stopping: {text}");
            }
        }
        self.finish(Ending::Asked);
        Step::Again
    }

    fn obey(&mut self, verb: Verb) {
        match (verb, &self.phase) {
            (_, Phase::Done) => {}
            (Verb::Stop, Phase::Running) => self.stop(),
            (Verb::Stop, Phase::Waiting(_) | Phase::Halted) => self.finish(Ending::Asked),
            (_, Phase::Stopping(_)) => {}
            (Verb::Halt, Phase::Running | Phase::Waiting(_) | Phase::Halted) => self.halt(),
            (Verb::Resume { epoch }, _) => {
                if let Judge::Supervisor(reporter) = &mut self.judge {
                    reporter.epoch = epoch;
                }
                self.resume();
            }
            (Verb::Restart, _) => self.restart(),
            (Verb::Release, _) => self.release(),
            (Verb::Fail(cause), Phase::Running) => self.failed(cause),
            (Verb::Fail(_), Phase::Waiting(_) | Phase::Halted) => {}
        }
    }

    fn stop(&mut self) {
        if self.tainted || self.body(Body::stop).is_err() {
            self.finish(Ending::Asked);
        } else {
            self.phase = Phase::Stopping(Box::pin(sleep(self.limits.stop_within)));
        }
    }

    fn halt(&mut self) {
        self.rebuild();
        self.stuck = None;
        self.handle.lock().handling = Vec::new();
        self.phase = Phase::Halted;
        if let Judge::Supervisor(reporter) = &self.judge {
            reporter.report(What::Halted);
        }
    }

    fn restart(&mut self) {
        match &mut self.judge {
            Judge::Supervisor(reporter) => reporter.report(What::Restart),
            Judge::Own(own) => {
                own.write(&self.handle, Cause::Operator, None, Decided::Restart);
                self.rebuild();
                self.handle.lock().handling = Vec::new();
                self.stuck = None;
                self.resume();
            }
        }
    }

    fn release(&mut self) {
        match &mut self.judge {
            Judge::Supervisor(reporter) => reporter.report(What::Release),
            Judge::Own(own) => {
                own.record.released();
                if matches!(self.phase, Phase::Waiting(_)) {
                    self.resume();
                }
            }
        }
    }

    /// Something went wrong: what it was doing is dropped, and somebody decides.
    fn failed(&mut self, cause: Cause) {
        let message = self.handle.take_message(&cause);
        self.stuck = None;
        // At once, not after the backoff: callers that wait for what was being done learn now.
        let reachable = self.rebuild();
        match &mut self.judge {
            Judge::Supervisor(reporter) => {
                self.phase = Phase::Halted;
                reporter.report(What::Failed(cause, message));
            }
            Judge::Own(own) if !reachable => {
                if cause != Cause::Stop {
                    own.write(&self.handle, cause, message, Decided::End);
                }
                self.finish(Ending::Unreachable);
            }
            Judge::Own(own) => match own.judge(&self.handle, cause, message) {
                (Decision::Restart { after }, entry) => {
                    self.phase = Phase::Waiting(Box::pin(sleep(after)));
                    own.tell(Event::Restarting(entry));
                }
                (Decision::Quarantine { after }, entry) => self.quarantine(after, entry),
                (Decision::Escalate, entry) => self.finish(Ending::Failed(entry)),
            },
        }
    }

    fn quarantine(&mut self, after: Duration, entry: Arc<Entry>) {
        let Judge::Own(own) = &mut self.judge else { return };
        if !own.closes_mailbox {
            self.phase = Phase::Waiting(Box::pin(sleep(after)));
            own.tell(Event::Quarantined(entry, None));
            return;
        }
        let quarantine = Quarantine {
            record: own.record.clone(),
            due: Instant::now() + after,
            until: own.parent.now().after(after),
            handle: self.handle.clone(),
            node: own.node(&self.handle),
        };
        self.close();
        if let Judge::Own(own) = &mut self.judge {
            own.tell(Event::Quarantined(entry, Some(quarantine)));
        }
    }

    /// Makes it ready to begin anew. False: nobody could reach it any more.
    fn rebuild(&mut self) -> bool {
        self.fresh = true;
        match self.body(Body::rebuild) {
            Ok(reachable) => {
                self.tainted = false;
                reachable
            }
            Err(Panic { text, place }) => {
                tracing::warn!(path = &**self.handle.path(), place, "panic while rebuilding, tried again: {text}");
                self.tainted = true;
                true
            }
        }
    }

    fn resume(&mut self) {
        self.phase = Phase::Running;
        if !self.tainted {
            return;
        }
        match self.body(Body::rebuild) {
            Ok(true) => self.tainted = false,
            Ok(false) => self.finish(Ending::Unreachable),
            Err(panic) => self.failed(Cause::Panic(panic)),
        }
    }

    /// It was polled once without a failure: it works.
    fn announce(&mut self) {
        if !std::mem::take(&mut self.fresh) {
            return;
        }
        match &mut self.judge {
            Judge::Supervisor(reporter) => reporter.report(What::Started),
            Judge::Own(own) => own.started(),
        }
    }

    fn finish(&mut self, ending: Ending) {
        self.close();
        match &mut self.judge {
            Judge::Supervisor(reporter) => reporter.report(What::Ended),
            Judge::Own(own) => own.ended(ending),
        }
    }

    fn close(&mut self) {
        self.phase = Phase::Done;
        let path = Arc::clone(self.handle.path());
        if let Some(mut body) = self.body.take()
            && let Err(Panic { text, place }) = caught(&path, move || {
                body.abandon();
                drop(body);
            })
        {
            tracing::error!(path = &*path, place, "panic while it was dropped: {text}");
        }
    }

    fn body<R>(&mut self, code: impl FnOnce(&mut B) -> R) -> Result<R, Panic> {
        let Some(body) = &mut self.body else {
            return Err(Panic { text: "it has ended".to_owned(), place: "unknown".to_owned() });
        };
        caught(self.handle.path(), || code(body))
    }
}

impl<B: Body> Drop for Runner<B> {
    fn drop(&mut self) {
        if matches!(self.phase, Phase::Done) {
            return;
        }
        // The arbiter ends.
        self.close();
        match &mut self.judge {
            Judge::Supervisor(reporter) => reporter.report(What::Gone(Cause::ArbiterGone)),
            Judge::Own(own) => own.set_status(Status::Stopped),
        }
    }
}
