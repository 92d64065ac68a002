//! A broker in memory, with faults on purpose. It forgets nothing when a connection ends: what was not acknowledged is
//! delivered again, before everything else, as RabbitMQ does. What goes wrong is drawn from a seed, or told by a test.
//!
//! It bounds nothing in time: whoever calls it has to.

mod connection;
mod queues;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};

use self::connection::{Consumer, Publisher};
use self::queues::{Queues, Waiting};
use crate::broker::{Broker, BrokerError, Consume, Message, Publish, Subscription};
use crate::order::OrderId;

pub use self::queues::SetAside;

/// The broker. Clones are the same.
#[derive(Clone)]
pub struct MemoryBroker(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    blocked: watch::Sender<Option<String>>,
    /// Counts what changed.
    /// Told whenever something changes. As in [`super::memory`] it wakes those who wait in their order.
    changes: Notify,
}

/// How often what goes wrong. Probabilities are from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// That a call ends its connection. Of what was to be published some is taken, some is taken later, some never.
    pub broken: f64,
    /// That something published is taken, or is not, and no answer ever comes.
    pub silent: f64,
    /// That a message which was taken reaches no queue.
    pub lost: f64,
    /// That it is in the queue twice.
    pub duplicated: f64,
    /// That it overtakes others in the queue.
    pub reordered: f64,
    /// That it reaches the queue late.
    pub delayed: f64,
    /// How late at most.
    pub late_max: Duration,
    /// Longest delay of a call.
    pub delay_max: Duration,
}

struct State {
    rng: StdRng,
    faults: Faults,
    away: bool,
    /// Most messages of a queue; then its oldest are lost.
    length_max: usize,
    handed: Vec<Message>,
    taken: Vec<Message>,
    subscriptions: BTreeMap<&'static str, Queues>,
    foreign: BTreeSet<&'static str>,
    foreign_exchange: bool,
    connections: u64,
    /// Those that live.
    publishing: BTreeSet<u64>,
    consuming: BTreeSet<u64>,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    Broken,
    Silent,
}

impl MemoryBroker {
    /// Without queues and faults.
    pub fn new(seed: u64) -> Self {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            faults: Faults::default(),
            away: false,
            length_max: usize::MAX,
            handed: Vec::new(),
            taken: Vec::new(),
            subscriptions: BTreeMap::new(),
            foreign: BTreeSet::new(),
            foreign_exchange: false,
            connections: 0,
            publishing: BTreeSet::new(),
            consuming: BTreeSet::new(),
        };
        Self(Arc::new(Shared { state: Mutex::new(state), blocked: watch::Sender::default(), changes: Notify::new() }))
    }

    /// From now on that goes wrong. [`Faults::default`] is nothing.
    pub fn set(&self, faults: Faults) {
        self.change(|state| state.faults = faults);
    }

    /// It cannot be reached any more, and all connections end; or it can be again. Its queues stay.
    pub fn set_away(&self, away: bool) {
        self.change(|state| state.away = away);
        if away {
            self.disconnect();
        }
    }

    /// All connections end.
    pub fn disconnect(&self) {
        self.disconnect_publishers();
        self.disconnect_consumers();
    }

    /// The connections for publishing end.
    pub fn disconnect_publishers(&self) {
        self.change(|state| state.publishing.clear());
    }

    /// The connections for consuming end: what they have not acknowledged is delivered again.
    pub fn disconnect_consumers(&self) {
        self.change(|state| {
            state.consuming.clear();
            state.subscriptions.values_mut().for_each(Queues::close_all);
        });
    }

    /// From now on it takes nothing, for that reason; or takes what it is given again.
    pub fn block(&self, reason: Option<&str>) {
        self.0.blocked.send_replace(reason.map(str::to_owned));
        self.0.changes.notify_waiters();
    }

    /// A queue never has more messages than that: then its oldest are lost.
    pub fn limit(&self, length_max: usize) {
        self.change(|state| state.length_max = length_max);
    }

    /// Everything that waits in a subscriber's queues is gone. What was handed out is not.
    pub fn purge(&self, subscriber: &str) {
        self.with_queues(subscriber, Queues::purge);
    }

    /// A subscriber's queues are gone, with all that is in them, and whoever consumes them is told so.
    pub fn delete(&self, subscriber: &str) {
        self.change(|state| {
            if let Some(queues) = state.subscriptions.get_mut(subscriber) {
                let ended = queues.delete();
                state.consuming.retain(|connection| !ended.contains(connection));
            }
        });
    }

    /// The subscriber's queue has other arguments than docket declares; or has not any more.
    pub fn set_foreign(&self, subscriber: &'static str, foreign: bool) {
        self.change(|state| {
            if foreign {
                state.foreign.insert(subscriber)
            } else {
                state.foreign.remove(subscriber)
            };
        });
    }

    /// The exchange is of another kind than docket declares; or is not any more.
    pub fn set_foreign_exchange(&self, foreign: bool) {
        self.change(|state| state.foreign_exchange = foreign);
    }

    /// Somebody else puts that into the subscriber's queue, if there is one.
    pub fn put(&self, subscriber: &str, body: impl Into<Vec<u8>>) {
        let waiting = Waiting { order: None, body: body.into() };
        self.with_queues(subscriber, |queues| queues.put(waiting));
    }

    /// The messages that were given to it, in that order, whatever became of them.
    pub fn handed(&self) -> Vec<Message> {
        self.state().handed.clone()
    }

    /// The messages that it has taken, in that order.
    pub fn taken(&self) -> Vec<Message> {
        self.state().taken.clone()
    }

    /// How many messages wait in a subscriber's queues.
    pub fn waiting(&self, subscriber: &str) -> usize {
        self.state().subscriptions.get(subscriber).map_or(0, Queues::waiting)
    }

    /// How many were handed out and not acknowledged.
    pub fn unacknowledged(&self, subscriber: &str) -> usize {
        self.state().subscriptions.get(subscriber).map_or(0, Queues::unacknowledged)
    }

    /// What was set aside by the subscriber.
    pub fn set_aside(&self, subscriber: &str) -> Vec<SetAside> {
        self.state().subscriptions.get(subscriber).map(|queues| queues.set_aside.clone()).unwrap_or_default()
    }

    /// How many connections there are, for publishing and for consuming.
    pub fn connections(&self) -> (usize, usize) {
        let state = self.state();
        (state.publishing.len(), state.consuming.len())
    }

    /// Waits until something changes after this call.
    fn changes(&self) -> Notified<'_> {
        self.0.changes.notified()
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state());
        self.0.changes.notify_waiters();
        changed
    }

    fn with_queues(&self, subscriber: &str, change: impl FnOnce(&mut Queues)) {
        self.change(|state| state.subscriptions.get_mut(subscriber).map(change));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn delay(&self) {
        let delay = {
            let state = &mut *self.state();
            state.faults.delay_max.mul_f64(state.rng.random_range(0.0..=1.0))
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    async fn connect(&self) -> Result<(), BrokerError> {
        self.delay().await;
        let mut state = self.state();
        if state.away || state.draw() == Fate::Broken { Err(away()) } else { Ok(()) }
    }

    /// A message reaches the exchange, and from there the queues. False: there is none.
    fn route(&self, message: &Message) -> bool {
        let late = self.change(|state| {
            state.taken.push(message.clone());
            let routed = state.subscriptions.values().any(Queues::is_declared);
            (routed, state.place(message))
        });
        let (routed, late) = late;
        for (subscriber, after) in late {
            let (broker, waiting) = (self.clone(), Waiting::of(message));
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                broker.with_queues(subscriber, |queues| queues.put(waiting));
            });
        }
        routed
    }
}

impl State {
    fn draw(&mut self) -> Fate {
        if self.rng.random_bool(self.faults.broken) {
            Fate::Broken
        } else if self.rng.random_bool(self.faults.silent) {
            Fate::Silent
        } else {
            Fate::Done
        }
    }

    /// Puts a message into every queue, but for those which it reaches late.
    fn place(&mut self, message: &Message) -> Vec<(&'static str, Duration)> {
        let (rng, faults, mut late) = (&mut self.rng, self.faults, Vec::new());
        for (subscriber, queues) in self.subscriptions.iter_mut().filter(|(_, queues)| queues.is_declared()) {
            if rng.random_bool(faults.lost) {
                continue;
            }
            if rng.random_bool(faults.delayed) {
                late.push((*subscriber, faults.late_max.mul_f64(rng.random())));
                continue;
            }
            for _ in 0..1 + u32::from(rng.random_bool(faults.duplicated)) {
                let ahead = if rng.random_bool(faults.reordered) { rng.random() } else { 0.0 };
                queues.put_ahead(Waiting::of(message), ahead);
            }
            queues.give_up_beyond(self.length_max);
        }
        late
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn publisher(&self) -> Result<Box<dyn Publish>, BrokerError> {
        self.connect().await?;
        let connection = self.change(|state| {
            if state.foreign_exchange {
                return Err(BrokerError::Mismatch("the exchange orders is another one: delete it".to_owned()));
            }
            state.connections += 1;
            state.publishing.insert(state.connections);
            Ok(state.connections)
        })?;
        Ok(Box::new(Publisher::new(self.clone(), connection)))
    }

    async fn consume(&self, subscription: &Subscription) -> Result<Box<dyn Consume>, BrokerError> {
        self.connect().await?;
        let name = subscription.subscriber;
        let connection = self.change(|state| {
            if state.foreign.contains(name) {
                let said = format!("the queue orders.{name} has other arguments than docket's: delete it");
                return Err(BrokerError::Mismatch(said));
            }
            state.connections += 1;
            state.consuming.insert(state.connections);
            let queues = state.subscriptions.entry(name).or_default();
            queues.declare(subscription.partitions);
            queues.join(state.connections);
            Ok(state.connections)
        })?;
        Ok(Box::new(Consumer::new(self.clone(), connection, subscription.clone())))
    }
}

fn away() -> BrokerError {
    BrokerError::Away("a fault on purpose".to_owned())
}

/// Which of so many queues has the order's messages.
fn partition(order: Option<OrderId>, partitions: usize) -> usize {
    let sum: usize = order.map_or(0, |order| order.to_string().bytes().map(usize::from).sum());
    sum % partitions.max(1)
}
