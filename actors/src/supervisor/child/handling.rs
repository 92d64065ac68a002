//! What a child is handling, for as long as it does: named in the ledger when the child fails, and timed to notice one that
//! is stuck.

use tokio::time::Instant;

use super::handle::Handle;
use crate::supervisor::ledger::{Cause, Message};
use crate::supervisor::panic::{self, shortened};

/// A message that is being handled.
#[must_use = "the message counts as handled when this is dropped"]
#[derive(Debug)]
pub struct Handling {
    handle: Handle,
    number: u64,
}

impl Handling {
    pub(super) fn new(handle: Handle, number: u64) -> Self {
        Self { handle, number }
    }

    /// Which one it is: the command's name and id, the event. The first 2,000 bytes are kept.
    pub fn detail(self, detail: impl AsRef<str>) -> Self {
        self.change(|current| current.detail = Some(shortened(detail.as_ref()).into()));
        self
    }

    /// What the caller is told when the child fails while it handles this.
    pub fn caller_told(self, caller_told: &'static str) -> Self {
        self.change(|current| current.caller_told = Some(caller_told));
        self
    }

    fn change(&self, change: impl FnOnce(&mut Current)) {
        self.handle.in_hand(|in_hand| in_hand.find(self.number).map(change));
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        // While the child's own panic unwinds, the ledger still needs to know.
        if std::thread::panicking() && panic::is_running(self.handle.path()) {
            return;
        }
        self.handle.in_hand(|in_hand| in_hand.end(self.number));
    }
}

/// All that a child is handling, the oldest first.
#[derive(Default)]
pub(super) struct InHand {
    messages: Vec<Current>,
    last: u64,
}

struct Current {
    number: u64,
    name: &'static str,
    detail: Option<Box<str>>,
    caller_told: Option<&'static str>,
    since: Instant,
}

impl InHand {
    /// One more. Returns its number.
    pub(super) fn begin(&mut self, name: &'static str) -> u64 {
        self.last += 1;
        let current = Current { number: self.last, name, detail: None, caller_told: None, since: Instant::now() };
        self.messages.push(current);
        self.last
    }

    /// Since when it is handling the oldest.
    pub(super) fn since(&self) -> Option<Instant> {
        self.messages.first().map(|current| current.since)
    }

    /// What is under way is dropped.
    pub(super) fn clear(&mut self) {
        self.messages = Vec::new();
    }

    /// The same, and says at which message it failed: a panic is the newest's, a child that is stuck is so with the
    /// oldest.
    pub(super) fn failed(&mut self, cause: &Cause) -> Option<Message> {
        let mut messages = std::mem::take(&mut self.messages);
        let oldest = matches!(cause, Cause::Stuck { .. });
        let current = if oldest && !messages.is_empty() { messages.swap_remove(0) } else { messages.pop()? };
        Some(current.into())
    }

    fn find(&mut self, number: u64) -> Option<&mut Current> {
        self.messages.iter_mut().find(|current| current.number == number)
    }

    fn end(&mut self, number: u64) {
        self.messages.retain(|current| current.number != number);
        if self.messages.is_empty() {
            self.messages = Vec::new();
        }
    }
}

impl From<Current> for Message {
    fn from(current: Current) -> Self {
        Self {
            name: current.name.to_owned(),
            detail: current.detail.map(Into::into),
            caller_told: current.caller_told.map(str::to_owned),
        }
    }
}
