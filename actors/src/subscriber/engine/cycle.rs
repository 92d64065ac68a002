//! What one transaction is made of: events as they came, lanes that are tried again, and outcomes of effects; and what
//! became of it. Walking through it ([`super::walk`]) decides about each event by its order's row; it is walked twice, once
//! to find what has to be handled, and once more with the results.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::aside::{Ended, Pace, Paces};
use super::dependency::Evidence;
use super::failing::Rules;
use super::queue::{Item, Mark, first_event};
use super::walk::Walk;
use super::{EventResult, Performed};
use crate::clock::Timestamp;
use crate::commit::Origin;
use crate::event::{Envelope, EventId};
use crate::inbox::{DocumentWrite, EffectOutcome, HeadOfLane, NewEffect, Row};
use crate::order::{OrderId, Version};

/// What history says about a lane that is not ready.
#[derive(Clone, Debug)]
pub(super) struct LaneRead {
    pub(super) order: OrderId,
    /// What the log has in the place of the event that was applied last; `None`: that was compared before.
    pub(super) looked: Option<Looked>,
    /// What is behind that.
    pub(super) events: VecDeque<Arc<Envelope>>,
    /// Whether there was nothing behind these events.
    pub(super) complete: bool,
}

/// What the log has at a version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looked {
    pub(super) at: Version,
    pub(super) found: Option<EventId>,
}

/// What goes into one transaction.
#[derive(Debug, Default)]
pub(super) struct Cycle {
    /// Results of events that were handled aside. They come first.
    pub(super) asides: Vec<Ended>,
    pub(super) lanes: VecDeque<LaneRead>,
    pub(super) items: VecDeque<Item>,
    pub(super) outcomes: Vec<Performed>,
    /// Orders whose lanes for performing are held, with nothing to perform.
    pub(super) nothing_to_perform: Vec<OrderId>,
    /// The rows as they are stored.
    pub(super) rows: FxHashMap<OrderId, Row>,
    /// Whether what comes only raises *seen*.
    pub(super) resting: bool,
    /// Whether one of those is handled all the same, to see whether what all orders need is back. Lanes that failed take
    /// their turns at that as well; what comes has not failed yet.
    pub(super) probing: bool,
    /// The event whose attempt was counted before it began, in the row as it is stored.
    pub(super) attempting: Option<EventId>,
    /// The life before did not end in order: an attempt that it left open may have ended it.
    pub(super) unclean: bool,
    /// What is known of what all orders need for being handled.
    pub(super) applying: Evidence,
    /// The same for performing effects.
    pub(super) performing: Evidence,
}

/// The events to be handled.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    pub(super) events: Vec<Arc<Envelope>>,
    /// Those among them that may take all the time.
    pub(super) unhurried: FxHashSet<EventId>,
    /// Those that were handled aside and are still the next ones of their orders.
    pub(super) asides: FxHashSet<EventId>,
}

/// What became of a cycle.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// The rows that were met, as they shall be.
    pub(super) rows: FxHashMap<OrderId, Row>,
    pub(super) effects: Vec<NewEffect>,
    pub(super) outcomes: Vec<EffectOutcome>,
    pub(super) marks: Vec<Mark>,
    /// Lanes that were tried, whatever came of it.
    pub(super) lanes_tried: Vec<OrderId>,
    /// Events that are to be handled aside.
    pub(super) slow: Vec<Arc<Envelope>>,
    /// Orders whose effects were performed, or failed.
    pub(super) performed: Vec<OrderId>,
    /// What was not reached: it has to be walked again.
    pub(super) lanes_left: VecDeque<LaneRead>,
    pub(super) items_left: VecDeque<Item>,
    pub(super) counts: Counts,
    /// What is known now of what all orders need for being handled.
    pub(super) applying: Evidence,
    /// The same for performing effects.
    pub(super) performing: Evidence,
}

/// What there was to count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) applied: u64,
    pub(super) duplicates: u64,
    pub(super) gaps: u64,
    pub(super) missed: u64,
    pub(super) retries: u64,
    pub(super) conflicts: u64,
}

impl Cycle {
    /// The orders that are touched.
    pub(super) fn orders(&self) -> FxHashSet<OrderId> {
        let items = self.items.iter().filter_map(|item| match item {
            Item::Event { envelope, .. } => Some(envelope.order),
            Item::Head(head) => Some(head.order),
            Item::End { order, .. } => Some(*order),
            Item::Mark(_) => None,
        });
        let lanes = self.lanes.iter().map(|lane| lane.order);
        let asides = self.asides.iter().map(|ended| ended.event.order);
        let outcomes = self.outcomes.iter().map(|performed| performed.effect.effect.order);
        // Their attempts may be given back.
        let failing = self.applying.orders().chain(self.performing.orders());
        let idle = self.nothing_to_perform.iter().copied();
        items.chain(lanes).chain(asides).chain(outcomes).chain(idle).chain(failing).collect()
    }

    /// How many events of the queue it holds.
    pub(super) fn queued_events(&self) -> usize {
        self.items.iter().filter(|item| matches!(item, Item::Event { .. })).count()
    }

    /// When the first event of the queue that it holds was recorded.
    pub(super) fn waits_since(&self) -> Option<Timestamp> {
        first_event(&self.items)
    }

    /// Whether that event may be handled in it: a lane brings it, or it comes and is not only to be seen.
    pub(super) fn may_handle(&self, id: EventId) -> bool {
        let comes = |item: &Item| matches!(item, Item::Event { envelope, .. } if envelope.id == id);
        let in_lane = self.lanes.iter().flat_map(|lane| &lane.events).any(|event| event.id == id);
        in_lane || (!self.resting && self.items.iter().any(comes))
    }

    /// How many events it holds.
    pub(super) fn events(&self) -> usize {
        self.queued_events() + self.lanes.iter().map(|lane| lane.events.len()).sum::<usize>()
    }

    /// What set the event or effect off that failed in it.
    pub(super) fn origin(&self, head: &HeadOfLane) -> Option<&Origin> {
        let items = self.items.iter().filter_map(|item| match item {
            Item::Event { envelope, .. } => Some(envelope),
            Item::Head(_) | Item::End { .. } | Item::Mark(_) => None,
        });
        let asides = self.asides.iter().map(|ended| &ended.event);
        let events = items
            .chain(self.lanes.iter().flat_map(|lane| &lane.events))
            .chain(asides)
            .map(|event| (event.id, &event.origin));
        let effects = self.outcomes.iter().map(|performed| &performed.effect.effect);
        let effects = effects.map(|effect| (effect.id.event, &effect.origin));
        events.chain(effects).find(|(event, _)| *event == head.event).map(|(_, origin)| origin)
    }

    /// The events to be handled, in order, if all of them succeed.
    pub(super) fn candidates(&self, rules: Rules<'_>, paces: Paces<'_>) -> Candidates {
        let aside: FxHashSet<_> = self.asides.iter().map(|ended| ended.event.id).collect();
        let mut candidates = Candidates::default();
        let results = |event: &Arc<Envelope>| {
            if aside.contains(&event.id) {
                candidates.asides.insert(event.id);
                return Some(EventResult::Applied { effects: Vec::new() });
            }
            match paces.of(event) {
                Pace::Aside => return Some(EventResult::Slow),
                Pace::Unhurried => drop(candidates.unhurried.insert(event.id)),
                Pace::Brisk => {}
            }
            candidates.events.push(event.clone());
            Some(EventResult::Applied { effects: Vec::new() })
        };
        Walk::new(self, rules, paces.room(), results).walk();
        candidates
    }

    /// What events that were handled aside have changed.
    pub(super) fn written_aside(&self) -> Vec<DocumentWrite> {
        self.asides.iter().flat_map(|ended| ended.handled.documents.iter().cloned()).collect()
    }

    /// What the transaction writes, given what became of the candidates. Those without a result are left for the next.
    pub(super) fn settle(
        &self,
        rules: Rules<'_>,
        paces: Paces<'_>,
        mut results: FxHashMap<EventId, EventResult>,
    ) -> Settled {
        results.extend(self.asides.iter().map(|ended| (ended.event.id, ended.handled.result.clone())));
        let results = |event: &Arc<Envelope>| {
            let known_slow = || (paces.of(event) == Pace::Aside).then_some(EventResult::Slow);
            results.remove(&event.id).or_else(known_slow)
        };
        Walk::new(self, rules, paces.room(), results).walk()
    }
}
