//! What is too large to be stored makes a dead letter of its own event, and keeps nothing else out of the store.

use actors::inbox::{FailureKind, Lane, Which};

use super::*;

#[test]
fn what_is_too_large_for_the_store_holds_its_order_alone() {
    run(async {
        let mut world = World::new(1);
        // So that it looks for what operators did.
        world.inbox = world.inbox.of_process("a", Duration::from_secs(10));
        let mut bad = Vec::new();
        for large in [Large::Document, Large::Effect] {
            world.store(None, 3).await;
            let order = world.store(None, 3).await;
            world.diary.swelling.lock().unwrap().insert((order, Version(2)), (FOR_EVER, large));
            bad.push((order, large));
        }
        let good = world.store(None, 3).await;
        let running = world.start(Settings::default());
        let is_dead = |order: &OrderId| {
            let row = world.inbox.rows_now(&[*order]).pop();
            row.is_some_and(|row| row.applying.hold().is_some_and(|hold| hold.state == HoldState::Dead))
        };
        until("they are dead letters", || bad.iter().all(|(order, _)| is_dead(order))).await;
        for (order, large) in &bad {
            let row = world.inbox.rows_now(&[*order]).remove(0);
            let hold = row.applying.hold().unwrap();
            let failure = hold.failure().unwrap();
            assert_eq!((row.applied, hold.attempts, failure.kind), (Version(1), 1, FailureKind::Permanent));
            let what = match large {
                Large::Document => format!("document large/{order}: it has 8388610 bytes"),
                Large::Effect => "effect 1: it has 8388610 bytes".to_owned(),
            };
            assert!(failure.text.starts_with(&what) && failure.text.contains("more than the 8388608"), "{failure}");
            assert_eq!(world.document(*order), [1], "nothing of it is kept");
            assert_eq!(world.inbox.effects_now(&[*order], Which::All, 10).len(), 1);
        }
        // The others go on, also those that come now.
        let late = world.store(None, 2).await;
        world.store(Some(good), 2).await;
        let held: Vec<_> = bad.iter().map(|(order, _)| *order).collect();
        let others: Vec<_> = world.ends.keys().copied().filter(|order| !held.contains(order)).collect();
        assert!(others.contains(&late));
        until("all others are applied", || others.iter().all(|order| world.is_applied(*order))).await;
        world.diary.swelling.lock().unwrap().clear();
        for order in held {
            let retry = |row: &mut Row, _: &mut Transaction| {
                let Lane::Held(hold) = &mut row.applying else { panic!("it is held") };
                (hold.state, hold.attempts, hold.next_attempt_at) = (HoldState::Retrying, 0, Some(hold.since));
            };
            world.operate(order, retry).await;
        }
        world.settle(&running).await;
        world.check();
        running.stop().await;
    });
}
