//! What a seed decides beforehand: how large everything is, and how often what goes wrong. Small scenarios: few orders, few
//! commands, small batches and caches, so that everything is at its limit all the time.

use std::time::Duration;

use actors::journal;
use actors::order::directory::Limits;
use actors::subscriber::{Backoff, Settings};
use actors::testing::broker;
use actors::testing::faulty::Faults;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// The plan of a seed.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) processes: usize,
    pub(crate) broker: bool,
    pub(crate) orders: usize,
    /// Commands of each order, besides its creation.
    pub(crate) commands: usize,
    /// Longest time between two commands of one order.
    pub(crate) pause_max: Duration,
    /// How often a process is killed, in all.
    pub(crate) kills: u32,
    /// How often a process is frozen, in all.
    pub(crate) freezes: u32,
    /// How often something else happens.
    pub(crate) incidents: u32,
    /// How often handlers go wrong.
    pub(crate) temper: f64,
    pub(crate) faults: Faults,
    pub(crate) broker_faults: broker::Faults,
    pub(crate) settings: Settings,
    pub(crate) limits: Limits,
    pub(crate) journal: journal::Limits,
    pub(crate) publish_max: usize,
    pub(crate) prefetch: u16,
    pub(crate) says_reads: bool,
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// One of these.
fn one<T: Copy>(rng: &mut StdRng, of: &[T]) -> T {
    *of.choose(rng).expect("not empty")
}

impl Plan {
    /// Drawn.
    pub(crate) fn draw(rng: &mut StdRng) -> Self {
        let processes = one(rng, &[1, 2]);
        let delay_max = ms(one(rng, &[0, 3, 3, 20]));
        Self {
            processes,
            broker: rng.random_bool(0.5),
            orders: one(rng, &[1, 2, 2, 3]),
            commands: one(rng, &[1, 2, 3, 4]),
            pause_max: ms(one(rng, &[0, 20, 200])),
            kills: one(rng, &[0, 0, 1, 2]),
            freezes: if processes > 1 { one(rng, &[0, 1, 1, 2]) } else { one(rng, &[0, 0, 0, 1]) },
            incidents: one(rng, &[0, 1, 2, 4]),
            temper: one(rng, &[0.0, 0.2, 0.5]),
            faults: Faults {
                error: one(rng, &[0.0, 0.05, 0.2]),
                unknown: one(rng, &[0.0, 0.1, 0.4]),
                delay_max,
                late_max: ms(one(rng, &[10, 300, 1_500])),
            },
            broker_faults: broker::Faults {
                broken: one(rng, &[0.0, 0.0, 0.05]),
                silent: one(rng, &[0.0, 0.0, 0.02]),
                lost: one(rng, &[0.0, 0.1, 0.5]),
                duplicated: one(rng, &[0.0, 0.3]),
                reordered: one(rng, &[0.0, 0.5]),
                delayed: one(rng, &[0.0, 0.3]),
                late_max: ms(one(rng, &[20, 2_000])),
                delay_max,
            },
            settings: Settings {
                batch_events_max: one(rng, &[1, 2, 5]),
                batch_documents_max: one(rng, &[2, 100]),
                queue_events_max: one(rng, &[1, 3, 20]),
                rows_cached_max: one(rng, &[2, 100]),
                lanes_at_once_max: one(rng, &[1, 3]),
                history_commits_max: one(rng, &[1, 2, 10]),
                effects_loaded_max: one(rng, &[1, 2, 10]),
                effects_at_once_max: one(rng, &[1, 3]),
                effects_max: one(rng, &[1, 3, 100]),
                attempts_max: one(rng, &[1, 2, 5]),
                failing_orders_max: one(rng, &[2, 10]),
                handler_patience: ms(20),
                handler_timeout: ms(200),
                effect_timeout: ms(200),
                backoff: Backoff { first: ms(20), factor: 2.0, max: ms(300) },
                ..Settings::default()
            },
            limits: Limits {
                passivate_after: ms(one(rng, &[100, 1_000, 100_000])),
                live_max: one(rng, &[1, 100]),
                snapshot_every_events: one(rng, &[1, 3, 100]),
                answer_within: ms(2_000),
                ..Limits::default()
            },
            journal: journal::Limits {
                wait_max: ms(500),
                write_max: ms(one(rng, &[10, 300])),
                away_first: ms(5),
                away_max: ms(100),
                ..journal::Limits::default()
            },
            publish_max: one(rng, &[1, 2, 100]),
            prefetch: one(rng, &[1, 2, 10]),
            says_reads: rng.random(),
        }
    }
}
