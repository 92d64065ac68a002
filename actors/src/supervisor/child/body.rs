//! What can be run: an actor, or an async job. It says how each works, begins anew and ends, and decides nothing.

use std::pin::Pin;
use std::task::{Context as Task, Poll};

use actix::dev::ContextFut;
use actix::{Actor, ActorContext, Addr, Context, Supervised};
use futures_util::future::LocalBoxFuture;

use super::Failure;
use super::handle::Handle;
use crate::supervisor::ledger::Cause;

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

impl<A> ActorBody<A>
where
    A: Actor<Context = Context<A>> + Supervised,
{
    pub(super) fn new(actor: A, context: Context<A>, keeps: Option<Addr<A>>) -> Self {
        Self { future: context.into_future(actor), keeps }
    }
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

impl TaskBody {
    pub(super) fn new(
        job: impl FnMut(&Handle) -> LocalBoxFuture<'static, Result<(), Failure>> + 'static,
        handle: Handle,
    ) -> Self {
        Self { job: Box::new(job), future: None, handle }
    }
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
