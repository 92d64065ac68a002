//! Handlers that take long hold their own order and no other, and lose nothing of what others do meanwhile.

use actors::inbox::{Discard, Hold, Lane};
use tokio::time::Instant;

use super::*;

impl World {
    fn hang(&self, order: OrderId, version: u32) {
        self.diary.handling.lock().unwrap().insert((order, Version(version)), (FOR_EVER, Wrong::Hangs));
    }

    fn dawdle(&self, order: OrderId, version: u32, times: u32, time: Duration) {
        self.diary.dawdling.lock().unwrap().insert((order, Version(version)), (times, time));
    }

    fn mend(&self) {
        self.diary.handling.lock().unwrap().clear();
    }

    fn all_are_applied_but(&self, slow: &[OrderId]) -> bool {
        self.ends.keys().filter(|order| !slow.contains(order)).all(|order| self.is_applied(*order))
    }
}

#[test]
fn a_handler_that_hangs_among_a_thousand_orders_keeps_none_of_the_others_waiting() {
    run(async {
        let mut world = World::new(1);
        let mut bad = Vec::new();
        for n in 0..1_000 {
            let order = world.store(None, 3).await;
            if n % 250 == 0 {
                world.hang(order, 2);
                bad.push(order);
            }
        }
        let running = world.start(Settings::default());
        let began = Instant::now();
        until("all others are applied", || world.all_are_applied_but(&bad)).await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        // Nor do those that come while it hangs, now and at its next attempts.
        for _ in 0..200 {
            let order = world.store(None, 2).await;
            world.store(Some(bad[0]), 1).await;
            let came = Instant::now();
            until("what came is applied", || world.is_applied(order)).await;
            assert!(came.elapsed() < Duration::from_millis(1_500), "{:?}", came.elapsed());
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        assert!(world.all_are_applied_but(&bad));
        for order in &bad {
            let row = world.inbox.rows_now(&[*order]).remove(0);
            let hold = row.applying.hold().unwrap();
            assert!(hold.attempts > 0 && row.applied == Version(1), "{row:?}");
            assert!(hold.failure().unwrap().text.contains("longer than 30000 ms"), "{row:?}");
        }
        world.mend();
        world.settle(&running).await;
        world.check();
        running.stop().await;
    });
}

#[test]
fn a_handler_that_takes_long_is_waited_for_by_its_order_alone_and_its_result_is_taken() {
    run(async {
        let mut world = World::new(1);
        let slow = world.store(None, 3).await;
        world.dawdle(slow, 2, 2, Duration::from_secs(10));
        let running = world.start(Settings::default());
        let began = Instant::now();
        until("it is under way", || !world.document(slow).is_empty()).await;
        while began.elapsed() < Duration::from_secs(9) {
            let order = world.store(None, 1).await;
            let came = Instant::now();
            until("it is applied", || world.is_applied(order)).await;
            assert!(came.elapsed() < Duration::from_secs(1), "{:?}", came.elapsed());
            assert_eq!(world.document(slow), [1]);
        }
        world.settle(&running).await;
        assert!(began.elapsed() < Duration::from_secs(12), "once is enough: {:?}", began.elapsed());
        world.check();
        assert_eq!(running.handle.status().retries, 0, "it is no failure");
        running.stop().await;
    });
}

/// All of them write one document, all the time.
#[test]
fn what_others_wrote_while_a_handler_took_long_counts_in_its_result() {
    run(async {
        let mut world = World::new(1);
        world.diary.counting.store(true, Ordering::Relaxed);
        let slow = world.store(None, 3).await;
        world.dawdle(slow, 2, FOR_EVER, Duration::from_secs(1));
        let running = world.start(Settings::default());
        let mut longest = Duration::ZERO;
        while !world.is_applied(slow) {
            let order = world.store(None, 1).await;
            let came = Instant::now();
            until("it is applied", || world.is_applied(order)).await;
            longest = longest.max(came.elapsed());
        }
        assert!(longest >= Duration::from_millis(500), "in the end it was handled within a batch: {longest:?}");
        world.settle(&running).await;
        world.check();
        assert_eq!(world.counted(), world.events());
        running.stop().await;
    });
}

#[test]
fn many_that_take_long_beside_many_that_do_not_count_everything_once() {
    run(async {
        let mut rng = StdRng::seed_from_u64(5);
        let mut world = World::new(5);
        world.diary.counting.store(true, Ordering::Relaxed);
        world.fate.set(Faults {
            error: 0.02,
            unknown: 0.05,
            delay_max: Duration::from_millis(20),
            ..Faults::default()
        });
        let running = world.start(Settings { batch_events_max: 16, lanes_at_once_max: 4, ..Settings::default() });
        for _ in 0..150 {
            let orders: Vec<_> = world.ends.keys().copied().collect();
            let order = (!orders.is_empty() && rng.random_bool(0.7)).then(|| orders[rng.random_range(0..orders.len())]);
            let order = world.store(order, rng.random_range(1..4)).await;
            if rng.random_bool(0.2) {
                let time = Duration::from_millis(rng.random_range(100..2_000));
                world.dawdle(order, world.ends[&order].version().0, rng.random_range(1..9), time);
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..400))).await;
        }
        world.fate.set(Faults::default());
        world.settle(&running).await;
        world.check();
        assert_eq!(world.counted(), world.events());
        running.stop().await;
    });
}

#[test]
fn whoever_begins_after_a_life_that_ended_with_handlers_aside_handles_their_events() {
    run(async {
        let mut world = World::new(1);
        world.diary.counting.store(true, Ordering::Relaxed);
        let slow: Vec<_> = [world.store(None, 3).await, world.store(None, 2).await].into();
        for order in &slow {
            world.dawdle(*order, 2, FOR_EVER, Duration::from_secs(5));
        }
        let running = world.start(Settings::default());
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert!(!slow.iter().any(|order| world.is_applied(*order)));
            running.restart();
        }
        world.settle(&running).await;
        world.check();
        assert_eq!(world.counted(), world.events());
        running.stop().await;
    });
}

#[test]
fn an_order_whose_event_is_discarded_while_its_handler_hangs_goes_on_at_once() {
    run(async {
        let mut world = World::new(1);
        world.inbox = world.inbox.of_process("a", Duration::from_secs(10));
        let bad = world.store(None, 4).await;
        world.hang(bad, 2);
        let running = world.start(Settings::default());
        until("it is aside", || !world.document(bad).is_empty()).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let event = world.memory.commits()[0].envelopes().nth(1).unwrap();
        let discarded = Instant::now();
        let discard = |row: &mut Row, transaction: &mut Transaction| {
            let hold = row.applying.hold().unwrap().clone();
            transaction.discards.push(Discard {
                order: bad,
                version: event.version,
                event: Some(event.id),
                event_type: Some(event.event_type.clone()),
                effect: None,
                reason: "it hangs".to_owned(),
                by: "anonymous".to_owned(),
                at: hold.since,
                hold: hold.clone(),
            });
            (row.applied, row.applied_event) = (event.version, Some(event.id));
            row.applying = Lane::Held(Box::new(Hold::new(HoldState::Gap, hold.since, Some(hold.since))));
        };
        world.operate(bad, discard).await;
        until("it goes on", || world.is_applied(bad)).await;
        assert!(discarded.elapsed() < Duration::from_secs(3), "{:?}", discarded.elapsed());
        // What becomes of the handler means nothing: its event is done with.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(world.document(bad), [1, 3, 4]);
        assert_eq!(world.inbox.rows_now(&[bad]).remove(0).applying, Lane::Ready);
        running.stop().await;
    });
}

#[test]
fn an_order_that_is_retried_while_its_handler_hangs_waits_for_it_and_keeps_its_order() {
    run(async {
        let mut world = World::new(1);
        world.inbox = world.inbox.of_process("a", Duration::from_secs(10));
        let bad = world.store(None, 3).await;
        world.dawdle(bad, 2, 2, Duration::from_secs(8));
        let running = world.start(Settings::default());
        until("it is aside", || !world.document(bad).is_empty()).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let retry = |row: &mut Row, _: &mut Transaction| {
            let Lane::Held(hold) = &mut row.applying else { panic!("it is held") };
            hold.attempts = 0;
        };
        world.operate(bad, retry).await;
        world.settle(&running).await;
        world.check();
        running.stop().await;
    });
}

/// Nobody waits for each of them in turn to find out that it takes long.
#[test]
fn when_all_handlers_take_long_many_run_beside_each_other() {
    run(async {
        let mut world = World::new(1);
        for _ in 0..300 {
            let order = world.store(None, 1).await;
            world.dawdle(order, 1, FOR_EVER, Duration::from_secs(2));
        }
        let running = world.start(Settings::default());
        let began = Instant::now();
        world.settle(&running).await;
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
        world.check();
        running.stop().await;
    });
}
