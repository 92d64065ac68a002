//! The relay on virtual time and one thread, in one or two processes, over a log, a broker and checkpoints in memory with
//! faults on purpose. Whatever fails, every event is handed to the broker until it is taken, those of an order first in
//! order, and no checkpoint that is stored lies beyond what was taken.

#![expect(clippy::unwrap_used, reason = "tests")]

mod process;

use std::sync::Arc;
use std::time::Duration;

use actors::bridge::relay::RelayState;
use actors::checkpoint::Checkpoint;
use actors::clock::Timestamp;
use actors::log::{From, Log, LogId};
use actors::testing::broker::Faults as BrokerFaults;
use actors::testing::faulty::Faults;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use process::{LEASE, Process, World};

/// Runs on one thread with tokio's clock paused.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    actix_rt::System::with_tokio_rt(runtime).block_on(test)
}

/// How many seeds a test tries.
fn seeds(few: u64) -> std::ops::Range<u64> {
    0..if std::env::var_os("DOCKET_TEST_LONG").is_some() { few * 50 } else { few }
}

/// Waits for up to ten minutes of virtual time.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("waited ten minutes and in vain until {what}");
}

async fn active(process: &Process) {
    until("it publishes", || process.state() == RelayState::Publishing).await;
}

#[test]
fn the_first_relay_begins_at_the_end_and_stores_that_at_once() {
    run(async {
        let world = World::new(1);
        let old = world.write(0);
        let process = world.start("a");
        active(&process).await;
        assert_eq!(world.checkpoints.stored().last().map(|last| last.position.commit), Some(Some(old)));
        world.write(1);
        world.all_published_since(1).await;
        until("it is said", || process.relay.status().published > 0).await;
        let status = process.relay.status();
        assert_eq!((status.published, status.unroutable), (1, 1), "nobody has declared a queue");
        assert_eq!(status.lag(Timestamp::from_millis(i64::MAX)), Duration::ZERO);
        until("it is stored", || world.last_stored() == 2).await;
        process.stop().await;
        assert_eq!((world.broker.taken().len(), process.state()), (1, RelayState::Stopped));
    });
}

#[test]
fn everything_is_published_in_order_whatever_fails() {
    for seed in seeds(30) {
        run(turmoil(seed));
    }
}

async fn turmoil(seed: u64) {
    let world = World::new(seed);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut processes = vec![world.start("a"), world.start("b")];
    until("one is active", || world.last_stored_is_there()).await;
    let delay_max = Duration::from_millis(20);
    let late_max = Duration::from_secs(2);
    let faults = Faults { error: 0.02, unknown: 0.1, delay_max, late_max };
    processes.iter().for_each(|process| process.fate.set(faults));
    let (broken, silent) = (0.05, 0.02);
    world.broker.set(BrokerFaults { broken, silent, delay_max, late_max, ..BrokerFaults::default() });
    for _ in 0..150 {
        for _ in 0..rng.random_range(0..4) {
            world.write(rng.random_range(0..5));
        }
        let one = rng.random_range(0..processes.len());
        match rng.random_range(0..16) {
            0 => world.broker.disconnect(),
            1 => world.broker.set_away(true),
            2 | 3 => world.broker.set_away(false),
            4 => world.broker.block(Some("no memory")),
            5 | 6 => world.broker.block(None),
            7 | 8 => processes[one].freeze(),
            9 | 10 => processes[one].thaw(),
            11 => {
                let process = processes.swap_remove(one);
                let name = process.name;
                if rng.random_bool(0.5) {
                    process.kill().await
                } else {
                    process.stop().await
                }
                let process = world.start(name);
                process.fate.set(faults);
                processes.push(process);
            }
            _ => {}
        }
        sleep(Duration::from_secs(3).mul_f64(rng.random())).await;
    }
    world.broker.set(BrokerFaults::default());
    world.broker.set_away(false);
    world.broker.block(None);
    for process in &processes {
        process.fate.set(Faults::default());
        process.thaw();
    }
    world.all_published_since(0).await;
    until("the place behind it is stored", || world.last_stored() == world.memory.commits().len()).await;
    world.check();
}

#[test]
fn killed_between_any_two_steps_it_skips_nothing() {
    run(async {
        for polls in 0..150 {
            let world = World::new(polls);
            world.broker.set(BrokerFaults { delay_max: Duration::from_millis(5), ..BrokerFaults::default() });
            world.store_the_beginning().await;
            for order in [0, 1, 0, 0, 1] {
                world.write(order);
            }
            let delays = Faults { delay_max: Duration::from_millis(5), ..Faults::default() };
            let first = world.start_for("a", polls);
            first.fate.set(delays);
            first.ended().await;
            world.write(1);
            let second = world.start("b");
            world.all_published_since(0).await;
            world.check();
            second.stop().await;
        }
    });
}

#[test]
fn one_that_was_frozen_finds_another_at_work_and_stands_by() {
    run(async {
        let world = World::new(3);
        let (one, other) = (world.start("a"), world.start("b"));
        until("one is active", || world.last_stored_is_there()).await;
        let (active, standby) =
            if world.checkpoints.holder().as_deref() == Some("a") { (&one, &other) } else { (&other, &one) };
        until("it is known elsewhere", || standby.relay.status().active_in.as_deref() == Some(active.name)).await;
        active.freeze();
        sleep(LEASE * 2).await;
        until("another takes over", || standby.state() == RelayState::Publishing).await;
        for order in 0..50 {
            world.write(order % 3);
        }
        active.thaw();
        until("it stands by", || active.state() == RelayState::Standby).await;
        assert_eq!(active.relay.status().active_in.as_deref(), Some(standby.name));
        world.all_published_since(0).await;
        world.check();
        assert!(active.failures().is_empty(), "that is no failure: {:?}", active.failures());
    });
}

#[test]
fn one_that_stops_leaves_at_once_and_with_its_place_stored() {
    run(async {
        let world = World::new(4);
        let one = world.start("a");
        active(&one).await;
        let other = world.start("b");
        until("the other one stands by", || other.state() == RelayState::Standby).await;
        world.write(0);
        world.all_published_since(0).await;
        one.stop().await;
        assert_eq!(world.last_stored(), 1);
        let stopped = Instant::now();
        active(&other).await;
        assert!(stopped.elapsed() < LEASE / 2, "{:?}", stopped.elapsed());
        assert_eq!(world.broker.handed().len(), 1, "nothing came twice");
    });
}

#[test]
fn a_broker_that_takes_nothing_is_waited_for_and_said() {
    run(async {
        let world = World::new(5);
        let process = world.start("a");
        active(&process).await;
        world.broker.block(Some("low on memory"));
        until("it is said", || process.state() == RelayState::Blocked).await;
        world.write(0);
        sleep(Duration::from_secs(3_600)).await;
        let status = process.relay.status();
        assert_eq!((status.state, status.trouble.as_deref()), (RelayState::Blocked, Some("low on memory")));
        let recorded_at = world.memory.commits()[0].recorded_at();
        assert_eq!(status.lag(recorded_at.after(Duration::from_secs(7))), Duration::from_secs(7));
        world.broker.block(None);
        world.all_published_since(0).await;
        assert_eq!(world.broker.handed().len(), 1);
        assert!(process.failures().is_empty(), "{:?}", process.failures());
    });
}

#[test]
fn a_broker_that_is_away_or_silent_is_a_failure_that_is_tried_again_for_ever() {
    run(async {
        let world = World::new(6);
        let process = world.start("a");
        active(&process).await;
        world.broker.set(BrokerFaults { silent: 1.0, ..BrokerFaults::default() });
        world.write(0);
        until("no answer is a failure", || process.state() == RelayState::BrokerAway).await;
        world.broker.set_away(true);
        sleep(Duration::from_secs(3_600)).await;
        assert_eq!(process.state(), RelayState::BrokerAway);
        assert!(process.relay.status().trouble.is_some());
        let failures = process.failed_times();
        assert!((100..2_000).contains(&failures), "{failures} failures in an hour");
        world.broker.set(BrokerFaults::default());
        world.broker.set_away(false);
        let away_no_more = Instant::now();
        world.all_published_since(0).await;
        assert!(away_no_more.elapsed() <= Duration::from_secs(11), "{:?}", away_no_more.elapsed());
    });
}

#[test]
fn a_lost_position_costs_what_was_recorded_since_an_hour_before() {
    const RECORDED: i64 = 1_795_000_000_000;
    for (ahead, published) in [(30, true), (59, true), (61, false), (600, false)] {
        run(async {
            let world = World::new(7);
            let position = world.memory.follow(From::Now).await.unwrap().position();
            for order in 0..700 {
                world.write(order);
            }
            let lost = actors::log::Position { log: LogId(Uuid::now_v7()), ..position };
            let recorded_at = Timestamp::from_millis(RECORDED + ahead * 60_000);
            world.checkpoints.replace(Some(Checkpoint { position: lost, recorded_at }));
            world.unpublished(if published { 0 } else { 700 });
            let process = world.start("a");
            until("the place is stored", || world.last_stored() == 700).await;
            world.write(1);
            world.all_published_since(700).await;
            assert_eq!(world.broker.taken().len(), if published { 701 } else { 1 }, "{ahead} minutes");
            world.check();
            process.stop().await;
        });
    }
}

#[test]
fn a_position_that_moves_without_commits_is_stored() {
    run(async {
        let world = World::new(8);
        let log = Arc::new(process::Moving::new(world.memory.clone()));
        let process = world.start_on("a", log.clone());
        active(&process).await;
        let before = world.checkpoints.stored().len();
        log.move_on();
        until("it is stored", || world.checkpoints.stored().last().is_some_and(|last| last.position.token == "moved"))
            .await;
        assert_eq!(world.checkpoints.stored().len(), before + 1);
        assert!(world.broker.handed().is_empty());
    });
}

#[test]
fn an_exchange_of_another_kind_is_said_and_left_alone_until_it_is_mended() {
    run(async {
        let world = World::new(7);
        world.broker.set_foreign_exchange(true);
        let process = world.start("a");
        until("it is said", || process.state() == RelayState::Mismatch).await;
        world.write(0);
        sleep(Duration::from_secs(3_600)).await;
        let status = process.relay.status();
        assert!(status.trouble.is_some_and(|said| said.contains("delete it")), "{:?}", status.state);
        assert!(process.failures().is_empty(), "it does not loop: {:?}", process.failures());
        assert!(world.checkpoints.stored().len() <= 130, "{}", world.checkpoints.stored().len());
        world.broker.set_foreign_exchange(false);
        world.all_published_since(0).await;
        world.broker.set_foreign_exchange(true);
        world.broker.disconnect_publishers();
        world.write(0);
        until("it is said again", || process.state() == RelayState::Mismatch).await;
        process.stop().await;
        assert_eq!(process.state(), RelayState::Stopped);
    });
}

#[test]
fn a_slow_broker_has_its_time_for_each_part_of_a_batch() {
    run(async {
        let world = World::new(8);
        let process = world.start("a");
        active(&process).await;
        // Each part has two such delays, and there are more than ten parts.
        world.broker.set(BrokerFaults { delay_max: Duration::from_secs(14), ..BrokerFaults::default() });
        for _ in 0..200 {
            world.write(0);
        }
        world.all_published_since(0).await;
        assert!(process.failures().is_empty(), "{:?}", process.failures());
    });
}
