//! What operators and tests see of a subscriber.

use serde::Serialize;

use crate::log::Position;

/// The figures of one subscriber in this process. Counters count since the process began.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SubscriberStatus {
    /// Which one.
    pub name: &'static str,
    /// What it is doing.
    pub state: SubscriberState,
    /// Everything before this place of the log is applied, or counted in `behind`.
    pub position: Option<Position>,
    /// Events seen and not yet applied: in lanes that are held, and waiting to be handled.
    pub behind: u64,
    /// Lanes that are held: retrying, waiting for a gap to be filled, undecodable, conflicting.
    pub lanes_held: u64,
    /// Effects recorded and without an outcome.
    pub effects_waiting: u64,
    /// Events handled.
    pub applied: u64,
    /// Events that had been handled before and came again.
    pub duplicates: u64,
    /// Times that an order's next event was missing and was asked for.
    pub gaps: u64,
    /// Attempts that failed and are made again, of events and of effects.
    pub retries: u64,
    /// Transactions that met a row which somebody else had written.
    pub fenced: u64,
    /// Orders whose log and inbox contradict each other since the process began: somebody restored a backup.
    pub conflicts: u64,
    /// The last thing that went wrong, for as long as it matters.
    pub trouble: Option<String>,
}

/// What a subscriber is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SubscriberState {
    /// It has not yet read its own store.
    Starting,
    /// It reads the whole log, besides following it.
    CatchingUp,
    /// It follows the log.
    Running,
    /// Somebody told it to rest.
    Paused,
    /// Something that all orders need is away: it waits, and probes.
    DependencyDown,
    /// Its own store or the log is away: it waits, and tries again.
    StoreAway,
    /// It was stopped.
    Stopped,
}

impl SubscriberStatus {
    /// Of a subscriber that has not begun.
    pub fn starting(name: &'static str) -> Self {
        Self {
            name,
            state: SubscriberState::Starting,
            position: None,
            behind: 0,
            lanes_held: 0,
            effects_waiting: 0,
            applied: 0,
            duplicates: 0,
            gaps: 0,
            retries: 0,
            fenced: 0,
            conflicts: 0,
            trouble: None,
        }
    }

    /// Whether everything that was committed before `position` is applied and performed. Exact when nothing is
    /// committed behind it.
    pub fn is_settled_at(&self, position: &Position) -> bool {
        let there = self.position.as_ref().is_some_and(|own| own.log == position.log && own.commit == position.commit);
        there && self.state == SubscriberState::Running && self.behind == 0 && self.effects_waiting == 0
    }
}
