//! What bounds the work that orders take in, and how its callers get an answer whatever becomes of it. An actor's mailbox
//! bounds nothing (its capacity counts per sender), so places are counted here, at the edge.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

use super::error::NotDone;
use super::{CommandError, Order, ReadError, Version};

/// A number of places.
#[derive(Debug)]
pub(super) struct Admission {
    max: usize,
    taken: AtomicUsize,
}

impl Admission {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, taken: AtomicUsize::new(0) })
    }

    /// A place, unless all are taken.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Place> {
        // Relaxed: the number alone matters, no other memory is read because of it.
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(self));
        (before < self.max).then_some(place)
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// A place that is taken as long as this is there.
#[derive(Debug)]
pub(super) struct Place(Arc<Admission>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What an order's actor answers to a command.
#[derive(Debug)]
pub(super) enum Answered {
    /// The order as the command left it.
    Done { order: Arc<Order>, replayed: bool },
    /// The command was done before; the order as it left it is this earlier version, to be read.
    ReplayedAt(Version),
}

/// A caller's end that is never left without an answer: dropped, it says what is known.
#[derive(Debug)]
pub(super) struct Reply<T> {
    sender: Option<oneshot::Sender<T>>,
    lost: fn(begun: bool) -> T,
    begun: bool,
}

impl<T> Reply<T> {
    /// From here on the outcome is open until it is known: should the reply be lost, the caller is told so.
    pub(super) fn begun(&mut self) {
        self.begun = true;
    }

    /// What was begun is certainly not done, and will be begun anew.
    pub(super) fn not_begun(&mut self) {
        self.begun = false;
    }

    pub(super) fn send(mut self, answer: T) {
        self.say(answer);
    }

    fn say(&mut self, answer: T) {
        if let Some(sender) = self.sender.take() {
            // A caller who went away has withdrawn nothing: what was decided holds.
            drop(sender.send(answer));
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        let answer = (self.lost)(self.begun);
        self.say(answer);
    }
}

pub(super) type CommandReply = Reply<Result<Answered, CommandError>>;
pub(super) type ReadReply = Reply<Result<Arc<Order>, ReadError>>;

/// How long a caller is asked to wait when nothing better is known.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) fn not_done(why: NotDone) -> CommandError {
    CommandError::NotDone { why, retry_after: RETRY_AFTER }
}

pub(super) fn not_read(why: NotDone) -> ReadError {
    ReadError::NotDone { why, retry_after: RETRY_AFTER }
}

pub(super) fn command_reply() -> (CommandReply, oneshot::Receiver<Result<Answered, CommandError>>) {
    let (sender, receiver) = oneshot::channel();
    let lost = |begun| Err(if begun { CommandError::OutcomeUnknown } else { not_done(NotDone::OrderQuarantined) });
    (Reply { sender: Some(sender), lost, begun: false }, receiver)
}

pub(super) fn read_reply() -> (ReadReply, oneshot::Receiver<Result<Arc<Order>, ReadError>>) {
    let (sender, receiver) = oneshot::channel();
    let lost = |_| Err(not_read(NotDone::OrderQuarantined));
    (Reply { sender: Some(sender), lost, begun: false }, receiver)
}
