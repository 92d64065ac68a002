//! One connection of a consumer: deliveries in, acknowledgements out, and a look at the queue from time to time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep_until};

use super::aside::{Aside, Unreadable};
use super::{Consumer, within};
use crate::broker::{BrokerError, Consume, Delivery, Tag};
use crate::event::Envelope;
use crate::subscriber::actor::{Deliver, Intake, Observed};
use crate::subscriber::engine::Session;

/// Deliveries that are handed over at once.
const AT_ONCE: usize = 256;
/// Longest reason that is given for a message that nobody can read, in characters.
const REASON_CHARS_MAX: usize = 300;
/// Looking through what was set aside may take so many times as long as another answer, for there may be many of them, and
/// is done for at most one part in so many of the time.
const PUT_BACK_PATIENCE: u32 = 20;
/// Messages that nobody can read are logged at most that often.
const UNREADABLE_SAID_EVERY: Duration = Duration::from_secs(10);

/// The subscriber takes nothing more from this connection.
pub(super) struct Ended;

/// A connection at work.
pub(super) struct Connection<'a> {
    consumer: &'a Consumer,
    session: Session,
    intake: Intake,
    consume: Box<dyn Consume>,
    /// The last delivery that was handed over.
    last: Option<Tag>,
    /// Up to which the subscriber is done.
    done: Option<Tag>,
    acknowledged: Option<Tag>,
    aside: Aside,
    look_at: Instant,
}

/// What is to be done next.
enum Next {
    Done(Tag),
    Aside(Result<Option<Unreadable>, BrokerError>),
    Look,
    TakeOver(Vec<Delivery>),
    Nothing,
    End,
}

impl<'a> Connection<'a> {
    pub(super) fn new(consumer: &'a Consumer, session: Session, consume: Box<dyn Consume>) -> Self {
        let intake = consumer.intake.clone();
        // Not at once: what waits in the queue is on its way first.
        let look_at = Instant::now() + consumer.settings.look_every;
        let (last, done, acknowledged) = (None, None, None);
        Self { consumer, session, intake, consume, last, done, acknowledged, aside: Aside::new(), look_at }
    }

    /// Until its time is over, the subscriber takes nothing more, or the broker fails. What is finished by then is
    /// acknowledged.
    pub(super) async fn serve(&mut self, ending: impl Future<Output = ()> + Unpin) -> Result<Ended, BrokerError> {
        self.until(ending).await?;
        if let Some(tag) = self.intake.done(self.session, self.done).now_or_never() {
            self.done(tag).await?;
        }
        Ok(Ended)
    }

    async fn until(&mut self, mut ending: impl Future<Output = ()> + Unpin) -> Result<(), BrokerError> {
        loop {
            let goes_on = match self.next(&mut ending).await? {
                Next::Done(tag) => self.done(tag).await.map(|()| true),
                Next::Aside(set_aside) => self.set_aside(set_aside).await.map(|()| true),
                Next::Look => self.look().await,
                Next::TakeOver(deliveries) => self.hand_over(deliveries).await,
                Next::Nothing => Ok(true),
                Next::End => Ok(false),
            }?;
            if !goes_on {
                return Ok(());
            }
        }
    }

    async fn next(&mut self, ending: impl Future<Output = ()>) -> Result<Next, BrokerError> {
        self.aside.begin(&*self.consume, self.consumer.settings.answer_within);
        let has_room = self.intake.has_room();
        let mut waiting = self.intake.clone();
        tokio::select! {
            biased;
            tag = self.intake.done(self.session, self.done) => Ok(Next::Done(tag)),
            () = ending => Ok(Next::End),
            set_aside = self.aside.next() => Ok(Next::Aside(set_aside)),
            () = sleep_until(self.look_at) => Ok(Next::Look),
            () = waiting.room(), if !has_room => Ok(Next::Nothing),
            deliveries = self.consume.next(AT_ONCE), if has_room => deliveries.map(Next::TakeOver),
        }
    }

    async fn done(&mut self, up_to: Tag) -> Result<(), BrokerError> {
        self.done = Some(up_to);
        self.acknowledge().await
    }

    /// What is done with, up to the first that must be set aside before.
    async fn acknowledge(&mut self) -> Result<(), BrokerError> {
        let up_to = self.done.and_then(|done| self.aside.done_up_to(done));
        let Some(up_to) = up_to.filter(|tag| Some(*tag) > self.acknowledged) else { return Ok(()) };
        within(self.limit(), self.consume.acknowledge(up_to)).await?;
        self.acknowledged = Some(up_to);
        Ok(())
    }

    /// How much waits. A queue is empty when nothing waits there, and nothing that it handed out is on its way here.
    async fn look(&mut self) -> Result<bool, BrokerError> {
        let waiting = within(self.limit(), self.consume.waiting()).await?;
        self.look_at = Instant::now() + self.consumer.settings.look_every;
        if waiting > 0 || !self.intake.has_room() {
            self.observe(Observed::Waiting(waiting)).await;
            return Ok(true);
        }
        if let Some(deliveries) = self.consume.next(AT_ONCE).now_or_never() {
            return self.hand_over(deliveries?).await;
        }
        self.observe(Observed::Empty).await;
        self.put_back_if_due().await;
        Ok(true)
    }

    async fn observe(&self, observed: Observed) {
        self.intake.observe(self.session, observed).await;
    }

    /// What is at fault with one message is never another's fault: what nobody can read is set aside while the others go
    /// on, and done with in its turn.
    async fn hand_over(&mut self, deliveries: Vec<Delivery>) -> Result<bool, BrokerError> {
        let Some(tag) = deliveries.last().map(|delivery| delivery.tag) else { return Ok(true) };
        let mut events = Vec::with_capacity(deliveries.len());
        let mut unreadable = 0;
        for delivery in deliveries {
            let before = self.last.replace(delivery.tag);
            match read(&delivery.body) {
                Ok(event) => events.push(Arc::new(event)),
                Err(reason) => {
                    unreadable += 1;
                    self.aside.push(Unreadable { delivery, reason, before });
                }
            }
        }
        Ok(self.intake.deliver(Deliver { session: self.session, tag, events, unreadable }).await)
    }

    /// When it fails it is tried again: a broker that is blocked, say, still delivers.
    async fn set_aside(&mut self, set_aside: Result<Option<Unreadable>, BrokerError>) -> Result<(), BrokerError> {
        let subscriber = self.consumer.subscription.subscriber;
        match set_aside {
            Ok(None) => return Ok(()),
            Ok(Some(Unreadable { delivery, reason, .. })) => {
                if self.says_unreadable() {
                    let bytes = delivery.body.len();
                    tracing::warn!(subscriber, bytes, reason, "a message that nobody can read is set aside");
                }
            }
            Err(error) => {
                if self.says_unreadable() {
                    tracing::warn!(subscriber, %error, "a message that nobody can read cannot be set aside yet");
                }
            }
        }
        self.acknowledge().await
    }

    fn says_unreadable(&self) -> bool {
        let (said_at, now) = (&self.consumer.unreadable_said_at, Instant::now());
        let says = said_at.get().is_none_or(|at| now >= at + UNREADABLE_SAID_EVERY);
        if says {
            said_at.set(Some(now));
        }
        says
    }

    /// Not again soon, also when it fails, and the less often the longer it takes: what is set aside must not keep the
    /// others waiting.
    pub(super) async fn put_back_if_due(&mut self) {
        let now = Instant::now();
        if now < self.consumer.put_back_at.get() {
            return;
        }
        let every = self.consumer.settings.put_back_every;
        self.consumer.put_back_at.set(now + every);
        let readable = |body: &[u8]| read(body).is_ok();
        let back = within(self.limit() * PUT_BACK_PATIENCE, self.consume.put_back(&readable)).await;
        self.consumer.put_back_at.set(Instant::now() + every.max(now.elapsed() * PUT_BACK_PATIENCE));
        let subscriber = self.consumer.subscription.subscriber;
        match back {
            Ok(0) => {}
            Ok(messages) => {
                tracing::info!(subscriber, messages, "what was set aside and can be read is put back into the queue");
            }
            // If the connection is lost, the next delivery says so.
            Err(error) => tracing::warn!(subscriber, %error, "what was set aside cannot be looked through"),
        }
    }

    fn limit(&self) -> Duration {
        self.consumer.settings.answer_within
    }
}

/// The event, or why it is none.
fn read(body: &[u8]) -> Result<Envelope, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string().chars().take(REASON_CHARS_MAX).collect())
}
