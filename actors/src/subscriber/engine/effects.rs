//! Which effects are performed next. They are always taken from the store, from the first one of an order that has no
//! outcome, so that after a restart nothing is different. Kept here: the orders that have some, a bounded number, and a
//! few effects of those that are at work.

use std::collections::VecDeque;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};

use super::failing::{effect_head, is_same};
use crate::clock::Timestamp;
use crate::inbox::{HeadOfLane, NewEffect, RecordedEffect, Row};
use crate::order::OrderId;

/// Effects of an order that are loaded at once.
pub const LOADED_PER_ORDER: usize = 8;
/// Orders that are loaded for each effect that may be performed at once. A load waits for the transaction under way:
/// what it brings must last until the next one.
const LOADED_PER_PLACE: usize = 16;
/// How long an effect keeps its place from the others. One that takes longer goes on beside those in the places: one order
/// whose effect hangs holds up no other order.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many for each place may go on beside it; else what hangs for everybody would be begun for everybody.
const BESIDE_PER_PLACE: usize = 3;

/// The orders with effects to perform.
#[derive(Debug)]
pub(super) struct Effects {
    orders_max: usize,
    at_once_max: usize,
    /// Every order that is somewhere below, with what is loaded of it.
    lanes: FxHashMap<OrderId, VecDeque<RecordedEffect>>,
    to_load: VecDeque<OrderId>,
    to_perform: VecDeque<OrderId>,
    /// What was at the head of lanes that were held when they came here.
    heads: FxHashMap<OrderId, HeadOfLane>,
    /// Orders whose effect is under way, though what asked for it counts as never applied.
    let_go: FxHashSet<OrderId>,
    /// What is under way, and since when.
    performing: FxHashMap<OrderId, Timestamp>,
    loading: Vec<OrderId>,
    /// What is being loaded may be older than what somebody else has written.
    load_again: bool,
    /// Orders that got another effect while they were being loaded: the answer may be older than it.
    added_meanwhile: FxHashSet<OrderId>,
    due_asked: bool,
    /// Orders whose lanes were held while the store was asked for lanes that are due: the answer may be older than that, and
    /// they must wait for their time. Only that answer: nobody would ask again for what a later one brings.
    held_while_due: FxHashSet<OrderId>,
    /// The same, while it was asked for further orders.
    held_while_listed: FxHashSet<OrderId>,
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
            heads: FxHashMap::default(),
            let_go: FxHashSet::default(),
            performing: FxHashMap::default(),
            loading: Vec::new(),
            load_again: false,
            added_meanwhile: FxHashSet::default(),
            due_asked: false,
            held_while_due: FxHashSet::default(),
            held_while_listed: FxHashSet::default(),
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

    /// The order's lane for performing is due, with that at its head. False: there is no room for it, and it must be asked
    /// for again, as the store does not list lanes that are held.
    pub(super) fn add_due(&mut self, order: OrderId, head: Option<&HeadOfLane>) -> bool {
        if self.held_while_due.contains(&order) || self.is_known(order) {
            return true;
        }
        let room = self.room() > 0;
        if room {
            self.take_in(order);
            self.heads.extend(head.map(|head| (order, head.clone())));
        }
        room
    }

    /// The store is asked for lanes that are due.
    pub(super) fn ask_for_due(&mut self) {
        self.due_asked = true;
    }

    /// It has answered, and what it said is known here.
    pub(super) fn due_answered(&mut self) {
        self.due_asked = false;
        self.held_while_due.clear();
    }

    /// Whether nothing is to be performed, as far as is known.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty() && !self.unlisted.some
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
            if !self.held_while_listed.contains(&order) && !self.is_known(order) {
                self.take_in(order);
            }
        }
        self.held_while_listed.clear();
    }

    /// Somebody else has written rows: the store may have orders that nobody here knows of, and what is loaded of the
    /// others may be done with.
    pub(super) fn ask_again(&mut self) {
        self.unlisted.more |= self.unlisted.some;
        self.unlisted.some = true;
        self.to_load.extend(self.to_perform.drain(..));
        for order in &self.to_load {
            if let Some(lane) = self.lanes.get_mut(order) {
                lane.clear();
            }
        }
        self.load_again = !self.loading.is_empty();
    }

    /// The store did not answer to [`Effects::ask`].
    pub(super) fn not_listed(&mut self) {
        self.unlisted.asked = false;
        self.held_while_listed.clear();
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
        if std::mem::take(&mut self.load_again) {
            return self.not_loaded();
        }
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
                self.drop_order(order);
            }
        }
    }

    /// The store did not answer.
    pub(super) fn not_loaded(&mut self) {
        self.load_again = false;
        self.added_meanwhile.clear();
        self.to_load.extend(std::mem::take(&mut self.loading));
    }

    /// An effect to perform now, at most `at_once` together, without those that have lost their places.
    pub(super) fn start(&mut self, at_once: usize, now: Timestamp) -> Option<RecordedEffect> {
        let beside = self.beside(at_once, now);
        if self.performing.len() - beside >= at_once.min(self.at_once_max) {
            return None;
        }
        while let Some(order) = self.to_perform.pop_front() {
            if let Some(effect) = self.lanes.get(&order).and_then(VecDeque::front) {
                self.performing.insert(order, now);
                return Some(effect.clone());
            }
        }
        None
    }

    /// How many of those under way take nobody's place. None while something is tried out.
    fn beside(&self, at_once: usize, now: Timestamp) -> usize {
        if at_once < self.at_once_max {
            return 0;
        }
        let long = self.performing.values().filter(|began| now.since(**began) >= PATIENCE).count();
        long.min(self.at_once_max * BESIDE_PER_PLACE)
    }

    /// When a place becomes free although nothing ends, while something waits for it.
    pub(super) fn wake(&self, now: Timestamp) -> Option<Timestamp> {
        let free = self.performing.values().map(|began| began.after(PATIENCE)).filter(|at| *at > now);
        free.min().filter(|_| !self.to_perform.is_empty())
    }

    /// Whether any is under way.
    pub(super) fn is_performing(&self) -> bool {
        !self.performing.is_empty()
    }

    /// The order's effect was performed, or failed: its outcome is not stored yet.
    pub(super) fn performed(&mut self, order: OrderId) {
        self.performing.remove(&order);
    }

    /// The row was read. Before what it says is gone beyond again, it is known what was let go.
    pub(super) fn met(&mut self, row: &Row) {
        let under_way = self.lanes.get(&row.order).and_then(VecDeque::front);
        let is_gone = under_way.is_some_and(|effect| effect.effect.version > row.applied);
        if is_gone && self.performing.contains_key(&row.order) {
            self.let_go.insert(row.order);
        }
    }

    /// Whether what asked for the order's effect that was under way counts as never applied.
    pub(super) fn is_let_go(&self, order: OrderId) -> bool {
        self.let_go.contains(&order)
    }

    /// Whether the effect was what its lane was held for when that came here.
    pub(super) fn was_held(&self, effect: &NewEffect) -> bool {
        self.heads.get(&effect.order).is_some_and(|head| is_same(head, &effect_head(effect)))
    }

    /// The outcome of the order's effect is stored: the next one may follow. Says whether one is loaded.
    pub(super) fn stored(&mut self, order: OrderId) -> bool {
        self.heads.remove(&order);
        let Some(lane) = self.lanes.get_mut(&order) else { return false };
        lane.pop_front();
        if lane.is_empty() {
            self.lanes.remove(&order);
            return false;
        }
        self.to_perform.push_back(order);
        true
    }

    /// The order's effect failed, and its lane is held.
    pub(super) fn held(&mut self, order: OrderId) {
        self.drop_order(order);
        if self.due_asked {
            self.held_while_due.insert(order);
        }
        if self.unlisted.asked {
            self.held_while_listed.insert(order);
        }
    }

    /// Forgets what is loaded of an order.
    pub(super) fn drop_order(&mut self, order: OrderId) {
        self.lanes.remove(&order);
        self.heads.remove(&order);
        self.let_go.remove(&order);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::inbox::EffectId;
    use crate::order::Version;
    use crate::testing::commits::first;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    /// The effects that the order's first events asked for, one each.
    fn recorded(order: OrderId, count: u32) -> Vec<RecordedEffect> {
        let event = first(1).envelopes().next().expect("an event");
        let effect = |version| NewEffect {
            id: EffectId { event: event.id, index: version },
            order,
            version: Version(version),
            last_of_event: true,
            recorded_at: event.recorded_at,
            origin: event.origin.clone(),
            body: "1".into(),
        };
        (1..=count).map(|version| RecordedEffect { effect: effect(version), outcome: None }).collect()
    }

    /// Knows of nothing else than what is added.
    fn listed(orders_max: usize, at_once_max: usize) -> Effects {
        let mut effects = Effects::new(orders_max, at_once_max);
        let (_, limit) = effects.ask().expect("the store is asked first");
        effects.listed(&[], limit);
        effects
    }

    fn load(effects: &mut Effects) {
        let orders = effects.load().expect("orders to load");
        effects.loaded(orders.into_iter().flat_map(|order| recorded(order, 1)).collect());
    }

    fn start(effects: &mut Effects, at_once: usize, now: Timestamp) -> Vec<OrderId> {
        std::iter::from_fn(|| effects.start(at_once, now)).map(|effect| effect.effect.order).collect()
    }

    #[test]
    fn what_takes_long_gives_up_its_place_and_no_more_of_it_than_may_be_under_way() {
        let mut effects = listed(100, 2);
        for _ in 0..20 {
            effects.add(OrderId::generate());
        }
        load(&mut effects);
        let mut hang = start(&mut effects, 2, at(0));
        assert_eq!((hang.len(), effects.wake(at(0))), (2, Some(at(5_000))));
        assert_eq!(start(&mut effects, 2, at(4_999)), []);
        for n in 1..=BESIDE_PER_PLACE as i64 {
            hang.extend(start(&mut effects, 2, at(5_000 * n)));
            assert_eq!(hang.len(), 2 + 2 * n as usize);
        }
        assert_eq!(start(&mut effects, 2, at(100_000)), [], "the others wait until one ends");
        assert_eq!(effects.wake(at(100_000)), None);
        effects.performed(hang[0]);
        assert_eq!(start(&mut effects, 2, at(100_000)).len(), 1);
        assert_eq!(start(&mut effects, 1, at(200_000)), [], "while one is tried out there are no others beside it");
    }

    #[test]
    fn an_order_whose_lane_was_held_while_the_store_was_asked_waits_for_its_time() {
        let mut effects = Effects::new(100, 2);
        let order = OrderId::generate();
        let (_, limit) = effects.ask().expect("the store is asked");
        assert!(effects.add_due(order, None));
        load(&mut effects);
        assert_eq!(start(&mut effects, 2, at(0)), [order]);
        effects.ask_for_due();
        effects.performed(order);
        effects.held(order);
        effects.listed(&[order], limit);
        assert!(effects.add_due(order, None), "it is due later");
        assert_eq!(effects.load(), None);
        effects.due_answered();
        assert!(effects.add_due(order, None));
        assert_eq!(effects.load(), Some(vec![order]), "now it is its time");
    }

    #[test]
    fn an_order_that_is_due_again_is_taken_though_an_older_question_is_not_answered_yet() {
        let mut effects = listed(100, 1);
        let order = OrderId::generate();
        effects.ask_for_due();
        assert!(effects.add_due(order, None));
        effects.due_answered();
        load(&mut effects);
        assert_eq!(start(&mut effects, 1, at(0)), [order]);
        effects.ask_again();
        let (_, limit) = effects.ask().expect("the store is asked for further orders");
        effects.performed(order);
        effects.held(order);
        effects.ask_for_due();
        effects.listed(&[], limit);
        assert!(effects.add_due(order, None));
        assert_eq!(effects.load(), Some(vec![order]), "nobody would ask for it again");
    }

    #[test]
    fn what_a_lane_was_held_for_is_known_whatever_was_written_down_of_its_event() {
        let order = OrderId::generate();
        let [effect] = &recorded(order, 1)[..] else { panic!("one") };
        for event_type in ["", "order.paid"] {
            let mut effects = listed(100, 1);
            let head = HeadOfLane { event_type: event_type.to_owned(), ..effect_head(&effect.effect) };
            assert!(effects.add_due(order, Some(&head)));
            assert!(effects.was_held(&effect.effect), "{event_type}");
        }
    }

    #[test]
    fn what_an_operator_may_have_decided_about_is_loaded_again_before_it_is_performed() {
        let mut effects = listed(100, 1);
        let orders: Vec<_> = (0..3).map(|_| OrderId::generate()).collect();
        effects.add(orders[0]);
        effects.add(orders[1]);
        load(&mut effects);
        assert_eq!(start(&mut effects, 1, at(0)), [orders[0]]);
        effects.add(orders[2]);
        assert_eq!(effects.load(), Some(vec![orders[2]]));
        effects.ask_again();
        effects.loaded(recorded(orders[2], 2));
        effects.performed(orders[0]);
        assert!(!effects.stored(orders[0]));
        assert_eq!(start(&mut effects, 1, at(0)), [], "what is loaded may be done with");
        assert_eq!(effects.load(), Some(vec![orders[1], orders[2]]));
        effects.loaded(recorded(orders[2], 1));
        assert_eq!(start(&mut effects, 1, at(0)), [orders[2]]);
        assert!(effects.ask().is_some(), "and there may be others");
    }

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
