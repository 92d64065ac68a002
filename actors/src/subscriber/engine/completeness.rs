//! What a broker does not bring is found by following the log, of which only heads are read. They come at the same time as
//! the deliveries or before them, so they are held back for a while: else everything would be read twice, and most of all
//! after an outage.
//!
//! Heads pass in the log's order, and a position passes only behind all heads before it. Holding one back for too long
//! costs time, letting it pass too early costs a look into the log: neither is ever wrong.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::history::Head;
use crate::log::Position;

/// Heads that are held back, and positions between them. The log is not read further beyond it.
const HELD_MAX: usize = 1 << 16;
/// What was recorded this much earlier than what the broker brings now will not come any more.
const OVERTAKEN_AFTER: Duration = Duration::from_secs(60);
/// What is in the log for this long is in the queue as well, as a rule.
const RELAYED_WITHIN: Duration = Duration::from_secs(2);
/// How long the broker may bring nothing before nothing is expected of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was read of the log and is held back, and what is known of the queue.
#[derive(Debug, Default)]
pub(super) struct Completeness {
    held: VecDeque<Held>,
    /// When the newest event of the last deliveries was recorded.
    delivered: Option<Timestamp>,
    seen_empty_at: Option<Timestamp>,
    /// Events that the broker brought and that are not done with.
    in_hand: usize,
    /// Since when the broker brought nothing, and nothing that it had brought was in hand.
    quiet_since: Option<Timestamp>,
}

#[derive(Debug)]
enum Held {
    Head { head: Head, arrived_at: Timestamp },
    Position(Position),
}

/// What is held back no longer.
#[derive(Debug, PartialEq)]
pub(super) enum Passed {
    /// It must be seen now.
    Head(Head),
    /// Everything before it has passed.
    Position(Position),
}

impl Completeness {
    /// Whether the log may be read further, with so many heads that have passed and wait.
    pub(super) fn has_room(&self, passed: usize) -> bool {
        self.held.len() + passed < HELD_MAX
    }

    /// The log brought these heads, or none; the position is the one behind them.
    pub(super) fn hold(&mut self, heads: Vec<Head>, position: Position, now: Timestamp) {
        self.quiet_since.get_or_insert(now);
        self.held.extend(heads.into_iter().map(|head| Held::Head { head, arrived_at: now }));
        match self.held.back_mut() {
            Some(Held::Position(last)) => *last = position,
            Some(Held::Head { .. }) | None => self.held.push_back(Held::Position(position)),
        }
    }

    /// The log was opened anew, and a scan of everything follows: these heads and positions mean nothing any more.
    pub(super) fn forget(&mut self) {
        self.held.clear();
    }

    /// The broker brought so many events, the newest of them recorded at that time.
    pub(super) fn received(&mut self, events: usize, newest: Option<Timestamp>, now: Timestamp) {
        if events > 0 {
            self.in_hand += events;
            self.quiet_since = Some(now);
            self.delivered = newest.or(self.delivered);
        }
    }

    /// So many of them are done with.
    pub(super) fn done(&mut self, events: usize, now: Timestamp) {
        if events > 0 {
            self.in_hand = self.in_hand.saturating_sub(events);
            self.quiet_since = Some(now);
        }
    }

    /// The queue was empty.
    pub(super) fn seen_empty(&mut self, now: Timestamp) {
        self.seen_empty_at = Some(now);
    }

    /// What may pass next. `is_seen`: the head is known already, and durably.
    pub(super) fn pass(&mut self, now: Timestamp, is_seen: impl Fn(&Head) -> bool) -> Option<Passed> {
        while let Some(held) = self.held.front() {
            let passes = match held {
                Held::Head { head, arrived_at } => is_seen(head) || self.is_due(head, *arrived_at, now),
                Held::Position(_) => true,
            };
            if !passes {
                return None;
            }
            match self.held.pop_front() {
                Some(Held::Head { head, .. }) if is_seen(&head) => {}
                Some(Held::Head { head, .. }) => return Some(Passed::Head(head)),
                Some(Held::Position(position)) => return Some(Passed::Position(position)),
                None => {}
            }
        }
        None
    }

    /// When the next head passes if nothing happens until then.
    pub(super) fn wake(&self) -> Option<Timestamp> {
        match self.held.front() {
            Some(Held::Head { arrived_at, .. }) => self.patient_until(*arrived_at),
            Some(Held::Position(_)) | None => None,
        }
    }

    fn is_due(&self, head: &Head, arrived_at: Timestamp, now: Timestamp) -> bool {
        let overtaken = self.delivered.is_some_and(|newest| head.recorded_at.after(OVERTAKEN_AFTER) < newest);
        let absent = self.seen_empty_at.is_some_and(|at| arrived_at.after(RELAYED_WITHIN) <= at);
        let given_up = self.patient_until(arrived_at).is_some_and(|until| until <= now);
        overtaken || absent || given_up
    }

    fn patient_until(&self, arrived_at: Timestamp) -> Option<Timestamp> {
        let since = self.quiet_since.map_or(arrived_at, |quiet| quiet.max(arrived_at));
        (self.in_hand == 0).then(|| since.after(PATIENCE))
    }
}
