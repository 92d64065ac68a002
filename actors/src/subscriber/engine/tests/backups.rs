//! An older copy of the event store under newer subscribers: what was applied is not in the log any more, or something else
//! is.

use super::*;

/// What the log has after its older copy was restored: the first commits of each order.
fn older(commits: &[Arc<Commit>], keep: usize) -> Vec<Arc<Commit>> {
    commits[..keep].to_vec()
}

impl World {
    /// Another log: all of it is read.
    fn restored(&mut self, engine: &mut Engine, mut log: Vec<Arc<Commit>>) {
        log.sort_by_key(|commit| commit.key());
        self.log = log.clone();
        let end = Position { log: LogId(Uuid::from_u128(2)), token: "0".to_owned(), commit: None };
        self.settle(engine, Input::Opened(end));
        for page in log.chunks(2) {
            self.settle(engine, Input::Scanned(page.to_vec()));
        }
        self.settle(engine, Input::ScanEnded);
    }
}

#[test]
fn an_order_that_ends_before_what_was_applied_is_held_after_a_few_looks_and_the_others_are_not() {
    let mut world = World::new();
    let mut engine = world.begun();
    let (a, b, c) = (order(&[1, 1, 1]), order(&[2, 1]), order(&[1]));
    let all: Vec<_> = [&a[..], &b[..], &c[..]].concat();
    world.deliver(&mut engine, &all);
    let log = [older(&a, 2), older(&b, 2), older(&c, 1)].concat();
    world.restored(&mut engine, log);
    assert_eq!(world.hold(a[0].order()), HoldState::Gap, "absence is a guess");
    world.settle_all(&mut engine, Input::Tick);
    assert_eq!(world.hold(a[0].order()), HoldState::Conflicting);
    assert!(world.row(b[0].order()).applying.is_ready() && world.row(c[0].order()).applying.is_ready());
    assert_eq!(engine.status().conflicts, 1);
    // What the order becomes now is not taken for what it was.
    let other = commit(&a[1].stored_end(), 2);
    world.deliver(&mut engine, &[other]);
    assert_eq!((world.document(a[0].order()), world.row(a[0].order()).seen), ("1 2 3".to_owned(), Version(4)));
    assert_eq!(world.hold(a[0].order()), HoldState::Conflicting);
}

#[test]
fn what_was_only_not_there_yet_is_no_contradiction() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[1, 1, 1]);
    world.deliver(&mut engine, &a);
    world.restored(&mut engine, older(&a, 2));
    world.settle_within(&mut engine, Input::Tick, 2);
    world.log.push(a[2].clone());
    world.settle_all(&mut engine, Input::Tick);
    world.check();
    assert_eq!(engine.status().conflicts, 0);
}

#[test]
fn every_try_of_a_lane_finds_out_that_another_event_stands_where_one_was_applied() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[1, 1]);
    world.deliver(&mut engine, &a);
    let failing = commit(&a[1].stored_end(), 1);
    world.failing.insert((a[0].order(), Version(3)), (u32::MAX, Failure::transient("no")));
    world.deliver(&mut engine, std::slice::from_ref(&failing));
    let second = commit(&a[0].stored_end(), 1);
    let third = commit(&second.stored_end(), 1);
    world.log = vec![a[0].clone(), second, third];
    world.settle_all(&mut engine, Input::Tick);
    assert_eq!(world.hold(a[0].order()), HoldState::Conflicting);
    assert_eq!(world.document(a[0].order()), "1 2", "nothing of the other log is taken in");
}

#[test]
fn an_order_that_begins_anew_is_not_swallowed_as_a_duplicate() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[1, 1, 1]);
    world.deliver(&mut engine, &a);
    // The same key makes the same order, in a log that has forgotten it.
    let made =
        |commit: &Commit| commit.envelopes().next().and_then(|event| event.id.0.get_timestamp()).map(|at| at.to_unix());
    let mut again = commit(&StreamEnd::nothing(a[0].order()), 1);
    while made(&again) <= made(&a[2]) {
        again = commit(&StreamEnd::nothing(a[0].order()), 1);
    }
    world.log.clear();
    world.deliver(&mut engine, &[again]);
    world.settle_all(&mut engine, Input::Tick);
    assert_eq!(world.hold(a[0].order()), HoldState::Conflicting);
}

#[test]
fn a_scan_that_goes_on_in_another_life_looks_at_the_order_where_it_stood() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[1, 1]);
    world.deliver(&mut engine, &a);
    world.log.truncate(1);
    let end = Position { log: LogId(Uuid::from_u128(2)), token: "0".to_owned(), commit: None };
    world.settle(&mut engine, Input::Opened(end));
    world.settle(&mut engine, Input::Scanned(a[..1].to_vec()));
    // Nobody knew yet that this was the order's end.
    assert!(world.row(a[0].order()).applying.is_ready());
    let mut engine = world.engine();
    world.settle(&mut engine, Input::ScanEnded);
    world.settle_all(&mut engine, Input::Tick);
    assert_eq!(world.hold(a[0].order()), HoldState::Conflicting);
}

#[test]
fn a_look_costs_an_order_nothing_when_its_log_is_as_it_was() {
    let mut world = World::new();
    let mut engine = world.begun();
    let (a, b) = (order(&[1, 2, 1]), order(&[3]));
    let both: Vec<_> = [&a[..], &b[..]].concat();
    world.deliver(&mut engine, &both);
    let log = world.log.clone();
    world.restored(&mut engine, log);
    world.settle_all(&mut engine, Input::Tick);
    world.check();
    assert_eq!((engine.status().conflicts, engine.status().retries), (0, 0));
}

#[test]
fn what_a_queue_still_brings_from_before_the_restore_is_no_contradiction() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[1, 1]);
    world.deliver(&mut engine, &a);
    let lost = commit(&a[0].stored_end(), 1);
    world.settle_all(&mut engine, Input::Delivered(vec![lost], position(3, None)));
    world.check();
    assert_eq!(engine.status().conflicts, 0);
}
