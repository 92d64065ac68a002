//! Lets a subscriber handle the events of a batch, one after another, on one overlay of its documents. A handler that
//! fails, panics or takes too long leaves nothing behind, and its order's later events are left out; the others go on.
//!
//! One that is not done within its patience is left out as well, and handled again by itself, aside, on an overlay of its
//! own with all the time it may take. It is not continued there: it may have read what others of the batch changed, and
//! that is not stored yet and perhaps never will be; and it borrows the overlay that the others need.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;

use super::engine::{Batch, EventResult, Handled, HandledAside, Performed};
use super::overlay::Overlay;
use super::registry::Erased;
use super::settings::Settings;
use super::{Cause, Event, Failure, Outcome};
use crate::clock::Clock;
use crate::event::Envelope;
use crate::inbox::{BODY_BYTES_MAX, Body, DocumentKey, Generation, Inbox, RecordedEffect};
use crate::order::event::DecodeError;
use crate::order::{OrderEvent, OrderId};
use crate::supervisor::panic::caught;

/// Each handler that is slow after another one that was gets half of its patience, down to this part: when all of them
/// are slow, that is not to be found out at the cost of each one's whole patience.
const PATIENCE_HALVED_MAX: u32 = 4;
/// A batch ends after that many patiences were spent in vain, so that what the others did is stored.
const PATIENCES_PER_BATCH: u32 = 4;

/// What a batch is handled with.
#[derive(Clone)]
pub(crate) struct Handling {
    pub(crate) subscriber: Arc<dyn Erased>,
    pub(crate) inbox: Arc<dyn Inbox>,
    pub(crate) generation: Generation,
    pub(crate) settings: Arc<Settings>,
    /// Whose code runs, for the supervisor's panic hook.
    pub(crate) path: Arc<str>,
}

impl Handling {
    /// Handles the events until the limits of a transaction are reached, or too much patience was spent; at least one.
    ///
    /// # Errors
    /// When the documents that were asked for beforehand cannot be read.
    pub(crate) async fn handle(&self, batch: Batch) -> Result<Handled, Failure> {
        let decoded: Vec<_> = batch.events.iter().map(|event| decode(event)).collect();
        let mut overlay = Overlay::new(self.inbox.clone(), self.generation);
        overlay.seed(batch.written_first);
        overlay.fetch(self.reads(&batch.events, &decoded)).await?;
        let mut stopped: HashMap<OrderId, EventResult> = HashMap::new();
        let mut results = Vec::with_capacity(batch.events.len());
        let mut bytes = 0;
        let mut patience = Patience::new(self.settings.handler_patience);
        for (envelope, event) in batch.events.iter().zip(&decoded) {
            let given = (!batch.unhurried.contains(&envelope.id)).then_some(&mut patience);
            let result = match (stopped.get(&envelope.order), event) {
                // Of an order's events the first is to blame; those behind it only wait.
                (Some(result), _) => result.clone(),
                (None, Ok(event)) => self.in_batch(&Event { envelope, event }, &mut overlay, given).await,
                (None, Err(error)) => undecoded(error),
            };
            match &result {
                EventResult::Applied { effects } => bytes += effects.iter().map(|effect| effect.len()).sum::<usize>(),
                EventResult::Passed => {}
                EventResult::Slow | EventResult::Failed(_) | EventResult::Undecodable(_) => {
                    stopped.insert(envelope.order, result.clone());
                }
            }
            results.push(result);
            if overlay.changed_documents() >= self.settings.batch_documents_max
                || overlay.changed_bytes() + bytes >= self.settings.batch_bytes_max
                || patience.is_spent()
            {
                break;
            }
        }
        Ok(Handled { results, documents: overlay.into_writes() })
    }

    /// Handles one event by itself, with all the time that it may take.
    ///
    /// # Errors
    /// When the documents that were asked for beforehand cannot be read.
    pub(crate) async fn handle_aside(&self, envelope: Arc<Envelope>) -> Result<HandledAside, Failure> {
        let mut overlay = Overlay::new(self.inbox.clone(), self.generation);
        let events = [envelope];
        let decoded = [decode(&events[0])];
        overlay.fetch(self.reads(&events, &decoded)).await?;
        let ([envelope], [event]) = (&events, &decoded);
        let result = match event {
            Ok(event) => {
                let limit = self.settings.handler_timeout;
                self.event(&Event { envelope, event }, &mut overlay, limit).await
            }
            Err(error) => undecoded(error),
        };
        let (result, rests_on_documents) = match result {
            EventResult::Slow => (self.too_long(), false),
            EventResult::Applied { .. }
            | EventResult::Passed
            | EventResult::Failed(_)
            | EventResult::Undecodable(_) => (result, true),
        };
        let keys = if rests_on_documents { overlay.keys() } else { Vec::new() };
        Ok(HandledAside { result, documents: overlay.into_writes(), keys })
    }

    fn reads(&self, events: &[Arc<Envelope>], decoded: &[Result<OrderEvent, DecodeError>]) -> Vec<DocumentKey> {
        let events = events.iter().zip(decoded).filter_map(|(envelope, event)| Some((envelope, event.as_ref().ok()?)));
        events
            .flat_map(|(envelope, event)| {
                // Only a hint: the handler will say what is wrong with the event.
                caught(&self.path, || self.subscriber.reads(&Event { envelope, event })).unwrap_or_default()
            })
            .collect()
    }

    /// As long as the patience lasts; without one, as long as a handler may take.
    async fn in_batch(&self, event: &Event<'_>, overlay: &mut Overlay, patience: Option<&mut Patience>) -> EventResult {
        let whole = self.settings.handler_timeout;
        let limit = patience.as_ref().map_or(whole, |patience| patience.next().min(whole));
        let result = self.event(event, overlay, limit).await;
        match (result, patience) {
            (EventResult::Slow, Some(patience)) => {
                patience.spent(limit);
                EventResult::Slow
            }
            (EventResult::Slow, None) => self.too_long(),
            (result, patience) => {
                patience.map(Patience::was_rewarded);
                result
            }
        }
    }

    /// [`EventResult::Slow`]: it was not done within the limit.
    async fn event(&self, event: &Event<'_>, overlay: &mut Overlay, limit: Duration) -> EventResult {
        let mut layer = overlay.layer();
        let handled = timeout(limit, catching(&self.path, self.subscriber.handle(event, &mut layer))).await;
        let changes = layer.into_changes();
        match handled.map(|handled| handled.and_then(recordable)) {
            Ok(Ok(effects)) => {
                overlay.keep(changes);
                EventResult::Applied { effects }
            }
            Ok(Err(failure)) => EventResult::Failed(failure),
            Err(_) => EventResult::Slow,
        }
    }

    fn too_long(&self) -> EventResult {
        EventResult::Failed(Failure::transient(too_long(self.settings.handler_timeout)))
    }

    /// Performs an effect.
    pub(crate) async fn perform(&self, effect: RecordedEffect, clock: Arc<dyn Clock>) -> Performed {
        let recorded = &effect.effect;
        let cause = Cause {
            effect: recorded.id,
            order: recorded.order,
            version: recorded.version,
            recorded_at: recorded.recorded_at,
            origin: recorded.origin.clone(),
        };
        let performing = self.subscriber.perform(&recorded.body, &cause);
        let result: Result<Outcome, Failure> = self.guarded(self.settings.effect_timeout, performing).await;
        Performed { effect, result, at: clock.now() }
    }

    /// A panic and a time-out are failures like others, and may be over at the next attempt.
    async fn guarded<T>(&self, limit: Duration, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        match timeout(limit, catching(&self.path, work)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::transient(too_long(limit))),
        }
    }
}

/// How long the handlers of one batch are waited for.
struct Patience {
    whole: Duration,
    left: Duration,
    slow_in_a_row: u32,
}

impl Patience {
    fn new(whole: Duration) -> Self {
        Self { whole, left: whole * PATIENCES_PER_BATCH, slow_in_a_row: 0 }
    }

    /// For the next one.
    fn next(&self) -> Duration {
        self.whole / 2_u32.pow(self.slow_in_a_row.min(PATIENCE_HALVED_MAX))
    }

    fn spent(&mut self, on_one: Duration) {
        self.slow_in_a_row = self.slow_in_a_row.saturating_add(1);
        self.left = self.left.saturating_sub(on_one);
    }

    fn was_rewarded(&mut self) {
        self.slow_in_a_row = 0;
    }

    fn is_spent(&self) -> bool {
        self.left.is_zero()
    }
}

/// All of them, or none: one that the store refuses would keep everything else of the transaction out as well.
fn recordable(effects: Vec<Body>) -> Result<Vec<Body>, Failure> {
    match effects.iter().enumerate().find(|(_, effect)| effect.len() > BODY_BYTES_MAX) {
        None => Ok(effects),
        Some((index, effect)) => Err(Failure::permanent(format!(
            "effect {index}: it has {} bytes, more than the {BODY_BYTES_MAX} that are stored",
            effect.len()
        ))),
    }
}

fn too_long(limit: Duration) -> String {
    format!("it took longer than {} ms", limit.as_millis())
}

async fn catching<T>(path: &Arc<str>, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut work = pin!(work);
    poll_fn(|cx| match caught(path, || work.as_mut().poll(cx)) {
        Ok(poll) => poll,
        Err(panic) => Poll::Ready(Err(Failure::panicked(&panic.text, &panic.place))),
    })
    .await
}

fn decode(event: &Envelope) -> Result<OrderEvent, DecodeError> {
    event.decode()
}

fn undecoded(error: &DecodeError) -> EventResult {
    match error {
        DecodeError::UnknownType { .. } => EventResult::Passed,
        DecodeError::FromTheFuture { .. } | DecodeError::Unreadable { .. } => {
            EventResult::Undecodable(Failure::permanent(error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::FailureKind;

    #[test]
    fn effects_of_the_largest_size_are_recorded_and_one_byte_more_is_refused() {
        let of_bytes = |bytes| Body::from("x".repeat(bytes));
        let effects = vec![of_bytes(BODY_BYTES_MAX), of_bytes(1)];
        assert_eq!(recordable(effects.clone()), Ok(effects.clone()));
        let failure = recordable([effects, vec![of_bytes(BODY_BYTES_MAX + 1)]].concat()).expect_err("it is too large");
        assert_eq!(failure.kind, FailureKind::Permanent);
        assert_eq!(failure.text, "effect 2: it has 8388609 bytes, more than the 8388608 that are stored");
    }
}
