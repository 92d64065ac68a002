//! Positions that cannot be found: damaged, pruned, or of what was restored away.

use std::time::{Duration, Instant};

use actors::commit::CommitId;
use actors::event_store::EventStore;
use actors::log::{From, Log, LogError, Position};
use actors::testing::commits::{first, group};
use actors::testing::conformance::{PATIENCE, append, block_on, ids, written};
use futures_util::FutureExt;
use mongodb::bson::{Document, doc};
use servers::{MongoDatabase, MongoServer, Proxy, Request};

use super::{fails, follow_from, follow_now, follow_soon, given, one, open, open_in, open_talkative, refused, write};

/// Fewer than a test writes, more than a quiet moment does.
const OPLOG_ENTRIES: u32 = 2_000;

#[test]
fn a_token_that_was_damaged_is_refused() {
    block_on(async {
        let database = MongoDatabase::new();
        let store = open_in(database.uri(), database.name()).await;
        let mut follow = follow_now(&store).await;
        let opening = follow.position();
        one(&store).await;
        given(&mut follow, 1).await;
        let good = follow.position();
        let (resume, witness) = good.token.split_once(' ').expect("a token and its witness");
        let (other_resume, _) = opening.token.split_once(' ').expect("a token and its witness");
        let cut = &resume[..resume.len() / 4 * 2];
        let wrong = [
            resume.to_owned(),
            format!("{cut} {witness}"),
            format!("{} {witness}", "00".repeat(40)),
            format!("{}zz {witness}", &resume[2..]),
            // The token of another event.
            format!("{other_resume} {witness}"),
            format!("{resume} opening"),
        ];
        for token in wrong {
            refused(&store, &Position { token, ..good.clone() }).await;
        }
        let other = Position { commit: Some(CommitId::generate()), ..good.clone() };
        refused(&store, &other).await;
        drop(follow);
        // Nobody remembers it now: the store itself is asked.
        let store = open_in(database.uri(), database.name()).await;
        assert!(refused(&store, &other).await.contains("the store does not have"));
        follow_from(&store, &good).await;
        follow_from(&store, &opening).await;
    });
}

#[test]
fn a_position_that_was_pruned_while_nobody_followed_is_lost() {
    block_on(async {
        let server = MongoServer::start_with_oplog_of(OPLOG_ENTRIES).await;
        let store = open(&server.uri()).await;
        let mut follow = follow_now(&store).await;
        let old = follow.position();
        write(&store, 100).await;
        given(&mut follow, 100).await;
        let newer = follow.position();
        drop((follow, store));
        let store = open(&server.uri()).await;
        write(&store, 2 * OPLOG_ENTRIES as usize).await;
        for lost in [&old, &newer] {
            let why = refused(&store, lost).await;
            assert!(why.contains("ChangeStreamHistoryLost"), "{why}");
        }
        let mut follow = follow_now(&store).await;
        let new = one(&store).await;
        assert_eq!(given(&mut follow, 1).await, [new]);
    });
}

/// What others write fills the oplog, too.
#[test]
fn a_position_outlives_any_silence_of_the_log() {
    block_on(async {
        let server = MongoServer::start_with_oplog_of(OPLOG_ENTRIES).await;
        let store = open_talkative(&server.uri(), Duration::from_millis(500)).await;
        let mut follow = follow_now(&store).await;
        let last = one(&store).await;
        assert_eq!(given(&mut follow, 1).await, [last]);
        let mut saved = follow.position();
        let behind_the_last = saved.clone();
        let client = mongodb::Client::with_uri_str(server.uri()).await.expect("an address");
        let foreign = client.database("foreign").collection::<Document>("documents");
        for _ in 0..4 {
            foreign.insert_many(vec![doc! {}; OPLOG_ENTRIES as usize / 2]).await.expect("written");
            let before = saved.clone();
            while saved == before {
                let nothing = tokio::time::timeout(PATIENCE, follow.next(100)).await.expect("in time");
                assert!(nothing.expect("the log can be followed").is_empty());
                saved = follow.position();
            }
        }
        drop((follow, store));

        let store = open(&server.uri()).await;
        refused(&store, &behind_the_last).await;
        let mut follow = follow_from(&store, &saved).await;
        let new = one(&store).await;
        assert_eq!(given(&mut follow, 1).await, [new]);
    });
}

/// Another server may be behind the one that gave a position, and have its witness from a copy. It takes the place for one
/// that is to come, and would give nothing until then.
#[test]
fn a_place_beyond_the_end_of_the_log_is_lost_at_once() {
    block_on(async {
        let database = MongoDatabase::new();
        let store = open_in(database.uri(), database.name()).await;
        let mut follow = follow_now(&store).await;
        one(&store).await;
        given(&mut follow, 1).await;
        let good = follow.position();
        let [token, time, witness] = good.token.split(' ').collect::<Vec<_>>()[..] else { panic!("{good:?}") };
        let (seconds, count) = time.split_once('.').expect("a time");
        let ahead = format!("{}.{count}", seconds.parse::<u32>().expect("seconds") + 3_600);
        drop(follow);
        let store = open_in(database.uri(), database.name()).await;
        let why = refused(&store, &Position { token: format!("{token} {ahead} {witness}"), ..good.clone() }).await;
        assert!(why.contains("beyond the end of the log"), "{why}");
        follow_from(&store, &good).await;
    });
}

/// Openings are deleted when they are old. Whoever still has one as a witness scans; nobody takes the store for another.
#[test]
fn an_opening_that_was_deleted_is_a_lost_position_and_no_other_store() {
    block_on(async {
        let server = MongoServer::start().await;
        let proxy = Proxy::before(server.address());
        let (store, writer) = (open(&proxy.uri()).await, open(&server.uri()).await);
        let mut follow = follow_now(&store).await;
        let last = one(&writer).await;
        assert_eq!(given(&mut follow, 1).await, [last]);
        let opening = follow_now(&store).await.position();
        let client = mongodb::Client::with_uri_str(server.uri()).await.expect("an address");
        let openings = client.database(super::DATABASE).collection::<Document>("openings");
        openings.delete_many(doc! {}).await.expect("deleted");
        proxy.drop_connections();
        fails(&mut follow).await;
        proxy.pass();
        let mut again = follow_soon(&store, From::Now).await;
        let new = one(&writer).await;
        assert_eq!(given(&mut again, 1).await, [new]);
        assert!(store.replaced().now_or_never().is_none());
        let why = refused(&store, &opening).await;
        assert!(why.contains("the store does not have the opening"), "{why}");
    });
}

/// Its requests do not arrive, and meanwhile the oplog forgets what it has not read: the test server then goes on behind
/// the gap without a word.
#[test]
fn a_live_stream_that_was_overtaken_by_pruning_is_not_believed() {
    block_on(async {
        let server = MongoServer::start_with_oplog_of(OPLOG_ENTRIES).await;
        let proxy = Proxy::before(server.address());
        let (store, writer) = (open(&proxy.uri()).await, open(&server.uri()).await);
        let mut follow = follow_now(&store).await;
        let old = one(&writer).await;
        assert_eq!(given(&mut follow, 1).await, [old]);
        let position = follow.position();
        proxy.hold_requests(|request: &Request| request.command == "getMore");
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(6) {
            write(&writer, 100).await;
        }
        write(&writer, 2 * OPLOG_ENTRIES as usize).await;
        proxy.pass();
        let lost = fails(&mut follow).await;
        assert!(matches!(lost, LogError::NoPosition(_)), "{lost:?}");
        assert_eq!(follow.position(), position, "nothing behind the gap was given");
        refused(&store, &position).await;
        // Those who come after it are not bound to what is lost.
        let mut again = follow_now(&store).await;
        let new = one(&writer).await;
        assert_eq!(given(&mut again, 1).await, [new]);
    });
}

#[test]
fn a_reader_far_behind_that_was_overtaken_by_pruning_is_told() {
    block_on(async {
        let server = MongoServer::start_with_oplog_of(OPLOG_ENTRIES).await;
        let store = open(&server.uri()).await;
        let start = follow_now(&store).await.position();
        write(&store, 1_500).await;
        drop(store);
        let store = open(&server.uri()).await;
        let mut behind = follow_from(&store, &start).await;
        given(&mut behind, 100).await;
        write(&store, 2 * OPLOG_ENTRIES as usize).await;
        let lost = fails(&mut behind).await;
        assert!(matches!(lost, LogError::NoPosition(_)), "{lost:?}");
    });
}

#[test]
fn a_store_that_was_restored_from_an_older_copy_refuses_newer_positions_only() {
    block_on(async {
        let mut server = MongoServer::start().await;
        let store = open(&server.uri()).await;
        let mut follow = follow_now(&store).await;
        let opening = follow.position();
        let kept = one(&store).await;
        given(&mut follow, 1).await;
        let older = follow.position();
        drop((follow, store));
        server.back_up().await;

        let store = open(&server.uri()).await;
        let empty_handed = follow_now(&store).await.position();
        let mut follow = follow_from(&store, &older).await;
        let lost = first(1);
        written(&store, &lost).await;
        given(&mut follow, 1).await;
        let newer = follow.position();
        drop((follow, store));
        server.restore().await;

        let store = open(&server.uri()).await;
        for written_since in [0, 500] {
            write(&store, written_since).await;
            for lost in [&newer, &empty_handed] {
                refused(&store, lost).await;
            }
        }
        let mut follow = follow_from(&store, &opening).await;
        assert_eq!(given(&mut follow, 1).await, [kept]);
        follow_from(&store, &older).await;

        // Somebody who lived through it writes it once more: the witness is there again, its event at another place.
        assert!(matches!(append(&store, &lost).await, actors::event_store::Appended::Written));
        drop(follow);
        let fresh = open(&server.uri()).await;
        refused(&fresh, &newer).await;
        let scanned = fresh.scan(None, 1_000).await.expect("scan");
        assert_eq!(scanned.len(), 502);
        assert!(ids(&scanned).contains(&lost.id()));
        assert!(
            fresh.append(group([first(1)])).await.iter().all(|o| matches!(o, actors::event_store::Appended::Written))
        );
    });
}
