//! Supervision as a whole, on one arbiter with tokio's clock paused.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use actix::{ActorContext, AtomicResponse, Handler, MailboxError, Message as ActixMessage, WrapFuture};
use futures_util::FutureExt;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use super::child::{Ending, Quarantine};
use super::ledger::{Cause, Decided};
use super::tree::Status;
use super::*;
use crate::clock::{Timestamp, TokioClock};

fn on_virtual_time<F: Future>(test: impl FnOnce() -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    LocalSet::new().block_on(&runtime, async { test().await })
}

fn tree() -> Node {
    let clock = TokioClock::starting_at(Timestamp::from_millis(1_795_000_000_000));
    Node::root("docket", Arc::new(clock), Ledger::new("test"), 7)
}

/// Lets everything that is ready run, without time passing for more than a millisecond.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn policy(restarts_max: u32) -> Policy {
    let mut policy = Policy::default();
    policy.intensity.restarts_max = restarts_max;
    policy.backoff.jitter = 0.0;
    policy.quarantine.jitter = 0.0;
    policy
}

/// What happened to the actors of a test, in order.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().expect("not poisoned").push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("not poisoned"))
    }
}

/// A counter that fails on demand.
struct Counter {
    name: &'static str,
    count: u32,
    diary: Diary,
    me: Handle,
    poison: Poison,
}

/// Where else a counter panics.
#[derive(Clone, Copy, Default, PartialEq)]
enum Poison {
    #[default]
    Nowhere,
    Started,
    Restarting,
}

impl Actor for Counter {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.diary.note(format!("{} started", self.name));
        assert!(self.poison != Poison::Started, "poisoned start");
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.diary.note(format!("{} stopped", self.name));
    }
}

impl Supervised for Counter {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.count = 0;
        self.diary.note(format!("{} restarting", self.name));
        assert!(self.poison != Poison::Restarting, "poisoned rebuild");
    }
}

#[derive(ActixMessage)]
#[rtype(result = "u32")]
struct Add(u32);

#[derive(ActixMessage)]
#[rtype(result = "()")]
enum Do {
    Panic,
    PanicLater,
    Hang,
    Stop,
    End,
    Fail,
    Poison(Poison),
}

impl Handler<Add> for Counter {
    type Result = u32;

    fn handle(&mut self, Add(more): Add, _: &mut Self::Context) -> u32 {
        self.count += more;
        self.count
    }
}

impl Handler<Do> for Counter {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, what: Do, ctx: &mut Self::Context) -> Self::Result {
        let handling = self.me.handling("Do").detail(self.name).caller_told("504 outcome-unknown");
        self.count += 100;
        let me = self.me.clone();
        match what {
            Do::Panic => panic!("boom in {}", self.name),
            Do::Stop => ctx.stop(),
            Do::End => me.end(),
            Do::Fail => me.fail(Failure::error("no more disk")),
            Do::Poison(poison) => self.poison = poison,
            Do::PanicLater | Do::Hang => {}
        }
        let later = matches!(what, Do::PanicLater);
        let hang = matches!(what, Do::Hang);
        let future = async move {
            let _handling = handling;
            if later {
                sleep(Duration::from_millis(5)).await;
                panic!("boom later");
            }
            if hang {
                std::future::pending::<()>().await;
            }
        };
        AtomicResponse::new(Box::pin(future.into_actor(self)))
    }
}

fn counter(name: &'static str, diary: &Diary) -> (Child, Addr<Counter>) {
    let diary = diary.clone();
    Child::actor(name, "counter", move |_, me, _| Counter {
        name,
        count: 0,
        diary,
        me: me.clone(),
        poison: Poison::Nowhere,
    })
}

/// A counter that decides for itself, and the events its owner got.
fn own_counter(spec: ChildSpec, diary: &Diary) -> (Addr<Counter>, Handle, Rc<RefCell<Vec<Event>>>) {
    let events = Rc::new(RefCell::new(Vec::new()));
    let told = Rc::clone(&events);
    let diary = diary.clone();
    let (address, handle) = child::start(spec.on_event(move |event| told.borrow_mut().push(event)), |_, me| Counter {
        name: "own",
        count: 0,
        diary,
        me: me.clone(),
        poison: Poison::Nowhere,
    });
    (address, handle, events)
}

fn order(tree: &Node, policy: Policy) -> ChildSpec {
    ChildSpec::isolated(tree, "o-1", "order", Arc::new(policy))
}

#[test]
fn a_panic_keeps_the_address_and_the_queued_messages_in_order_and_drops_the_callers_reply() {
    on_virtual_time(|| async {
        let (tree, diary) = (tree(), Diary::default());
        let (address, _, events) = own_counter(order(&tree, policy(5)), &diary);
        assert_eq!(address.send(Add(1)).await.expect("alive"), 1);
        let boom = address.send(Do::Panic);
        let (second, third) = (address.send(Add(2)), address.send(Add(3)));
        let (boom, second, third) = futures_util::join!(boom, second, third);
        assert!(matches!(boom, Err(MailboxError::Closed)));
        assert_eq!((second.expect("queued"), third.expect("queued")), (2, 5), "state is rebuilt, order kept");
        assert!(matches!(events.borrow()[..], [Event::Restarting(_), Event::Resumed]));
        assert_eq!(diary.take(), ["own started", "own restarting", "own started"]);

        let entry = tree.ledger().last(1).remove(0);
        assert_eq!((&*entry.path, &*entry.kind), ("docket/o-1", "order"));
        let Cause::Panic(panic) = &entry.cause else { panic!("{entry:?}") };
        assert_eq!(panic.text, "boom in own");
        assert!(panic.place.contains("supervisor/tests.rs:"), "{}", panic.place);
        let message = entry.message.clone().expect("it was handling one");
        assert_eq!(message.name, "Do");
        assert_eq!(message.detail.as_deref(), Some("own"));
        assert_eq!(message.caller_told.as_deref(), Some("504 outcome-unknown"));
        assert_eq!((entry.attempt, entry.attempts_max, entry.decision), (1, Some(5), Decided::Restart));
        assert_eq!(entry.next_try_at, Some(entry.at.after(Duration::from_millis(100))));
    });
}

#[test]
fn a_panic_in_a_handlers_future_is_as_one_in_the_handler() {
    on_virtual_time(|| async {
        let (tree, diary) = (tree(), Diary::default());
        let (address, ..) = own_counter(order(&tree, policy(5)), &diary);
        let (boom, next) = futures_util::join!(address.send(Do::PanicLater), address.send(Add(2)));
        assert!(matches!(boom, Err(MailboxError::Closed)));
        assert_eq!(next.expect("queued"), 2);
        let entry = tree.ledger().last(1).remove(0);
        assert!(matches!(&entry.cause, Cause::Panic(panic) if panic.text == "boom later"), "{entry:?}");
        assert_eq!(entry.message.as_ref().map(|message| message.name.as_str()), Some("Do"));
    });
}

#[test]
fn a_message_that_takes_too_long_is_a_failure_and_its_caller_learns_at_once() {
    on_virtual_time(|| async {
        let (tree, diary) = (tree(), Diary::default());
        let limits = Limits { stuck_after: Some(secs(30)), ..Limits::default() };
        let (address, ..) = own_counter(order(&tree, policy(5)).limits(limits), &diary);
        // One that is done in time leaves the timer behind, which must not hit the next.
        address.send(Do::Poison(Poison::Nowhere)).await.expect("alive");
        sleep(secs(20)).await;
        let asked = Instant::now();
        assert!(matches!(address.send(Do::Hang).await, Err(MailboxError::Closed)));
        assert_eq!(asked.elapsed().as_secs(), 30);
        assert_eq!(address.send(Add(4)).await.expect("alive"), 4);
        let entry = tree.ledger().last(1).remove(0);
        assert_eq!(entry.cause, Cause::Stuck { after_ms: 30_000 });
        assert_eq!(entry.message.as_ref().and_then(|message| message.detail.as_deref()), Some("own"));
    });
}

#[test]
fn stopping_unasked_is_a_failure_and_saying_so_too() {
    on_virtual_time(|| async {
        let (tree, diary) = (tree(), Diary::default());
        let (address, ..) = own_counter(order(&tree, policy(5)), &diary);
        for what in [Do::Stop, Do::Fail] {
            // Whether the answer is given before it ends is not promised.
            let _ = address.send(what).await;
            assert_eq!(address.send(Add(1)).await.expect("alive"), 1);
        }
        let causes: Vec<_> = tree.ledger().last(9).iter().map(|entry| entry.cause.clone()).collect();
        assert_eq!(causes, [Cause::Error { text: "no more disk".to_owned() }, Cause::Stop]);
    });
}

#[test]
fn ending_on_request_runs_the_hooks_once_and_leaves_no_entry() {
    on_virtual_time(|| async {
        let (tree, diary) = (tree(), Diary::default());
        let (address, _, events) = own_counter(order(&tree, policy(5)), &diary);
        assert_eq!(tree.view().live, Some(1));
        let _ = address.send(Do::End).await;
        settle().await;
        assert_eq!(tree.view().live, None);
        assert_eq!(diary.take(), ["own started", "own stopped"]);
        assert!(matches!(events.borrow()[..], [Event::Ended(Ending::Asked)]));
        assert!(!address.connected());
        assert!(tree.ledger().last(9).is_empty());
    });
}

#[test]
fn a_child_that_nobody_can_reach_ends() {
    on_virtual_time(|| async {
        let (tree, diary) = (tree(), Diary::default());
        let (address, handle, events) = own_counter(order(&tree, policy(5)), &diary);
        settle().await;
        assert_eq!(tree.view().live, Some(1));
        drop(address);
        settle().await;
        assert!(matches!(events.borrow()[..], [Event::Ended(Ending::Unreachable)]), "{:?}", events.borrow());
        assert_eq!(tree.view().live, None);
        assert!(tree.ledger().last(9).is_empty());
        handle.restart();
    });
}

#[test]
fn an_operator_restarts_a_child_that_decides_for_itself() {
    on_virtual_time(|| async {
        let (tree, diary) = (tree(), Diary::default());
        let (address, handle, _) = own_counter(order(&tree, policy(0)), &diary);
        assert_eq!(address.send(Add(7)).await.expect("alive"), 7);
        handle.restart();
        assert_eq!(address.send(Add(1)).await.expect("not counted as a failure"), 1);
        assert_eq!(tree.ledger().last(1)[0].cause, Cause::Operator);
        assert_eq!(diary.take(), ["own started", "own restarting", "own started"]);
    });
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("even its end fails");
    }
}

#[test]
fn a_panic_in_the_drop_of_what_was_under_way_is_caught_too() {
    on_virtual_time(|| async {
        let tree = tree();
        let mut attempts = 0;
        let limits = Limits { stuck_after: Some(secs(1)), ..Limits::default() };
        let spec = ChildSpec::isolated(&tree, "job", "job", Arc::new(policy(5))).limits(limits);
        let begun = Rc::new(RefCell::new(0));
        let count = Rc::clone(&begun);
        let _handle = child::start_task(spec, move |me| {
            attempts += 1;
            *count.borrow_mut() = attempts;
            let handling = (attempts == 1).then(|| me.handling("Feed"));
            let worse = if attempts == 1 { Some(PanicsWhenDropped) } else { None };
            async move {
                let _both = (handling, worse);
                std::future::pending().await
            }
            .boxed_local()
        });
        sleep(secs(60)).await;
        assert_eq!(*begun.borrow(), 2);
        assert_eq!(tree.ledger().last(9).len(), 1);
    });
}

#[test]
fn what_panics_in_started_for_ever_makes_few_attempts_a_day() {
    let begun = std::time::Instant::now();
    on_virtual_time(|| async {
        let (tree, diary) = (tree(), Diary::default());
        let (address, ..) = own_counter(order(&tree, Policy::default()), &diary);
        address.send(Do::Poison(Poison::Started)).await.expect("alive");
        let _ = address.send(Do::Panic).await;
        diary.take();
        sleep(secs(86_400)).await;
        let attempts = diary.take().iter().filter(|note| *note == "own started").count();
        // Five restarts, quarantines of 30 s to 16 min, then one in 24 to 30 min.
        assert!((50..80).contains(&attempts), "{attempts}");
        assert!(tree.ledger().last(1000).len() < 80);
        assert_eq!(tree.view().quarantined, 1);
    });
    assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
}

#[test]
fn a_panic_while_rebuilding_is_tried_again_and_in_the_end_quarantined() {
    on_virtual_time(|| async {
        let (tree, diary) = (tree(), Diary::default());
        let (address, _, events) = own_counter(order(&tree, policy(3)), &diary);
        address.send(Do::Poison(Poison::Restarting)).await.expect("alive");
        let boom = address.send(Do::Panic);
        let queued = address.send(Add(1));
        let (boom, queued) = futures_util::join!(boom, async { tokio::time::timeout(secs(10), queued).await });
        assert!(matches!(boom, Err(MailboxError::Closed)));
        assert!(queued.is_err(), "a half-changed actor must not handle anything");
        assert!(matches!(
            events.borrow()[..],
            [Event::Restarting(_), Event::Restarting(_), Event::Restarting(_), Event::Quarantined(_, None)]
        ));
        assert_eq!(diary.take().iter().filter(|note| *note == "own started").count(), 1);
    });
}

#[test]
fn quarantines_grow_to_their_limit_and_an_operators_release_ends_one() {
    on_virtual_time(|| async {
        let (tree, diary) = (tree(), Diary::default());
        let mut policy = policy(1);
        policy.quarantine =
            Backoff { first: secs(10), factor: 3.0, max: secs(60), jitter: 0.0, reset_after: secs(600) };
        let (address, _, events) = own_counter(order(&tree, policy), &diary);
        for what in [Do::Poison(Poison::Started), Do::Panic] {
            let _ = address.send(what).await;
        }
        sleep(secs(300)).await;
        let waits = |events: &[Event]| -> Vec<u64> {
            let quarantined = events.iter().filter_map(|event| match event {
                Event::Quarantined(entry, None) => entry.next_try_at.map(|until| until.since(entry.at).as_secs()),
                Event::Quarantined(_, Some(_)) | Event::Restarting(_) | Event::Resumed | Event::Ended(_) => None,
            });
            quarantined.collect()
        };
        assert_eq!(waits(&events.borrow()), [10, 30, 60, 60, 60, 60, 60]);
        events.borrow_mut().clear();

        let node = tree.find("docket/o-1").expect("it has failed lately");
        assert!(matches!(node.view().status, Status::Quarantined { .. }));
        node.handle().expect("started").release();
        settle().await;
        assert!(
            matches!(events.borrow()[..], [Event::Restarting(_)]),
            "released, it has all its restarts again: {:?}",
            events.borrow()
        );
    });
}

#[test]
fn a_quarantine_that_ends_the_child_closes_its_mailbox_and_remembers() {
    on_virtual_time(|| async {
        let (tree, diary) = (tree(), Diary::default());
        let (address, _, events) = own_counter(order(&tree, policy(0)).ending_in_quarantine(), &diary);
        let (boom, queued) = futures_util::join!(address.send(Do::Panic), address.send(Add(1)));
        assert!(matches!((boom, queued), (Err(MailboxError::Closed), Err(MailboxError::Closed))));
        let Some(Event::Quarantined(entry, Some(quarantine))) = events.borrow_mut().pop() else { panic!("no event") };
        assert_eq!(entry.decision, Decided::Quarantine);
        assert_eq!((tree.view().live, tree.view().quarantined), (None, 1));
        assert_eq!(quarantine.remaining(), secs(30));
        assert!(!quarantine.is_over());
        sleep(secs(30)).await;
        assert!(quarantine.is_over());

        let spec = order(&tree, policy(0)).ending_in_quarantine().after(quarantine);
        let (address, _, events) = own_counter(spec, &diary);
        settle().await;
        assert_eq!((tree.view().live, tree.view().quarantined), (Some(1), 0));
        let _ = address.send(Do::Panic).await;
        let Some(Event::Quarantined(_, Some(quarantine))) = events.borrow_mut().pop() else { panic!("no event") };
        assert_eq!(quarantine.remaining(), secs(60), "the second is longer");
        tree.find("docket/o-1").and_then(|node| node.handle()).expect("listed").release();
        assert!(quarantine.is_over());
        forget(quarantine, &tree);
    });
}

fn forget(quarantine: Quarantine, tree: &Node) {
    drop(quarantine);
    assert_eq!(tree.view().quarantined, 0);
}

#[test]
fn of_thousands_the_poisoned_one_is_quarantined_alone() {
    on_virtual_time(|| async {
        let (tree, diary) = (tree(), Diary::default());
        let shard = tree.child("orders", "shard", Importance::Essential);
        let policy = Arc::new(policy(2));
        let start = |number: usize| {
            let spec = ChildSpec::isolated(&shard, &format!("o-{number}"), "order", Arc::clone(&policy));
            own_counter(spec, &diary).0
        };
        let orders: Vec<_> = (0..5_000).map(start).collect();
        for _ in 0..3 {
            let _ = orders[77].send(Do::Panic).await;
        }
        let answers = futures_util::future::join_all(
            orders.iter().enumerate().filter(|(number, _)| *number != 77).map(|(_, order)| order.send(Add(1))),
        );
        assert!(answers.await.into_iter().all(|answer| answer.is_ok_and(|count| count == 1)));
        let view = shard.view();
        assert_eq!((view.live, view.quarantined, view.alert), (Some(5_000), 1, false));
        assert_eq!(view.children.len(), 1, "only the one that failed is listed");
        assert_eq!(view.children[0].name, "o-77");
        assert_eq!(tree.ledger().counts().iter().map(|count| count.count).sum::<u64>(), 3);
    });
}

#[test]
fn many_quarantined_at_once_are_an_alert_and_the_list_stays_bounded() {
    on_virtual_time(|| async {
        let (tree, diary) = (tree(), Diary::default());
        let shard = tree.child("orders", "shard", Importance::Essential);
        let policy = Arc::new(policy(0));
        let mut orders = Vec::new();
        for number in 0..300 {
            let spec = ChildSpec::isolated(&shard, &format!("o-{number}"), "order", Arc::clone(&policy));
            let (address, ..) = own_counter(spec, &diary);
            assert_eq!(shard.view().alert, number >= 10, "{number}");
            let _ = address.send(Do::Panic).await;
            orders.push(address);
        }
        let view = shard.view();
        assert_eq!((view.quarantined, view.children.len()), (300, tree::MEMBERS_MAX));
        assert_eq!(tree.ledger().last(usize::MAX).len(), 300);
    });
}

fn three(strategy: Strategy, diary: &Diary) -> (Supervisor, [Addr<Counter>; 3]) {
    let (first, one) = counter("a", diary);
    let (second, two) = counter("b", diary);
    let (third, three) = counter("c", diary);
    (Supervisor::new(strategy, policy(3)).child(first).child(second).child(third), [one, two, three])
}

/// Who is rebuilt, and who started again in which order, when the middle one of three fails.
fn after_a_failure_in_the_middle(strategy: Strategy) -> Vec<String> {
    on_virtual_time(|| async {
        let (tree, diary) = (tree(), Diary::default());
        let (supervisor, [a, b, c]) = three(strategy, &diary);
        let _root = supervisor.start(&tree);
        assert_eq!(a.send(Add(1)).await.expect("alive"), 1);
        assert_eq!(c.send(Add(1)).await.expect("alive"), 1);
        assert_eq!(diary.take(), ["a started", "b started", "c started"]);
        let _ = b.send(Do::Panic).await;
        sleep(Duration::from_millis(50)).await;
        let early = diary.take();
        assert!(early.iter().all(|note| note.ends_with("restarting")), "the backoff is not over: {early:?}");
        sleep(secs(1)).await;
        for address in [&a, &b, &c] {
            address.send(Add(1)).await.expect("all are alive again, at the same address");
        }
        early.into_iter().chain(diary.take()).collect()
    })
}

#[test]
fn one_for_one_restarts_the_one() {
    assert_eq!(after_a_failure_in_the_middle(Strategy::OneForOne), ["b restarting", "b started"]);
}

#[test]
fn rest_for_one_restarts_those_behind_it_too() {
    let notes = after_a_failure_in_the_middle(Strategy::RestForOne);
    assert_eq!(notes, ["b restarting", "c restarting", "b started", "c started"]);
}

#[test]
fn one_for_all_restarts_all_halting_the_last_started_first() {
    let notes = after_a_failure_in_the_middle(Strategy::OneForAll);
    // The one that failed is rebuilt where it failed; the others are halted by the supervisor.
    assert_eq!(notes[0], "b restarting");
    assert_eq!(notes[1..], ["c restarting", "a restarting", "a started", "b started", "c started"]);
}

#[test]
fn children_stop_in_the_reverse_order_of_their_start() {
    on_virtual_time(|| async {
        let (tree, diary) = (tree(), Diary::default());
        let (supervisor, addresses) = three(Strategy::OneForOne, &diary);
        let root = supervisor.start(&tree);
        settle().await;
        diary.take();
        root.handle().end();
        let end = root.await;
        assert!(matches!(end, End::Asked));
        assert_eq!(end.exit_code(), 0);
        assert_eq!(diary.take(), ["c stopped", "b stopped", "a stopped"]);
        assert!(addresses.iter().all(|address| !address.connected()));
        assert!(tree.view().children.iter().all(|child| child.status == Status::Stopped));
    });
}

#[test]
fn essential_children_share_an_intensity_and_over_it_the_root_ends_with_the_reason() {
    on_virtual_time(|| async {
        let (tree, diary) = (tree(), Diary::default());
        let (supervisor, [a, b, _c]) = three(Strategy::OneForOne, &diary);
        let root = supervisor.start(&tree);
        for address in [&a, &b, &a] {
            let _ = address.send(Do::Panic).await;
            sleep(secs(2)).await;
        }
        assert_eq!(b.send(Add(1)).await.expect("three are borne"), 1);
        let _ = b.send(Do::Panic).await;
        let end = root.await;
        assert_eq!(end.exit_code(), 70);
        let text = end.to_string();
        assert!(text.starts_with("docket/b failed for good: panic at "), "{text}");
        assert!(text.ends_with("boom in b"), "{text}");
        settle().await;
        assert!(!a.connected(), "nothing of the tree is left");
    });
}

#[test]
fn a_failure_escalates_through_two_levels_each_restarting_what_it_has() {
    on_virtual_time(|| async {
        let (tree, diary) = (tree(), Diary::default());
        let mut once = policy(1);
        once.intensity.within = secs(3_600);
        let (leaf, address) = counter("leaf", &diary);
        let (other, _other) = counter("other", &diary);
        let inner = Supervisor::new(Strategy::OneForAll, once).child(leaf).child(other);
        let middle = Supervisor::new(Strategy::OneForOne, once).child(Child::supervisor("inner", inner));
        let (apart, apart_address) = counter("apart", &diary);
        let outer = Supervisor::new(Strategy::OneForOne, once).child(Child::supervisor("middle", middle)).child(apart);
        let root = outer.start(&tree);
        for failure in 1..=8 {
            assert!(address.send(Do::Panic).await.is_err());
            sleep(secs(1)).await;
            // Each level bears one failure: 2 × 2 × 2.
            assert_eq!(apart_address.send(Add(1)).await.is_ok(), failure < 8, "failure {failure}");
        }
        let end = tokio::time::timeout(secs(1), root).await.expect("it has ended");
        let text = end.to_string();
        assert!(text.starts_with("docket/middle/inner/leaf failed for good: panic at "), "{text}");
        assert!(diary.take().iter().any(|note| note == "other restarting"), "one for all inside");
        let escalated = tree.ledger().last(100);
        let of = |path: &str| escalated.iter().filter(|entry| *entry.path == *path).count();
        assert_eq!(of("docket/middle/inner/leaf"), 8);
        assert_eq!(of("docket/middle/inner"), 4);
        assert_eq!(of("docket/middle"), 2);
        assert_eq!(of("docket"), 1);
    });
}

#[test]
fn an_isolated_child_is_quarantined_alone_and_tried_again_or_released() {
    on_virtual_time(|| async {
        let (tree, diary) = (tree(), Diary::default());
        let (sick, sick_address) = counter("sick", &diary);
        let (well, well_address) = counter("well", &diary);
        let supervisor = Supervisor::new(Strategy::OneForAll, policy(1)).child(sick.isolated()).child(well);
        let _root = supervisor.start(&tree);
        settle().await;
        diary.take();
        for _ in 0..2 {
            let _ = sick_address.send(Do::Panic).await;
        }
        sleep(secs(1)).await;
        let node = tree.find("docket/sick").expect("listed");
        assert!(matches!(node.view().status, Status::Quarantined { .. }));
        assert_eq!(tree.view().quarantined, 1);
        assert_eq!(well_address.send(Add(1)).await.expect("untouched"), 1);
        assert!(diary.take().iter().all(|note| note.starts_with("sick")));

        let waiting = tokio::task::spawn_local(sick_address.send(Add(5)));
        sleep(secs(40)).await;
        assert_eq!(waiting.await.expect("joined").expect("tried again"), 5);
        assert_eq!(node.view().status, Status::Running);

        let _ = sick_address.send(Do::Panic).await;
        settle().await;
        assert!(matches!(node.view().status, Status::Quarantined { .. }), "on trial, one failure is enough");
        node.handle().expect("started").release();
        assert_eq!(sick_address.send(Add(6)).await.expect("released"), 6);
        assert_eq!(tree.view().quarantined, 0);
    });
}

#[test]
fn an_operators_restart_takes_the_siblings_along_and_does_not_count() {
    on_virtual_time(|| async {
        let (tree, diary) = (tree(), Diary::default());
        let (supervisor, [a, ..]) = three(Strategy::RestForOne, &diary);
        let _root = supervisor.start(&tree);
        settle().await;
        diary.take();
        for _ in 0..10 {
            tree.find("docket/b").and_then(|node| node.handle()).expect("started").restart();
            settle().await;
        }
        let notes = diary.take();
        assert_eq!(notes[..4], ["c restarting", "b restarting", "b started", "c started"]);
        assert_eq!(notes.len(), 40);
        assert_eq!(a.send(Add(1)).await.expect("untouched"), 1);
        assert!(tree.ledger().last(100).iter().all(|entry| entry.cause == Cause::Operator && entry.attempt == 0));
        assert_eq!(tree.find("docket/b").expect("there").view().restarts_total, 10);
    });
}

#[test]
fn a_supervisor_that_fails_halts_and_starts_its_children_again() {
    on_virtual_time(|| async {
        let (tree, diary) = (tree(), Diary::default());
        let (inner, [a, _b, c]) = three(Strategy::OneForOne, &diary);
        let outer = Supervisor::new(Strategy::OneForOne, policy(3)).child(Child::supervisor("inner", inner));
        let _root = outer.start(&tree);
        assert_eq!(a.send(Add(1)).await.expect("alive"), 1);
        assert_eq!(c.send(Add(1)).await.expect("alive"), 1);
        diary.take();
        let inner = tree.find("docket/inner").and_then(|node| node.handle()).expect("started");
        inner.fail(Failure::error("lost its way"));
        sleep(secs(1)).await;
        assert_eq!(
            diary.take(),
            ["c restarting", "b restarting", "a restarting", "a started", "b started", "c started"]
        );
        assert_eq!(a.send(Add(1)).await.expect("alive"), 1);
        let cause = Cause::Error { text: "lost its way".to_owned() };
        assert_eq!(tree.ledger().last(1)[0].cause, cause);
    });
}

#[test]
fn jobs_are_begun_again_after_an_error_a_panic_and_an_unasked_end() {
    on_virtual_time(|| async {
        let (tree, diary) = (tree(), Diary::default());
        let notes = diary.clone();
        let job = Child::task("feed", "feed", move |_| {
            let mut attempt = 0;
            move |me: &Handle| {
                attempt += 1;
                notes.note(format!("attempt {attempt}"));
                let (me, notes) = (me.clone(), notes.clone());
                async move {
                    match attempt {
                        1 => Err(Failure::error("connection refused")),
                        2 => panic!("not thought of"),
                        3 => Ok(()),
                        _ => {
                            me.stop_requested().await;
                            notes.note("winds up");
                            Ok(())
                        }
                    }
                }
                .boxed_local()
            }
        });
        let limits = Limits { stop_within: secs(1), ..Limits::default() };
        let root = Supervisor::new(Strategy::OneForOne, policy(5)).child(job.limits(limits)).start(&tree);
        sleep(secs(5)).await;
        assert_eq!(diary.take(), ["attempt 1", "attempt 2", "attempt 3", "attempt 4"]);
        let causes: Vec<_> = tree.ledger().last(9).iter().rev().map(|entry| entry.cause.name()).collect();
        assert_eq!(causes, ["error", "panic", "stop"]);
        root.handle().end();
        assert!(matches!(root.await, End::Asked));
        assert_eq!(diary.take(), ["winds up"]);
    });
}

#[test]
fn a_job_that_does_not_end_in_time_is_dropped() {
    on_virtual_time(|| async {
        let tree = tree();
        let job = Child::task("feed", "feed", |_| |_: &Handle| std::future::pending().boxed_local());
        let limits = Limits { stop_within: secs(3), ..Limits::default() };
        let root = Supervisor::new(Strategy::OneForOne, policy(5)).child(job.limits(limits)).start(&tree);
        settle().await;
        let asked = Instant::now();
        root.handle().end();
        assert!(matches!(root.await, End::Asked));
        assert_eq!(asked.elapsed().as_secs(), 3);
    });
}

#[test]
fn the_tree_of_a_docket_on_several_arbiters() {
    let system = actix_rt::System::new();
    system.block_on(async {
        let (tree, diary) = (tree(), Diary::default());
        let (journal_arbiter, orders_arbiter) = (actix_rt::Arbiter::new(), actix_rt::Arbiter::new());
        let (journal, journal_address) = counter("journal", &diary);
        let (shard, shard_address) = counter("0", &diary);
        let (name, name_address) = counter("lanes", &diary);
        let orders = Supervisor::new(Strategy::OneForOne, policy(1)).child(shard.on(orders_arbiter.handle()));
        let notification = Supervisor::new(Strategy::OneForAll, policy(1)).child(name);
        let subscribers = Supervisor::new(Strategy::OneForOne, policy(1))
            .child(Child::supervisor("notification", notification).isolated().on(orders_arbiter.handle()));
        let root = Supervisor::new(Strategy::RestForOne, policy(1))
            .child(journal.on(journal_arbiter.handle()))
            .child(Child::supervisor("orders", orders))
            .child(Child::supervisor("subscribers", subscribers))
            .start(&tree);
        for address in [&journal_address, &shard_address, &name_address] {
            assert_eq!(address.send(Add(1)).await.expect("alive"), 1);
        }
        // All that was started after the journal is started again with it.
        let _ = journal_address.send(Do::Panic).await;
        for address in [&journal_address, &shard_address, &name_address] {
            let mut count = 2;
            for _ in 0..1_000 {
                count = address.send(Add(1)).await.expect("alive");
                if count == 1 {
                    break;
                }
                sleep(Duration::from_millis(5)).await;
            }
            assert!(count < 1_000, "it was never rebuilt");
        }
        let view = serde_json::to_value(tree.view()).expect("JSON");
        assert_eq!(view["children"][1]["children"][0]["path"], "docket/orders/0");
        assert_eq!(view["children"][0]["state"], "running");

        orders_arbiter.stop();
        let end = root.await;
        assert_eq!(end.to_string(), "docket/orders/0 failed for good: its arbiter has ended");
        journal_arbiter.stop();
    });
}

#[test]
fn panics_of_two_dockets_on_two_threads_do_not_mix() {
    let one = |name: &'static str| {
        std::thread::spawn(move || {
            on_virtual_time(|| async {
                let (tree, diary) = (tree(), Diary::default());
                let diary_of = diary.clone();
                let spec = order(&tree, policy(1_000));
                let (address, _) = child::start(spec, |_, me| Counter {
                    name,
                    count: 0,
                    diary: diary_of,
                    me: me.clone(),
                    poison: Poison::Nowhere,
                });
                for _ in 0..100 {
                    let _ = address.send(Do::Panic).await;
                }
                let texts: Vec<_> = tree.ledger().last(200).iter().map(|entry| entry.cause.to_string()).collect();
                assert_eq!(texts.len(), 100);
                assert!(texts.iter().all(|text| text.ends_with(&format!("boom in {name}"))));
            });
        })
    };
    let threads = [one("left"), one("right")];
    for thread in threads {
        thread.join().expect("no failure");
    }
}
