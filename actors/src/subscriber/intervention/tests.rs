//! From a row as it was to the row as it shall be.

use proptest::prelude::*;

use super::*;
use crate::commit::Origin;
use crate::inbox::{Attempt, Failure};

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_795_000_000_000 + millis)
}

fn id(row: &Row, version: u32) -> LetterId {
    LetterId { order: row.order, version: Version(version), effect: None }
}

fn held_in(state: HoldState) -> Lane {
    let mut hold = Hold::new(state, at(1), None);
    hold.attempts = 5;
    hold.keep(Attempt { at: at(2), failure: Failure::permanent("no") });
    Lane::Held(Box::new(hold))
}

/// Events 1 to 3 are applied and performed, 5 is seen; 4 is held.
fn row(state: HoldState) -> Row {
    Row {
        applied: Version(3),
        applied_event: Some(EventId::generate()),
        seen: Version(5),
        performed: Version(3),
        applying: held_in(state),
        ..Row::new(OrderId::generate())
    }
}

fn in_log(version: u32) -> InLog {
    InLog { version: Version(version), event: EventId::generate(), event_type: "order.paid".to_owned() }
}

fn decision() -> Decision {
    Decision { reason: "sent by hand".to_owned(), by: "ana".to_owned(), at: at(9) }
}

fn effect(row: &Row, version: u32, index: u32, last_of_event: bool) -> NewEffect {
    NewEffect {
        id: crate::inbox::EffectId { event: EventId::generate(), index },
        order: row.order,
        version: Version(version),
        last_of_event,
        recorded_at: at(0),
        origin: Origin::anonymous("c".to_owned(), None),
        body: "{}".into(),
    }
}

fn waits(effect: NewEffect) -> RecordedEffect {
    RecordedEffect { effect, outcome: None }
}

#[test]
fn an_id_is_read_as_it_is_written_and_nothing_else_is_one() {
    let order = OrderId::generate();
    for effect in [None, Some(0), Some(u32::MAX)] {
        let id = LetterId { order, version: Version(7), effect };
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    let order = order.to_string();
    for wrong in ["", ".", "1.2", &order, &format!("{order}."), &format!("{order}.-1"), &format!("{order}.+1")] {
        assert_eq!(wrong.parse::<LetterId>(), Err(NotALetterId), "{wrong}");
    }
    for wrong in [".1.", ".1.2.3", ".4294967296", ".1.x", ". 1", "1"] {
        assert_eq!(format!("{order}{wrong}").parse::<LetterId>(), Err(NotALetterId), "{wrong}");
    }
}

#[test]
fn a_retry_gives_all_attempts_again_and_forgets_none() {
    for (state, becomes) in [
        (HoldState::Dead, HoldState::Retrying),
        (HoldState::Retrying, HoldState::Retrying),
        (HoldState::Undecodable, HoldState::Retrying),
        (HoldState::Gap, HoldState::Gap),
        // Looked at again, it says nothing of what is behind what was applied.
        (HoldState::Conflicting, HoldState::Gap),
    ] {
        let before = row(state);
        let head = LetterId::of(&before, Work::Applying).expect("held");
        let after = retry(&before, head, at(50)).expect("held");
        let (was, hold) = (before.applying.hold().expect("held"), after.applying.hold().expect("held"));
        assert_eq!((hold.state, hold.attempts, hold.next_attempt_at), (becomes, 0, Some(at(50))));
        assert_eq!((&hold.tried, hold.since), (&was.tried, was.since));
        assert_eq!(Row { applying: Lane::Ready, ..after }, Row { applying: Lane::Ready, ..before });
    }
}

#[test]
fn nothing_is_done_to_another_thing_than_the_one_that_was_named() {
    let dead = row(HoldState::Dead);
    let later = LetterId { version: Version(5), ..id(&dead, 4) };
    assert_eq!(retry(&dead, later, at(9)), Err(Refused::AnotherHeld(later, id(&dead, 4))));
    let discarded = discard_event(&dead, later, &Stream::default(), &[], decision());
    assert_eq!(discarded.expect_err("another"), Refused::AnotherHeld(later, id(&dead, 4)));
    let ready = Row { applying: Lane::Ready, ..dead.clone() };
    assert_eq!(retry(&ready, id(&ready, 4), at(9)), Err(Refused::NotHeld(id(&ready, 4))));
    let other_lane = LetterId { effect: Some(0), ..id(&dead, 4) };
    assert_eq!(retry(&dead, other_lane, at(9)), Err(Refused::NotHeld(other_lane)));
    let busy = row(HoldState::Attempting);
    assert_eq!(retry(&busy, id(&busy, 4), at(9)), Err(Refused::UnderWay(id(&busy, 4))));
    let (let_go, ..) =
        discard_event(&busy, id(&busy, 4), &Stream::default(), &[], decision()).expect("it can be let go");
    assert_eq!((let_go.applied, let_go.applying.hold().map(|hold| hold.state)), (Version(4), Some(HoldState::Gap)));
    let waiting = Row { performing: held_in(HoldState::Dead), effects_waiting: 2, ..dead };
    let mut head = waiting.performing.hold().cloned().expect("held");
    let (first, second) = (effect(&waiting, 2, 0, false), effect(&waiting, 2, 1, true));
    let head_of = |effect: &NewEffect| HeadOfLane {
        version: effect.version,
        event: effect.id.event,
        event_type: "order.paid".to_owned(),
        effect: Some(effect.id.index),
    };
    head.head = Some(head_of(&first));
    let waiting = Row { performing: Lane::Held(Box::new(head)), ..waiting };
    let (named, there) = (LetterId::of_effect(&second), LetterId::of_effect(&first));
    assert_eq!(discard_effect(&waiting, &second, decision()).expect_err("another"), Refused::AnotherHeld(named, there));
    // Unless what was written down is done with: a lane is held for the first effect that waits.
    let waiting = held_for(waiting, &second);
    assert_eq!(LetterId::of(&waiting, Work::Performing), Some(named));
    let (after, ..) = discard_effect(&waiting, &second, decision()).expect("held");
    assert!(after.performing.is_ready());
}

#[test]
fn what_is_behind_a_discarded_event_is_looked_for_at_once() {
    for state in [HoldState::Dead, HoldState::Undecodable, HoldState::Retrying, HoldState::Gap] {
        let before = row(state);
        let event = in_log(4);
        let stream = Stream { nearest: Some(event.clone()), end: Version(5) };
        let (after, _, discard) = discard_event(&before, id(&before, 4), &stream, &[], decision()).expect("held");
        assert_eq!((after.applied, after.applied_event, after.seen), (Version(4), Some(event.event), Version(5)));
        assert_eq!(after.performed, Version(4), "nothing of it waits to be performed");
        let hold = after.applying.hold().expect("not ready before the log was asked");
        assert_eq!((hold.state, hold.attempts, hold.next_attempt_at), (HoldState::Gap, 0, Some(at(9))));
        assert!(hold.tried.is_empty() && hold.head.is_none());
        assert_eq!((discard.event, discard.event_type.as_deref()), (Some(event.event), Some("order.paid")));
        assert_eq!(discard.hold, *before.applying.hold().expect("held"), "how it failed is kept with the decision");
        assert_eq!((discard.by.as_str(), discard.reason.as_str(), discard.at), ("ana", "sent by hand", at(9)));
    }
}

#[test]
fn a_lane_that_only_looks_whether_there_is_something_has_nothing_that_could_be_let_go() {
    let states = [HoldState::Attempting, HoldState::Retrying, HoldState::Gap, HoldState::Dead, HoldState::Undecodable];
    for state in states {
        let looking = Row { seen: Version(3), ..row(state) };
        let (next, stream) = (id(&looking, 4), Stream { nearest: Some(in_log(3)), end: Version(3) });
        let discarded = discard_event(&looking, next, &stream, &[], decision());
        assert_eq!(discarded.expect_err("not there"), Refused::NotHeld(next), "{state:?}");
    }
}

/// A retry asks the log again; until it has answered nobody has seen what is next.
#[test]
fn after_a_retry_of_what_contradicts_the_log_no_event_to_come_is_let_go() {
    let conflicting = Row { seen: Version(3), ..row(HoldState::Conflicting) };
    let retried = retry(&conflicting, id(&conflicting, 3), at(9)).expect("held");
    let next = LetterId::of(&retried, Work::Applying).expect("held");
    let stream = Stream { nearest: Some(in_log(3)), end: Version(3) };
    assert_eq!(discard_event(&retried, next, &stream, &[], decision()).expect_err("not there"), Refused::NotHeld(next));
    let there = Stream { nearest: Some(in_log(3)), end: Version(3) };
    assert!(discard_event(&conflicting, id(&conflicting, 3), &there, &[], decision()).is_ok());
}

#[test]
fn an_event_that_the_log_never_brings_is_passed_without_a_name() {
    let before = row(HoldState::Gap);
    let stream = Stream { nearest: Some(in_log(3)), end: Version(3) };
    let (after, _, discard) = discard_event(&before, id(&before, 4), &stream, &[], decision()).expect("held");
    assert_eq!((after.applied, after.applied_event), (Version(4), None));
    assert_eq!((discard.version, discard.event, discard.event_type), (Version(4), None, None));
}

#[test]
fn effects_that_wait_are_still_to_be_performed_after_a_discard() {
    let before = Row { performed: Version(1), effects_waiting: 3, ..row(HoldState::Dead) };
    let stream = Stream { nearest: Some(in_log(4)), end: Version(5) };
    let waiting = [2, 3, 3].map(|version| waits(effect(&before, version, 0, true)));
    let (after, outcomes, _) = discard_event(&before, id(&before, 4), &stream, &waiting, decision()).expect("held");
    assert_eq!((after.performed, after.effects_waiting, outcomes.len()), (Version(1), 3, 0));
}

#[test]
fn after_a_restored_backup_what_the_log_has_is_taken_as_applied() {
    let before = row(HoldState::Conflicting);
    assert!(retry(&before, id(&before, 4), at(9)).is_err(), "the contradiction is at what is applied, not behind it");
    let head = id(&before, 3);
    assert_eq!(retry(&before, head, at(9)).map(|row| row.applied), Ok(Version(3)));
    let (same, shorter) = (in_log(3), in_log(2));
    for (stream, applied, event, seen) in [
        (Stream { nearest: Some(same.clone()), end: Version(4) }, 3, Some(same.event), 4),
        (Stream { nearest: Some(shorter.clone()), end: Version(2) }, 2, Some(shorter.event), 2),
        (Stream::default(), 0, None, 0),
    ] {
        let (after, ..) = discard_event(&before, head, &stream, &[], decision()).expect("held");
        assert_eq!((after.applied, after.applied_event, after.seen), (Version(applied), event, Version(seen)));
        assert!(after.performed <= after.applied);
        assert!(after.applying.hold().is_some_and(|hold| hold.state == HoldState::Gap));
    }
}

#[test]
fn after_a_restored_backup_nothing_is_performed_for_events_that_are_gone() {
    let before = Row { performed: Version(1), effects_waiting: 3, ..row(HoldState::Conflicting) };
    for (end, left, ready) in [(3, 3, false), (2, 1, false), (1, 0, true), (0, 0, true)] {
        let before = Row { performing: held_in(HoldState::Dead), ..before.clone() };
        let waiting = [(2, 0), (3, 0), (3, 1)].map(|(version, index)| waits(effect(&before, version, index, true)));
        let stream = Stream { nearest: (end > 0).then(|| in_log(end)), end: Version(end) };
        let (after, outcomes, _) = discard_event(&before, id(&before, 3), &stream, &waiting, decision()).expect("held");
        assert_eq!((after.effects_waiting, outcomes.len()), (left, 3 - left as usize), "{end}");
        assert_eq!(after.performing.is_ready(), ready, "{end}");
        assert!(after.performed <= after.applied, "{end}");
        assert!(outcomes.iter().all(|outcome| outcome.outcome.kind == OutcomeKind::Discarded));
    }
}

#[test]
fn an_effect_that_is_let_go_has_its_outcome_and_the_next_one_follows() {
    for (waiting, last_of_event, performed) in [(1, true, 3), (2, true, 2), (2, false, 1)] {
        let before = Row {
            applying: Lane::Ready,
            seen: Version(3),
            performed: Version(1),
            performing: held_in(HoldState::Dead),
            effects_waiting: waiting,
            ..row(HoldState::Dead)
        };
        let effect = effect(&before, 2, 0, last_of_event);
        let (after, outcome, discard) = discard_effect(&before, &effect, decision()).expect("held");
        assert!(after.performing.is_ready());
        assert_eq!((after.effects_waiting, after.performed), (waiting - 1, Version(performed)));
        assert_eq!((outcome.id, outcome.outcome.kind), (effect.id, OutcomeKind::Discarded));
        assert_eq!((discard.effect, discard.event), (Some(0), Some(effect.id.event)));
    }
}

fn lanes() -> impl Strategy<Value = Lane> {
    let states = prop::sample::select(HoldState::ALL.to_vec());
    let held = (states, 0_u32..9, prop::option::of(0_i64..99)).prop_map(|(state, attempts, next)| {
        let mut hold = Hold::new(state, at(0), next.map(at));
        hold.attempts = attempts;
        Lane::Held(Box::new(hold))
    });
    prop_oneof![1 => Just(Lane::Ready), 4 => held]
}

fn rows() -> impl Strategy<Value = Row> {
    (0_u32..9, 0_u32..9, 0_u32..9, 0_u32..4, lanes(), lanes()).prop_map(
        |(applied, beyond, behind, effects_waiting, applying, performing)| Row {
            applied: Version(applied),
            applied_event: (applied > 0).then(EventId::generate),
            seen: Version(applied + beyond),
            performed: Version(applied.saturating_sub(behind)),
            effects_waiting,
            applying,
            performing,
            ..Row::new(OrderId::generate())
        },
    )
}

proptest! {
    #[test]
    fn whatever_is_held_a_decision_touches_its_lane_alone_and_leaves_a_row_that_holds_together(
        row in rows(), nearest in 0_u32..12, end in 0_u32..12,
    ) {
        let Some(id) = LetterId::of(&row, Work::Applying) else { return Ok(()) };
        let nearest = nearest.min(id.version.0).min(end);
        let stream = Stream { nearest: (nearest > 0).then(|| in_log(nearest)), end: Version(end) };
        match (retry(&row, id, at(5)), discard_event(&row, id, &stream, &[], decision())) {
            (Ok(retried), Ok((discarded, ..))) => {
                for after in [&retried, &discarded] {
                    prop_assert_eq!(&after.performing, &row.performing);
                    prop_assert_eq!(after.effects_waiting, row.effects_waiting);
                    prop_assert!(after.performed <= after.applied && after.applied <= after.seen);
                    let hold = after.applying.hold().expect("not ready before the log was asked");
                    prop_assert!(hold.attempts == 0 && hold.next_attempt_at.is_some());
                }
                prop_assert_eq!(retried.applied, row.applied);
            }
            (Err(Refused::UnderWay(_)), Ok(_)) => {
                prop_assert_eq!(row.applying.hold().map(|hold| hold.state), Some(HoldState::Attempting));
            }
            // Nobody has seen it: it is not let go before it is there.
            (Ok(_) | Err(Refused::UnderWay(_)), Err(Refused::NotHeld(_))) => prop_assert!(id.version > row.seen),
            (retried, discarded) => prop_assert!(false, "{:?} {:?}", retried, discarded),
        }
    }
}
