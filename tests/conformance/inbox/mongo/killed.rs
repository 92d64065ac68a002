//! A server that is killed while transactions are written.

use actors::inbox::Which;
use servers::MongoServer;

use super::*;

/// What was said to be written is there, what was in doubt is settled, and nothing is there twice.
#[tokio::test]
async fn kill_9_among_transactions_loses_nothing_and_repeats_nothing() {
    let mut server = MongoServer::start().await;
    let hasty = Settings {
        select_within: Duration::from_secs(1),
        answer_within: Duration::from_secs(2),
        ..Settings::new(&server.uri())
    };
    let inbox = Arc::new(open(&hasty, "killed", "one", LONG).await);
    let begun = inbox.begin().await.expect("begun");
    let (stop, mut stopped) = tokio::sync::watch::channel(0_u32);
    let orders: Vec<_> = (0..20).map(|_| OrderId::generate()).collect();
    let writes = {
        let (inbox, begun, orders) = (inbox.clone(), begun.clone(), orders.clone());
        tokio::spawn(async move {
            let mut rows: Vec<_> = orders.iter().map(|order| Row::new(*order)).collect();
            let mut count = 0_u32;
            while !stop.is_closed() {
                let transaction = Arc::new(applies(&begun, &rows));
                let settled = settle(&inbox, &transaction).await;
                let ours = inbox_rows(&inbox, &begun, &orders).await;
                assert!(ours.iter().all(|row| row.written_by == Some(transaction.id)), "{settled:?}: {ours:?}");
                rows = transaction.rows.iter().map(|write| write.row.clone()).collect();
                count += 1;
                stop.send_replace(count);
            }
            count
        })
    };
    for _ in 0..3 {
        let before = *stopped.borrow_and_update();
        stopped.wait_for(|count| *count > before + 5).await.expect("it writes");
        server.kill();
        server.restart().await;
    }
    let before = *stopped.borrow_and_update();
    stopped.wait_for(|count| *count > before + 5).await.expect("it writes");
    drop(stopped);
    let count = writes.await.expect("no panic");
    let rows = inbox_rows(&inbox, &begun, &orders).await;
    assert!(rows.iter().all(|row| row.applied.0 == count), "{count}: {rows:?}");
    let effects = inbox.effects(orders.clone(), Which::Waiting, usize::MAX).await.expect("effects");
    assert_eq!(effects.len(), orders.len() * usize::try_from(count).expect("few"), "one a version");
}

/// The rows of all of them, when the server is there.
async fn inbox_rows(inbox: &MongoInbox, begun: &actors::inbox::Begun, orders: &[OrderId]) -> Vec<Row> {
    loop {
        if let Ok(rows) = inbox.rows(begun.present.generation, orders.to_vec()).await {
            assert_eq!(rows.len(), orders.len());
            return rows;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
