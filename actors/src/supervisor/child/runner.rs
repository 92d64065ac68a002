//! The future that runs a child: polls its body inside `catch_unwind`, does what is asked through its handle, and after
//! a failure what its judge says. A body that panicked is not polled again before it was rebuilt.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::body::Body;
use super::handle::{Handle, Verb};
use super::handling::InHand;
use super::judge::Judge;
use super::{Ending, Event, Limits};
use crate::supervisor::ledger::{Cause, Decided, Entry};
use crate::supervisor::panic::{Panic, caught};
use crate::supervisor::policy::Decision;
use crate::supervisor::report::What;
use crate::supervisor::tree::millis;

/// Runs it on this arbiter.
pub(super) fn run<B: Body>(body: B, handle: Handle, limits: Limits, judge: Judge) {
    let (body, phase) = (Some(body), Phase::Running);
    actix_rt::spawn(Runner { body, handle, limits, judge, phase, fresh: true, tainted: false, stuck: None });
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

impl<B: Body> Future for Runner<B> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.handle.register(cx.waker());
        loop {
            for verb in this.handle.heard() {
                this.obey(verb);
            }
            match this.step(cx) {
                Step::Again => {}
                Step::Wait if this.handle.has_verbs() => {}
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
            // One timer serves many short messages: what is in hand is looked at only when it fires.
            if let Some(timer) = &mut self.stuck {
                if timer.as_mut().poll(cx).is_pending() {
                    return Step::Wait;
                }
                self.stuck = None;
            }
            let Some(since) = self.handle.in_hand(|in_hand| in_hand.since()) else { return Step::Wait };
            let due = since + limit;
            if due <= Instant::now() {
                self.failed(Cause::Stuck { after_ms: millis(limit) });
                return Step::Again;
            }
            self.stuck = Some(Box::pin(sleep_until(due)));
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
        self.handle.in_hand(InHand::clear);
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
                self.handle.in_hand(InHand::clear);
                self.stuck = None;
                self.resume();
            }
        }
    }

    fn release(&mut self) {
        match &mut self.judge {
            Judge::Supervisor(reporter) => reporter.report(What::Release),
            Judge::Own(own) => {
                own.released();
                if matches!(self.phase, Phase::Waiting(_)) {
                    self.resume();
                }
            }
        }
    }

    /// Something went wrong: what it was doing is dropped, and somebody decides.
    fn failed(&mut self, cause: Cause) {
        let message = self.handle.in_hand(|in_hand| in_hand.failed(&cause));
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
        let quarantine = own.quarantine(after, &self.handle);
        if quarantine.is_none() {
            self.phase = Phase::Waiting(Box::pin(sleep(after)));
        } else {
            self.close();
        }
        if let Judge::Own(own) = &mut self.judge {
            own.tell(Event::Quarantined(entry, quarantine));
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
        if std::mem::take(&mut self.fresh) {
            self.judge.started();
        }
    }

    fn finish(&mut self, ending: Ending) {
        self.close();
        self.judge.ended(ending);
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
        self.close();
        self.judge.arbiter_gone();
    }
}
