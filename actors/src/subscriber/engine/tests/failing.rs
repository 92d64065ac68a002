//! What becomes of an event, or an effect, that keeps failing.

use super::*;
use crate::inbox::{Discard, EffectOutcome, Hold, NewEffect};

impl World {
    fn held(&self, order: OrderId) -> Hold {
        self.row(order).applying.hold().expect("a lane that is held").clone()
    }

    /// An operator has decided that the event at the head of a lane is not handled.
    fn discard(&mut self, engine: &mut Engine, order: OrderId, event: Option<EventId>) {
        let mut transaction = Transaction::of_operator(&self.inbox.present_now());
        let mut row = self.row(order);
        let hold = self.held(order);
        (row.applied, row.applied_event) = (row.applied.next(), event);
        row.applying = Lane::Held(Box::new(Hold::new(HoldState::Gap, hold.since, Some(self.now))));
        let was_written_by = row.written_by.replace(transaction.id);
        transaction.discards.push(Discard {
            order,
            version: row.applied,
            event,
            event_type: None,
            effect: None,
            reason: "a test".to_owned(),
            by: "somebody".to_owned(),
            at: self.now,
            hold,
        });
        transaction.rows.push(RowWrite { was_written_by, row });
        assert_eq!(self.inbox.commit_now(&transaction), Ok(Committed::Written));
        self.settle_all(engine, Input::Present(self.inbox.present_now()));
    }
}

#[test]
fn an_event_that_fails_too_often_is_dead_and_only_its_order_waits() {
    let mut world = World::new();
    let mut engine = world.begun();
    let (a, b) = (order(&[1, 1, 1]), order(&[1, 1]));
    world.failing.insert((a[0].order(), Version(2)), (u32::MAX, Failure::transient("no")));
    let both: Vec<_> = [&a[..], &b[..]].concat();
    world.deliver(&mut engine, &both);
    world.settle_all(&mut engine, Input::Tick);
    let hold = world.held(a[0].order());
    assert_eq!((hold.state, hold.attempts, hold.next_attempt_at), (HoldState::Dead, 5, None));
    assert_eq!(hold.head.as_ref().map(|head| (head.version, head.effect)), Some((Version(2), None)));
    assert_eq!((hold.tried.len(), hold.since), (5, at(0)));
    assert_eq!((world.document(a[0].order()), world.document(b[0].order())), ("1".to_owned(), "1 2".to_owned()));
    let status = engine.status();
    assert_eq!((status.applying.map(|lanes| lanes.dead), status.behind, status.waits_since), (Some(1), Some(2), None));
    // What comes meanwhile waits behind it, and somebody else's decision lets all of it go on in order.
    world.failing.clear();
    let more = commit(&a[2].stored_end(), 1);
    world.deliver(&mut engine, &[more]);
    assert_eq!((world.hold(a[0].order()), world.row(a[0].order()).seen), (HoldState::Dead, Version(4)));
    assert!(world.retry_dead(&mut engine));
    world.check();
    assert_eq!(engine.status().applying.map(|lanes| lanes.all()), Some(0));
}

#[test]
fn what_will_never_succeed_is_dead_at_once_and_an_operators_word_is_one_more_round_of_attempts() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[1]);
    let key = (a[0].order(), Version(1));
    world.failing.insert(key, (1, Failure::permanent("never")));
    world.deliver(&mut engine, &a);
    let hold = world.held(a[0].order());
    assert_eq!((hold.state, hold.attempts, world.handled.len()), (HoldState::Dead, 1, 1));
    world.failing.insert(key, (u32::MAX, Failure::transient("no")));
    world.retry_dead(&mut engine);
    let hold = world.held(a[0].order());
    assert_eq!((hold.state, hold.attempts, hold.tried.len()), (HoldState::Dead, 5, 6));
}

#[test]
fn attempts_count_for_one_event_and_begin_anew_with_the_next() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[1, 1]);
    for version in [1, 2] {
        world.failing.insert((a[0].order(), Version(version)), (4, Failure::transient("no")));
    }
    world.deliver(&mut engine, &a);
    world.settle_all(&mut engine, Input::Tick);
    world.check();
    assert_eq!(engine.status().retries, 8);
}

#[test]
fn what_cannot_be_read_here_is_never_dead_and_its_attempts_are_not_held_against_it_later() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[1, 1]);
    let key = (a[0].order(), Version(1));
    world.undecodable.push(key);
    world.deliver(&mut engine, &a);
    assert!(!world.settle_within(&mut engine, Input::Tick, 50), "it is tried for ever");
    let hold = world.held(a[0].order());
    assert_eq!((hold.state, hold.attempts >= 20, hold.next_attempt_at.is_some()), (HoldState::Undecodable, true, true));
    // A docket that can read it finds that its handler fails.
    world.undecodable.clear();
    world.failing.insert(key, (4, Failure::transient("no")));
    world.settle_all(&mut engine, Input::Tick);
    world.check();
}

#[test]
fn a_gap_is_never_given_up() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[1, 1, 1]);
    world.deliver(&mut engine, &a[..1]);
    world.deliver(&mut engine, &a[2..]);
    assert!(!world.settle_within(&mut engine, Input::Tick, 50));
    assert_eq!((world.hold(a[0].order()), world.held(a[0].order()).attempts > 20), (HoldState::Gap, true));
    // Nor are its looks held against the event that is found in the end.
    world.log.push(a[1].clone());
    world.failing.insert((a[0].order(), Version(2)), (4, Failure::transient("no")));
    world.settle_all(&mut engine, Input::Tick);
    world.check();
}

#[test]
fn an_effect_that_fails_too_often_is_dead_and_holds_what_is_behind_it() {
    let mut world = World::new();
    let mut engine = world.begun();
    let (a, b) = (order(&[6]), order(&[2]));
    world.failing_effects.insert((a[0].order(), Version(4)), (u32::MAX, Failure::transient("busy")));
    let both: Vec<_> = [&a[..], &b[..]].concat();
    world.deliver(&mut engine, &both);
    world.settle_all(&mut engine, Input::Tick);
    let row = world.row(a[0].order());
    let hold = row.performing.hold().expect("held").clone();
    assert_eq!((hold.state, hold.attempts, hold.next_attempt_at), (HoldState::Dead, 5, None));
    assert_eq!(hold.head.and_then(|head| head.effect), Some(0));
    assert_eq!((row.applied, row.performed, row.effects_waiting), (Version(6), Version(2), 2));
    world.performed.sort_unstable();
    let mut performed = vec![(a[0].order(), Version(2)), (b[0].order(), Version(2))];
    performed.sort_unstable();
    assert_eq!(world.performed, performed);
    assert_eq!(engine.status().performing.map(|lanes| lanes.dead), Some(1));
    world.failing_effects.clear();
    assert!(world.retry_dead(&mut engine));
    world.check();
}

#[test]
fn an_order_with_a_dead_effect_is_looked_at_seldom_when_too_many_wait_and_goes_on_with_it() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[10, 2]);
    world.failing_effects.insert((a[0].order(), Version(2)), (u32::MAX, Failure::permanent("never")));
    world.deliver(&mut engine, &a);
    assert_eq!((world.row(a[0].order()).applied, world.row(a[0].order()).seen), (Version(10), Version(12)));
    let before = world.now;
    assert!(!world.settle_within(&mut engine, Input::Tick, 10));
    assert!(world.now >= before.after(Duration::from_secs(9)), "{:?}", world.now);
    world.failing_effects.clear();
    world.retry_dead(&mut engine);
    world.settle_all(&mut engine, Input::Tick);
    world.check();
}

#[test]
fn an_event_that_somebody_discarded_is_passed_and_what_is_behind_it_handled() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[1, 1, 1]);
    world.failing.insert((a[0].order(), Version(2)), (u32::MAX, Failure::permanent("never")));
    world.deliver(&mut engine, &a);
    let event = a[1].envelopes().next().map(|event| event.id);
    world.discard(&mut engine, a[0].order(), event);
    let row = world.row(a[0].order());
    assert_eq!((row.applied, row.applying.is_ready()), (Version(3), true));
    assert_eq!(world.document(a[0].order()), "1 3");
}

#[test]
fn an_event_that_was_discarded_and_is_in_no_log_is_not_looked_for() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[1, 1, 1]);
    world.deliver(&mut engine, &a[..1]);
    world.deliver(&mut engine, &a[2..]);
    world.discard(&mut engine, a[0].order(), None);
    world.settle_all(&mut engine, Input::Tick);
    assert_eq!((world.document(a[0].order()), world.row(a[0].order()).applying.is_ready()), ("1 3".to_owned(), true));
}

#[test]
fn what_an_operator_changed_is_counted_anew_and_not_more_often_than_once_a_second() {
    let mut world = World::new();
    let mut engine = world.begun();
    let orders: Vec<_> = (0..8).map(|_| order(&[1])).collect();
    for order in &orders {
        world.failing.insert((order[0].order(), Version(1)), (u32::MAX, Failure::permanent("never")));
        let other = super::order(&[1]);
        world.deliver(&mut engine, &[order[0].clone(), other[0].clone()]);
    }
    assert_eq!(engine.status().applying.map(|lanes| lanes.dead), Some(8));
    let mut counted = 0;
    for order in &orders {
        world.discard_unsaid(order[0].order());
        let mut actions = VecDeque::from(engine.step(Input::Present(world.inbox.present_now()), world.now));
        while let Some(action) = actions.pop_front() {
            counted += usize::from(matches!(action, Action::CountTotals));
            if let Some(input) = world.answer(action) {
                actions.extend(engine.step(input, world.now));
            }
        }
    }
    assert_eq!(counted, 1);
    world.settle_all(&mut engine, Input::Tick);
    let status = engine.status();
    let totals = world.inbox.totals_now();
    assert_eq!((status.behind, status.applying), (Some(totals.behind), Some(totals.applying)));
    assert_eq!(totals.applying.all(), 0);
}

impl World {
    /// An operator makes the order's lane ready, and nobody has heard of it yet.
    fn discard_unsaid(&mut self, order: OrderId) {
        let mut transaction = Transaction::of_operator(&self.inbox.present_now());
        let mut row = self.row(order);
        (row.applied, row.applied_event, row.applying) = (row.seen, None, Lane::Ready);
        let was_written_by = row.written_by.replace(transaction.id);
        transaction.rows.push(RowWrite { was_written_by, row });
        assert_eq!(self.inbox.commit_now(&transaction), Ok(Committed::Written));
    }
}

#[test]
fn another_generation_ends_the_engine() {
    let mut world = World::new();
    let mut engine = world.begun();
    let next = Present { generation: crate::inbox::Generation(1), ..Present::default() };
    let actions = engine.step(Input::Present(next), world.now);
    assert!(matches!(actions[..], [Action::End]), "{actions:?}");
    assert_eq!(engine.status().state, SubscriberState::Stopped);
}

impl World {
    /// Goes on until an effect is to be performed, which hangs.
    fn hang(&mut self, engine: &mut Engine, input: Input) -> RecordedEffect {
        let mut actions = VecDeque::from(engine.step(input, self.now));
        let mut hangs = None;
        while let Some(action) = actions.pop_front() {
            if let Action::Perform(effect) = action {
                hangs = Some(*effect);
            } else if let Some(input) = self.answer(action) {
                actions.extend(engine.step(input, self.now));
            }
        }
        hangs.expect("an effect to perform")
    }

    fn let_go(&mut self, order: OrderId, effect: &NewEffect, change: impl FnOnce(&mut Row)) {
        let mut transaction = Transaction::of_operator(&self.inbox.present_now());
        let mut row = self.row(order);
        row.effects_waiting -= 1;
        change(&mut row);
        let was_written_by = row.written_by.replace(transaction.id);
        transaction.rows.push(RowWrite { was_written_by, row });
        let outcome = Outcome { kind: OutcomeKind::Discarded, detail: String::new() };
        transaction.outcomes.push(EffectOutcome { order, id: effect.id, outcome, at: self.now });
        assert_eq!(self.inbox.commit_now(&transaction), Ok(Committed::Written));
    }
}

#[test]
fn an_effect_that_an_operator_discards_while_it_is_attempted_stays_discarded_whatever_the_attempt_says() {
    let done = Outcome { kind: OutcomeKind::Performed, detail: String::new() };
    let results = [Err(Failure::permanent("no")), Err(Failure::transient("busy")), Ok(done)];
    for (result, events, told) in results.iter().flat_map(|result| {
        [(2, false), (2, true), (4, false), (4, true)].map(|(events, told)| (result.clone(), events, told))
    }) {
        let mut world = World::new();
        let mut engine = world.begun();
        let a = order(&[events]);
        let key = (a[0].order(), Version(2));
        world.failing_effects.insert(key, (1, Failure::transient("busy")));
        world.now = world.deliver(&mut engine, &a).expect("another attempt");
        let effect = world.hang(&mut engine, Input::Tick);
        world.let_go(key.0, &effect.effect, |row| row.performing = Lane::Ready);
        if told {
            world.settle(&mut engine, Input::Present(world.inbox.present_now()));
        }
        let at = world.now;
        world.settle(&mut engine, Input::Performed(Performed { effect, result, at }));
        world.settle_all(&mut engine, Input::Present(world.inbox.present_now()));
        let row = world.row(key.0);
        assert_eq!((row.performing, row.effects_waiting), (Lane::Ready, 0));
        let kinds = world.inbox.all_effects().into_iter().map(|effect| effect.outcome.expect("an outcome").0.kind);
        let expected = [OutcomeKind::Discarded, OutcomeKind::Performed];
        assert_eq!(kinds.collect::<Vec<_>>(), expected[..events / 2]);
    }
}

#[test]
fn an_effect_of_what_counts_as_never_applied_says_nothing_about_what_came_in_its_place() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[1, 1]);
    world.log.extend_from_slice(&a);
    let effect = world.hang(&mut engine, Input::Delivered(a.clone(), position(2, None)));
    let first = a[0].envelopes().next().expect("an event").id;
    world.log = vec![a[0].clone(), commit(&a[0].stored_end(), 1)];
    let now = world.now;
    world.let_go(a[0].order(), &effect.effect, |row| {
        (row.applied, row.applied_event, row.performed) = (Version(1), Some(first), Version(1));
        row.applying = Lane::Held(Box::new(Hold::new(HoldState::Gap, now, Some(now))));
    });
    world.settle(&mut engine, Input::Present(world.inbox.present_now()));
    assert_eq!((world.row(a[0].order()).applied, world.row(a[0].order()).effects_waiting), (Version(2), 1));
    let result = Ok(Outcome { kind: OutcomeKind::Performed, detail: String::new() });
    world.settle_all(&mut engine, Input::Performed(Performed { effect, result, at: now }));
    assert_eq!((world.performed.len(), world.row(a[0].order()).effects_waiting), (1, 0));
    assert!(world.inbox.all_effects().iter().all(|effect| effect.outcome.is_some()));
}

#[test]
fn a_lane_that_is_held_with_nothing_to_perform_is_ready_again() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[2]);
    world.failing_effects.insert((a[0].order(), Version(2)), (1, Failure::transient("busy")));
    world.deliver(&mut engine, &a);
    let effect = world.inbox.all_effects().remove(0).effect;
    world.let_go(a[0].order(), &effect, |row| row.performed = row.applied);
    assert!(!world.row(a[0].order()).performing.is_ready());
    world.settle_all(&mut engine, Input::Present(world.inbox.present_now()));
    assert!(world.row(a[0].order()).performing.is_ready() && world.performed.is_empty());
}
