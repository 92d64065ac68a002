//! What is there at the broker, and how it is declared: each time somebody connects, for an operator may have deleted it.
//! Declaring what is there already changes nothing.
//!
//! ```text
//! orders (topic) ─ order.# ─► orders.s, or orders.s (consistent hash of the header orderid) ─► orders.s.0 … n-1
//! orders.dead (direct) ─ s ─► orders.s.dead
//! ```

use actors::broker::{BrokerError, Subscription};
use lapin::options::{ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ErrorKind, ExchangeKind};

use super::Settings;
use super::connection::{Link, away};

/// Where events are published, with their type as routing key.
pub(crate) const EVENTS: &str = "orders";
/// Where what nobody can read is put, with the subscriber's name as routing key.
pub(super) const DEAD: &str = "orders.dead";
/// The header that says which order an event is of.
pub(crate) const ORDER_HEADER: &str = "orderid";
/// `delivery_mode` of what survives a restart of the broker.
pub(super) const PERSISTENT: u8 = 2;
/// Most messages in a queue of what nobody can read; beyond it the oldest go.
pub(super) const DEAD_MESSAGES_MAX: u32 = 10_000;

/// So many queues from a time with another number of partitions are looked for, each time somebody connects: RabbitMQ
/// writes a line into its log for each that is not there.
const LEFTOVERS: usize = 4;

const EXCHANGES: [(&str, ExchangeKind); 2] = [(EVENTS, ExchangeKind::Topic), (DEAD, ExchangeKind::Direct)];
const EVERY_EVENT: &str = "order.#";
const HASH: &str = "x-consistent-hash";
const HASH_PLUGIN: &str = "rabbitmq_consistent_hash_exchange";
/// After so many deliveries of a message the broker gives it up. No crash is its fault before we say so: that is counted
/// in the inbox. Without a limit an older broker puts what it delivers again at the end of a queue, and a newer one has
/// a limit of twenty.
const DELIVERIES_MAX: i64 = 1_000_000_000;

/// The queue of what nobody can read, of that subscriber.
pub(super) fn dead_queue(subscriber: &str) -> String {
    format!("{EVENTS}.{subscriber}.dead")
}

/// The names of what belongs to one subscription.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// The queues that are consumed.
    pub(super) queues: Vec<String>,
    /// What spreads the orders among several queues.
    pub(super) spread: Option<String>,
    /// The queue of what nobody can read.
    pub(super) dead: String,
    /// The subscriber's name: the routing key at [`DEAD`].
    pub(super) subscriber: &'static str,
}

impl Names {
    pub(super) fn of(subscription: &Subscription) -> Self {
        let subscriber = subscription.subscriber;
        let whole = format!("{EVENTS}.{subscriber}");
        let dead = dead_queue(subscriber);
        let (queues, spread) = match subscription.partitions {
            0 | 1 => (vec![whole], None),
            partitions => ((0..partitions).map(|number| format!("{whole}.{number}")).collect(), Some(whole)),
        };
        Self { queues, spread, dead, subscriber }
    }

    /// How many queues.
    pub(super) fn count(&self) -> u16 {
        u16::try_from(self.queues.len()).unwrap_or(u16::MAX)
    }

    /// Where one message is published so that it comes to one of the queues: exchange and routing key.
    pub(super) fn direct(&self) -> (&str, &str) {
        match (&self.spread, self.queues.as_slice()) {
            (None, [queue]) => ("", queue),
            (Some(spread), _) => (spread, ""),
            (None, _) => ("", &self.dead),
        }
    }

    /// The queues that the subscription would have with another number of partitions, as far as they can be guessed. An
    /// operator may have deleted the first of them.
    fn leftovers(&self) -> Vec<String> {
        let whole = format!("{EVENTS}.{}", self.subscriber);
        match &self.spread {
            None => (0..LEFTOVERS).map(|number| format!("{whole}.{number}")).collect(),
            Some(_) => {
                let first = self.queues.len();
                let further = (first..first + LEFTOVERS).map(|number| format!("{whole}.{number}"));
                further.chain([whole.clone()]).collect()
            }
        }
    }
}

/// Declares the exchanges that all share.
pub(super) async fn declare_exchanges(link: &Link, channel: &Channel) -> Result<(), BrokerError> {
    for (name, kind) in EXCHANGES {
        exchange(link, channel, name, kind, durable(), FieldTable::default()).await?;
    }
    Ok(())
}

/// Declares all that a subscription needs, on a channel of its own: an error closes it.
pub(super) async fn declare(
    link: &Link,
    settings: &Settings,
    subscription: &Subscription,
) -> Result<Names, BrokerError> {
    let names = Names::of(subscription);
    // Before anything is made: events would go to both.
    refuse_leftovers(link, &names, subscription).await?;
    let channel = &link.channel().await?;
    declare_exchanges(link, channel).await?;
    queue(link, channel, &names.dead, dead_arguments()).await?;
    bind(link, channel, &names.dead, DEAD, names.subscriber).await?;
    let source = match &names.spread {
        None => (EVENTS, EVERY_EVENT),
        Some(spread) => {
            declare_hash(link, channel, spread, durable()).await?;
            bind_exchange(link, channel, spread).await?;
            (spread.as_str(), "1")
        }
    };
    for name in &names.queues {
        queue(link, channel, name, arguments(settings)).await?;
        bind(link, channel, name, source.0, source.1).await?;
    }
    Ok(names)
}

/// How many queues of a subscription are there. Of what is there it is asked whether it is what docket declares; nothing
/// is made.
pub(super) async fn fits(link: &Link, settings: &Settings, subscription: &Subscription) -> Result<usize, BrokerError> {
    let names = Names::of(subscription);
    for (name, kind) in EXCHANGES {
        if exchange_is_there(link, name).await? {
            let options = durable();
            exchange(link, &link.channel().await?, name, kind, options, FieldTable::default()).await?;
        }
    }
    let queues = names.queues.iter().map(|name| (name, arguments(settings)));
    let mut there = 0;
    for (name, arguments) in queues.chain([(&names.dead, dead_arguments())]) {
        if messages_in(link, &link.channel().await?, name).await?.is_some() {
            queue(link, &link.channel().await?, name, arguments).await?;
            there += 1;
        }
    }
    refuse_leftovers(link, &names, subscription).await?;
    Ok(there)
}

/// The arguments of a queue that is consumed. It has no dead-letter exchange: a queue that is too long would put each
/// message it loses into the queue of what nobody can read, and what operators look for there would be lost. What nobody
/// can read docket publishes there itself; what a queue loses is in the log.
fn arguments(settings: &Settings) -> FieldTable {
    let mut arguments = quorum();
    let messages_max = i64::try_from(settings.queue_messages_max).unwrap_or(i64::MAX);
    arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(messages_max));
    arguments
}

fn dead_arguments() -> FieldTable {
    let mut arguments = quorum();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(DEAD_MESSAGES_MAX.into()));
    arguments
}

/// What all queues have.
pub(super) fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERIES_MAX));
    arguments.insert("x-overflow".into(), text("drop-head"));
    arguments
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn durable() -> ExchangeDeclareOptions {
    ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() }
}

async fn exchange(
    link: &Link,
    channel: &Channel,
    name: &str,
    kind: ExchangeKind,
    options: ExchangeDeclareOptions,
    arguments: FieldTable,
) -> Result<(), BrokerError> {
    let doing = format!("declare the exchange {name}");
    let declared = async { Ok(channel.exchange_declare(name.into(), kind, options, arguments).await) };
    let Err(error) = link.answer(&doing, declared).await? else { return Ok(()) };
    match differs(&error) {
        Some(said) => Err(BrokerError::Mismatch(format!(
            "the exchange {name} is there and is another one: {said}. Delete it, and docket declares it as it must be: \
             nothing is lost, the log has every event"
        ))),
        None => Err(away(&doing, &error)),
    }
}

/// Declares an exchange that spreads the orders among the queues bound to it.
pub(super) async fn declare_hash(
    link: &Link,
    channel: &Channel,
    name: &str,
    options: ExchangeDeclareOptions,
) -> Result<(), BrokerError> {
    let mut arguments = FieldTable::default();
    arguments.insert("hash-header".into(), text(ORDER_HEADER));
    let declared = exchange(link, channel, name, ExchangeKind::Custom(HASH.to_owned()), options, arguments).await;
    declared.map_err(|error| match error {
        BrokerError::Away(said) | BrokerError::Mismatch(said) if is_unknown_type(&said) => {
            BrokerError::Mismatch(format!(
                "partitions need the plugin {HASH_PLUGIN} of RabbitMQ, which is not enabled: run `rabbitmq-plugins enable \
                 {HASH_PLUGIN}` on each of its nodes"
            ))
        }
        error @ (BrokerError::Away(_) | BrokerError::Mismatch(_)) => error,
    })
}

async fn bind_exchange(link: &Link, channel: &Channel, name: &str) -> Result<(), BrokerError> {
    let binding = channel.exchange_bind(
        name.into(),
        EVENTS.into(),
        EVERY_EVENT.into(),
        ExchangeBindOptions::default(),
        FieldTable::default(),
    );
    link.answer(&format!("bind the exchange {name}"), binding).await
}

fn is_unknown_type(said: &str) -> bool {
    said.contains("unknown exchange type") || said.contains("invalid exchange type")
}

async fn queue(link: &Link, channel: &Channel, name: &str, arguments: FieldTable) -> Result<(), BrokerError> {
    let doing = format!("declare the queue {name}");
    let declared = async { Ok(channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments).await) };
    let Err(error) = link.answer(&doing, declared).await? else { return Ok(()) };
    match differs(&error) {
        Some(said) => Err(BrokerError::Mismatch(format!(
            "the queue {name} is there and is another one: {said}. Delete it (`rabbitmqctl delete_queue {name}`), and \
             docket declares it as it must be: nothing is lost, the log has every event"
        ))),
        None => Err(away(&doing, &error)),
    }
}

async fn bind(link: &Link, channel: &Channel, queue: &str, exchange: &str, key: &str) -> Result<(), BrokerError> {
    let binding = channel.queue_bind(
        queue.into(),
        exchange.into(),
        key.into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    link.answer(&format!("bind the queue {queue}"), binding).await
}

/// A queue from a time with another number of partitions would go on to take events that nobody consumes.
async fn refuse_leftovers(link: &Link, names: &Names, subscription: &Subscription) -> Result<(), BrokerError> {
    let (subscriber, partitions) = (subscription.subscriber, subscription.partitions);
    for name in names.leftovers() {
        if messages_in(link, &link.channel().await?, &name).await?.is_some() {
            return Err(BrokerError::Mismatch(format!(
                "the queue {name} is there, from a time when the number of partitions of {subscriber} was not \
                 {partitions}. Delete every queue of that time (`rabbitmqctl delete_queue {name}`, and so on): nothing is \
                 lost, the log has every event"
            )));
        }
    }
    Ok(())
}

async fn exchange_is_there(link: &Link, name: &str) -> Result<bool, BrokerError> {
    let doing = format!("look at the exchange {name}");
    let channel = link.channel().await?;
    let options = ExchangeDeclareOptions { passive: true, ..durable() };
    let looking = channel.exchange_declare(name.into(), ExchangeKind::Topic, options, FieldTable::default());
    match link.answer(&doing, async { Ok(looking.await) }).await? {
        Ok(()) => Ok(true),
        Err(error) if is(&error, AMQPSoftError::NOTFOUND) => Ok(false),
        Err(error) => Err(away(&doing, &error)),
    }
}

/// How many messages wait in a queue; nothing when there is no such queue, and the channel is closed then.
pub(super) async fn messages_in(link: &Link, channel: &Channel, name: &str) -> Result<Option<u64>, BrokerError> {
    let doing = format!("look at the queue {name}");
    let options = QueueDeclareOptions::durable().passive();
    let looked = async { Ok(channel.queue_declare(ShortString::from(name), options, FieldTable::default()).await) };
    match link.answer(&doing, looked).await? {
        Ok(queue) => Ok(Some(queue.message_count().into())),
        Err(error) if is(&error, AMQPSoftError::NOTFOUND) => Ok(None),
        Err(error) => Err(away(&doing, &error)),
    }
}

/// What the broker says about something of that name that is not what was declared.
fn differs(error: &lapin::Error) -> Option<String> {
    let other = is(error, AMQPSoftError::PRECONDITIONFAILED) || is(error, AMQPSoftError::RESOURCELOCKED);
    let ErrorKind::ProtocolError(said) = error.kind() else { return None };
    other.then(|| said.get_message().to_string())
}

fn is(error: &lapin::Error, code: AMQPSoftError) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(said) if *said.kind() == AMQPErrorKind::Soft(code))
}
