//! What waits to be handled, in the order in which it came: events, heads of the log, and marks behind them that say what
//! may be stored or said once everything in front of them is stored.
//!
//! Each source of events has a limit of its own, so that none takes the room of another.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::broker::Tag;
use crate::clock::Timestamp;
use crate::commit::{Commit, CommitKey};
use crate::event::Envelope;
use crate::history::Head;
use crate::log::Position;
use crate::order::{OrderId, Version};

/// Something that waits.
#[derive(Clone, Debug)]
pub(super) enum Item {
    /// An event.
    Event { envelope: Arc<Envelope>, source: Source },
    /// The order's stream reaches that far.
    Head(Head),
    /// A scan has met all of the order's events, up to that one.
    End { order: OrderId, last: Version },
    /// Everything in front of it came from before this place.
    Mark(Mark),
}

/// From where an event came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The log that is followed.
    Log,
    /// The scan of the log: it may well be one that came before.
    Scan,
    /// The broker.
    Broker,
}

/// A place in the queue.
#[derive(Clone, Debug)]
pub(super) enum Mark {
    /// The log was opened there, and a scan follows.
    Opened(Position),
    /// The log was followed up to there.
    Followed(Position),
    /// The scan has come so far.
    Scanned(CommitKey),
    /// The scan has met everything.
    ScanEnded,
    /// The broker may be told that these deliveries are done with; so many events are in front of it.
    Received { receipt: Receipt, events: usize },
}

/// Which deliveries of the broker: those up to that tag, of that session. The engine only hands it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Whose deliveries.
    pub session: Session,
    /// The last of them.
    pub tag: Tag,
}

/// One connection to the broker within one life of a subscriber. Later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Session {
    /// The life: from one term that was begun in this process to its end.
    pub life: u64,
    /// The connection.
    pub connection: u64,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    /// Events of the log, followed or scanned.
    of_log: usize,
    of_broker: usize,
    heads: usize,
}

impl Queue {
    /// The commits' events.
    pub(super) fn push_commits(&mut self, commits: &[Arc<Commit>], source: Source) {
        for envelope in commits.iter().flat_map(|commit| commit.envelopes()) {
            self.push(Item::Event { envelope: Arc::new(envelope), source });
        }
    }

    /// Deliveries of the broker, and their receipt.
    pub(super) fn push_received(&mut self, events: Vec<Arc<Envelope>>, receipt: Receipt) {
        let count = events.len();
        for envelope in events {
            self.push(Item::Event { envelope, source: Source::Broker });
        }
        match self.items.back_mut() {
            Some(Item::Mark(Mark::Received { receipt: last, .. })) if last.session == receipt.session => {
                *last = receipt
            }
            Some(_) | None => self.mark(Mark::Received { receipt, events: count }),
        }
    }

    /// A scan has met all of the order's events.
    pub(super) fn push_end(&mut self, order: OrderId, last: Version) {
        self.push(Item::End { order, last });
    }

    /// A head of the log.
    pub(super) fn push_head(&mut self, head: Head) {
        self.push(Item::Head(head));
    }

    /// Of positions with nothing between them only the last is kept: there may be many while the store is away.
    pub(super) fn mark_followed(&mut self, position: Position) {
        match self.items.back_mut() {
            Some(Item::Mark(Mark::Followed(last))) => *last = position,
            Some(_) | None => self.mark(Mark::Followed(position)),
        }
    }

    /// Another mark.
    pub(super) fn mark(&mut self, mark: Mark) {
        self.push(Item::Mark(mark));
    }

    /// What was taken and not reached.
    pub(super) fn put_back(&mut self, items: VecDeque<Item>) {
        for item in items.into_iter().rev() {
            if let Some(count) = self.count(&item) {
                *count += 1;
            }
            self.items.push_front(item);
        }
    }

    /// Everything up to that many events and heads, and the marks behind them.
    pub(super) fn take(&mut self, max: usize) -> VecDeque<Item> {
        let mut taken = 0;
        let mut items = VecDeque::new();
        while let Some(item) = self.items.pop_front() {
            if let Some(count) = self.count(&item) {
                if taken == max {
                    self.items.push_front(item);
                    break;
                }
                *count -= 1;
                taken += 1;
            }
            items.push_back(item);
        }
        items
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether there is nothing but a place up to which the log was followed.
    pub(super) fn is_lone_position(&self) -> bool {
        self.items.len() == 1 && matches!(self.items.front(), Some(Item::Mark(Mark::Followed(_))))
    }

    /// How many events wait.
    pub(super) fn events(&self) -> usize {
        self.of_log + self.of_broker
    }

    /// When the first event that waits was recorded.
    pub(super) fn waits_since(&self) -> Option<Timestamp> {
        first_event(&self.items)
    }

    /// How many of them came from the log.
    pub(super) fn events_of_log(&self) -> usize {
        self.of_log
    }

    /// How many of them came from the broker.
    pub(super) fn events_of_broker(&self) -> usize {
        self.of_broker
    }

    /// How many heads wait.
    pub(super) fn heads(&self) -> usize {
        self.heads
    }

    fn push(&mut self, item: Item) {
        if let Some(count) = self.count(&item) {
            *count += 1;
        }
        self.items.push_back(item);
    }

    fn count(&mut self, item: &Item) -> Option<&mut usize> {
        match item {
            Item::Event { source: Source::Log | Source::Scan, .. } => Some(&mut self.of_log),
            Item::Event { source: Source::Broker, .. } => Some(&mut self.of_broker),
            Item::Head(_) => Some(&mut self.heads),
            Item::End { .. } | Item::Mark(_) => None,
        }
    }
}

/// When the first event among these was recorded.
pub(super) fn first_event(items: &VecDeque<Item>) -> Option<Timestamp> {
    items.iter().find_map(|item| match item {
        Item::Event { envelope, .. } => Some(envelope.recorded_at),
        Item::Head(_) | Item::End { .. } | Item::Mark(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::commits::first;

    fn receipt(connection: u64, tag: u64) -> Receipt {
        Receipt { session: Session { life: 1, connection }, tag: Tag(tag) }
    }

    fn marks(items: &VecDeque<Item>) -> Vec<(Receipt, usize)> {
        let received = items.iter().filter_map(|item| match item {
            Item::Mark(Mark::Received { receipt, events }) => Some((*receipt, *events)),
            Item::Event { .. } | Item::Head(_) | Item::End { .. } | Item::Mark(_) => None,
        });
        received.collect()
    }

    #[test]
    fn a_receipt_of_nothing_joins_the_one_before_it_and_no_other_sessions() {
        let mut queue = Queue::default();
        let events = first(2).envelopes().map(Arc::new).collect();
        queue.push_received(events, receipt(1, 2));
        for tag in 3..1_000 {
            queue.push_received(Vec::new(), receipt(1, tag));
        }
        queue.push_received(Vec::new(), receipt(2, 1));
        assert_eq!(marks(&queue.items), [(receipt(1, 999), 2), (receipt(2, 1), 0)]);
    }

    #[test]
    fn what_is_put_back_is_counted_and_comes_first_again() {
        let mut queue = Queue::default();
        queue.push_commits(&[first(3)], Source::Log);
        queue.push_received(first(2).envelopes().map(Arc::new).collect(), receipt(1, 2));
        let taken = queue.take(4);
        assert_eq!((taken.len(), queue.events_of_log(), queue.events_of_broker()), (4, 0, 1));
        queue.put_back(taken);
        assert_eq!((queue.events(), queue.events_of_log(), queue.events_of_broker()), (5, 3, 2));
        let all = queue.take(5);
        assert_eq!((marks(&all), all.len()), (vec![(receipt(1, 2), 2)], 6));
        assert!(queue.is_empty());
    }
}
