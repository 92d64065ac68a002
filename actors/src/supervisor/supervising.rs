//! A supervisor at work: the actor that starts its children in order, hears what becomes of them and does what the
//! policy says. It never runs their code: it says to each what to do and waits for the report.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, AsyncContext, Context, Running, Supervised};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

use super::child::{Failure, Handle, Launch, Verb};
use super::ledger::{Cause, Decided, Message};
use super::policy::{Importance, Siblings, Verdict};
use super::report::{Report, Reporter, What};
use super::tree::{Node, Status, millis};
use super::written::{Written, write_down};
use super::{Child, Supervisor};

/// A child that does not halt for so long has blocked its arbiter.
const HALT_WITHIN: Duration = Duration::from_secs(30);

/// Beyond a child's own time to stop, before its supervisor goes on without it.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(1);

/// The supervisor as an actor.
pub(super) struct Supervising {
    me: Handle,
    node: Node,
    siblings: Siblings,
    slots: Vec<Slot>,
    /// Unbounded, and short: a child says one thing and waits for what comes of it.
    reports: mpsc::UnboundedReceiver<Report>,
    reporter: mpsc::UnboundedSender<Report>,
    to_start: VecDeque<usize>,
    batches: Vec<Batch>,
    stopping: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

struct Slot {
    child: Child,
    node: Node,
    handle: Option<Handle>,
    epoch: u64,
    state: State,
    /// It can never be started again.
    gone: Option<Cause>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Down,
    Starting,
    Up,
    Halting { by: Instant },
    Quarantined { until: Instant },
    Stopping { by: Instant },
    Ended,
}

/// Children that are started together.
struct Batch {
    at: Instant,
    start: Vec<usize>,
}

impl Actor for Supervising {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.to_start = (0..self.slots.len()).collect();
        ctx.spawn(Drive);
        for child in 0..self.slots.len() {
            let slot = &self.slots[child];
            if let (Importance::Essential, Some(cause)) = (slot.child.importance, slot.gone.clone()) {
                self.escalate(child, cause);
            }
        }
    }

    fn stopping(&mut self, _: &mut Self::Context) -> Running {
        self.stopping = true;
        if self.slots.iter().all(|slot| slot.state == State::Ended) { Running::Stop } else { Running::Continue }
    }
}

impl Supervised for Supervising {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.siblings.forget();
        self.batches.clear();
        self.to_start.clear();
        self.timer = None;
        for child in (0..self.slots.len()).rev() {
            self.halt(child, None);
        }
    }
}

impl Drop for Supervising {
    fn drop(&mut self) {
        for slot in self.slots.iter().rev() {
            if let Some(handle) = &slot.handle {
                handle.end();
            }
        }
    }
}

struct Drive;

impl ActorFuture<Supervising> for Drive {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        supervising: &mut Supervising,
        ctx: &mut Context<Supervising>,
        cx: &mut Task<'_>,
    ) -> Poll<()> {
        supervising.drive(ctx, cx);
        Poll::Pending
    }
}

impl Supervising {
    pub(super) fn new(supervisor: Supervisor, node: Node, me: Handle) -> Self {
        let Supervisor { strategy, policy, children } = supervisor;
        let (reporter, reports) = mpsc::unbounded_channel();
        let mut siblings = Siblings::new(strategy, policy);
        let mut slots = Vec::new();
        for child in children {
            siblings.push(child.importance, child.policy);
            let below = node.child(&child.name, child.kind, child.importance);
            below.set_policy(Arc::new(child.policy.unwrap_or(policy)));
            slots.push(Slot { node: below, child, handle: None, epoch: 0, state: State::Down, gone: None });
        }
        let (to_start, batches) = (VecDeque::new(), Vec::new());
        Self { me, siblings, slots, reports, reporter, to_start, batches, stopping: false, timer: None, node }
    }

    fn drive(&mut self, ctx: &mut Context<Self>, cx: &mut Task<'_>) {
        loop {
            while let Poll::Ready(Some(report)) = self.reports.poll_recv(cx) {
                self.hear(report);
            }
            let now = Instant::now();
            if self.stopping {
                if self.stop_next(now) {
                    return ctx.stop();
                }
            } else {
                self.start_due(now);
            }
            self.timer = self.next_due().map(|due| Box::pin(sleep_until(due)));
            if self.timer.as_mut().is_none_or(|timer| timer.as_mut().poll(cx).is_pending()) {
                return;
            }
        }
    }

    fn hear(&mut self, report: Report) {
        let child = report.child;
        let Some(slot) = self.slots.get_mut(child) else { return };
        let current = report.epoch == slot.epoch;
        match report.what {
            What::Started if current && slot.state == State::Starting => self.started(child),
            What::Failed(cause, message) if current => self.failed(child, cause, message),
            What::Halted if current && matches!(slot.state, State::Halting { .. }) => slot.state = State::Down,
            What::Started | What::Failed(..) | What::Halted => {}
            What::Ended => {
                slot.state = State::Ended;
                slot.node.set_status(Status::Stopped);
            }
            What::Gone(cause) => self.gone(child, cause),
            What::Restart => self.restart(child),
            What::Release => self.release(child),
        }
    }

    fn started(&mut self, child: usize) {
        let slot = &mut self.slots[child];
        slot.state = State::Up;
        if slot.epoch == 0 {
            slot.node.set_status(Status::Running);
        } else {
            slot.node.restarted();
        }
        self.siblings.resumed(child, Instant::now());
    }

    fn failed(&mut self, child: usize, cause: Cause, message: Option<Message>) {
        match self.slots[child].state {
            State::Starting | State::Up => {}
            // It was about to be halted or stopped, and now it is down as well.
            State::Halting { .. } => return self.write(child, cause, message, Decided::Restart, Some(Duration::ZERO)),
            State::Stopping { .. } => return self.write(child, cause, message, Decided::End, None),
            State::Down | State::Quarantined { .. } | State::Ended => return,
        }
        self.slots[child].state = State::Down;
        let now = Instant::now();
        match self.siblings.failed(child, now, self.node.chance()) {
            Verdict::Restart { halt, start, after } => {
                self.write(child, cause, message, Decided::Restart, Some(after));
                self.restart_together(halt, start, after);
            }
            Verdict::Quarantine { after } => {
                self.write(child, cause, message, Decided::Quarantine, Some(after));
                self.slots[child].state = State::Quarantined { until: now + after };
            }
            Verdict::Escalate => {
                self.write(child, cause.clone(), message, Decided::Escalate, None);
                self.escalate(child, cause);
            }
        }
    }

    fn gone(&mut self, child: usize, cause: Cause) {
        let state = std::mem::replace(&mut self.slots[child].state, State::Ended);
        if self.stopping || state == State::Ended {
            return;
        }
        self.slots[child].gone = Some(cause.clone());
        match self.slots[child].child.importance {
            Importance::Essential => {
                self.write(child, cause.clone(), None, Decided::Escalate, None);
                self.escalate(child, cause);
            }
            Importance::Isolated => self.write(child, cause, None, Decided::End, None),
        }
    }

    /// An operator's restart takes the same siblings along as a failure, and does not count.
    fn restart(&mut self, child: usize) {
        if self.stopping || matches!(self.slots[child].state, State::Ended | State::Stopping { .. }) {
            return;
        }
        self.write(child, Cause::Operator, None, Decided::Restart, Some(Duration::ZERO));
        let start = self.siblings.together(child);
        let halt = start.iter().rev().copied().collect();
        if matches!(self.slots[child].state, State::Quarantined { .. }) {
            self.slots[child].state = State::Down;
        }
        self.batches.retain(|batch| !batch.start.contains(&child));
        self.restart_together(halt, start, Duration::ZERO);
    }

    fn release(&mut self, child: usize) {
        self.siblings.released(child);
        if matches!(self.slots[child].state, State::Quarantined { .. }) {
            self.slots[child].state = State::Down;
            self.to_start.push_back(child);
        }
        for batch in &mut self.batches {
            if batch.start.contains(&child) {
                batch.at = Instant::now();
            }
        }
    }

    fn restart_together(&mut self, halt: Vec<usize>, mut start: Vec<usize>, after: Duration) {
        for sibling in halt {
            self.halt(sibling, Some(after));
        }
        self.to_start.retain(|waiting| !start.contains(waiting));
        let mut at = Instant::now() + after;
        // A sibling that already waits is started once, with the later of the two.
        self.batches.retain(|batch| {
            let apart = !batch.start.iter().any(|child| start.contains(child));
            if !apart {
                at = at.max(batch.at);
                start.extend(&batch.start);
            }
            apart
        });
        start.sort_unstable();
        start.dedup();
        self.batches.push(Batch { at, start });
    }

    fn halt(&mut self, child: usize, after: Option<Duration>) {
        let slot = &mut self.slots[child];
        match slot.state {
            State::Starting | State::Up => {
                if let Some(handle) = &slot.handle {
                    handle.say(Verb::Halt);
                }
                slot.state = State::Halting { by: Instant::now() + HALT_WITHIN };
                if let Some(after) = after {
                    slot.node.set_status(Status::BackingOff { until: slot.node.now().after(after) });
                } else {
                    slot.node.set_status(Status::Failed);
                }
            }
            State::Quarantined { .. } if after.is_none() => slot.state = State::Down,
            State::Down | State::Halting { .. } | State::Quarantined { .. } | State::Stopping { .. } | State::Ended => {
            }
        }
    }

    fn escalate(&mut self, child: usize, cause: Cause) {
        let cause = match cause {
            Cause::Escalated { .. } => cause,
            cause @ (Cause::Panic(_)
            | Cause::Error { .. }
            | Cause::Stuck { .. }
            | Cause::Stop
            | Cause::ArbiterGone
            | Cause::Operator) => {
                Cause::Escalated { path: Arc::clone(self.slots[child].node.path()), cause: Box::new(cause) }
            }
        };
        self.me.fail(Failure::because(cause));
    }

    fn write(&self, child: usize, cause: Cause, message: Option<Message>, decided: Decided, after: Option<Duration>) {
        let (record, policy) = self.siblings.record(child);
        write_down(&self.slots[child].node, policy, record, Written { cause, message, decided, after });
    }

    fn start_due(&mut self, now: Instant) {
        let halting = |slot: &Slot| matches!(slot.state, State::Halting { .. });
        if self.slots.iter().any(halting) {
            let late = |slot: &Slot| matches!(slot.state, State::Halting { by } if by <= now);
            if let Some(child) = self.slots.iter().position(late) {
                let after_ms = millis(HALT_WITHIN);
                self.gone(child, Cause::Stuck { after_ms });
            }
            return;
        }
        for batch in self.batches.extract_if(.., |batch| batch.at <= now) {
            self.to_start.extend(batch.start);
        }
        for (child, slot) in self.slots.iter_mut().enumerate() {
            if matches!(slot.state, State::Quarantined { until } if until <= now) {
                slot.state = State::Down;
                self.to_start.push_back(child);
            }
        }
        while !self.slots.iter().any(|slot| slot.state == State::Starting) {
            let Some(child) = self.to_start.pop_front() else { return };
            if self.slots[child].state == State::Down {
                self.start(child);
            }
        }
    }

    fn start(&mut self, child: usize) {
        let slot = &mut self.slots[child];
        slot.state = State::Starting;
        if let Some(handle) = &slot.handle {
            slot.epoch += 1;
            return handle.say(Verb::Resume { epoch: slot.epoch });
        }
        let Some(begin) = slot.child.launch.take() else { return };
        let reporter = Reporter { child, epoch: slot.epoch, reports: self.reporter.clone() };
        let launch = Launch::new(slot.node.clone(), slot.child.limits, reporter);
        slot.handle = Some(launch.handle());
        match &slot.child.arbiter {
            // One that is gone drops the launch, which reports it.
            Some(arbiter) => _ = arbiter.spawn_fn(move || begin(launch)),
            None => begin(launch),
        }
    }

    /// Stops the last child that has not ended. True: all have.
    fn stop_next(&mut self, now: Instant) -> bool {
        loop {
            let running = |slot: &Slot| slot.state != State::Ended;
            let Some(child) = self.slots.iter().rposition(running) else { return true };
            let slot = &mut self.slots[child];
            match (&slot.state, &slot.handle) {
                (State::Stopping { by }, _) if *by > now => return false,
                (State::Stopping { .. }, _) => {
                    tracing::error!(path = &**slot.node.path(), "did not stop; going on without it");
                    slot.state = State::Ended;
                }
                (_, None) => slot.state = State::Ended,
                (_, Some(handle)) => {
                    handle.end();
                    slot.state = State::Stopping { by: now + slot.child.limits.stop_within + STOP_GRACE };
                    return false;
                }
            }
        }
    }

    /// When there is something to do that no report tells of.
    fn next_due(&self) -> Option<Instant> {
        let halting = self.slots.iter().any(|slot| matches!(slot.state, State::Halting { .. }));
        let waiting = !self.stopping && !halting;
        let of_slots = self.slots.iter().filter_map(|slot| match slot.state {
            State::Stopping { by } if self.stopping => Some(by),
            State::Halting { by } if !self.stopping => Some(by),
            State::Quarantined { until } if waiting => Some(until),
            State::Stopping { .. }
            | State::Halting { .. }
            | State::Quarantined { .. }
            | State::Down
            | State::Starting
            | State::Up
            | State::Ended => None,
        });
        let of_batches = self.batches.iter().filter(|_| waiting).map(|batch| batch.at);
        of_slots.chain(of_batches).min()
    }
}
