//! A server that fails on purpose, stands still, or is of the wrong kind: what is said of a group is true, and what is
//! unknown is settled by writing it again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::commit::{Commit, StreamEnd};
use actors::event_store::{Appended, EventStore, StoreError};
use actors::order::Version;
use actors::testing::commits::{commit, first, group};
use actors::testing::conformance::{PATIENCE, append, block_on, ids};
use docket::mongo::server::Settings;
use docket::mongo::{OpenError, Server, Store, Unfit};
use mongodb::bson::{Document, doc};
use servers::{MongoServer, Proxy};

use super::open;

const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// A store on a server of its own.
struct Own {
    process: MongoServer,
    server: Server,
    store: Store,
}

impl Own {
    async fn start() -> Self {
        let process = MongoServer::start_with_failpoints().await;
        let settings = Settings { answer_within: ANSWER_WITHIN, ..Settings::new(&process.uri()) };
        let server = Server::new(&settings).await.expect("an address");
        let store = Store::open(&server, "docket").await.expect("a store");
        Self { process, server, store }
    }

    /// The next so many inserts go wrong like that.
    async fn fail_inserts(&self, times: i32, mut how: Document) {
        how.insert("failCommands", ["insert"].as_slice());
        let failpoint = doc! { "configureFailPoint": "failCommand", "mode": { "times": times }, "data": how };
        self.server.client().database("admin").run_command(failpoint).await.expect("it can fail on purpose");
    }

    async fn append(&self, commits: &[Arc<Commit>]) -> Vec<Appended> {
        self.store.append(group(commits.iter().cloned())).await
    }

    async fn is_there(&self, commit: &Commit) -> bool {
        let read = self.store.read(commit.order(), Version::FIRST, 1).await.expect("it answers");
        ids(&read) == [commit.id()]
    }
}

fn are_written(outcomes: &[Appended]) -> bool {
    outcomes.iter().all(|outcome| matches!(outcome, Appended::Written))
}

fn are_unknown(outcomes: &[Appended]) -> bool {
    outcomes.iter().all(|outcome| matches!(outcome, Appended::Unknown(_)))
}

fn are_not_done(outcomes: &[Appended]) -> bool {
    outcomes.iter().all(|outcome| matches!(outcome, Appended::NotDone(StoreError::Away(_))))
}

#[test]
fn what_a_majority_may_lack_is_unknown_until_it_is_written_again() {
    block_on(async {
        let own = Own::start().await;
        let (taken, there) = (first(1), first(1));
        assert!(are_written(&own.append(&[Arc::clone(&taken), Arc::clone(&there)]).await));
        let rival = commit(&StreamEnd::nothing(taken.order()), 2);
        let members = [first(1), rival, Arc::clone(&there), first(2)];
        own.fail_inserts(
            1,
            doc! { "writeConcernError": { "code": 64, "errmsg": "waiting for replication timed out" } },
        )
        .await;
        let outcomes = own.append(&members).await;
        // Who has a key is certain all the same.
        let [Appended::Unknown(_), Appended::Conflict, Appended::Written, Appended::Unknown(_)] = &outcomes[..] else {
            panic!("{outcomes:?}");
        };
        let outcomes = own.append(&members).await;
        let [Appended::Written, Appended::Conflict, Appended::Written, Appended::Written] = &outcomes[..] else {
            panic!("{outcomes:?}");
        };
    });
}

#[test]
fn one_lost_connection_is_the_drivers_affair_and_two_are_an_unknown_outcome() {
    block_on(async {
        let own = Own::start().await;
        own.fail_inserts(1, doc! { "closeConnection": true }).await;
        let members = [first(1), first(1)];
        let outcomes = own.append(&members).await;
        assert!(are_written(&outcomes), "{outcomes:?}");

        own.fail_inserts(2, doc! { "closeConnection": true }).await;
        let members = [first(1), first(1)];
        let outcomes = own.append(&members).await;
        assert!(are_unknown(&outcomes), "{outcomes:?}");
        assert!(are_written(&own.append(&members).await));
        assert!(own.is_there(&members[0]).await && own.is_there(&members[1]).await);
    });
}

#[test]
fn a_refusal_is_certain_only_when_the_server_says_that_nothing_was_written() {
    block_on(async {
        let own = Own::start().await;
        let members = [first(1), first(1)];
        let refusal = |labels: &[&str]| doc! { "errorCode": 10_107, "errorLabels": labels };
        own.fail_inserts(2, refusal(&["RetryableWriteError", "NoWritesPerformed"])).await;
        let outcomes = own.append(&members).await;
        assert!(are_not_done(&outcomes), "{outcomes:?}");
        assert!(!own.is_there(&members[0]).await);

        // Without that word an earlier attempt, or a part of this one, may have been carried out.
        own.fail_inserts(2, refusal(&["RetryableWriteError"])).await;
        let outcomes = own.append(&members).await;
        assert!(are_unknown(&outcomes), "{outcomes:?}");

        own.fail_inserts(1, refusal(&["RetryableWriteError"])).await;
        let outcomes = own.append(&members).await;
        assert!(are_written(&outcomes), "{outcomes:?}");
    });
}

/// An insert that the network keeps until somebody else was faster.
#[test]
fn what_lands_after_its_time_changes_nothing() {
    block_on(async {
        let process = MongoServer::start().await;
        let proxy = Proxy::before(process.address());
        let settings = Settings { answer_within: ANSWER_WITHIN, ..Settings::new(&proxy.uri()) };
        let server = Server::new(&settings).await.expect("an address");
        let store = Store::open(&server, "docket").await.expect("a store");
        let direct = open(&process.uri(), "docket").await;
        let (again, lost) = (first(2), first(2));
        let rival = commit(&StreamEnd::nothing(lost.order()), 1);
        for (late, then, as_written) in [(&again, &again, true), (&lost, &rival, true), (&lost, &lost, false)] {
            proxy.hold_requests(|request| request.command == "insert");
            let begun = Instant::now();
            let outcome = append(&store, late).await;
            assert!(matches!(outcome, Appended::Unknown(StoreError::Away(_))), "{outcome:?}");
            assert!(begun.elapsed() < ANSWER_WITHIN * 2, "{:?}", begun.elapsed());
            let outcome = append(&direct, then).await;
            assert!(matches!(outcome, Appended::Written) == as_written, "{outcome:?}");

            let before = proxy.passed();
            proxy.pass();
            let passes = async {
                while proxy.passed().answers <= before.answers {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(PATIENCE, passes).await.expect("it reaches the server");
            let read = store.read(then.order(), Version::FIRST, 10).await.expect("it answers");
            assert_eq!(ids(&read), [if as_written { then.id() } else { rival.id() }]);
        }
    });
}

#[test]
fn a_server_that_stands_still_costs_everybody_one_deadline_and_then_nothing_until_it_goes_on() {
    block_on(async {
        let own = Own::start().await;
        let there = first(1);
        assert!(are_written(&own.append(std::slice::from_ref(&there)).await));
        own.process.freeze();
        let (unknown, end, begun) = (first(1), there.stored_end(), Instant::now());
        let (outcome, newest) = tokio::join!(append(&own.store, &unknown), own.store.is_newest(&end));
        assert!(matches!(outcome, Appended::Unknown(_)), "{outcome:?}");
        assert!(newest.is_err());
        assert!(begun.elapsed() < ANSWER_WITHIN * 2, "{:?}", begun.elapsed());

        // Soon the driver notices; then it is said at once, and said to be certain.
        let refused = loop {
            assert!(begun.elapsed() < Duration::from_secs(20), "it still waits for a server that stands still");
            let (asked, refused) = (Instant::now(), append(&own.store, &first(1)).await);
            if asked.elapsed() < Duration::from_millis(50) {
                break refused;
            }
        };
        assert!(matches!(refused, Appended::NotDone(StoreError::Away(_))), "{refused:?}");

        own.process.thaw();
        let thawed = Instant::now();
        let settled = loop {
            assert!(thawed.elapsed() < Duration::from_secs(20), "it does not come back");
            match append(&own.store, &unknown).await {
                Appended::NotDone(_) | Appended::Unknown(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                settled @ (Appended::Written | Appended::Conflict) => break settled,
            }
        };
        assert!(matches!(settled, Appended::Written), "{settled:?}");
        assert!(own.store.is_newest(&unknown.stored_end()).await.expect("it answers"));
    });
}

#[test]
fn a_standalone_server_is_refused_with_the_way_out() {
    block_on(async {
        let process = MongoServer::start_standalone().await;
        let server = Server::new(&Settings::new(&process.uri())).await.expect("an address");
        let refused = Store::open(&server, "docket").await.err().expect("it will not do");
        assert!(matches!(refused, OpenError::Unfit(Unfit::Standalone)), "{refused}");
        let said = refused.to_string();
        assert!(said.contains("--replSet") && said.contains("rs.initiate()"), "{said}");
    });
}
