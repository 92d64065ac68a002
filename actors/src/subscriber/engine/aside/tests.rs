use super::*;
use crate::inbox::Failure;
use crate::testing::commits::first;

fn event() -> Arc<Envelope> {
    Arc::new(first(1).envelopes().next().expect("an event"))
}

fn key(name: &str) -> DocumentKey {
    DocumentKey { collection: "all".into(), id: name.to_owned() }
}

fn write(name: &str) -> DocumentWrite {
    DocumentWrite { key: key(name), body: Some("1".into()) }
}

/// It read the first of these, and wrote the others.
fn applied(read: &str, written: &[&str]) -> HandledAside {
    let keys = std::iter::once(read).chain(written.iter().copied()).map(key).collect();
    let documents = written.iter().map(|name| write(name)).collect();
    HandledAside { result: EventResult::Applied { effects: Vec::new() }, documents, keys }
}

fn row(event: &Envelope, applied: u32) -> Row {
    Row { applied: Version(applied), ..Row::new(event.order) }
}

/// Puts it aside and starts it.
fn begin(asides: &mut Asides, event: &Arc<Envelope>) -> Run {
    asides.put(event.clone());
    let (run, started) = asides.start(usize::MAX).expect("a place");
    assert_eq!(started.id, event.id);
    run
}

fn sifted(asides: &mut Asides) -> (Vec<EventId>, Vec<OrderId>) {
    let taken = asides.take(usize::MAX, usize::MAX);
    let (holding, released) = asides.sift(taken);
    (holding.into_iter().map(|ended| ended.event.id).collect(), released)
}

#[test]
fn so_many_run_at_once_and_the_others_follow_in_their_order() {
    let mut asides = Asides::new(2);
    let events: Vec<_> = (0..4).map(|_| event()).collect();
    for event in &events {
        asides.put(event.clone());
    }
    let start = |asides: &mut Asides, at_once| asides.start(at_once).map(|(run, event)| (run, event.order));
    let (first, order) = start(&mut asides, 9).expect("a place");
    assert_eq!(order, events[0].order);
    assert_eq!(start(&mut asides, 1), None, "one at a time is enough");
    assert_eq!(start(&mut asides, 9).expect("another place").1, events[1].order);
    assert_eq!(start(&mut asides, 9), None);
    asides.ended(first, events[0].order, applied("a", &[]));
    assert_eq!(start(&mut asides, 9).expect("a free place").1, events[2].order);
}

#[test]
fn there_is_room_for_a_bounded_number() {
    let mut asides = Asides::new(2);
    let room = asides.room();
    for _ in 0..room {
        assert!(asides.room() > 0);
        asides.put(event());
    }
    assert_eq!((asides.room(), asides.len()), (0, room));
}

#[test]
fn a_result_holds_unless_what_it_read_or_wrote_was_written_since_it_began() {
    for (written, holds) in [("other", true), ("read", false), ("written", false)] {
        let mut asides = Asides::new(2);
        let slow = event();
        asides.wrote(&[write("read"), write("written")]);
        let run = begin(&mut asides, &slow);
        asides.wrote(&[write(written)]);
        asides.ended(run, slow.order, applied("read", &["written"]));
        let (holding, released) = sifted(&mut asides);
        assert_eq!(holding, if holds { vec![slow.id] } else { vec![] }, "{written}");
        assert!(released.is_empty());
        assert_eq!(asides.start(9).is_some(), !holds, "it begins again when it does not");
    }
}

#[test]
fn what_was_written_after_it_ended_counts_as_well() {
    let mut asides = Asides::new(2);
    let slow = event();
    let run = begin(&mut asides, &slow);
    asides.ended(run, slow.order, applied("a", &[]));
    asides.wrote(&[write("a")]);
    assert_eq!(sifted(&mut asides), (vec![], vec![]));
}

#[test]
fn of_two_results_that_do_not_agree_the_first_one_holds() {
    let mut asides = Asides::new(2);
    let (one, two) = (event(), event());
    let runs = [begin(&mut asides, &one), begin(&mut asides, &two)];
    asides.ended(runs[0], one.order, applied("a", &["b"]));
    asides.ended(runs[1], two.order, applied("b", &["c"]));
    assert_eq!(sifted(&mut asides), (vec![one.id], vec![]));
}

#[test]
fn after_three_rounds_in_vain_it_is_handled_in_a_batch_and_aside_again_should_it_fail_there() {
    let mut asides = Asides::new(2);
    let slow = event();
    assert_eq!(asides.pace(&slow), Pace::Brisk);
    asides.put(slow.clone());
    for round in 1..=3 {
        assert_eq!(asides.pace(&slow), Pace::Aside);
        let (run, _) = asides.start(9).expect("a place");
        asides.wrote(&[write("a")]);
        asides.ended(run, slow.order, applied("a", &[]));
        let released = if round == 3 { vec![slow.order] } else { vec![] };
        assert_eq!(sifted(&mut asides), (vec![], released));
    }
    assert_eq!((asides.pace(&slow), asides.len()), (Pace::Unhurried, 0));
    assert_eq!(asides.holds(&row(&slow, 0)), Holds::No, "its lane is tried");
    asides.tried(&row(&slow, 0));
    assert_eq!(asides.pace(&slow), Pace::Aside);
    asides.tried(&row(&slow, 1));
    assert_eq!(asides.pace(&slow), Pace::Brisk, "it is through");
}

#[test]
fn one_that_took_too_long_is_so_whatever_was_written() {
    let mut asides = Asides::new(2);
    let slow = event();
    let run = begin(&mut asides, &slow);
    asides.wrote(&[write("a")]);
    let result = EventResult::Failed(Failure::transient("it took longer than 30000 ms"));
    asides.ended(run, slow.order, HandledAside { result, documents: Vec::new(), keys: Vec::new() });
    assert_eq!(sifted(&mut asides), (vec![slow.id], vec![]));
}

#[test]
fn one_whose_event_is_done_with_is_given_up_and_what_becomes_of_it_means_nothing() {
    let mut asides = Asides::new(1);
    let (slow, next) = (event(), event());
    let run = begin(&mut asides, &slow);
    assert_eq!(asides.holds(&row(&slow, 0)), Holds::Yes);
    assert_eq!(asides.holds(&row(&slow, 1)), Holds::Overtaken(Some(run)));
    asides.put(next.clone());
    let (other, _) = asides.start(9).expect("its place is free");
    asides.ended(run, slow.order, applied("a", &[]));
    assert_eq!(sifted(&mut asides), (vec![], vec![]));
    // Nor is the run of an order taken for the next one of the same order.
    asides.ended(run, next.order, applied("a", &[]));
    assert_eq!(sifted(&mut asides), (vec![], vec![]));
    asides.ended(other, next.order, applied("a", &[]));
    assert_eq!(sifted(&mut asides), (vec![next.id], vec![]));
}

#[test]
fn a_result_in_the_present_cycle_is_judged_there() {
    let mut asides = Asides::new(1);
    let slow = event();
    let run = begin(&mut asides, &slow);
    asides.ended(run, slow.order, applied("a", &[]));
    assert_eq!(asides.take(9, 9).len(), 1);
    assert_eq!(asides.holds(&row(&slow, 1)), Holds::Yes);
    assert_eq!((asides.give_up(), asides.len()), (vec![], 1));
    asides.tried(&row(&slow, 1));
    assert_eq!((asides.holds(&row(&slow, 1)), asides.len()), (Holds::No, 0));
}

#[test]
fn all_of_them_are_given_up_at_once() {
    let mut asides = Asides::new(2);
    let events: Vec<_> = (0..4).map(|_| event()).collect();
    let ended = begin(&mut asides, &events[0]);
    asides.ended(ended, events[0].order, applied("a", &[]));
    let runs = vec![begin(&mut asides, &events[1])];
    asides.put(events[2].clone());
    assert_eq!(asides.give_up(), runs);
    assert_eq!((asides.len(), asides.has_ended(), asides.start(9).is_some()), (0, false, false));
    begin(&mut asides, &events[3]);
    begin(&mut asides, &events[1]);
}

#[test]
fn results_are_taken_up_to_the_limits_of_a_transaction_and_at_least_one() {
    let mut asides = Asides::new(9);
    let events: Vec<_> = (0..3).map(|_| event()).collect();
    for (event, name) in events.iter().zip(["a", "b", "c"]) {
        let run = begin(&mut asides, event);
        asides.ended(run, event.order, applied(name, &[name, "d"]));
    }
    assert_eq!(asides.take(1, 1).len(), 1);
    assert_eq!(asides.take(3, 100).len(), 2);
    assert!(!asides.has_ended());
}

#[test]
fn more_than_can_be_remembered_counts_as_written() {
    let mut asides = Asides::new(2);
    let slow = event();
    let run = begin(&mut asides, &slow);
    for page in 0..=(WRITTEN_MAX / 1_000) {
        let writes: Vec<_> = (0..1_000).map(|n| write(&format!("{page} {n}"))).collect();
        asides.wrote(&writes);
        assert!(asides.written.at.len() <= WRITTEN_MAX);
    }
    asides.ended(run, slow.order, applied("another", &[]));
    assert_eq!(sifted(&mut asides).0, vec![]);
    // What begins now knows all that follows.
    let (run, _) = asides.start(9).expect("another round");
    asides.wrote(&[write("a")]);
    asides.ended(run, slow.order, applied("another", &[]));
    assert_eq!(sifted(&mut asides).0, vec![slow.id]);
}

#[test]
fn what_nobody_waits_for_is_not_remembered() {
    let mut asides = Asides::new(2);
    asides.put(event());
    asides.wrote(&[write("a")]);
    assert!(asides.written.at.is_empty());
}
