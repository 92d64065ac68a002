//! Nothing listens: everybody is told soon, and after that at once.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use actors::event_store::StoreError;
use actors::testing::conformance::block_on;
use docket::mongo::server::{Failed, Settings};
use docket::mongo::{OpenError, Server, Store};
use mongodb::bson::doc;

/// A port that nobody listens on.
fn nobody() -> String {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    format!("mongodb://127.0.0.1:{port}")
}

#[test]
fn nothing_is_sent_and_that_is_said_soon_and_then_at_once() {
    block_on(async {
        let select_within = Duration::from_millis(300);
        let settings = Settings { select_within, ..Settings::new(&nobody()) };
        let server = Server::new(&settings).await.expect("an address");
        let begun = Instant::now();
        let opened = Store::open(&server, "docket").await;
        assert!(matches!(opened, Err(OpenError::Away(StoreError::Away(_)))), "{:?}", opened.err());
        assert!(begun.elapsed() < select_within * 5, "{:?}", begun.elapsed());

        // The driver looks for a primary on its own account; nobody waits for it any more.
        let admin = server.database("admin");
        let begun = Instant::now();
        for _ in 0..100 {
            let refused = server.answer(admin.run_command(doc! { "ping": 1 })).await.expect_err("nobody is there");
            assert!(matches!(refused, Failed::NotDone(StoreError::Away(_))), "{refused:?}");
        }
        assert!(begun.elapsed() < select_within, "{:?}", begun.elapsed());
    });
}
