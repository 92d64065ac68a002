//! What the store hears of an end: that it was in order, when it was, and nothing after a failure.

use super::*;

/// Whether whoever begins next has to be careful.
fn is_unclean(world: &World) -> bool {
    world.inbox.begin_now().unclean
}

#[test]
fn asked_to_end_it_says_so_in_its_store_also_where_there_is_no_lease() {
    run(async {
        let mut world = World::new(1);
        assert!(!is_unclean(&World::new(2)), "one that has never begun cannot have crashed");
        for _ in 0..3 {
            world.store(None, 3).await;
            let running = world.start(Settings::default());
            world.settle(&running).await;
            running.stop().await;
        }
        assert!(!is_unclean(&world));
    });
}

#[test]
fn what_takes_too_long_is_dropped_at_the_end_and_that_is_an_end_in_order_too() {
    run(async {
        let mut world = World::new(1);
        let order = world.store(None, 1).await;
        world.diary.handling.lock().unwrap().insert((order, Version(1)), (1, Wrong::Hangs));
        let running = world.start(Settings::default());
        until("it is being handled", || world.diary.handling.lock().unwrap().values().all(|(left, _)| *left == 0))
            .await;
        running.stop().await;
        assert!(!is_unclean(&world));
    });
}

#[test]
fn after_a_failure_nothing_says_that_it_ended_in_order() {
    run(async {
        let mut world = World::new(1);
        world.store(None, 3).await;
        let running = world.start(Settings::default());
        world.settle(&running).await;
        // As after a panic: what it did is dropped, and it begins anew.
        running.restart();
        let term_before = world.inbox.holders().len();
        until("it has begun anew", || world.inbox.holders().len() > term_before).await;
        assert!(is_unclean(&world));
        running.stop().await;
    });
}
