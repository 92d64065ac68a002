//! A broker that is out of memory: it says so, what is on its way waits for it, and consumers go on.

use std::time::Duration;

use actors::testing::conformance::broker::{bodies, consumer, contents, messages, next, publish, soon};
use docket::rabbit::Settings;
use servers::RabbitServer;
use tokio::time::timeout;

use super::{ANALYTICS, broker};

#[tokio::test]
async fn what_is_on_its_way_waits_beyond_any_deadline_and_consumers_go_on() {
    let server = RabbitServer::start().await;
    let vhost = server.vhost();
    let within = Duration::from_secs(2);
    let broker = broker(&Settings { answer_within: within, ..Settings::new(vhost.uri()) }, &[ANALYTICS]);
    let mut consume = consumer(&broker, &ANALYTICS).await;
    let mut publisher = soon(broker.publisher()).await.expect("a connection");
    let (before, during) = (messages(10), messages(10));
    assert_eq!(publish(&mut publisher, &before).await, 0);
    let mut blocked = publisher.blocked();
    assert_eq!(*blocked.borrow(), None);
    server.alarm().await;
    {
        let mut publishing = std::pin::pin!(publisher.publish(&during));
        tokio::select! {
            done = &mut publishing => panic!("{done:?}"),
            said = soon(blocked.wait_for(Option::is_some)) => assert!(said.expect("the publisher lives").is_some()),
        }
        assert!(timeout(2 * within, &mut publishing).await.is_err(), "it gave up");
        let came = next(&mut consume, before.len()).await;
        assert_eq!(bodies(&came), contents(&before));
        soon(consume.acknowledge(came[9].tag)).await.expect("acknowledged");
        server.calm().await;
        assert_eq!(soon(publishing).await.expect("published").unroutable, 0);
    }
    soon(blocked.wait_for(Option::is_none)).await.expect("the publisher lives");
    assert_eq!(bodies(&next(&mut consume, during.len()).await), contents(&during));
}
