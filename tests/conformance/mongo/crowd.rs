//! More readers than connections, and a server that answers none of them: whoever writes is not behind them.

use std::time::{Duration, Instant};

use actors::event_store::{Appended, EventStore};
use actors::order::{OrderId, Version};
use actors::snapshots::Snapshots;
use actors::testing::commits::first;
use actors::testing::conformance::{PATIENCE, append, block_on};
use docket::mongo::server::Settings;
use docket::mongo::{Server, Store};
use futures_util::future::join_all;
use mongodb::bson::doc;
use servers::{MongoServer, Proxy};

const ANSWER_WITHIN: Duration = Duration::from_secs(4);
const READERS: usize = 1_000;

#[test]
fn writers_are_not_behind_a_crowd_of_readers() {
    block_on(async {
        let process = MongoServer::start().await;
        let proxy = Proxy::before(process.address());
        let settings = Settings { answer_within: ANSWER_WITHIN, pool_max: 8, ..Settings::new(&proxy.uri()) };
        let server = Server::new(&settings).await.expect("an address");
        let store = Store::open(&server, "docket").await.expect("a store");
        assert!(matches!(append(&store, &first(1)).await, Appended::Written));

        proxy.hold_requests(|request| request.command == "find");
        let readers = || (0..READERS).map(|_| OrderId::generate());
        let crowd = tokio::spawn({
            let store = store.clone();
            async move {
                let read = join_all(readers().map(|order| store.read(order, Version::FIRST, 10)));
                let from_later = join_all(readers().map(|order| store.read(order, Version(7), 10)));
                let load = join_all(readers().map(|order| store.load(order)));
                let (read, from_later, load) = tokio::join!(read, from_later, load);
                read.iter().chain(&from_later).all(Result::is_err) && load.iter().all(Result::is_err)
            }
        });
        let held = async {
            while proxy.passed().held < 4 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, held).await.expect("they read");

        let begun = Instant::now();
        let outcome = append(&store, &first(1)).await;
        assert!(matches!(outcome, Appended::Written), "{outcome:?} after {:?}", begun.elapsed());
        server.answer(server.database("admin").run_command(doc! { "ping": 1 })).await.expect("so is a lease");
        assert!(begun.elapsed() < ANSWER_WITHIN / 2, "{:?}", begun.elapsed());
        assert!(proxy.passed().held <= 4, "{:?}", proxy.passed());

        // Nobody waits for ever: for a turn, and then for an answer.
        let all_refused = tokio::time::timeout(ANSWER_WITHIN * 3, crowd).await.expect("they are told");
        assert!(all_refused.expect("no panic"));
        proxy.pass();
        assert!(store.read(OrderId::generate(), Version::FIRST, 10).await.expect("it answers").is_empty());
    });
}
