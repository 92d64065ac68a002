//! What the log of the process is told of lanes: once, when it is stored. What waits for something that is away is not told
//! one by one.

use super::Engine;
use crate::inbox::{Failure, Hold, HoldState, Lane, Row, Transaction, Work};

impl Engine {
    /// Compares the rows of the transaction with what they were.
    pub(super) fn say_what_changed(&self, transaction: &Transaction) {
        for write in &transaction.rows {
            let (row, before) = (&write.row, self.cycle.rows.get(&write.row.order));
            self.say_lane(row, Work::Applying, before.map(|row| &row.applying), &row.applying);
            self.say_lane(row, Work::Performing, before.map(|row| &row.performing), &row.performing);
        }
    }

    fn say_lane(&self, row: &Row, work: Work, before: Option<&Lane>, lane: &Lane) {
        let Some(hold) = lane.hold() else { return };
        let before = before.and_then(Lane::hold);
        let state_changed = before.is_none_or(|before| before.state != hold.state);
        let failed_again = before.map_or(0, attempts_that_failed) < hold.attempts;
        match hold.state {
            HoldState::Dead if state_changed => self.say_dead(row, hold),
            HoldState::Conflicting if state_changed => {
                self.say_waits(row, hold, "its log contradicts what was applied")
            }
            HoldState::Undecodable if state_changed => self.say_waits(row, hold, "its next event cannot be read here"),
            HoldState::Retrying if failed_again => self.say_retrying(row, work, hold),
            HoldState::Gap if failed_again && hold.attempts > 1 => self.say_gap(row, hold),
            HoldState::Attempting
            | HoldState::Retrying
            | HoldState::Gap
            | HoldState::Dead
            | HoldState::Undecodable
            | HoldState::Conflicting => {}
        }
    }

    fn say_dead(&self, row: &Row, hold: &Hold) {
        let (event, letter) = named(row, hold);
        tracing::error!(
            subscriber = self.name, order.id = %row.order, event.id = event,
            correlation.id = self.correlation(hold), attempts = hold.attempts,
            kind = kind(hold), place = place(hold), error = text(hold),
            "a dead letter: its order waits until somebody decides; see `docket dead-letters show {} {letter}`", self.name
        );
    }

    fn say_waits(&self, row: &Row, hold: &Hold, why: &str) {
        tracing::error!(
            subscriber = self.name, order.id = %row.order, error = text(hold),
            "an order is held: {why}"
        );
    }

    fn say_retrying(&self, row: &Row, work: Work, hold: &Hold) {
        let (event, _) = named(row, hold);
        let what = match work {
            Work::Applying => "an event could not be handled and is tried again",
            Work::Performing => "an effect could not be performed and is tried again",
        };
        tracing::warn!(
            subscriber = self.name, order.id = %row.order, event.id = event,
            correlation.id = self.correlation(hold), attempt = hold.attempts,
            kind = kind(hold), place = place(hold), error = text(hold), "{what}"
        );
    }

    fn correlation(&self, hold: &Hold) -> &str {
        let origin = hold.head.as_ref().and_then(|head| self.cycle.origin(head));
        origin.map_or("", |origin| &origin.correlation_id)
    }

    fn say_gap(&self, row: &Row, hold: &Hold) {
        tracing::warn!(
            subscriber = self.name, order.id = %row.order, looks = hold.attempts, error = text(hold),
            "what an order's lane waits for is looked for again"
        );
    }
}

fn attempts_that_failed(hold: &Hold) -> u32 {
    hold.attempts.saturating_sub(u32::from(hold.state == HoldState::Attempting))
}

/// The event at the head of the lane, and what an operator calls the dead letter.
fn named(row: &Row, hold: &Hold) -> (String, String) {
    let Some(head) = &hold.head else { return (String::new(), String::new()) };
    let effect = head.effect.map(|index| format!(".{index}")).unwrap_or_default();
    (head.event.to_string(), format!("{}.{}{effect}", row.order, head.version))
}

fn kind(hold: &Hold) -> &'static str {
    hold.failure().map_or("", |failure| failure.kind.name())
}

fn place(hold: &Hold) -> &str {
    hold.failure().and_then(|failure| failure.place.as_deref()).unwrap_or_default()
}

fn text(hold: &Hold) -> &str {
    hold.failure().map_or("", |Failure { text, .. }| text)
}
