//! Orders that every process writes.

use std::collections::BTreeSet;

use actors::commit::Origin;
use actors::order::directory::Request;
use actors::order::error::{At, NotDone};
use actors::order::{Command, CommandError, OrderId, ReadError, Version};
use futures_util::future::join_all;

use super::process::{World, add_item, create, life, request};
use super::{run, seeds};

fn conditional(order: OrderId, command: Command, version: Version) -> Request {
    let origin = Origin::anonymous("c".to_owned(), None);
    Request { order, command, if_match: Some(vec![version]), key: None, origin }
}

/// Every replica knows every version before, so that each is behind when its turn comes.
#[test]
fn each_step_on_another_replica_is_seen_by_all_at_once() {
    for seed in seeds(20) {
        run(async {
            let (_world, processes) = World::with_three(seed);
            let id = OrderId::generate();
            for (step, command) in life().into_iter().enumerate() {
                let process = &processes[(step + seed as usize) % 3];
                let version = Version(u32::try_from(step).unwrap());
                let answer = match step {
                    0 => process.command(request(id, "create", command.clone())).await,
                    _ => process.command(conditional(id, command.clone(), version)).await,
                };
                assert_eq!(answer.unwrap().order.version, version.next());
                for other in &processes {
                    let found = other.orders.get(id, At::Now).await.unwrap();
                    assert_eq!(found.version, version.next(), "seed {seed}, {}", other.name);
                    let stale = other.command(conditional(id, Command::Deliver, version)).await;
                    let current = version.next();
                    assert_eq!(stale.unwrap_err(), CommandError::VersionMismatch { current });
                    let trail = other.orders.trail(id, Version::NONE, 10).await.unwrap();
                    assert_eq!(trail.events.len(), step + 1);
                }
            }
            // Every one of them refuses what the last step made impossible.
            for other in &processes {
                let refused = other.command(request(id, "again", Command::Deliver)).await.unwrap_err();
                assert!(matches!(refused, CommandError::Refused(_)), "{refused:?}");
            }
        });
    }
}

#[test]
fn a_key_takes_effect_once_whichever_replica_it_is_repeated_at() {
    for seed in seeds(20) {
        run(async {
            let (world, processes) = World::with_three(seed);
            let id = OrderId::of_creation("c-1", "create");
            let created = join_all(processes.iter().map(|process| process.tell(id, "create", create()))).await;
            let replayed = created.iter().filter(|answer| answer.as_ref().unwrap().replayed).count();
            assert_eq!((replayed, world.memory.commits().len()), (2, 1));
            // All of them have it in memory; then it moves on at one of them.
            for (step, command) in life().into_iter().enumerate().skip(1) {
                let key = format!("step-{step}");
                let first = processes[step % 3].tell(id, &key, command.clone()).await.unwrap();
                assert!(!first.replayed);
                for process in &processes {
                    let again = process.tell(id, &key, command.clone()).await.unwrap();
                    assert!(again.replayed && again.order == first.order, "seed {seed}, {}", process.name);
                    let other = process.tell(id, &key, Command::Cancel { reason: "r".to_owned() }).await;
                    assert_eq!(other.unwrap_err(), CommandError::KeyReused);
                    let of_old = process.tell(id, "create", create()).await.unwrap();
                    assert!(of_old.replayed && of_old.order.version == Version::FIRST);
                }
            }
            assert_eq!(world.memory.commits().len(), 4);
        });
    }
}

#[test]
fn hundreds_of_commands_at_once_on_one_order_over_all_replicas_each_get_a_version_of_their_own() {
    for seed in seeds(5) {
        run(async {
            let (world, processes) = World::with_three(seed);
            let id = OrderId::generate();
            processes[0].command(request(id, "create", create())).await.unwrap();
            let commands = (0..600).map(|n| {
                let process = &processes[n % 3];
                process.command(request(id, &format!("{n}"), add_item(format!("sku-{n}"))))
            });
            let answers = join_all(commands).await;
            let versions: BTreeSet<Version> = answers.iter().flatten().map(|answer| answer.order.version).collect();
            let refused: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
            assert!(refused.is_empty(), "seed {seed}: {} refused, {:?}", refused.len(), refused[0]);
            assert_eq!(versions, (2..=601).map(Version).collect());
            for process in &processes {
                assert_eq!(process.orders.get(id, At::Now).await.unwrap().version, Version(601));
            }
            world.settle(&processes).await;
            world.check();
        });
    }
}

/// Callers of each replica that send the next command when they have the answer to the last. How many were refused as
/// contended.
async fn a_hot_order(seed: u64) -> usize {
    let (_world, processes) = World::with_three(seed);
    let id = OrderId::generate();
    processes[0].command(request(id, "create", create())).await.unwrap();
    let caller = async |process: usize, caller: usize| {
        let mut refused = 0;
        for n in 0..20 {
            let sku = format!("{process}-{caller}-{n}");
            let key = sku.clone();
            match processes[process].command(request(id, &key, add_item(sku))).await {
                Ok(_) => {}
                Err(CommandError::NotDone { why: NotDone::Contended, .. }) => refused += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        refused
    };
    join_all((0..30).map(|n| caller(n % 3, n / 3))).await.into_iter().sum()
}

/// Without yielding to one another one in seven is.
#[test]
fn a_replica_does_not_starve_another_on_a_hot_order() {
    let refused: Vec<_> = seeds(6).map(|seed| run(a_hot_order(seed))).collect();
    let all = refused.iter().sum::<usize>();
    println!("refused of 600: {refused:?}");
    assert!(all < refused.len() * 600 * 3 / 100, "of 600 each: {refused:?}");
}

#[test]
fn a_thousand_who_read_at_once_share_a_few_looks_at_the_store() {
    run(async {
        let (_world, processes) = World::with_three(1);
        let id = OrderId::generate();
        processes[0].command(request(id, "create", create())).await.unwrap();
        let reader = &processes[1];
        reader.orders.get(id, At::Now).await.unwrap();
        let before = reader.client.linearizable_reads();
        let reads = join_all((0..1_000).map(|_| reader.orders.get(id, At::Now))).await;
        assert!(reads.into_iter().all(|read| read.unwrap().version == Version::FIRST));
        let looks = reader.client.linearizable_reads() - before;
        assert!(looks <= 3, "{looks} looks");
    });
}

/// It has the order in memory at an older version, and its reads come from a primary that was deposed.
#[test]
fn a_replica_that_talks_to_a_deposed_primary_answers_nothing_rather_than_what_is_old() {
    for passivated in [false, true] {
        run(async {
            let (_world, processes) = World::with_three(1);
            let [cut_off, other, _] = &processes;
            let id = OrderId::generate();
            cut_off.command(request(id, "create", create())).await.unwrap();
            cut_off.client.depose();
            if passivated {
                tokio::time::sleep(std::time::Duration::from_secs(600)).await;
            }
            let [_, pay, ship, _] = life();
            other.command(request(id, "pay", pay.clone())).await.unwrap();
            let moment = other.orders.get(id, At::Now).await.unwrap().updated_at;
            let away = |error: ReadError| matches!(error, ReadError::NotDone { why: NotDone::StoreAway, .. });
            for at in [At::Now, At::Version(Version(2)), At::Version(Version(9)), At::Time(moment)] {
                let read = cut_off.orders.get(id, at).await;
                assert!(away(read.clone().unwrap_err()), "{at:?}: {read:?}");
            }
            assert!(away(cut_off.orders.get(OrderId::generate(), At::Now).await.unwrap_err()));
            assert!(away(cut_off.orders.trail(id, Version::NONE, 10).await.unwrap_err()));
            assert!(away(cut_off.orders.trail(OrderId::generate(), Version::NONE, 10).await.unwrap_err()));
            // What cannot change is answered.
            assert_eq!(cut_off.orders.get(id, At::Version(Version(1))).await.unwrap().version, Version(1));
            // Refused as it stands here; the truth is another.
            let refused = cut_off.command(request(id, "ship", ship.clone())).await.unwrap_err();
            assert!(matches!(refused, CommandError::NotDone { why: NotDone::StoreAway, .. }), "{refused:?}");
            cut_off.client.reconnect();
            assert!(!cut_off.tell(id, "ship", ship).await.unwrap().replayed);
            assert!(cut_off.tell(id, "pay", pay).await.unwrap().replayed);
            assert_eq!(cut_off.orders.get(id, At::Time(moment)).await.unwrap().version, Version(2));
        });
    }
}

/// The key is known here, the state that it led to is to be read, and what is read does not go that far.
#[test]
fn a_replay_that_cannot_be_read_now_is_not_taken_for_a_failure() {
    run(async {
        let (_world, processes) = World::with_three(1);
        let id = OrderId::generate();
        let [process, other, _] = &processes;
        other.command(request(id, "create", create())).await.unwrap();
        other.command(request(id, "item", add_item("A-2".to_owned()))).await.unwrap();
        process.command(request(id, "item-2", add_item("A-3".to_owned()))).await.unwrap();
        process.client.read_behind(2);
        let replayed = process.command(request(id, "item", add_item("A-2".to_owned()))).await;
        assert_eq!(replayed.unwrap_err(), CommandError::OutcomeUnknown);
        process.client.reconnect();
        assert!(process.command(request(id, "item", add_item("A-2".to_owned()))).await.unwrap().replayed);
    });
}

/// What is read stays behind what is known to be stored.
#[test]
fn when_what_is_read_stays_old_it_says_so_after_a_few_looks() {
    run(async {
        let (_world, processes) = World::with_three(1);
        let [process, other, _] = &processes;
        let id = OrderId::generate();
        other.command(request(id, "create", create())).await.unwrap();
        process.orders.get(id, At::Now).await.unwrap();
        let [_, pay, ship, _] = life();
        other.command(request(id, "pay", pay)).await.unwrap();
        process.client.read_behind(1);
        let before = process.client.linearizable_reads();
        let contended = |why: NotDone| matches!(why, NotDone::Contended);
        let read = process.orders.get(id, At::Now).await.unwrap_err();
        assert!(matches!(read, ReadError::NotDone { why, .. } if contended(why)), "{read:?}");
        let refused = process.command(request(id, "ship", ship.clone())).await.unwrap_err();
        assert!(matches!(refused, CommandError::NotDone { why, .. } if contended(why)), "{refused:?}");
        for at in [At::Version(Version(2)), At::Version(Version(9))] {
            let read = process.orders.get(id, at).await.unwrap_err();
            assert!(matches!(read, ReadError::NotDone { why, .. } if contended(why)), "{at:?}: {read:?}");
        }
        let trail = process.orders.trail(id, Version::NONE, 10).await.unwrap_err();
        assert!(matches!(trail, ReadError::NotDone { why, .. } if contended(why)), "{trail:?}");
        let looks = process.client.linearizable_reads() - before;
        // Five that ask, each bounded (`conflicts_max`).
        assert!(looks < 80, "{looks} looks");
        process.client.reconnect();
        assert!(!process.tell(id, "ship", ship).await.unwrap().replayed);
    });
}
