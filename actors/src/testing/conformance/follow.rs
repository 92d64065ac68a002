//! Following the log: everything once, each order in its order, nothing skipped.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::commit::{Commit, CommitId, StreamEnd};
use crate::log::{Follow, From};
use crate::order::{OrderId, Version};
use crate::testing::commits::{commit, first, group};
use crate::testing::conformance::{Adapter, Store, ids, next, written};

/// How long what was written before may be kept back.
const LATE: Duration = Duration::from_secs(1);

async fn open(store: &dyn Store, from: From) -> Box<dyn Follow> {
    store.follow(from).await.expect("the log can be followed")
}

/// Who follows from now is given what is stored from now on, when it is.
///
/// # Panics
/// When the adapter does not conform.
pub async fn from_now<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let mut from_the_first = open(&*store, From::Now).await;
    let (old, new) = (first(1), first(2));
    written(&*store, &old).await;
    let mut follow = open(&*store, From::Now).await;
    let waits = futures_util::poll!(follow.next(10));
    assert!(waits.is_pending(), "there is nothing new yet");
    written(&*store, &new).await;
    assert_eq!(ids(&next(&mut follow, 1, 10).await), [new.id()]);
    assert_eq!(ids(&next(&mut from_the_first, 2, 10).await), [old.id(), new.id()]);
}

/// A position that was stored as text, of any place, is gone on from exactly there.
///
/// # Panics
/// When the adapter does not conform.
pub async fn from_any_position<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let mut follow = open(&*store, From::Now).await;
    let commits: Vec<_> = (0..30).map(|place| first(1 + place % 3)).collect();
    for commit in &commits {
        written(&*store, commit).await;
    }
    let mut positions = vec![follow.position()];
    for _ in &commits {
        next(&mut follow, 1, 1).await;
        positions.push(follow.position());
    }
    let late = first(1);
    written(&*store, &late).await;
    let all: Vec<CommitId> = ids(&commits).into_iter().chain([late.id()]).collect();
    for (place, position) in positions.into_iter().enumerate() {
        let text = serde_json::to_string(&position).expect("JSON");
        let position = serde_json::from_str(&text).expect("a position");
        let ahead = store.ahead(&position).await;
        assert!(ahead.is_none_or(|ahead| ahead == (all.len() - place) as u64), "{ahead:?} are ahead of {place}");
        for max in [1, 7, 100] {
            let mut follow = open(&*store, From::Position(Clone::clone(&position))).await;
            assert_eq!(follow.position(), position, "nothing was given yet");
            assert_eq!(ids(&next(&mut follow, all.len() - place, max).await), all[place..], "from {place} by {max}");
        }
    }
}

/// Followers do not take from each other.
///
/// # Panics
/// When the adapter does not conform.
pub async fn by_several_at_once<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let mut follows = Vec::new();
    for _ in 0..5 {
        follows.push(open(&*store, From::Now).await);
    }
    let commits: Vec<_> = (0..20).map(|_| first(1)).collect();
    for commit in &commits {
        written(&*store, commit).await;
    }
    for (max, follow) in (1..).zip(&mut follows) {
        assert_eq!(ids(&next(follow, commits.len(), max).await), ids(&commits));
    }
}

/// While many write at once, every follower is given everything, once, each order in its order; also one that begins
/// again and again from its last position.
///
/// # Panics
/// When the adapter does not conform.
pub async fn behind_others_who_write<A: Adapter>() {
    const WRITERS: usize = 16;
    const COMMITS: usize = 40;
    let adapter = A::new().await;
    let store = adapter.open().await;
    let mut followers = Vec::new();
    for restless in [false, true, true] {
        let follow = open(&*store, From::Now).await;
        followers.push(tokio::spawn(follow_all(Arc::clone(&store), follow, WRITERS * COMMITS, restless)));
    }
    let writers: Vec<_> = (0..WRITERS).map(|_| tokio::spawn(write_an_order(Arc::clone(&store), COMMITS))).collect();
    let mut expected: HashMap<OrderId, Vec<CommitId>> = HashMap::new();
    for writer in writers {
        let commits = writer.await.expect("it writes");
        expected.insert(commits[0].order(), ids(&commits));
    }
    for follower in followers {
        let mut given: HashMap<OrderId, Vec<CommitId>> = HashMap::new();
        for commit in follower.await.expect("it follows") {
            given.entry(commit.order()).or_default().push(commit.id());
        }
        assert_eq!(given, expected);
    }
}

async fn follow_all(
    store: Arc<dyn Store>,
    mut follow: Box<dyn Follow>,
    count: usize,
    restless: bool,
) -> Vec<Arc<Commit>> {
    let mut commits = Vec::new();
    while commits.len() < count {
        commits.extend(next(&mut follow, 1, 7).await);
        if restless && commits.len() % 10 == 0 {
            follow = open(&*store, From::Position(follow.position())).await;
        }
    }
    commits
}

/// Each commit together with one of an order of somebody's who loses.
async fn write_an_order(store: Arc<dyn Store>, count: usize) -> Vec<Arc<Commit>> {
    let mut end = StreamEnd::nothing(OrderId::generate());
    let mut commits = Vec::new();
    for events in 0..count {
        let next = commit(&end, 1 + events % 3);
        written(&*store, &next).await;
        let refused = commit(&end, 1);
        let outcomes = store.append(group([refused])).await;
        assert!(matches!(outcomes[..], [crate::event_store::Appended::Conflict]), "{outcomes:?}");
        end = next.stored_end();
        commits.push(next);
    }
    commits
}

/// A commit that was begun before others and becomes visible behind them is not skipped, wherever it comes, whether or
/// not somebody waits for it: a store may keep back what lies behind it until it lands.
///
/// # Panics
/// When the adapter does not conform.
pub async fn what_lands_late<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let mut follow = open(&*store, From::Now).await;
    let (slow, quick, after) = (first(1), first(1), first(1));
    let Some(late) = adapter.begin_late(&store, Arc::clone(&slow)).await else { return };
    written(&*store, &quick).await;
    let early = tokio::time::timeout(LATE, follow.next(10)).await;
    let mut given = early.map_or_else(|_| Vec::new(), |early| ids(&early.expect("the log can be followed")));
    let early = given.len();
    assert_eq!(given, [quick.id()][..early], "what has not landed cannot be seen");
    let position = follow.position();
    late.land().await;
    written(&*store, &after).await;
    given.extend(ids(&next(&mut follow, 3 - early, 10).await));
    assert_eq!(given[2], after.id());
    assert!(given.contains(&slow.id()) && given.contains(&quick.id()), "{given:?}");
    let mut again = open(&*store, From::Position(position)).await;
    assert_eq!(ids(&next(&mut again, 3 - early, 10).await), given[early..]);
}

/// Whoever stops waiting and waits again misses nothing.
///
/// # Panics
/// When the adapter does not conform.
pub async fn a_dropped_future_loses_nothing<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let start = open(&*store, From::Now).await.position();
    let commits: Vec<_> = (0..50).map(|_| first(1)).collect();
    for commit in &commits {
        written(&*store, commit).await;
    }
    let mut follow = open(&*store, From::Position(start)).await;
    let mut given = Vec::new();
    while given.len() < commits.len() {
        let place = follow.position();
        match futures_util::poll!(follow.next(3)) {
            std::task::Poll::Ready(some) => given.extend(ids(&some.expect("the log can be followed"))),
            std::task::Poll::Pending => assert_eq!(follow.position(), place, "what was not given was not read"),
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(given, ids(&commits));
}

/// Who is thousands of commits behind is given them all, and then what is new.
///
/// # Panics
/// When the adapter does not conform.
pub async fn far_behind<A: Adapter>() {
    const GROUPS: usize = 60;
    const COMMITS: usize = 100;
    let adapter = A::new().await;
    let store = adapter.open().await;
    let mut follow = open(&*store, From::Now).await;
    for _ in 0..GROUPS {
        let outcomes = store.append(group((0..COMMITS).map(|_| first(1)))).await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, crate::event_store::Appended::Written)));
    }
    let given = next(&mut follow, GROUPS * COMMITS, 2_500).await;
    let mut orders: Vec<OrderId> = given.iter().map(|commit| commit.order()).collect();
    orders.sort_unstable();
    orders.dedup();
    assert_eq!(orders.len(), GROUPS * COMMITS, "each once");
    let new = first(1);
    written(&*store, &new).await;
    let newest = next(&mut follow, 1, 10).await;
    assert_eq!(ids(&newest), [new.id()]);
    assert_eq!(newest[0].first(), Version::FIRST);
}
