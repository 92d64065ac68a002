//! A child's start as its supervisor prepares it: sent to the child's arbiter and used up there.

use std::sync::Arc;

use actix::{Actor, Addr, Context, Supervised};
use futures_util::future::LocalBoxFuture;

use super::body::{ActorBody, Body, TaskBody};
use super::handle::Handle;
use super::judge::Judge;
use super::runner::run;
use super::{Failure, Limits};
use crate::supervisor::ledger::Cause;
use crate::supervisor::panic::{Panic, caught};
use crate::supervisor::report::{Reporter, What};
use crate::supervisor::tree::Node;

/// All that a supervisor gives a child at its start, to be used up on the child's arbiter. Dropped before, the child is
/// reported as gone.
pub(in crate::supervisor) struct Launch {
    node: Node,
    handle: Handle,
    limits: Limits,
    reporter: Option<Reporter>,
}

impl Launch {
    pub(in crate::supervisor) fn new(node: Node, limits: Limits, reporter: Reporter) -> Self {
        let handle = Handle::new(Arc::clone(node.path()));
        node.set_handle(handle.clone());
        Self { node, handle, limits, reporter: Some(reporter) }
    }

    pub(in crate::supervisor) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    pub(in crate::supervisor) fn actor<A>(
        self,
        mut context: Context<A>,
        keeps: Addr<A>,
        make: impl FnOnce(&mut Context<A>, &Handle, &Node) -> A,
    ) where
        A: Actor<Context = Context<A>> + Supervised,
    {
        let made = caught(self.node.path(), || make(&mut context, &self.handle, &self.node));
        self.run(made.map(|actor| ActorBody::new(actor, context, Some(keeps))));
    }

    pub(in crate::supervisor) fn task<J>(self, make: impl FnOnce(&Node) -> J)
    where
        J: FnMut(&Handle) -> LocalBoxFuture<'static, Result<(), Failure>> + 'static,
    {
        let made = caught(self.node.path(), || make(&self.node));
        let handle = self.handle.clone();
        self.run(made.map(|job| TaskBody::new(job, handle)));
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
