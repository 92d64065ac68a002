#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::value::RawValue;

use super::*;
use crate::clock::Timestamp;
use crate::commit::{Origin, Part, StoredEvent, StreamEnd};
use crate::event::EventId;
use crate::order::OrderId;

fn commit_of(order: OrderId) -> Arc<Commit> {
    let event = StoredEvent {
        id: EventId::generate(),
        event_type: "order.delivered".to_owned(),
        schema_version: 1,
        data: RawValue::from_string("{}".to_owned()).unwrap(),
    };
    let part = Part { key: None, origin: Origin::anonymous("c".to_owned(), None), events: vec![event] };
    Arc::new(Commit::new(&StreamEnd::nothing(order), Timestamp::from_millis(0), vec![part]).unwrap())
}

fn commit() -> Arc<Commit> {
    commit_of(OrderId::generate())
}

/// A journal whose orders are numbers, and what it did.
struct Bench {
    journal: Journal<u32>,
    now: Instant,
    groups: Vec<Group>,
    told: Vec<(u32, Said)>,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        Self { journal: Journal::new(limits), now: Instant::now(), groups: Vec::new(), told: Vec::new() }
    }

    fn take(&mut self, actions: Vec<Action<u32>>) {
        for action in actions {
            match action {
                Action::Write(group) => self.groups.push(group),
                Action::Tell(order, _, said) => self.told.push((order, said)),
            }
        }
    }

    fn append(&mut self, order: u32) -> Arc<Commit> {
        let commit = commit();
        let actions = self.journal.append(Arc::clone(&commit), order, self.now);
        self.take(actions);
        commit
    }

    fn wrote(&mut self, outcomes: Vec<Appended>) {
        let actions = self.journal.wrote(outcomes, self.now);
        self.take(actions);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let actions = self.journal.tick(self.now);
        self.take(actions);
    }

    fn told(&mut self) -> Vec<String> {
        self.told
            .drain(..)
            .map(|(order, said)| match said {
                Said::Written => format!("{order} written"),
                Said::Conflict => format!("{order} conflict"),
                Said::NotDone(Why::Overloaded) => format!("{order} overloaded"),
                Said::NotDone(Why::StoreAway(_)) => format!("{order} away"),
                Said::Unknown => format!("{order} unknown"),
            })
            .collect()
    }
}

fn away() -> StoreError {
    StoreError::Away("no answer".to_owned())
}

#[test]
fn what_arrives_during_a_write_is_one_group() {
    let mut bench = Bench::new(Limits::default());
    bench.append(1);
    for order in 2..=5 {
        bench.append(order);
    }
    assert_eq!(bench.groups.iter().map(Group::len).collect::<Vec<_>>(), [1]);
    bench.wrote(vec![Appended::Written]);
    assert_eq!(bench.groups.iter().map(Group::len).collect::<Vec<_>>(), [1, 4]);
    bench.wrote(vec![Appended::Written, Appended::Conflict, Appended::Written, Appended::Written]);
    assert_eq!(bench.told(), ["1 written", "2 written", "3 conflict", "4 written", "5 written"]);
    assert_eq!(bench.journal.wake_at(bench.now), None, "an idle journal sleeps");
}

#[test]
fn a_group_keeps_its_bounds() {
    let size = commit().encoded().len();
    let limits = Limits { group_commits_max: 3, group_bytes_max: 2 * size + 1, ..Limits::default() };
    let mut bench = Bench::new(limits);
    for order in 0..5 {
        bench.append(order);
    }
    bench.wrote(vec![Appended::Written]);
    bench.wrote(vec![Appended::Written; 2]);
    assert_eq!(bench.groups.iter().map(Group::len).collect::<Vec<_>>(), [1, 2, 2]);
}

#[test]
fn more_than_may_wait_is_refused_at_once() {
    let mut bench = Bench::new(Limits { waiting_max: 2, ..Limits::default() });
    for order in 0..4 {
        bench.append(order);
    }
    assert_eq!(bench.told(), ["3 overloaded"]);
}

#[test]
fn an_unknown_commit_is_appended_again_until_the_answer_is_definite() {
    let mut bench = Bench::new(Limits::default());
    let commit = bench.append(1);
    bench.wrote(vec![Appended::Unknown(away())]);
    assert_eq!(bench.told(), ["1 unknown"]);
    // A certain "not done" of a later attempt says nothing of the first one.
    for outcome in [Appended::NotDone(away()), Appended::Unknown(away()), Appended::Written] {
        let before = bench.groups.len();
        let wake = bench.journal.wake_at(bench.now).unwrap();
        bench.pass(wake - bench.now);
        assert_eq!(bench.groups.len(), before + 1);
        assert_eq!(bench.groups[before].commits()[0].id(), commit.id());
        bench.wrote(vec![outcome]);
    }
    assert_eq!(bench.told(), ["1 written"]);
    let counted = Health { groups: 4, written: 1, unknown: 1, settled: 1, ..Health::default() };
    assert_eq!(bench.journal.health(bench.now), counted);
}

#[test]
fn one_unclear_answer_among_definite_ones_holds_up_nobody_else() {
    let mut bench = Bench::new(Limits::default());
    bench.append(1);
    let unclear = bench.append(2);
    bench.append(3);
    bench.wrote(vec![Appended::Written]);
    bench.append(4);
    bench.wrote(vec![Appended::Unknown(away()), Appended::Written]);
    assert_eq!(bench.told(), ["1 written", "2 unknown", "3 written"]);
    assert_eq!(bench.journal.health(bench.now).away, None);
    assert_eq!(bench.groups.len(), 3, "who waited is written at once");
    assert!(
        bench.groups[2].commits().iter().all(|commit| commit.id() != unclear.id()),
        "the unclear one is left alone"
    );
    bench.wrote(vec![Appended::Written]);
    assert_eq!(bench.told(), ["4 written"]);
    let wake = bench.journal.wake_at(bench.now).unwrap();
    assert_eq!(wake - bench.now, Limits::default().away_first);
    bench.pass(wake - bench.now);
    bench.wrote(vec![Appended::Written]);
    assert_eq!(bench.told(), ["2 written"]);
    assert_eq!(bench.journal.wake_at(bench.now), None);
}

#[test]
fn while_the_store_is_away_appends_are_refused_at_once_and_one_group_finds_out_that_it_is_back() {
    let mut bench = Bench::new(Limits::default());
    bench.append(1);
    bench.append(2);
    bench.wrote(vec![Appended::NotDone(away())]);
    assert_eq!(bench.told(), ["1 away", "2 away"], "what waited is answered, too");
    bench.append(3);
    assert_eq!(bench.told(), ["3 away"]);
    assert_eq!(bench.groups.len(), 1);
    let health = bench.journal.health(bench.now);
    assert!(health.away.is_some() && health.refusing);
    let wake = bench.journal.wake_at(bench.now).expect("it is left alone for a while only");
    bench.pass(wake - bench.now);
    assert!(!bench.journal.health(bench.now).refusing, "somebody has to come and find out whether it is back");
    bench.append(4);
    assert_eq!(bench.groups.len(), 2);
    bench.wrote(vec![Appended::Written]);
    assert_eq!(bench.told(), ["4 written"]);
    assert_eq!(bench.journal.health(bench.now).away, None);
}

#[test]
fn the_store_is_left_alone_for_longer_with_each_failure_but_never_for_longer_than_the_limit() {
    let mut bench = Bench::new(Limits::default());
    let mut pauses = Vec::new();
    for _ in 0..8 {
        bench.append(1);
        bench.wrote(vec![Appended::NotDone(away())]);
        let pause = bench.journal.away.as_ref().unwrap().until - bench.now;
        pauses.push(pause.as_millis());
        bench.pass(pause);
    }
    assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1000, 1000]);
}

#[test]
fn a_write_without_answer_is_given_up_on_and_settled_when_the_answer_comes() {
    let mut bench = Bench::new(Limits::default());
    bench.append(1);
    bench.append(2);
    assert_eq!(bench.journal.wake_at(bench.now), Some(bench.now + Duration::from_secs(2)));
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.told(), ["1 unknown", "2 away"]);
    let health = bench.journal.health(bench.now);
    assert_eq!((health.unknown, health.unsettled, health.settled), (1, 1, 0));
    bench.pass(Duration::from_secs(60));
    bench.append(3);
    assert_eq!(bench.told(), ["3 away"], "the write still hangs");
    assert_eq!(bench.groups.len(), 1);
    bench.wrote(vec![Appended::Written]);
    assert_eq!(bench.told(), ["1 written"]);
    let health = bench.journal.health(bench.now);
    assert_eq!((health.unknown, health.unsettled, health.settled), (1, 0, 1));
    bench.append(4);
    assert_eq!(bench.groups.len(), 2);
}

#[test]
fn a_commit_that_waits_too_long_is_withdrawn() {
    let limits = Limits { wait_max: Duration::from_millis(100), ..Limits::default() };
    let mut bench = Bench::new(limits);
    bench.append(1);
    bench.append(2);
    bench.pass(Duration::from_millis(100));
    assert_eq!(bench.told(), ["2 away"]);
    bench.wrote(vec![Appended::Written]);
    assert_eq!(bench.told(), ["1 written"]);
    assert_eq!(bench.groups.len(), 1, "what was withdrawn is not written");
}

#[test]
fn a_write_that_was_lost_is_unknown_and_an_order_may_ask_again() {
    let mut bench = Bench::new(Limits::default());
    let commit = bench.append(1);
    let actions = bench.journal.lost_write(bench.now);
    bench.take(actions);
    assert_eq!(bench.told(), ["1 unknown"]);
    let actions = bench.journal.append_again(Arc::clone(&commit), 7, bench.now);
    bench.take(actions);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.groups.len(), 2, "the same commit, once");
    bench.wrote(vec![Appended::Written]);
    assert_eq!(bench.told(), ["7 written"], "who asked last is told");
}

#[test]
fn a_commit_that_nobody_knows_any_more_is_appended_again() {
    let mut bench = Bench::new(Limits::default());
    let actions = bench.journal.append_again(commit(), 1, bench.now);
    bench.take(actions);
    assert_eq!(bench.groups.len(), 1);
    bench.wrote(vec![Appended::Written]);
    assert_eq!(bench.told(), ["1 written"]);
}

#[test]
fn what_the_store_does_not_answer_for_is_unknown() {
    let mut bench = Bench::new(Limits::default());
    bench.append(1);
    bench.append(2);
    bench.append(3);
    bench.wrote(vec![Appended::Written]);
    bench.wrote(vec![Appended::Written]);
    assert_eq!(bench.told(), ["1 written", "2 written", "3 unknown"]);
}
