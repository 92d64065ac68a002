//! Unknown outcomes: the same commit is appended until the answer is definite, and is there once.

use std::sync::Arc;
use std::time::Duration;

use crate::commit::{Commit, StreamEnd};
use crate::event_store::{Appended, EventStore};
use crate::log::From;
use crate::order::OrderId;
use crate::testing::commits::{commit, first, group};
use crate::testing::conformance::{Adapter, append, ids, next, stream, written};
use crate::testing::faulty::{Fate, Faults, Faulty};

const FAULTS: Faults =
    Faults { error: 0.2, unknown: 0.5, delay_max: Duration::from_millis(2), late_max: Duration::from_millis(40) };

async fn until_definite(store: &(impl EventStore + ?Sized), commit: &Arc<Commit>) -> Appended {
    loop {
        match append(store, commit).await {
            definite @ (Appended::Written | Appended::Conflict) => return definite,
            Appended::NotDone(_) | Appended::Unknown(_) => {}
        }
    }
}

/// A writer that repeats what is unknown ends with exactly what it wrote, in its order.
///
/// # Panics
/// When the adapter does not conform.
pub async fn repeated_until_definite_is_there_once<A: Adapter>() {
    const COMMITS: usize = 15;
    let adapter = A::new().await;
    let store = adapter.open().await;
    let mut follow = store.follow(From::Now).await.expect("the end");
    let writers: Vec<_> = (0..4)
        .map(|seed| {
            let faulty = Faulty::new(Arc::clone(&store), Fate::new(seed, FAULTS));
            tokio::spawn(async move {
                let mut end = StreamEnd::nothing(OrderId::generate());
                let mut commits = Vec::new();
                for events in 0..COMMITS {
                    let next = commit(&end, 1 + events % 3);
                    let outcome = until_definite(&faulty, &next).await;
                    assert!(matches!(outcome, Appended::Written), "{outcome:?}");
                    end = next.stored_end();
                    commits.push(next);
                }
                commits
            })
        })
        .collect();
    let mut all = Vec::new();
    for writer in writers {
        let commits = writer.await.expect("it ends");
        assert_eq!(ids(&stream(&*store, commits[0].order()).await.expect("read")), ids(&commits));
        all.extend(ids(&commits));
    }
    let followed = ids(&next(&mut follow, all.len(), 100).await);
    assert!(all.iter().all(|id| followed.contains(id)), "the log has each of them, once");
}

/// A commit that nobody knows about and that lands late, behind another one with its key, is not stored.
///
/// # Panics
/// When the adapter does not conform.
pub async fn a_late_one_loses_to_another<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let late = Faults { error: 0.0, unknown: 1.0, delay_max: Duration::ZERO, late_max: Duration::from_millis(50) };
    for seed in 0..20 {
        let fate = Fate::new(seed, late);
        let faulty = Faulty::new(Arc::clone(&store), Arc::clone(&fate));
        let end = StreamEnd::nothing(OrderId::generate());
        let (unclear, other) = (commit(&end, 2), commit(&end, 3));
        let outcome = append(&faulty, &unclear).await;
        assert!(matches!(outcome, Appended::Unknown(_)), "{outcome:?}");
        let others = append(&*store, &other).await;
        fate.set(Faults::default());
        let settled = until_definite(&faulty, &unclear).await;
        let winner = match (&others, &settled) {
            (Appended::Written, Appended::Conflict) => &other,
            (Appended::Conflict, Appended::Written) => &unclear,
            both => panic!("{both:?}"),
        };
        written(&*store, &commit(&winner.stored_end(), 1)).await;
        let stored = stream(&*store, end.order()).await.expect("read");
        assert_eq!(stored[0].id(), winner.id());
        assert_eq!(stored.len(), 2);
    }
}

/// Who stops waiting for a group at any moment, and appends it again, finds each commit there once.
///
/// # Panics
/// When the adapter does not conform.
pub async fn dropped_and_appended_again_is_there_once<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let mut given_up = 0;
    let mut members = Vec::new();
    for micros in [0, 0, 20, 50, 100, 200, 400, 700, 1_000, 1_500, 2_000, 3_000, 5_000] {
        let some: Vec<_> = (0..20).map(|_| first(1)).collect();
        let append = store.append(group(some.clone()));
        given_up += usize::from(tokio::time::timeout(Duration::from_micros(micros), append).await.is_err());
        for member in some {
            let outcome = until_definite(&*store, &member).await;
            assert!(matches!(outcome, Appended::Written), "{outcome:?}");
            members.push(member);
        }
    }
    for member in &members {
        assert_eq!(ids(&stream(&*store, member.order()).await.expect("read")), [member.id()]);
    }
    assert_eq!(store.scan(None, 1_000).await.expect("scan").len(), members.len(), "{given_up} were given up");
}
