//! Orders with their journal, in memory, on one arbiter, with tokio's clock paused: what takes a day takes no time.

#![expect(clippy::unwrap_used, reason = "tests")]

mod bench;

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;

use self::bench::{Bench, add_item, bench, create, pay, run};
use super::command::Command;
use super::error::{At, NotDone, Refusal};
use super::stream::Rules;
use super::{CommandError, OrderId, ReadError, Version, aggregate};
use crate::event_store::{Appended, StoreError};
use crate::supervisor::ledger::Cause;

fn away() -> StoreError {
    StoreError::Away("scripted".to_owned())
}

fn why(error: CommandError) -> NotDone {
    let CommandError::NotDone { why, .. } = error else { panic!("not a 503: {error:?}") };
    why
}

#[test]
fn an_order_is_placed_changed_and_read() {
    run(async {
        let bench = bench().await;
        let id = bench.place().await;
        let paid = bench.tell(id, pay(100)).await.unwrap();
        assert_eq!((paid.order.version, paid.replayed), (Version(2), false));
        assert_eq!(*bench.orders.get(id, At::Now).await.unwrap(), *paid.order);
        let first = bench.orders.get(id, At::Version(Version(1))).await.unwrap();
        assert_eq!((first.version, first.status), (Version(1), aggregate::Status::Placed));
        for beyond in [Version(0), Version(3)] {
            assert_eq!(bench.orders.get(id, At::Version(beyond)).await.unwrap_err(), ReadError::NotFound);
        }
        assert_eq!(bench.orders.get(id, At::Time(paid.order.updated_at)).await.unwrap().version, Version(2));
        let before = crate::clock::Timestamp::EPOCH;
        assert_eq!(bench.orders.get(id, At::Time(before)).await.unwrap_err(), ReadError::NotFound);
    });
}

#[test]
fn the_trail_is_given_in_pages() {
    run(async {
        let bench = bench().await;
        let id = bench.place().await;
        for _ in 0..4 {
            bench.tell(id, add_item()).await.unwrap();
        }
        let first = bench.orders.trail(id, Version::NONE, 2).await.unwrap();
        assert_eq!(first.events.iter().map(|event| event.version.0).collect::<Vec<_>>(), [1, 2]);
        let second = bench.orders.trail(id, first.next_after.unwrap(), 3).await.unwrap();
        assert_eq!(second.events.iter().map(|event| event.version.0).collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(second.next_after, None);
        assert!(bench.orders.trail(id, Version(9), 3).await.unwrap().events.is_empty());
        let nobody = bench.orders.trail(OrderId::generate(), Version::NONE, 3).await;
        assert_eq!(nobody.unwrap_err(), ReadError::NotFound);
    });
}

#[test]
fn pages_that_are_shorter_than_asked_for_are_not_the_end() {
    run(async {
        let bench = bench().await;
        let id = bench.place().await;
        for _ in 0..8 {
            bench.tell(id, add_item()).await.unwrap();
        }
        bench.let_go().await;
        bench.store.snapshots.lock().unwrap().clear();
        bench.store.page_max.store(2, Ordering::SeqCst);
        assert_eq!(bench.orders.get(id, At::Now).await.unwrap().version, Version(9));
        assert_eq!(bench.orders.get(id, At::Version(Version(8))).await.unwrap().version, Version(8));
        let all = bench.orders.trail(id, Version::NONE, 100).await.unwrap();
        assert_eq!((all.events.len(), all.next_after), (9, None));
        assert_eq!(bench.tell(id, add_item()).await.unwrap().order.version, Version(10));
    });
}

#[test]
fn an_order_that_is_not_there_is_not_found_and_keeps_no_actor() {
    run(async {
        let bench = bench().await;
        let nobody = OrderId::generate();
        assert_eq!(bench.orders.get(nobody, At::Now).await.unwrap_err(), ReadError::NotFound);
        assert_eq!(bench.tell(nobody, pay(1)).await.unwrap_err(), Refusal::NotFound.into());
        bench.wait_for_live(0).await;
    });
}

#[test]
fn two_hundred_commands_at_once_are_numbered_without_gap() {
    run(async {
        let bench = bench().await;
        let id = bench.place().await;
        let answers = join_all((0..200).map(|_| bench.tell(id, add_item()))).await;
        let mut versions: Vec<u32> = answers.into_iter().map(|answer| answer.unwrap().order.version.0).collect();
        versions.sort_unstable();
        assert_eq!(versions, (2..=201).collect::<Vec<_>>());
        assert!(bench.store.groups.load(Ordering::SeqCst) < 10, "what waits together is written together");
        bench.check_stored(id, 201).await;
    });
}

#[test]
fn of_two_hundred_commands_with_the_same_if_match_one_wins() {
    run(async {
        let bench = bench().await;
        let id = bench.place().await;
        let expecting = |version| bench.request(id, add_item()).if_match(version);
        let answers = join_all((0..200).map(|_| bench.send(expecting(1)))).await;
        let won = answers.iter().filter(|answer| answer.is_ok()).count();
        let lost = answers.iter().filter(
            |answer| matches!(answer, Err(CommandError::VersionMismatch { current }) if *current == Version(2)),
        );
        assert_eq!((won, lost.count()), (1, 199));
        bench.check_stored(id, 2).await;
    });
}

#[test]
fn one_key_from_fifty_connections_takes_effect_once() {
    run(async {
        let bench = bench().await;
        let creations = join_all((0..50).map(|_| bench.send(bench.creation("c-1", "k")))).await;
        let fresh = creations.iter().filter(|answer| !answer.as_ref().unwrap().replayed).count();
        assert_eq!(fresh, 1);
        let id = creations[0].as_ref().unwrap().order.id;
        bench.check_stored(id, 1).await;
        let other = bench.send(bench.creation("c-2", "k")).await.unwrap();
        assert!(!other.replayed && other.order.id != id, "another customer's key is another key");
        let mut changed = bench.creation("c-1", "k");
        changed.command = create("EUR", 7);
        assert_eq!(bench.send(changed).await.unwrap_err(), CommandError::KeyReused);
    });
}

#[test]
fn a_key_answers_as_the_first_time_also_after_passivation_and_a_snapshot() {
    run(async {
        let bench = bench().await;
        let id = bench.place().await;
        let paying = || bench.request(id, pay(100)).key("p").if_match(1);
        let first = bench.send(paying()).await.unwrap();
        for _ in 0..3 {
            bench.tell(id, Command::Refund { reason: "r".to_owned(), amount: Some(1) }).await.unwrap_err();
        }
        bench.tell(id, Command::Ship { carrier: "c".to_owned(), tracking_number: "t".to_owned() }).await.unwrap();
        for _ in 0..20 {
            let refund = Command::Refund { reason: "r".to_owned(), amount: Some(1) };
            bench.tell(id, refund).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(600)).await;
        bench.wait_for_live(0).await;
        assert!(bench.store.snapshots.lock().unwrap().contains_key(&id), "a snapshot was taken on the way");
        let again = bench.send(paying()).await.unwrap();
        assert!(again.replayed);
        assert_eq!(*again.order, *first.order, "the state at that version, not the present one");
    });
}

#[test]
fn a_snapshot_that_names_a_commit_which_is_not_stored_is_ignored() {
    run(async {
        let bench = bench().await;
        let id = bench.place().await;
        for _ in 0..15 {
            bench.tell(id, add_item()).await.unwrap();
        }
        let other = bench.place().await;
        for _ in 0..15 {
            bench.tell(other, add_item()).await.unwrap();
        }
        bench.let_go().await;
        {
            // The snapshot of another order under this one's name: as after a store was restored from a copy.
            let mut snapshots = bench.store.snapshots.lock().unwrap();
            let foreign = snapshots.get(&other).unwrap().clone();
            snapshots.insert(id, foreign);
        }
        assert_eq!(bench.orders.get(id, At::Now).await.unwrap().version, Version(16));
        assert_eq!(bench.orders.get(id, At::Now).await.unwrap().id, id);
    });
}

#[test]
fn idle_orders_are_let_go_and_come_back_as_they_were() {
    run(async {
        let bench = bench().await;
        let ids = join_all((0..50).map(|_| bench.place())).await;
        assert_eq!(bench.live(), 50);
        tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
        assert_eq!(bench.live(), 0);
        for id in ids {
            assert_eq!(bench.orders.get(id, At::Now).await.unwrap().version, Version(1));
        }
    });
}

#[test]
fn no_more_orders_live_than_allowed_whatever_is_asked_of_them() {
    run(async {
        let bench = Bench::start(Rules::ORDER, |limits| limits.live_max = 10).await;
        let ids = join_all((0..200).map(|_| bench.place())).await;
        bench.wait_for_live(10).await;
        let answers = join_all(ids.iter().map(|id| bench.tell(*id, add_item()))).await;
        assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.order.version == Version(2))));
        bench.wait_for_live(10).await;
    });
}

#[test]
fn more_than_an_order_or_the_node_admits_is_refused_at_once() {
    run(async {
        let bench = Bench::start(Rules::ORDER, |limits| {
            limits.waiting_max = 20;
            limits.waiting_per_order_max = 5;
        })
        .await;
        let (id, other) = (bench.place().await, bench.place().await);
        bench.store.hold();
        let crowd = join_all((0..8).map(|_| bench.tell(id, add_item())));
        let others = join_all((0..30).map(|_| bench.tell(other, add_item())));
        let release = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            bench.store.release();
        };
        let (crowd, others, ()) = tokio::join!(crowd, others, release);
        let refused = |answers: &[Result<_, CommandError>]| {
            let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
            refused.inspect(|error| assert_eq!(why((*error).clone()), NotDone::Overloaded)).count()
        };
        assert_eq!(refused(&crowd), 3);
        assert_eq!(refused(&others), 25);
        bench.tell(id, add_item()).await.unwrap();
        assert_eq!(bench.orders.under_way(), 0, "every place is given back");
    });
}

fn decide_or_panic(order: Option<&aggregate::Order>, command: &Command) -> Result<Vec<super::OrderEvent>, Refusal> {
    if let Command::Cancel { reason } = command
        && reason == "panic"
    {
        panic!("a rule with a bug");
    }
    aggregate::decide(order, command)
}

#[test]
fn a_command_that_panics_takes_nothing_with_it() {
    run(async {
        let rules = Rules { decide: decide_or_panic, ..Rules::ORDER };
        let bench = Bench::start(rules, |_| {}).await;
        let (id, other) = (bench.place().await, bench.place().await);
        let bad = || Command::Cancel { reason: "panic".to_owned() };
        let (before, panicked, after, elsewhere) = tokio::join!(
            bench.tell(id, add_item()),
            bench.tell(id, bad()),
            bench.tell(id, add_item()),
            bench.tell(other, add_item()),
        );
        assert_eq!(panicked.unwrap_err(), CommandError::OutcomeUnknown);
        assert_eq!(before.unwrap().order.version, Version(2));
        assert_eq!(after.unwrap().order.version, Version(3), "what was queued goes on");
        assert_eq!(elsewhere.unwrap().order.version, Version(2));
        assert_eq!(bench.tell(id, bad()).await.unwrap_err(), CommandError::Internal, "the second time it is known");
        let entries = bench.ledger.last(10);
        assert_eq!(entries.len(), 2);
        assert!(matches!(&entries[0].cause, Cause::Panic(panic) if panic.text.contains("a rule with a bug")));
        assert_eq!(entries[0].message.as_ref().unwrap().name, "cancel");
        assert_eq!(bench.tell(id, bad()).await.unwrap_err(), CommandError::Internal);
        assert_eq!(bench.ledger.last(10).len(), 2, "the third time it is not even tried");
        assert_eq!(bench.orders.get(id, At::Now).await.unwrap().version, Version(3));
        bench.check_stored(id, 3).await;
    });
}

#[test]
fn an_order_with_a_poisonous_event_is_quarantined_alone() {
    run(async {
        let bench = bench().await;
        let (poisoned, healthy) = (bench.place().await, bench.place().await);
        bench.let_go().await;
        bench.store.poison(poisoned);
        for second in 0..60 {
            for _ in 0..10 {
                let error = bench.orders.get(poisoned, At::Now).await.unwrap_err();
                assert!(matches!(error, ReadError::NotDone { why: NotDone::OrderQuarantined, .. }), "{error:?}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert_eq!(bench.tell(healthy, add_item()).await.unwrap().order.version, Version(2 + second));
        }
        let failures = bench.ledger.last(1000);
        assert!(failures.iter().all(|entry| entry.path.contains(&poisoned.to_string())));
        assert!(failures.len() < 15, "it does not spin: {} tries in a minute", failures.len());
        assert_eq!(bench.orders.trail(poisoned, Version::NONE, 10).await.unwrap().events.len(), 1);
    });
}

#[test]
fn an_order_that_a_newer_docket_has_written_to_is_refused_and_its_trail_readable() {
    run(async {
        let bench = bench().await;
        let id = bench.place().await;
        bench.let_go().await;
        bench.store.write_from_the_future(id);
        let error = bench.tell(id, add_item()).await.unwrap_err();
        assert_eq!(why(error), NotDone::SchemaAhead);
        assert_eq!(bench.orders.trail(id, Version::NONE, 10).await.unwrap().events.len(), 2);
        assert!(bench.ledger.last(10).is_empty(), "nothing has failed");
        let before = bench.orders.get(id, At::Version(Version(1))).await.unwrap();
        assert_eq!(before.version, Version(1), "what came before can be read");
    });
}

#[test]
fn a_store_that_is_away_gives_a_quick_no_and_is_found_again() {
    run(async {
        let bench = bench().await;
        let id = bench.place().await;
        bench.store.fail_next(50, || Appended::NotDone(away()));
        let begun = tokio::time::Instant::now();
        for _ in 0..10 {
            assert_eq!(why(bench.tell(id, add_item()).await.unwrap_err()), NotDone::StoreAway);
        }
        assert!(begun.elapsed() < Duration::from_millis(100), "nobody waits for it");
        assert_eq!(bench.orders.get(id, At::Now).await.unwrap().version, Version(1), "reads go on");
        bench.store.fail_next(0, || Appended::NotDone(away()));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(bench.tell(id, add_item()).await.unwrap().order.version, Version(2));
    });
}

#[test]
fn an_unknown_outcome_is_settled_before_the_order_goes_on() {
    for written in [false, true] {
        run(async move {
            let bench = bench().await;
            let (id, other) = (bench.place().await, bench.place().await);
            bench.store.hold();
            if written {
                bench.store.fail_next(1, || Appended::Unknown(away()));
            } else {
                bench.store.lose_next();
            }
            let first = bench.send(bench.request(id, pay(100)).key("p"));
            let behind = async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                let reading = bench.orders.get(id, At::Now);
                let same = bench.send(bench.request(id, pay(100)).key("p"));
                let release = async { bench.store.release() };
                tokio::join!(bench.tell(id, add_item()), same, reading, release)
            };
            let (first, (behind, same, read, ())) = tokio::join!(first, behind);
            assert_eq!(first.unwrap_err(), CommandError::OutcomeUnknown);
            assert_eq!(why(behind.unwrap_err()), NotDone::NotDone);
            assert_eq!(same.unwrap_err(), CommandError::KeyInProgress);
            assert!(matches!(read.unwrap_err(), ReadError::NotDone { why: NotDone::NotDone, .. }));
            tokio::time::sleep(Duration::from_secs(2)).await;
            bench.tell(other, add_item()).await.unwrap();
            let again = bench.send(bench.request(id, pay(100)).key("p")).await.unwrap();
            assert!(again.replayed, "settled, whether the first write had landed or not");
            assert_eq!(bench.health.borrow().settled, 1);
            bench.check_stored(id, 2).await;
        });
    }
}

#[test]
fn a_conflict_is_decided_again_on_what_the_other_writer_left() {
    run(async {
        let bench = bench().await;
        let id = bench.place().await;
        let other_node = bench.another_node().await;
        other_node.tell(id, add_item()).await.unwrap();
        assert_eq!(bench.tell(id, add_item()).await.unwrap().order.version, Version(3));
        let error = other_node.send(other_node.request(id, add_item()).if_match(2)).await.unwrap_err();
        assert_eq!(error, CommandError::VersionMismatch { current: Version(3) });
        let read = bench.orders.get(id, At::Now).await.unwrap();
        other_node.tell(id, add_item()).await.unwrap();
        assert_eq!(bench.orders.get(id, At::Now).await.unwrap().version, read.version.next(), "never a stale answer");
        bench.check_stored(id, 4).await;
    });
}

#[test]
fn conflicts_without_end_are_answered_as_contended() {
    run(async {
        let bench = bench().await;
        let id = bench.place().await;
        bench.store.fail_next(1000, || Appended::Conflict);
        assert_eq!(why(bench.tell(id, add_item()).await.unwrap_err()), NotDone::Contended);
        bench.store.fail_next(0, || Appended::Conflict);
        bench.tell(id, add_item()).await.unwrap();
    });
}

#[test]
fn a_read_that_others_always_outrun_is_given_up() {
    run(async {
        let bench = bench().await;
        let id = bench.place().await;
        bench.store.outrun.store(true, Ordering::SeqCst);
        let begun = tokio::time::Instant::now();
        let error = bench.orders.get(id, At::Now).await.unwrap_err();
        assert!(matches!(error, ReadError::NotDone { why: NotDone::Contended, .. }), "{error:?}");
        assert!(begun.elapsed() < Duration::from_secs(1));
        assert_eq!(bench.orders.under_way(), 0);
        bench.store.outrun.store(false, Ordering::SeqCst);
        bench.orders.get(id, At::Now).await.unwrap();
    });
}

#[test]
fn a_journal_that_fails_in_the_middle_of_a_write_loses_and_doubles_nothing() {
    run(async {
        let bench = bench().await;
        let id = bench.place().await;
        bench.store.panic_next();
        assert_eq!(bench.tell(id, add_item()).await.unwrap_err(), CommandError::OutcomeUnknown);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(bench.tell(id, add_item()).await.unwrap().order.version, Version(3));
        bench.check_stored(id, 3).await;
    });
}

#[test]
fn an_import_repeated_is_recognised_and_another_under_its_id_refused() {
    run(async {
        let bench = bench().await;
        let line = r#"{"orderId":"old-1","userId":"u","total":12.50}"#;
        let other = r#"{"orderId":"old-1","userId":"u","total":13}"#;
        let first = bench.import(line).await.unwrap();
        assert!(!first.replayed);
        bench.let_go().await;
        assert!(bench.import(line).await.unwrap().replayed);
        assert_eq!(bench.import(other).await.unwrap_err(), CommandError::KeyReused);
        assert_eq!(first.order.total.minor_units(), 1250);
    });
}

#[test]
fn a_commit_that_its_order_asks_for_again_is_not_said_to_be_undone() {
    run(async {
        let bench = Bench::start(Rules::ORDER, |limits| limits.snapshot_every_events = 1).await;
        let id = bench.place().await;
        bench.store.panic_on_snapshot.store(true, Ordering::SeqCst);
        bench.tell(id, add_item()).await.unwrap();
        bench.store.hold();
        bench.store.fail_next(1, || Appended::NotDone(away()));
        let release = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            bench.store.release();
        };
        // The order fails while the commit is under way, and hears that it was not written when it has asked again.
        let (answer, ()) = tokio::join!(bench.tell(id, add_item()), release);
        assert_eq!(answer.unwrap_err(), CommandError::OutcomeUnknown);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(bench.orders.get(id, At::Now).await.unwrap().version, Version(3));
        bench.check_stored(id, 3).await;
    });
}

#[test]
fn a_shard_that_is_restarted_forgets_nobody_who_waits_for_an_order_that_leaves() {
    run(async {
        let rules = Rules { decide: decide_or_panic, ..Rules::ORDER };
        let bench = Bench::start(rules, |limits| limits.passivate_after = Duration::from_millis(20)).await;
        let id = bench.place().await;
        // The order rests after its failure, so it does not answer yet when the shard asks it to end.
        bench.tell(id, Command::Cancel { reason: "panic".to_owned() }).await.unwrap_err();
        tokio::time::sleep(Duration::from_millis(40)).await;
        let restart = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            bench.shard_handle.restart();
        };
        let (answer, ()) = tokio::join!(bench.tell(id, add_item()), restart);
        assert_eq!(answer.unwrap().order.version, Version(2));
        bench.let_go().await;
        assert_eq!(bench.orders.under_way(), 0);
    });
}

#[test]
fn what_was_done_is_never_said_to_be_undone_when_its_answer_cannot_be_read() {
    run(async {
        let bench = bench().await;
        let id = bench.place().await;
        let adding = || bench.request(id, add_item()).key("a");
        let first = bench.send(adding()).await.unwrap();
        bench.store.unreadable.store(true, Ordering::SeqCst);
        let at_once = bench.send(adding()).await.unwrap();
        assert!(at_once.replayed && at_once.order == first.order, "nothing has to be read for the present version");
        bench.tell(id, add_item()).await.unwrap();
        assert_eq!(bench.send(adding()).await.unwrap_err(), CommandError::OutcomeUnknown);
        bench.store.unreadable.store(false, Ordering::SeqCst);
        let later = bench.send(adding()).await.unwrap();
        assert!(later.replayed && later.order == first.order);
    });
}

#[test]
fn reads_of_the_past_are_admitted_like_everything_else() {
    run(async {
        let bench = Bench::start(Rules::ORDER, |limits| limits.waiting_max = 1).await;
        let id = bench.place().await;
        bench.store.hold();
        let past = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let state = bench.orders.get(id, At::Version(Version(1))).await.map(drop);
            let trail = bench.orders.trail(id, Version::NONE, 10).await.map(drop);
            bench.store.release();
            [state, trail]
        };
        let (answer, past) = tokio::join!(bench.tell(id, add_item()), past);
        answer.unwrap();
        for refused in past {
            assert!(matches!(refused.unwrap_err(), ReadError::NotDone { why: NotDone::Overloaded, .. }));
        }
        assert_eq!(bench.orders.trail(id, Version::NONE, 10).await.unwrap().events.len(), 2);
        assert_eq!(bench.orders.under_way(), 0);
    });
}

#[test]
fn after_quarantine_an_order_starts_from_its_events() {
    run(async {
        let rules = Rules { decide: decide_or_panic, ..Rules::ORDER };
        let bench = Bench::start(rules, |_| {}).await;
        let id = bench.place().await;
        for _ in 0..15 {
            bench.tell(id, add_item()).await.unwrap();
        }
        {
            let mut snapshots = bench.store.snapshots.lock().unwrap();
            let snapshot = snapshots.get_mut(&id).unwrap();
            snapshot.state = snapshot.state.replace("c-1", "somebody else");
        }
        for number in 0..6 {
            let bad = bench.request(id, Command::Cancel { reason: "panic".to_owned() });
            bench.send(bad.key(&number.to_string())).await.unwrap_err();
        }
        let error = bench.orders.get(id, At::Now).await.unwrap_err();
        assert!(matches!(error, ReadError::NotDone { why: NotDone::OrderQuarantined, .. }), "{error:?}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(bench.orders.get(id, At::Now).await.unwrap().customer_id, "c-1");
    });
}

#[test]
fn a_store_that_never_answers_a_read_does_not_keep_the_order_for_ever() {
    run(async {
        let bench = Bench::start(Rules::ORDER, |limits| {
            limits.stuck_after = Duration::from_secs(30);
            limits.loading_max = 1;
        })
        .await;
        let (id, other) = (bench.place().await, bench.place().await);
        for live in [true, false] {
            if !live {
                bench.let_go().await;
            }
            bench.store.hang_next.store(true, Ordering::SeqCst);
            // The other one has to wait for the only permit, and that is no failure of its own.
            let (stuck, _) = tokio::join!(bench.orders.get(id, At::Now), bench.orders.get(other, At::Now));
            let error = stuck.unwrap_err();
            assert!(matches!(error, ReadError::NotDone { why: NotDone::StoreAway, .. }), "{error:?}");
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert_eq!(bench.orders.get(id, At::Now).await.unwrap().version, Version(1));
            assert_eq!(bench.orders.get(other, At::Now).await.unwrap().version, Version(1));
            assert_eq!(bench.orders.under_way(), 0);
        }
        let failures = bench.ledger.last(10);
        assert_eq!(failures.len(), 2);
        for failure in failures {
            assert!(matches!(failure.cause, Cause::Stuck { .. }), "{:?}", failure.cause);
        }
    });
}

#[test]
fn snapshots_do_not_pile_up_behind_one_that_is_never_saved() {
    run(async {
        let bench = Bench::start(Rules::ORDER, |limits| limits.snapshot_every_events = 1).await;
        let id = OrderId::generate();
        bench.store.hang_next.store(true, Ordering::SeqCst);
        bench.tell(id, create("EUR", 100)).await.unwrap();
        for _ in 0..20 {
            bench.tell(id, add_item()).await.unwrap();
        }
        assert_eq!(bench.store.saves.load(Ordering::SeqCst), 1);
        bench.let_go().await;
        bench.tell(id, add_item()).await.unwrap();
        bench.let_go().await;
        assert!(bench.store.snapshots.lock().unwrap().contains_key(&id), "the next actor tries again");
    });
}

#[test]
fn what_a_quarantined_actor_left_with_the_journal_is_seen_when_it_lands() {
    run(async {
        let bench = bench().await;
        bench.store.sole_writer.store(true, Ordering::SeqCst);
        let id = bench.place().await;
        let first = bench.store.stored(id).remove(0);
        bench.let_go().await;
        bench.store.poison(id);
        for _ in 0..10 {
            bench.orders.get(id, At::Now).await.unwrap_err();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        bench.store.heal(first);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(bench.orders.get(id, At::Now).await.unwrap().version, Version(1));
        bench.store.land(id);
        assert_eq!(bench.orders.get(id, At::Now).await.unwrap().version, Version(2), "never a stale answer");
        assert_eq!(bench.tell(id, add_item()).await.unwrap().order.version, Version(3));
    });
}
