//! Everything at once: elections with writes under way, rollbacks, a process that talks to a deposed primary, frozen and
//! restarted processes, faults of every port, while callers move orders on at whichever replica they reach.

use std::collections::BTreeMap;
use std::time::Duration;

use actors::order::{Command, CommandError, OrderId, Version};
use actors::testing::faulty::Faults;
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use super::process::{Process, World, add_item, create};
use super::{run, seeds};

const CALLERS: usize = 12;
const COMMANDS: usize = 15;
const ORDERS: usize = 4;

fn order(n: usize) -> (OrderId, String) {
    let key = format!("order-{n}");
    (OrderId::of_creation("c-1", &key), key)
}

/// What one caller was told.
struct Told {
    /// Which key led to which version.
    keys: Vec<(OrderId, String, Version)>,
    /// What was sent once and without a key, by its sku, and what came of it.
    sent: Vec<(String, Certain)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Certain {
    Done,
    NotDone,
    Unknown,
}

async fn caller(processes: &[Process], number: usize, seed: u64) -> Told {
    let mut rng = StdRng::seed_from_u64(seed ^ (number as u64) << 32);
    let (mut keys, mut sent) = (Vec::new(), Vec::new());
    let mut least: BTreeMap<OrderId, Version> = BTreeMap::new();
    for n in 0..COMMANDS {
        let (id, creation) = order(rng.random_range(0..ORDERS));
        let (key, command) = match least.contains_key(&id) {
            false => (creation, create()),
            true => (format!("{number}-{n}"), add_item(format!("sku-{number}-{n}"))),
        };
        let version = patiently(processes, &mut rng, id, &key, command).await;
        keys.push((id, key, version));
        if version > Version::FIRST {
            once(&processes[rng.random_range(0..processes.len())], id, &format!("once-{number}-{n}"), &mut sent).await;
        }
        // Whoever is asked has what this caller knows of.
        let known = least.entry(id).or_default();
        *known = version.max(*known);
        let found = processes[rng.random_range(0..processes.len())].get(id).await.unwrap().version;
        assert!(found >= *known, "{id}: {found} after {known}");
        *known = found;
        sleep(Duration::from_millis(rng.random_range(0..400))).await;
    }
    Told { keys, sent }
}

/// Sends it once, without a key.
async fn once(process: &Process, id: OrderId, sku: &str, sent: &mut Vec<(String, Certain)>) {
    let mut request = super::process::request(id, sku, add_item(sku.to_owned()));
    request.key = None;
    let certain = match process.command(request).await {
        Ok(_) => Certain::Done,
        Err(CommandError::NotDone { .. }) => Certain::NotDone,
        Err(CommandError::OutcomeUnknown) => Certain::Unknown,
        Err(error) => panic!("{sku}: {error:?}"),
    };
    sent.push((sku.to_owned(), certain));
}

/// Again and again with its key, at whichever replica, until the answer is final.
async fn patiently(processes: &[Process], rng: &mut StdRng, id: OrderId, key: &str, command: Command) -> Version {
    loop {
        let process = &processes[rng.random_range(0..processes.len())];
        match process.command(super::process::request(id, key, command.clone())).await {
            Ok(answer) => return answer.order.version,
            Err(CommandError::NotDone { .. } | CommandError::OutcomeUnknown | CommandError::KeyInProgress) => {
                sleep(Duration::from_millis(rng.random_range(100..600))).await;
            }
            Err(error) => panic!("{key}: {error:?}"),
        }
    }
}

async fn trouble(world: &World, processes: &[Process], seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(31));
    for _ in 0..25 {
        let process = &processes[rng.random_range(0..processes.len())];
        let lasts = Duration::from_millis(rng.random_range(50..8_000));
        match rng.random_range(0..6) {
            0 | 1 => world.set.elect(lasts / 4),
            2 => {
                process.freeze();
                sleep(lasts).await;
                process.thaw();
            }
            3 => {
                process.client.depose();
                sleep(lasts / 2).await;
                process.client.reconnect();
            }
            4 => {
                let faults = Faults {
                    error: 0.1,
                    unknown: 0.2,
                    delay_max: Duration::from_millis(20),
                    late_max: Duration::from_secs(2),
                };
                process.fate.set(faults);
                sleep(lasts / 2).await;
                process.fate.set(Faults { delay_max: Duration::from_millis(3), ..Faults::default() });
            }
            _ => {
                process.client.read_behind(rng.random_range(1..6));
                sleep(lasts / 4).await;
                process.client.reconnect();
            }
        }
        sleep(Duration::from_millis(rng.random_range(0..300))).await;
    }
}

async fn a_bad_day(seed: u64, (world, processes): (World, [Process; 3])) -> u64 {
    let callers = join_all((0..CALLERS).map(|number| caller(&processes, number, seed)));
    let (told, ()) = tokio::join!(callers, trouble(&world, &processes, seed));

    let mut stored: BTreeMap<(OrderId, Version), usize> = BTreeMap::new();
    let commands = world.memory.commits().iter().map(|commit| commit.commands().len()).sum::<usize>();
    let mut skus = Vec::new();
    for commit in world.memory.commits() {
        for event in commit.envelopes() {
            skus.push(event.data.get().to_owned());
            *stored.entry((event.order, event.version)).or_default() += 1;
        }
    }
    assert!(stored.values().all(|times| *times == 1), "a version was given twice");
    let mut keys: BTreeMap<(OrderId, String), Version> = BTreeMap::new();
    let mut without_key = 0;
    for Told { keys: own, sent } in told {
        for (id, key, version) in own {
            assert!(stored.contains_key(&(id, version)), "{key} was acknowledged and is not there");
            let before = keys.insert((id, key.clone()), version);
            assert!(before.is_none_or(|before| before == version), "{key} led to two versions");
        }
        for (sku, certain) in sent {
            let there = skus.iter().filter(|stored| stored.contains(&format!("\"{sku}\""))).count();
            without_key += there;
            match certain {
                Certain::Done => assert_eq!(there, 1, "{sku} was acknowledged"),
                Certain::NotDone => assert_eq!(there, 0, "{sku} was certainly not done"),
                Certain::Unknown => assert!(there <= 1, "{sku}"),
            }
        }
    }
    assert_eq!(keys.len() + without_key, commands, "each key took effect once, and nothing else did");
    world.settle(&processes).await;
    world.check();
    processes.iter().map(|process| process.journal.borrow().settled).sum()
}

#[test]
fn whatever_happens_to_the_replica_set_and_to_processes_nothing_is_lost_or_done_twice() {
    let mut settled = 0;
    for seed in seeds(10) {
        println!("seed {seed}");
        settled += run(async { a_bad_day(seed, World::with_three(seed)).await });
    }
    assert!(settled > 10, "{settled} unknown outcomes were settled");
}

#[test]
fn whatever_happens_to_processes_that_share_a_broker_nothing_is_lost_or_done_twice() {
    for seed in seeds(5) {
        println!("seed {seed}");
        run(async {
            let (world, processes) = World::with_three_and_a_broker(seed);
            let broker = world.broker.clone();
            a_bad_day(seed, (world, processes)).await;
            assert!(broker.is_some_and(|broker| !broker.taken().is_empty()), "it was of no use");
        });
    }
}
