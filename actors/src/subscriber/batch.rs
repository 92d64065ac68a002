//! Lets a subscriber handle the events of a batch, one after another, on one overlay of its documents. A handler that
//! fails, panics or takes too long leaves nothing behind, and its order's later events are left out; the others go on.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::engine::{EventResult, Handled, Performed};
use super::overlay::Overlay;
use super::registry::Erased;
use super::settings::Settings;
use super::{Cause, Event, Failure, Outcome};
use crate::clock::Clock;
use crate::event::Envelope;
use crate::inbox::{DocumentKey, Generation, Inbox, RecordedEffect};
use crate::order::event::DecodeError;
use crate::order::{OrderEvent, OrderId};
use crate::supervisor::panic::caught;

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
    /// Handles the events until the limits of a transaction are reached; at least one.
    ///
    /// # Errors
    /// When the documents that were asked for beforehand cannot be read.
    pub(crate) async fn handle(&self, events: Vec<Arc<Envelope>>) -> Result<Handled, Failure> {
        let decoded: Vec<_> = events.iter().map(|event| decode(event)).collect();
        let mut overlay = Overlay::new(self.inbox.clone(), self.generation);
        overlay.fetch(self.reads(&events, &decoded)).await?;
        let mut failed: HashMap<OrderId, Failure> = HashMap::new();
        let mut results = Vec::with_capacity(events.len());
        let mut bytes = 0;
        for (envelope, event) in events.iter().zip(&decoded) {
            let result = match (failed.get(&envelope.order), event) {
                (Some(failure), _) => EventResult::Failed(failure.clone()),
                (None, Ok(event)) => self.event(&Event { envelope, event }, &mut overlay).await,
                (None, Err(error)) => undecoded(error),
            };
            match &result {
                EventResult::Applied { effects } => bytes += effects.iter().map(|effect| effect.len()).sum::<usize>(),
                EventResult::Passed => {}
                EventResult::Failed(failure) | EventResult::Undecodable(failure) => {
                    // Of an order's events the first is to blame; those behind it only wait.
                    failed.entry(envelope.order).or_insert_with(|| failure.clone());
                }
            }
            results.push(result);
            if overlay.changed_documents() >= self.settings.batch_documents_max
                || overlay.changed_bytes() + bytes >= self.settings.batch_bytes_max
            {
                break;
            }
        }
        Ok(Handled { results, documents: overlay.into_writes() })
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

    async fn event(&self, event: &Event<'_>, overlay: &mut Overlay) -> EventResult {
        let mut layer = overlay.layer();
        let handled = self.guarded(self.settings.handler_timeout, self.subscriber.handle(event, &mut layer)).await;
        let changes = layer.into_changes();
        match handled {
            Ok(effects) => {
                overlay.keep(changes);
                EventResult::Applied { effects }
            }
            Err(failure) => EventResult::Failed(failure),
        }
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
        match tokio::time::timeout(limit, catching(&self.path, work)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::transient(too_long(limit))),
        }
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
