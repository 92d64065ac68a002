//! Messages for which there is no queue: which ones they are is known also when thousands are on their way.

use actors::broker::{Message, Publish};
use actors::testing::conformance::broker::{bodies, consumer, contents, messages, next, publish, soon};

use super::{ANALYTICS, Host};

/// Every third of them is an `order.paid`.
fn mixed(count: usize) -> Vec<Message> {
    let mut messages = messages(count);
    for message in messages.iter_mut().step_by(3) {
        message.event_type = "order.paid".to_owned();
    }
    messages
}

#[tokio::test]
async fn exactly_those_without_a_queue_are_counted() {
    let host = Host::new();
    let mut publisher = soon(host.rabbit(&[]).publisher()).await.expect("a connection");
    let beside = host.beside().await;
    beside.bind("paid", "order.paid").await;
    for round in 1..=3 {
        let sent = mixed(4_000);
        assert_eq!(publish(&mut publisher, &sent).await, 4_000 - 1_334, "round {round}");
        // Once each, though those that came back were published once more.
        assert_eq!(beside.count("paid").await, 1_334 * round);
    }
}

#[tokio::test]
async fn a_queue_that_this_process_knows_of_is_declared_and_gets_what_came_back() {
    let host = Host::new();
    let broker = host.rabbit(&[ANALYTICS]);
    let mut publisher = soon(broker.publisher()).await.expect("a connection");
    let sent = messages(2_000);
    assert_eq!(publish(&mut publisher, &sent[..1_000]).await, 0);
    let beside = host.beside().await;
    assert_eq!(beside.count("orders.analytics").await, 1_000);
    beside.delete("orders.analytics").await;
    assert_eq!(publish(&mut publisher, &sent[1_000..]).await, 0);
    let mut consume = consumer(&broker, &ANALYTICS).await;
    for hundred in sent[1_000..].chunks(100) {
        let came = next(&mut consume, hundred.len()).await;
        assert_eq!(bodies(&came), contents(hundred));
        soon(consume.acknowledge(came[99].tag)).await.expect("acknowledged");
    }
}

#[tokio::test]
async fn properties_are_those_of_the_contract() {
    let host = Host::new();
    let mut publisher = soon(host.rabbit(&[]).publisher()).await.expect("a connection");
    let beside = host.beside().await;
    beside.bind("ours", "order.#").await;
    let sent = messages(1);
    publish(&mut publisher, &sent).await;
    let message = beside.take("ours").await.expect("a message");
    let properties = &message.properties;
    let text = |value: &Option<lapin::types::ShortString>| value.as_ref().map(ToString::to_string);
    assert_eq!((message.exchange.as_str(), message.routing_key.as_str()), ("orders", "order.created"));
    assert_eq!(text(properties.message_id()), Some(sent[0].id.to_string()));
    assert_eq!(text(properties.correlation_id()).as_deref(), Some("c-1"));
    assert_eq!(text(properties.kind()).as_deref(), Some("order.created"));
    assert_eq!(text(properties.content_type()).as_deref(), Some("application/cloudevents+json"));
    assert_eq!(*properties.delivery_mode(), Some(2));
    let headers = properties.headers().as_ref().expect("headers");
    let order = headers.inner().get("orderid").and_then(|order| order.as_long_string()).expect("the order");
    assert_eq!(order.to_string(), sent[0].order.to_string());
}

#[tokio::test]
async fn an_exchange_that_was_deleted_is_an_error_and_is_there_for_the_next_connection() {
    let host = Host::new();
    let broker = host.rabbit(&[ANALYTICS]);
    let mut publisher = soon(broker.publisher()).await.expect("a connection");
    let deleted = host.beside().await.channel.exchange_delete("orders".into(), Default::default()).await;
    deleted.expect("deleted");
    let sent = messages(10);
    soon(publisher.publish(&sent)).await.expect_err("there is no exchange");
    soon(publisher.publish(&sent)).await.expect_err("it has failed");
    let mut publisher: Box<dyn Publish> = soon(broker.publisher()).await.expect("a connection");
    assert_eq!(publish(&mut publisher, &sent).await, 0);
}
