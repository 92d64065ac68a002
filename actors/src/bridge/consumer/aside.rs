//! What nobody can read, until it is set aside: one after the other, beside what is consumed. A broker that takes nothing
//! for a while holds up neither the deliveries that can be read nor the connection, but only what is acknowledged.
//!
//! There are never more of them than the broker hands out without an acknowledgement.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use super::within;
use crate::broker::{BrokerError, Consume, Delivery, Tag};

/// How long to wait after it did not succeed.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// One of them.
pub(super) struct Unreadable {
    pub(super) delivery: Delivery,
    pub(super) reason: String,
    /// The delivery before it on this connection.
    pub(super) before: Option<Tag>,
}

/// All of them, in the order of their tags.
pub(super) struct Aside {
    pending: VecDeque<Unreadable>,
    /// The first of them is being set aside.
    under_way: Option<BoxFuture<'static, Result<(), BrokerError>>>,
    again_at: Instant,
}

impl Aside {
    pub(super) fn new() -> Self {
        Self { pending: VecDeque::new(), under_way: None, again_at: Instant::now() }
    }

    pub(super) fn push(&mut self, unreadable: Unreadable) {
        self.pending.push_back(unreadable);
    }

    /// Up to which delivery all is done with, when those that can be read are up to that one.
    pub(super) fn done_up_to(&self, done: Tag) -> Option<Tag> {
        match self.pending.front() {
            Some(first) if first.delivery.tag <= done => first.before,
            Some(_) | None => Some(done),
        }
    }

    /// Begins with the first of them, if it is time.
    pub(super) fn begin(&mut self, consume: &dyn Consume, limit: Duration) {
        let Some(Unreadable { delivery, reason, .. }) = self.pending.front() else { return };
        if self.under_way.is_none() && Instant::now() >= self.again_at {
            self.under_way = Some(Box::pin(within(limit, consume.set_aside(delivery, reason))));
        }
    }

    /// Waits until the first of them is set aside, which it gives then. `None`: it is time to begin. After an error it is
    /// tried again later. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Unreadable>, BrokerError> {
        match &mut self.under_way {
            Some(under_way) => {
                let answered = under_way.await;
                self.under_way = None;
                answered.inspect_err(|_| self.again_at = Instant::now() + AGAIN_AFTER)?;
                Ok(self.pending.pop_front())
            }
            None if self.pending.is_empty() => std::future::pending().await,
            None => {
                sleep_until(self.again_at).await;
                Ok(None)
            }
        }
    }
}
