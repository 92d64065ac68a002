//! The figures over all rows, kept up row by row; and since when something waits.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use crate::clock::Timestamp;
use crate::inbox::{HoldState, Lane, LaneCounts, Row, Totals};
use crate::order::OrderId;

/// Lanes of which it is kept since when they are held; of more, those that are held longest.
const HELD_MAX: usize = 10_000;

/// A row that was `before` is stored as `row`.
pub(super) fn row_written(totals: &mut Totals, before: &Row, row: &Row) {
    let effects = u64::from(row.effects_waiting);
    totals.behind = (totals.behind + row.behind()).saturating_sub(before.behind());
    totals.effects_waiting = (totals.effects_waiting + effects).saturating_sub(u64::from(before.effects_waiting));
    lane_written(&mut totals.applying, &before.applying, &row.applying);
    lane_written(&mut totals.performing, &before.performing, &row.performing);
}

fn lane_written(counts: &mut LaneCounts, before: &Lane, lane: &Lane) {
    if let Some(hold) = lane.hold() {
        *counts.of_mut(hold.state) += 1;
    }
    if let Some(hold) = before.hold() {
        let count = counts.of_mut(hold.state);
        *count = count.saturating_sub(1);
    }
}

/// Since when lanes are held that were met in this life and that go on by themselves.
#[derive(Debug, Default)]
pub(super) struct HeldSince {
    by_time: BTreeSet<(Timestamp, OrderId)>,
    by_order: FxHashMap<OrderId, Timestamp>,
}

impl HeldSince {
    /// The order's row as it is stored.
    pub(super) fn met(&mut self, row: &Row) {
        let since = row.applying.hold().filter(|hold| goes_on(hold.state)).map(|hold| hold.since);
        if let Some(before) = self.by_order.remove(&row.order) {
            self.by_time.remove(&(before, row.order));
        }
        let Some(since) = since else { return };
        self.by_order.insert(row.order, since);
        self.by_time.insert((since, row.order));
        if self.by_time.len() > HELD_MAX
            && let Some((_, youngest)) = self.by_time.pop_last()
        {
            self.by_order.remove(&youngest);
        }
    }

    /// The first of them.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(since, _)| *since)
    }
}

fn goes_on(state: HoldState) -> bool {
    match state {
        HoldState::Attempting | HoldState::Retrying | HoldState::Gap | HoldState::Undecodable => true,
        // Somebody must decide.
        HoldState::Dead | HoldState::Conflicting => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::Hold;

    fn row(order: OrderId, since: i64, state: HoldState) -> Row {
        let hold = Hold::new(state, Timestamp::from_millis(since), None);
        Row { applying: Lane::Held(Box::new(hold)), ..Row::new(order) }
    }

    #[test]
    fn what_waits_longest_is_known_however_much_waits_and_until_it_is_through() {
        let mut held = HeldSince::default();
        let first = OrderId::generate();
        held.met(&row(first, 1, HoldState::Gap));
        for since in 2..20_000 {
            held.met(&row(OrderId::generate(), since, HoldState::Retrying));
            assert!(held.by_order.len() <= HELD_MAX && held.by_order.len() == held.by_time.len());
        }
        assert_eq!(held.oldest(), Some(Timestamp::from_millis(1)));
        held.met(&row(first, 1, HoldState::Dead));
        assert_eq!(held.oldest(), Some(Timestamp::from_millis(2)));
        held.met(&row(first, 1, HoldState::Retrying));
        held.met(&Row::new(first));
        assert_eq!(held.oldest(), Some(Timestamp::from_millis(2)));
    }
}
