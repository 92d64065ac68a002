//! Whether something that all orders need is away. A handler says so, or many different orders fail in a row at their
//! first attempt: one event is explained by itself, ten in a row are not.
//!
//! While it is away what comes is only seen, one lane at a time is tried to see whether it is back, and nothing that fails
//! is counted. What was counted in the row is given back.

use std::time::Duration;

use rand::rngs::StdRng;

use super::failing::Blame;
use super::timing::{Gate, wait};
use crate::clock::Timestamp;
use crate::inbox::{Failure, FailureKind, HeadOfLane};
use crate::order::OrderId;
use crate::subscriber::settings::Backoff;

/// Longest wait between two attempts while nobody has said that it is away.
const SUSPECTED_WAIT_MAX: Duration = Duration::from_secs(5);

/// What is known of it.
#[derive(Debug)]
pub(super) struct Dependency {
    /// What it is for, for the log.
    work: &'static str,
    evidence: Evidence,
    gate: Gate,
}

/// What attempts say of it, one after another.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    down: Option<Down>,
    /// What failed at its first attempt, one after another, with nothing that succeeded between; each of another order.
    row: Vec<Failing>,
    /// Somebody said in this cycle that it is away: what succeeded beside that did not need it.
    said: bool,
    /// Something failed in this cycle.
    failed: bool,
}

/// Why it is held to be away.
#[derive(Clone, Debug, PartialEq)]
struct Down {
    suspected: bool,
    trouble: String,
}

/// What failed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failing {
    pub(super) order: OrderId,
    pub(super) head: HeadOfLane,
}

impl Evidence {
    /// Something went through.
    pub(super) fn succeeded(&mut self) {
        self.row.clear();
        if !self.said {
            self.down = None;
        }
    }

    /// Something failed. What that is held against; after that, look for [`Evidence::given_back`].
    pub(super) fn failed(&mut self, failing: Failing, failure: &Failure, first: bool, orders_max: usize) -> Blame {
        self.failed = true;
        if failure.kind == FailureKind::DependencyDown {
            self.said = true;
            let trouble = format!("something that all orders need is said to be away: {failure}");
            self.down = Some(Down { suspected: false, trouble });
            return Blame::Dependency;
        }
        if self.down.is_some() {
            return Blame::Dependency;
        }
        if first && !self.row.iter().any(|other| other.order == failing.order) {
            self.row.push(failing);
        }
        if self.row.len() < orders_max {
            return Blame::Itself;
        }
        let trouble = format!("{} orders failed in a row, the last one with: {failure}", self.row.len());
        self.down = Some(Down { suspected: true, trouble });
        Blame::Dependency
    }

    /// What was counted although it is not to blame, if it has just become known to be away.
    pub(super) fn given_back(&mut self) -> Vec<Failing> {
        if self.down.is_some() { std::mem::take(&mut self.row) } else { Vec::new() }
    }

    /// The orders whose attempts may have to be given back.
    pub(super) fn orders(&self) -> impl Iterator<Item = OrderId> {
        self.row.iter().map(|failing| failing.order)
    }
}

impl Dependency {
    /// It is there, as far as anybody knows.
    pub(super) fn new(work: &'static str) -> Self {
        Self { work, evidence: Evidence::default(), gate: Gate::default() }
    }

    /// What is known, for a cycle that may add to it.
    pub(super) fn evidence(&self) -> Evidence {
        Evidence { said: false, failed: false, ..self.evidence.clone() }
    }

    /// What a cycle has added to it; `in_vain`: lanes were tried, and none got as far as an attempt.
    pub(super) fn learn(
        &mut self,
        subscriber: &str,
        evidence: Evidence,
        in_vain: bool,
        (now, backoff, rng): (Timestamp, &Backoff, &mut StdRng),
    ) {
        let was_down = self.is_down();
        self.evidence = evidence;
        match &self.evidence.down {
            Some(down) if self.evidence.failed => {
                let max = if down.suspected { SUSPECTED_WAIT_MAX } else { Duration::MAX };
                self.gate.shut_for(|attempts| wait(backoff, attempts, rng).min(max), now);
                if !was_down {
                    tracing::warn!(
                        subscriber,
                        work = self.work,
                        trouble = down.trouble,
                        "something that all orders need is away: they wait, and one at a time is tried"
                    );
                }
            }
            Some(_) if in_vain => self.gate.open_at(now),
            Some(_) => {}
            None => self.back(subscriber, was_down),
        }
    }

    /// Nothing is left that could be tried to see whether it is back.
    pub(super) fn forget(&mut self, subscriber: &str) {
        let was_down = self.is_down();
        self.evidence = Evidence::default();
        self.back(subscriber, was_down);
    }

    fn back(&mut self, subscriber: &str, was_down: bool) {
        self.gate.clear();
        if was_down {
            tracing::info!(
                subscriber,
                work = self.work,
                "what all orders need is back, or nothing waits for it any more"
            );
        }
    }

    /// Whether it is away, as far as is known.
    pub(super) fn is_down(&self) -> bool {
        self.gate.is_shut()
    }

    /// Whether something may be tried.
    pub(super) fn admits(&self, now: Timestamp) -> bool {
        self.gate.admits(now)
    }

    /// When something may be tried again, while it may not.
    pub(super) fn wake(&self, now: Timestamp) -> Option<Timestamp> {
        self.gate.wake(now)
    }

    /// Why it is held to be away.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.evidence.down.as_ref().map(|down| &*down.trouble)
    }
}
