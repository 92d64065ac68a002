//! After a life that did not end in order: an event may have ended it. Until those that were in flight have passed, events
//! run one at a time, and each attempt is counted in a transaction of its own before it begins. So an event that ends every
//! process that handles it is found out, and no other one is taken for it.

use std::sync::Arc;

use super::failing::{begun, event_head};
use super::{Action, Batch, Commitment, Engine, Phase, Then};
use crate::clock::Timestamp;
use crate::event::Envelope;
use crate::inbox::{HoldState, Row, RowWrite, Transaction};

/// Batches that may have been in flight: one that was handled, and one that was on its way to be.
const BATCHES: usize = 2;

impl Engine {
    /// Whether events run one at a time.
    pub(super) fn is_careful(&self) -> bool {
        self.careful_events > 0
    }

    /// Events run one at a time for as long as they may have been in flight when a life ended.
    pub(super) fn be_careful(&mut self) {
        self.careful_events = self.settings.batch_events_max.saturating_mul(BATCHES).max(1);
    }

    /// Effects wait for these, while events run one at a time: should one of them end the process, no event must be taken
    /// for it, life after life.
    pub(super) fn has_events_to_attempt(&self, now: Timestamp) -> bool {
        let lanes = self.due_applying.is_asked() || !self.lanes_busy.is_empty();
        !matches!(self.phase, Phase::Idle) || lanes || self.has_work(now)
    }

    /// An attempt of an earlier life that nobody saw end, be it the last one or one before that: what it was at is not handled beside anything else.
    pub(super) fn look_for_open_attempts(&mut self, rows: &[Row]) {
        let open = |row: &Row| row.applying.hold().is_some_and(|hold| hold.state == HoldState::Attempting);
        if !self.is_careful() && rows.iter().any(|row| open(row) && !self.lanes_busy.contains_key(&row.order)) {
            self.be_careful();
        }
    }

    /// The attempt that this life has counted, and that has not ended, goes on: somebody else's write had the cycle gone
    /// through again, or brought its event into another one. It is counted once, and did not end the process: else an
    /// event that harms nobody would be a dead letter after some of those.
    pub(super) fn go_on_with_open_attempt(&mut self) {
        let Some(open) = self.attempt_open.filter(|open| self.cycle.may_handle(*open)) else { return };
        let is_it = |row: &Row| {
            let hold = row.applying.hold().filter(|hold| hold.state == HoldState::Attempting);
            hold.and_then(|hold| hold.head.as_ref()).is_some_and(|head| head.event == open)
        };
        if self.cycle.rows.values().any(is_it) {
            self.cycle.attempting = Some(open);
        }
    }

    /// Counts the attempt at the first of these events. Once that is stored, it begins.
    pub(super) fn count_attempt(&mut self, event: &Arc<Envelope>, now: Timestamp, actions: &mut Vec<Action>) {
        let mut row = self.cycle.rows.get(&event.order).cloned().unwrap_or_else(|| Row::new(event.order));
        row.seen = row.seen.max(event.version);
        row.applying = begun(&row.applying, event_head(event), self.begun.unclean, now);
        let mut transaction = Transaction::empty(&self.begun);
        let was_written_by = row.written_by.replace(transaction.id);
        transaction.rows.push(RowWrite { was_written_by, row });
        let transaction = Arc::new(transaction);
        actions.push(Action::Commit(transaction.clone()));
        let commitment = Commitment { transaction, then: Then::Attempt(event.clone()) };
        self.phase = Phase::Committing(Box::new(commitment));
    }

    /// The attempt is counted.
    pub(super) fn attempt(&mut self, transaction: &Transaction, event: Arc<Envelope>, actions: &mut Vec<Action>) {
        for write in &transaction.rows {
            self.row_written(&write.row);
            self.cycle.rows.insert(write.row.order, write.row.clone());
        }
        self.cycle.attempting = Some(event.id);
        self.attempt_open = Some(event.id);
        let candidates = vec![event];
        actions.push(Action::Handle(Batch {
            events: candidates.clone(),
            unhurried: candidates.iter().map(|event| event.id).collect(),
            written_first: Vec::new(),
        }));
        self.phase = Phase::Handling { candidates };
    }

    /// It ended, one way or another.
    pub(super) fn attempt_ended(&mut self) {
        if self.cycle.attempting.is_some() {
            self.attempt_open = None;
            self.careful_events = self.careful_events.saturating_sub(1);
        }
    }
}
