//! Which effects are performed next. They are always taken from the store, from the first one of an order that has no
//! outcome, so that after a restart nothing is different. Kept here: the orders that have some, a bounded number, and a
//! few effects of those that are at work.

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::inbox::RecordedEffect;
use crate::order::OrderId;

/// Effects of an order that are loaded at once.
pub const LOADED_PER_ORDER: usize = 8;
/// Orders that are loaded for each effect that may be performed at once. A load waits for the transaction under way:
/// what it brings must last until the next one.
const LOADED_PER_PLACE: usize = 16;

/// The orders with effects to perform.
#[derive(Debug)]
pub(super) struct Effects {
    orders_max: usize,
    at_once_max: usize,
    /// Every order that is somewhere below, with what is loaded of it.
    lanes: FxHashMap<OrderId, VecDeque<RecordedEffect>>,
    to_load: VecDeque<OrderId>,
    to_perform: VecDeque<OrderId>,
    performing: usize,
    loading: Vec<OrderId>,
    /// Orders that got another effect while they were being loaded: the answer may be older than it.
    added_meanwhile: FxHashSet<OrderId>,
    unlisted: Unlisted,
}

/// Orders that are in the store only.
#[derive(Debug, Default)]
struct Unlisted {
    /// Where the present pass through the store stands; `None`: at its beginning.
    after: Option<OrderId>,
    /// Whether this pass has to be finished.
    some: bool,
    /// Whether another pass is needed behind this one.
    more: bool,
    asked: bool,
}

impl Effects {
    /// Nothing known yet: the store will be asked.
    pub(super) fn new(orders_max: usize, at_once_max: usize) -> Self {
        Self {
            orders_max: orders_max.max(1),
            at_once_max: at_once_max.max(1),
            lanes: FxHashMap::default(),
            to_load: VecDeque::new(),
            to_perform: VecDeque::new(),
            performing: 0,
            loading: Vec::new(),
            added_meanwhile: FxHashSet::default(),
            unlisted: Unlisted { some: true, ..Unlisted::default() },
        }
    }

    /// The order has effects to perform. While there are orders in the store only, it joins them: else those that come
    /// would take every place that becomes free, and those in the store would wait for as long as others come.
    pub(super) fn add(&mut self, order: OrderId) {
        if self.is_known(order) {
            return;
        }
        if self.unlisted.some || self.room() == 0 {
            self.unlisted.more |= self.unlisted.some;
            self.unlisted.some = true;
            return;
        }
        self.take_in(order);
    }

    /// Whether the order is here already; then what it got besides will be seen.
    fn is_known(&mut self, order: OrderId) -> bool {
        let known = self.lanes.contains_key(&order);
        if known && self.loading.contains(&order) {
            self.added_meanwhile.insert(order);
        }
        known
    }

    fn take_in(&mut self, order: OrderId) {
        self.lanes.insert(order, VecDeque::new());
        self.to_load.push_back(order);
    }

    /// The order's lane for performing is due. False: there is no room for it, and it must be asked for again, as the
    /// store does not list lanes that are held.
    pub(super) fn add_due(&mut self, order: OrderId) -> bool {
        if self.is_known(order) {
            return true;
        }
        let room = self.room() > 0;
        if room {
            self.take_in(order);
        }
        room
    }

    /// How many further orders can be taken.
    pub(super) fn room(&self) -> usize {
        self.orders_max.saturating_sub(self.lanes.len())
    }

    /// Where the store is to be asked for further orders, if it is: after which order, and for how many.
    pub(super) fn ask(&mut self) -> Option<(Option<OrderId>, usize)> {
        if !self.unlisted.some || self.unlisted.asked || self.lanes.len() * 2 > self.orders_max {
            return None;
        }
        self.unlisted.asked = true;
        Some((self.unlisted.after, self.room()))
    }

    /// The store's answer to [`Effects::ask`]. Fewer than were asked for: the pass is through.
    pub(super) fn listed(&mut self, orders: &[OrderId], limit: usize) {
        self.unlisted.asked = false;
        self.unlisted.after = orders.last().copied();
        if orders.len() < limit {
            let more = std::mem::take(&mut self.unlisted.more);
            self.unlisted = Unlisted { some: more, ..Unlisted::default() };
        }
        for &order in orders {
            if !self.is_known(order) {
                self.take_in(order);
            }
        }
    }

    /// Somebody else has written rows: the store may have orders that nobody here knows of.
    pub(super) fn ask_again(&mut self) {
        self.unlisted.more |= self.unlisted.some;
        self.unlisted.some = true;
    }

    /// The store did not answer to [`Effects::ask`].
    pub(super) fn not_listed(&mut self) {
        self.unlisted.asked = false;
    }

    /// The orders to load now, if any.
    pub(super) fn load(&mut self) -> Option<Vec<OrderId>> {
        let wanted = (LOADED_PER_PLACE * self.at_once_max).saturating_sub(self.to_perform.len());
        if !self.loading.is_empty() || self.to_load.is_empty() || wanted == 0 {
            return None;
        }
        self.loading = self.to_load.drain(..wanted.min(self.to_load.len())).collect();
        Some(self.loading.clone())
    }

    /// The first effects of the orders that were to be loaded.
    pub(super) fn loaded(&mut self, effects: Vec<RecordedEffect>) {
        for effect in effects {
            if let Some(lane) = self.lanes.get_mut(&effect.effect.order) {
                lane.push_back(effect);
            }
        }
        let added = std::mem::take(&mut self.added_meanwhile);
        for order in std::mem::take(&mut self.loading) {
            if self.lanes.get(&order).is_some_and(|lane| !lane.is_empty()) {
                self.to_perform.push_back(order);
            } else if added.contains(&order) {
                self.to_load.push_back(order);
            } else {
                self.lanes.remove(&order);
            }
        }
    }

    /// The store did not answer.
    pub(super) fn not_loaded(&mut self) {
        self.to_load.extend(std::mem::take(&mut self.loading));
    }

    /// An effect to perform now, at most `at_once` together.
    pub(super) fn start(&mut self, at_once: usize) -> Option<RecordedEffect> {
        if self.performing >= at_once.min(self.at_once_max) {
            return None;
        }
        while let Some(order) = self.to_perform.pop_front() {
            if let Some(effect) = self.lanes.get(&order).and_then(VecDeque::front) {
                self.performing += 1;
                return Some(effect.clone());
            }
        }
        None
    }

    /// Whether any is under way.
    pub(super) fn is_performing(&self) -> bool {
        self.performing > 0
    }

    /// An effect was performed, or failed: its outcome is not stored yet.
    pub(super) fn performed(&mut self) {
        self.performing = self.performing.saturating_sub(1);
    }

    /// The outcome of the order's effect is stored: the next one may follow. Says whether one is loaded.
    pub(super) fn stored(&mut self, order: OrderId) -> bool {
        let Some(lane) = self.lanes.get_mut(&order) else { return false };
        lane.pop_front();
        if lane.is_empty() {
            self.lanes.remove(&order);
            return false;
        }
        self.to_perform.push_back(order);
        true
    }

    /// Forgets what is loaded of an order.
    pub(super) fn drop_order(&mut self, order: OrderId) {
        self.lanes.remove(&order);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Each order has one effect; as fast as they are performed, others come.
    #[test]
    fn while_more_comes_than_can_be_performed_what_is_in_the_store_only_gets_its_turn() {
        let mut effects = Effects::new(8, 2);
        let mut waiting = BTreeSet::new();
        let come = |effects: &mut Effects, waiting: &mut BTreeSet<OrderId>| {
            let order = OrderId::generate();
            waiting.insert(order);
            effects.add(order);
            order
        };
        let first: Vec<_> = (0..20).map(|_| come(&mut effects, &mut waiting)).collect();
        for _ in 0..200 {
            if let Some((after, limit)) = effects.ask() {
                let behind = waiting.iter().filter(|order| after.is_none_or(|after| **order > after));
                let listed: Vec<_> = behind.take(limit).copied().collect();
                effects.listed(&listed, limit);
            }
            for order in effects.load().unwrap_or_default() {
                assert!(effects.lanes.contains_key(&order));
                effects.loading.retain(|other| *other != order);
                effects.to_perform.push_back(order);
            }
            if let Some(order) = effects.to_perform.pop_front() {
                come(&mut effects, &mut waiting);
                waiting.remove(&order);
                effects.drop_order(order);
            }
        }
        let forgotten = first.iter().filter(|order| waiting.contains(order)).count();
        assert_eq!(forgotten, 0, "later ones overtook them 180 times");
    }
}
