//! The RabbitMQ adapter of the broker port: one topic exchange, a quorum queue for each subscriber (or several, among
//! which its orders are spread), and beside it a queue for what nobody can read.
//!
//! Every publisher and every consumer has a connection of its own, which is never mended: after any error it is dropped,
//! and whoever owns it connects again. No wait is without a deadline. What is in the queues is never what a promise
//! rests on.

mod connection;
mod consumer;
pub mod probe;
mod publisher;
mod topology;
mod unreadable;
pub mod uri;

use std::sync::Arc;
use std::time::Duration;

use actors::broker::{Broker, BrokerError, Consume, Publish, Subscription};
use async_trait::async_trait;

use connection::{Link, no_answer};
use consumer::Consumer;
use publisher::Publisher;
use tokio::sync::Mutex;
use tokio::time::timeout;
pub(crate) use topology::{EVENTS, ORDER_HEADER};
pub use uri::Uri;

/// How to reach it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `amqp://…` or `amqps://…`.
    pub uri: Uri,
    /// Most messages on their way without the broker's word that it has taken them.
    pub publish_max: usize,
    /// A queue that is longer loses its oldest. An argument of the queues: another number fits no queue that is there.
    pub queue_messages_max: u64,
    /// How long to wait for an answer. The driver itself would wait for ever.
    pub answer_within: Duration,
    /// A connection on which nothing is heard for about twice as long, in seconds, is given up.
    pub heartbeat_s: u16,
}

impl Settings {
    /// With the defaults of the configuration.
    pub fn new(uri: &str) -> Self {
        Self {
            uri: Uri::new(uri),
            publish_max: 1024,
            queue_messages_max: 1_000_000,
            answer_within: Duration::from_secs(10),
            heartbeat_s: 10,
        }
    }
}

/// A RabbitMQ. Cheap to clone; nothing is connected before it is asked to.
#[derive(Clone, Debug)]
pub struct Rabbit {
    settings: Arc<Settings>,
    node: Arc<str>,
    subscriptions: Arc<[Subscription]>,
    /// Who looks through what nobody can read does it alone.
    looking: Arc<Mutex<()>>,
}

impl Rabbit {
    /// For this process. Its connections carry the name `node`; a publisher that finds no queue declares those of
    /// `subscriptions`, which are what this process knows of.
    pub fn new(settings: &Settings, node: &str, subscriptions: impl Into<Arc<[Subscription]>>) -> Self {
        Self {
            settings: Arc::new(settings.clone()),
            node: node.into(),
            subscriptions: subscriptions.into(),
            looking: Arc::default(),
        }
    }

    /// Connecting has many steps, each with the deadline of an answer, and all of them together have this one. Whoever waits
    /// for it waits three times as long as for an answer.
    async fn within<T>(
        &self,
        doing: &str,
        opening: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        let within = self.settings.answer_within * 5 / 2;
        timeout(within, opening).await.unwrap_or_else(|_| Err(no_answer(within, doing)))
    }

    async fn connect(&self, role: &str) -> Result<Link, BrokerError> {
        Link::open(&self.settings, &format!("docket {} {role}", self.node)).await
    }
}

#[async_trait]
impl Broker for Rabbit {
    async fn publisher(&self) -> Result<Box<dyn Publish>, BrokerError> {
        Ok(Box::new(self.within("connect for publishing", Publisher::open(self)).await?))
    }

    async fn consume(&self, subscription: &Subscription) -> Result<Box<dyn Consume>, BrokerError> {
        let doing = format!("connect for consuming {}", subscription.subscriber);
        Ok(Box::new(self.within(&doing, Consumer::open(self, subscription)).await?))
    }
}
