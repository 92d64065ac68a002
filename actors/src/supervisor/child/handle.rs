//! The hold on a child that itself, its owner and operators have: what is asked of it, and what it is handling.

use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use futures_util::task::AtomicWaker;

use super::Failure;
use super::handling::{Handling, InHand};
use crate::supervisor::ledger::Cause;

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
    in_hand: InHand,
    stopping: bool,
    wakers: Vec<Waker>,
}

#[derive(Debug)]
pub(in crate::supervisor) enum Verb {
    Stop,
    Halt,
    Resume { epoch: u64 },
    Restart,
    Release,
    Fail(Cause),
}

impl Handle {
    pub(super) fn new(path: Arc<str>) -> Self {
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
        let number = self.in_hand(|in_hand| in_hand.begin(message));
        Handling::new(self.clone(), number)
    }

    /// The child ends: an actor's `stopping` and `stopped` run, a job is dropped when it does not end by itself in time
    /// ([`Handle::stop_requested`]). It is not started again. What the actor was doing in futures is dropped, unless its
    /// `stopping` says `Running::Continue` until it is done.
    pub fn end(&self) {
        // First: a child that has ended is asked whether it was to, and it may end as soon as it can know.
        self.say(Verb::Stop);
        let mut told = self.lock();
        told.stopping = true;
        for waker in told.wakers.drain(..) {
            waker.wake();
        }
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

    pub(in crate::supervisor) fn say(&self, verb: Verb) {
        self.lock().verbs.push(verb);
        self.0.has_verbs.store(true, Ordering::Release);
        self.0.waker.wake();
    }

    /// Whoever runs the child is woken when something is asked.
    pub(super) fn register(&self, waker: &Waker) {
        self.0.waker.register(waker);
    }

    pub(super) fn has_verbs(&self) -> bool {
        self.0.has_verbs.load(Ordering::Acquire)
    }

    /// What was asked since it was last heard.
    pub(super) fn heard(&self) -> Vec<Verb> {
        if self.0.has_verbs.swap(false, Ordering::Acquire) {
            std::mem::take(&mut self.lock().verbs)
        } else {
            Vec::new()
        }
    }

    /// Whether something like that was asked and not heard yet.
    pub(super) fn is_told(&self, what: impl FnMut(&Verb) -> bool) -> bool {
        self.lock().verbs.iter().any(what)
    }

    pub(super) fn in_hand<R>(&self, code: impl FnOnce(&mut InHand) -> R) -> R {
        code(&mut self.lock().in_hand)
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
