//! The queues of one subscriber: what waits, what was handed out to whom, what was set aside.

use std::collections::{BTreeMap, VecDeque};

use super::partition;
use crate::broker::{Delivery, Message, Tag};
use crate::order::OrderId;

/// A message in a queue.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// The header `orderid`, when it has one.
    pub(super) order: Option<OrderId>,
    pub(super) body: Vec<u8>,
}

/// A message that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    order: Option<OrderId>,
    /// Its content.
    pub body: Vec<u8>,
    /// What the consumer said.
    pub reason: String,
}

#[derive(Debug, Default)]
pub(super) struct Queues {
    /// None: they are not declared.
    partitions: Vec<VecDeque<Waiting>>,
    /// Connections, in the order in which they came. The first is the active one.
    consumers: VecDeque<u64>,
    handed_out: BTreeMap<(u64, Tag), Waiting>,
    pub(super) set_aside: Vec<SetAside>,
}

impl Waiting {
    pub(super) fn of(message: &Message) -> Self {
        Self { order: Some(message.order), body: message.body.clone() }
    }
}

impl Queues {
    pub(super) fn is_declared(&self) -> bool {
        !self.partitions.is_empty()
    }

    /// Another number of partitions spreads what waits anew.
    pub(super) fn declare(&mut self, partitions: u16) {
        let count = usize::from(partitions.max(1));
        if self.partitions.len() != count {
            let waiting: Vec<_> = self.partitions.drain(..).flatten().collect();
            self.partitions.resize_with(count, VecDeque::new);
            waiting.into_iter().for_each(|waiting| self.put(waiting));
        }
    }

    pub(super) fn join(&mut self, connection: u64) {
        self.consumers.push_back(connection);
    }

    pub(super) fn put(&mut self, waiting: Waiting) {
        self.put_ahead(waiting, 0.0);
    }

    /// Puts it ahead of that part of its queue: 0 at the end, 1 at the beginning.
    pub(super) fn put_ahead(&mut self, waiting: Waiting, part: f64) {
        let count = self.partitions.len();
        let Some(queue) = self.partitions.get_mut(partition(waiting.order, count)) else { return };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a length")]
        let behind = (queue.len() as f64 * part.clamp(0.0, 1.0)) as usize;
        queue.insert(queue.len() - behind, waiting);
    }

    /// The oldest are lost.
    pub(super) fn give_up_beyond(&mut self, length_max: usize) {
        for queue in &mut self.partitions {
            let surplus = queue.len().saturating_sub(length_max);
            queue.drain(..surplus);
        }
    }

    /// The next messages for that connection, at most `max`, as long as fewer than `prefetch` are not acknowledged. None
    /// while another one is active.
    pub(super) fn hand_out(&mut self, to: u64, last: &mut Tag, max: usize, prefetch: u16) -> Vec<Delivery> {
        if self.consumers.front() != Some(&to) {
            return Vec::new();
        }
        let room = usize::from(prefetch).saturating_sub(self.handed_out.len()).min(max.max(1));
        let mut deliveries = Vec::new();
        while deliveries.len() < room {
            let before = deliveries.len();
            for queue in &mut self.partitions {
                if deliveries.len() < room
                    && let Some(waiting) = queue.pop_front()
                {
                    *last = Tag(last.0 + 1);
                    deliveries.push(Delivery { tag: *last, body: waiting.body.clone() });
                    self.handed_out.insert((to, *last), waiting);
                }
            }
            if deliveries.len() == before {
                break;
            }
        }
        deliveries
    }

    pub(super) fn acknowledge(&mut self, connection: u64, up_to: Tag) {
        self.handed_out.retain(|(to, tag), _| *to != connection || *tag > up_to);
    }

    pub(super) fn set_aside(&mut self, connection: u64, tag: Tag, body: &[u8], reason: &str) {
        let order = self.handed_out.get(&(connection, tag)).and_then(|waiting| waiting.order);
        self.set_aside.push(SetAside { order, body: body.to_vec(), reason: reason.to_owned() });
    }

    pub(super) fn put_back(&mut self, readable: &(dyn for<'a> Fn(&'a [u8]) -> bool + Sync)) -> u64 {
        let all = std::mem::take(&mut self.set_aside);
        let (back, stay): (Vec<_>, Vec<_>) = all.into_iter().partition(|set_aside| readable(&set_aside.body));
        self.set_aside = stay;
        let count = back.len() as u64;
        for SetAside { order, body, .. } in back {
            self.put(Waiting { order, body });
        }
        count
    }

    /// What a connection has not acknowledged stands at the beginning again.
    pub(super) fn close(&mut self, connection: u64) {
        self.consumers.retain(|other| *other != connection);
        let tags: Vec<_> = self.handed_out.keys().filter(|(to, _)| *to == connection).copied().collect();
        let count = self.partitions.len();
        for tag in tags.into_iter().rev() {
            let Some(waiting) = self.handed_out.remove(&tag) else { continue };
            if let Some(queue) = self.partitions.get_mut(partition(waiting.order, count)) {
                queue.push_front(waiting);
            }
        }
    }

    pub(super) fn close_all(&mut self) {
        for connection in self.consumers.clone() {
            self.close(connection);
        }
    }

    pub(super) fn purge(&mut self) {
        self.partitions.iter_mut().for_each(VecDeque::clear);
    }

    /// Gives the connections that consumed them. What was set aside is elsewhere and stays.
    pub(super) fn delete(&mut self) -> VecDeque<u64> {
        self.partitions.clear();
        self.handed_out.clear();
        std::mem::take(&mut self.consumers)
    }

    pub(super) fn waiting(&self) -> usize {
        self.partitions.iter().map(VecDeque::len).sum()
    }

    pub(super) fn unacknowledged(&self) -> usize {
        self.handed_out.len()
    }
}
