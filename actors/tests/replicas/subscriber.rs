//! One of three processes is at work for a subscriber; the others stand by.

use std::time::Duration;

use actors::commit::StreamEnd;
use actors::event_store::EventStore;
use actors::order::OrderId;
use actors::subscriber::SubscriberState;
use actors::testing::commits::{commit, group};
use tokio::time::{Instant, sleep};

use super::process::{LEASE, Process, World};
use super::{run, seeds, until};

/// Commits of as many orders, two events each.
pub(crate) async fn store(world: &World, orders: usize) {
    let commits = (0..orders).map(|_| commit(&StreamEnd::nothing(OrderId::generate()), 2));
    for commit in commits {
        world.memory.append(group([commit])).await;
    }
}

pub(crate) async fn at_work<'a>(world: &World, processes: &'a [Process]) -> &'a Process {
    until("one is at work", || {
        world.active(processes).is_some_and(|active| active.state() == SubscriberState::Running)
    })
    .await;
    world.active(processes).unwrap()
}

pub(crate) fn others<'a>(processes: &'a [Process], one: &Process) -> Vec<&'a Process> {
    processes.iter().filter(|process| process.name != one.name).collect()
}

/// Waits until some effects are performed, and others and transactions are under way.
pub(crate) async fn in_the_middle(world: &World, seed: u64) {
    let performed = usize::try_from(seed).unwrap() * 7 % 100;
    until("some are performed", || world.diary.performed.lock().unwrap().len() > performed).await;
    sleep(Duration::from_micros(seed * 731 % 10_000)).await;
}

#[test]
fn one_is_at_work_and_the_others_stand_by_and_say_where_it_is() {
    run(async {
        let (world, processes) = World::with_three(1);
        store(&world, 50).await;
        world.settle(&processes).await;
        let active = at_work(&world, &processes).await;
        for other in others(&processes, active) {
            let status = other.tally.status();
            assert_eq!((status.state, status.active_in.as_deref()), (SubscriberState::Standby, Some(active.name)));
            assert_eq!((status.position, status.behind, status.effects_waiting), (None, None, None));
            assert_eq!(status.applied, 0);
        }
        sleep(Duration::from_secs(3_600)).await;
        assert_eq!(world.inbox.holders().len(), 1, "nobody else has begun a term in an hour");
        let order = world.memory.commits()[0].order();
        for process in &processes {
            assert_eq!(process.tally.effects(order).await.unwrap().len(), 2);
        }
        world.check();
    });
}

#[test]
fn when_it_is_killed_another_takes_over_when_the_lease_ends() {
    run(async {
        let (world, mut processes) = {
            let (world, processes) = World::with_three(1);
            (world, Vec::from(processes))
        };
        store(&world, 50).await;
        world.settle(&processes).await;
        let name = at_work(&world, &processes).await.name;
        let place = processes.iter().position(|process| process.name == name).unwrap();
        processes.remove(place).kill().await;
        let since = Instant::now();
        store(&world, 50).await;
        world.settle(&processes).await;
        assert!(since.elapsed() < LEASE + Duration::from_secs(2), "{:?}", since.elapsed());
        world.check();
    });
}

#[test]
fn when_it_ends_in_order_another_takes_over_at_once_and_nothing_is_performed_twice() {
    for seed in seeds(10) {
        run(async {
            let (world, processes) = World::with_three(seed);
            let first = at_work(&world, &processes).await;
            store(&world, 200).await;
            if seed > 0 {
                in_the_middle(&world, seed).await;
            }
            let since = Instant::now();
            first.stop().await;
            let took = since.elapsed();
            assert!(took < Duration::from_secs(1), "{took:?}");
            until("another is at work", || world.active(&processes).is_some_and(|now| now.name != first.name)).await;
            assert!(since.elapsed() < took + Duration::from_secs(2), "{:?}", since.elapsed());
            world.settle(&processes).await;
            world.check();
            assert_eq!(world.diary.performed.lock().unwrap().len(), 400, "what was under way had its outcome stored");
        });
    }
}

#[test]
fn when_it_is_restarted_it_goes_on_at_once_in_the_same_process() {
    run(async {
        let (world, processes) = World::with_three(1);
        let active = at_work(&world, &processes).await;
        store(&world, 50).await;
        let since = Instant::now();
        active.node.find("docket/subscribers/tally").unwrap().handle().unwrap().restart();
        world.settle(&processes).await;
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
        let holders = world.inbox.holders();
        assert!(holders.len() > 1 && holders.iter().all(|holder| holder.as_deref() == Some(active.name)));
        assert_eq!(active.tally.status().applied, 100, "counted on over its lives");
        world.check();
    });
}

#[test]
fn frozen_and_thawed_after_another_took_over_it_writes_and_performs_nothing() {
    for seed in seeds(30) {
        run(async {
            let (world, processes) = World::with_three(seed);
            let first = at_work(&world, &processes).await;
            store(&world, 300).await;
            in_the_middle(&world, seed).await;
            first.freeze();
            until("another is at work", || world.active(&processes).is_some_and(|now| now.name != first.name)).await;
            store(&world, 100).await;
            if seed % 2 == 0 {
                world.settle(&processes).await;
            }
            first.thaw();
            until("it stands by", || first.state() == SubscriberState::Standby).await;
            world.settle(&processes).await;
            world.check();
            let restarts = first.node.find("docket/subscribers/tally").unwrap().view().restarts_total;
            assert_eq!(restarts, 0, "to be deposed is no failure");
        });
    }
}

#[test]
fn cut_off_from_its_store_it_performs_nothing_once_the_lease_is_over_and_goes_on_when_nobody_took_it() {
    run(async {
        let world = World::new(1);
        let alone = [world.start("a")];
        until("it is at work", || alone[0].state() == SubscriberState::Running).await;
        store(&world, 100).await;
        in_the_middle(&world, 5).await;
        alone[0].freeze();
        sleep(LEASE * 3).await;
        alone[0].thaw();
        world.settle(&alone).await;
        world.check();
        assert_eq!(world.inbox.holders().len(), 1, "the same term, held again");
    });
}

#[test]
fn told_to_rest_through_any_process_it_rests_and_whoever_takes_over_as_well() {
    run(async {
        let (world, processes) = World::with_three(1);
        let active = at_work(&world, &processes).await;
        let standby = others(&processes, active)[0];
        standby.tally.pause(true).await.unwrap();
        until("it rests", || active.state() == SubscriberState::Paused).await;
        store(&world, 5).await;
        until("it has seen them", || active.tally.status().behind == Some(10)).await;
        active.stop().await;
        until("another is at work", || world.active(&processes).is_some_and(|now| now.name != active.name)).await;
        let next = world.active(&processes).unwrap();
        until("it rests too", || next.state() == SubscriberState::Paused).await;
        // Told by way of one that had been told something else long ago.
        others(&processes, next)
            .into_iter()
            .find(|other| other.name != active.name)
            .unwrap()
            .tally
            .pause(false)
            .await
            .unwrap();
        world.settle(&processes).await;
        world.check();
    });
}

#[test]
fn an_old_word_does_not_outlive_a_newer_one_that_was_given_elsewhere() {
    run(async {
        let (world, processes) = World::with_three(1);
        let active = at_work(&world, &processes).await;
        let [one, other] = others(&processes, active)[..] else { panic!("two stand by") };
        one.tally.pause(true).await.unwrap();
        until("it rests", || active.state() == SubscriberState::Paused).await;
        other.tally.pause(false).await.unwrap();
        until("it goes on", || active.state() == SubscriberState::Running).await;
        other.stop().await;
        active.stop().await;
        until("the last one is at work", || one.state() == SubscriberState::Running).await;
    });
}

/// Leases end before their time when the server's clock jumps: two processes are at work for a moment, and the term of the
/// second is the one that counts.
#[test]
fn when_the_servers_clock_jumps_nothing_is_counted_twice_or_lost() {
    let mut taken_over = 0;
    for seed in seeds(10) {
        taken_over += run(async {
            let (world, processes) = World::with_three(seed);
            at_work(&world, &processes).await;
            for _ in 0..10 {
                store(&world, 30).await;
                sleep(Duration::from_millis(300)).await;
                // It has nothing to do and does not renew so soon: whoever asks first may have it.
                world.inbox.jump(Duration::from_secs(60));
                sleep(Duration::from_millis(500)).await;
                store(&world, 30).await;
                sleep(Duration::from_millis(700)).await;
            }
            world.settle(&processes).await;
            world.diary.without_lease.lock().unwrap().clear();
            world.check();
            world.inbox.holders().len() - 1
        });
    }
    assert!(taken_over > 5, "{taken_over}");
}
