//! Appending: one writer of a version wins, and nobody else is disturbed.

use crate::commit::{BYTES_MAX, Commit, StreamEnd};
use crate::event_store::{Appended, EventStore, Group};
use crate::order::{OrderId, Version};
use crate::testing::commits::{commit, commit_with, first, first_of_bytes, group};
use crate::testing::conformance::{Adapter, append, ids, stream, written};

/// A commit is read as it was written, to the byte.
///
/// # Panics
/// When the adapter does not conform.
pub async fn written_is_stored_as_it_was<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let text = r#"{ "name" : "Zoë \"O'Neill\" \u0000 \\ 🦀",  "amount":9007199254740991, "exact": 1.10 }"#;
    let stored = commit_with(&StreamEnd::nothing(OrderId::generate()), 3, text);
    written(&*store, &stored).await;
    let read = EventStore::read(&*store, stored.order(), Version::FIRST, 10).await.expect("read");
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].encoded(), stored.encoded());
    assert_eq!(read[0].last(), Version(3));
    assert_eq!(read[0].commands()[0].events[0].data.get(), text);
}

/// Of two commits that continue the same end the first is stored and the second is not, now and for ever.
///
/// # Panics
/// When the adapter does not conform.
pub async fn the_first_writer_of_a_version_wins<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let winner = first(2);
    let loser = commit(&StreamEnd::nothing(winner.order()), 1);
    written(&*store, &winner).await;
    for _ in 0..2 {
        let outcome = append(&*store, &loser).await;
        assert!(matches!(outcome, Appended::Conflict), "{outcome:?}");
    }
    assert_eq!(ids(&stream(&*store, winner.order()).await.expect("read")), [winner.id()]);
}

/// Who repeats a commit is told that it is written, however often, and it is there once.
///
/// # Panics
/// When the adapter does not conform.
pub async fn the_same_commit_again_is_written<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let one = first(1);
    let next = commit(&one.stored_end(), 1);
    for _ in 0..3 {
        written(&*store, &one).await;
    }
    written(&*store, &next).await;
    written(&*store, &one).await;
    assert_eq!(ids(&stream(&*store, one.order()).await.expect("read")), [one.id(), next.id()]);
    assert_eq!(store.scan(None, 10).await.expect("scan").len(), 2);
}

/// In a group each commit has an outcome of its own, in the group's order.
///
/// # Panics
/// When the adapter does not conform.
pub async fn a_refused_member_keeps_nobody_from_being_written<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let (there, taken) = (first(1), first(1));
    written(&*store, &there).await;
    written(&*store, &taken).await;
    let refused = commit(&StreamEnd::nothing(taken.order()), 1);
    let (before, between, behind) = (first(1), first(3), commit(&there.stored_end(), 2));
    for round in 0..2 {
        let members = [&before, &refused, &between, &behind].map(std::sync::Arc::clone);
        let outcomes = store.append(group(members)).await;
        let as_expected =
            matches!(outcomes[..], [Appended::Written, Appended::Conflict, Appended::Written, Appended::Written]);
        assert!(as_expected, "{outcomes:?} in round {round}");
    }
    assert_eq!(store.scan(None, 10).await.expect("scan").len(), 5);
}

/// However many events a commit has, what continues an end that is not the last is refused.
///
/// # Panics
/// When the adapter does not conform.
pub async fn an_end_is_continued_once_whatever_its_commits_hold<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let order = OrderId::generate();
    let mut ends = vec![StreamEnd::nothing(order)];
    let mut expected = Version::NONE;
    for events in [1, 2, 3, 1, 3, 2, 2, 1, 1, 3] {
        for old in &ends[..ends.len() - 1] {
            let outcome = append(&*store, &commit(old, 2)).await;
            assert!(matches!(outcome, Appended::Conflict), "{outcome:?} behind {}", old.version());
        }
        let next = commit(&ends[ends.len() - 1], events);
        assert_eq!(next.first(), expected.next());
        written(&*store, &next).await;
        expected = next.last();
        ends.push(next.stored_end());
    }
    let versions: Vec<Version> = stream(&*store, order)
        .await
        .expect("read")
        .iter()
        .flat_map(|commit| commit.envelopes().map(|event| event.version).collect::<Vec<_>>())
        .collect();
    assert_eq!(versions, (1..=expected.0).map(Version).collect::<Vec<_>>());
}

/// Only the last end is the newest.
///
/// # Panics
/// When the adapter does not conform.
pub async fn nothing_newer_is_told_truly<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let mut ends = vec![StreamEnd::nothing(OrderId::generate())];
    assert!(store.is_newest(&ends[0]).await.expect("answers"));
    for events in [2, 1, 3] {
        let next = commit(&ends[ends.len() - 1], events);
        written(&*store, &next).await;
        // Neighbours of the order do not count.
        written(&*store, &first(1)).await;
        for old in &ends {
            assert!(!store.is_newest(old).await.expect("answers"), "{} is not the newest", old.version());
        }
        assert!(store.is_newest(&next.stored_end()).await.expect("answers"));
        ends.push(next.stored_end());
    }
}

/// Nothing to write is nothing to say.
///
/// # Panics
/// When the adapter does not conform.
pub async fn an_empty_group_has_no_outcomes<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    assert!(store.append(Group::default()).await.is_empty());
}

/// A group that is as large as a journal makes them is written as any other: many small commits, a few that are as large
/// as they may be, and one of a single command that is larger.
///
/// # Panics
/// When the adapter does not conform.
pub async fn the_largest_group_is_written<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let small = (0..251).map(|events| first(1 + events % 3));
    let large = [BYTES_MAX - 1_000, BYTES_MAX - 1_000, BYTES_MAX - 1_000, 100, 2 * BYTES_MAX].map(first_of_bytes);
    let members: Vec<_> = small.chain(large).collect();
    for _ in 0..2 {
        let outcomes = store.append(group(members.iter().cloned())).await;
        assert_eq!(outcomes.len(), members.len());
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Appended::Written)), "{outcomes:?}");
    }
    for member in &members {
        let read = EventStore::read(&*store, member.order(), Version::FIRST, 2).await.expect("read");
        assert_eq!(read.len(), 1);
        assert!(read[0].encoded() == member.encoded(), "{member:?} is another one");
    }
}

/// Of many who continue the same end at the same time exactly one wins, and everybody knows who.
///
/// # Panics
/// When the adapter does not conform.
pub async fn of_two_at_once_one_wins<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let mut end = StreamEnd::nothing(OrderId::generate());
    for events in 1..=10 {
        let rivals: Vec<_> = (0..8).map(|_| commit(&end, events)).collect();
        let outcomes = futures_util::future::join_all(rivals.iter().map(|rival| append(&*store, rival))).await;
        let winners: Vec<&std::sync::Arc<Commit>> = rivals
            .iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| match outcome {
                Appended::Written => true,
                Appended::Conflict => false,
                Appended::NotDone(_) | Appended::Unknown(_) => panic!("{outcome:?}"),
            })
            .map(|(rival, _)| rival)
            .collect();
        assert_eq!(winners.len(), 1, "{outcomes:?}");
        end = winners[0].stored_end();
        assert!(store.is_newest(&end).await.expect("answers"));
    }
}
