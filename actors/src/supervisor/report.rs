//! What a supervisor hears of its children, and the way it comes.

use tokio::sync::mpsc::UnboundedSender;

use super::ledger::{Cause, Message};

/// What a supervisor hears of a child.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) child: usize,
    /// Of the last `Verb::Resume`: what was said before it matters no more.
    pub(super) epoch: u64,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Started,
    Failed(Cause, Option<Message>),
    Halted,
    Ended,
    Gone(Cause),
    Restart,
    Release,
}

/// The way to a supervisor.
pub(super) struct Reporter {
    pub(super) child: usize,
    pub(super) epoch: u64,
    pub(super) reports: UnboundedSender<Report>,
}

impl Reporter {
    pub(super) fn report(&self, what: What) {
        // A supervisor that is gone has nothing left to decide.
        let _ = self.reports.send(Report { child: self.child, epoch: self.epoch, what });
    }
}
