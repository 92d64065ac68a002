//! RabbitMQ: a virtual host of its own for each test, on the broker that `DOCKET_TEST_RABBITMQ_URL` names.

mod blocked;
mod dead_letters;
mod lost;
mod mismatch;
mod unroutable;

use std::sync::Arc;
use std::time::Duration;

use actors::broker::{Broker, Subscription};
use actors::testing::conformance::broker::Adapter;
use async_trait::async_trait;
use docket::rabbit::{Rabbit, Settings};
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use servers::RabbitVhost;

const ANALYTICS: Subscription = Subscription { subscriber: "analytics", partitions: 1, prefetch: 100 };

/// A virtual host that is gone at the end of its test.
struct Host(RabbitVhost);

impl Host {
    fn new() -> Self {
        Self(RabbitVhost::new())
    }

    fn rabbit(&self, subscriptions: &[Subscription]) -> Arc<dyn Broker> {
        broker(&settings(self.0.uri()), subscriptions)
    }

    /// The broker as somebody beside docket has it.
    async fn beside(&self) -> Beside {
        let connection =
            Connection::connect(self.0.uri(), ConnectionProperties::default()).await.expect("a connection");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        Beside { channel, _connection: connection }
    }
}

fn broker(settings: &Settings, subscriptions: &[Subscription]) -> Arc<dyn Broker> {
    Arc::new(Rabbit::new(settings, "test", subscriptions.to_vec()))
}

/// A patient one, since tests run beside one another.
fn settings(uri: &str) -> Settings {
    Settings { answer_within: Duration::from_secs(20), ..Settings::new(uri) }
}

struct Beside {
    channel: Channel,
    _connection: Connection,
}

impl Beside {
    async fn put(&self, exchange: &str, key: &str, body: &[u8], properties: BasicProperties) {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sending = self.channel.basic_publish(exchange.into(), key.into(), options, body, properties);
        let confirm = sending.await.expect("sent").await.expect("confirmed");
        assert!(confirm.is_ack() && confirm.take_message().is_none(), "it came to no queue");
    }

    /// A queue of somebody else's, with events that match.
    async fn bind(&self, queue: &str, pattern: &str) {
        let (options, nothing) = (QueueDeclareOptions::durable(), FieldTable::default());
        self.channel.queue_declare(queue.into(), options, nothing.clone()).await.expect("declared");
        let options = QueueBindOptions::default();
        self.channel.queue_bind(queue.into(), "orders".into(), pattern.into(), options, nothing).await.expect("bound");
    }

    /// The next message of a queue, which is gone from there with it.
    async fn take(&self, queue: &str) -> Option<lapin::message::BasicGetMessage> {
        self.channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.expect("an answer")
    }

    async fn count(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions::durable().passive();
        self.channel.queue_declare(queue.into(), options, FieldTable::default()).await.expect("a queue").message_count()
    }

    async fn delete(&self, queue: &str) {
        self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("deleted");
    }
}

#[async_trait]
impl Adapter for Host {
    async fn new() -> Self {
        Self::new()
    }

    fn broker(&self) -> Arc<dyn Broker> {
        self.rabbit(&[])
    }

    async fn purge(&self, subscriber: &'static str) {
        let queue = format!("orders.{subscriber}");
        let purged = self.beside().await.channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await;
        purged.expect("purged");
    }

    async fn delete(&self, subscriber: &'static str) {
        self.beside().await.delete(&format!("orders.{subscriber}")).await;
    }

    async fn put(&self, subscriber: &'static str, body: &[u8]) {
        let queue = format!("orders.{subscriber}");
        self.beside().await.put("", &queue, body, BasicProperties::default()).await;
    }
}

actors::broker_conformance!(Host);
