//! What a child is handling, for as long as it does: named in the ledger when the child fails, and timed to notice one
//! that is stuck.

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

/// All that a child is handling. One message at a time, which is the rule, allocates nothing; there are as many of these
/// as there are live orders, so what more messages needed is given back.
#[derive(Default)]
pub(super) struct InHand {
    oldest: Option<Current>,
    /// In the order of their beginning. Empty when there is no oldest.
    newer: Vec<Current>,
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
        if self.oldest.is_none() {
            self.oldest = Some(current);
        } else {
            self.newer.push(current);
        }
        self.last
    }

    /// Since when it is handling the oldest.
    pub(super) fn since(&self) -> Option<Instant> {
        self.oldest.as_ref().map(|current| current.since)
    }

    /// What is under way is dropped.
    pub(super) fn clear(&mut self) {
        self.oldest = None;
        self.newer = Vec::new();
    }

    /// The same, and says at which message it failed: a panic is the newest's, a child that is stuck is so with the
    /// oldest.
    pub(super) fn failed(&mut self, cause: &Cause) -> Option<Message> {
        let (oldest, newest) = (self.oldest.take(), std::mem::take(&mut self.newer).pop());
        let current = if matches!(cause, Cause::Stuck { .. }) { oldest } else { newest.or(oldest) };
        current.map(Message::from)
    }

    fn find(&mut self, number: u64) -> Option<&mut Current> {
        self.oldest.iter_mut().chain(&mut self.newer).find(|current| current.number == number)
    }

    fn end(&mut self, number: u64) {
        if self.oldest.as_ref().is_some_and(|oldest| oldest.number == number) {
            self.oldest = (!self.newer.is_empty()).then(|| self.newer.remove(0));
        } else {
            self.newer.retain(|current| current.number != number);
        }
        if self.newer.is_empty() {
            self.newer = Vec::new();
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

#[cfg(test)]
mod tests {
    use super::*;

    const STUCK: Cause = Cause::Stuck { after_ms: 1 };

    fn in_hand<const N: usize>(names: [&'static str; N]) -> (InHand, [u64; N]) {
        let mut in_hand = InHand::default();
        let numbers = names.map(|name| in_hand.begin(name));
        (in_hand, numbers)
    }

    fn blamed(in_hand: &mut InHand, cause: &Cause) -> Option<String> {
        let message = in_hand.failed(cause);
        assert_eq!(in_hand.since(), None, "nothing is in hand after a failure");
        message.map(|message| message.name)
    }

    #[test]
    fn a_panic_is_the_newests_and_what_is_stuck_is_the_oldest() {
        assert_eq!(blamed(&mut in_hand(["a", "b", "c"]).0, &Cause::Stop).as_deref(), Some("c"));
        assert_eq!(blamed(&mut in_hand(["a", "b", "c"]).0, &STUCK).as_deref(), Some("a"));
        assert_eq!(blamed(&mut in_hand(["a"]).0, &Cause::Stop).as_deref(), Some("a"));
        assert_eq!(blamed(&mut in_hand([]).0, &Cause::Stop), None);
        assert_eq!(blamed(&mut in_hand([]).0, &STUCK), None);
    }

    #[test]
    fn messages_end_in_any_order_and_the_others_keep_theirs() {
        for (ends, oldest, newest) in [(0, "b", "d"), (1, "a", "d"), (3, "a", "c")] {
            for (cause, expected) in [(STUCK, oldest), (Cause::Stop, newest)] {
                let (mut in_hand, numbers) = in_hand(["a", "b", "c", "d"]);
                in_hand.end(numbers[ends]);
                assert_eq!(blamed(&mut in_hand, &cause).as_deref(), Some(expected), "after {ends} has ended");
            }
        }
    }

    #[test]
    fn what_began_before_a_failure_ends_nothing_that_began_after_it() {
        let (mut in_hand, [before]) = in_hand(["before"]);
        in_hand.clear();
        in_hand.begin("after");
        in_hand.end(before);
        assert_eq!(blamed(&mut in_hand, &STUCK).as_deref(), Some("after"));
    }

    #[test]
    fn one_message_at_a_time_allocates_nothing_and_what_more_needed_is_given_back() {
        let (mut in_hand, [first]) = in_hand(["first"]);
        assert_eq!(in_hand.newer.capacity(), 0);
        let second = in_hand.begin("second");
        in_hand.end(first);
        assert_eq!((in_hand.newer.capacity(), in_hand.since().is_some()), (0, true));
        in_hand.end(second);
        assert_eq!(in_hand.since(), None);
    }
}
