//! One term of the relay at work: a batch is read and another one published at the same time, and the place behind what
//! was taken is stored meanwhile. Reading and publishing are never cut off half-way but by the end of the term.

use futures_util::future::{BoxFuture, OptionFuture};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::saves::Saves;
use super::source::{Batch, Source};
use super::status::{RelayState, RelayStatus};
use super::{LEAVE_WITHIN, RELEASE_WITHIN, Relay, Trouble};
use crate::broker::{BrokerError, Message, Publish, Published};
use crate::checkpoint::Checkpoint;
use crate::clock::Timestamp;
use crate::inbox::Term;
use crate::log::LogError;

/// Most bytes on their way to the broker without its word that it has taken them; a single event may have more.
const CHUNK_BYTES_MAX: usize = 4 << 20;
/// How many answers a connection, or a part of a batch, may take one after another. A broker that is only slow answers
/// each wait of the adapter's in time; beyond this even the adapter is not believed.
const ANSWERS_MAX: u32 = 3;

/// Why a term has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was asked to stop.
    Asked,
    /// Another process has begun a later one.
    Superseded,
}

/// A term at work.
pub(super) struct Work<'a> {
    relay: &'a Relay,
    term: Term,
    saves: Saves,
    /// The next batch is being read; `None`: it is there.
    reading: Option<BoxFuture<'static, Read>>,
    next: Option<(Source, Batch)>,
    /// The connection, while nothing is on its way.
    publisher: Option<Box<dyn Publish>>,
    /// What the broker was asked: to connect, or to take a batch.
    asked: Option<BoxFuture<'static, Happened>>,
    /// When that must be done; while the broker is blocked, never.
    deadline: Option<Instant>,
    /// When the oldest event of the batch on its way was recorded.
    under_way_since: Option<Timestamp>,
    /// `None`: there was no connection yet.
    blocked: Option<watch::Receiver<Option<String>>>,
}

type Read = (Source, Result<Batch, LogError>);

/// A batch on its way, part after part.
struct Sending {
    batch: Batch,
    /// So many of its messages were taken.
    taken: usize,
    unroutable: usize,
}

/// What can happen.
enum Happened {
    Asked,
    Due,
    Read(Read),
    Connected(Result<Box<dyn Publish>, BrokerError>),
    Answered(Box<dyn Publish>, Sending, Result<Published, BrokerError>),
    Blocked,
    Late,
}

impl<'a> Work<'a> {
    pub(super) fn new(relay: &'a Relay, term: Term, source: Source, saves: Saves) -> Self {
        let broker = relay.ports.broker.clone();
        let connect = async move { Happened::Connected(broker.publisher().await) };
        Self {
            relay,
            term,
            saves,
            reading: Some(read(source)),
            next: None,
            publisher: None,
            asked: Some(Box::pin(connect)),
            deadline: Some(Instant::now() + relay.settings.answer_within * ANSWERS_MAX),
            under_way_since: None,
            blocked: None,
        }
    }

    /// Publishes until something ends it.
    pub(super) async fn run(&mut self) -> Result<Ended, Trouble> {
        loop {
            self.publish_next();
            self.tell();
            match self.happens().await {
                Happened::Asked => return Ok(Ended::Asked),
                Happened::Due => {
                    let checkpoint = self.saves.ask(Instant::now());
                    if !self.save(checkpoint).await? {
                        return Ok(Ended::Superseded);
                    }
                }
                Happened::Read((source, batch)) => {
                    self.reading = None;
                    self.next = Some((source, batch?));
                }
                Happened::Connected(publisher) => {
                    let publisher = publisher?;
                    self.blocked = Some(publisher.blocked());
                    self.free(publisher);
                }
                Happened::Answered(publisher, mut sending, published) => {
                    self.asked = None;
                    if sending.took(published?) {
                        self.taken(&sending.batch, sending.unroutable);
                        self.free(publisher);
                    } else {
                        self.send(publisher, sending);
                    }
                }
                Happened::Blocked => self.deadline = self.patience(),
                Happened::Late => return Err(BrokerError::Away("it does not answer".to_owned()).into()),
            }
        }
    }

    /// Holds on to the term, and stores the checkpoint. False: it is another process's term now.
    pub(super) async fn save(&self, checkpoint: Option<Checkpoint>) -> Result<bool, Trouble> {
        Ok(self.relay.answered(self.relay.ports.checkpoints.save(self.term, checkpoint)).await??)
    }

    /// What can still be done for whoever relays next: store how far it came, and give the lease back, also when the broker
    /// cannot be reached from here. Another process may reach it.
    pub(super) async fn leave(mut self, ended: &Result<Ended, Trouble>) {
        match ended {
            Ok(Ended::Asked) => self.finish().await,
            Err(Trouble::Broker(_)) => {}
            Ok(Ended::Superseded) | Err(Trouble::Log(_) | Trouble::Checkpoint(_) | Trouble::Late(_)) => return,
        }
        if let Some(checkpoint) = self.saves.ask(Instant::now()) {
            let save = self.relay.ports.checkpoints.save(self.term, Some(checkpoint));
            if !matches!(timeout(RELEASE_WITHIN, save).await, Ok(Ok(true))) {
                tracing::info!("the relay's last checkpoint was not stored: some events will come twice");
            }
        }
        self.relay.release(self.term).await;
    }

    /// Waits a little for the broker's word on what is on its way.
    async fn finish(&mut self) {
        let Some(answer) = &mut self.asked else { return };
        let answered = timeout(LEAVE_WITHIN, answer).await;
        if let Ok(Happened::Answered(_, mut sending, Ok(published))) = answered
            && sending.took(published)
        {
            self.taken(&sending.batch, sending.unroutable);
        }
    }

    async fn happens(&mut self) -> Happened {
        let due_at = self.saves.due_at();
        let (blocked, deadline) = (self.blocked.as_mut(), self.deadline);
        tokio::select! {
            biased;
            () = self.relay.handle.stop_requested() => Happened::Asked,
            Some(()) = OptionFuture::from(due_at.map(sleep_until)) => Happened::Due,
            Some(Ok(())) = OptionFuture::from(blocked.map(|blocked| blocked.changed())) => Happened::Blocked,
            Some(happened) = OptionFuture::from(self.asked.as_mut()) => happened,
            Some(read) = OptionFuture::from(self.reading.as_mut()) => Happened::Read(read),
            Some(()) = OptionFuture::from(deadline.map(sleep_until)) => Happened::Late,
        }
    }

    fn free(&mut self, publisher: Box<dyn Publish>) {
        self.publisher = Some(publisher);
        (self.asked, self.deadline, self.under_way_since) = (None, None, None);
    }

    /// Begins to publish the next batch when it is there and nothing is on its way, and to read the one after it.
    fn publish_next(&mut self) {
        let Some(publisher) = self.publisher.take_if(|_| self.next.is_some()) else { return };
        let Some((source, batch)) = self.next.take() else { return };
        self.reading = Some(read(source));
        if batch.messages.is_empty() {
            self.publisher = Some(publisher);
            return self.taken(&batch, 0);
        }
        self.under_way_since = batch.recorded.map(|(oldest, _)| oldest);
        self.send(publisher, Sending { batch, taken: 0, unroutable: 0 });
    }

    /// Each part has a deadline of its own, however many there are.
    fn send(&mut self, publisher: Box<dyn Publish>, sending: Sending) {
        self.asked = Some(Box::pin(publish(publisher, sending, self.relay.settings.publish_max)));
        self.deadline = self.patience();
    }

    fn taken(&mut self, batch: &Batch, unroutable: usize) {
        self.saves.taken(batch.position.clone(), batch.recorded.map(|(_, newest)| newest));
        self.relay.status.send_modify(|status| {
            status.published += batch.messages.len() as u64;
            status.unroutable += unroutable as u64;
            status.recorded_at = batch.recorded.map(|(_, newest)| newest).max(status.recorded_at);
            status.position = batch.position.clone().or(status.position.take());
        });
    }

    /// Until when the broker has time for what it was asked.
    fn patience(&self) -> Option<Instant> {
        let waits = self.asked.is_some() && self.blocked_by().is_none();
        waits.then(|| Instant::now() + self.relay.settings.answer_within * ANSWERS_MAX)
    }

    fn blocked_by(&self) -> Option<String> {
        self.blocked.as_ref().and_then(|blocked| blocked.borrow().clone())
    }

    fn tell(&self) {
        let blocked = self.blocked_by();
        let next_since = self.next.as_ref().and_then(|(_, batch)| batch.recorded).map(|(oldest, _)| oldest);
        let waiting_since = self.under_way_since.into_iter().chain(next_since).min();
        self.relay.status.send_if_modified(|status| {
            let before = status.clone();
            status.waiting_since = waiting_since;
            if self.blocked.is_some() {
                status.work(blocked.as_deref());
            }
            if status.state != before.state {
                say(status);
            }
            *status != before
        });
    }
}

fn read(mut source: Source) -> BoxFuture<'static, Read> {
    Box::pin(async move {
        let batch = source.next().await;
        (source, batch)
    })
}

/// Publishes the next part of a batch: at most so many events, and not many bytes.
async fn publish(mut publisher: Box<dyn Publish>, sending: Sending, at_once: usize) -> Happened {
    let published = publisher.publish(&sending.rest()[..sending.part(at_once)]).await;
    let sending = Sending { taken: sending.taken + sending.part(at_once), ..sending };
    Happened::Answered(publisher, sending, published)
}

impl Sending {
    fn rest(&self) -> &[Message] {
        &self.batch.messages[self.taken..]
    }

    /// How many messages are published at once.
    fn part(&self, at_once: usize) -> usize {
        let mut bytes = 0;
        let fits = |message: &&Message| {
            bytes += message.body.len();
            bytes <= CHUNK_BYTES_MAX
        };
        self.rest().iter().take(at_once).take_while(fits).count().max(1).min(self.rest().len())
    }

    /// The broker has taken a part. Whether that was the last.
    fn took(&mut self, published: Published) -> bool {
        self.unroutable += published.unroutable;
        self.rest().is_empty()
    }
}

fn say(status: &RelayStatus) {
    match (status.state, &status.trouble) {
        (RelayState::Blocked, Some(reason)) => tracing::warn!(reason, "the broker takes nothing: the relay waits"),
        (state, _) => tracing::info!(?state, "the relay can publish"),
    }
}
