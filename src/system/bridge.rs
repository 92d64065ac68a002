//! The bridge part: the relay, where orders run, and a consumer for each subscriber of this process. Without a broker there
//! is no bridge, and subscribers follow the log.

use std::sync::Arc;

use actors::bridge::relay::RelayHandle;
use actors::bridge::{consumer, relay};
use actors::broker::{Broker, Subscription};
use actors::clock::Clock;
use actors::subscriber::actor::SubscriberHandle;
use actors::subscriber::letters::SetAside;
use actors::subscriber::registry::Registered;
use actors::supervisor::{Child, Strategy, Supervisor};

use super::policy;
use super::storage::OrderStore;
use super::threads::Threads;
use crate::config::{Config, millis};
use crate::rabbit::Rabbit;

/// Connecting and declaring are several answers of the broker. The adapter gives up first, and says what it waited for.
const CONNECTING: u32 = 3;

/// The bridge part of a process.
pub(super) struct BridgePart {
    /// Its supervisor.
    pub(super) child: Child,
    /// What operators see of the relay.
    pub(super) relay: Option<RelayHandle>,
    /// Where what nobody can read is looked through.
    pub(super) set_aside: Arc<dyn SetAside>,
    /// The relay and all consumers share one.
    pub(super) threads: Threads,
}

/// The broker of the configuration, as this process uses it; `None`: there is none. `node` is how the process is called.
pub(super) fn broker(config: &Config, node: &str, registered: &[Registered]) -> Option<Arc<Rabbit>> {
    if config.rabbitmq.uri.is_empty() {
        return None;
    }
    let subscriptions: Vec<_> = registered.iter().map(|one| subscription(config, one.name())).collect();
    Some(Arc::new(Rabbit::new(&config.rabbitmq.settings(), node, subscriptions)))
}

/// How events travel, for people, without anything secret.
pub(super) fn said(config: &Config) -> String {
    let uri = &config.rabbitmq.uri;
    if uri.is_empty() {
        return "none: subscribers follow the log".to_owned();
    }
    format!("RabbitMQ at {uri}; what it does not bring is read from the log")
}

impl BridgePart {
    /// Between these orders, if the process runs them, these subscribers, and the broker.
    pub(super) fn new(
        config: &Config,
        rabbit: Arc<Rabbit>,
        orders: Option<&dyn OrderStore>,
        clock: &Arc<dyn Clock>,
        subscribers: &[SubscriberHandle],
    ) -> Self {
        let broker: &Arc<dyn Broker> = &(Arc::clone(&rabbit) as _);
        let mut threads = Threads::default();
        let thread = threads.start();
        let mut bridge = Supervisor::new(Strategy::OneForOne, policy(config));
        let mut relay = None;
        if let Some(orders) = orders {
            let (child, handle) = relay_child(config, broker, orders, clock);
            bridge = bridge.child(child.on(thread.clone()));
            relay = Some(handle);
        }
        let mut consumers = Supervisor::new(Strategy::OneForOne, policy(config));
        for subscriber in subscribers {
            let subscription = subscription(config, subscriber.name());
            let child = consumer::child(Arc::clone(broker), subscription, subscriber, consuming(config));
            consumers = consumers.child(child.on(thread.clone()));
        }
        let bridge = bridge.child(Child::supervisor("consumer", consumers));
        Self { child: Child::supervisor("bridge", bridge), relay, set_aside: rabbit, threads }
    }
}

fn subscription(config: &Config, subscriber: &'static str) -> Subscription {
    let partitions = config.subscriber(subscriber).partitions;
    Subscription { subscriber, partitions, prefetch: config.rabbitmq.prefetch }
}

fn relay_child(
    config: &Config,
    broker: &Arc<dyn Broker>,
    orders: &dyn OrderStore,
    clock: &Arc<dyn Clock>,
) -> (Child, RelayHandle) {
    let ports = relay::Ports {
        log: orders.ports().log,
        checkpoints: orders.checkpoints(millis(config.rabbitmq.lease_ms)),
        broker: Arc::clone(broker),
        clock: Arc::clone(clock),
    };
    let settings = relay::Settings {
        publish_max: config.rabbitmq.publish_max as usize,
        answer_within: millis(config.rabbitmq.answer_timeout_ms),
        retry_max: millis(config.rabbitmq.retry_max_ms),
    };
    relay::child(ports, settings)
}

fn consuming(config: &Config) -> consumer::Settings {
    consumer::Settings {
        answer_within: millis(config.rabbitmq.answer_timeout_ms) * CONNECTING,
        retry_max: millis(config.rabbitmq.retry_max_ms),
        ..consumer::Settings::default()
    }
}
