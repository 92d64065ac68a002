//! Events whose handlers take long.

use super::*;

impl World {
    /// As [`World::settle_all`], but what is to be handled aside is not handled yet.
    fn settle_beside(&mut self, engine: &mut Engine, input: Input) -> (Vec<(Run, Arc<Envelope>)>, Vec<Run>) {
        let (mut begun, mut given_up) = (Vec::new(), Vec::new());
        let mut actions = VecDeque::from(engine.step(input, self.now));
        while let Some(action) = actions.pop_front() {
            if let Action::HandleAside(run, event) = action {
                begun.push((run, event));
                continue;
            }
            if let Action::GiveUpAside(run) = action {
                given_up.push(run);
            }
            if let Some(input) = self.answer(action) {
                actions.extend(engine.step(input, self.now));
            }
        }
        (begun, given_up)
    }

    fn ended(&mut self, (run, event): &(Run, Arc<Envelope>)) -> Input {
        Input::HandledAside(*run, event.order, Ok(self.handle_aside(event)))
    }

    /// An engine with one event aside, with two behind it.
    fn with_one_aside(&mut self) -> (Engine, OrderId, (Run, Arc<Envelope>)) {
        let mut engine = self.begun();
        let (a, b) = (order(&[1, 1, 1]), order(&[1, 1]));
        let slow = a[0].order();
        self.slow.insert((slow, Version(1)), u32::MAX);
        self.log.extend(a.into_iter().chain(b));
        let delivered = Input::Delivered(self.log.clone(), position(self.log.len(), None));
        let (mut begun, _) = self.settle_beside(&mut engine, delivered);
        assert_eq!(begun.len(), 1);
        (engine, slow, begun.remove(0))
    }
}

#[test]
fn what_is_aside_holds_its_order_and_nothing_else_and_is_no_failure() {
    let mut world = World::new();
    let (mut engine, slow, aside) = world.with_one_aside();
    let hold = world.row(slow).applying.hold().cloned().expect("held");
    assert_eq!((hold.state, hold.attempts, hold.tried.len()), (HoldState::Retrying, 0, 0));
    assert_eq!(hold.head.map(|head| head.version), Some(Version(1)));
    assert_eq!((world.row(slow).seen, world.document(slow)), (Version(3), String::new()));
    assert!(
        world
            .log
            .iter()
            .filter(|commit| commit.order() != slow)
            .all(|commit| !world.document(commit.order()).is_empty())
    );
    let ended = world.ended(&aside);
    world.settle_all(&mut engine, ended);
    world.check();
    assert_eq!(engine.status().retries, 0);
}

#[test]
fn a_failure_aside_is_counted_as_any_other_and_its_next_attempt_is_aside_at_once() {
    let mut world = World::new();
    let (mut engine, slow, aside) = world.with_one_aside();
    world.failing.insert((slow, Version(1)), (1, Failure::transient("no")));
    let ended = world.ended(&aside);
    let (begun, _) = world.settle_beside(&mut engine, ended);
    assert!(begun.is_empty());
    let hold = world.row(slow).applying.hold().cloned().expect("held");
    assert_eq!((hold.state, hold.attempts), (HoldState::Retrying, 1));
    world.now = hold.next_attempt_at.expect("another attempt");
    world.handled.clear();
    let (mut begun, _) = world.settle_beside(&mut engine, Input::Tick);
    assert_eq!((begun.len(), world.handled.len()), (1, 0), "no batch waits for it again");
    let ended = world.ended(&begun.remove(0));
    world.settle_all(&mut engine, ended);
    world.check();
}

#[test]
fn while_it_is_to_rest_nothing_is_aside_and_what_was_means_nothing() {
    let mut world = World::new();
    let (mut engine, slow, aside) = world.with_one_aside();
    let (_, given_up) = world.settle_beside(&mut engine, told_to_rest(true));
    assert_eq!(given_up, [aside.0]);
    let ended = world.ended(&aside);
    world.settle_all(&mut engine, ended);
    assert_eq!(world.document(slow), "");
    world.settle_all(&mut engine, told_to_rest(false));
    world.check();
}

#[test]
fn whoever_leaves_does_not_wait_for_what_is_aside() {
    let mut world = World::new();
    let (mut engine, slow, _) = world.with_one_aside();
    world.settle_all(&mut engine, Input::Leave);
    assert!(engine.has_left());
    world.slow.clear();
    let mut engine = world.engine();
    world.settle_all(&mut engine, Input::Tick);
    assert_eq!(world.document(slow), "1 2 3");
}
