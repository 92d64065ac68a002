//! What an operator says by way of any process is obeyed within a second where the subscriber is active.

use std::sync::Arc;
use std::time::Duration;

use actors::clock::Timestamp;
use actors::inbox::{Attempt, Committed, Failure, Hold, HoldState, Inbox, Lane, Row, RowWrite, Transaction};
use actors::subscriber::SubscriberState;
use tokio::time::{Instant, sleep};

use super::process::{LEASE, World};
use super::subscriber::{at_work, others, store};
use super::{run, seeds, until};

const OBEYED_WITHIN: Duration = Duration::from_secs(1);

#[test]
fn told_to_rest_and_to_go_on_by_way_of_a_process_that_stands_by_it_obeys_within_a_second() {
    for seed in seeds(10) {
        run(async {
            let (world, processes) = World::with_three(seed);
            let active = at_work(&world, &processes).await;
            let standby = others(&processes, active)[0];
            store(&world, 50).await;
            for round in 0..6 {
                sleep(Duration::from_millis(seed * 37 + round * 211)).await;
                let paused = round % 2 == 0;
                standby.tally.pause(paused).await.unwrap();
                // Said twice it is the same.
                standby.tally.pause(paused).await.unwrap();
                let since = Instant::now();
                until("it obeys", || (active.state() == SubscriberState::Paused) == paused).await;
                assert!(since.elapsed() < OBEYED_WITHIN, "{:?}", since.elapsed());
                store(&world, 5).await;
            }
            world.settle(&processes).await;
            world.check();
        });
    }
}

#[test]
fn where_it_is_active_it_obeys_before_the_answer() {
    run(async {
        let (world, processes) = World::with_three(1);
        let active = at_work(&world, &processes).await;
        for paused in [true, true, false, false, true, false] {
            active.tally.pause(paused).await.unwrap();
            assert_eq!(active.state() == SubscriberState::Paused, paused);
        }
    });
}

#[test]
fn paused_it_sees_what_the_broker_brings_acknowledges_it_and_handles_none_of_it() {
    run(async {
        let (world, processes) = World::with_three_and_a_broker(1);
        let broker = world.broker.clone().unwrap();
        let active = at_work(&world, &processes).await;
        others(&processes, active)[0].tally.pause(true).await.unwrap();
        until("it rests", || active.state() == SubscriberState::Paused).await;
        store(&world, 50).await;
        until("they are seen", || active.tally.status().behind == Some(100)).await;
        until("they are acknowledged", || broker.waiting("tally") + broker.unacknowledged("tally") == 0).await;
        sleep(Duration::from_secs(600)).await;
        assert!(world.inbox.all_rows().iter().all(|row| row.applied.0 == 0 && row.seen.0 == 2));
        assert_eq!((active.tally.status().applied, world.diary.performed.lock().unwrap().len()), (0, 0));
        others(&processes, active)[1].tally.pause(false).await.unwrap();
        world.settle(&processes).await;
        world.check();
    });
}

/// A lane that an operator makes due, in a process where the subscriber is not active.
#[test]
fn what_an_operator_changes_by_way_of_another_process_is_tried_within_a_second() {
    run(async {
        let (world, processes) = World::with_three(1);
        let active = at_work(&world, &processes).await;
        store(&world, 1).await;
        world.settle(&processes).await;
        let inbox = world.inbox.of_process("another", LEASE);
        let row = world.inbox.all_rows().remove(0);
        let (seen, applied) = (row.seen, row.applied);
        // As if its second event had been given up.
        let mut hold = Hold::new(HoldState::Dead, Timestamp::from_millis(0), None);
        hold.keep(Attempt { at: Timestamp::from_millis(0), failure: Failure::transient("no") });
        let dead = Row { applying: Lane::Held(Box::new(hold)), ..row };
        let written = commit(&inbox, dead).await;
        assert_eq!(written, Committed::Written);
        sleep(Duration::from_secs(60)).await;
        let row = world.inbox.all_rows().remove(0);
        assert_eq!(row.applying.hold().map(|hold| hold.state), Some(HoldState::Dead), "nobody tries it by itself");
        let hold = Hold::new(HoldState::Retrying, Timestamp::from_millis(0), Some(Timestamp::from_millis(0)));
        assert_eq!(commit(&inbox, Row { applying: Lane::Held(Box::new(hold)), ..row }).await, Committed::Written);
        let since = Instant::now();
        until("it is through", || world.inbox.all_rows()[0].applying.is_ready()).await;
        assert!(since.elapsed() < OBEYED_WITHIN, "{:?}", since.elapsed());
        let row = world.inbox.all_rows().remove(0);
        assert_eq!((row.seen, row.applied, active.tally.status().state), (seen, applied, SubscriberState::Running));
        world.check();
    });
}

async fn commit(inbox: &impl Inbox, row: Row) -> Committed {
    let mut transaction = Transaction::of_operator(&inbox.present().await.unwrap());
    transaction.rows.push(RowWrite { was_written_by: row.written_by, row });
    inbox.commit(Arc::new(transaction)).await.unwrap()
}
