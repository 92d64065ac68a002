//! With a broker and a consumer. Messages are published by the tests themselves, so that they can leave some out.

use actors::bridge::consumer;
use actors::broker::{Broker, Message, Subscription};
use actors::subscriber::QueueState;
use actors::testing::broker::{Faults as BrokerFaults, MemoryBroker};

use super::*;

const DIARY: &str = "diary";
const CONSUMER: &str = "docket/consumer/diary";

/// Brings what it takes in order, and forgets nothing by itself.
struct Brought {
    world: World,
    broker: MemoryBroker,
    prefetch: u16,
}

impl Brought {
    fn new(seed: u64) -> Self {
        Self { world: World::new(seed), broker: MemoryBroker::new(seed), prefetch: 64 }
    }

    fn start(&self, settings: Settings) -> Running {
        let subscription = Subscription { subscriber: DIARY, partitions: 1, prefetch: self.prefetch };
        let broker: Arc<dyn Broker> = Arc::new(self.broker.clone());
        self.world.start_from(Source::Broker, settings, |handle| {
            Some(consumer::child(broker, subscription, handle, consumer::Settings::default()))
        })
    }

    /// Stores another commit and gives its messages to the broker.
    async fn publish(&mut self, order: Option<OrderId>, events: usize) -> OrderId {
        let order = self.world.store(order, events).await;
        let last = self.world.memory.commits().pop().unwrap();
        let messages: Vec<_> = last.envelopes().map(|event| Message::of(&event).unwrap()).collect();
        if let Ok(mut publisher) = self.broker.publisher().await {
            // What it does not take is lost.
            drop(publisher.publish(&messages).await);
        }
        order
    }

    async fn consumed(&self, running: &Running) {
        until("the queue is consumed", || queue_state(running) == QueueState::Consuming).await;
    }

    /// Everything is applied, and nothing is left at the broker.
    async fn settle(&self, running: &Running) {
        self.world.settle(running).await;
        until("everything is acknowledged", || self.broker.waiting(DIARY) + self.broker.unacknowledged(DIARY) == 0)
            .await;
        self.world.check();
    }
}

fn queue_state(running: &Running) -> QueueState {
    running.handle.status().queue.unwrap().state
}

#[test]
fn a_message_is_acknowledged_when_what_it_says_is_stored_and_not_before() {
    run(async {
        let mut brought = Brought::new(1);
        let running = brought.start(Settings::default());
        brought.consumed(&running).await;
        let order = brought.publish(None, 1).await;
        brought.settle(&running).await;
        brought.world.fate.set(Faults { error: 1.0, ..Faults::default() });
        brought.publish(Some(order), 2).await;
        brought.publish(None, 2).await;
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert_eq!(brought.broker.unacknowledged(DIARY), 4);
        brought.world.fate.set(Faults::default());
        brought.settle(&running).await;
        assert_eq!(running.handle.status().missed, 0);
        running.stop().await;
        assert_eq!(brought.broker.connections().1, 0);
    });
}

#[test]
fn what_nobody_can_read_is_set_aside_with_the_reason_and_the_rest_goes_on() {
    run(async {
        let mut brought = Brought::new(1);
        let running = brought.start(Settings::default());
        brought.consumed(&running).await;
        for n in 0..30 {
            brought.broker.put(DIARY, format!("no {n}"));
            brought.publish(None, 2).await;
            brought.broker.put(DIARY, r#"{"specversion":"1.0"}"#);
        }
        brought.settle(&running).await;
        let aside = brought.broker.set_aside(DIARY);
        assert_eq!(aside.len(), 60);
        assert!(aside.iter().all(|one| !one.reason.is_empty()));
        assert!(aside.iter().any(|one| one.reason.contains("missing field")), "{:?}", aside.last());
        let status = running.handle.status();
        assert_eq!((status.queue.unwrap().unreadable, status.missed), (60, 0));
        running.stop().await;
    });
}

#[test]
fn while_the_broker_takes_nothing_what_can_be_read_goes_on_and_the_rest_waits() {
    run(async {
        let mut brought = Brought::new(1);
        let running = brought.start(Settings::default());
        brought.consumed(&running).await;
        running.stop().await;
        for n in 0..5 {
            brought.broker.put(DIARY, format!("no {n}"));
            brought.publish(None, 2).await;
        }
        brought.broker.block(Some("low on memory"));
        let running = brought.start(Settings::default());
        let began = tokio::time::Instant::now();
        until("they are handled", || brought.world.everything_is_applied()).await;
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(running.handle.status().missed, 0, "the broker brought them");
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert_eq!(brought.broker.unacknowledged(DIARY), 15, "the first of all is not done with");
        assert!(brought.broker.set_aside(DIARY).is_empty());
        assert_eq!(running.node.find(CONSUMER).unwrap().view().restarts_total, 0, "one connection all the time");
        brought.broker.block(None);
        brought.settle(&running).await;
        assert_eq!(brought.broker.set_aside(DIARY).len(), 5);
        running.stop().await;
    });
}

#[test]
fn what_a_full_queue_lost_is_read_from_the_log() {
    run(async {
        let mut brought = Brought::new(1);
        let running = brought.start(Settings::default());
        brought.consumed(&running).await;
        brought.broker.limit(3);
        brought.broker.disconnect_consumers();
        for _ in 0..20 {
            brought.publish(None, 1).await;
        }
        assert!(brought.broker.waiting(DIARY) <= 3);
        brought.broker.limit(usize::MAX);
        brought.settle(&running).await;
        assert!(running.handle.status().missed > 0, "the queue was full");
        assert!(brought.broker.set_aside(DIARY).is_empty(), "and nothing of it is in the way of what nobody can read");
        running.stop().await;
    });
}

#[test]
fn what_the_subscriber_finishes_when_it_leaves_is_acknowledged() {
    let lines = LogLines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(log);
    let mut finished = 0;
    for seed in 0..20 {
        run(async {
            let mut brought = Brought::new(seed);
            let running = brought.start(Settings::default());
            brought.consumed(&running).await;
            brought.world.fate.set(Faults { delay_max: Duration::from_millis(300), ..Faults::default() });
            brought.publish(None, 1).await;
            until("it was handed out", || brought.broker.unacknowledged(DIARY) == 1).await;
            tokio::time::sleep(Duration::from_millis(20 * seed)).await;
            let under_way = brought.broker.unacknowledged(DIARY) == 1;
            running.stop().await;
            if brought.world.everything_is_applied() {
                finished += u32::from(under_way);
                assert_eq!(brought.broker.waiting(DIARY), 0, "seed {seed}: it would be brought again");
            }
            assert_eq!(brought.broker.connections().1, 0);
        });
    }
    assert!(finished > 0, "none was under way");
    assert!(!lines.text().contains("did not stop in time"), "{}", lines.text());
}

#[test]
fn a_queue_that_is_not_as_it_must_be_is_said_and_left_alone_while_the_log_is_read() {
    run(async {
        let mut brought = Brought::new(1);
        brought.broker.set_foreign(DIARY, true);
        let running = brought.start(Settings::default());
        until("it is said", || queue_state(&running) == QueueState::Mismatch).await;
        let status = running.handle.status();
        assert!(status.trouble.unwrap().contains("delete it"));
        assert_eq!(status.state, SubscriberState::Running);
        brought.publish(None, 3).await;
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert!(brought.world.everything_is_applied());
        assert_eq!(running.node.find(CONSUMER).unwrap().view().restarts_total, 0, "it does not loop");
        brought.broker.set_foreign(DIARY, false);
        brought.consumed(&running).await;
        assert_eq!(running.handle.status().trouble, None);
        brought.publish(None, 3).await;
        brought.settle(&running).await;
        assert_eq!(running.handle.status().missed, 3, "what came before the queue was right");
        running.stop().await;
    });
}

#[test]
fn while_the_broker_is_away_the_log_is_read_a_minute_later_and_afterwards_the_queue_again() {
    run(async {
        let mut brought = Brought::new(1);
        let running = brought.start(Settings::default());
        brought.consumed(&running).await;
        let order = brought.publish(None, 1).await;
        brought.settle(&running).await;
        brought.broker.set_away(true);
        until("it is said", || queue_state(&running) == QueueState::Away).await;
        for _ in 0..10 {
            brought.publish(Some(order), 2).await;
            tokio::time::sleep(Duration::from_secs(65)).await;
            assert!(brought.world.everything_is_applied());
        }
        let status = running.handle.status();
        assert_eq!((status.state, status.missed), (SubscriberState::Running, 20));
        assert!(running.node.find(CONSUMER).unwrap().view().restarts_total > 10, "in the ledger");
        assert_eq!(running.node.find("docket/diary").unwrap().view().restarts_total, 0);
        brought.broker.set_away(false);
        brought.consumed(&running).await;
        brought.publish(Some(order), 1).await;
        brought.settle(&running).await;
        assert_eq!(running.handle.status().missed, 20);
        running.stop().await;
    });
}

#[test]
fn once_the_broker_is_away_for_a_minute_the_log_is_read_as_it_comes() {
    for foreign in [false, true] {
        run(async {
            let mut brought = Brought::new(1);
            brought.broker.set_foreign(DIARY, foreign);
            brought.broker.set_away(!foreign);
            let running = brought.start(Settings::default());
            let state = if foreign { QueueState::Mismatch } else { QueueState::Away };
            until("it is said", || queue_state(&running) == state).await;
            tokio::time::sleep(Duration::from_secs(60)).await;
            for _ in 0..20 {
                brought.publish(None, 2).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert!(brought.world.everything_is_applied());
            }
            assert_eq!(running.handle.status().missed, 40);
            running.stop().await;
        });
    }
}

#[test]
fn while_only_the_history_is_away_what_the_broker_brings_is_handled_and_the_trouble_is_said() {
    run(async {
        let mut brought = Brought::new(1);
        let history = Fate::new(1, Faults::default());
        brought.world.history_fate = Some(history.clone());
        let running = brought.start(Settings::default());
        brought.consumed(&running).await;
        brought.publish(None, 1).await;
        brought.settle(&running).await;
        history.set(Faults { error: 1.0, ..Faults::default() });
        // What was awaited meanwhile is answered: the next question is not.
        brought.publish(None, 1).await;
        until("it is said", || running.handle.status().trouble.is_some()).await;
        for _ in 0..10 {
            brought.publish(None, 1).await;
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert!(brought.world.everything_is_applied());
            let status = running.handle.status();
            assert_eq!((status.state, status.trouble.is_some()), (SubscriberState::Running, true));
        }
        brought.broker.set_away(true);
        until("nothing comes", || running.handle.status().state == SubscriberState::StoreAway).await;
        brought.broker.set_away(false);
        history.set(Faults::default());
        brought.settle(&running).await;
        assert_eq!(running.handle.status().trouble, None);
        running.stop().await;
    });
}

#[test]
fn a_backlog_comes_from_the_queue_and_is_not_read_from_the_log_as_well() {
    for delay_ms in [0, 5, 400] {
        run(async {
            let mut brought = Brought::new(1);
            let running = brought.start(Settings::default());
            brought.consumed(&running).await;
            brought.publish(None, 1).await;
            brought.settle(&running).await;
            running.stop().await;
            for _ in 0..1_000 {
                brought.publish(None, 2).await;
            }
            let delay_max = Duration::from_millis(delay_ms);
            brought.broker.set(BrokerFaults { delay_max, ..BrokerFaults::default() });
            brought.world.fate.set(Faults { delay_max, ..Faults::default() });
            let running = brought.start(Settings { rows_cached_max: 100, ..Settings::default() });
            brought.settle(&running).await;
            assert_eq!((running.handle.status().applied, running.handle.status().missed), (2_000, 0), "{delay_ms} ms");
            running.stop().await;
        });
    }
}

#[test]
fn what_was_purged_or_deleted_is_found_although_nothing_follows_it() {
    for deleted in [false, true] {
        run(async {
            let mut brought = Brought::new(1);
            let running = brought.start(Settings::default());
            brought.consumed(&running).await;
            let orders = [brought.publish(None, 1).await, brought.publish(None, 1).await];
            brought.settle(&running).await;
            running.stop().await;
            // The queue holds only the last events of its orders.
            for order in orders {
                brought.publish(Some(order), 2).await;
            }
            if deleted {
                brought.broker.delete(DIARY);
            } else {
                brought.broker.purge(DIARY);
            }
            let running = brought.start(Settings::default());
            let since = tokio::time::Instant::now();
            brought.settle(&running).await;
            assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
            assert_eq!(running.handle.status().missed, 4);
            running.stop().await;
        });
    }
}

#[test]
fn a_paused_subscriber_leaves_nothing_in_the_queue_and_goes_on_with_all_of_it() {
    run(async {
        let mut brought = Brought::new(1);
        brought.prefetch = 4;
        let running = brought.start(Settings::default());
        brought.consumed(&running).await;
        running.handle.pause(true).await.unwrap();
        let order = brought.publish(None, 30).await;
        brought.publish(Some(order), 30).await;
        until("it has seen them", || running.handle.status().behind == Some(60)).await;
        until("they are acknowledged", || brought.broker.unacknowledged(DIARY) == 0).await;
        assert_eq!((brought.world.document(order), brought.broker.waiting(DIARY)), (vec![], 0));
        running.handle.pause(false).await.unwrap();
        brought.settle(&running).await;
        running.stop().await;
    });
}

#[test]
fn neither_a_small_prefetch_nor_a_small_queue_nor_a_scan_holds_anything_up() {
    for (prefetch, queue_events_max) in [(1, 1), (1, 64), (64, 1), (300, 7)] {
        run(async {
            let mut brought = Brought::new(1);
            brought.prefetch = prefetch;
            let mut orders = Vec::new();
            for _ in 0..300 {
                orders.push(brought.world.store(None, 3).await);
            }
            brought.world.fate.set(Faults { delay_max: Duration::from_millis(5), ..Faults::default() });
            let running = brought.start(Settings { queue_events_max, batch_events_max: 16, ..Settings::default() });
            brought.consumed(&running).await;
            for order in orders {
                brought.publish(Some(order), 2).await;
            }
            brought.settle(&running).await;
            running.stop().await;
        });
    }
}

#[test]
fn when_a_consumer_ends_in_the_middle_what_it_had_is_brought_again_and_counts_once() {
    run(async {
        let mut brought = Brought::new(1);
        brought.world.fate.set(Faults { delay_max: Duration::from_millis(20), ..Faults::default() });
        let running = brought.start(Settings { batch_events_max: 8, ..Settings::default() });
        brought.consumed(&running).await;
        for n in 0..200 {
            brought.publish(None, 3).await;
            tokio::time::sleep(Duration::from_millis(7)).await;
            match n % 40 {
                7 => running.restart_at(CONSUMER),
                17 => running.restart(),
                27 => brought.broker.disconnect_consumers(),
                37 => brought.broker.delete(DIARY),
                _ => {}
            }
        }
        brought.settle(&running).await;
        running.stop().await;
    });
}

/// As without a broker, and whatever it can do wrong.
#[test]
fn whenever_a_life_or_a_connection_ends_the_next_one_goes_on_from_what_is_stored() {
    let seeds = if std::env::var_os("DOCKET_TEST_LONG").is_some() { 300 } else { 10 };
    for seed in 0..seeds {
        println!("seed {seed}");
        run(a_turbulent_life(seed));
    }
}

async fn a_turbulent_life(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut brought = Brought::new(seed);
    brought.prefetch = rng.random_range(1..80);
    let settings = Settings { batch_events_max: 16, queue_events_max: 64, effects_max: 5, ..Settings::default() };
    for _ in 0..50 {
        brought.world.store(None, rng.random_range(1..4)).await;
    }
    let mut running = brought.start(settings.clone());
    let wrongs = [Wrong::Panics, Wrong::Hangs, Wrong::Fails, Wrong::Away];
    for n in 0..150 {
        let bad = n % 40 < 25;
        let faults =
            Faults { error: 0.1, unknown: 0.1, delay_max: Duration::from_millis(20), late_max: Duration::from_secs(3) };
        let broker_faults = BrokerFaults {
            broken: 0.05,
            silent: 0.0,
            lost: 0.1,
            duplicated: 0.3,
            reordered: 0.3,
            delayed: 0.2,
            late_max: Duration::from_secs(300),
            delay_max: Duration::from_millis(30),
        };
        brought.world.fate.set(if bad { faults } else { Faults::default() });
        brought.broker.set(if bad { broker_faults } else { BrokerFaults::default() });
        let orders: Vec<_> = brought.world.ends.keys().copied().collect();
        let order = orders[rng.random_range(0..orders.len())];
        let order = brought.publish(rng.random_bool(0.7).then_some(order), rng.random_range(1..4)).await;
        let wrong = (rng.random_range(1..3), wrongs[rng.random_range(0..wrongs.len())]);
        let key = (order, brought.world.ends[&order].version());
        match rng.random_range(0..20) {
            0 | 1 => drop(brought.world.diary.handling.lock().unwrap().insert(key, wrong)),
            2 | 3 => drop(brought.world.diary.performing.lock().unwrap().insert(key, wrong)),
            4 => running.restart(),
            5 => running.restart_at(CONSUMER),
            6 => brought.broker.disconnect_consumers(),
            7 => brought.broker.purge(DIARY),
            8 => brought.broker.delete(DIARY),
            9 => brought.broker.set_away(rng.random_bool(0.7)),
            10 => {
                running.stop().await;
                running = brought.start(settings.clone());
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..2_000))).await;
    }
    brought.world.fate.set(Faults::default());
    brought.broker.set(BrokerFaults::default());
    brought.broker.set_away(false);
    brought.settle(&running).await;
    // What was on its way for so long comes at last, and again.
    tokio::time::sleep(Duration::from_secs(300)).await;
    brought.settle(&running).await;
    running.stop().await;
}
