//! Rows kept in memory, a bounded number of them. A cached row is only a guess: every write is fenced by the stored one.

use rustc_hash::FxHashMap;

use crate::inbox::Row;
use crate::order::OrderId;

/// The rows used last: those of the present half, and those of the half before it.
#[derive(Debug)]
pub(super) struct Rows {
    half_max: usize,
    young: FxHashMap<OrderId, Row>,
    old: FxHashMap<OrderId, Row>,
}

impl Rows {
    /// At most `max` rows.
    pub(super) fn new(max: usize) -> Self {
        Self { half_max: (max / 2).max(1), young: FxHashMap::default(), old: FxHashMap::default() }
    }

    /// The order's row, when it is kept.
    pub(super) fn get(&self, order: OrderId) -> Option<&Row> {
        self.young.get(&order).or_else(|| self.old.get(&order))
    }

    /// Keeps a row in the place of an older one. Not one that is held: it is wanted rarely, and its failures may be long.
    pub(super) fn put(&mut self, row: Row) {
        self.old.remove(&row.order);
        if !(row.applying.is_ready() && row.performing.is_ready()) {
            self.young.remove(&row.order);
            return;
        }
        self.young.insert(row.order, row);
        if self.young.len() >= self.half_max {
            self.old = std::mem::take(&mut self.young);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::{Hold, HoldState, Lane};

    #[test]
    fn keeps_the_newest_and_never_more_than_it_may() {
        let mut rows = Rows::new(10);
        let orders: Vec<_> = (0..100).map(|_| OrderId::generate()).collect();
        for &order in &orders {
            rows.put(Row::new(order));
            assert!(rows.young.len() + rows.old.len() <= 10);
            assert!(rows.get(order).is_some());
        }
        assert!(rows.get(orders[0]).is_none());
    }

    #[test]
    fn keeps_no_failures_and_nothing_older_in_their_place() {
        let mut rows = Rows::new(10);
        let order = OrderId::generate();
        let hold = Hold::new(HoldState::Retrying, crate::clock::Timestamp::from_millis(1), None);
        let held = || Lane::Held(Box::new(hold.clone()));
        for row in [Row { applying: held(), ..Row::new(order) }, Row { performing: held(), ..Row::new(order) }] {
            rows.put(Row::new(order));
            rows.put(row);
            assert!(rows.get(order).is_none());
        }
    }
}
