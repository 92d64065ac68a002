//! The registry of processes that share a database.

use std::time::{Duration, Instant};

use actors::clock::Timestamp;
use actors::nodes::{Nodes, Process, Seen};
use actors::testing::conformance::block_on;
use docket::mongo::MongoNodes;

use super::{Database, server};

fn process(name: &str) -> Process {
    Process {
        instance: format!("{name}/1"),
        // What looks like a field's path or an operator must stay a name.
        name: format!("${name}.$set"),
        http: "127.0.0.1:8080".to_owned(),
        ops: "127.0.0.1:8081".to_owned(),
        version: "1.2.3".to_owned(),
        roles: vec!["orders".to_owned(), "notification".to_owned()],
        active: vec!["notification".to_owned()],
        // Far from the server's clock: it is told as it is, and nothing is computed with it.
        started_at: Timestamp::from_millis(1),
        heartbeat_ms: 50,
    }
}

fn named(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(|seen| seen.process.instance.as_str()).collect()
}

/// Tries until it holds; fails after a minute.
async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < until, "in vain");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn of_two_the_one_that_died_is_silent_for_longer_and_longer_until_it_is_forgotten() {
    block_on(async {
        let database = Database::new();
        let nodes = MongoNodes::new(&server(database.0.uri()).await, database.0.name());
        let (dead, alive) = (process("a"), process("b"));
        nodes.beat(&dead).await.expect("taken");
        nodes.beat(&alive).await.expect("taken");
        let both = nodes.list().await.expect("read");
        assert_eq!(both.iter().map(|seen| &seen.process).collect::<Vec<_>>(), [&dead, &alive]);

        eventually(async || {
            nodes.beat(&alive).await.expect("taken");
            let both = nodes.list().await.expect("read");
            assert_eq!(named(&both), ["a/1", "b/1"]);
            !both[0].is_alive() && both[0].silent_for > both[1].silent_for + Duration::from_millis(200)
        })
        .await;

        // It speaks again as if nothing had been, and then is gone for good.
        nodes.beat(&dead).await.expect("taken");
        assert!(nodes.list().await.expect("read")[0].silent_for < Duration::from_secs(5));
        let silent_for = nodes.list().await.expect("read")[0].silent_for;
        eventually(async || {
            nodes.beat(&alive).await.expect("taken");
            nodes.forget(silent_for + Duration::from_millis(300)).await.expect("done");
            named(&nodes.list().await.expect("read")) == ["b/1"]
        })
        .await;
        nodes.forget(Duration::from_secs(3_600)).await.expect("done");
        assert_eq!(named(&nodes.list().await.expect("read")), ["b/1"]);
    });
}

#[test]
fn who_leaves_is_gone_at_once_and_may_leave_again() {
    block_on(async {
        let database = Database::new();
        let nodes = MongoNodes::new(&server(database.0.uri()).await, database.0.name());
        nodes.beat(&process("a")).await.expect("taken");
        nodes.beat(&process("b")).await.expect("taken");
        for _ in 0..2 {
            nodes.leave("a/1").await.expect("gone");
            assert_eq!(named(&nodes.list().await.expect("read")), ["b/1"]);
        }
    });
}
