//! Publishes: many messages on their way at once, each with the broker's word that it has taken it.
//!
//! A message for which there is no queue comes back. The driver tells that of any confirm that comes next, so which ones
//! came back is known only when all are confirmed, and by their ids.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use actors::broker::{BrokerError, Message, Publish, Published};
use async_trait::async_trait;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::Rabbit;
use super::connection::{Link, away, lost, no_answer};
use super::topology::{self, EVENTS, ORDER_HEADER, PERSISTENT};

/// How long "there is no queue" is taken as known.
const NO_QUEUE_FOR: Duration = Duration::from_secs(30);

/// A connection for publishing. After an error it is used no more.
pub(super) struct Publisher {
    rabbit: Rabbit,
    link: Link,
    channel: Channel,
    no_queue_until: Option<Instant>,
    failed: bool,
}

impl Publisher {
    pub(super) async fn open(rabbit: &Rabbit) -> Result<Self, BrokerError> {
        let link = rabbit.connect("publisher").await?;
        topology::declare_exchanges(&link, &link.channel().await?).await?;
        let channel = link.confirming_channel().await?;
        Ok(Self { rabbit: rabbit.clone(), link, channel, no_queue_until: None, failed: false })
    }

    async fn publish_all(&mut self, messages: &[Message]) -> Result<Published, BrokerError> {
        let returned = self.sent(messages.iter()).await?;
        if returned.is_empty() || self.no_queue_until.is_some_and(|until| Instant::now() < until) {
            return Ok(Published { unroutable: returned.len() });
        }
        self.declare_again().await?;
        let once_more = messages.iter().filter(|message| returned.contains(&message.id.to_string()));
        let returned = self.sent(once_more).await?;
        self.no_queue_until = (!returned.is_empty()).then(|| Instant::now() + NO_QUEUE_FOR);
        Ok(Published { unroutable: returned.len() })
    }

    /// Sends them, in their order, and waits until each is confirmed. The ids of those that came back.
    async fn sent(&self, messages: impl Iterator<Item = &Message>) -> Result<HashSet<String>, BrokerError> {
        let mut returned = HashSet::new();
        let mut waiting = VecDeque::new();
        for message in messages {
            if waiting.len() >= self.rabbit.settings.publish_max {
                self.confirmed(waiting.pop_front(), &mut returned).await?;
            }
            let sending = self.channel.basic_publish(
                EVENTS.into(),
                short(&message.event_type)?,
                BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() },
                &message.body,
                properties(message)?,
            );
            waiting.push_back(self.patiently(sending).await?);
        }
        while !waiting.is_empty() {
            self.confirmed(waiting.pop_front(), &mut returned).await?;
        }
        Ok(returned)
    }

    async fn confirmed(
        &self,
        confirm: Option<PublisherConfirm>,
        returned: &mut HashSet<String>,
    ) -> Result<(), BrokerError> {
        let Some(confirm) = confirm else { return Ok(()) };
        match self.patiently(confirm).await? {
            Confirmation::Ack(message) => {
                let id = message.and_then(|message| message.properties.message_id().as_ref().map(ToString::to_string));
                returned.extend(id);
                Ok(())
            }
            Confirmation::Nack(_) => Err(BrokerError::Away("RabbitMQ could not keep an event".to_owned())),
            Confirmation::NotRequested => Err(BrokerError::Away("RabbitMQ confirms nothing".to_owned())),
        }
    }

    /// Waits for an answer, but not for ever; while the broker takes nothing and says so, as long as it is there.
    async fn patiently<T>(&self, answer_to: impl Future<Output = lapin::Result<T>>) -> Result<T, BrokerError> {
        const DOING: &str = "publish";
        let within = self.link.answer_within();
        let mut answer = std::pin::pin!(answer_to);
        loop {
            tokio::select! {
                biased;
                answered = &mut answer => return answered.map_err(|error| away(DOING, &error)),
                () = sleep(within) => {}
            }
            if !self.link.is_alive() {
                return Err(lost());
            }
            if self.link.blocked().borrow().is_none() {
                return Err(no_answer(within, DOING));
            }
        }
    }

    /// Somebody has deleted a queue, or there never was one.
    async fn declare_again(&self) -> Result<(), BrokerError> {
        for subscription in self.rabbit.subscriptions.iter() {
            match topology::declare(&self.link, &self.rabbit.settings, subscription).await {
                // Whoever consumes it says so, again and again. Here it only means that there may be no queue.
                Ok(_) | Err(BrokerError::Mismatch(_)) => {}
                Err(error @ BrokerError::Away(_)) => return Err(error),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Publish for Publisher {
    async fn publish(&mut self, messages: &[Message]) -> Result<Published, BrokerError> {
        // Also when the future is dropped half-way: confirms that nobody waited for would be taken for later ones'.
        if std::mem::replace(&mut self.failed, true) {
            return Err(lost());
        }
        let published = self.publish_all(messages).await;
        self.failed = published.is_err();
        published
    }

    fn blocked(&self) -> watch::Receiver<Option<String>> {
        self.link.blocked().clone()
    }
}

fn properties(message: &Message) -> Result<BasicProperties, BrokerError> {
    let mut headers = FieldTable::default();
    headers.insert(ORDER_HEADER.into(), AMQPValue::LongString(message.order.to_string().into()));
    Ok(BasicProperties::default()
        .with_message_id(message.id.to_string().into())
        .with_correlation_id(short(&message.correlation_id)?)
        .with_type(short(&message.event_type)?)
        .with_content_type("application/cloudevents+json".into())
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers))
}

/// A text as a property, which has at most 255 bytes.
fn short(text: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(text).map_err(|error| BrokerError::Away(format!("cannot publish {text:.40}…: {error}")))
}
