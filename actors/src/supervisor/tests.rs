//! Supervision as a whole, on one arbiter with tokio's clock paused.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Mutex;

use actix::{AtomicResponse, Handler, MailboxError, Message as ActixMessage, WrapFuture};
use futures_util::FutureExt;
use tokio::task::LocalSet;
use tokio::time::sleep;

use super::child::Quarantine;
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
        assert_eq!((entry.attempt, entry.attempts_max, entry.decision), (1, 5, Decided::Restart));
        assert_eq!(entry.next_try_at, Some(entry.at.after(Duration::from_millis(100))));
    });
}
