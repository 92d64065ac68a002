//! The queue beside: what nobody can read goes there with the reason, and what can be read after all comes back.
//!
//! The broker puts things there as well: what was delivered too often, and what a full queue lost or let expire. Those
//! last are never put back, for a queue that is full would lose them again, and so on: the log has them.

use actors::broker::BrokerError;
use actors::clock::{Clock, SystemClock};
use lapin::message::BasicGetMessage;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use serde::Deserialize;
use tokio::time::Instant;

use crate::rabbit::Rabbit;
use crate::rabbit::connection::Link;
use crate::rabbit::topology::{DEAD, DEAD_MESSAGES_MAX, Names, ORDER_HEADER, PERSISTENT};
use crate::rabbit::unreadable::{AT, REASON};

/// Where it had been published, and how.
const EXCHANGE: &str = "x-docket-exchange";
const ROUTING_KEY: &str = "x-docket-routing-key";
/// Headers that begin so tell what the broker or docket did with it before. They go with that.
const HISTORY: [&str; 6] =
    ["x-docket-", "x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count"];
/// What the broker calls it when a message was in the way, not when it was at fault.
const IN_THE_WAY: [&str; 2] = ["maxlen", "expired"];
/// A reason that is longer is cut.
const REASON_BYTES_MAX: usize = 1_000;

/// Where a delivery had been published.
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
}

/// A connection for that queue.
pub(super) struct Aside {
    names: Names,
    link: Link,
    channel: Channel,
}

impl Aside {
    pub(super) async fn open(rabbit: &Rabbit, names: Names) -> Result<Self, BrokerError> {
        let link = rabbit.connect(&format!("dead letters {}", names.subscriber)).await?;
        let channel = link.confirming_channel().await?;
        Ok(Self { names, link, channel })
    }

    pub(super) fn is_usable(&self) -> bool {
        self.link.is_alive() && self.channel.status().connected()
    }

    /// Puts a message there as it came, with the reason, and waits until the broker has it for good.
    pub(super) async fn set_aside(
        &self,
        body: &[u8],
        properties: BasicProperties,
        origin: &Origin,
        reason: &str,
    ) -> Result<(), BrokerError> {
        let mut headers = without_history(&properties);
        let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
        let at = SystemClock.now().to_string();
        let (exchange, key) = (origin.exchange.as_str(), origin.routing_key.as_str());
        for (name, value) in [(REASON, reason), (AT, &at), (EXCHANGE, exchange), (ROUTING_KEY, key)] {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        self.publish(DEAD, self.names.subscriber, body, kept(properties, headers)).await
    }

    /// Looks at each message there once, at as many as there is time for. Those that stay are there again when this ends,
    /// however it ends.
    pub(super) async fn put_back(
        &self,
        readable: &(dyn for<'a> Fn(&'a [u8]) -> bool + Sync),
    ) -> Result<u64, BrokerError> {
        // Closed with whatever was looked at and not acknowledged, which comes back by that.
        let looking = self.link.channel().await?;
        let mut put_back = 0;
        let mut stays = None;
        // Whoever waits for this consumes nothing meanwhile.
        let until = Instant::now() + self.link.answer_within() / 2;
        for _ in 0..DEAD_MESSAGES_MAX {
            if Instant::now() >= until {
                break;
            }
            let getting = looking.basic_get(self.names.dead.as_str().into(), BasicGetOptions::default());
            let Some(message) = self.link.answer("look at dead letters", getting).await? else { break };
            let in_the_way = was_in_the_way(&message.properties);
            if !in_the_way && !readable(&message.data) {
                stays = Some(message);
                continue;
            }
            if !in_the_way {
                self.give_back(&message).await?;
                put_back += 1;
            }
            self.link.answer("acknowledge a dead letter", message.acker.ack(BasicAckOptions::default())).await?;
        }
        if let Some(last) = stays {
            let returning = last.acker.nack(BasicNackOptions { multiple: true, requeue: true });
            self.link.answer("return dead letters", returning).await?;
        }
        Ok(put_back)
    }

    async fn give_back(&self, message: &BasicGetMessage) -> Result<(), BrokerError> {
        let mut headers = without_history(&message.properties);
        // Whoever published it may not have said of which order it is; its lane decides by that to which queue it goes.
        if !headers.contains_key(ORDER_HEADER)
            && let Ok(Subject { subject }) = serde_json::from_slice(&message.data)
        {
            headers.insert(ORDER_HEADER.into(), AMQPValue::LongString(subject.into()));
        }
        let (exchange, key) = self.names.direct();
        self.publish(exchange, key, &message.data, kept(message.properties.clone(), headers)).await
    }

    async fn publish(
        &self,
        exchange: &str,
        key: &str,
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<(), BrokerError> {
        let doing = format!("publish to {}", if exchange.is_empty() { key } else { exchange });
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sending = self.channel.basic_publish(exchange.into(), key.into(), options, body, properties);
        let confirm = self.link.answer(&doing, sending).await?;
        // One at a time: what came back is this one.
        match self.link.answer(&doing, confirm).await? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => Err(BrokerError::Away(format!("cannot {doing}: there is no queue"))),
            Confirmation::Nack(_) => Err(BrokerError::Away(format!("cannot {doing}: RabbitMQ could not keep it"))),
            Confirmation::NotRequested => Err(BrokerError::Away(format!("cannot {doing}: nothing is confirmed"))),
        }
    }
}

/// The order in an envelope.
#[derive(Deserialize)]
struct Subject {
    subject: String,
}

/// Whether the broker put it there because of others: a queue that was too long, or a time that an operator set.
pub(in crate::rabbit) fn was_in_the_way(properties: &BasicProperties) -> bool {
    let in_the_way = |said: String| IN_THE_WAY.contains(&said.as_str());
    header(properties, REASON).is_none() && header(properties, "x-first-death-reason").is_some_and(in_the_way)
}

/// A header that is text.
pub(in crate::rabbit) fn header(properties: &BasicProperties, name: &str) -> Option<String> {
    let value = properties.headers().as_ref()?.inner().get(name)?;
    value.as_long_string().map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned())
}

fn without_history(properties: &BasicProperties) -> FieldTable {
    let mut headers = FieldTable::default();
    for (name, value) in properties.headers().iter().flat_map(|headers| headers.inner()) {
        if !HISTORY.iter().any(|prefix| name.as_str().starts_with(prefix)) {
            headers.insert(name.clone(), value.clone());
        }
    }
    headers
}

/// The properties as they were, but durable and without an end.
fn kept(properties: BasicProperties, headers: FieldTable) -> BasicProperties {
    let mut kept = BasicProperties::default().with_delivery_mode(PERSISTENT).with_headers(headers);
    if let Some(value) = properties.content_type() {
        kept = kept.with_content_type(value.clone());
    }
    if let Some(value) = properties.content_encoding() {
        kept = kept.with_content_encoding(value.clone());
    }
    if let Some(value) = properties.correlation_id() {
        kept = kept.with_correlation_id(value.clone());
    }
    if let Some(value) = properties.message_id() {
        kept = kept.with_message_id(value.clone());
    }
    if let Some(value) = properties.timestamp() {
        kept = kept.with_timestamp(*value);
    }
    if let Some(value) = properties.kind() {
        kept = kept.with_type(value.clone());
    }
    if let Some(value) = properties.app_id() {
        kept = kept.with_app_id(value.clone());
    }
    kept
}
