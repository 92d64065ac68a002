//! One supervised child: an actor, or a plain async job, polled inside `catch_unwind`.
//!
//! An actor that fails keeps its address, its mailbox and the messages in it; what it was doing is dropped and
//! `Supervised::restarting` is called at once, so nobody waits for what will not come, and `started` after the
//! backoff. A panicked future is never polled again before that. A child decides by itself what follows
//! ([`start`]: thousands of order actors), or its supervisor does (`super::Supervisor`).
//!
//! The code of the child's own `Drop` must not panic: two at once end the process.

mod body;
mod handle;
mod handling;
mod judge;
mod launch;
mod quarantine;
mod runner;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Supervised};
use futures_util::future::LocalBoxFuture;

pub use handle::Handle;
pub use handling::Handling;
pub use quarantine::Quarantine;

pub(super) use handle::Verb;
pub(super) use launch::Launch;

use body::{ActorBody, TaskBody};
use judge::{Judge, Own};
use runner::run;

use super::ledger::{Cause, Entry};
use super::panic::shortened;
use super::policy::{Importance, Intensity, Policy};
use super::tree::Node;

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
    let body = ActorBody::new(actor, context, keeps);
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
    let body = TaskBody::new(job, handle.clone());
    run(body, handle.clone(), spec.limits, Judge::Own(Box::new(Own::new(spec, &handle))));
    handle
}
