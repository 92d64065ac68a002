//! What a broker does not bring is found by following the log, of which only heads are read. They come at the same time as
//! the deliveries or before them, so they are held back for a while: else everything would be read twice, and most of all
//! after an outage.
//!
//! Heads pass in the log's order, and a position passes only behind all heads before it. Holding one back for too long
//! costs time, letting it pass too early costs a look into the log: neither is ever wrong.

use std::collections::VecDeque;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::clock::Timestamp;
use crate::history::Head;
use crate::inbox::Row;
use crate::log::Position;
use crate::order::{OrderId, Version};

/// Heads that are held back, and positions between them. The log is not read further beyond it.
const HELD_MAX: usize = 1 << 16;
/// What was recorded this much earlier than what the broker brings now will not come any more.
const OVERTAKEN_AFTER: Duration = Duration::from_secs(60);
/// What is in the log for this long is in the queue as well, as a rule.
const RELAYED_WITHIN: Duration = Duration::from_secs(2);
/// How long the broker may bring nothing before nothing is expected of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a head is held back before its row is read, if that is not in memory: it may be seen.
const LOOKED_UP_AFTER: Duration = Duration::from_secs(1);
/// And before it is read again.
const LOOKED_UP_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Heads whose rows are read at once.
const LOOKED_UP_MAX: usize = 512;

/// What was read of the log and is held back, and what is known of the queue.
#[derive(Debug, Default)]
pub(super) struct Completeness {
    held: VecDeque<Held>,
    look_up: LookUp,
    /// When the newest event of the last deliveries was recorded.
    delivered: Option<Timestamp>,
    seen_empty_at: Option<Timestamp>,
    /// Events that the broker brought and that are not done with.
    in_hand: usize,
    /// When the broker last brought something, or something that it had brought was done with.
    active_at: Option<Timestamp>,
    consumption: Consumption,
}

/// Rows that are read because of the heads in front.
#[derive(Debug, Default)]
struct LookUp {
    /// Whose rows were asked for last, and when.
    asked: FxHashSet<OrderId>,
    asked_at: Option<Timestamp>,
    under_way: bool,
    /// How far these orders are seen.
    seen: FxHashMap<OrderId, Version>,
}

/// Whether the queue is consumed.
#[derive(Clone, Copy, Debug, Default)]
enum Consumption {
    /// Nobody has said so far, or there is no broker.
    #[default]
    Unknown,
    Consumed,
    /// The broker is away, or the queue is not as it must be, from then on.
    Interrupted(Timestamp),
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
        self.held.extend(heads.into_iter().map(|head| Held::Head { head, arrived_at: now }));
        match self.held.back_mut() {
            Some(Held::Position(last)) => *last = position,
            Some(Held::Head { .. }) | None => self.held.push_back(Held::Position(position)),
        }
    }

    /// The log was opened anew, and a scan of everything follows: these heads and positions mean nothing any more.
    pub(super) fn forget(&mut self) {
        self.held.clear();
        self.look_up = LookUp::default();
    }

    /// The orders whose rows are to be read now, because the head in front has waited for a while and nobody knows whether
    /// it is seen. `is_known`: its row is in memory.
    pub(super) fn look_up(&mut self, now: Timestamp, is_known: impl Fn(OrderId) -> bool) -> Vec<OrderId> {
        let due = self.looked_up_next().is_some_and(|next| next <= now);
        let heads = self.held.iter().filter_map(|held| match held {
            Held::Head { head, .. } => Some(head.order),
            Held::Position(_) => None,
        });
        if !due || heads.clone().next().is_none_or(&is_known) {
            return Vec::new();
        }
        let asked: FxHashSet<_> = heads.take(LOOKED_UP_MAX).filter(|order| !is_known(*order)).collect();
        let orders = asked.iter().copied().collect();
        self.look_up = LookUp { asked, asked_at: Some(now), under_way: true, seen: FxHashMap::default() };
        orders
    }

    /// The answer to it; none when the store did not answer.
    pub(super) fn looked_up(&mut self, rows: &[Row]) {
        self.look_up.under_way = false;
        self.look_up.seen = rows.iter().map(|row| (row.order, row.seen)).collect();
    }

    /// When the head in front is looked up. One that was looked up with those before it waits longer.
    pub(super) fn looked_up_next(&self) -> Option<Timestamp> {
        let look_up = &self.look_up;
        let Some(Held::Head { head, arrived_at }) = self.held.front().filter(|_| !look_up.under_way) else {
            return None;
        };
        let again = look_up.asked_at.filter(|_| look_up.asked.contains(&head.order));
        let again = again.map(|asked| asked.after(LOOKED_UP_AGAIN_AFTER));
        again.into_iter().chain([arrived_at.after(LOOKED_UP_AFTER)]).max()
    }

    /// The broker brought so many events, the newest of them recorded at that time.
    pub(super) fn received(&mut self, events: usize, newest: Option<Timestamp>, now: Timestamp) {
        if events > 0 {
            self.in_hand += events;
            self.active_at = Some(now);
            self.delivered = newest.or(self.delivered);
        }
    }

    /// So many of them are done with.
    pub(super) fn done(&mut self, events: usize, now: Timestamp) {
        if events > 0 {
            self.in_hand = self.in_hand.saturating_sub(events);
            self.active_at = Some(now);
        }
    }

    /// The queue is consumed from now on, or it cannot be.
    pub(super) fn consumed(&mut self, consumed: bool, now: Timestamp) {
        self.consumption = match (consumed, self.consumption) {
            (true, _) => Consumption::Consumed,
            (false, Consumption::Interrupted(since)) => Consumption::Interrupted(since),
            (false, Consumption::Unknown | Consumption::Consumed) => Consumption::Interrupted(now),
        };
    }

    /// Whether the broker brings events now.
    pub(super) fn is_consumed(&self) -> bool {
        matches!(self.consumption, Consumption::Consumed)
    }

    /// The queue was empty.
    pub(super) fn seen_empty(&mut self, now: Timestamp) {
        self.seen_empty_at = Some(now);
    }

    /// What may pass next. `is_seen`: the head is known already, and durably.
    pub(super) fn pass(&mut self, now: Timestamp, is_seen: impl Fn(&Head) -> bool) -> Option<Passed> {
        let seen = &self.look_up.seen;
        let is_seen = |head: &Head| is_seen(head) || seen.get(&head.order).is_some_and(|seen| *seen >= head.last);
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

    /// Each head has a time of its own, but for those that come while the queue is not consumed: they have the time since
    /// then together. Else never more would be read of the log than may be held back in that time.
    fn patient_until(&self, arrived_at: Timestamp) -> Option<Timestamp> {
        let expected_from = match self.consumption {
            Consumption::Unknown | Consumption::Consumed => arrived_at,
            Consumption::Interrupted(since) => since.min(arrived_at),
        };
        let since = self.active_at.map_or(expected_from, |active| active.max(expected_from));
        (self.in_hand == 0).then(|| since.after(PATIENCE))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::log::LogId;
    use crate::order::{OrderId, Version};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_795_000_000_000 + seconds * 1_000)
    }

    fn head(recorded_at: Timestamp) -> Head {
        Head { order: OrderId::generate(), last: Version(1), recorded_at }
    }

    fn position(token: &str) -> Position {
        Position { log: LogId(Uuid::from_u128(1)), token: token.to_owned(), commit: None }
    }

    /// What passes at that time, nothing being seen.
    fn passes(completeness: &mut Completeness, now: Timestamp) -> Vec<Passed> {
        std::iter::from_fn(|| completeness.pass(now, |_| false)).collect()
    }

    #[test]
    fn a_head_that_the_deliveries_have_overtaken_by_a_minute_passes() {
        let mut completeness = Completeness::default();
        let (old, new) = (head(at(0)), head(at(1)));
        completeness.hold(vec![old, new], position("a"), at(100));
        completeness.received(1, Some(at(60)), at(100));
        assert_eq!(passes(&mut completeness, at(100)), []);
        completeness.received(1, Some(at(61)), at(100));
        assert_eq!(passes(&mut completeness, at(100)), [Passed::Head(old)]);
        // Something old that was brought again says nothing.
        completeness.received(1, Some(at(9)), at(100));
        assert_eq!(passes(&mut completeness, at(100)), []);
        completeness.received(1, Some(at(62)), at(100));
        assert_eq!(passes(&mut completeness, at(100)), [Passed::Head(new), Passed::Position(position("a"))]);
    }

    #[test]
    fn a_head_passes_when_the_queue_was_empty_two_seconds_after_it_came() {
        let mut completeness = Completeness::default();
        completeness.seen_empty(at(99));
        let one = head(at(100));
        completeness.hold(vec![one], position("a"), at(100));
        completeness.seen_empty(at(101));
        assert_eq!(passes(&mut completeness, at(110)), []);
        completeness.seen_empty(at(102));
        assert_eq!(passes(&mut completeness, at(110)), [Passed::Head(one), Passed::Position(position("a"))]);
    }

    #[test]
    fn a_head_passes_after_a_minute_in_which_nothing_came_and_nothing_was_in_hand() {
        let mut completeness = Completeness::default();
        let one = head(at(0));
        completeness.hold(vec![one], position("a"), at(0));
        assert_eq!(completeness.wake(), Some(at(60)));
        completeness.received(2, None, at(50));
        assert_eq!((completeness.wake(), passes(&mut completeness, at(500))), (None, vec![]));
        completeness.done(1, at(500));
        assert_eq!((completeness.wake(), passes(&mut completeness, at(600))), (None, vec![]));
        completeness.done(1, at(600));
        // What nobody can read is no sign of life.
        completeness.received(0, None, at(650));
        completeness.done(0, at(650));
        assert_eq!((completeness.wake(), passes(&mut completeness, at(659))), (Some(at(660)), vec![]));
        assert_eq!(passes(&mut completeness, at(660)), [Passed::Head(one), Passed::Position(position("a"))]);
        assert_eq!(completeness.wake(), None);
    }

    #[test]
    fn while_the_queue_is_not_consumed_for_a_minute_heads_pass_as_they_come_however_many() {
        let mut completeness = Completeness::default();
        completeness.consumed(true, at(0));
        completeness.received(1, None, at(0));
        completeness.done(1, at(5));
        completeness.consumed(false, at(1));
        completeness.hold(vec![head(at(50))], position("a"), at(50));
        completeness.consumed(false, at(60));
        assert_eq!((completeness.wake(), passes(&mut completeness, at(64))), (Some(at(65)), vec![]));
        assert_eq!(passes(&mut completeness, at(65)).len(), 2);
        let mut heads = 0;
        for second in 65..75 {
            for _ in 0..20 {
                assert!(completeness.has_room(0));
                completeness.hold(vec![head(at(second)); 1_000], position("b"), at(second));
                let passed = passes(&mut completeness, at(second));
                heads += passed.iter().filter(|passed| matches!(passed, Passed::Head(_))).count();
            }
        }
        assert_eq!(heads, 200_000);
        // As before, once the broker is back; and the next outage begins anew.
        completeness.consumed(true, at(80));
        completeness.hold(vec![head(at(80))], position("c"), at(80));
        assert_eq!((completeness.wake(), passes(&mut completeness, at(139))), (Some(at(140)), vec![]));
        completeness.consumed(false, at(90));
        assert_eq!(completeness.wake(), Some(at(140)), "it waits no longer than it would have");
        completeness.hold(vec![head(at(140))], position("d"), at(140));
        assert_eq!(passes(&mut completeness, at(140)).len(), 2);
        assert_eq!(completeness.wake(), Some(at(150)));
    }

    #[test]
    fn while_something_that_the_broker_brought_is_in_hand_no_head_passes_because_it_is_away() {
        let mut completeness = Completeness::default();
        completeness.received(1, None, at(0));
        completeness.consumed(false, at(1));
        completeness.hold(vec![head(at(1))], position("a"), at(1));
        assert_eq!((completeness.wake(), passes(&mut completeness, at(500))), (None, vec![]));
        completeness.done(1, at(500));
        assert_eq!((completeness.wake(), passes(&mut completeness, at(559))), (Some(at(560)), vec![]));
        assert_eq!(passes(&mut completeness, at(560)).len(), 2);
    }

    #[test]
    fn a_head_that_is_seen_passes_unsaid_and_only_in_its_turn() {
        let mut completeness = Completeness::default();
        let (one, two) = (head(at(0)), head(at(0)));
        completeness.hold(vec![one], position("a"), at(0));
        completeness.hold(vec![two], position("b"), at(0));
        assert_eq!(completeness.pass(at(0), |head| *head == two), None);
        let mut passed = || completeness.pass(at(0), |_| true);
        assert_eq!(
            [passed(), passed(), passed()],
            [Some(Passed::Position(position("a"))), Some(Passed::Position(position("b"))), None]
        );
    }

    #[test]
    fn no_more_is_held_than_may_be_however_often_a_position_moves() {
        let mut completeness = Completeness::default();
        completeness.hold(vec![head(at(0))], position("0"), at(0));
        for _ in 0..HELD_MAX * 2 {
            completeness.hold(Vec::new(), position("1"), at(0));
        }
        assert_eq!(completeness.held.len(), 2);
        while completeness.has_room(10) {
            completeness.hold(vec![head(at(0)); 256], position("1"), at(0));
        }
        assert!(completeness.held.len() < HELD_MAX + 256);
        completeness.forget();
        assert_eq!((completeness.has_room(0), passes(&mut completeness, at(1_000))), (true, vec![]));
    }
}
