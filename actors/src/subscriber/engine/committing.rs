//! What is written, and what follows from its answer: the transaction of a cycle, and the engine's view of the store when
//! it is stored, was fenced, or nobody knows.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::cycle::{Counts, Settled};
use super::failing::Rules;
use super::queue::Mark;
use super::{Action, Commitment, Cycle, Engine, Handled, Phase, Then, totals};
use crate::clock::Timestamp;
use crate::event::Envelope;
use crate::inbox::{
    CatchingUp, Committed, DocumentWrite, InboxError, Lane, NewEffect, Progress, RecordedEffect, Row, RowWrite,
    Transaction, TransactionId,
};
use crate::mutant::Mutant;
use crate::order::OrderId;

impl Engine {
    pub(super) fn commit(
        &mut self,
        candidates: Vec<Arc<Envelope>>,
        handled: Handled,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let results = candidates.iter().map(|event| event.id).zip(handled.results).collect();
        let rules = Rules { now, settings: &self.settings, rng: &mut self.rng };
        let paces = self.asides.view(self.careful_events > 0);
        let mut settled = self.cycle.settle(rules, paces, results);
        let transaction = self.transaction(&mut settled, handled.documents);
        if transaction.is_empty() {
            return self.finish(&transaction, settled, now, actions);
        }
        if self.settings.mutant == Some(Mutant::PerformsBeforeCommit) {
            let recorded = |effect: &NewEffect| RecordedEffect { effect: effect.clone(), outcome: None };
            actions.extend(transaction.effects.iter().map(|effect| Action::Perform(Box::new(recorded(effect)))));
        }
        actions.push(Action::Commit(transaction.clone()));
        self.phase = Phase::Committing(Box::new(Commitment { transaction, then: Then::Finish(Box::new(settled)) }));
    }

    fn transaction(&self, settled: &mut Settled, documents: Vec<DocumentWrite>) -> Arc<Transaction> {
        let id = TransactionId::generate();
        let mut rows = Vec::new();
        for row in settled.rows.values_mut() {
            let before = self.cycle.rows.get(&row.order);
            if before.is_some_and(|before| before == row) {
                continue;
            }
            let was_written_by = row.written_by.replace(id);
            rows.push(RowWrite { was_written_by, row: row.clone() });
        }
        Arc::new(Transaction {
            id,
            rows,
            documents,
            effects: std::mem::take(&mut settled.effects),
            outcomes: std::mem::take(&mut settled.outcomes),
            progress: self.progress_after(&settled.marks),
            ..Transaction::empty(&self.begun)
        })
    }

    /// The last place in the queue that everything before it has passed.
    fn progress_after(&self, marks: &[Mark]) -> Option<Progress> {
        let mut progress = self.progress.clone();
        for mark in marks {
            match (mark, &mut progress) {
                (Mark::Opened(position), _) => {
                    let position = position.clone();
                    progress = Some(Progress { position, catching_up: Some(CatchingUp::default()) });
                }
                (Mark::Followed(position), Some(progress)) => progress.position = position.clone(),
                (Mark::Scanned(key), Some(progress)) => {
                    progress.catching_up = Some(CatchingUp { after: Some(*key) });
                }
                (Mark::ScanEnded, Some(progress)) => progress.catching_up = None,
                (Mark::Followed(_) | Mark::Scanned(_) | Mark::ScanEnded, None) | (Mark::Received { .. }, _) => {}
            }
        }
        progress.filter(|progress| self.progress.as_ref() != Some(progress))
    }

    pub(super) fn answered(
        &mut self,
        answer: Result<Committed, InboxError>,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let commitment = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Committing(commitment) => commitment,
            phase @ (Phase::Idle
            | Phase::Loading
            | Phase::Handling { .. }
            | Phase::Recognising(_)
            | Phase::WaitingForStore(_)
            | Phase::Counting
            | Phase::Ended) => {
                self.phase = phase;
                return;
            }
        };
        match answer {
            Ok(Committed::Written) => {
                self.store_answers();
                self.written(*commitment, now, actions);
            }
            Ok(Committed::Fenced(orders)) => {
                tracing::info!(
                    orders = orders.len(),
                    "rows were written by somebody else, or by this very transaction"
                );
                let orders = commitment.transaction.rows.iter().map(|write| write.row.order).collect();
                actions.push(Action::Load(orders));
                self.phase = Phase::Recognising(commitment);
            }
            Ok(Committed::Superseded) => {
                self.phase = Phase::Ended;
                actions.push(Action::End);
            }
            Err(error) => {
                self.store_away(&error, now);
                self.phase = Phase::WaitingForStore(Some(commitment));
            }
        }
    }

    /// Rows that carry the transaction's id were written by it: its outcome was unknown and is known now. Otherwise they
    /// are another's, and the cycle is gone through again from what is stored.
    pub(super) fn recognise(
        &mut self,
        commitment: Commitment,
        rows: Vec<Row>,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let ours = rows.iter().filter(|row| row.written_by == Some(commitment.transaction.id)).count();
        if ours == commitment.transaction.rows.len() {
            return self.written(commitment, now, actions);
        }
        self.asides.wrote(&commitment.transaction.documents);
        // What was counted may have been counted in a row that holds no more.
        self.cycle.attempting = None;
        self.fenced += 1;
        self.fences_in_a_row = self.fences_in_a_row.saturating_add(1);
        let mut rows: FxHashMap<_, _> = rows.into_iter().map(|row| (row.order, row)).collect();
        for write in &commitment.transaction.rows {
            rows.entry(write.row.order).or_insert_with(|| Row::new(write.row.order));
        }
        self.forget_changed_outcomes(&rows);
        for row in rows.into_values() {
            self.effects.met(&row);
            self.row_written(&row);
            // The transaction may have been stored before somebody else wrote the row, with effects that nobody here
            // knows of.
            if row.effects_waiting > 0 && row.performing.is_ready() {
                self.effects.add(row.order);
            }
            self.will_be_due(&row, now);
            self.cycle.rows.insert(row.order, row);
        }
        if self.fences_in_a_row > 1 {
            self.store.shut(now, &self.settings.backoff, &mut self.rng);
            self.phase = Phase::WaitingForStore(None);
        } else {
            self.load_rows(now, actions);
        }
    }

    /// Somebody else wrote the row: perhaps the outcome, too. What still waits is performed again, under the same id.
    fn forget_changed_outcomes(&mut self, rows: &FxHashMap<OrderId, Row>) {
        for row in rows.values() {
            let changed = self.cycle.rows.get(&row.order).is_some_and(|before| before.written_by != row.written_by);
            let outcomes = self.cycle.outcomes.len();
            self.cycle.outcomes.retain(|performed| !changed || performed.effect.effect.order != row.order);
            if self.cycle.outcomes.len() < outcomes {
                self.effects.drop_order(row.order);
                self.effects.add(row.order);
            }
        }
    }

    /// The transaction is stored.
    fn written(&mut self, commitment: Commitment, now: Timestamp, actions: &mut Vec<Action>) {
        let Commitment { transaction, then } = commitment;
        match then {
            Then::Finish(settled) => self.finish(&transaction, *settled, now, actions),
            Then::Attempt(event) => self.attempt(&transaction, event, actions),
        }
    }

    fn finish(&mut self, transaction: &Transaction, mut settled: Settled, now: Timestamp, actions: &mut Vec<Action>) {
        self.fences_in_a_row = 0;
        self.asides.wrote(&transaction.documents);
        if let Some(progress) = &transaction.progress {
            self.progress = Some(progress.clone());
        }
        self.count(&settled.counts);
        self.learn(&settled, now);
        self.say_what_changed(transaction);
        for write in &transaction.rows {
            self.row_written(&write.row);
        }
        for row in settled.rows.values() {
            self.will_be_due(row, now);
        }
        for effect in &transaction.effects {
            if settled.rows.get(&effect.order).is_some_and(|row| row.performing.is_ready()) {
                self.effects.add(effect.order);
            }
        }
        self.performed_stored(&settled);
        for order in &settled.lanes_tried {
            self.lanes_busy.remove(order);
        }
        self.acknowledge(&settled.marks, now, actions);
        self.attempt_ended();
        self.stored_aside(&mut settled);
        self.put_back(settled);
        self.cycle = Cycle::default();
        self.phase = Phase::Idle;
        self.go_on_aside(now, actions);
        if !(self.store.is_shut() || self.history.is_shut()) {
            self.trouble = None;
        }
    }

    pub(super) fn row_written(&mut self, row: &Row) {
        let new = Row::new(row.order);
        let before = self.cycle.rows.get(&row.order).unwrap_or(&new);
        totals::row_written(&mut self.totals, before, row);
        self.held_since.met(row);
        self.rows.put(row.clone());
    }

    /// Also for a row that is as it was: its lane may have been tried in vain.
    fn will_be_due(&mut self, row: &Row, now: Timestamp) {
        let next = |lane: &Lane| lane.hold().and_then(|hold| hold.next_attempt_at);
        if let Some(at) = next(&row.applying) {
            self.due_applying.add(at.max(now));
        }
        if let Some(at) = next(&row.performing) {
            self.due_performing.add(at.max(now));
        }
    }

    fn performed_stored(&mut self, settled: &Settled) {
        for order in &settled.performed {
            let Some(row) = settled.rows.get(order) else { continue };
            if !row.performing.is_ready() {
                self.effects.held(*order);
            } else if !self.effects.stored(*order) && row.effects_waiting > 0 {
                self.effects.add(*order);
            }
        }
    }

    /// What the receipts stand for is stored. The last one stands for those before it, and those of an earlier session mean
    /// nothing once there is another.
    fn acknowledge(&mut self, marks: &[Mark], now: Timestamp, actions: &mut Vec<Action>) {
        let mut newest = None;
        for mark in marks {
            if let Mark::Received { receipt, events } = mark {
                self.completeness.done(*events, now);
                newest = Some(*receipt);
            }
        }
        actions.extend(newest.map(Action::Acknowledge));
    }

    fn put_back(&mut self, settled: Settled) {
        for lane in settled.lanes_left.into_iter().rev() {
            self.lanes.push_front(lane);
        }
        self.queue.put_back(settled.items_left);
    }

    fn learn(&mut self, settled: &Settled, now: Timestamp) {
        let (name, backoff) = (self.name, &self.settings.backoff);
        let tried_lanes = !settled.lanes_tried.is_empty() && !self.paused;
        self.dependency.learn(name, settled.applying.clone(), tried_lanes, (now, backoff, &mut self.rng));
        self.performing.learn(name, settled.performing.clone(), false, (now, backoff, &mut self.rng));
    }

    fn count(&mut self, counts: &Counts) {
        self.counts.applied += counts.applied;
        self.counts.duplicates += counts.duplicates;
        self.counts.gaps += counts.gaps;
        self.counts.missed += counts.missed;
        self.counts.retries += counts.retries;
        self.counts.conflicts += counts.conflicts;
    }

    /// The store answers again, perhaps.
    pub(super) fn again(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if let Phase::WaitingForStore(commitment) = std::mem::replace(&mut self.phase, Phase::Idle) {
            match commitment {
                Some(commitment) => {
                    actions.push(Action::Commit(commitment.transaction.clone()));
                    self.phase = Phase::Committing(commitment);
                }
                None => self.load_rows(now, actions),
            }
        }
    }

    pub(super) fn store_answers(&mut self) {
        self.store.clear();
    }

    pub(super) fn store_away(&mut self, error: &InboxError, now: Timestamp) {
        self.trouble = Some(error.to_string());
        self.store.shut(now, &self.settings.backoff, &mut self.rng);
    }
}
