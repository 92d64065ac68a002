//! The broker port: carries events from the log to queues, and from queues to subscribers.
//!
//! It gives speed, and promises nothing that anybody rests on: a message may be lost, come twice, late, or out of order.
//! What is missing is found by following the log ([`crate::history::History::follow`]), what comes twice by the inbox.

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::event::{Envelope, EventId};
use crate::order::OrderId;

/// A broker. Adapter: `src/rabbit/`. Each of the two sides has a connection of its own, so that a broker which holds
/// back publishers goes on delivering.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Connects for publishing. What is shared by all (exchanges) is there afterwards.
    async fn publisher(&self) -> Result<Box<dyn Publish>, BrokerError>;

    /// Connects for consuming. The queue, what is bound to it and where it puts what nobody can read are there
    /// afterwards: declared again each time, for somebody may have deleted them.
    ///
    /// # Errors
    /// [`BrokerError::Mismatch`] when there is a queue of that name with other arguments: it says what to do.
    async fn consume(&self, subscription: &Subscription) -> Result<Box<dyn Consume>, BrokerError>;
}

/// Which queue, and how it is consumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The subscriber's name.
    pub subscriber: &'static str,
    /// Queues among which its orders are spread; each order has one, for as long as this number is the same.
    pub partitions: u16,
    /// Deliveries that are handed out before the first of them is acknowledged.
    pub prefetch: u16,
}

/// A connection for publishing.
#[async_trait]
pub trait Publish: Send {
    /// Publishes these messages, in their order, and waits until the broker has taken each of them for good.
    ///
    /// # Errors
    /// Any of them may have been taken, or may be later: all of them are to be published again, on another connection.
    async fn publish(&mut self, messages: &[Message]) -> Result<Published, BrokerError>;

    /// Why the broker takes nothing now, when it said so (it is out of memory or of disk). Also changes while
    /// [`Publish::publish`] waits, which goes on to wait as long as the connection lives.
    fn blocked(&self) -> watch::Receiver<Option<String>>;
}

/// What became of messages that were published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// For so many there was no queue at all. Nothing is lost by that: the log has them.
    pub unroutable: usize,
}

/// An event on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `message_id`.
    pub id: EventId,
    /// `type`, and the routing key.
    pub event_type: String,
    /// The header `orderid`.
    pub order: OrderId,
    /// `correlation_id`.
    pub correlation_id: String,
    /// The envelope, `application/cloudevents+json`.
    pub body: Vec<u8>,
}

impl Message {
    /// That event.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which no event that was stored is known to do.
    pub fn of(event: &Envelope) -> Result<Self, serde_json::Error> {
        Ok(Self {
            id: event.id,
            event_type: event.event_type.clone(),
            order: event.order,
            correlation_id: event.origin.correlation_id.clone(),
            body: serde_json::to_vec(event)?,
        })
    }
}

/// A connection for consuming one subscriber's queues. Dropped, everything that is not acknowledged is delivered again.
#[async_trait]
pub trait Consume: Send {
    /// The next deliveries, at most `max`; waits until there is one. Dropping the future loses nothing.
    ///
    /// # Errors
    /// After one nothing comes any more: connect again.
    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError>;

    /// Acknowledges this delivery and all before it.
    ///
    /// # Errors
    /// They may be delivered again. Connect again.
    async fn acknowledge(&mut self, up_to: Tag) -> Result<(), BrokerError>;

    /// Messages that wait in the queues and were not handed out.
    async fn waiting(&mut self) -> Result<u64, BrokerError>;

    /// Puts what nobody can read to where operators find it, with the reason. To be acknowledged afterwards. The future
    /// goes on beside everything else; while the broker takes nothing it may wait for ever.
    ///
    /// # Errors
    /// It may be there all the same. Try again; the connection is as it was.
    fn set_aside(&self, delivery: &Delivery, reason: &str) -> BoxFuture<'static, Result<(), BrokerError>>;

    /// Looks through what was set aside, and puts back into the queues what `readable` says can be read after all. How
    /// many. What a queue lost because it was too long is not among it, and never comes back: the log has it.
    ///
    /// # Errors
    /// Some of it may be back. Deliveries go on.
    async fn put_back(&mut self, readable: &(dyn for<'a> Fn(&'a [u8]) -> bool + Sync)) -> Result<u64, BrokerError>;
}

/// Which delivery of a connection. Later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// A message as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Which one.
    pub tag: Tag,
    /// Its content: an envelope, or anything that anybody published.
    pub body: Vec<u8>,
}

/// Why the broker did not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// It cannot be reached, or does not answer.
    #[error("the broker is away: {0}")]
    Away(String),
    /// Something of that name is there and is not what docket declares.
    #[error("{0}")]
    Mismatch(String),
}
