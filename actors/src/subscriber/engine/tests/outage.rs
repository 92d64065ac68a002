//! Something that all orders need is away: said, or only to be guessed.

use super::*;
use crate::inbox::EffectOutcome;

impl World {
    fn attempts(&self) -> Vec<u32> {
        let lanes = self.inbox.all_rows().into_iter().flat_map(|row| [row.applying, row.performing]);
        lanes.filter_map(|lane| lane.hold().map(|hold| hold.attempts)).collect()
    }

    fn deliver_each(&mut self, engine: &mut Engine, orders: usize, events: usize) -> Vec<Arc<Commit>> {
        let commits: Vec<_> = (0..orders).map(|_| order(&[events]).remove(0)).collect();
        for commit in &commits {
            self.deliver(engine, std::slice::from_ref(commit));
        }
        commits
    }
}

#[test]
fn many_orders_that_fail_in_a_row_mean_an_outage_and_none_of_them_is_to_blame() {
    for failure in [Failure::transient("no"), Failure::permanent("never")] {
        let mut world = World::new();
        let mut engine = world.begun();
        world.outage = Some(failure);
        world.deliver_each(&mut engine, 9, 1);
        assert_eq!(engine.status().state, SubscriberState::Running, "nine may be a coincidence");
        assert!(world.attempts().contains(&1));
        world.deliver_each(&mut engine, 200, 1);
        let status = engine.status();
        assert_eq!(status.state, SubscriberState::DependencyDown);
        assert!(status.trouble.is_some_and(|trouble| trouble.contains("10 orders failed in a row")));
        assert!(world.attempts().iter().all(|attempts| *attempts == 0), "they are given back");
        assert!(world.handled.len() < 40, "what came later was only seen, and one lane at a time was tried");
        world.settle_within(&mut engine, Input::Tick, 1_000);
        assert_eq!(engine.status().applying.map(|lanes| lanes.dead), Some(0));
        world.outage = None;
        world.settle_all(&mut engine, Input::Tick);
        world.check();
        let status = engine.status();
        assert_eq!((status.state, status.trouble), (SubscriberState::Running, None));
    }
}

#[test]
fn while_an_outage_is_only_guessed_its_end_is_noticed_within_seconds() {
    let mut world = World::new();
    let mut engine = world.begun_with(Settings { failing_orders_max: 3, ..Settings::default() });
    world.outage = Some(Failure::transient("no"));
    world.deliver_each(&mut engine, 5, 1);
    assert!(!world.settle_within(&mut engine, Input::Tick, 500));
    world.outage = None;
    let ended = world.now;
    world.settle(&mut engine, Input::Tick);
    while engine.status().state == SubscriberState::DependencyDown {
        assert!(world.now <= ended.after(Duration::from_secs(6)), "{:?}", world.now);
        world.settle_within(&mut engine, Input::Tick, 1);
    }
}

#[test]
fn while_it_is_away_each_lane_gets_its_turn_at_looking_whether_it_is_back() {
    let mut world = World::new();
    let mut engine = world.begun();
    world.outage = Some(Failure::dependency_down("away"));
    let commits = world.deliver_each(&mut engine, 20, 1);
    world.handled.clear();
    while world.handled.len() < 60 {
        world.settle_within(&mut engine, Input::Tick, 1);
        // As with any clock: the next attempt is later than the one before.
        world.now = world.now.after(Duration::from_millis(1));
    }
    for commit in &commits {
        let tried = world.handled.iter().filter(|(order, _)| *order == commit.order()).count();
        assert!((2..=4).contains(&tried), "{tried} of 60 attempts at 20 orders");
    }
    assert!(world.attempts().iter().all(|attempts| *attempts == 0));
}

#[test]
fn poisoned_events_among_others_are_no_outage_however_often_they_fail() {
    let mut world = World::new();
    let mut engine = world.begun();
    let mut poisoned = Vec::new();
    for n in 0..400 {
        let commit = order(&[1]).remove(0);
        if n % 10 < 5 {
            poisoned.push(commit.order());
            world.failing.insert((commit.order(), Version(1)), (u32::MAX, Failure::transient("no")));
        }
        world.deliver(&mut engine, &[commit]);
        assert_eq!(engine.status().state, SubscriberState::Running);
    }
    // Nothing succeeds any more: only what failed before fails again.
    world.settle_all(&mut engine, Input::Tick);
    assert!(poisoned.iter().all(|order| world.hold(*order) == HoldState::Dead));
    assert_eq!(engine.status().applying.map(|lanes| lanes.dead), Some(200));
    assert!(world.retry_dead(&mut engine));
    world.settle_all(&mut engine, Input::Tick);
    assert!(poisoned.iter().all(|order| world.hold(*order) == HoldState::Dead), "and once more");
}

#[test]
fn what_was_counted_before_somebody_says_that_it_is_away_is_given_back_as_well() {
    let mut world = World::new();
    let mut engine = world.begun();
    world.outage = Some(Failure::transient("no answer"));
    world.deliver_each(&mut engine, 3, 1);
    assert!(world.attempts().contains(&1));
    world.outage = Some(Failure::dependency_down("away"));
    world.deliver_each(&mut engine, 1, 1);
    assert!(world.attempts().iter().all(|attempts| *attempts == 0), "{:?}", world.attempts());
    let status = engine.status();
    assert_eq!(status.state, SubscriberState::DependencyDown);
    assert!(status.trouble.is_some_and(|trouble| trouble.contains("said to be away")));
}

#[test]
fn effects_have_outages_of_their_own_and_events_go_on_meanwhile() {
    let mut world = World::new();
    let mut engine = world.begun();
    let commits: Vec<_> = (0..60).map(|_| order(&[2]).remove(0)).collect();
    for commit in &commits {
        world.failing_effects.insert((commit.order(), Version(2)), (u32::MAX, Failure::transient("busy")));
        world.deliver(&mut engine, std::slice::from_ref(commit));
    }
    world.settle_within(&mut engine, Input::Tick, 2_000);
    assert_eq!(engine.status().state, SubscriberState::DependencyDown);
    assert!(commits.iter().all(|commit| world.document(commit.order()) == "1 2"));
    assert_eq!(engine.status().performing.map(|lanes| lanes.dead), Some(0));
    assert!(world.attempts().iter().all(|attempts| *attempts == 0));
    world.failing_effects.clear();
    world.settle_all(&mut engine, Input::Tick);
    world.check();
    assert_eq!(engine.status().state, SubscriberState::Running);
}

#[test]
fn a_lane_that_is_tried_in_vain_says_nothing_about_what_is_away() {
    let mut world = World::new();
    let mut engine = world.begun();
    let gap = order(&[1, 1]);
    world.deliver(&mut engine, &gap[1..]);
    world.outage = Some(Failure::dependency_down("away"));
    world.deliver_each(&mut engine, 3, 1);
    for _ in 0..50 {
        world.settle_within(&mut engine, Input::Tick, 1);
        assert_eq!(engine.status().state, SubscriberState::DependencyDown);
    }
    assert_eq!(world.hold(gap[0].order()), HoldState::Gap);
}

#[test]
fn an_event_that_comes_ends_a_guess_that_was_wrong_however_many_poisoned_ones_wait_before_it() {
    let mut world = World::new();
    let mut engine = world.begun_with(Settings { lanes_at_once_max: 2, ..Settings::default() });
    for _ in 0..200 {
        let poisoned = order(&[1]).remove(0);
        world.failing.insert((poisoned.order(), Version(1)), (u32::MAX, Failure::transient("no")));
        world.deliver(&mut engine, &[poisoned]);
    }
    assert_eq!(engine.status().state, SubscriberState::DependencyDown);
    let mut healthy = Vec::new();
    for second in 0.. {
        assert!(second < 15, "two hundred others have their turns first");
        world.now = world.now.after(Duration::from_secs(1));
        healthy.push(order(&[1]).remove(0));
        let last = healthy[healthy.len() - 1..].to_vec();
        world.deliver(&mut engine, &last);
        if healthy.iter().any(|commit| world.document(commit.order()) == "1") {
            break;
        }
    }
}

#[test]
fn when_nothing_is_left_that_could_show_that_it_is_back_it_is_held_to_be() {
    let mut world = World::new();
    let mut engine = world.begun();
    let b = order(&[2]);
    world.failing_effects.insert((b[0].order(), Version(2)), (1, Failure::dependency_down("away")));
    world.deliver(&mut engine, &b);
    assert_eq!(engine.status().state, SubscriberState::DependencyDown);
    // An operator decides that the effect is not performed.
    let mut transaction = Transaction::of_operator(&world.inbox.present_now());
    let mut row = world.row(b[0].order());
    let waiting = world.inbox.effects_now(&[row.order], Which::Waiting, 8);
    for recorded in &waiting {
        let outcome = Outcome { kind: OutcomeKind::Discarded, detail: "a test".to_owned() };
        let effect = &recorded.effect;
        transaction.outcomes.push(EffectOutcome { order: row.order, id: effect.id, outcome, at: world.now });
    }
    (row.performing, row.effects_waiting, row.performed) = (Lane::Ready, 0, row.applied);
    let was_written_by = row.written_by.replace(transaction.id);
    transaction.rows.push(RowWrite { was_written_by, row });
    assert_eq!(world.inbox.commit_now(&transaction), Ok(Committed::Written));
    world.settle_all(&mut engine, Input::Present(world.inbox.present_now()));
    assert_eq!(engine.status().state, SubscriberState::Running);
}

#[test]
fn what_hangs_while_it_is_tried_out_is_not_begun_for_one_order_after_another() {
    let mut world = World::new();
    let mut engine = world.begun_with(Settings { lanes_at_once_max: 8, ..world.settings() });
    let a = order(&[1]);
    world.failing.insert((a[0].order(), Version(1)), (1, Failure::dependency_down("away")));
    world.deliver(&mut engine, &a);
    let others: Vec<_> = (0..20).map(|_| order(&[1]).remove(0)).collect();
    world.slow = others.iter().chain(&a).map(|commit| ((commit.order(), Version(1)), 1)).collect();
    world.log.extend_from_slice(&others);
    for (index, other) in others.iter().enumerate() {
        // None of what is aside ends.
        world.now = world.now.after(Duration::from_secs(1));
        let delivered = Input::Delivered(vec![other.clone()], position(index + 2, Some(other.id())));
        let mut actions = VecDeque::from(engine.step(delivered, world.now));
        while let Some(action) = actions.pop_front() {
            if !matches!(action, Action::HandleAside(..))
                && let Some(input) = world.answer(action)
            {
                actions.extend(engine.step(input, world.now));
            }
        }
    }
    let begun = world.slow.values().filter(|left| **left == 0).count();
    assert!((1..=2).contains(&begun), "one at a time, and not {begun}");
}
