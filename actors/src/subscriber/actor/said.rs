//! What the actor says to everybody: its figures, whether it is at work, and what the broker need not bring again.

use tokio::sync::watch;

use super::intake::{Activity, Queue};
use super::{Life, SubscriberActor};
use crate::subscriber::engine::Receipt;
use crate::subscriber::status::{SubscriberState, SubscriberStatus};

/// What it says to everybody.
pub(super) struct Said {
    pub(super) status: watch::Sender<SubscriberStatus>,
    pub(super) activity: watch::Sender<Activity>,
    pub(super) acknowledged: watch::Sender<Option<Receipt>>,
}

impl SubscriberActor {
    pub(super) fn publish(&mut self) {
        self.say_activity();
        let mut status = match &self.life {
            Life::Beginning => self.said.status.borrow().at_rest(SubscriberState::Starting),
            Life::Standby { active_in } => SubscriberStatus {
                active_in: Some(active_in.clone()),
                ..self.said.status.borrow().at_rest(SubscriberState::Standby)
            },
            Life::Active(active) => SubscriberStatus {
                read_to: self.feed.position.clone(),
                ..active.engine.status().counted_on(&active.before)
            },
        };
        if let Some(trouble) = self.lease_trouble().or_else(|| self.feed.trouble.clone())
            && status.state != SubscriberState::Paused
        {
            // What the broker brings is handled although the log cannot be followed.
            if self.lease_trouble().is_some() || !self.queue.as_ref().is_some_and(Queue::is_consumed) {
                status.state = SubscriberState::StoreAway;
            }
            status.trouble = Some(trouble);
        }
        status.queue = self.queue.as_ref().map(Queue::status);
        let queue_trouble = || status.queue.as_ref().and_then(|queue| queue.trouble.clone());
        status.trouble = status.trouble.or_else(queue_trouble);
        self.said.status.send_if_modified(|before| {
            let modified = *before != status;
            *before = status;
            modified
        });
    }

    fn lease_trouble(&self) -> Option<String> {
        let lease_over = matches!(&self.life, Life::Active(active) if active.lease.is_over());
        lease_over.then(|| "the lease is over, and the store does not renew it".to_owned())
    }
}
