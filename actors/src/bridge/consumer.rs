//! The consumer of one subscriber: takes what the broker brings, hands it to the subscriber's actor, and tells the broker
//! what is done with. It decides nothing about an order and stores nothing.
//!
//! It consumes only while the subscriber is at work in this process. A connection belongs to one life of the subscriber:
//! when either ends, everything that was not acknowledged is brought again, to the next connection. While the subscriber
//! leaves nothing more is taken, and what it finishes is acknowledged. A broker that does not answer is a failure of this
//! task, which is begun again for ever; what is committed meanwhile is found in the log.

mod aside;
mod connection;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep, timeout};

use connection::{Connection, Ended};

use crate::broker::{Broker, BrokerError, Subscription};
use crate::subscriber::actor::{Intake, Observed, SubscriberHandle};
use crate::subscriber::engine::Session;
use crate::supervisor::{Backoff, Child, Failure, Handle, Intensity, Limits, Policy};

/// How long a connection may still take, when its time is over, to acknowledge what is finished.
const LAST_WORD: Duration = Duration::from_secs(1);

/// How long, how often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// A broker without an answer for this long is away (`rabbitmq.answer_timeout_ms`, and somewhat more: the adapter
    /// gives up first, and says why).
    pub answer_within: Duration,
    /// Longest wait before it is tried again (`rabbitmq.retry_max_ms`).
    pub retry_max: Duration,
    /// How often the queue is looked at.
    pub look_every: Duration,
    /// How often what was set aside is looked through, at most.
    pub put_back_every: Duration,
    /// How long a queue that is not as it must be is left alone.
    pub mismatch_retry: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            answer_within: Duration::from_secs(30),
            retry_max: Duration::from_secs(10),
            look_every: Duration::from_secs(1),
            put_back_every: Duration::from_secs(60),
            mismatch_retry: Duration::from_secs(60),
        }
    }
}

/// The consumer as a child of a supervisor, named after its subscriber: isolated, and restarted for ever.
pub fn child(
    broker: Arc<dyn Broker>,
    subscription: Subscription,
    subscriber: &SubscriberHandle,
    settings: Settings,
) -> Child {
    let backoff = Backoff { max: settings.retry_max, ..Policy::default().backoff };
    let policy = Policy { intensity: Intensity::UNLIMITED, backoff, ..Policy::default() };
    let intake = subscriber.intake();
    Child::task(subscription.subscriber, "consumer", move |_| {
        let consumer = Rc::new(Consumer::new(broker, subscription, intake, settings));
        move |handle: &Handle| {
            let (consumer, handle) = (Rc::clone(&consumer), handle.clone());
            async move { consumer.run(&handle).await }.boxed_local()
        }
    })
    .isolated()
    .policy(policy)
    .limits(Limits { stuck_after: None, stop_within: LAST_WORD * 2 })
}

/// What is kept over failures.
struct Consumer {
    broker: Arc<dyn Broker>,
    subscription: Subscription,
    intake: Intake,
    settings: Settings,
    connections: Cell<u64>,
    put_back_at: Cell<Instant>,
    /// The mismatch that was said last.
    mismatch: RefCell<Option<String>>,
    unreadable_said_at: Cell<Option<Instant>>,
}

impl Consumer {
    fn new(broker: Arc<dyn Broker>, subscription: Subscription, intake: Intake, settings: Settings) -> Self {
        Self {
            broker,
            subscription,
            intake,
            settings,
            connections: Cell::new(0),
            put_back_at: Cell::new(Instant::now()),
            mismatch: RefCell::new(None),
            unreadable_said_at: Cell::new(None),
        }
    }

    /// Until it is asked to stop.
    async fn run(&self, handle: &Handle) -> Result<(), Failure> {
        loop {
            let mut intake = self.intake.clone();
            let life = tokio::select! {
                biased;
                () = handle.stop_requested() => return Ok(()),
                life = intake.at_work() => life,
            };
            let mut ending = Box::pin(self.ending(handle, life)).shared();
            tokio::select! {
                biased;
                attempt = self.attempt(life, ending.clone()) => attempt?,
                () = async { (&mut ending).await; sleep(LAST_WORD).await } => {}
            }
        }
    }

    /// Waits until a connection of that life has to end.
    async fn ending(&self, handle: &Handle, life: u64) {
        let mut intake = self.intake.clone();
        tokio::select! {
            biased;
            () = handle.stop_requested() => {}
            () = intake.over(life) => {}
        }
    }

    /// One connection. Without a failure when the next one may follow at once.
    async fn attempt(&self, life: u64, ending: impl Future<Output = ()> + Unpin) -> Result<(), Failure> {
        self.connections.set(self.connections.get() + 1);
        let session = Session { life, connection: self.connections.get() };
        let Err(error) = self.consume(session, ending).await else { return Ok(()) };
        match error {
            BrokerError::Away(why) => {
                self.intake.observe(session, Observed::Away(why.clone())).await;
                Err(Failure::error(why))
            }
            BrokerError::Mismatch(why) => {
                self.say_mismatch(&why);
                self.intake.observe(session, Observed::Mismatch(why)).await;
                sleep(self.settings.mismatch_retry).await;
                Ok(())
            }
        }
    }

    async fn consume(&self, session: Session, ending: impl Future<Output = ()> + Unpin) -> Result<Ended, BrokerError> {
        let consume = within(self.settings.answer_within, self.broker.consume(&self.subscription)).await?;
        self.mismatch.take();
        tracing::info!(subscriber = self.subscription.subscriber, "the queue is consumed");
        self.intake.observe(session, Observed::Consuming).await;
        let mut connection = Connection::new(self, session, consume);
        connection.put_back_if_due().await;
        connection.serve(ending).await
    }

    fn say_mismatch(&self, why: &str) {
        let news = self.mismatch.borrow().as_deref() != Some(why);
        if news {
            tracing::error!(subscriber = self.subscription.subscriber, "the queue cannot be consumed: {why}");
            self.mismatch.replace(Some(why.to_owned()));
        }
    }
}

/// The broker's answer, unless it takes too long.
async fn within<T>(limit: Duration, answer: impl Future<Output = Result<T, BrokerError>>) -> Result<T, BrokerError> {
    let late = |_| Err(BrokerError::Away(format!("no answer within {} ms", limit.as_millis())));
    timeout(limit, answer).await.unwrap_or_else(late)
}
