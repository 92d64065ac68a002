//! The engine over an inbox in memory: what is due is answered in any order, anything may fail, and the engine may be
//! dropped between any two actions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use super::*;
use crate::broker::Tag;
use crate::commit::{CommitId, StreamEnd};
use crate::event::EventId;
use crate::inbox::{Body, DocumentKey, HoldState, Lane, OutcomeKind, RowWrite, Which};
use crate::log::LogId;
use crate::subscriber::letters::SPREAD_MAX;
use crate::testing::commits::commit;
use crate::testing::inbox::{Fault, MemoryInbox};

mod aside;
mod backups;
mod broker;
mod careful;
mod failing;
mod outage;

const LOG: LogId = LogId(Uuid::from_u128(1));

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_795_000_000_000 + millis)
}

fn position(token: usize, commit: Option<CommitId>) -> Position {
    Position { log: LOG, token: token.to_string(), commit }
}

/// Somebody told the subscriber to rest, or to go on.
fn told_to_rest(paused: bool) -> Input {
    Input::Present(Present { paused, ..Present::default() })
}

/// The events of one order: `commits` one after another, each with that many events.
fn order(commits: &[usize]) -> Vec<Arc<Commit>> {
    let mut end = StreamEnd::nothing(OrderId::generate());
    commits
        .iter()
        .map(|events| {
            let commit = commit(&end, *events);
            end = commit.stored_end();
            commit
        })
        .collect()
}

/// What the handler of these tests does: it writes down every version in the order's document, and asks for an effect
/// for every second one.
struct World {
    inbox: MemoryInbox,
    log: Vec<Arc<Commit>>,
    /// How often an event's handler is still to fail.
    failing: HashMap<EventKey, (u32, Failure)>,
    failing_effects: HashMap<EventKey, (u32, Failure)>,
    /// What no handler here can read.
    undecodable: Vec<EventKey>,
    /// Whether everything fails, and how.
    outage: Option<Failure>,
    /// How often a handler was called.
    handled: Vec<EventKey>,
    /// How often an event's handler is still to take longer than its patience.
    slow: HashMap<EventKey, u32>,
    performed: Vec<(OrderId, Version)>,
    /// What the broker brought, and up to where it was told that it need not do so again.
    received: Vec<(Receipt, Vec<EventKey>)>,
    acknowledged: Option<Receipt>,
    now: Timestamp,
    /// Commits of an order that history gives at once, however many are asked for.
    history_page_max: usize,
    /// Whether the lives before have ended out of order.
    unclean: bool,
    failing_orders_max: usize,
}

type EventKey = (OrderId, Version);

fn of_order(order: OrderId) -> DocumentKey {
    DocumentKey { collection: "seen".into(), id: order.to_string() }
}

/// A document that all orders share.
fn counted() -> DocumentKey {
    DocumentKey { collection: "all".into(), id: "counted".to_owned() }
}

fn take(times: &mut HashMap<EventKey, u32>, event: &Envelope) -> bool {
    let left = times.get_mut(&(event.order, event.version)).filter(|left| **left > 0);
    left.map(|left| *left -= 1).is_some()
}

impl World {
    fn new() -> Self {
        Self {
            inbox: MemoryInbox::default(),
            log: Vec::new(),
            failing: HashMap::new(),
            failing_effects: HashMap::new(),
            undecodable: Vec::new(),
            outage: None,
            handled: Vec::new(),
            slow: HashMap::new(),
            performed: Vec::new(),
            received: Vec::new(),
            acknowledged: None,
            now: at(0),
            history_page_max: usize::MAX,
            unclean: false,
            failing_orders_max: 10,
        }
    }

    fn engine(&self) -> Engine {
        self.engine_with(self.settings())
    }

    fn engine_with(&self, settings: Settings) -> Engine {
        let begun = Begun { unclean: self.unclean, ..self.inbox.begin_now() };
        Engine::new("test", settings, begun, 7)
    }

    fn settings(&self) -> Settings {
        let backoff = super::super::settings::Backoff {
            first: Duration::from_millis(100),
            factor: 2.0,
            max: Duration::from_millis(1_000),
        };
        Settings {
            batch_events_max: 7,
            queue_events_max: 64,
            rows_cached_max: 6,
            lanes_at_once_max: 2,
            history_commits_max: 2,
            effects_loaded_max: 3,
            effects_at_once_max: 2,
            effects_max: 4,
            failing_orders_max: self.failing_orders_max,
            backoff,
            ..Settings::default()
        }
    }

    /// The answer to an action; `None` for what has none.
    fn answer(&mut self, action: Action) -> Option<Input> {
        Some(match action {
            Action::Load(orders) => Input::Loaded(Ok(self.inbox.rows_now(&orders))),
            Action::Handle(batch) => Input::Handled(Ok(self.handle(&batch))),
            Action::HandleAside(run, event) => Input::HandledAside(run, event.order, Ok(self.handle_aside(&event))),
            Action::Commit(transaction) => Input::Committed(self.inbox.commit_now(&transaction)),
            Action::LoadDue { work, until, limit } => {
                let rows = self.inbox.due_now(work, until, limit);
                let next = if rows.len() >= limit { Some(until) } else { self.inbox.next_due_now(work, until) };
                Input::Due(work, Ok((rows, next)))
            }
            Action::ReadHistory { order, from, limit } => {
                let mut commits: Vec<_> = self.log.iter().filter(|commit| commit.order() == order).cloned().collect();
                commits.sort_by_key(|commit| commit.first());
                let before = commits.iter().rposition(|commit| commit.first() <= from).unwrap_or(0);
                commits.drain(..before);
                commits.truncate(limit.min(self.history_page_max));
                Input::History(order, Ok(commits))
            }
            Action::LoadWaiting { after, limit } => Input::Waiting(Ok(self.inbox.waiting_now(after, limit)), limit),
            Action::LoadEffects(orders) => {
                Input::EffectsLoaded(Ok(self.inbox.effects_now(&orders, Which::Waiting, EFFECTS_PER_ORDER_MAX)))
            }
            Action::Perform(effect) => Input::Performed(self.perform(*effect)),
            Action::CountTotals => Input::Totals(Ok(self.inbox.totals_now())),
            Action::LookUpHeads(orders) => Input::HeadsLookedUp(Ok(self.inbox.rows_now(&orders))),
            Action::Acknowledge(receipt) => {
                self.acknowledge(receipt);
                return None;
            }
            Action::GiveUpAside(_) | Action::WakeAt(_) | Action::End => return None,
        })
    }

    fn handle(&mut self, batch: &Batch) -> Handled {
        let written = batch.written_first.iter().map(|write| (write.key.clone(), write.body.clone().expect("a body")));
        let mut documents: BTreeMap<_, _> = written.collect();
        let mut stopped: HashMap<OrderId, EventResult> = HashMap::new();
        let mut results = Vec::new();
        for event in batch.events.iter().take(5) {
            let unhurried = batch.unhurried.contains(&event.id);
            let result = match stopped.get(&event.order) {
                Some(result) => result.clone(),
                None if !unhurried && take(&mut self.slow, event) => EventResult::Slow,
                None => self.handle_event(event, &mut documents),
            };
            if !matches!(result, EventResult::Applied { .. }) {
                stopped.insert(event.order, result.clone());
            }
            results.push(result);
        }
        let documents = documents.into_iter().map(|(key, body)| DocumentWrite { key, body: Some(body) });
        Handled { results, documents: documents.collect() }
    }

    fn handle_aside(&mut self, event: &Envelope) -> HandledAside {
        let mut documents = BTreeMap::new();
        let result = self.handle_event(event, &mut documents);
        let documents = documents.into_iter().map(|(key, body)| DocumentWrite { key, body: Some(body) }).collect();
        HandledAside { result, documents, keys: vec![of_order(event.order), counted()] }
    }

    /// Writes it down in its order's document; and those of every third version are counted, all orders' together.
    fn handle_event(&mut self, event: &Envelope, documents: &mut BTreeMap<DocumentKey, Body>) -> EventResult {
        let name = (event.order, event.version);
        self.handled.push(name);
        if self.undecodable.contains(&name) {
            return EventResult::Undecodable(Failure::permanent("from the future"));
        }
        if let Some(failure) = &self.outage {
            return EventResult::Failed(failure.clone());
        }
        if let Some((times, failure)) = self.failing.get_mut(&name)
            && *times > 0
        {
            *times -= 1;
            return EventResult::Failed(failure.clone());
        }
        let mut append = |key: DocumentKey, text: String| {
            let stored = || self.inbox.documents_now(std::slice::from_ref(&key)).remove(0).unwrap_or_default();
            let document = documents.entry(key.clone()).or_insert_with(stored);
            *document = format!("{document}{text}").into();
        };
        append(of_order(event.order), format!("{} ", event.version));
        if event.version.0.is_multiple_of(3) {
            append(counted(), ".".to_owned());
        }
        let effects = if event.version.0.is_multiple_of(2) { vec!["effect".into()] } else { Vec::new() };
        EventResult::Applied { effects }
    }

    /// Everything that the receipt stands for must be stored, or be known to be.
    #[track_caller]
    fn acknowledge(&mut self, receipt: Receipt) {
        let before = self.acknowledged.replace(receipt);
        assert!(before.is_none_or(|before| before.session < receipt.session || before.tag <= receipt.tag));
        let through = |other: &Receipt| other.session == receipt.session && other.tag <= receipt.tag;
        for (_, events) in self.received.iter().filter(|(other, _)| through(other)) {
            for (order, version) in events {
                let row = self.inbox.rows_now(&[*order]).pop();
                assert!(
                    row.is_some_and(|row| row.seen >= *version),
                    "{order} {version} is acknowledged and not stored"
                );
            }
        }
    }

    fn perform(&mut self, effect: RecordedEffect) -> Performed {
        let key = (effect.effect.order, effect.effect.version);
        if let Some(failure) = self.outage.clone() {
            return Performed { effect, result: Err(failure), at: self.now };
        }
        let failure = self.failing_effects.get_mut(&key).filter(|(times, _)| *times > 0).map(|(times, failure)| {
            *times -= 1;
            failure.clone()
        });
        let result = match failure {
            Some(failure) => Err(failure),
            None => {
                self.performed.push(key);
                Ok(Outcome { kind: OutcomeKind::Performed, detail: String::new() })
            }
        };
        Performed { effect, result, at: self.now }
    }

    /// Goes on until nothing is left to do now; the time of the next wake, if one was asked for.
    fn settle(&mut self, engine: &mut Engine, input: Input) -> Option<Timestamp> {
        let mut actions = VecDeque::from(engine.step(input, self.now));
        let mut wake = None;
        let mut steps = 0;
        while let Some(action) = actions.pop_front() {
            steps += 1;
            assert!(steps < 100_000, "the engine spins");
            if let Action::WakeAt(at) = action {
                wake = Some(at);
                continue;
            }
            if let Some(input) = self.answer(action) {
                actions.extend(engine.step(input, self.now));
            }
        }
        wake.filter(|at| *at > self.now)
    }

    /// As [`World::settle`], and lets the time pass until nothing is left to wait for.
    fn settle_all(&mut self, engine: &mut Engine, input: Input) {
        assert!(self.settle_within(engine, input, 10_000), "the engine never comes to rest");
    }

    /// As [`World::settle_all`], as long as it does not wake more often than that. Whether it came to rest.
    fn settle_within(&mut self, engine: &mut Engine, input: Input, wakes: u32) -> bool {
        let mut wake = self.settle(engine, input);
        for _ in 0..wakes {
            let Some(at) = wake else { return true };
            self.now = at;
            wake = self.settle(engine, Input::Tick);
        }
        false
    }

    /// An operator has everything that is dead tried again. Whether anything was.
    fn retry_dead(&mut self, engine: &mut Engine) -> bool {
        self.retry_dead_at(self.now, engine)
    }

    /// The same at that time.
    fn retry_dead_at(&mut self, at: Timestamp, engine: &mut Engine) -> bool {
        let mut transaction = Transaction::of_operator(&self.inbox.present_now());
        for row in self.inbox.all_rows() {
            let mut retried = row.clone();
            for lane in [&mut retried.applying, &mut retried.performing] {
                if let Lane::Held(hold) = lane
                    && hold.state == HoldState::Dead
                {
                    (hold.state, hold.attempts) = (HoldState::Retrying, 0);
                    hold.next_attempt_at = Some(at);
                }
            }
            if retried != row {
                let was_written_by = retried.written_by.replace(transaction.id);
                transaction.rows.push(RowWrite { was_written_by, row: retried });
            }
        }
        let some = !transaction.is_empty();
        assert_eq!(self.inbox.commit_now(&transaction), Ok(Committed::Written));
        self.settle_within(engine, Input::Present(self.inbox.present_now()), 100);
        some
    }

    fn deliver(&mut self, engine: &mut Engine, commits: &[Arc<Commit>]) -> Option<Timestamp> {
        for commit in commits {
            if !self.log.iter().any(|other| other.id() == commit.id()) {
                self.log.push(commit.clone());
            }
        }
        let position = position(self.log.len(), commits.last().map(|commit| commit.id()));
        self.settle(engine, Input::Delivered(commits.to_vec(), position))
    }

    fn begun(&mut self) -> Engine {
        self.begun_with(self.settings())
    }

    fn begun_with(&mut self, settings: Settings) -> Engine {
        let mut engine = self.engine_with(settings);
        self.settle_all(&mut engine, Input::Opened(position(0, None)));
        self.settle_all(&mut engine, Input::ScanEnded);
        engine
    }

    fn document(&self, order: OrderId) -> String {
        self.stored(of_order(order)).trim().to_owned()
    }

    fn stored(&self, key: DocumentKey) -> Body {
        self.inbox.documents_now(&[key]).remove(0).unwrap_or_default()
    }

    fn row(&self, order: OrderId) -> Row {
        self.row_of(order).expect("a row")
    }

    fn row_of(&self, order: OrderId) -> Option<Row> {
        self.inbox.rows_now(&[order]).pop()
    }

    fn hold(&self, order: OrderId) -> HoldState {
        self.row(order).applying.hold().expect("a lane that is held").state
    }

    /// Every document is the fold of the log, every effect was performed, nothing is held.
    #[track_caller]
    fn check(&self) {
        let mut last: HashMap<OrderId, Version> = HashMap::new();
        for commit in &self.log {
            let last = last.entry(commit.order()).or_default();
            *last = (*last).max(commit.last());
        }
        let thirds = last.values().map(|last| last.0 / 3).sum::<u32>();
        assert_eq!(self.stored(counted()).len(), thirds as usize, "what all orders share is counted once");
        for (order, last) in last {
            let fold: Vec<_> = (1..=last.0).map(|version| version.to_string()).collect();
            assert_eq!(self.document(order), fold.join(" "));
            let row = self.row(order);
            assert!(row.applying.is_ready() && row.performing.is_ready(), "{row:?}");
            assert_eq!((row.applied, row.seen, row.performed, row.effects_waiting), (last, last, last, 0));
            let mut firsts = Vec::new();
            for (_, version) in self.performed.iter().filter(|(other, _)| *other == order) {
                if !firsts.contains(version) {
                    firsts.push(*version);
                }
            }
            let expected: Vec<_> = (1..=last.0).filter(|version| version % 2 == 0).map(Version).collect();
            assert_eq!(firsts, expected, "every effect, first performed in order");
        }
    }
}

#[test]
fn events_are_applied_and_their_effects_performed_once_and_in_order() {
    let mut world = World::new();
    let mut engine = world.begun();
    let (a, b) = (order(&[1, 3, 2]), order(&[2, 2]));
    let both: Vec<_> = [&a[..], &b[..]].concat();
    assert_eq!(world.deliver(&mut engine, &both), None);
    world.check();
    assert_eq!(world.performed.len(), 5);
    let status = engine.status();
    assert_eq!((status.applied, status.behind, status.effects_waiting), (10, Some(0), Some(0)));
    assert!(status.is_settled_at(&position(5, Some(b[1].id()))));
}

#[test]
fn what_came_before_is_a_duplicate() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[2, 2]);
    world.deliver(&mut engine, &a);
    world.deliver(&mut engine, &a);
    world.check();
    assert_eq!(engine.status().duplicates, 4);
}

#[test]
fn a_gap_is_filled_from_history_and_never_skipped() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[1, 1, 1, 1, 1]);
    world.deliver(&mut engine, &a[..1]);
    world.log.extend_from_slice(&a[1..4]);
    assert_eq!(world.deliver(&mut engine, &a[4..]), None);
    world.check();
    assert_eq!(engine.status().gaps, 1);
}

#[test]
fn a_gap_that_history_cannot_fill_stays_and_is_asked_for_again() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[1, 1, 1]);
    world.deliver(&mut engine, &a[..1]);
    let wake = world.deliver(&mut engine, &a[2..]);
    assert_eq!(world.hold(a[0].order()), HoldState::Gap);
    assert_eq!(world.document(a[0].order()), "1");
    assert_eq!(engine.status().behind, Some(2));
    world.log.push(a[1].clone());
    world.now = wake.expect("it is asked for again");
    world.settle_all(&mut engine, Input::Tick);
    world.check();
}

#[test]
fn a_failing_event_holds_its_order_and_nothing_else() {
    let mut world = World::new();
    let mut engine = world.begun();
    let (a, b) = (order(&[1, 1, 1]), order(&[1, 1]));
    world.failing.insert((a[0].order(), Version(2)), (3, Failure::transient("no")));
    let both: Vec<_> = [&a[..], &b[..]].concat();
    let wake = world.deliver(&mut engine, &both).expect("another attempt");
    assert_eq!(world.document(a[0].order()), "1");
    assert_eq!(world.document(b[0].order()), "1 2");
    let row = world.row(a[0].order());
    assert_eq!((row.applied, row.seen), (Version(1), Version(3)));
    let hold = row.applying.hold().expect("held").clone();
    assert_eq!((hold.state, hold.attempts, hold.next_attempt_at), (HoldState::Retrying, 1, Some(wake)));
    assert_eq!(hold.failure().map(|failure| &*failure.text), Some("no"));
    world.settle_all(&mut engine, Input::Tick);
    world.check();
    assert_eq!(engine.status().retries, 3);
}

#[test]
fn another_event_at_an_applied_version_holds_the_lane_for_good() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[1]);
    world.deliver(&mut engine, &a);
    let other = commit(&StreamEnd::nothing(a[0].order()), 1);
    world.log.clear();
    assert_eq!(world.deliver(&mut engine, &[other]), None);
    assert_eq!(world.hold(a[0].order()), HoldState::Conflicting);
    assert_eq!(engine.status().conflicts, 1);
    assert_eq!(world.document(a[0].order()), "1");
}

#[test]
fn an_effect_that_fails_is_performed_again_before_the_next_one() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[6]);
    world.failing_effects.insert((a[0].order(), Version(2)), (2, Failure::transient("busy")));
    world.deliver(&mut engine, &a);
    assert!(world.performed.is_empty());
    assert_eq!(world.row(a[0].order()).performed, Version(1));
    world.settle_all(&mut engine, Input::Tick);
    world.check();
    assert_eq!(world.performed.len(), 3);
}

#[test]
fn a_paused_subscriber_only_raises_what_it_has_seen() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[1, 1, 1]);
    world.settle_all(&mut engine, told_to_rest(true));
    world.deliver(&mut engine, &a);
    assert_eq!(world.document(a[0].order()), "");
    assert_eq!((world.row(a[0].order()).seen, engine.status().behind), (Version(3), Some(3)));
    assert_eq!(engine.status().state, SubscriberState::Paused);
    world.settle_all(&mut engine, told_to_rest(false));
    world.check();
}

#[test]
fn while_a_dependency_is_down_attempts_are_not_counted_and_one_lane_probes() {
    let mut world = World::new();
    let mut engine = world.begun();
    let orders: Vec<_> = (0..20).map(|_| order(&[1])).collect();
    for order in &orders {
        world.failing.insert((order[0].order(), Version(1)), (2, Failure::dependency_down("away")));
        world.deliver(&mut engine, order);
    }
    assert_eq!(engine.status().state, SubscriberState::DependencyDown);
    let tried: u32 = world.failing.values().map(|(left, _)| 2 - left).sum();
    assert!(tried < 10, "one lane probes, not {tried}");
    let attempts = |row: Row| row.applying.hold().map_or(0, |hold| hold.attempts);
    assert!(world.inbox.all_rows().into_iter().all(|row| attempts(row) == 0));
    world.settle_all(&mut engine, Input::Tick);
    world.check();
    assert_eq!(engine.status().state, SubscriberState::Running);
}

#[test]
fn an_unknown_outcome_is_settled_by_reading() {
    for fault in [Fault::Away, Fault::UnknownLost, Fault::UnknownWritten] {
        let mut world = World::new();
        let mut engine = world.begun();
        world.inbox.fail([fault, fault]);
        let a = order(&[2]);
        world.deliver(&mut engine, &a);
        world.settle_all(&mut engine, Input::Tick);
        world.check();
        assert_eq!(engine.status().fenced, 0, "{fault:?}");
    }
}

#[test]
fn a_row_that_somebody_else_wrote_is_read_again() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[1, 2]);
    world.deliver(&mut engine, &a[..1]);
    world.inbox.touch(a[0].order());
    world.deliver(&mut engine, &a[1..]);
    world.settle_all(&mut engine, Input::Tick);
    world.check();
    assert_eq!(engine.status().fenced, 1);
}

#[test]
fn a_later_term_ends_the_engine() {
    let mut world = World::new();
    let mut engine = world.begun();
    world.inbox.begin_now();
    world.deliver(&mut engine, &order(&[1]));
    assert_eq!(engine.status().state, SubscriberState::Stopped);
    assert!(world.inbox.all_rows().is_empty());
}

#[test]
fn a_position_is_stored_only_with_everything_before_it() {
    let mut world = World::new();
    let mut engine = world.begun();
    // More than a batch: the first transaction must not carry the position behind the second.
    let commits: Vec<_> = (0..9).flat_map(|_| order(&[1])).collect();
    world.log.extend_from_slice(&commits);
    let mut actions: VecDeque<_> = engine.step(Input::Delivered(commits, position(9, None)), world.now).into();
    let mut applied = 0;
    while let Some(action) = actions.pop_front() {
        if let Action::Commit(transaction) = &action {
            applied += transaction.rows.len();
            let there = transaction.progress.as_ref().is_some_and(|progress| progress.position.token == "9");
            assert_eq!(there, applied == 9);
        }
        if let Some(input) = world.answer(action) {
            actions.extend(engine.step(input, world.now));
        }
    }
    assert_eq!(applied, 9);
}

#[test]
fn a_position_that_moves_without_a_commit_is_stored_by_itself() {
    let mut world = World::new();
    let mut engine = world.begun();
    let mut actions = engine.step(Input::Delivered(Vec::new(), position(7, None)), world.now);
    // The last of those that come meanwhile.
    for token in [8, 9] {
        actions.extend(engine.step(Input::Delivered(Vec::new(), position(token, None)), world.now));
    }
    let mut stored = Vec::new();
    let mut actions: VecDeque<_> = actions.into();
    while let Some(action) = actions.pop_front() {
        if let Action::Commit(transaction) = &action {
            assert!(transaction.rows.is_empty() && transaction.effects.is_empty());
            stored.extend(transaction.progress.as_ref().map(|progress| progress.position.token.clone()));
        }
        if let Some(input) = world.answer(action) {
            actions.extend(engine.step(input, world.now));
        }
    }
    assert_eq!(stored, ["7", "9"]);
    assert_eq!(world.inbox.progress().map(|progress| progress.position), Some(position(9, None)));
}

#[test]
fn a_history_that_comes_in_small_pages_fills_a_gap_at_once_and_fails_nothing() {
    let mut world = World::new();
    world.history_page_max = 1;
    let mut engine = world.begun();
    let a = order(&[1, 1, 1, 1, 1]);
    world.deliver(&mut engine, &a[..1]);
    world.log.extend_from_slice(&a[1..4]);
    assert_eq!(world.deliver(&mut engine, &a[4..]), None, "nothing is waited for");
    world.check();
    assert_eq!(engine.status().retries, 0);
}

#[test]
fn a_lane_whose_time_a_wrong_clock_set_far_ahead_does_not_wait_for_it() {
    let mut world = World::new();
    let (a, b) = (order(&[1]), order(&[2]));
    world.failing.insert((a[0].order(), Version(1)), (1, Failure::transient("no")));
    world.failing_effects.insert((b[0].order(), Version(2)), (1, Failure::transient("busy")));
    let mut engine = world.begun();
    // In this life the clock is a year ahead.
    world.now = at(365 * 24 * 3_600_000);
    let both: Vec<_> = [&a[..], &b[..]].concat();
    world.deliver(&mut engine, &both).expect("other attempts");
    world.now = at(0);
    let mut engine = world.engine();
    world.settle_all(&mut engine, Input::Tick);
    world.check();
    assert!(world.now <= at(60_000), "it waited until {:?}", world.now);
}

#[test]
fn retries_that_an_operator_spreads_over_minutes_begin_at_their_time() {
    let mut world = World::new();
    let a = order(&[1]);
    world.failing.insert((a[0].order(), Version(1)), (1, Failure::permanent("no")));
    let mut engine = world.begun();
    world.deliver(&mut engine, &a);
    assert_eq!(world.hold(a[0].order()), HoldState::Dead);
    let later = world.now.after(SPREAD_MAX);
    world.retry_dead_at(later, &mut engine);
    world.settle_all(&mut engine, Input::Tick);
    world.check();
    assert!(world.now >= later, "it began at {:?}, not at {later:?}", world.now);
}

#[test]
fn effects_recorded_by_a_transaction_that_was_not_recognised_are_performed_in_this_life() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[2]);
    world.log.push(a[0].clone());
    world.inbox.fail([Fault::UnknownWritten]);
    let mut actions: VecDeque<_> = engine.step(Input::Delivered(a.clone(), position(1, None)), world.now).into();
    while let Some(action) = actions.pop_front() {
        let commits = matches!(action, Action::Commit(_));
        let Some(input) = world.answer(action) else { continue };
        if commits {
            world.inbox.touch(a[0].order());
        }
        actions.extend(engine.step(input, world.now));
    }
    world.now = at(10_000);
    world.settle_all(&mut engine, Input::Tick);
    world.check();
    let status = engine.status();
    assert_eq!((status.behind, status.effects_waiting), (Some(0), Some(0)));
}

#[test]
fn long_lanes_leave_live_events_their_share_of_a_batch() {
    let mut world = World::new();
    let mut engine = world.begun();
    let long = order(&[40]);
    world.failing.insert((long[0].order(), Version(1)), (u32::MAX, Failure::transient("no")));
    world.now = world.deliver(&mut engine, &long).expect("another attempt");
    let live: Vec<_> = (0..30).map(|_| order(&[1]).remove(0)).collect();
    let mut actions = VecDeque::from(engine.step(Input::Tick, world.now));
    // The lane is read; live events come while it waits for its turn.
    actions.extend(engine.step(Input::Delivered(live, position(2, None)), world.now));
    let mut beside_the_lane = Vec::new();
    while let Some(action) = actions.pop_front() {
        if let Action::Handle(Batch { events, .. }) = &action
            && events.iter().any(|event| event.order == long[0].order())
        {
            beside_the_lane.push(events.iter().filter(|event| event.order != long[0].order()).count());
        }
        if let Some(input) = world.answer(action) {
            actions.extend(engine.step(input, world.now));
        }
    }
    assert!(beside_the_lane.iter().all(|live| *live >= 3) && !beside_the_lane.is_empty(), "{beside_the_lane:?}");
}

/// One life after another over the same inbox: everything is delivered in any order, twice, or not at all; handlers,
/// effects and commits fail; others write rows; the engine is dropped between any two actions, and what it left under
/// way may land later. Then the world heals.
#[test]
fn whatever_happens_the_state_is_the_fold_of_the_log() {
    for seed in 0..500 {
        println!("seed {seed}");
        Chaos::new(seed).run();
    }
}

struct Chaos {
    rng: StdRng,
    world: World,
    left_under_way: Vec<Arc<Transaction>>,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new();
        world.failing_orders_max = rng.random_range(2..12);
        for _ in 0..rng.random_range(1..8) {
            let commits: Vec<usize> = (0..rng.random_range(1..6)).map(|_| rng.random_range(1..4)).collect();
            world.log.extend(order(&commits));
        }
        let kinds = [Failure::transient("no"), Failure::permanent("never"), Failure::dependency_down("away")];
        for event in world.log.iter().flat_map(|commit| commit.envelopes()) {
            let key = (event.order, event.version);
            let failure = || kinds[(event.version.0 % 3) as usize].clone();
            if rng.random_bool(0.1) {
                world.failing.insert(key, (rng.random_range(1..4), failure()));
            }
            if rng.random_bool(0.2) {
                world.slow.insert(key, rng.random_range(1..3));
            }
            if rng.random_bool(0.1) {
                world.failing_effects.insert(key, (rng.random_range(1..4), failure()));
            }
        }
        Self { rng, world, left_under_way: Vec::new() }
    }

    fn run(mut self) {
        for _ in 0..self.rng.random_range(0..6) {
            self.life();
        }
        // It heals: the log is scanned, and nothing fails any more.
        let mut engine = self.world.engine();
        let mut whole = self.world.log.clone();
        whole.sort_by_key(|commit| commit.key());
        let last = whole.last().map(|commit| commit.id());
        self.world.settle_within(&mut engine, Input::Opened(position(whole.len(), last)), 100);
        self.world.settle_within(&mut engine, Input::Scanned(whole), 100);
        // An order whose effect is dead is looked at again and again as long as too many wait behind it.
        self.world.settle_within(&mut engine, Input::ScanEnded, 100);
        let mut rounds = 0;
        while self.world.retry_dead(&mut engine) || !self.world.settle_within(&mut engine, Input::Tick, 100) {
            rounds += 1;
            assert!(rounds < 100, "the engine never comes to rest: {:#?}", self.world.inbox.all_rows());
        }
        for transaction in std::mem::take(&mut self.left_under_way) {
            let landed = self.world.inbox.commit_now(&transaction);
            assert_eq!(landed, Ok(Committed::Superseded), "nothing of an earlier life is written later");
        }
        self.world.check();
        let status = engine.status();
        assert_eq!((status.behind, status.lanes_held, status.effects_waiting), (Some(0), Some(0), Some(0)));
        assert_eq!(status.state, SubscriberState::Running);
    }

    fn life(&mut self) {
        self.world.unclean = self.rng.random_bool(0.5);
        let mut engine = self.world.engine();
        let mut actions = engine.step(Input::Opened(position(0, None)), self.world.now);
        // What handlers aside have read and made of it, before they end.
        let mut asides = Vec::new();
        for _ in 0..self.rng.random_range(1..120) {
            self.world.now = self.world.now.after(Duration::from_millis(self.rng.random_range(0..200)));
            let input = match self.rng.random_range(0..10) {
                0 | 1 => self.delivery(),
                2 => Input::Tick,
                3 if self.rng.random_bool(0.2) => told_to_rest(self.rng.random_bool(0.3)),
                4 if !asides.is_empty() => asides.swap_remove(self.rng.random_range(0..asides.len())),
                _ if actions.is_empty() => self.delivery(),
                _ => {
                    let index = self.rng.random_range(0..actions.len());
                    let action = actions.swap_remove(index);
                    self.disturb();
                    let aside = matches!(action, Action::HandleAside(..));
                    match self.world.answer(action) {
                        Some(input) if aside => {
                            asides.push(input);
                            continue;
                        }
                        Some(input) => input,
                        None => continue,
                    }
                }
            };
            actions.extend(engine.step(input, self.world.now));
        }
        // It is dropped here. What is under way may be written in another life, or never.
        for action in actions {
            match action {
                Action::Commit(transaction) => self.left_under_way.push(transaction),
                // Performed, and nobody is there to hear of it.
                Action::Perform(effect) if self.rng.random_bool(0.5) => drop(self.world.perform(*effect)),
                Action::Perform(_)
                | Action::Load(_)
                | Action::Handle(_)
                | Action::HandleAside(..)
                | Action::GiveUpAside(_)
                | Action::LoadDue { .. }
                | Action::ReadHistory { .. }
                | Action::LoadWaiting { .. }
                | Action::LoadEffects(_)
                | Action::CountTotals
                | Action::LookUpHeads(_)
                | Action::Acknowledge(_)
                | Action::WakeAt(_)
                | Action::End => {}
            }
        }
    }

    fn delivery(&mut self) -> Input {
        let count = self.rng.random_range(1..5);
        let commits: Vec<_> =
            (0..count).map(|_| self.world.log[self.rng.random_range(0..self.world.log.len())].clone()).collect();
        let last = commits.last().map(|commit| commit.id());
        Input::Delivered(commits, position(1, last))
    }

    fn disturb(&mut self) {
        if self.rng.random_bool(0.1) {
            let fault = [Fault::Away, Fault::UnknownLost, Fault::UnknownWritten][self.rng.random_range(0..3)];
            self.world.inbox.fail([fault]);
        }
        if self.rng.random_bool(0.05) {
            let order = self.world.log[self.rng.random_range(0..self.world.log.len())].order();
            self.world.inbox.touch(order);
        }
    }
}
