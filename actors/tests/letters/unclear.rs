//! What the store does not say, or says too late: an answer is never more than what is known, and whatever is stored is
//! noticed by the subscriber at work.

use actors::inbox::InboxError;
use actors::supervisor::Root;

use super::*;

/// Longer than the first wait between two questions about a transaction, shorter than two.
const MEANWHILE: Duration = Duration::from_millis(100);

impl World {
    /// The subscriber at work, with nothing to do.
    async fn at_work(&self) -> (Root, SubscriberHandle) {
        let (child, handle) = self.subscriber();
        let node = Node::root("docket", Arc::clone(&self.clock), Ledger::new("test"), 1);
        let root = Supervisor::new(Strategy::OneForOne, Policy::default()).child(child).start(&node);
        tokio::time::sleep(Duration::from_secs(5)).await;
        (root, handle)
    }

    /// Somebody else writes the order's row while the store is asked again.
    async fn touched_meanwhile<T>(&self, order: OrderId, done: impl Future<Output = T>) -> T {
        let touch = async {
            tokio::time::sleep(MEANWHILE).await;
            self.inbox.touch(order);
        };
        tokio::join!(done, touch).0
    }
}

async fn end(root: Root) {
    root.handle().end();
    root.await;
}

#[test]
fn a_discard_that_was_done_is_never_said_not_to_be_though_its_row_was_written_again_since() {
    run(async {
        let world = World::new();
        let letters = world.letters();
        for (fault, seconds) in [(Fault::UnknownWritten, 1), (Fault::UnknownLost, 1)] {
            let id = world.held(HoldState::Dead, 1, seconds, one_place()).await;
            world.inbox.fail([fault]);
            let decision = decision();
            let discard = world.touched_meanwhile(id.order, letters.discard(id, &decision)).await.unwrap();
            assert_eq!(world.inbox.discards(id.order).await.unwrap(), [discard], "{fault:?}");
            assert_eq!(world.row(id.order).applied, Version(2), "{fault:?}");
        }
    });
}

#[test]
fn whether_a_retry_was_done_is_said_to_be_unknown_when_its_row_was_written_again_since() {
    run(async {
        let world = World::new();
        let letters = world.letters();
        for fault in [Fault::UnknownWritten, Fault::UnknownLost] {
            let id = world.held(HoldState::Dead, 1, 1, one_place()).await;
            world.inbox.fail([fault]);
            let retried = world.touched_meanwhile(id.order, letters.retry(id)).await;
            assert!(matches!(retried, Err(LetterError::Store(InboxError::Unknown(_)))), "{fault:?}: {retried:?}");
        }
    });
}

#[test]
fn a_store_that_is_away_after_an_unknown_outcome_makes_nothing_certain() {
    run(async {
        let world = World::new();
        let letters = world.letters();
        let id = world.held(HoldState::Dead, 1, 1, one_place()).await;
        world.inbox.fail([Fault::UnknownWritten, Fault::Away, Fault::Away, Fault::Away, Fault::Away]);
        let retried = letters.retry(id).await;
        assert!(matches!(retried, Err(LetterError::Store(InboxError::Unknown(_)))), "{retried:?}");
        let id = world.held(HoldState::Dead, 1, 1, one_place()).await;
        world.inbox.fail([Fault::UnknownWritten, Fault::Away]);
        assert_eq!(letters.retry(id).await.unwrap().hold.state, HoldState::Retrying, "it is asked again");
    });
}

#[test]
fn what_is_stored_is_noticed_by_who_is_at_work_whatever_the_answer_was() {
    run(async {
        let world = World::new();
        let ids = [
            world.held(HoldState::Dead, 1, 1, one_place()).await,
            world.held(HoldState::Dead, 1, 1, one_place()).await,
        ];
        let (root, handle) = world.at_work().await;
        world.inbox.fail([Fault::UnknownWritten, Fault::Away, Fault::Away, Fault::Away, Fault::Away]);
        let retried = handle.letters().retry(ids[0]).await;
        assert!(matches!(retried, Err(LetterError::Store(InboxError::Unknown(_)))), "{retried:?}");
        // Whoever asked has gone.
        world.inbox.fail([Fault::UnknownWritten]);
        let given_up = tokio::time::timeout(MEANWHILE, handle.letters().retry(ids[1])).await;
        assert!(given_up.is_err(), "{given_up:?}");
        tokio::time::sleep(Duration::from_secs(5)).await;
        for id in ids {
            assert!(world.row(id.order).applying.is_ready(), "{:?}", world.row(id.order));
        }
        end(root).await;
    });
}

#[test]
fn of_many_the_first_begin_while_the_rest_is_being_written() {
    run(async {
        let world = World::new();
        for _ in 0..600 {
            world.held(HoldState::Dead, 1, 1, one_place()).await;
        }
        let (root, handle) = world.at_work().await;
        let letters = [handle.letters().clone()];
        let rows = |is: fn(&Row) -> bool| world.inbox.all_rows().iter().filter(|row| is(row)).count();
        world.fate.set(Faults { delay_max: Duration::from_secs(3), ..Faults::default() });
        let retried = Letters::retry_all(&letters, &many(Filter::default(), 600, 10_000)).await.unwrap();
        assert_eq!((retried.retried, retried.left, retried.resting), (600, 0, false));
        assert!(rows(|row| row.applied > Version(1)) > 0, "nobody was told before all were written");
        world.fate.set(Faults::default());
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(rows(|row| row.applying.is_ready()), 600);
        end(root).await;
    });
}

#[test]
fn that_a_subscriber_rests_is_said_to_whoever_retries_many() {
    run(async {
        let world = World::new();
        world.held(HoldState::Dead, 1, 1, one_place()).await;
        world.inbox.set_paused(true).await.unwrap();
        let retried = Letters::retry_all(&[world.letters()], &many(Filter::default(), 1, 100)).await.unwrap();
        assert!(retried.resting);
    });
}
