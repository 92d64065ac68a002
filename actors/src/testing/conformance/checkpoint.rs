//! What every adapter of the checkpoints has to do. Each function gets checkpoints that are new and empty; those about
//! leases get two processes' ways to them.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::checkpoint::{Begun, Checkpoint, CheckpointError, Checkpoints};
use crate::clock::Timestamp;
use crate::commit::CommitId;
use crate::log::{LogId, Position};

use super::PATIENCE;

/// How far the log was published.
pub fn checkpoint(number: u32) -> Checkpoint {
    let commit = number.is_multiple_of(2).then(|| CommitId(Uuid::from_u128(number.into())));
    let log = LogId(Uuid::from_u128(7));
    let position = Position { log, token: format!("$it's \"{number}\""), commit };
    Checkpoint { position, recorded_at: Timestamp::from_millis(1_795_000_000_000 + i64::from(number)) }
}

async fn begun(checkpoints: &dyn Checkpoints) -> Begun {
    checkpoints.begin().await.expect("begun")
}

/// Nothing is there at first, and then what was stored last, as it was.
///
/// # Panics
/// When the adapter does not conform.
pub async fn what_was_stored_last_is_found(checkpoints: &dyn Checkpoints) {
    let first = begun(checkpoints).await;
    assert_eq!(first.checkpoint, None);
    for number in 1..=3 {
        assert!(checkpoints.save(first.term, Some(checkpoint(number))).await.expect("an answer"));
    }
    assert!(checkpoints.save(first.term, None).await.expect("an answer"), "only held on to");
    let second = begun(checkpoints).await;
    assert!(second.term > first.term, "{second:?} after {first:?}");
    assert_eq!(second.checkpoint, Some(checkpoint(3)));
    // An earlier place, as after a store was restored.
    assert!(checkpoints.save(second.term, Some(checkpoint(1))).await.expect("an answer"));
    assert_eq!(begun(checkpoints).await.checkpoint, Some(checkpoint(1)));
}

/// A later term refuses all that comes under earlier ones.
///
/// # Panics
/// When the adapter does not conform.
pub async fn an_earlier_term_stores_nothing(checkpoints: &dyn Checkpoints) {
    let first = begun(checkpoints).await;
    assert!(checkpoints.save(first.term, Some(checkpoint(1))).await.expect("an answer"));
    let second = begun(checkpoints).await;
    for late in [Some(checkpoint(9)), None] {
        assert!(!checkpoints.save(first.term, late).await.expect("an answer"));
    }
    checkpoints.release(first.term).await.expect("an answer");
    assert!(checkpoints.save(second.term, None).await.expect("an answer"), "it is still the present term");
    assert_eq!(begun(checkpoints).await.checkpoint, Some(checkpoint(1)));
}

/// Whoever begins at once with others has a term of its own.
///
/// # Panics
/// When the adapter does not conform.
pub async fn of_several_terms_at_once_one_is_the_last(checkpoints: &dyn Checkpoints) {
    let begun = futures_util::future::join_all((0..8).map(|_| checkpoints.begin())).await;
    let mut terms: Vec<_> = begun.into_iter().filter_map(Result::ok).map(|begun| begun.term).collect();
    let count = terms.len();
    assert!(count > 0, "nobody began");
    terms.sort_unstable();
    terms.dedup();
    assert_eq!(terms.len(), count, "each once");
    for (place, term) in terms.iter().enumerate() {
        let saved = checkpoints.save(*term, Some(checkpoint(1))).await.expect("an answer");
        assert_eq!(saved, place + 1 == count, "only the last one stores");
    }
}

/// A process that holds on to its lease keeps the other one out, and is never in its own way.
///
/// # Panics
/// When the adapter does not conform.
pub async fn a_lease_keeps_others_out(one: &dyn Checkpoints, other: &dyn Checkpoints) {
    let first = begun(one).await;
    let lease = first.lease.expect("several processes share it");
    let until = Instant::now() + lease * 2;
    while Instant::now() < until {
        assert!(one.save(first.term, Some(checkpoint(1))).await.expect("an answer"));
        match other.begin().await {
            Err(CheckpointError::Held { ends_in, .. }) => assert!(ends_in <= lease, "{ends_in:?}"),
            begun => panic!("{begun:?}"),
        }
        sleep(lease / 10).await;
    }
    assert!(begun(one).await.term > first.term);
}

/// What is given up can be had at once; what nobody holds on to, after the length of the lease.
///
/// # Panics
/// When the adapter does not conform.
pub async fn a_lease_ends(one: &dyn Checkpoints, other: &dyn Checkpoints) {
    let first = begun(one).await;
    assert!(one.save(first.term, Some(checkpoint(1))).await.expect("an answer"));
    one.release(first.term).await.expect("an answer");
    let second = begun(other).await;
    assert_eq!(second.checkpoint, Some(checkpoint(1)));
    assert!(!one.save(first.term, Some(checkpoint(2))).await.expect("an answer"));
    let third = taken_over(one).await;
    assert!(third.term > second.term, "{third:?} after {second:?}");
    assert_eq!(third.checkpoint, Some(checkpoint(1)));
    assert!(!other.save(second.term, Some(checkpoint(3))).await.expect("an answer"));
}

/// One that is over, and that nobody else has taken, is held again with the next word.
///
/// # Panics
/// When the adapter does not conform.
pub async fn a_lease_that_is_over_can_be_held_again(one: &dyn Checkpoints, other: &dyn Checkpoints) {
    let first = begun(one).await;
    sleep(first.lease.expect("several processes share it") * 2).await;
    assert!(one.save(first.term, Some(checkpoint(1))).await.expect("an answer"));
    let refused = other.begin().await;
    assert!(matches!(refused, Err(CheckpointError::Held { .. })), "{refused:?}");
}

/// Begins as soon as it is let.
async fn taken_over(checkpoints: &dyn Checkpoints) -> Begun {
    let until = Instant::now() + PATIENCE;
    loop {
        match checkpoints.begin().await {
            Ok(begun) => return begun,
            Err(error) => assert!(Instant::now() < until, "still {error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}
