//! Supervision of everything: what fails is started again with its state rebuilt, after a backoff; what keeps failing
//! is quarantined alone, or ends the process with its reason; all of it is data (`tree`, `ledger`).
//!
//! A supervisor is an actor. It owns the order in which its children start, the backoffs and the decisions; the
//! children run wherever they are placed and keep their addresses. A child that comes and goes in thousands is not
//! asked of a supervisor: [`child::start`] lets it decide for itself.

pub mod child;
pub mod ledger;
pub mod panic;
pub mod policy;
mod report;
mod root;
mod supervising;
pub mod tree;
mod written;

#[cfg(test)]
mod tests;

use std::time::Duration;

use actix::dev::channel;
use actix::{Actor, Addr, Context, Supervised};
use actix_rt::ArbiterHandle;
use futures_util::future::LocalBoxFuture;

pub use child::{ChildSpec, Event, Failure, Handle, Limits};
pub use ledger::{Ledger, LedgerStore};
pub use policy::{Backoff, Importance, Intensity, Policy, Strategy};
pub use root::{End, Root};
pub use tree::Node;

use child::Launch;
use supervising::{STOP_GRACE, Supervising};

/// Messages a supervised actor's mailbox is made for. It bounds nothing when addresses are cloned: whoever sends admits.
const MAILBOX_CAPACITY: usize = 64;

/// A supervisor before it is started: its strategy and its children in the order of their start.
pub struct Supervisor {
    strategy: Strategy,
    policy: Policy,
    children: Vec<Child>,
}

impl Supervisor {
    /// None yet to supervise. `policy` counts the failures of all essential children together, and of each isolated one
    /// that has no policy of its own.
    pub fn new(strategy: Strategy, policy: Policy) -> Self {
        Self { strategy, policy, children: Vec::new() }
    }

    /// One more child, started after those before it and stopped before them.
    #[must_use]
    pub fn child(mut self, child: Child) -> Self {
        self.children.push(child);
        self
    }

    /// Starts all of it on this arbiter, as the root of that tree.
    pub fn start(self, root: &Node) -> Root {
        Root::start(self, root)
    }

    fn limits(&self) -> Limits {
        let children = self.children.iter().map(|child| child.limits.stop_within + STOP_GRACE * 2);
        Limits { stuck_after: None, stop_within: children.sum() }
    }
}

/// A child of a supervisor before it is started. Essential, on the supervisor's arbiter, unless it says otherwise.
pub struct Child {
    name: String,
    kind: &'static str,
    importance: Importance,
    arbiter: Option<ArbiterHandle>,
    policy: Option<Policy>,
    limits: Limits,
    launch: Option<Box<dyn FnOnce(Launch) + Send>>,
}

impl Child {
    /// An actor. Its address is good from now on, and as long as the supervisor lives: messages wait in the mailbox
    /// while the actor is down. `make` runs on the actor's arbiter and must not fail: what can belongs into `started`.
    pub fn actor<A>(
        name: &str,
        kind: &'static str,
        make: impl FnOnce(&mut Context<A>, &Handle, &Node) -> A + Send + 'static,
    ) -> (Self, Addr<A>)
    where
        A: Actor<Context = Context<A>> + Supervised,
    {
        let (sender, receiver) = channel::channel(MAILBOX_CAPACITY);
        let address = Addr::new(sender);
        let keeps = address.clone();
        let launch = move |launch: Launch| {
            launch.actor(Context::with_receiver(receiver), keeps, make);
        };
        (Self::new(name, kind, Box::new(launch)), address)
    }

    /// An async job that is begun again after a failure; one that returns `Ok` unasked has failed too. `make` runs on
    /// the job's arbiter and gives the job.
    pub fn task<J>(name: &str, kind: &'static str, make: impl FnOnce(&Node) -> J + Send + 'static) -> Self
    where
        J: FnMut(&Handle) -> LocalBoxFuture<'static, Result<(), Failure>> + 'static,
    {
        let launch = move |launch: Launch| launch.task(make);
        let child = Self::new(name, kind, Box::new(launch));
        child.limits(Limits { stuck_after: None, stop_within: Duration::ZERO })
    }

    /// A supervisor. When it fails, over its own intensity or by a panic, it is one failure of this child.
    pub fn supervisor(name: &str, supervisor: Supervisor) -> Self {
        let limits = supervisor.limits();
        let launch = move |launch: Launch| {
            let (sender, receiver) = channel::channel(1);
            launch.actor(Context::with_receiver(receiver), Addr::new(sender), move |_, handle, node| {
                Supervising::new(supervisor, node.clone(), handle.clone())
            });
        };
        Self::new(name, "supervisor", Box::new(launch)).limits(limits)
    }

    /// Over the intensity, which is its own, it alone is quarantined.
    #[must_use]
    pub fn isolated(mut self) -> Self {
        self.importance = Importance::Isolated;
        self
    }

    /// It runs on that arbiter.
    #[must_use]
    pub fn on(mut self, arbiter: ArbiterHandle) -> Self {
        self.arbiter = Some(arbiter);
        self
    }

    /// A policy of its own. Counts for an isolated child; of an essential one's only [`Intensity::NONE`] does: its first
    /// failure is its supervisor's.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Other limits than the default ones. A job that does not look at [`Handle::stop_requested`] is best stopped
    /// within no time, which is the default for jobs.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    fn new(name: &str, kind: &'static str, launch: Box<dyn FnOnce(Launch) + Send>) -> Self {
        let (name, launch) = (name.to_owned(), Some(launch));
        let importance = Importance::Essential;
        Self { name, kind, importance, arbiter: None, policy: None, limits: Limits::default(), launch }
    }
}
