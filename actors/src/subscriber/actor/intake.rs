//! How events come from a broker: what the actor and its consumer say to each other.
//!
//! What is handed over belongs to a session, one connection within one life of the actor. When either is over, what is
//! left of it is refused: the broker brings it again, to the session that follows.

use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, Context, Handler, MailboxError, Message};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Life, SubscriberActor};
use crate::broker::Tag;
use crate::event::Envelope;
use crate::subscriber::engine::{Input, Receipt, Session};
use crate::subscriber::status::{QueueState, QueueStatus};

/// A subscriber that takes nothing for this long hangs: its mailbox is never that long behind.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// Whether the subscriber is at work in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Activity {
    /// Which life is; `None`: it is not, or not certainly.
    pub(crate) life: Option<u64>,
    /// It takes no more messages: what it has is finished, and then its life is over.
    pub(crate) leaving: bool,
    /// Whether it takes more messages now.
    pub(crate) has_room: bool,
}

/// The consumer's way to the actor. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Intake {
    address: Addr<SubscriberActor>,
    activity: watch::Receiver<Activity>,
    acknowledged: watch::Receiver<Option<Receipt>>,
}

/// Deliveries. The answer: whether the session goes on. Their receipt is acknowledged later; that of what comes while the
/// subscriber leaves never is, nor is anything behind it.
#[derive(Message)]
#[rtype(result = "bool")]
pub(crate) struct Deliver {
    pub(crate) session: Session,
    /// The last of them.
    pub(crate) tag: Tag,
    /// What they say, without what nobody can read.
    pub(crate) events: Vec<Arc<Envelope>>,
    /// How many nobody can read.
    pub(crate) unreadable: u64,
}

/// What the consumer sees of the queue.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Observe {
    session: Session,
    observed: Observed,
}

/// See [`Observe`].
#[derive(Clone, Debug)]
pub(crate) enum Observed {
    /// It is consumed.
    Consuming,
    /// So many messages wait in it.
    Waiting(u64),
    /// None waits in it, and everything that was taken from it was handed over before.
    Empty,
    /// The broker does not answer.
    Away(String),
    /// It is not as it must be.
    Mismatch(String),
}

/// The queue as the consumer told of it last.
#[derive(Debug)]
pub(super) struct Queue {
    session: Option<Session>,
    status: QueueStatus,
}

impl Default for Queue {
    fn default() -> Self {
        Self { session: None, status: QueueStatus::idle() }
    }
}

impl Queue {
    pub(super) fn status(&self) -> QueueStatus {
        self.status.clone()
    }

    pub(super) fn is_consumed(&self) -> bool {
        self.status.state == QueueState::Consuming
    }

    /// The subscriber is at work here, or not.
    fn is_of(&mut self, life: Option<u64>) {
        if self.session.map(|session| session.life) == life {
            return;
        }
        self.session = life.map(|life| Session { life, connection: 0 });
        let state = if life.is_some() { QueueState::Connecting } else { QueueState::Idle };
        self.status = QueueStatus { state, waiting: None, trouble: None, ..self.status.clone() };
    }

    /// Whether that is the present session, or a later connection of this life, which is the present one from now on.
    fn admits(&mut self, session: Session) -> bool {
        match &mut self.session {
            Some(present) if present.life == session.life && present.connection <= session.connection => {
                *present = session;
                true
            }
            Some(_) | None => false,
        }
    }

    fn observed(&mut self, observed: &Observed) {
        let status = &mut self.status;
        (status.state, status.waiting, status.trouble) = match observed {
            Observed::Consuming => (QueueState::Consuming, status.waiting, None),
            Observed::Waiting(waiting) => (QueueState::Consuming, Some(*waiting), None),
            Observed::Empty => (QueueState::Consuming, Some(0), None),
            Observed::Away(why) => (QueueState::Away, None, Some(why.clone())),
            Observed::Mismatch(why) => (QueueState::Mismatch, None, Some(why.clone())),
        };
    }
}

impl Handler<Deliver> for SubscriberActor {
    type Result = bool;

    fn handle(&mut self, deliver: Deliver, ctx: &mut Context<Self>) -> bool {
        let Deliver { session, tag, events, unreadable } = deliver;
        let Some(queue) = self.queue.as_mut().filter(|_| matches!(self.life, Life::Active(_))) else { return false };
        if !queue.admits(session) {
            return false;
        }
        if self.leaving {
            return true;
        }
        queue.status.unreadable += unreadable;
        self.take(Input::Received(events, Receipt { session, tag }), ctx);
        true
    }
}

impl Handler<Observe> for SubscriberActor {
    type Result = ();

    fn handle(&mut self, Observe { session, observed }: Observe, ctx: &mut Context<Self>) {
        let Some(queue) = &mut self.queue else { return };
        if !queue.admits(session) {
            return;
        }
        queue.observed(&observed);
        match observed {
            Observed::Empty => self.take(Input::QueueSeenEmpty, ctx),
            Observed::Consuming => self.take(Input::QueueConsumed(true), ctx),
            Observed::Away(_) | Observed::Mismatch(_) => self.take(Input::QueueConsumed(false), ctx),
            Observed::Waiting(_) => self.publish(),
        }
    }
}

impl SubscriberActor {
    /// A lease that is over may be another process's: what is consumed here would be missing there. Who leaves has still
    /// to have acknowledged what is finished.
    pub(super) fn say_activity(&mut self) {
        let activity = match &self.life {
            Life::Active(active) if !active.lease.is_over() => {
                let has_room = !self.leaving && active.engine.wants_messages();
                Activity { life: Some(active.number), leaving: self.leaving, has_room }
            }
            Life::Active(_) | Life::Beginning | Life::Standby { .. } => Activity::default(),
        };
        if let Some(queue) = &mut self.queue {
            queue.is_of(activity.life);
        }
        self.said.activity.send_if_modified(|before| std::mem::replace(before, activity) != activity);
    }
}

impl Intake {
    pub(super) fn new(
        address: Addr<SubscriberActor>,
        activity: watch::Receiver<Activity>,
        acknowledged: watch::Receiver<Option<Receipt>>,
    ) -> Self {
        Self { address, activity, acknowledged }
    }

    /// Waits until the subscriber is at work here. In which life.
    pub(crate) async fn at_work(&mut self) -> u64 {
        let is_at_work = |activity: &Activity| activity.life.is_some() && !activity.leaving;
        match self.activity.wait_for(is_at_work).await.map(|activity| activity.life) {
            Ok(Some(life)) => life,
            // It is gone for good.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Waits until that life is over, or nobody knows whether it is.
    pub(crate) async fn over(&mut self, life: u64) {
        // When the subscriber is gone for good its life is over, too.
        drop(self.activity.wait_for(|activity| activity.life != Some(life)).await);
    }

    /// Whether the subscriber takes more messages now.
    pub(crate) fn has_room(&self) -> bool {
        self.activity.borrow().has_room
    }

    /// Waits until it does.
    pub(crate) async fn room(&mut self) {
        if self.activity.wait_for(|activity| activity.has_room).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until more of that session's deliveries are done with than those up to that tag.
    pub(crate) async fn done(&mut self, session: Session, after: Option<Tag>) -> Tag {
        let is_new = |receipt: &Option<Receipt>| {
            receipt.is_some_and(|receipt| receipt.session == session && Some(receipt.tag) > after)
        };
        match self.acknowledged.wait_for(is_new).await.map(|receipt| receipt.map(|receipt| receipt.tag)) {
            Ok(Some(tag)) => tag,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Hands deliveries over. False: nobody took them, or not in time, and the session is over.
    pub(crate) async fn deliver(&self, deliver: Deliver) -> bool {
        in_time(self.address.send(deliver)).await.unwrap_or(false)
    }

    /// Says what is seen of the queue. One that hangs is found out when deliveries are handed over.
    pub(crate) async fn observe(&self, session: Session, observed: Observed) {
        // A subscriber that is gone needs not know.
        let _ = in_time(self.address.send(Observe { session, observed })).await;
    }
}

/// The subscriber's answer; `None`: it is gone, or hangs. What it takes later is brought again by then, and counts once.
async fn in_time<T>(answer: impl Future<Output = Result<T, MailboxError>>) -> Option<T> {
    timeout(TAKEN_WITHIN, answer).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_subscriber_that_never_answers_is_not_waited_for_longer_than_it_may_take() {
        let began = Instant::now();
        assert_eq!(in_time(std::future::pending::<Result<bool, _>>()).await, None);
        assert_eq!(began.elapsed(), TAKEN_WITHIN);
        assert_eq!(in_time(async { Err::<bool, _>(MailboxError::Closed) }).await, None);
        assert_eq!(in_time(async { Ok(true) }).await, Some(true));
    }
}
