//! One of three processes consumes, and a broker brings what it has not acknowledged to the next.

use std::time::Duration;

use actors::subscriber::{QueueState, SubscriberState};
use actors::testing::broker::MemoryBroker;
use tokio::time::sleep;

use super::process::{Process, World};
use super::subscriber::{at_work, in_the_middle, store};
use super::{run, seeds, until};

const TALLY: &str = "tally";

fn start(seed: u64) -> (World, Vec<Process>, MemoryBroker) {
    let (world, processes) = World::with_three_and_a_broker(seed);
    let broker = world.broker.clone().unwrap();
    (world, Vec::from(processes), broker)
}

fn queue_state(process: &Process) -> QueueState {
    process.tally.status().queue.unwrap().state
}

/// Nothing is left anywhere, and everything counted once.
async fn settle(world: &World, processes: &[Process], broker: &MemoryBroker) {
    world.settle(processes).await;
    until("everything is acknowledged", || broker.waiting(TALLY) + broker.unacknowledged(TALLY) == 0).await;
    world.check();
}

#[test]
fn only_the_process_at_work_consumes() {
    run(async {
        let (world, processes, broker) = start(1);
        let active = at_work(&world, &processes).await;
        until("it consumes", || queue_state(active) == QueueState::Consuming).await;
        store(&world, 100).await;
        settle(&world, &processes, &broker).await;
        for other in processes.iter().filter(|process| process.name != active.name) {
            assert_eq!((other.state(), queue_state(other)), (SubscriberState::Standby, QueueState::Idle));
        }
        assert_eq!((broker.connections().1, active.tally.status().missed), (1, 0));
        let first = active.name;
        active.stop().await;
        until("another consumes", || {
            processes.iter().any(|process| process.name != first && queue_state(process) == QueueState::Consuming)
        })
        .await;
        assert_eq!(broker.connections().1, 1);
        store(&world, 100).await;
        settle(&world, &processes, &broker).await;
    });
}

#[test]
fn what_a_killed_process_had_in_its_hands_is_brought_to_the_next() {
    for seed in seeds(10) {
        run(async {
            let (world, mut processes, broker) = start(seed);
            let name = at_work(&world, &processes).await.name;
            store(&world, 200).await;
            in_the_middle(&world, seed).await;
            let place = processes.iter().position(|process| process.name == name).unwrap();
            processes.remove(place).kill().await;
            store(&world, 50).await;
            settle(&world, &processes, &broker).await;
        });
    }
}

/// Its connection lives on, with all that it may have in its hands, or the broker gives it up after a while.
#[test]
fn frozen_with_its_hands_full_while_another_drains_it_counts_nothing_twice_and_holds_nothing_up() {
    for seed in seeds(20) {
        run(async {
            let (world, processes, broker) = start(seed);
            let first = at_work(&world, &processes).await;
            store(&world, 300).await;
            in_the_middle(&world, seed).await;
            first.freeze();
            until("another is at work", || world.active(&processes).is_some_and(|now| now.name != first.name)).await;
            store(&world, 100).await;
            if seed % 2 == 0 {
                sleep(Duration::from_secs(seed)).await;
                broker.disconnect();
            }
            if seed % 4 < 2 {
                world.settle(&processes).await;
            }
            first.thaw();
            until("it stands by", || first.state() == SubscriberState::Standby).await;
            settle(&world, &processes, &broker).await;
            let restarts = first.node.find("docket/subscribers/tally").unwrap().view().restarts_total;
            assert_eq!(restarts, 0, "to be deposed is no failure");
        });
    }
}

#[test]
fn cut_off_from_its_store_it_gives_the_queue_up_to_whoever_takes_over() {
    run(async {
        let (world, processes, broker) = start(1);
        let first = at_work(&world, &processes).await;
        until("it consumes", || queue_state(first) == QueueState::Consuming).await;
        first.fate.set(actors::testing::faulty::Faults { error: 1.0, ..Default::default() });
        until("another consumes", || {
            processes.iter().any(|process| process.name != first.name && queue_state(process) == QueueState::Consuming)
        })
        .await;
        until("it does not any more", || queue_state(first) == QueueState::Idle && broker.connections().1 == 1).await;
        store(&world, 100).await;
        settle(&world, &processes, &broker).await;
    });
}
