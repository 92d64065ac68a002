//! Connections to the broker in memory. One that has ended says so from then on.

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use rand::RngExt;
use tokio::sync::watch;

use super::queues::Queues;
use super::{Fate, MemoryBroker, State, away};
use crate::broker::{BrokerError, Consume, Delivery, Message, Publish, Published, Subscription, Tag};

pub(super) struct Publisher {
    broker: MemoryBroker,
    connection: u64,
}

pub(super) struct Consumer {
    line: Line,
    subscription: Subscription,
    last: Tag,
}

/// A connection for consuming that subscriber's queues.
#[derive(Clone)]
struct Line {
    broker: MemoryBroker,
    connection: u64,
    subscriber: &'static str,
}

impl Publisher {
    pub(super) fn new(broker: MemoryBroker, connection: u64) -> Self {
        Self { broker, connection }
    }

    fn is_open(&self) -> bool {
        self.broker.state().publishing.contains(&self.connection)
    }

    /// Some of them are taken, some are taken later, some never.
    fn take_some(&self, messages: &[Message]) {
        for message in messages {
            let (fate, after) = {
                let state = &mut *self.broker.state();
                (state.rng.random_range(0..3), state.faults.late_max.mul_f64(state.rng.random()))
            };
            match fate {
                0 => drop(self.broker.route(message)),
                1 => {
                    let (broker, message) = (self.broker.clone(), message.clone());
                    tokio::spawn(async move {
                        tokio::time::sleep(after).await;
                        broker.route(&message);
                    });
                }
                _ => {}
            }
        }
    }

    async fn unblocked(&self) -> Result<(), BrokerError> {
        unblocked(&self.broker, || self.is_open()).await
    }
}

/// Waits while it takes nothing.
async fn unblocked(broker: &MemoryBroker, is_open: impl Fn() -> bool) -> Result<(), BrokerError> {
    loop {
        let changes = broker.changes();
        if !is_open() {
            return Err(away());
        }
        if broker.0.blocked.borrow().is_none() {
            return Ok(());
        }
        changes.await;
    }
}

#[async_trait]
impl Publish for Publisher {
    async fn publish(&mut self, messages: &[Message]) -> Result<Published, BrokerError> {
        if !self.is_open() {
            return Err(away());
        }
        let fate = self.broker.change(|state| {
            state.handed.extend_from_slice(messages);
            state.draw()
        });
        self.broker.delay().await;
        self.unblocked().await?;
        match fate {
            Fate::Done => {
                let unroutable = messages.iter().filter(|message| !self.broker.route(message)).count();
                self.broker.delay().await;
                if self.is_open() { Ok(Published { unroutable }) } else { Err(away()) }
            }
            Fate::Broken => {
                self.broker.change(|state| state.publishing.remove(&self.connection));
                self.take_some(messages);
                Err(away())
            }
            Fate::Silent => {
                self.take_some(messages);
                std::future::pending().await
            }
        }
    }

    fn blocked(&self) -> watch::Receiver<Option<String>> {
        self.broker.0.blocked.subscribe()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.broker.change(|state| state.publishing.remove(&self.connection));
    }
}

impl Consumer {
    pub(super) fn new(broker: MemoryBroker, connection: u64, subscription: Subscription) -> Self {
        let line = Line { broker, connection, subscriber: subscription.subscriber };
        Self { line, subscription, last: Tag(0) }
    }
}

impl Line {
    /// Does it, while the connection lives, and fails after it or instead of it when that is its fate.
    async fn call<T>(&self, call: impl FnOnce(&mut Queues) -> T) -> Result<T, BrokerError> {
        self.broker.delay().await;
        let (name, connection) = (self.subscriber, self.connection);
        let fate = {
            let state = &mut *self.broker.state();
            state.draw()
        };
        if fate == Fate::Silent {
            std::future::pending::<()>().await;
        }
        self.broker.change(|state| {
            if !state.consuming.contains(&connection) {
                return Err(away());
            }
            let before = fate == Fate::Broken && state.rng.random_bool(0.5);
            let done = state.subscriptions.get_mut(name).filter(|_| !before).map(call);
            if fate == Fate::Broken {
                state.end(name, connection);
            }
            done.filter(|_| fate == Fate::Done).ok_or_else(away)
        })
    }
}

impl State {
    fn end(&mut self, subscriber: &str, connection: u64) {
        self.consuming.remove(&connection);
        if let Some(queues) = self.subscriptions.get_mut(subscriber) {
            queues.close(connection);
        }
    }
}

#[async_trait]
impl Consume for Consumer {
    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let Line { broker, connection, subscriber: name } = self.line.clone();
        broker.delay().await;
        loop {
            let changes = broker.changes();
            let deliveries = {
                let state = &mut *broker.state();
                if !state.consuming.contains(&connection) {
                    return Err(away());
                }
                let Some(queues) = state.subscriptions.get_mut(name) else { return Err(away()) };
                queues.hand_out(connection, &mut self.last, max, self.subscription.prefetch)
            };
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
            changes.await;
        }
    }

    async fn acknowledge(&mut self, up_to: Tag) -> Result<(), BrokerError> {
        let connection = self.line.connection;
        self.line.call(|queues| queues.acknowledge(connection, up_to)).await
    }

    async fn waiting(&mut self) -> Result<u64, BrokerError> {
        self.line.call(|queues| queues.waiting() as u64).await
    }

    fn set_aside(&self, delivery: &Delivery, reason: &str) -> BoxFuture<'static, Result<(), BrokerError>> {
        let (line, tag, body, reason) = (self.line.clone(), delivery.tag, delivery.body.clone(), reason.to_owned());
        Box::pin(async move {
            let is_open = || line.broker.state().consuming.contains(&line.connection);
            unblocked(&line.broker, is_open).await?;
            line.call(|queues| queues.set_aside(line.connection, tag, &body, &reason)).await
        })
    }

    async fn put_back(&mut self, readable: &(dyn for<'a> Fn(&'a [u8]) -> bool + Sync)) -> Result<u64, BrokerError> {
        self.line.call(|queues| queues.put_back(readable)).await
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let Line { broker, connection, subscriber } = &self.line;
        broker.change(|state| state.end(subscriber, *connection));
    }
}
