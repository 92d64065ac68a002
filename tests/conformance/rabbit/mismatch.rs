//! What is there and is not what docket declares, and brokers that do not let us in: said with what to do about it, and
//! never with a password.

use actors::broker::{Broker, BrokerError, Subscription};
use actors::testing::conformance::broker::{consumer, soon};
use docket::rabbit::Settings;
use lapin::ExchangeKind;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use super::{ANALYTICS, Host, broker, settings};

async fn mismatch(broker: &dyn Broker, subscription: &Subscription) -> String {
    match soon(broker.consume(subscription)).await.map(drop) {
        Err(BrokerError::Mismatch(said)) => said,
        other => panic!("{other:?}"),
    }
}

fn says(said: &str, words: &[&str]) {
    assert!(words.iter().all(|word| said.contains(word)), "{words:?} in: {said}");
}

#[tokio::test]
async fn a_queue_of_another_kind_is_named_with_what_to_do() {
    let host = Host::new();
    let broker = host.rabbit(&[]);
    let beside = host.beside().await;
    let declared =
        beside.channel.queue_declare("orders.analytics".into(), QueueDeclareOptions::durable(), FieldTable::default());
    declared.await.expect("declared");
    let said = mismatch(&*broker, &ANALYTICS).await;
    says(&said, &["orders.analytics", "inequivalent", "rabbitmqctl delete_queue orders.analytics", "nothing is lost"]);
    // A publisher is not held up by it.
    soon(broker.publisher()).await.expect("a connection");
    beside.delete("orders.analytics").await;
    consumer(&broker, &ANALYTICS).await;
}

#[tokio::test]
async fn a_queue_of_another_length_is_named() {
    let host = Host::new();
    consumer(&host.rabbit(&[]), &ANALYTICS).await;
    let shorter = Settings { queue_messages_max: 10, ..settings(host.0.uri()) };
    says(&mismatch(&*broker(&shorter, &[]), &ANALYTICS).await, &["orders.analytics", "x-max-length"]);
}

#[tokio::test]
async fn an_exchange_of_another_kind_is_named() {
    let host = Host::new();
    let options = lapin::options::ExchangeDeclareOptions { durable: true, ..Default::default() };
    let channel = host.beside().await.channel;
    let declared = channel.exchange_declare("orders".into(), ExchangeKind::Fanout, options, FieldTable::default());
    declared.await.expect("declared");
    let error = soon(host.rabbit(&[]).publisher()).await.map(drop).expect_err("another exchange");
    says(&error.to_string(), &["the exchange orders", "inequivalent"]);
}

#[tokio::test]
async fn queues_of_another_number_of_partitions_are_named() {
    let host = Host::new();
    let broker = host.rabbit(&[]);
    let (two, three) = (Subscription { partitions: 2, ..ANALYTICS }, Subscription { partitions: 3, ..ANALYTICS });
    let beside = host.beside().await;
    consumer(&broker, &ANALYTICS).await;
    says(&mismatch(&*broker, &two).await, &["the queue orders.analytics is there", "delete_queue orders.analytics`"]);
    beside.delete("orders.analytics").await;
    consumer(&broker, &three).await;
    says(&mismatch(&*broker, &two).await, &["the queue orders.analytics.2 is there"]);
    says(&mismatch(&*broker, &ANALYTICS).await, &["the queue orders.analytics.0 is there"]);
    // Nothing was made meanwhile, and one that is left over is found wherever it is.
    beside.delete("orders.analytics.0").await;
    says(&mismatch(&*broker, &ANALYTICS).await, &["the queue orders.analytics.1 is there"]);
}

#[tokio::test]
async fn a_broker_that_does_not_let_us_in_is_told_without_the_password() {
    let host = Host::new();
    let address = host.0.uri().rsplit_once('@').expect("a user").1;
    let (place, name) = address.split_once('/').expect("a virtual host");
    for (uri, word) in [
        (format!("amqp://guest:s3cret@{address}"), "refused"),
        (format!("amqp://nobody:s3cret@{address}"), "refused"),
        (host.0.uri().replace(name, "t_nowhere"), "t_nowhere"),
        (format!("amqps://guest:s3cret@{place}/{name}"), "connect"),
    ] {
        let error = soon(broker(&settings(&uri), &[]).publisher()).await.map(drop).expect_err("refused");
        assert!(matches!(error, BrokerError::Away(_)), "{error:?}");
        says(&error.to_string(), &[word]);
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}
