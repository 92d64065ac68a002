//! For `docket check`: whether a broker does what the adapter relies on, each thing done for real with what is removed
//! again. Of what docket itself needs nothing is made; what is there already is looked at.

use actors::broker::{BrokerError, Subscription};
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::AMQPValue;
use lapin::{BasicProperties, Channel, Confirmation};
use uuid::Uuid;

use super::Settings;
use super::connection::Link;
use super::topology::{self, PERSISTENT};

/// What could not be removed goes by itself after so many milliseconds.
const EXPIRES_MS: i64 = 60_000;

/// A connection that looks.
pub struct Probe {
    settings: Settings,
    link: Link,
}

impl Probe {
    /// Connects.
    ///
    /// # Errors
    /// When there is no broker, or it does not let us in.
    pub async fn open(settings: &Settings) -> Result<Self, BrokerError> {
        let link = Link::open(settings, "docket check").await?;
        Ok(Self { settings: settings.clone(), link })
    }

    /// Why it takes nothing now, when it said so. It does once something was published.
    pub fn blocked(&self) -> Option<String> {
        self.link.blocked().borrow().clone()
    }

    /// Whether a quorum queue takes an event, confirms it and gives it back.
    ///
    /// # Errors
    /// Whatever keeps it from that.
    pub async fn keeps(&self) -> Result<(), BrokerError> {
        let channel = self.link.confirming_channel().await?;
        let name = scratch();
        let mut arguments = topology::quorum();
        arguments.insert("x-expires".into(), AMQPValue::LongLongInt(EXPIRES_MS));
        let declaring = channel.queue_declare(name.as_str().into(), QueueDeclareOptions::durable(), arguments);
        self.link.answer("declare a quorum queue", declaring).await?;
        let kept = self.kept_in(&channel, &name).await;
        let deleting = channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default());
        let deleted = self.link.answer(&format!("delete the queue {name}"), deleting).await;
        kept.and(deleted.map(drop))
    }

    async fn kept_in(&self, channel: &Channel, queue: &str) -> Result<(), BrokerError> {
        const BODY: &[u8] = b"docket check";
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sending = channel.basic_publish("".into(), queue.into(), options, BODY, properties);
        let confirm = self.link.answer("publish", sending).await?;
        if self.link.answer("publish", confirm).await? != Confirmation::Ack(None) {
            return Err(BrokerError::Away("what was published is not in the queue".to_owned()));
        }
        let getting = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true });
        match self.link.answer("read a message", getting).await? {
            Some(message) if message.data == BODY => Ok(()),
            _ => Err(BrokerError::Away("what was confirmed did not come back".to_owned())),
        }
    }

    /// Whether it can spread orders among several queues.
    ///
    /// # Errors
    /// Says what to enable.
    pub async fn spreads(&self) -> Result<(), BrokerError> {
        let channel = self.link.channel().await?;
        let name = scratch();
        let options = ExchangeDeclareOptions { auto_delete: true, ..ExchangeDeclareOptions::default() };
        topology::declare_hash(&self.link, &channel, &name, options).await?;
        let deleting = channel.exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default());
        self.link.answer(&format!("delete the exchange {name}"), deleting).await
    }

    /// How many queues of a subscription are there.
    ///
    /// # Errors
    /// [`BrokerError::Mismatch`] when something is there that is not what docket declares.
    pub async fn fits(&self, subscription: &Subscription) -> Result<usize, BrokerError> {
        topology::fits(&self.link, &self.settings, subscription).await
    }
}

fn scratch() -> String {
    format!("orders.check-{}", Uuid::now_v7().simple())
}
