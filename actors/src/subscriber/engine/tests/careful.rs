//! Processes that end in the middle of something.

use super::*;

impl World {
    /// As [`World::settle_all`], until the process dies: at the first handler that is to handle that event, or after so many
    /// actions. Whether it survived.
    fn live(&mut self, engine: &mut Engine, input: Input, killer: EventKey, actions_max: usize) -> bool {
        let mut actions = VecDeque::from(engine.step(input, self.now));
        let mut count = 0;
        loop {
            let Some(action) = actions.pop_front() else { return true };
            count += 1;
            let kills = |events: &[Arc<Envelope>]| events.iter().any(|event| (event.order, event.version) == killer);
            if count == actions_max || matches!(&action, Action::Handle(batch) if kills(&batch.events)) {
                return false;
            }
            if let Action::WakeAt(at) = &action
                && actions.is_empty()
            {
                self.now = self.now.max(*at);
                actions.extend(engine.step(Input::Tick, self.now));
            }
            if let Some(input) = self.answer(action) {
                actions.extend(engine.step(input, self.now));
            }
        }
    }

    fn whole_log(&self) -> Input {
        Input::Delivered(self.log.clone(), position(self.log.len(), self.log.last().map(|commit| commit.id())))
    }
}

#[test]
fn an_event_that_ends_every_process_that_handles_it_becomes_a_dead_letter_and_no_other_does() {
    let mut world = World::new();
    drop(world.begun());
    for _ in 0..6 {
        world.log.extend(order(&[2, 1]));
    }
    let killer = (world.log[6].order(), Version(2));
    let mut lives = 0;
    loop {
        world.unclean = lives > 0;
        let mut engine = world.engine();
        let log = world.whole_log();
        lives += 1;
        assert!(lives < 20, "it kills for ever");
        if world.live(&mut engine, log, killer, usize::MAX) {
            break;
        }
    }
    // One batch, five attempts, and the life that buries it.
    assert_eq!(lives, 7);
    let row = world.row(killer.0);
    let hold = row.applying.hold().expect("held").clone();
    assert_eq!((row.applied, hold.state, hold.attempts), (Version(1), HoldState::Dead, 5));
    let said = hold.failure().expect("a failure").text.clone();
    assert!(said.contains("the process ended 5 times"), "{said}");
    assert_eq!(hold.tried.len(), 6, "when each attempt began, and the verdict");
    let dead = world.inbox.all_rows().into_iter().filter(|row| !row.applying.is_ready()).count();
    assert_eq!(dead, 1, "the others are handled");
    assert_eq!(world.inbox.totals_now().effects_waiting, 0);
}

#[test]
fn a_process_that_is_killed_at_any_moment_takes_no_event_with_it() {
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new();
        drop(world.begun());
        for _ in 0..8 {
            world.log.extend(order(&[1, 2, 1]));
        }
        let nobody = (OrderId::generate(), Version(1));
        for life in 0..20 {
            world.unclean = life > 0;
            let mut engine = world.engine();
            let log = world.whole_log();
            // Long enough that some of it is done: an event that was never reached is not what this is about.
            world.live(&mut engine, log, nobody, rng.random_range(10..120));
        }
        let mut engine = world.engine();
        let log = world.whole_log();
        world.settle_all(&mut engine, log);
        assert_eq!(world.inbox.totals_now().applying.dead, 0, "seed {seed}");
        world.check();
    }
}

#[test]
fn after_an_unclean_end_events_run_one_at_a_time_counted_before_and_in_batches_again_later() {
    let mut world = World::new();
    drop(world.begun());
    world.unclean = true;
    let mut engine = world.engine();
    let commits: Vec<_> = (0..30).map(|_| order(&[1]).remove(0)).collect();
    world.log.extend_from_slice(&commits);
    let log = world.whole_log();
    let mut actions = VecDeque::from(engine.step(log, world.now));
    let (mut alone, mut beside_others, mut looks) = (0, false, 0);
    while let Some(action) = actions.pop_front() {
        looks += usize::from(matches!(action, Action::ReadHistory { .. }));
        if let Action::Handle(Batch { events, .. }) = &action {
            beside_others |= events.len() > 1;
            if !beside_others {
                alone += 1;
                let hold = world.row(events[0].order).applying.hold().cloned().expect("counted before");
                assert_eq!((hold.state, hold.attempts), (HoldState::Attempting, 1));
            }
        }
        if let Some(input) = world.answer(action) {
            actions.extend(engine.step(input, world.now));
        }
    }
    assert_eq!(
        (alone, beside_others, looks),
        (14, true, 0),
        "as many as two batches, and no look into the log for any"
    );
    world.check();
}

#[test]
fn an_attempt_that_fails_is_counted_once_and_one_that_meets_an_outage_not_at_all() {
    for (failure, attempts) in [(Failure::transient("no"), 1), (Failure::dependency_down("away"), 0)] {
        let mut world = World::new();
        drop(world.begun());
        world.unclean = true;
        let mut engine = world.engine();
        let a = order(&[1, 1]);
        world.failing.insert((a[0].order(), Version(1)), (1, failure));
        world.log.extend_from_slice(&a);
        let log = world.whole_log();
        let mut actions = VecDeque::from(engine.step(log, world.now));
        while world
            .row_of(a[0].order())
            .is_none_or(|row| row.applying.hold().is_none_or(|hold| hold.state == HoldState::Attempting))
        {
            let action = actions.pop_front().expect("something to do");
            if let Some(input) = world.answer(action) {
                actions.extend(engine.step(input, world.now));
            }
        }
        let hold = world.row(a[0].order()).applying.hold().cloned().expect("held");
        assert_eq!((hold.state, hold.attempts, hold.tried.len()), (HoldState::Retrying, attempts, 1));
        while let Some(action) = actions.pop_front() {
            if let Some(input) = world.answer(action) {
                actions.extend(engine.step(input, world.now));
            }
        }
        world.settle_all(&mut engine, Input::Tick);
        world.check();
    }
}

#[test]
fn an_attempt_whose_end_nobody_saw_is_not_repeated_beside_others_even_after_an_end_in_order() {
    let mut world = World::new();
    drop(world.begun());
    let a = order(&[1, 1]);
    world.log.extend_from_slice(&a);
    world.unclean = true;
    let mut engine = world.engine();
    let killer = (a[0].order(), Version(1));
    let log = world.whole_log();
    assert!(!world.live(&mut engine, log, killer, usize::MAX));
    world.unclean = false;
    let mut engine = world.engine();
    world.settle_all(&mut engine, Input::Tick);
    world.check();
    assert!(engine.is_careful());
}

#[test]
fn no_event_is_taken_for_an_effect_that_ends_processes() {
    let mut world = World::new();
    drop(world.begun());
    for _ in 0..6 {
        world.log.extend(order(&[2, 1]));
    }
    for life in 0..12 {
        world.unclean = life > 0;
        let mut engine = world.engine();
        let log = world.whole_log();
        let mut actions = VecDeque::from(engine.step(log, world.now));
        loop {
            let action = actions.pop_front().expect("an effect to perform");
            if matches!(action, Action::Perform(_)) {
                break;
            }
            if let Some(input) = world.answer(action) {
                actions.extend(engine.step(input, world.now));
            }
        }
    }
    let totals = world.inbox.totals_now();
    assert_eq!((totals.applying.all(), totals.behind, world.performed.len()), (0, 0, 0));
}

#[test]
fn while_nobody_knows_whether_an_attempt_is_counted_it_does_not_begin() {
    for fault in [Fault::Away, Fault::UnknownLost, Fault::UnknownWritten] {
        let mut world = World::new();
        drop(world.begun());
        world.unclean = true;
        let mut engine = world.engine();
        let a = order(&[2]);
        world.log.extend_from_slice(&a);
        world.inbox.fail([fault]);
        let log = world.whole_log();
        world.settle(&mut engine, log);
        assert!(world.handled.is_empty(), "{fault:?}");
        world.settle_all(&mut engine, Input::Tick);
        world.check();
        assert_eq!(engine.status().fenced, 0);
    }
}

#[test]
fn an_attempt_that_was_counted_and_fenced_did_not_end_the_process() {
    let mut world = World::new();
    drop(world.begun());
    world.unclean = true;
    let mut engine = world.engine();
    let a = order(&[1, 1]);
    world.failing.insert((a[0].order(), Version(1)), (4, Failure::transient("no")));
    world.log.extend_from_slice(&a);
    let log = world.whole_log();
    let mut actions = VecDeque::from(engine.step(log, world.now));
    let mut touched = false;
    while let Some(action) = actions.pop_front() {
        if let Action::WakeAt(at) = &action
            && actions.is_empty()
        {
            world.now = world.now.max(*at);
            actions.extend(engine.step(Input::Tick, world.now));
        }
        if matches!(action, Action::Handle(_)) && world.handled.len() == 4 && !touched {
            touched = true;
            world.inbox.touch(a[0].order());
        }
        if let Some(input) = world.answer(action) {
            actions.extend(engine.step(input, world.now));
        }
    }
    assert_eq!(engine.status().fenced, 1);
    world.check();
}

#[test]
fn leaving_in_order_in_the_middle_of_an_attempt_counts_against_no_event() {
    let mut world = World::new();
    drop(world.begun());
    let a = order(&[1, 1]);
    world.log.extend_from_slice(&a);
    let killer = (a[0].order(), Version(1));
    for life in 0..9 {
        world.unclean = life == 0;
        let mut engine = world.engine();
        let log = world.whole_log();
        assert!(!world.live(&mut engine, log, killer, usize::MAX), "it is begun each time");
        let hold = world.row(killer.0).applying.hold().cloned().expect("counted");
        assert_eq!((hold.state, hold.attempts, hold.tried.len()), (HoldState::Attempting, 1, 1));
    }
    let mut engine = world.engine();
    world.settle_all(&mut engine, Input::Tick);
    world.check();
}
