//! One change stream for all who keep up, and servers that go away under it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::commit::{Commit, CommitId, StreamEnd};
use actors::event_store::{Appended, StoreError};
use actors::log::{Follow, From, Log, LogError, Position};
use actors::order::OrderId;
use actors::testing::commits::commit;
use actors::testing::conformance::{PATIENCE, append, block_on};
use docket::mongo::Store;
use servers::{MongoDatabase, MongoServer, Proxy};
use tokio::time::timeout;

use super::{fails, follow_from, follow_now, follow_soon, given, one, open, open_in, sorted, until, write};

#[test]
fn those_who_keep_up_share_one_change_stream_that_is_closed_when_nobody_follows() {
    block_on(async {
        let database = MongoDatabase::new();
        let store = open_in(database.uri(), database.name()).await;
        assert_eq!(store.change_streams(), 0);
        let mut follows = [follow_now(&store).await, follow_now(&store).await];
        let before = follows[0].position();
        let all = write(&store, 300).await;
        // Behind it, and yet within what is remembered.
        let mut late = follow_from(&store, &before).await;
        for follow in follows.iter_mut().chain([&mut late]) {
            assert_eq!(sorted(given(follow, all.len()).await), sorted(all.clone()));
        }
        assert_eq!(store.change_streams(), 1);
        drop((follows, late));
        until("the change stream is closed", || store.change_streams() == 0).await;
        let mut again = follow_from(&store, &before).await;
        assert_eq!(sorted(given(&mut again, all.len()).await), sorted(all));
        let new = one(&store).await;
        assert_eq!(given(&mut again, 1).await, [new]);
        assert_eq!(store.change_streams(), 1, "it has gone over to the shared one");
    });
}

#[test]
fn who_stops_reading_holds_nobody_up_and_goes_on_where_it_was() {
    block_on(async {
        let database = MongoDatabase::new();
        let store = open_in(database.uri(), database.name()).await;
        let (mut quick, mut slow) = (follow_now(&store).await, follow_now(&store).await);
        let first = one(&store).await;
        assert_eq!(given(&mut slow, 1).await, [first]);
        assert_eq!(given(&mut quick, 1).await, [first]);
        let mut all = Vec::new();
        // More than is remembered.
        for _ in 0..5 {
            let some = write(&store, 2_000).await;
            assert_eq!(sorted(given(&mut quick, some.len()).await), sorted(some.clone()));
            all.extend(some);
        }
        assert_eq!(store.change_streams(), 1);
        assert_eq!(sorted(given(&mut slow, all.len()).await), sorted(all));
        let new = one(&store).await;
        assert_eq!(given(&mut slow, 1).await, [new]);
    });
}

#[test]
fn followers_at_different_places_get_everything_once_though_the_server_is_killed_again_and_again() {
    block_on(async {
        let mut server = MongoServer::start().await;
        let store = open(&server.uri()).await;
        let mut orders: Vec<Order> = (0..20).map(|_| Order::new()).collect();
        let mut followers = vec![Follower::now(&store, &orders).await];
        for _ in 0..3 {
            followers.push(Follower::now(&store, &orders).await);
            for _ in 0..5 {
                for order in &mut orders {
                    order.grow(&store).await;
                }
                for (place, follower) in followers.iter_mut().enumerate().skip(1) {
                    follower.read(&store, 7 * place).await;
                }
            }
            server.kill();
            for follower in &mut followers {
                follower.read_until_told(&store).await;
            }
            server.restart().await;
        }
        for follower in &mut followers {
            follower.read_all(&store, &orders).await;
            for order in &orders {
                assert_eq!(follower.given_of(order), order.from(follower.from), "each once, in its order");
            }
        }
    });
}

/// An order whose commits are one event each.
struct Order {
    end: StreamEnd,
    commits: Vec<Arc<Commit>>,
}

impl Order {
    fn new() -> Self {
        Self { end: StreamEnd::nothing(OrderId::generate()), commits: Vec::new() }
    }

    /// By one commit, written until the outcome is known.
    async fn grow(&mut self, store: &Store) {
        let next = commit(&self.end, 1);
        while !matches!(append(store, &next).await, Appended::Written) {}
        self.end = next.stored_end();
        self.commits.push(next);
    }

    /// Its commits but the first `count`.
    fn from(&self, count: usize) -> Vec<CommitId> {
        self.commits.iter().skip(count).map(|commit| commit.id()).collect()
    }
}

/// Who opens the log again from its last position whenever it fails.
struct Follower {
    position: Position,
    follow: Option<Box<dyn Follow>>,
    /// Of each order so many commits are before its first position.
    from: usize,
    given: Vec<(OrderId, CommitId)>,
}

impl Follower {
    /// One that does not read yet.
    async fn now(store: &Store, orders: &[Order]) -> Self {
        let position = follow_soon(store, From::Now).await.position();
        Self { position, follow: None, from: orders[0].commits.len(), given: Vec::new() }
    }

    /// Some more, when the server is there.
    async fn read(&mut self, store: &Store, max: usize) {
        let follow = match self.follow.take() {
            Some(follow) => Ok(follow),
            None => store.follow(From::Position(self.position.clone())).await,
        };
        let read = match follow {
            Ok(mut follow) => timeout(PATIENCE, follow.next(max)).await.expect("in time").map(|read| (follow, read)),
            Err(error) => Err(error),
        };
        match read {
            Ok((follow, commits)) => {
                self.given.extend(commits.iter().map(|commit| (commit.order(), commit.id())));
                self.position = follow.position();
                self.follow = Some(follow);
            }
            Err(LogError::Store(_)) => {}
            Err(error @ LogError::NoPosition(_)) => panic!("{error}"),
        }
    }

    async fn read_until_told(&mut self, store: &Store) {
        while self.follow.is_some() {
            self.read(store, 10).await;
        }
    }

    async fn read_all(&mut self, store: &Store, orders: &[Order]) {
        let due: usize = orders.iter().map(|order| order.from(self.from).len()).sum();
        while self.given.len() < due {
            self.read(store, 50).await;
        }
    }

    fn given_of(&self, order: &Order) -> Vec<CommitId> {
        self.given.iter().filter(|(of, _)| *of == order.end.order()).map(|(_, id)| *id).collect()
    }
}

#[test]
fn while_the_server_is_away_everybody_is_told_soon() {
    block_on(async {
        let mut server = MongoServer::start().await;
        let store = open(&server.uri()).await;
        let mut waiting = follow_now(&store).await;
        let position = waiting.position();
        server.kill();
        let begun = Instant::now();
        assert!(matches!(fails(&mut waiting).await, LogError::Store(StoreError::Away(_))));
        for _ in 0..20 {
            for from in [From::Now, From::Position(position.clone())] {
                let refused = store.follow(from).await.err().expect("nobody is there");
                assert!(matches!(refused, LogError::Store(StoreError::Away(_))), "{refused:?}");
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        server.restart().await;
        let mut follow = follow_soon(&store, From::Position(position)).await;
        let new = one(&store).await;
        assert_eq!(given(&mut follow, 1).await, [new]);
    });
}

#[test]
fn a_server_that_falls_silent_is_noticed() {
    block_on(async {
        let server = MongoServer::start().await;
        let proxy = Proxy::before(server.address());
        let store = open(&proxy.uri()).await;
        let mut follow = follow_now(&store).await;
        let old = one(&store).await;
        assert_eq!(given(&mut follow, 1).await, [old]);
        let position = follow.position();
        proxy.stall();
        assert!(matches!(fails(&mut follow).await, LogError::Store(StoreError::Away(_))));
        let new = one(&open(&server.uri()).await).await;
        proxy.pass();
        let mut follow = follow_soon(&store, From::Position(position)).await;
        assert_eq!(given(&mut follow, 1).await, [new]);
    });
}
