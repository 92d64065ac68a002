//! Effects are performed in order for each order, and no order waits for another's, whatever becomes of it.

use actors::inbox::{EffectOutcome, Lane, Which};
use tokio::time::Instant;

use super::*;

impl World {
    fn fail_to_perform(&self, order: OrderId, version: u32, wrong: Wrong) {
        self.diary.performing.lock().unwrap().insert((order, Version(version)), (FOR_EVER, wrong));
    }

    fn performed(&self, order: OrderId) -> Vec<u32> {
        let performed = self.diary.performed.lock().unwrap();
        performed.iter().filter(|(other, _)| *other == order).map(|(_, version)| version.0).collect()
    }

    fn row(&self, order: OrderId) -> Row {
        self.inbox.rows_now(&[order]).pop().unwrap_or_else(|| Row::new(order))
    }

    fn performing_is(&self, order: OrderId, state: HoldState) -> bool {
        self.row(order).performing.hold().is_some_and(|hold| hold.state == state)
    }

    /// An order whose second effect is a dead letter, with more events than effects may wait; and another one.
    async fn with_a_dead_effect(&mut self) -> (OrderId, OrderId, Running) {
        self.inbox = self.inbox.of_process("a", Duration::from_secs(10));
        let (bad, good) = (self.store(None, 3).await, self.store(None, 3).await);
        self.fail_to_perform(bad, 2, Wrong::Fails);
        let running = self.start(Settings { effects_max: 4, ..Settings::default() });
        until("the effect is a dead letter", || self.performing_is(bad, HoldState::Dead)).await;
        for _ in 0..10 {
            self.store(Some(bad), 1).await;
            self.store(Some(good), 1).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert_eq!(self.performed(bad), [1], "nothing overtakes it, and nobody performs it");
        let row = self.row(bad);
        assert_eq!(
            (row.applied, row.seen, row.effects_waiting),
            (Version(5), Version(13), 4),
            "its events wait for room"
        );
        assert!(self.is_applied(good) && self.performed(good).len() == 13);
        (bad, good, running)
    }
}

#[test]
fn effects_that_hang_keep_no_other_order_waiting() {
    run(async {
        let mut world = World::new(1);
        let mut hanging = Vec::new();
        for n in 0..600 {
            let order = world.store(None, 2).await;
            if n % 20 == 0 {
                world.fail_to_perform(order, 1, Wrong::Hangs);
                hanging.push(order);
            }
        }
        let running = world.start(Settings::default());
        let began = Instant::now();
        let others: Vec<_> = world.ends.keys().copied().filter(|order| !hanging.contains(order)).collect();
        until("those of all others are performed", || others.iter().all(|order| world.performed(*order) == [1, 2]))
            .await;
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        world.diary.performing.lock().unwrap().clear();
        world.settle(&running).await;
        world.check();
        running.stop().await;
    });
}

#[test]
fn a_dead_effect_holds_what_is_behind_it_until_it_is_retried_and_its_events_once_too_many_wait() {
    run(async {
        let mut world = World::new(1);
        let (bad, _, running) = world.with_a_dead_effect().await;
        world.diary.performing.lock().unwrap().clear();
        let retry = |row: &mut Row, _: &mut Transaction| {
            let Lane::Held(hold) = &mut row.performing else { panic!("it is held") };
            (hold.state, hold.attempts, hold.next_attempt_at) = (HoldState::Retrying, 0, Some(hold.since));
        };
        world.operate(bad, retry).await;
        let retried = Instant::now();
        world.settle(&running).await;
        assert!(retried.elapsed() < Duration::from_secs(10), "{:?}", retried.elapsed());
        world.check();
        running.stop().await;
    });
}

#[test]
fn behind_an_effect_that_is_discarded_the_next_one_is_performed() {
    run(async {
        let mut world = World::new(1);
        let (bad, _, running) = world.with_a_dead_effect().await;
        let head = world.inbox.effects_now(&[bad], Which::Waiting, 1).remove(0).effect;
        let discard = |row: &mut Row, transaction: &mut Transaction| {
            let outcome = Outcome { kind: OutcomeKind::Discarded, detail: "no".to_owned() };
            let at = Timestamp::from_millis(1_795_000_000_000);
            transaction.outcomes.push(EffectOutcome { order: bad, id: head.id, outcome, at });
            (row.performing, row.performed) = (Lane::Ready, head.version);
            row.effects_waiting -= 1;
        };
        world.operate(bad, discard).await;
        let discarded = Instant::now();
        until("the next ones are performed", || world.performed(bad).len() == 12).await;
        assert!(discarded.elapsed() < Duration::from_secs(10), "{:?}", discarded.elapsed());
        let all: Vec<_> = (1..=13).filter(|version| *version != 2).collect();
        assert_eq!(world.performed(bad), all);
        until("its lane is level", || world.row(bad).applying == Lane::Ready).await;
        running.stop().await;
    });
}
