//! What operators decide while something is under way: an effect that they let go of has its outcome, whatever its attempt
//! says later; and a lane that is held for an effect that is done with goes on.

use super::failing::{effect_head, is_same};
use super::{Engine, Performed};
use crate::clock::Timestamp;
use crate::inbox::{Lane, Row};
use crate::order::OrderId;

impl Engine {
    /// Leaves those results in the cycle whose effects still wait. Of the other orders what waits is performed.
    pub(super) fn sift_outcomes(&mut self, now: Timestamp) {
        let outcomes = std::mem::take(&mut self.cycle.outcomes);
        for performed in outcomes {
            let order = performed.effect.effect.order;
            let row = self.cycle.rows.get(&order);
            if !row.is_some_and(|row| self.is_decided(&performed, row)) {
                self.cycle.outcomes.push(performed);
                continue;
            }
            self.effects.drop_order(order);
            if row.is_some_and(|row| row.performing.is_ready()) {
                self.effects.add(order);
            } else {
                self.due_performing.add(now);
            }
        }
    }

    /// Whether somebody has let go of the effect since its attempt began: the lane that was held for it is not any more; or
    /// what asked for it is not in the log, and counts as never applied.
    fn is_decided(&self, performed: &Performed, row: &Row) -> bool {
        let effect = &performed.effect.effect;
        let is_held = |lane: &Lane| {
            lane.hold().is_some_and(|hold| hold.head.as_ref().is_none_or(|head| is_same(head, &effect_head(effect))))
        };
        let let_go = effect.version > row.applied || self.effects.is_let_go(effect.order);
        let_go || (self.effects.was_held(effect) && !is_held(&row.performing))
    }

    /// The rows that are held for performing something. The others have nothing to perform, and are to be ready again.
    pub(super) fn with_effects(&mut self, rows: Vec<Row>) -> Vec<Row> {
        let (waiting, without): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.effects_waiting > 0);
        self.nothing_to_perform.extend(without.into_iter().map(|row| row.order));
        waiting
    }

    pub(super) fn take_nothing_to_perform(&mut self) -> Vec<OrderId> {
        std::mem::take(&mut self.nothing_to_perform)
    }
}
