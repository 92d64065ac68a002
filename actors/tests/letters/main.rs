//! Dead letters over stores in memory: what operators see, and what becomes of what they decide, also while the subscriber
//! is not at work; and when it is, on virtual time, that whatever was held is handled in the end.

#![expect(clippy::unwrap_used, reason = "tests")]

mod looking;
mod trial;
mod unclear;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actors::broker::BrokerError;
use actors::clock::{Clock, Timestamp, TokioClock};
use actors::commit::{Commit, StreamEnd};
use actors::event::EventId;
use actors::event_store::EventStore;
use actors::inbox::{
    Attempt, EffectId, Failure, HeadOfLane, Hold, HoldState, Inbox, Lane, NewEffect, OutcomeKind, Row, RowWrite,
    Transaction,
};
use actors::order::{OrderId, Version};
use actors::subscriber::actor::{self, Ports, Source, SubscriberHandle};
use actors::subscriber::letters::{
    Decision, DryRun, Entry, Filter, Group, LetterError, LetterId, Letters, Listed, Place, Refused, RetryAll, SetAside,
    State, Unreadable,
};
use actors::subscriber::{Cause, Documents, Event, Outcome, Registered, Settings, Subscriber};
use actors::supervisor::{Child, Ledger, Node, Policy, Strategy, Supervisor};
use actors::testing::commits::{commit, commit_with, first, group};
use actors::testing::faulty::{Fate, Faults, Faulty};
use actors::testing::inbox::{Fault, MemoryInbox};
use actors::testing::memory::Memory;
use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

/// Writes down every version in the order's document, and asks for an effect for each; or fails.
#[derive(Default)]
struct Diary {
    fails: AtomicBool,
    panics: AtomicBool,
    performs_nothing: AtomicBool,
    performed: Mutex<Vec<(OrderId, Version)>>,
}

struct Shared(Arc<Diary>);

#[async_trait]
impl Subscriber for Shared {
    const NAME: &'static str = "diary";

    type Effect = u32;

    async fn handle(&self, event: &Event<'_>, documents: &mut Documents<'_>) -> Result<Vec<u32>, Failure> {
        let mut versions: Vec<u32> = documents.get("orders", event.order()).await?.unwrap_or_default();
        versions.push(event.version().0);
        documents.put("orders", event.order(), &versions)?;
        assert!(!self.0.panics.load(Ordering::SeqCst), "the handler said no");
        if self.0.fails.load(Ordering::SeqCst) {
            return Err(Failure::permanent("never"));
        }
        Ok(vec![event.version().0])
    }

    async fn perform(&self, _: &u32, cause: &Cause) -> Result<Outcome, Failure> {
        if self.0.performs_nothing.load(Ordering::SeqCst) {
            return Err(Failure::permanent("nothing"));
        }
        self.0.performed.lock().unwrap().push((cause.order, cause.version));
        Ok(Outcome { kind: OutcomeKind::Performed, detail: String::new() })
    }
}

struct World {
    memory: Memory,
    inbox: MemoryInbox,
    diary: Arc<Diary>,
    clock: Arc<dyn Clock>,
    /// What happens to what the subscriber and its operators ask of the inbox.
    fate: Arc<Fate>,
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_795_000_000_000 + millis)
}

fn failed(failure: Failure) -> Attempt {
    Attempt { at: at(2), failure }
}

fn one_place() -> Failure {
    Failure::permanent("one")
}

fn another_place() -> Failure {
    Failure::transient("another")
}

/// As the engine writes it down: with an effect the type of its event is not known.
fn head(event: &actors::event::Envelope, effect: Option<u32>) -> HeadOfLane {
    let event_type = if effect.is_some() { String::new() } else { event.event_type.clone() };
    HeadOfLane { version: event.version, event: event.id, event_type, effect }
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(TokioClock::starting_at(at(0)));
        let fate = Fate::new(1, Faults::default());
        Self { memory: Memory::new(), inbox: MemoryInbox::default(), diary: Arc::default(), clock, fate }
    }

    /// The subscriber, which is started only when its child is.
    fn subscriber(&self) -> (Child, SubscriberHandle) {
        let ports = Ports {
            inbox: Arc::new(Faulty::new(Arc::new(self.inbox.clone()), Arc::clone(&self.fate))),
            source: Source::Log(Arc::new(self.memory.clone())),
            history: Arc::new(self.memory.clone()),
            clock: Arc::clone(&self.clock),
        };
        actor::child(Registered::new(Shared(Arc::clone(&self.diary))), ports, Settings::default())
    }

    fn letters(&self) -> Letters {
        self.subscriber().1.letters().clone()
    }

    async fn store(&self, commit: Arc<Commit>) -> Arc<Commit> {
        self.memory.append(group([Arc::clone(&commit)])).await;
        commit
    }

    /// An order of so many events, all of them seen; those up to `applied` are applied.
    async fn order(&self, events: usize, applied: u32) -> (Row, Vec<actors::event::Envelope>) {
        let events: Vec<_> = self.store(first(events)).await.envelopes().collect();
        let applied_event = events.iter().find(|event| event.version.0 == applied).map(|event| event.id);
        let row = Row {
            applied: Version(applied),
            applied_event,
            seen: events.last().unwrap().version,
            performed: Version(applied),
            ..Row::new(events[0].order)
        };
        (row, events)
    }

    /// An order whose event behind `applied` is held for that.
    async fn held(&self, state: HoldState, applied: u32, since: i64, failure: Failure) -> LetterId {
        let (mut row, events) = self.order(applied as usize + 3, applied).await;
        let mut hold = Hold::new(state, at(since), None);
        hold.attempts = 5;
        hold.head = Some(head(&events[applied as usize], None));
        hold.keep(failed(failure));
        row.applying = Lane::Held(Box::new(hold));
        let id = LetterId { order: row.order, version: row.applied.next(), effect: None };
        self.put(row, Vec::new());
        id
    }

    fn put(&self, row: Row, effects: Vec<NewEffect>) {
        let present = self.inbox.begin_now().present;
        let mut transaction = Transaction::of_operator(&present);
        let row = Row { written_by: Some(transaction.id), ..row };
        transaction.rows.push(RowWrite { was_written_by: None, row });
        transaction.effects = effects;
        self.inbox.commit_now(&transaction).unwrap();
    }

    /// Somebody else writes the row like that.
    fn rewrite(&self, row: Row) {
        let mut transaction = Transaction::of_operator(&self.inbox.present_now());
        let was_written_by = row.written_by;
        transaction.rows.push(RowWrite { was_written_by, row: Row { written_by: Some(transaction.id), ..row } });
        self.inbox.commit_now(&transaction).unwrap();
    }

    fn row(&self, order: OrderId) -> Row {
        self.inbox.rows_now(&[order]).remove(0)
    }

    /// An order with that many effects that wait, the first of them held.
    async fn held_effects(&self, waiting: u32) -> LetterId {
        let (mut row, events) = self.order(waiting as usize, waiting).await;
        let mut hold = Hold::new(HoldState::Dead, at(1), None);
        hold.head = Some(head(&events[0], Some(0)));
        hold.keep(failed(one_place()));
        row.performing = Lane::Held(Box::new(hold));
        (row.performed, row.effects_waiting) = (Version::NONE, waiting);
        let id = LetterId { order: row.order, version: Version(1), effect: Some(0) };
        self.put(row, events.iter().map(effect).collect());
        id
    }
}

fn effect(event: &actors::event::Envelope) -> NewEffect {
    NewEffect {
        id: EffectId { event: event.id, index: 0 },
        order: event.order,
        version: event.version,
        last_of_event: true,
        recorded_at: event.recorded_at,
        origin: event.origin.clone(),
        body: event.version.to_string().into(),
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    actix_rt::System::with_tokio_rt(runtime).block_on(test)
}

async fn list(letters: &Letters, filter: &Filter) -> Listed {
    Letters::list(std::slice::from_ref(letters), None, filter, (None, 100), in_a_minute()).await.unwrap()
}

/// With what the broker has set aside.
async fn list_beside(letters: &[Letters], set_aside: &dyn SetAside, filter: &Filter) -> Listed {
    Letters::list(letters, Some(set_aside), filter, (None, 10), in_a_minute()).await.unwrap()
}

fn in_a_minute() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn ids(listed: &Listed) -> Vec<String> {
    listed.entries.iter().map(|entry| entry.place().to_string()).collect()
}

fn decision() -> Decision {
    Decision { reason: "sent by hand".to_owned(), by: "ana".to_owned(), at: at(99) }
}

fn many(filter: Filter, count: u64, per_second: u32) -> RetryAll {
    RetryAll { filter, count, per_second, until: in_a_minute() }
}

#[test]
fn what_waits_for_a_person_is_listed_page_by_page_the_latest_first_with_what_all_of_it_adds_up_to() {
    run(async {
        let world = World::new();
        for since in 0..7 {
            world.held(HoldState::Dead, 1, since, one_place()).await;
        }
        world.held(HoldState::Undecodable, 1, 100, another_place()).await;
        world.held(HoldState::Retrying, 1, 200, another_place()).await;
        world.held_effects(3).await;
        let letters = world.letters();
        let (mut after, mut seen, mut times): (Option<Place>, HashSet<String>, Vec<i64>) = Default::default();
        loop {
            let filter = Filter::default();
            let page =
                Letters::list(std::slice::from_ref(&letters), None, &filter, (after, 2), in_a_minute()).await.unwrap();
            assert_eq!((page.count, page.retryable), (9, 9));
            let groups: Vec<_> = page.groups.iter().map(|group| (group.count, group.example.as_str())).collect();
            assert_eq!(groups, [(8, "one"), (1, "another")]);
            assert!(page.entries.len() <= 2 && !page.entries.is_empty());
            for entry in &page.entries {
                let Entry::Held(letter) = entry else { panic!("{entry:?}") };
                times.push(letter.hold.since.as_millis());
                assert!(seen.insert(letter.id.to_string()), "listed twice");
            }
            let Some(next) = page.next else { break };
            assert_eq!(next.to_string().parse(), Ok(next.clone()), "a cursor is read as it is written");
            after = Some(next);
        }
        assert_eq!(seen.len(), 9);
        assert!(times.is_sorted_by(|earlier, later| earlier >= later), "{times:?}");
    });
}

#[test]
fn each_filter_leaves_out_what_it_says() {
    run(async {
        let world = World::new();
        let dead = world.held(HoldState::Dead, 1, 10, one_place()).await;
        let retrying = world.held(HoldState::Retrying, 1, 20, another_place()).await;
        let letters = world.letters();
        let only = |id: LetterId, listed: &Listed| {
            let found: Vec<_> = listed.entries.iter().map(Entry::place).collect();
            assert!(found.len() == 1 && ids(listed)[0].contains(&id.to_string()), "{found:?}");
            assert_eq!(listed.count, 1);
        };
        let all = Filter { states: State::all().collect(), ..Filter::default() };
        assert_eq!(list(&letters, &all).await.count, 2);
        only(dead, &list(&letters, &Filter::default()).await);
        let retried = Filter { states: vec![State::Held(HoldState::Retrying)], ..all.clone() };
        only(retrying, &list(&letters, &retried).await);
        only(retrying, &list(&letters, &Filter { from: Some(at(11)), ..all.clone() }).await);
        only(dead, &list(&letters, &Filter { to: Some(at(20)), ..all.clone() }).await);
        only(dead, &list(&letters, &Filter { group: Some(Group::of(&one_place())), ..all.clone() }).await);
        let of_type = |event_type: &str| Filter { event_type: Some(event_type.to_owned()), ..all.clone() };
        assert_eq!(list(&letters, &of_type("order.item_added")).await.count, 2);
        assert_eq!(list(&letters, &of_type("order.paid")).await.count, 0);
        world.held_effects(1).await;
    });
}

#[test]
fn a_group_is_one_place_in_the_code_and_one_kind() {
    assert_eq!(Group::of(&one_place()), Group::of(&one_place()));
    assert_ne!(Group::of(&one_place()), Group::of(&another_place()));
    let elsewhere = Failure::permanent("one");
    assert_ne!(Group::of(&one_place()), Group::of(&elsewhere));
    let text = Group::of(&elsewhere).to_string();
    assert_eq!(text.parse(), Ok(Group::of(&elsewhere)));
    for wrong in ["", "0", "g23456789012", "ABCDEF123456", "1234567890123"] {
        assert!(wrong.parse::<Group>().is_err(), "{wrong}");
    }
}

#[test]
fn a_letter_is_shown_with_its_event_its_attempts_and_what_waits_behind_it() {
    run(async {
        let world = World::new();
        let id = world.held(HoldState::Dead, 1, 10, one_place()).await;
        let shown = world.letters().show(id).await.unwrap();
        assert_eq!(shown.event.unwrap().map(|event| event.version), Some(Version(2)));
        let behind: Vec<_> = shown.behind.iter().map(|behind| behind.version.0).collect();
        assert_eq!((behind, shown.letter.waiting_behind), (vec![3, 4], 2));
        assert_eq!(shown.letter.hold.tried.len(), 1);
        let id = world.held_effects(80).await;
        let shown = world.letters().show(id).await.unwrap();
        assert_eq!(shown.effect.map(|effect| effect.effect.body.to_string()), Some("1".to_owned()));
        assert_eq!((shown.behind.len(), shown.letter.waiting_behind), (50, 79));
        assert_eq!(shown.behind.first().map(|behind| (behind.version, behind.effect)), Some((Version(2), Some(0))));
    });
}

#[test]
fn nothing_is_found_where_nothing_is_held_or_something_else_is() {
    run(async {
        let world = World::new();
        let id = world.held(HoldState::Dead, 1, 10, one_place()).await;
        let letters = world.letters();
        let other = LetterId { version: Version(3), ..id };
        for answer in [letters.show(other).await.map(drop), letters.retry(other).await.map(drop)] {
            assert!(matches!(answer, Err(LetterError::Refused(Refused::AnotherHeld(_, held))) if held == id));
        }
        let effect = LetterId { effect: Some(0), ..id };
        let answer = letters.discard(effect, &decision()).await;
        assert!(matches!(answer, Err(LetterError::Refused(Refused::NotHeld(_)))), "{answer:?}");
        let unknown = LetterId { order: OrderId::generate(), ..id };
        assert!(matches!(letters.dry_run(unknown).await, Err(LetterError::Unknown(_))));
        let before = world.row(id.order);
        assert_eq!(before.applied, Version(1));
    });
}

#[test]
fn a_retry_and_a_discard_are_written_once_whatever_the_store_does_meanwhile() {
    run(async {
        let world = World::new();
        for faults in [vec![], vec![Fault::UnknownLost], vec![Fault::UnknownWritten], vec![Fault::UnknownLost; 3]] {
            let id = world.held(HoldState::Dead, 1, 10, one_place()).await;
            let letters = world.letters();
            world.inbox.fail(faults.clone());
            let letter = letters.retry(id).await.unwrap();
            assert_eq!((letter.hold.state, letter.hold.attempts), (HoldState::Retrying, 0), "{faults:?}");
            world.inbox.fail(faults.clone());
            let discard = letters.discard(id, &decision()).await.unwrap();
            assert_eq!(world.inbox.discards(id.order).await.unwrap(), [discard], "{faults:?}");
            assert_eq!(world.row(id.order).applied, Version(2), "{faults:?}");
        }
        let id = world.held(HoldState::Dead, 1, 10, one_place()).await;
        world.inbox.fail([Fault::Away]);
        assert!(matches!(world.letters().retry(id).await, Err(LetterError::Store(_))));
        assert_eq!(world.row(id.order).applying.hold().map(|hold| hold.state), Some(HoldState::Dead));
    });
}

#[test]
fn a_dry_run_says_what_would_come_of_it_and_leaves_nothing() {
    run(async {
        let world = World::new();
        let id = world.held(HoldState::Dead, 1, 10, one_place()).await;
        let (before, letters) = (world.row(id.order), world.letters());
        let DryRun::Applied(would) = letters.dry_run(id).await.unwrap() else { panic!("it is handled") };
        assert_eq!(would.effects, ["2".into()]);
        let change = would.documents.first().unwrap();
        assert_eq!((change.before.clone(), change.after.clone()), (None, Some("[2]".into())));
        world.diary.fails.store(true, Ordering::SeqCst);
        let DryRun::Failed(failure) = letters.dry_run(id).await.unwrap() else { panic!("it fails") };
        assert!(failure.place.as_deref().is_some_and(|place| place.starts_with("actors/tests/letters/main.rs:")));
        world.diary.panics.store(true, Ordering::SeqCst);
        let DryRun::Failed(failure) = letters.dry_run(id).await.unwrap() else { panic!("it fails") };
        assert!(failure.text.contains("the handler said no"), "{failure}");
        let effect = world.held_effects(1).await;
        assert_eq!(letters.dry_run(effect).await.unwrap(), DryRun::Effect("1".into()));
        assert_eq!(world.row(id.order), before);
        assert!(world.diary.performed.lock().unwrap().is_empty());
        assert_eq!(world.inbox.all_effects().len(), 1);
    });
}

#[test]
fn what_ended_the_process_is_not_tried_dry() {
    run(async {
        let world = World::new();
        world.diary.panics.store(true, Ordering::SeqCst);
        for ended in
            ["the process ended 5 times while this was attempted", "this attempt began, and nobody knows how it ended"]
        {
            let id = world.held(HoldState::Dead, 1, 10, Failure::permanent(ended)).await;
            assert_eq!(world.letters().dry_run(id).await.unwrap(), DryRun::EndsProcesses);
            // Another failure since does not make it harmless.
            let mut row = world.row(id.order);
            let Lane::Held(hold) = &mut row.applying else { panic!("it is held") };
            hold.keep(failed(one_place()));
            world.rewrite(row);
            assert_eq!(world.letters().dry_run(id).await.unwrap(), DryRun::EndsProcesses, "{ended}");
        }
    });
}

#[test]
fn what_is_attempted_or_was_when_a_process_ended_is_not_tried_dry() {
    run(async {
        let world = World::new();
        let began = Failure::transient("this attempt began, and nobody knows how it ended");
        let id = world.held(HoldState::Attempting, 1, 10, began).await;
        world.diary.panics.store(true, Ordering::SeqCst);
        let run = world.letters().dry_run(id).await;
        assert!(matches!(run, Err(LetterError::Refused(Refused::UnderWay(busy))) if busy == id), "{run:?}");
    });
}

#[test]
fn what_the_log_does_not_bring_or_contradicts_is_no_handlers_matter() {
    run(async {
        let world = World::new();
        let (mut row, _) = world.order(2, 2).await;
        row.seen = Version(4);
        row.applying = Lane::Held(Box::new(Hold::new(HoldState::Gap, at(1), Some(at(2)))));
        let gap = LetterId { order: row.order, version: Version(3), effect: None };
        world.put(row, Vec::new());
        let letters = world.letters();
        assert_eq!(letters.dry_run(gap).await.unwrap(), DryRun::NotInLog);
        assert!(letters.show(gap).await.unwrap().event.unwrap().is_none());
        let discard = letters.discard(gap, &decision()).await.unwrap();
        assert_eq!((discard.version, discard.event), (Version(3), None));
        let (mut row, events) = world.order(2, 2).await;
        row.applied_event = Some(EventId::generate());
        row.applying = Lane::Held(Box::new(Hold::new(HoldState::Conflicting, at(1), None)));
        let id = LetterId { order: row.order, version: Version(2), effect: None };
        world.put(row, Vec::new());
        assert_eq!(letters.dry_run(id).await.unwrap(), DryRun::Contradicts);
        letters.discard(id, &decision()).await.unwrap();
        let row = world.row(id.order);
        assert_eq!((row.applied, row.applied_event), (Version(2), Some(events[1].id)));
    });
}

#[test]
fn many_are_retried_only_when_they_are_as_many_as_was_said_and_no_faster() {
    run(async {
        let world = World::new();
        let mut all = Vec::new();
        for _ in 0..250 {
            all.push(world.held(HoldState::Dead, 1, 10, one_place()).await);
        }
        let other = world.held(HoldState::Dead, 1, 10, another_place()).await;
        let letters = [world.letters()];
        let filter = Filter { group: Some(Group::of(&one_place())), ..Filter::default() };
        let answer = Letters::retry_all(&letters, &many(filter.clone(), 249, 100)).await;
        assert!(matches!(answer, Err(LetterError::CountDiffers { present: 250 })), "{answer:?}");
        let answer = Letters::retry_all(&letters, &many(filter.clone(), 100_001, 10_000)).await;
        assert!(matches!(answer, Err(LetterError::TooMany { most: 100_000 })), "{answer:?}");
        let answer = Letters::retry_all(&letters, &many(filter.clone(), 601, 1)).await;
        assert!(matches!(answer, Err(LetterError::TooMany { most: 600 })), "{answer:?}");
        assert!(all.iter().all(|id| world.row(id.order).applying.hold().unwrap().state == HoldState::Dead));
        let retried = Letters::retry_all(&letters, &many(filter, 250, 100)).await.unwrap();
        assert_eq!((retried.retried, retried.changed, retried.left, retried.trouble), (250, 0, 0, None));
        let next = |id: &LetterId| world.row(id.order).applying.hold().unwrap().next_attempt_at.unwrap();
        let mut times: Vec<_> = all.iter().map(|id| next(id).since(at(0)).as_millis()).collect();
        times.sort_unstable();
        let least: Vec<_> = (0..250).map(|nth| nth * 10).collect();
        assert_eq!(times, least, "a hundred begin in each second");
        assert_eq!(retried.last_at, Some(at(2_490)));
        assert_eq!(world.row(other.order).applying.hold().unwrap().state, HoldState::Dead);
    });
}

#[test]
fn what_somebody_else_changes_meanwhile_is_left_alone_and_counted() {
    run(async {
        let world = World::new();
        let ids = [world.held(HoldState::Dead, 1, 1, one_place()).await, world.held_effects(2).await];
        let letters = [world.letters()];
        // Both lanes of one order, in one row.
        let (mut row, events) = world.order(3, 1).await;
        row.effects_waiting = 1;
        for (lane, effect) in [(&mut row.applying, None), (&mut row.performing, Some(0))] {
            let mut hold = Hold::new(HoldState::Dead, at(1), None);
            let event = if effect.is_some() { &events[0] } else { &events[1] };
            hold.head = Some(head(event, effect));
            *lane = Lane::Held(Box::new(hold));
        }
        let both = row.order;
        world.put(row, vec![effect(&events[0])]);
        let retried = Letters::retry_all(&letters, &many(Filter::default(), 4, 100)).await.unwrap();
        assert_eq!((retried.retried, retried.changed, retried.left), (4, 0, 0));
        let row = world.row(both);
        for lane in [&row.applying, &row.performing] {
            assert_eq!(lane.hold().map(|hold| hold.state), Some(HoldState::Retrying));
        }
        assert_eq!(list(&letters[0], &Filter::default()).await.count, 0);
        for id in ids {
            world.inbox.touch(id.order);
            letters[0].retry(id).await.unwrap();
        }
    });
}

#[test]
fn a_dry_run_of_many_adds_up_what_would_come_of_them() {
    run(async {
        let world = World::new();
        for _ in 0..20 {
            world.held(HoldState::Dead, 1, 1, one_place()).await;
        }
        world.held_effects(1).await;
        let letters = [world.letters()];
        let asked = many(Filter::default(), 21, 100);
        let tried = Letters::try_all(&letters, &asked).await.unwrap();
        assert_eq!((tried.tried, tried.applied, tried.effects, tried.failed, tried.left), (21, 20, 1, 0, 0));
        world.diary.fails.store(true, Ordering::SeqCst);
        let tried = Letters::try_all(&letters, &asked).await.unwrap();
        assert_eq!((tried.applied, tried.failed, tried.groups.len(), tried.groups[0].count), (0, 20, 1, 20));
        let over = RetryAll { until: Instant::now(), ..asked };
        assert_eq!(Letters::try_all(&letters, &over).await.unwrap().left, 21);
        assert_eq!(Letters::retry_all(&letters, &over).await.unwrap().left, 21);
        assert_eq!(list(&letters[0], &Filter::default()).await.count, 21, "nothing was retried");
    });
}

/// What a broker has set aside, or why it does not say.
struct Messages(Result<Vec<Unreadable>, BrokerError>);

#[async_trait]
impl SetAside for Messages {
    async fn unreadable(&self, subscriber: &str, limit: usize) -> Result<Vec<Unreadable>, BrokerError> {
        assert_eq!(subscriber, "diary");
        self.0.clone().map(|messages| messages.into_iter().take(limit).collect())
    }
}

#[test]
fn what_nobody_can_read_is_listed_beside_and_a_broker_that_is_away_hides_nothing_else() {
    run(async {
        let world = World::new();
        world.held(HoldState::Dead, 1, 10, one_place()).await;
        let letters = [world.letters()];
        let message = |body: &str| Unreadable::new(body.as_bytes(), None, "no JSON".to_owned(), Some(at(20)));
        let messages = Messages(Ok(vec![message("a"), message("a"), message("b")]));
        let filter = Filter::default();
        let listed = list_beside(&letters, &messages, &filter).await;
        assert_eq!((listed.count, listed.retryable, listed.entries.len()), (4, 1, 4));
        assert!(matches!(listed.entries[0], Entry::Unreadable { .. }) && listed.trouble.is_none());
        let group = Filter { group: Some(Unreadable::group()), ..Filter::default() };
        assert_eq!(list_beside(&letters, &messages, &group).await.count, 3);
        let dead = Filter { states: vec![State::Held(HoldState::Dead)], ..Filter::default() };
        assert_eq!(list_beside(&letters, &messages, &dead).await.count, 1);
        let away = Messages(Err(BrokerError::Away("told to".to_owned())));
        let listed = list_beside(&letters, &away, &filter).await;
        assert_eq!((listed.count, listed.trouble.as_deref()), (1, Some("the broker is away: told to")));
    });
}

/// A row as a subscriber could have left it: some of the order's events applied, some seen, some effects waiting, and both
/// lanes as chance has them. Its last effects wait.
async fn anything(world: &World, rng: &mut StdRng) -> (OrderId, Version) {
    let count = rng.random_range(1..6_usize);
    let applied = rng.random_range(0..=count as u32);
    let (mut row, events) = world.order(count, applied).await;
    row.seen = Version(rng.random_range(applied..=count as u32));
    let waiting = rng.random_range(0..=applied);
    (row.effects_waiting, row.performed) = (waiting, Version(applied - waiting));
    let hold = |state, rng: &mut StdRng| {
        let mut hold = Hold::new(state, at(1), rng.random_bool(0.3).then(|| at(rng.random_range(0..9_999))));
        hold.attempts = rng.random_range(0..7);
        (0..rng.random_range(0..4)).for_each(|_| hold.keep(failed(one_place())));
        hold
    };
    if applied < count as u32 {
        let states = [HoldState::Dead, HoldState::Retrying, HoldState::Undecodable, HoldState::Gap];
        let mut hold = hold(states[rng.random_range(0..states.len())], rng);
        hold.head = rng.random_bool(0.7).then(|| head(&events[applied as usize], None));
        row.applying = Lane::Held(Box::new(hold));
    }
    let first = events.get((applied - waiting) as usize).filter(|_| waiting > 0);
    if let Some(first) = first.filter(|_| rng.random_bool(0.7)) {
        let states = [HoldState::Dead, HoldState::Retrying];
        let mut hold = hold(states[rng.random_range(0..states.len())], rng);
        hold.head = rng.random_bool(0.7).then(|| head(first, Some(0)));
        row.performing = Lane::Held(Box::new(hold));
    }
    let effects = events.iter().take(applied as usize).skip((applied - waiting) as usize).map(effect).collect();
    let order = row.order;
    world.put(row, effects);
    (order, Version(count as u32))
}

#[test]
fn whatever_is_held_is_handled_to_its_end_after_a_retry_when_the_handler_succeeds() {
    for seed in 0..60 {
        run(async {
            let world = World::new();
            let mut rng = StdRng::seed_from_u64(seed);
            let mut orders = Vec::new();
            for _ in 0..rng.random_range(1..6) {
                orders.push(anything(&world, &mut rng).await);
            }
            let letters = [world.letters()];
            let all = Filter { states: State::all().collect(), ..Filter::default() };
            let count = list(&letters[0], &all).await.count;
            let before = rng.random_bool(0.5);
            let retry_all = async || Letters::retry_all(&letters, &many(all.clone(), count, 100)).await.unwrap();
            if before {
                assert_eq!(retry_all().await.retried, count, "seed {seed}");
            }
            let (child, handle) = world.subscriber();
            let node = Node::root("docket", Arc::clone(&world.clock), Ledger::new("test"), 1);
            let root = Supervisor::new(Strategy::OneForOne, Policy::default()).child(child).start(&node);
            if !before {
                // While it is at work.
                tokio::time::sleep(Duration::from_secs(rng.random_range(0..3))).await;
                for entry in list(handle.letters(), &all).await.entries {
                    let Entry::Held(letter) = entry else { continue };
                    let retried = handle.letters().retry(letter.id).await;
                    assert!(matches!(retried, Ok(_) | Err(LetterError::Refused(_))), "seed {seed}: {retried:?}");
                }
            }
            let done = |(order, end): &(OrderId, Version)| {
                let row = world.row(*order);
                let ready = row.applying.is_ready() && row.performing.is_ready();
                ready && (row.applied, row.performed, row.effects_waiting) == (*end, *end, 0)
            };
            for _ in 0..3_600 {
                if orders.iter().all(done) {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            for order in &orders {
                assert!(done(order), "seed {seed}: {:?}", world.row(order.0));
            }
            root.handle().end();
            root.await;
        });
    }
}

#[test]
fn after_a_discard_the_order_goes_on_behind_it() {
    run(async {
        let world = World::new();
        world.diary.fails.store(true, Ordering::SeqCst);
        let id = world.held(HoldState::Dead, 1, 10, one_place()).await;
        let (child, handle) = world.subscriber();
        let node = Node::root("docket", Arc::clone(&world.clock), Ledger::new("test"), 1);
        let root = Supervisor::new(Strategy::OneForOne, Policy::default()).child(child).start(&node);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(world.row(id.order).applied, Version(1), "nobody but an operator skips");
        world.diary.fails.store(false, Ordering::SeqCst);
        handle.letters().discard(id, &decision()).await.unwrap();
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if world.row(id.order).applying.is_ready() {
                break;
            }
        }
        let row = world.row(id.order);
        assert_eq!((row.applied, row.performed), (Version(4), Version(4)));
        let performed: Vec<_> = world.diary.performed.lock().unwrap().iter().map(|(_, version)| version.0).collect();
        assert_eq!(performed, [3, 4], "the discarded one asked for nothing");
        root.handle().end();
        root.await;
    });
}

/// A newer order store under the same subscriber would be the same: what it has is what is taken as applied.
#[test]
fn after_an_older_backup_the_order_goes_on_from_what_the_log_has() {
    run(async {
        let world = World::new();
        let started = world.store(first(2)).await;
        let end = StreamEnd::nothing(started.order());
        assert_eq!(end.version(), Version::NONE);
        let mut row = Row {
            applied: Version(4),
            applied_event: Some(EventId::generate()),
            seen: Version(6),
            performed: Version(4),
            ..Row::new(started.order())
        };
        row.applying = Lane::Held(Box::new(Hold::new(HoldState::Conflicting, at(1), None)));
        let id = LetterId { order: row.order, version: Version(4), effect: None };
        world.put(row, Vec::new());
        world.letters().discard(id, &decision()).await.unwrap();
        let row = world.row(id.order);
        assert_eq!((row.applied, row.seen), (Version(2), Version(2)));
        world.store(commit(&started.stored_end(), 1)).await;
        let (child, _) = world.subscriber();
        let node = Node::root("docket", Arc::clone(&world.clock), Ledger::new("test"), 1);
        let root = Supervisor::new(Strategy::OneForOne, Policy::default()).child(child).start(&node);
        tokio::time::sleep(Duration::from_secs(300)).await;
        let row = world.row(id.order);
        assert!(row.applying.is_ready(), "{row:?}");
        assert_eq!(row.applied, Version(3));
        root.handle().end();
        root.await;
    });
}

#[test]
fn an_event_that_cannot_be_read_is_shown_as_it_is_stored() {
    run(async {
        let world = World::new();
        let end = StreamEnd::nothing(OrderId::generate());
        let stored = world.store(commit_with(&end, 1, r#"{"sku":7}"#)).await;
        let mut row = Row { seen: Version(1), ..Row::new(stored.order()) };
        row.applying = Lane::Held(Box::new(Hold::new(HoldState::Undecodable, at(1), Some(at(2)))));
        let id = LetterId { order: row.order, version: Version(1), effect: None };
        world.put(row, Vec::new());
        let letters = world.letters();
        let shown = letters.show(id).await.unwrap();
        assert_eq!(shown.event.unwrap().map(|event| event.data.get().to_owned()), Some(r#"{"sku":7}"#.to_owned()));
        assert!(matches!(letters.dry_run(id).await.unwrap(), DryRun::Undecodable(_)));
    });
}
