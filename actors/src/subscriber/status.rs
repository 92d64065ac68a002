//! What operators and tests see of a subscriber.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::inbox::{LaneCounts, Totals};
use crate::log::Position;

/// The figures of one subscriber in this process. Counters count since the process began.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SubscriberStatus {
    /// Which one.
    pub name: &'static str,
    /// What it is doing.
    pub state: SubscriberState,
    /// In which process it is active, when that is another one.
    pub active_in: Option<String>,
    /// Everything before this place of the log is applied, or counted in `behind`. `None` where nobody here knows it:
    /// before the subscriber has begun, and while another process is at work.
    pub position: Option<Position>,
    /// Events seen and not yet applied: in lanes that are held, and waiting to be handled. `None` as for `position`.
    pub behind: Option<u64>,
    /// Where the log has been read to: what is behind that place is not counted in `behind`.
    #[serde(skip)]
    pub read_to: Option<Position>,
    /// Since when the event waits that waits longest of those that were read: since it was recorded, or its lane is held.
    /// Dead letters and conflicts, which wait for somebody, do not count.
    #[serde(skip)]
    pub waits_since: Option<Timestamp>,
    /// Lanes whose applying is held: the sum of `applying`. `None` as for `position`.
    pub lanes_held: Option<u64>,
    /// Lanes that are held for handling an event, by their state. `None` as for `position`.
    pub applying: Option<LaneCounts>,
    /// Lanes that are held for performing an effect, by their state. `None` as for `position`.
    pub performing: Option<LaneCounts>,
    /// Effects recorded and without an outcome. `None` as for `position`.
    pub effects_waiting: Option<u64>,
    /// Events handled.
    pub applied: u64,
    /// Events that had been handled before and came again.
    pub duplicates: u64,
    /// Times that an order's next event was missing and was asked for.
    pub gaps: u64,
    /// Events that the broker did not bring in time, and that were read from the log instead.
    pub missed: u64,
    /// Attempts that failed and are made again, of events and of effects.
    pub retries: u64,
    /// Transactions that met a row which somebody else had written.
    pub fenced: u64,
    /// Orders whose log and inbox contradict each other since the process began: somebody restored a backup.
    pub conflicts: u64,
    /// Its queue at the broker; `None`: it follows the log itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueStatus>,
    /// The last thing that went wrong, for as long as it matters.
    pub trouble: Option<String>,
}

/// A subscriber's figures, with what is asked for only when somebody wants to see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// As this process knows them, and where the subscriber is not at work here, as far as its store knows them.
    #[serde(flatten)]
    pub status: SubscriberStatus,
    /// Whether it was told to rest. `None`: its store does not answer.
    pub paused: Option<bool>,
    /// Events and effects that failed too often, each holding its order. `None` as for `position`.
    pub dead_letters: Option<u64>,
    /// Events that it has still to handle: seen and not yet applied, in its queue at the broker, and, where it follows the
    /// log itself, in the log behind what it has read. `None`: nobody here knows it.
    pub lag_events: Option<u64>,
    /// Whether `lag_events` is less than exact: what is in a queue may come twice, what is behind in the log is counted by
    /// commits, and in a process that stands by neither is known.
    pub lag_is_approximate: bool,
    /// How long the event waits that waits longest, apart from dead letters and conflicts, which wait for somebody. `None`:
    /// nobody here knows it.
    pub lag_ms: Option<u64>,
}

/// What is known of events that have not come yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ahead {
    /// So many lie in the log behind what was read.
    InLog(u64),
    /// So many wait in the queue.
    InQueue(u64),
    /// Nobody here knows.
    Unknown,
}

impl Figures {
    pub(super) fn new(status: SubscriberStatus, paused: Option<bool>, ahead: Ahead, now: Timestamp) -> Self {
        let counts = status.applying.zip(status.performing);
        let (more, is_exact) = match ahead {
            Ahead::InLog(events) | Ahead::InQueue(events) => (events, events == 0),
            Ahead::Unknown => (0, false),
        };
        let lag_events = status.behind.map(|behind| behind + more);
        let wait_for_somebody = status.applying.is_some_and(|held| held.all() == held.dead + held.conflicting);
        let lag_ms = match status.waits_since {
            _ if lag_events == Some(0) && is_exact => Some(0),
            Some(since) => u64::try_from(now.since(since).as_millis()).ok(),
            None if status.state.is_at_work() && is_exact && wait_for_somebody => Some(0),
            None => None,
        };
        Self {
            paused,
            dead_letters: counts.map(|(applying, performing)| applying.dead + performing.dead),
            lag_is_approximate: !is_exact,
            lag_events,
            lag_ms,
            status,
        }
    }
}

/// A subscriber's queue at the broker, as this process sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QueueStatus {
    /// How this process stands to it.
    pub state: QueueState,
    /// Messages that waited in it when somebody looked last, about a second ago. `None` while nobody here can look.
    pub waiting: Option<u64>,
    /// Messages that nobody can read and that were set aside. Counted since the process began.
    pub unreadable: u64,
    /// What is wrong with it, and what to do.
    pub trouble: Option<String>,
}

/// How a process stands to a subscriber's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueState {
    /// The subscriber is not active here, and nothing is taken from it.
    Idle,
    /// A connection is being made.
    Connecting,
    /// What is in it is taken.
    Consuming,
    /// The broker does not answer: what is committed is read from the log, after the first minute as it comes.
    Away,
    /// There is a queue of that name that is not as it must be. Nothing is taken from it, and what is committed is read
    /// from the log, after the first minute as it comes.
    Mismatch,
}

impl QueueStatus {
    /// Of a queue that nobody here has to do with.
    pub fn idle() -> Self {
        Self { state: QueueState::Idle, waiting: None, unreadable: 0, trouble: None }
    }
}

/// What a subscriber is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SubscriberState {
    /// It has not yet read its own store.
    Starting,
    /// It is active in another process, and takes over here when that one ends or is not heard of any more.
    Standby,
    /// It reads the whole log, besides following it.
    CatchingUp,
    /// It follows the log.
    Running,
    /// Somebody told it to rest.
    Paused,
    /// Something that all orders need is away: it waits, and probes.
    DependencyDown,
    /// Its own store is away, or the log while no broker brings events: it waits, and tries again.
    StoreAway,
    /// It was stopped.
    Stopped,
}

impl SubscriberState {
    /// Whether the subscriber has its lease in this process.
    pub fn is_at_work(self) -> bool {
        match self {
            Self::Starting | Self::Standby | Self::StoreAway | Self::Stopped => false,
            Self::CatchingUp | Self::Running | Self::Paused | Self::DependencyDown => true,
        }
    }
}

impl SubscriberStatus {
    /// Of a subscriber that has not begun.
    pub fn starting(name: &'static str) -> Self {
        Self {
            name,
            state: SubscriberState::Starting,
            active_in: None,
            position: None,
            behind: None,
            read_to: None,
            waits_since: None,
            lanes_held: None,
            applying: None,
            performing: None,
            effects_waiting: None,
            applied: 0,
            duplicates: 0,
            gaps: 0,
            missed: 0,
            retries: 0,
            fenced: 0,
            conflicts: 0,
            queue: None,
            trouble: None,
        }
    }

    /// Whether everything that was committed before `position` is applied and performed. Exact when nothing is
    /// committed behind it.
    pub fn is_settled_at(&self, position: &Position) -> bool {
        let there = self.position.as_ref().is_some_and(|own| own.log == position.log && own.commit == position.commit);
        let settled = (self.behind, self.effects_waiting) == (Some(0), Some(0));
        there && self.state == SubscriberState::Running && settled
    }

    /// The same with what the rows add up to.
    #[must_use]
    pub(super) fn with_totals(self, totals: &Totals) -> Self {
        let Totals { behind, applying, performing, effects_waiting } = *totals;
        Self {
            behind: Some(behind),
            lanes_held: Some(applying.all()),
            applying: Some(applying),
            performing: Some(performing),
            effects_waiting: Some(effects_waiting),
            ..self
        }
    }

    /// The same with what was counted before as well.
    #[must_use]
    pub(super) fn counted_on(mut self, before: &Self) -> Self {
        self.applied += before.applied;
        self.duplicates += before.duplicates;
        self.gaps += before.gaps;
        self.missed += before.missed;
        self.retries += before.retries;
        self.fenced += before.fenced;
        self.conflicts += before.conflicts;
        self
    }

    /// What remains to be said when nobody here is at work: what was counted.
    #[must_use]
    pub(super) fn at_rest(&self, state: SubscriberState) -> Self {
        let nothing = Self { state, ..Self::starting(self.name) };
        nothing.counted_on(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(state: SubscriberState, totals: Option<Totals>, since: Option<i64>, ahead: Ahead) -> Figures {
        let status = SubscriberStatus { state, ..SubscriberStatus::starting("test") };
        let status = totals.map_or(status.clone(), |totals| status.with_totals(&totals));
        let status = SubscriberStatus { waits_since: since.map(Timestamp::from_millis), ..status };
        Figures::new(status, None, ahead, Timestamp::from_millis(10_000))
    }

    fn lag(figures: &Figures) -> (Option<u64>, bool, Option<u64>) {
        (figures.lag_events, figures.lag_is_approximate, figures.lag_ms)
    }

    fn held(behind: u64, applying: LaneCounts) -> Totals {
        Totals { behind, applying, ..Totals::default() }
    }

    #[test]
    fn what_waits_is_added_up_and_what_nobody_knows_is_not_made_up() {
        let running = SubscriberState::Running;
        let nothing = Totals::default();
        assert_eq!(lag(&figures(running, Some(nothing), None, Ahead::InLog(0))), (Some(0), false, Some(0)));
        let behind = held(3, LaneCounts { gap: 1, ..LaneCounts::default() });
        let waits = figures(running, Some(behind), Some(4_000), Ahead::InQueue(7));
        assert_eq!(lag(&waits), (Some(10), true, Some(6_000)));
        let resting = figures(SubscriberState::Paused, Some(behind), None, Ahead::InLog(0));
        assert_eq!(lag(&resting), (Some(3), false, None));
        let standby = figures(SubscriberState::Standby, Some(behind), None, Ahead::Unknown);
        assert_eq!(lag(&standby), (Some(3), true, None));
        let unknown = figures(SubscriberState::Starting, None, None, Ahead::Unknown);
        assert_eq!((lag(&unknown), unknown.dead_letters), ((None, true, None), None));
    }

    #[test]
    fn what_waits_for_somebody_makes_nothing_late() {
        let dead = LaneCounts { dead: 2, conflicting: 1, ..LaneCounts::default() };
        let totals = Totals { performing: LaneCounts { dead: 5, ..LaneCounts::default() }, ..held(9, dead) };
        let figures = figures(SubscriberState::Running, Some(totals), None, Ahead::InQueue(0));
        assert_eq!((lag(&figures), figures.dead_letters), ((Some(9), false, Some(0)), Some(7)));
    }
}
