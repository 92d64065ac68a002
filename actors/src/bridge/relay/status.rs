//! What operators and tests see of the relay.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

use super::Trouble;
use crate::broker::BrokerError;
use crate::clock::Timestamp;
use crate::log::Position;

/// The figures of the relay in this process. Counters count since the process began.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RelayStatus {
    /// What it is doing.
    pub state: RelayState,
    /// In which process it is active, when that is another one.
    pub active_in: Option<String>,
    /// Everything before this place was taken by the broker. `None` where nobody here knows it.
    pub position: Option<Position>,
    /// Events that the broker has taken.
    pub published: u64,
    /// Of these, events for which there was no queue. Subscribers get them from the log.
    pub unroutable: u64,
    /// When the newest event that the broker has taken was recorded.
    pub recorded_at: Option<Timestamp>,
    /// When the oldest event was recorded that was read and not yet taken.
    pub waiting_since: Option<Timestamp>,
    /// Why it does not publish, while it does not.
    pub trouble: Option<String>,
}

/// What the relay is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayState {
    /// It has no term or no connection yet.
    Starting,
    /// It is active in another process, and takes over here when that one ends or is not heard of any more.
    Standby,
    /// It publishes what is committed.
    Publishing,
    /// The broker is away, and is tried again and again.
    BrokerAway,
    /// Something at the broker is not what docket declares. Only people can mend it; it is looked at again each minute.
    Mismatch,
    /// The broker takes nothing: it is out of memory or of disk. The relay waits.
    Blocked,
    /// The order service's store is away, and is tried again and again.
    StoreAway,
    /// It was stopped.
    Stopped,
}

impl RelayStatus {
    pub(super) fn starting() -> Self {
        Self {
            state: RelayState::Starting,
            active_in: None,
            position: None,
            published: 0,
            unroutable: 0,
            recorded_at: None,
            waiting_since: None,
            trouble: None,
        }
    }

    /// How far it is behind: the age of the oldest event that waits for the broker. Zero when none does.
    pub fn lag(&self, now: Timestamp) -> Duration {
        self.waiting_since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// A life begins. What made the last one fail is said until this one has found that it is better.
    pub(super) fn begin(&mut self) {
        match self.state {
            RelayState::BrokerAway | RelayState::Mismatch | RelayState::StoreAway => {}
            RelayState::Starting
            | RelayState::Standby
            | RelayState::Publishing
            | RelayState::Blocked
            | RelayState::Stopped => self.rest(RelayState::Starting),
        }
    }

    /// Nothing is known of the log here any more.
    pub(super) fn rest(&mut self, state: RelayState) {
        let (published, unroutable) = (self.published, self.unroutable);
        *self = Self { state, published, unroutable, ..Self::starting() };
    }

    /// Whether that is news.
    pub(super) fn stand_by(&mut self, by: &str) -> bool {
        let news = self.active_in.as_deref() != Some(by);
        self.rest(RelayState::Standby);
        self.active_in = Some(by.to_owned());
        news
    }

    /// Whether that is news.
    pub(super) fn fail(&mut self, trouble: &Trouble) -> bool {
        let before = (self.state, self.trouble.take());
        self.active_in = None;
        self.trouble = Some(trouble.to_string());
        self.state = match trouble {
            Trouble::Broker(BrokerError::Away(_)) => RelayState::BrokerAway,
            Trouble::Broker(BrokerError::Mismatch(_)) => RelayState::Mismatch,
            Trouble::Log(_) | Trouble::Checkpoint(_) | Trouble::Late(_) => RelayState::StoreAway,
        };
        (self.state, &self.trouble) != (before.0, &before.1)
    }

    /// It can publish; or cannot for the moment, for that reason.
    pub(super) fn work(&mut self, blocked: Option<&str>) {
        self.state = if blocked.is_some() { RelayState::Blocked } else { RelayState::Publishing };
        (self.active_in, self.trouble) = (None, blocked.map(str::to_owned));
    }
}

/// The relay as everybody else sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RelayHandle(watch::Receiver<RelayStatus>);

impl RelayHandle {
    pub(super) fn new(status: watch::Receiver<RelayStatus>) -> Self {
        Self(status)
    }

    /// Its figures now, in this process.
    pub fn status(&self) -> RelayStatus {
        self.0.borrow().clone()
    }

    /// The same, to wait for changes.
    pub fn watch(&self) -> watch::Receiver<RelayStatus> {
        self.0.clone()
    }
}
